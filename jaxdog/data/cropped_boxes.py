"""Crop recipes that keep a crop's extent: what is stored squashed, and cut in its true shape at run time.

As in `crop.py`: `(photo uint8 [h, w, 3], boxes, *, size, ...) -> list`, every keyword a plain value.
"""

from collections.abc import Callable, Sequence

import numpy as np

from jaxdog.data import cropping, photos


def box(
    photo: np.ndarray,
    boxes: Sequence[photos.Box],
    *,
    size: int,
    which: str = "all",
    margin: int = 0,
    min_side: int = 1,
    min_aspect: float = 0.0,
    max_aspect: float = float("inf"),
    resampler: str = "lanczos",
) -> list[photos.Kept]:
    """The plain rectangle of each box that passes the filters, squashed to size x size.

    Args:
      photo: uint8 [h, w, 3].
      boxes: in pixels; clipped to the photo first.
      size: side of the crops.
      which: "all" boxes, the "first" or the "last" one only.
      margin: pixels added on each of the four sides and clipped to the photo.
      min_side: boxes whose short side (before the margin) has fewer pixels are dropped.
      min_aspect, max_aspect: boxes whose h / w (before the margin) is outside these limits are dropped. A
        limit t on |h - w| / min(h, w) is the pair 1 / (1 + t), 1 + t.
      resampler: one of crop.RESAMPLERS.
    """
    h, w, _ = photo.shape
    kept = []
    for chosen in cropping.select(boxes, h, w, which):
        xmin, ymin, xmax, ymax = cropping.clip(chosen, h, w)
        bw, bh = xmax - xmin, ymax - ymin
        if min(bw, bh) < max(min_side, 1) or not min_aspect <= bh / bw <= max_aspect:
            continue
        rectangle = cropping.clip(cropping.add_margin((xmin, ymin, xmax, ymax), int(margin)), h, w)
        pixels = cropping.take(photo, rectangle)
        extent = (pixels.shape[0], pixels.shape[1])
        kept.append(photos.Kept(cropping.resize(pixels, size, size, resampler), extent))
    return kept


BOX, PHOTO = 0, 1  # kinds of box_and_photo


def box_and_photo(
    photo: np.ndarray, boxes: Sequence[photos.Box], *, size: int, resampler: str = "lanczos"
) -> list[photos.Kept]:
    """For each box two crops squashed to size x size: the box of kind BOX, the whole photo of kind PHOTO.

    The boxes' short sides grow evenly, as far as the nearer border of the photo allows. A photo is kept as
    often as it has boxes, so that each kind is half of all crops.
    """
    h, w, _ = photo.shape
    kept = []
    for chosen in cropping.select(boxes, h, w, "all"):
        xmin, ymin, xmax, ymax = cropping.clip(chosen, h, w)
        if min(xmax - xmin, ymax - ymin) < 1:
            continue
        grown = cropping.take(photo, cropping.grow((xmin, ymin, xmax, ymax), h, w, "grow_evenly"))
        for kind, pixels in ((BOX, grown), (PHOTO, photo)):
            squashed = cropping.resize(pixels, size, size, resampler)
            kept.append(photos.Kept(squashed, (pixels.shape[0], pixels.shape[1]), kind))
    return kept


def around(
    photo: np.ndarray,
    boxes: Sequence[photos.Box],
    *,
    size: int,
    context: float = 1.0,
    min_photo: int = 1,
    min_side: int = 1,
    resampler: str = "lanczos",
) -> list[photos.Kept]:
    """A square about each box's middle that ends where the photo ends, squashed to size x size.

    Args:
      photo: uint8 [h, w, 3].
      boxes: in pixels; clipped to the photo first.
      size: side of the crops.
      context: the square's side in units of the box's long side.
      min_photo: photos whose short side has fewer pixels are dropped.
      min_side: boxes whose short side has fewer pixels are dropped.
      resampler: one of crop.RESAMPLERS.
    """
    h, w, _ = photo.shape
    if min(h, w) < min_photo:
        return []
    kept = []
    for chosen in cropping.select(boxes, h, w, "all"):
        xmin, ymin, xmax, ymax = cropping.clip(chosen, h, w)
        if min(xmax - xmin, ymax - ymin) < max(min_side, 1):
            continue
        x, y, half = (xmin + xmax) // 2, (ymin + ymax) // 2, int(context * max(xmax - xmin, ymax - ymin)) // 2
        pixels = cropping.take(photo, cropping.clip((x - half, y - half, x + half, y + half), h, w))
        if min(pixels.shape[:2]) > 0:  # a box of one pixel has no half
            extent = (pixels.shape[0], pixels.shape[1])
            kept.append(photos.Kept(cropping.resize(pixels, size, size, resampler), extent))
    return kept


RECIPES: dict[str, Callable[..., list[photos.Kept]]] = {
    "around": around,
    "box": box,
    "box_and_photo": box_and_photo,
}
