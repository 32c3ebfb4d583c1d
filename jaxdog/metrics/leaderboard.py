"""Where a score would have stood among the 1,666 scored entries of the competition, in 2019.

The public leaderboard used Inception and the competition's own photos, so that its MiFID can be computed
today. The private one used NASNet and photos that were never published. 495 entries were disqualified after
the end, as they copied training photos; they are counted apart. The scores are in
`leaderboard_2019.json`, rounded.
"""

import bisect
import functools
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxdog.utils import errors

FILE = pathlib.Path(__file__).with_name("leaderboard_2019.json")
BOARDS = ("public", "private")
IMAGES, SIZE = 10_000, "64x64"  # of a submission
PHOTOS, CLASSES = (20_579, 20_580), 120  # of the competition, and of Stanford Dogs, which has one photo more
RESAMPLERS = ("lanczos", "tf1-bilinear")  # one of which resized the photos; it is not known which
EPS = 0.1  # MiFID's threshold on the public leaderboard


class Entry(NamedTuple):
    """An entry that one of our configs reproduces."""

    system: str
    config: str
    public: float
    private: float


class Board(NamedTuple):
    """The scores of one leaderboard, lower is better."""

    kept: Sequence[float]  # in ascending order
    disqualified: Sequence[float]  # in ascending order; () on the private leaderboard, where they have none
    known: Sequence[tuple[float, Entry]]  # in ascending order


class Place(NamedTuple):
    """A place, counted from 1; entries with an equal score come after it."""

    rank: int  # among all entries that have a score on this leaderboard
    entries: int
    rank_of_kept: int  # among those that were not disqualified
    kept: int
    before: Entry | None  # the nearest known entry that is better
    after: Entry | None  # and the nearest that is not


@functools.cache
def load(name: str = "public") -> Board:
    """One of BOARDS; raises UserError for another name."""
    if name not in BOARDS:
        raise errors.UserError(f"{name} is not a leaderboard; choices: {', '.join(BOARDS)}")
    content = json.loads(FILE.read_text(encoding="utf-8"))
    known = [Entry(**entry) for entry in content["known"]]
    scored = sorted((getattr(entry, name), entry) for entry in known)
    return Board(content[name]["kept"], content[name]["disqualified"], scored)


def place(score: float, board: Board) -> Place:
    """Where a score would have stood."""
    kept = bisect.bisect_left(board.kept, score)
    every = kept + bisect.bisect_left(board.disqualified, score)
    at = bisect.bisect_left([known for known, _ in board.known], score)
    return Place(
        every + 1,
        len(board.kept) + len(board.disqualified),
        kept + 1,
        len(board.kept),
        board.known[at - 1][1] if at else None,
        board.known[at][1] if at < len(board.known) else None,
    )


def standing(
    scores: Mapping[str, Any], class_names: Sequence[str] = (), eps: float | None = None
) -> dict[str, Any]:
    """The place of the MiFID among `scores` on the public leaderboard, or why it has none.

    Args:
      scores: as `score_files.score` returns them.
      class_names: those of the real side.
      eps: MiFID's threshold; None: the network's own.

    Returns {"leaderboard": ...} with "rank", "entries", "rank_of_kept" and "kept" as in `Place` ("rank" is
    None without a place) and "text", one sentence; {} if there is no MiFID.
    """
    if not any("mifid" in name for name in scores):
        return {}
    reason = why_not(scores, class_names, eps)
    if reason:
        return {"leaderboard": {"rank": None, "text": f"no place on the leaderboard of 2019: {reason}"}}
    found = place(scores["mifid"], load())
    near = [f"before {found.after.system} ({found.after.public:.2f})"] if found.after else []
    near += [f"after {found.before.system} ({found.before.public:.2f})"] if found.before else []
    text = (
        f"place {found.rank:,} of {found.entries:,} on the public leaderboard of 2019, and "
        f"{found.rank_of_kept:,} of the {found.kept:,} entries that were not disqualified; "
        + " and ".join(near)
    )
    ranks = {name: getattr(found, name) for name in ("rank", "entries", "rank_of_kept", "kept")}
    return {"leaderboard": {**ranks, "text": text}}


def why_not(scores: Mapping[str, Any], class_names: Sequence[str] = (), eps: float | None = None) -> str:
    """Why scores are not those of the public leaderboard, as the rest of a sentence; "" if they are."""
    network, kind = scores.get("network"), scores.get("weights_kind")
    if network == "nasnet":
        return "the private one's photos were never published"
    if network != "inception":
        return f"it resized images as Inception's graph of 2015 does, and these are scores of {network}"
    if kind != "published":
        return f"it used Inception's published weights, and these are {kind} ones"
    if not _are_dogs(str(scores.get("real_source")), class_names) or scores.get("real") not in PHOTOS:
        real = scores.get("real")
        photos = f"{real:,} others" if isinstance(real, int) else "others"
        return f"its real photos are all {PHOTOS[0]:,} of the competition, and these are {photos}"
    if scores.get("size") != SIZE:
        return f"its images have {SIZE} pixels, and these {scores.get('size')}"
    if scores.get("resampler", RESAMPLERS[0]) not in RESAMPLERS:
        these = "not resized" if scores["resampler"] == "none" else f"resized by {scores['resampler']}"
        return f"its photos were resized by {' or '.join(RESAMPLERS)}, and these were {these}"
    if scores.get("samples") != IMAGES:
        return f"it scored {IMAGES:,} images, and these are {scores.get('samples'):,}"
    if eps not in (None, EPS):
        return f"its MiFID has the threshold {EPS}, and this one {eps:g}"
    return "" if scores.get("mifid") is not None else "MiFID is undefined"


def _are_dogs(source: str, class_names: Sequence[str]) -> bool:
    """Whether photos are Stanford Dogs, by the key of their source, or by ImageNet's names of the breeds."""
    breeds = [name for name in class_names if re.match(r"n\d{8}", name)]
    return source.startswith(("tfds-stanford_dogs-", "kaggle-")) or len(breeds) == CLASSES
