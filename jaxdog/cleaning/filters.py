"""Which crops to train on: filters, duplicates, a list of intruders; and the table that remembers it.

Entries of 2019 looked at their photos first: boxes too small or too long, files too large, the same photo
twice, people where a dog should be. What is decided here is written to `clean.csv` (see `tables.py`), and any
config trains on it (`curate.from_csv`).
"""

import concurrent.futures
import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tqdm

from jaxdog.data import photos, tables

log = logging.getLogger(__name__)

# How reasons begin. Copies of what stays are of two kinds: equal in every pixel, and nearly the same.
KINDS = SIDE, ASPECT, BYTES, INTRUDER, EQUAL, LIKE = (
    *("side", "height / width", "file of", "intruder"),
    *("duplicate of", "like"),
)
METHODS = ("none", "pixels", "segments", "features", "labels")


class Settings(NamedTuple):
    """--clean.*: what is dropped, and how crops are put into clusters."""

    min_side: int = 1  # boxes whose short side has fewer pixels are dropped
    min_aspect: float = 0.2  # boxes whose height / width is outside these limits are dropped; the 1st place's
    max_aspect: float = 4.0
    max_bytes_percentile: float = 100.0  # photos whose file is larger than this percentile are dropped
    duplicates: bool = True  # of crops equal in every pixel the first stays
    near_duplicates: float = 0.75  # of photos whose crops are as alike as this the first stays; 0: all stay
    intruders: str = ""  # file of names to drop, one a line: of photos, or of crops as photo:number
    method: str = "pixels"  # of clustering: one of METHODS
    size: int = 32  # pixels on a side at which methods "pixels" and "segments" look
    components: int = 64  # principal components, at most
    k: int = 8  # clusters
    seed: int = 0
    weights: str = ""  # "features": a file of VGG16's weights; "": Inception with config.eval.weights
    labels: str = ""  # "labels": the file that mode label wrote; "": labels.csv of the work folder
    sheet: int = 100  # crops on each contact sheet


class Facts(NamedTuple):
    """What is known of each crop besides its pixels."""

    box: np.ndarray  # int32 [n, 4], within the photo
    photo: np.ndarray  # int32 [n, 2], height and width of its photo
    bytes: np.ndarray  # int64 [n], of its photo's file; 0: it has none
    look: np.ndarray | None  # [n, ...], what `survey` was asked to look at


def check(settings: Settings) -> None:
    """Raises ValueError for a setting out of its limits."""
    limits: dict[str, tuple[float, float]] = {
        "min_side": (1, np.inf),
        "min_aspect": (0, settings.max_aspect),
        "max_bytes_percentile": (0, 100),
        "near_duplicates": (0, 1),
        "size": (1, 1024),
        "components": (1, np.inf),
        "k": (1, np.inf),
        "seed": (0, 2**31 - 1),
        "sheet": (1, np.inf),
    }
    for name, (low, high) in limits.items():
        value = getattr(settings, name)
        if not low <= value <= high:
            raise ValueError(f"clean.{name} is {value}, and must be from {low:g} to {high:g}")
    if settings.method not in METHODS:
        raise ValueError(f"clean.method is {settings.method!r}; choices: {', '.join(METHODS)}")


# ------------------------------------------------------------------------------------- facts


def survey(
    source: photos.Source,
    crops: photos.Crops,
    look: Callable[[np.ndarray, photos.Box], np.ndarray] | None = None,
    workers: int | None = None,
) -> Facts:
    """Reads every photo that has crops once more, in threads.

    Args:
      source: the photos.
      crops: what was made of them.
      look: (photo uint8 [h, w, 3], box within it) -> an array, the same shape for each crop.
      workers: threads; default: one per core.

    Raises ValueError for crops that do not know their boxes.
    """
    if crops.box is None:
        raise ValueError("the crops do not know which boxes they were made of")
    wanted, of = crops.box, {}
    for row, photo in enumerate(crops.photo.tolist()):
        of.setdefault(photo, []).append(row)

    def one(i: int) -> tuple[list[int], int, list[tuple[np.ndarray, Any]]]:
        photo = source.photos[i]
        pixels = photo.read()
        h, w, _ = pixels.shape
        found = []
        for row in of[i]:
            low, high = np.clip(wanted[row, :2], 0, (w, h)), np.clip(wanted[row, 2:], 0, (w, h))
            xmin, ymin, xmax, ymax = box = *low.tolist(), *high.tolist()
            empty = xmin >= xmax or ymin >= ymax
            found.append((box, look(pixels, (0, 0, w, h) if empty else box) if look else None))
        return [h, w], photo.bytes, found

    box = np.zeros((len(wanted), 4), np.int32)
    extents, size = np.zeros((len(box), 2), np.int32), np.zeros(len(box), np.int64)
    seen: list[Any] = [None] * len(box)
    pool = concurrent.futures.ThreadPoolExecutor(workers or os.cpu_count() or 1)
    try:
        results = pool.map(one, of)
        bar = tqdm.tqdm(results, "looking at photos", len(of), unit="photo", leave=False, disable=None)
        for rows, (extent, count, found) in zip(of.values(), bar, strict=True):
            extents[rows], size[rows] = extent, count
            for row, (place, looked) in zip(rows, found, strict=True):
                box[row], seen[row] = place, looked
    finally:
        pool.shutdown(cancel_futures=True)
    return Facts(box, extents, size, np.stack(seen) if look else None)


def shares(facts: Facts) -> np.ndarray:
    """float [n]: of its photo's area that each crop's box takes; a dog near the camera has a large one."""
    sides = (facts.box[:, 2:] - facts.box[:, :2]).astype(float)
    return sides.prod(axis=1) / facts.photo.astype(float).prod(axis=1)


def numbers(photo: np.ndarray) -> np.ndarray:
    """int [n]: the how manyth crop of its photo each is, from 0."""
    return tables.running(photo.tolist())


# ------------------------------------------------------------------------------------- filters


Reasons = list[list[str]]  # of each crop, why it is dropped


def filtered(crops: photos.Crops, facts: Facts, settings: Settings) -> Reasons:
    """What boxes, files and the list of intruders say against each crop; then equal crops but the first.

    Raises ValueError for a list of intruders none of which is there, FileNotFoundError for one that is not.
    """
    reasons: Reasons = [[] for _ in crops.photo]
    width, height = (facts.box[:, 2:] - facts.box[:, :2]).T
    side = np.minimum(width, height)
    _add(reasons, side < settings.min_side, lambda i: f"{SIDE} {side[i]} px")
    aspect = height / np.maximum(width, 1)
    outside = (aspect < settings.min_aspect) | (aspect > settings.max_aspect) | (width == 0)
    _add(reasons, outside, lambda i: f"{ASPECT} {aspect[i]:.3g}")
    if settings.max_bytes_percentile < 100 and not facts.bytes.any():
        raise ValueError("clean.max_bytes_percentile is below 100, and these photos are no files: say 100")
    _, first = np.unique(crops.photo, return_index=True)  # every photo counts once
    limit = np.percentile(facts.bytes[first], settings.max_bytes_percentile)
    _add(reasons, facts.bytes > limit, lambda i: f"{BYTES} {facts.bytes[i]} bytes")
    if settings.intruders:
        _add(reasons, intruders(settings.intruders, names(crops)), lambda i: INTRUDER)
    if settings.duplicates:
        drop_copies(reasons, duplicates(crops.image, kept(reasons)), names(crops), EQUAL)
    return reasons


def kept(reasons: Reasons) -> np.ndarray:
    """bool [n]: nothing speaks against it."""
    return np.asarray([not why for why in reasons])


def names(crops: photos.Crops) -> list[str]:
    """Each crop's name: its photo's, a colon, its number among the photo's crops."""
    return [f"{crops.names[p]}:{k}" for p, k in zip(crops.photo, numbers(crops.photo), strict=True)]


def intruders(path: str, known: Sequence[str]) -> np.ndarray:
    """bool [n]: which of the crops a file names, itself or its photo; empty lines and # comments are skipped.

    The file may have been made for more photos than there are: names that are not there are counted in the
    log. That none is there is a mistake, and raises ValueError.
    """
    lines = [line.strip() for line in tables.text(path, "a list of intruders").splitlines()]
    wanted = {line for line in lines if line and not line.startswith("#")}
    found = np.asarray([name in wanted or name.rpartition(":")[0] in wanted for name in known])
    there = {*known, *(name.rpartition(":")[0] for name in known)}
    missing = sorted(wanted - there)
    if wanted and not wanted & there:
        raise ValueError(
            f"none of the {len(wanted)} names in {path} is that of a photo or a crop ({missing[0]!r}, ...); "
            f"they look like {known[0].rpartition(':')[0]!r} or {known[0]!r}"
        )
    if missing:
        log.info("%d of the %d names in %s are not there", len(missing), len(wanted), path)
    return found


def duplicates(image: np.ndarray, among: np.ndarray) -> np.ndarray:
    """int [n]: the first of the crops [n, s, s, 3] with the same pixels; itself for those not `among`."""
    first, of = {}, np.arange(len(image))
    for i in np.flatnonzero(among):
        digest = hashlib.sha256(np.ascontiguousarray(image[i]).tobytes()).digest()
        of[i] = first.setdefault(digest, i)
    return of


def groups(other: np.ndarray, alike: np.ndarray) -> np.ndarray:
    """int [n]: the first of each crop's group; i and other[i] are in one where alike[i] (bool [n])."""
    of = np.arange(len(other))

    def head(i: int) -> int:
        while of[i] != i:
            of[i] = of[of[i]]
            i = int(of[i])
        return i

    for i in np.flatnonzero(alike).tolist():
        a, b = head(i), head(int(other[i]))
        of[max(a, b)] = min(a, b)
    return np.asarray([head(i) for i in range(len(of))], int)


def drop_copies(reasons: Reasons, first: np.ndarray, known: Sequence[str], word: str) -> None:
    """Of each group all but the first: `first` is int [n], `known` the crops' names."""
    _add(reasons, first != np.arange(len(first)), lambda i: f"{word} {known[first[i]]}")


def _add(reasons: Reasons, against: np.ndarray, why: Callable[[int], str]) -> None:
    for i in np.flatnonzero(against).tolist():
        reasons[i].append(why(i))


def table(crops: photos.Crops, facts: Facts, reasons: Reasons, cluster: np.ndarray) -> tables.Table:
    """What was decided, in the order of the crops; `cluster` is int [n]."""
    return tables.Table(
        tuple(crops.names[p] for p in crops.photo),
        crops.photo,
        numbers(crops.photo),
        np.asarray(crops.box),
        shares(facts),
        kept(reasons),
        cluster,
        tuple("; ".join(why) for why in reasons),
    )
