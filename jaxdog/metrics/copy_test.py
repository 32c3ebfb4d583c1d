"""Tests whether generated images are copies of training photos, and reports reasons and evidence.

Banned entries of 2019 submitted crops, mirror images and blends of training photos, which pass MiFID's
threshold. `copy_search.find` matches images to photos; the one-sided test here counts the matches.

The threshold on the similarity is from measurements on 18,547 Stanford Dogs, cropped to their first box. A
similarity of 0.75 is reached by 2.9 % of real photos that are searched for among the others (near-duplicates
in the data set), by no sample of a GAN early in training (at most 0.60), by 84 to 99.6 % of the crops of
three memorizers of 2019, and by 94 % of blends at 0.7 : 0.3. The null hypothesis is therefore that images are
copies as often as real photos are (leave-one-out).
"""

import math
from typing import NamedTuple

import jax
import numpy as np

from jaxdog.metrics import copy_search, neighbors
from jaxdog.utils import errors

Array = jax.Array

COPY_SIMILARITY = 0.75  # an image with at least this similarity counts as a copy
MAX_P_VALUE = 1e-4  # a smaller p-value is evidence of copies
MIN_COPIED_SHARE = 0.01  # lower bound on the null hypothesis's fraction of copies
# Thresholds on the mean memorization distance. Of the submissions of 2019, 446 of the 498 labeled as cheats
# are below each, and none of the 497 others.
SIZE = "64x64"  # of the images in 2019, for which the thresholds are
CHEAT_DISTANCES = {"public": 0.15, "private": 0.25}
REAL_DISTANCE_RATIO = 0.9  # the distance must also be below this ratio of that among real photos


class Evidence(NamedTuple):
    """An image and the most similar part of a photo."""

    image: int  # row of the generated images
    photo: int  # row of the photos
    view: str  # the part of the photo, in words
    window: tuple[float, float, float, float]  # top, left, bottom, right as fractions of the photo
    mirrored: bool
    similarity: float
    distance: float | None  # the image's memorization distance; None without features


class DistanceEvidence(NamedTuple):
    """Mean memorization distances, which are compared with CHEAT_DISTANCES."""

    public: float | None = None  # with the public leaderboard's network, at 64 x 64
    private: float | None = None  # with the private leaderboard's network
    weights_kind: str = "published"  # the network's; the thresholds only hold for published weights
    real_distance: float | None = None  # among real photos (leave-one-out); None: unknown
    size: str = SIZE  # of the images


class CopyTestResult(NamedTuple):
    """The decision and what it is based on."""

    is_copy: bool
    reasons: tuple[str, ...]  # () without evidence of copies
    notes: tuple[str, ...]  # small distances that are not evidence, and why
    copied_share: float  # fraction of generated images with at least COPY_SIMILARITY
    baseline_share: float  # fraction of real photos with at least COPY_SIMILARITY to another one
    evidence: tuple[Evidence, ...]  # the most similar pairs first, whatever the decision


def authentic(fake: Array, real: Array, block: int = neighbors.BLOCK) -> Array:
    """[n] bool: whether the nearest real image of a generated one is closer to another real image.

    For features [n, d] and [m, d]. The mean is AuthPct, near 0 for copies (Alaa et al. 2022,
    arXiv:2102.08921).
    """
    nearest = neighbors.nearest(fake, real, "euclidean", block)
    among_real = neighbors.nearest(real, real, "euclidean", block, exclude_self=True)
    return nearest.distance > among_real.distance[nearest.index]


def copy_test(
    match: copy_search.Match,
    baseline: np.ndarray,
    distances: np.ndarray | None = None,
    mean_distances: DistanceEvidence = DistanceEvidence(),  # noqa: B008
    max_evidence: int = 32,
) -> CopyTestResult:
    """Decides, on the host, whether matched images are copies.

    They are if the number of copies has a p-value below MAX_P_VALUE, under the null hypothesis that images
    are copies as often as real photos are (binomial test), or if a mean memorization distance is below its
    threshold in CHEAT_DISTANCES.

    Args:
      match: the match of each of the n generated images.
      baseline: [m] similarity of real photos to the others (leave-one-out); at least a few hundred.
      distances: [n] memorization distance of each image, reported in the evidence.
      mean_distances: mean distances, compared with their thresholds.
      max_evidence: maximum number of pairs in the evidence.
    """
    similarity, baseline = np.asarray(match.similarity), np.asarray(baseline)
    if len(similarity) == 0 or len(baseline) == 0:
        raise errors.UserError(
            f"a copy test needs images and a baseline, but there are {len(similarity)} images and "
            f"{len(baseline)} baseline photos"
        )
    copied, n = int((similarity >= COPY_SIMILARITY).sum()), len(similarity)
    share = float((baseline >= COPY_SIMILARITY).mean())
    null_share = max(MIN_COPIED_SHARE, _wilson_upper(share, len(baseline)))
    reasons = []
    if _log_binomial_tail(copied, n, null_share) < math.log(MAX_P_VALUE):
        reasons.append(
            f"{copied} of {n} images ({copied / n:.1%}) are copies of a part of a training photo; of the "
            f"real photos, {share:.1%} are as similar to another one (upper bound, 3 standard errors: "
            f"{null_share:.1%})"
        )
    more_reasons, notes = _distance_test(mean_distances)
    reasons += more_reasons
    evidence = _evidence(match, distances, max_evidence)
    return CopyTestResult(bool(reasons), tuple(reasons), tuple(notes), copied / n, share, evidence)


def _distance_test(given: DistanceEvidence) -> tuple[list[str], list[str]]:
    """(reasons, notes) for each mean distance below its threshold."""
    reasons, notes = [], []
    for board, distance in (("public", given.public), ("private", given.private)):
        threshold, real = CHEAT_DISTANCES[board], given.real_distance
        if distance is None or distance >= threshold:
            continue
        text = f"the memorization distance {distance:.4f} is below {threshold} ({board} leaderboard)"
        if real is not None and distance >= REAL_DISTANCE_RATIO * real:
            notes.append(f"{text}, but real photos are as close to each other ({real:.4f})")
        elif given.size != SIZE:
            notes.append(f"{text}, but this threshold is for images of {SIZE}, and these are {given.size}")
        elif given.weights_kind == "published":
            reasons.append(
                f"{text}, as for 446 of the 498 submissions of 2019 labeled as cheats and none of the others"
            )
        else:
            notes.append(
                f"{text}, but this threshold is for published weights, and these are {given.weights_kind}"
            )
    return reasons, notes


def _wilson_upper(share: float, n: int, z: float = 3.0) -> float:
    """The upper bound of Wilson's score interval at z standard errors, for a fraction of n trials."""
    half_width = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (share + z * z / (2 * n) + half_width) / (1 + z * z / n)


def _log_binomial_tail(k: int, n: int, p: float) -> float:
    """log P(X >= k) for X ~ Binomial(n, p)."""
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


def _evidence(match: copy_search.Match, distances: np.ndarray | None, count: int) -> tuple[Evidence, ...]:
    photo, windows, mirrored, similarity = (np.asarray(x) for x in match)
    evidence = []
    for i in np.argsort(-similarity, kind="stable")[:count].tolist():
        top, left, bottom, right = windows[i].tolist()
        window, is_mirrored = (top, left, bottom, right), bool(mirrored[i])
        view = _in_words(window) + (", mirrored" if is_mirrored else "")
        distance = None if distances is None else float(distances[i])
        evidence.append(Evidence(i, int(photo[i]), view, window, is_mirrored, float(similarity[i]), distance))
    return tuple(evidence)


def _in_words(window: tuple[float, float, float, float]) -> str:
    top, left, bottom, right = window
    if max(abs(top), abs(left), abs(bottom - 1), abs(right - 1)) < 0.01:
        return "whole"
    return f"rows {top:.0%} to {bottom:.0%}, columns {left:.0%} to {right:.0%}"
