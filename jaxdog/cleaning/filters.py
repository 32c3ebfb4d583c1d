"""Filters of training crops: by size, file and name, and exact and near duplicates.

The decisions are written to `clean.csv` (see `data/tables.py`), which any config can train on
(`data/select.py`, `from_csv`).
"""

import hashlib
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxdog.cleaning import filter_options
from jaxdog.data import crop_dataset, photos, tables
from jaxdog.utils import errors, integers

log = logging.getLogger(__name__)

# Each reason starts with one of these.
REASONS = SIDE, ASPECT, BYTES, BLOCKLIST, DUPLICATE, NEAR_DUPLICATE = (
    *("side", "height / width", "file of", "blocklist"),
    *("duplicate of", "near duplicate of"),
)
METHODS = filter_options.METHODS
Settings = filter_options.Settings

Reasons = list[list[str]]  # [n], reasons to drop each crop; an empty list: it is kept


class CropFacts(NamedTuple):
    """Data about each crop for the filters, besides its pixels."""

    box: np.ndarray  # int32 [n, 4], clipped to the photo
    photo_size: np.ndarray  # int32 [n, 2], height and width of its photo
    num_bytes: np.ndarray  # int64 [n], size of its photo's file; 0: the photo is not a file
    view: np.ndarray | None  # [n, ...], results of `view` in `measure`


def check(settings: Settings) -> None:
    """Raises errors.UserError for a setting that is out of range."""
    limits: dict[str, tuple[float, float]] = {
        "min_side": (1, np.inf),
        "min_aspect": (0, settings.max_aspect),
        "max_bytes_percentile": (0, 100),
        "near_duplicates": (0, 1),
        "size": (1, 1024),
        "num_components": (1, np.inf),
        "num_clusters": (1, np.inf),
        "seed": (0, integers.MAX_SEED),
        "sheet_size": (1, np.inf),
    }
    for name, (low, high) in limits.items():
        value = getattr(settings, name)
        if not low <= value <= high:
            raise errors.UserError(f"{name} is {value}, and must be from {low:g} to {high:g}")
    if settings.method not in METHODS:
        raise errors.UserError(f"method is {settings.method!r}; choices: {', '.join(METHODS)}")


# ------------------------------------------------------------------------------------- facts


def measure(
    source: photos.Source,
    crops: crop_dataset.CropDataset,
    view: Callable[[np.ndarray, photos.Box], np.ndarray] | None = None,
    workers: int | None = None,
) -> CropFacts:
    """Measures all crops; reads each photo with crops again, in threads.

    Args:
      source: the photos.
      crops: their crops.
      view: (photo uint8 [h, w, 3], box within it) -> an array of the same shape for each crop; None: no view.
      workers: number of threads; None or 0: one per core.

    Raises errors.UserError if the boxes of the crops are unknown, or if a photo cannot be read any more.
    """
    if crops.box is None:
        raise errors.UserError("the boxes of these crops are unknown")
    boxes = crops.box
    rows_of_photo: dict[int, list[int]] = {}
    for row, photo in enumerate(crops.photo.tolist()):
        rows_of_photo.setdefault(photo, []).append(row)

    def measure_photo(i: int) -> tuple[tuple[int, int], int, list[tuple[photos.Box, Any]]]:
        measured = []
        try:
            photo = source.photos[i]
            pixels = photo.read()
            h, w, _ = pixels.shape
            for row in rows_of_photo[i]:
                low, high = np.clip(boxes[row, :2], 0, (w, h)), np.clip(boxes[row, 2:], 0, (w, h))
                xmin, ymin, xmax, ymax = box = *low.tolist(), *high.tolist()
                is_empty = xmin >= xmax or ymin >= ymax
                measured.append((box, view(pixels, (0, 0, w, h) if is_empty else box) if view else None))
        except OSError as error:
            raise errors.UserError(
                f"the photo {crops.names[i]}, whose crops are known, cannot be read any more: "
                f"{photos.why_broken(crops.names[i], error)}. Put it back as it was, or remove it"
            ) from error
        return (h, w), photo.num_bytes, measured

    n = len(boxes)
    box, photo_size = np.zeros((n, 4), np.int32), np.zeros((n, 2), np.int32)
    num_bytes, views = np.zeros(n, np.int64), list[Any]([None] * n)
    with photos.thread_map(measure_photo, list(rows_of_photo), "measuring photos", workers) as results:
        for rows, (size, count, measured) in zip(rows_of_photo.values(), results, strict=True):
            photo_size[rows], num_bytes[rows] = size, count
            for row, (clipped, viewed) in zip(rows, measured, strict=True):
                box[row], views[row] = clipped, viewed
    return CropFacts(box, photo_size, num_bytes, np.stack(views) if view else None)


def area_fractions(facts: CropFacts) -> np.ndarray:
    """float [n]: area of each crop's box / area of its photo; large for objects near the camera."""
    sides = (facts.box[:, 2:] - facts.box[:, :2]).astype(float)
    return sides.prod(axis=1) / facts.photo_size.astype(float).prod(axis=1)


# ------------------------------------------------------------------------------------- filters


def find_reasons(crops: crop_dataset.CropDataset, facts: CropFacts, settings: Settings) -> Reasons:
    """Reasons to drop crops: size and aspect ratio of the box, file size, blocklist, exact duplicates.

    Raises:
      FileNotFoundError: the blocklist does not exist.
      errors.UserError: all names on the blocklist are unknown.
    """
    reasons: Reasons = [[] for _ in crops.photo]
    width, height = (facts.box[:, 2:] - facts.box[:, :2]).T
    side = np.minimum(width, height)
    _add(reasons, side < settings.min_side, lambda i: f"{SIDE} {side[i]} px")
    aspect = height / np.maximum(width, 1)
    is_outside = (aspect < settings.min_aspect) | (aspect > settings.max_aspect) | (width == 0)
    _add(reasons, is_outside, lambda i: f"{ASPECT} {aspect[i]:.3g}")
    if settings.max_bytes_percentile < 100 and not facts.num_bytes.any():
        raise errors.UserError(
            "max_bytes_percentile is below 100, but these photos are not files: set it to 100"
        )
    _, first = np.unique(crops.photo, return_index=True)  # each photo counts once in the percentile
    limit = np.percentile(facts.num_bytes[first], settings.max_bytes_percentile)
    _add(reasons, facts.num_bytes > limit, lambda i: f"{BYTES} {facts.num_bytes[i]} bytes")
    if settings.blocklist:
        _add(reasons, is_blocklisted(settings.blocklist, crops), lambda i: BLOCKLIST)
    if settings.duplicates:
        add_duplicates(
            reasons, first_equal(crops.image, is_kept(reasons)), tables.crop_names(crops), DUPLICATE
        )
    return reasons


def is_kept(reasons: Reasons) -> np.ndarray:
    """bool [n]: whether there is no reason to drop the crop."""
    return np.asarray([not why for why in reasons])


def is_blocklisted(path: str, crops: crop_dataset.CropDataset) -> np.ndarray:
    """bool [n]: whether a file lists the crop or its photo; empty lines and # comments are ignored.

    A line that starts with # is the name of a photo or crop if there is one of this name. The file may be
    for a larger set of photos; the number of unknown names is logged.

    Raises errors.UserError if all of its names are unknown.
    """
    lines = {line.strip() for line in tables.read_text(path, "a blocklist").split("\n")} - {""}
    found, others = tables.is_listed(crops, lines)
    unknown = [line for line in others if not line.startswith("#")]
    listed = lines - ({*others} - {*unknown})
    if listed and len(unknown) == len(listed):
        example = tables.crop_names(crops)[0]
        raise errors.UserError(
            f"none of the {len(listed)} names in {path} is that of a photo or crop ({unknown[0]!r}, ...); "
            f"names look like {example.rpartition(':')[0]!r} or {example!r}"
        )
    if unknown:
        log.info("%d of the %d names in %s are unknown", len(unknown), len(listed), path)
    return found


def first_equal(image: np.ndarray, among: np.ndarray) -> np.ndarray:
    """int [n]: the first crop of `image` [n, s, s, 3] with the same pixels; itself where `among` is False.

    Args:
      image: uint8 [n, s, s, 3].
      among: bool [n], the crops to compare.
    """
    first_of_digest, first = {}, np.arange(len(image))
    for i in np.flatnonzero(among):
        digest = hashlib.sha256(np.ascontiguousarray(image[i]).tobytes()).digest()
        first[i] = first_of_digest.setdefault(digest, i)
    return first


def first_of_group(other: np.ndarray, linked: np.ndarray) -> np.ndarray:
    """int [n]: the smallest index in each row's connected component; i and other[i] are joined if linked[i].

    Uses union-find with path compression.

    Args:
      other: int [n].
      linked: bool [n].
    """
    parent = np.arange(len(other))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = int(parent[i])
        return i

    for i in np.flatnonzero(linked).tolist():
        a, b = root(i), root(int(other[i]))
        parent[max(a, b)] = min(a, b)
    return np.asarray([root(i) for i in range(len(parent))], int)


def add_duplicates(reasons: Reasons, first: np.ndarray, names: Sequence[str], reason: str) -> None:
    """Adds the reason "<reason> <name of the first>" to all crops of a group except the first.

    Args:
      reasons: changed in place.
      first: int [n], index of the first crop of each crop's group.
      names: [n], names of the crops.
      reason: DUPLICATE or NEAR_DUPLICATE.
    """
    _add(reasons, first != np.arange(len(first)), lambda i: f"{reason} {names[first[i]]}")


def _add(reasons: Reasons, applies: np.ndarray, reason: Callable[[int], str]) -> None:
    for i in np.flatnonzero(applies).tolist():
        reasons[i].append(reason(i))


def to_table(
    crops: crop_dataset.CropDataset, facts: CropFacts, reasons: Reasons, cluster: np.ndarray
) -> tables.Table:
    """The rows of clean.csv, in the order of the crops; `cluster` is int [n]."""
    return tables.Table(
        tuple(crops.names[p] for p in crops.photo),
        crops.photo,
        tables.occurrence_indices(crops.photo.tolist()),
        np.asarray(crops.box),
        area_fractions(facts),
        is_kept(reasons),
        cluster,
        tuple("; ".join(why) for why in reasons),
    )
