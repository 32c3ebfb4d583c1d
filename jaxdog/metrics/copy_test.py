"""Were training photos copied? A verdict on generated pictures, with its reasons and its evidence.

The cheats of 2019 showed crops, mirror images and blends of training photos, which MiFID's threshold let
pass. `copies.find` sees through such disguises; here its findings are weighed.

Measured on 18,547 Stanford Dogs (crops to their first box): likeness 0.75 is reached by 2.9 % of photos never
seen, which are the set's own twins, by no sample of a young GAN (at most 0.60), by 84 to 99.6 % of the crops
of 2019's three memorizers, and by 94 % of blends at 0.7 : 0.3. So a few copies prove nothing, and the verdict
asks whether there are more than among real photos, each left out in turn.
"""

import math
from typing import NamedTuple

import jax
import numpy as np

from jaxdog.metrics import copy_search, neighbors

Array = jax.Array

COPY = 0.75  # likeness of edges from which a picture counts as a copy
DOUBT = 1e-4  # an accusation needs a chance below this that an honest generator gives as many copies
FLOOR = 0.01  # share of copies that no honest generator is accused for, whatever the baseline says
# The mean memorization distance below which submissions of 2019 were cheats: each rule catches 446 of the
# 498 labelled cheats and none of the 497 honest submissions.
RULES = {"public": 0.15, "private": 0.25}
NEARER = 0.9  # they accuse only what is nearer than this share of the distance of real photos never seen


class Evidence(NamedTuple):
    """One picture beside the photo it resembles."""

    image: int  # row of the generated pictures
    photo: int  # row of the photos
    view: str  # the part of the photo, in words
    window: tuple[float, float, float, float]
    mirrored: bool
    likeness: float
    distance: float | None  # its memorization distance, where features were given


class Verdict(NamedTuple):
    """Whether the pictures are copies, why, and what to look at."""

    accused: bool
    reasons: tuple[str, ...]  # of the accusation; without any: "no evidence"
    notes: tuple[str, ...]  # what could not be judged, and why
    copied_share: float  # of the generated pictures, likeness of at least COPY
    baseline_share: float  # of real photos that reach it with another real photo
    evidence: tuple[Evidence, ...]  # the most alike first, whatever the verdict


# ------------------------------------------------------------------------------------- features


def authentic(fake: Array, real: Array, block: int = neighbors.BLOCK) -> Array:
    """Features [n, d], [m, d] -> [n] bool: its nearest real row has another real row that is nearer still.

    The mean is AuthPct, near 0 for copies (Alaa et al. 2022, arXiv:2102.08921).
    """
    nearest = neighbors.nearest(fake, real, "euclidean", block)
    alone = neighbors.nearest(real, real, "euclidean", block, exclude_self=True)
    return nearest.distance > alone.distance[nearest.index]


# ------------------------------------------------------------------------------------- the verdict


def verdict(
    match: copy_search.Match,
    baseline: np.ndarray,
    distances: np.ndarray | None = None,
    public: float | None = None,
    private: float | None = None,
    weights: str = "published",
    unseen: float | None = None,
    rows: int = 32,
) -> Verdict:
    """Copied, or no evidence? On the host, from what `copies.find` found.

    Accused if more pictures are copies than chance allows (one in 10,000) for a generator that copies as
    often as real photos repeat each other, or if a mean distance breaks its rule of 2019.

    Args:
      match: of the generated pictures.
      baseline: [m] likeness of real photos, each left out in turn; a few hundred at least.
      distances: [n] memorization distance of each picture, for the evidence.
      public: mean memorization distance on the public leaderboard's network, 64 x 64.
      private: the same on the private one's.
      weights: kind of the feature network; only "published" ones are held to the rules.
      unseen: mean memorization distance of the real photos, each left out in turn. Real photos of the same
        breeds may lie nearer than the rules allow; nobody is accused of a distance that they have too.
      rows: pieces of evidence to keep.
    """
    likeness, baseline = np.asarray(match.likeness), np.asarray(baseline)
    if len(likeness) == 0 or len(baseline) == 0:
        raise ValueError(f"a verdict on {len(likeness)} pictures with a baseline of {len(baseline)} photos")
    copied, n = int((likeness >= COPY).sum()), len(likeness)
    share = float((baseline >= COPY).mean())
    allowed = max(FLOOR, _upper(share, len(baseline)))
    reasons, notes = [], []
    if _log_tail(copied, n, allowed) < math.log(DOUBT):
        reasons.append(
            f"{copied} of {n} pictures ({copied / n:.1%}) are copies of a part of a training photo; of real "
            f"photos {share:.1%} resemble another one as much, and chance allows {allowed:.1%}"
        )
    for board, distance in (("public", public), ("private", private)):
        if distance is None or distance >= RULES[board]:
            continue
        told = f"the memorization distance {distance:.4f} is below {RULES[board]} ({board} leaderboard)"
        if unseen is not None and distance >= NEARER * unseen:
            notes.append(f"{told}, but real photos lie as near to each other ({unseen:.4f})")
        elif weights == "published":
            reasons.append(f"{told}, as of 446 of the 498 cheats of 2019 and of no honest submission")
        else:
            notes.append(
                f"{told}, but the rule holds for the published network and these weights are {weights}"
            )
    return Verdict(
        bool(reasons), tuple(reasons), tuple(notes), copied / n, share, _evidence(match, distances, rows)
    )


def _upper(share: float, n: int, z: float = 3.0) -> float:
    """The upper end of Wilson's interval for a share seen among n, z standard errors wide."""
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (share + z * z / (2 * n) + spread) / (1 + z * z / n)


def _log_tail(k: int, n: int, p: float) -> float:
    """log of the chance of k or more successes among n, each with chance p."""
    if k == 0 or p >= 1:
        return 0.0
    logs = [
        math.lgamma(n + 1)
        - math.lgamma(i + 1)
        - math.lgamma(n - i + 1)
        + i * math.log(p)
        + (n - i) * math.log1p(-p)
        for i in range(k, n + 1)
    ]
    top = max(logs)
    return top + math.log(math.fsum(math.exp(x - top) for x in logs))


def _evidence(match: copy_search.Match, distances: np.ndarray | None, rows: int) -> tuple[Evidence, ...]:
    photo, windows, mirrored, likeness = (np.asarray(x) for x in match)
    found = []
    for i in np.argsort(-likeness, kind="stable")[:rows].tolist():
        top, left, bottom, right = windows[i].tolist()
        window, turned = (top, left, bottom, right), bool(mirrored[i])
        view = _words(window) + (", mirrored" if turned else "")
        distance = None if distances is None else float(distances[i])
        found.append(Evidence(i, int(photo[i]), view, window, turned, float(likeness[i]), distance))
    return tuple(found)


def _words(window: tuple[float, float, float, float]) -> str:
    """A window as a reader of the report wants it."""
    top, left, bottom, right = window
    if max(abs(top), abs(left), abs(bottom - 1), abs(right - 1)) < 0.01:
        return "whole"
    return f"rows {top:.0%} to {bottom:.0%}, columns {left:.0%} to {right:.0%}"
