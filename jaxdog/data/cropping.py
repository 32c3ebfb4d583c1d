"""Building blocks of crop recipes: operations on boxes and pixels.

Boxes are (xmin, ymin, xmax, ymax) in pixels, xmax and ymax exclusive. Images are uint8 [h, w, 3].
"""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from PIL import Image

from jaxdog.data import photos
from jaxdog.utils import errors

_PILLOW = {
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
Resampler = Literal["box", "bilinear", "bicubic", "lanczos", "area", "tf1-bilinear"]
RESAMPLERS = get_args(Resampler)
Which = Literal["all", "first", "last"]
WHICH = get_args(Which)


# ------------------------------------------------------------------------------------- boxes


def valid_boxes(
    boxes: Sequence[photos.Box],
    h: int,
    w: int,
    *,
    which: str = "all",
    min_side: int = 1,
    min_aspect: float = 0.0,
    max_aspect: float = float("inf"),
) -> list[tuple[photos.Box, photos.Box]]:
    """(box, box clipped to a photo of h x w) for each box that passes the filters.

    Args:
      boxes: boxes in the photo; if empty, the whole photo is the box.
      h, w: size of the photo.
      which: "all" boxes, the "first" or the "last" one only.
      min_side: boxes whose short side has fewer pixels are dropped.
      min_aspect, max_aspect: boxes whose h / w is outside these limits are dropped.

    Raises:
      errors.UserError: `which` is not among the choices.
    """
    check_choice("which", which, WHICH)
    boxes = list(boxes) or [(0, 0, w, h)]
    boxes = {"all": boxes, "first": boxes[:1], "last": boxes[-1:]}[which]
    valid = []
    for box in boxes:
        xmin, ymin, xmax, ymax = clipped = clip(box, h, w)
        box_w, box_h = xmax - xmin, ymax - ymin
        if min(box_w, box_h) >= max(min_side, 1) and min_aspect <= box_h / box_w <= max_aspect:
            valid.append((box, clipped))
    return valid


def clip(box: photos.Box, h: int, w: int) -> photos.Box:
    """The part of the box within a photo of h x w; empty (xmin == xmax or ymin == ymax) if outside."""
    xmin, ymin = min(max(box[0], 0), w), min(max(box[1], 0), h)
    return xmin, ymin, max(min(box[2], w), xmin), max(min(box[3], h), ymin)


def add_margin(box: photos.Box, margin: int | float) -> photos.Box:
    """The box with a margin on each side: pixels if int, a fraction of the box's width or height if float."""
    xmin, ymin, xmax, ymax = box
    is_fraction = isinstance(margin, float)
    dx = round(margin * (xmax - xmin)) if is_fraction else int(margin)
    dy = round(margin * (ymax - ymin)) if is_fraction else int(margin)
    return xmin - dx, ymin - dy, xmax + dx, ymax + dy


def square(box: photos.Box) -> photos.Box:
    """The square with the box's center and long side; it may extend beyond the photo.

    If an odd number of pixels is missing, the extra one is added on the left or at the top.
    """
    xmin, ymin, xmax, ymax = box
    missing = (ymax - ymin) - (xmax - xmin)
    if missing > 0:
        xmin -= missing - missing // 2
        return xmin, ymin, xmin + (ymax - ymin), ymax
    ymin -= -missing - -missing // 2
    return xmin, ymin, xmax, ymin + (xmax - xmin)


def grow(box: photos.Box, h: int, w: int, mode: str = "grow") -> photos.Box:
    """The box with its short side extended to the long one, as far as a photo of h x w allows.

    Each end moves by half of the missing length. If the photo ends before that, the opposite end moves
    further: either end ("grow"), only the right or bottom end ("grow_high"), or neither ("grow_evenly").
    """
    xmin, ymin, xmax, ymax = box
    grow_axis = GROWTHS[mode]
    if xmax - xmin < ymax - ymin:
        xmin, xmax = grow_axis(xmin, xmax, ymax - ymin, w)
    else:
        ymin, ymax = grow_axis(ymin, ymax, xmax - xmin, h)
    return xmin, ymin, xmax, ymax


def _grow(low: int, high: int, target: int, limit: int) -> tuple[int, int]:
    """[low, high) extended to `target` pixels within [0, limit), or to all of it."""
    target = min(target, limit)
    low = low - (target - (high - low) + 1) // 2
    low = min(max(low, 0), limit - target)
    return low, low + target


def _grow_high(low: int, high: int, target: int, limit: int) -> tuple[int, int]:
    """Extends the low end by half of the missing pixels, rounded down, and the high end by the rest."""
    missing = target - (high - low)
    before = min(low, missing // 2)
    return low - before, high + min(limit - high, missing - before)


def _grow_evenly(low: int, high: int, target: int, limit: int) -> tuple[int, int]:
    """Extends both ends by the same number of pixels, rounded down."""
    added = min((target - (high - low)) // 2, low, limit - high)
    return low - added, high + added


GROWTHS = {"grow": _grow, "grow_high": _grow_high, "grow_evenly": _grow_evenly}


# ------------------------------------------------------------------------------------- pixels


def take(photo: np.ndarray, box: photos.Box, pad_mode: str = "none") -> np.ndarray:
    """The pixels of the box, uint8 [ymax - ymin, xmax - xmin, 3].

    Pixels outside the photo are black ("black") or mirrored about the border pixel ("reflect"). With pad_mode
    "none" the box must be within the photo, else errors.UserError is raised. Raises BrokenPhotoError if the
    photo is so long that the pixels would fill the memory.
    """
    h, w, _ = photo.shape
    xmin, ymin, xmax, ymax = box
    if pad_mode == "none" or (xmin >= 0 and ymin >= 0 and xmax <= w and ymax <= h):
        if clip(box, h, w) != tuple(box):
            raise errors.UserError(
                f"box {box} extends beyond the photo of {w} x {h} (w x h) and pad_mode is 'none'"
            )
        return photo[ymin:ymax, xmin:xmax]
    _check_size(photo, ymax - ymin, xmax - xmin)
    rows, columns = np.arange(ymin, ymax), np.arange(xmin, xmax)
    if pad_mode == "reflect":
        return photo[_mirror(rows, h)][:, _mirror(columns, w)]
    out = photo[np.clip(rows, 0, h - 1)][:, np.clip(columns, 0, w - 1)]
    out[(rows < 0) | (rows >= h)] = 0
    out[:, (columns < 0) | (columns >= w)] = 0
    return out


def _mirror(i: np.ndarray, n: int) -> np.ndarray:
    """Maps any integers to [0, n) by mirroring about 0 and n - 1, which are not repeated."""
    period = max(2 * (n - 1), 1)
    i = i % period
    return np.minimum(i, period - i) if n > 1 else np.zeros_like(i)


def resize_center_crop(image: np.ndarray, size: int, resampler: str) -> np.ndarray:
    """Resizes the short side to `size` and crops the center; uint8 [size, size, 3]."""
    image = resize_short_side(image, size, resampler)
    h, w, _ = image.shape
    top, left = round((h - size) / 2), round((w - size) / 2)
    return image[top : top + size, left : left + size]


def resize_short_side(image: np.ndarray, size: int, resampler: str) -> np.ndarray:
    """Resizes the short side to `size` and the long side in proportion, rounded down."""
    h, w, _ = image.shape
    short = min(h, w)
    h, w = (size if side == short else int(size * side / short) for side in (h, w))
    return resize(image, h, w, resampler)


def resize(image: np.ndarray, h: int, w: int, resampler: str) -> np.ndarray:
    """uint8 [_, _, 3] -> uint8 [h, w, 3].

    The resamplers "box", "bilinear", "bicubic" and "lanczos" are Pillow's (antialiased when shrinking).
    "area" weights each pixel by its overlap with the output pixel. "tf1-bilinear" is TensorFlow 1's kernel:
    output pixel i interpolates the two pixels around i * in / out, without antialiasing. The last two are
    computed in float32 and rounded to the nearest integer (ties to even).

    Raises BrokenPhotoError if the image is so long that resizing one side before the other would fill the
    memory.
    """
    check_choice("resampler", resampler, RESAMPLERS)
    _check_size(image, max(h, image.shape[0]), max(w, image.shape[1]))
    if resampler in _PILLOW:
        if image.shape[:2] == (h, w):
            return np.ascontiguousarray(image)
        return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((w, h), _PILLOW[resampler]))
    exact = _tf1_bilinear(image, h, w) if resampler == "tf1-bilinear" else _area(image, h, w)
    return np.rint(exact).astype(np.uint8)


def _check_size(photo: np.ndarray, h: int, w: int) -> None:
    """Raises BrokenPhotoError if a picture of h x w, needed for a crop of the photo, has too many pixels."""
    if h * w > photos.MAX_PIXELS:
        long, short = max(photo.shape[:2]), min(photo.shape[:2])
        raise photos.BrokenPhotoError(
            f"its long side is {long / short:,.0f} times its short side, and a crop of it would need "
            f"{h:,} x {w:,} pixels; the limit is {photos.MAX_PIXELS:,}"
        )


def _tf1_bilinear(image: np.ndarray, h: int, w: int) -> np.ndarray:
    """TensorFlow 1's ResizeBilinear without align_corners or half_pixel_centers; float32 [h, w, 3]."""
    top, bottom, y = _legacy_taps(image.shape[0], h)
    left, right, x = _legacy_taps(image.shape[1], w)
    pixels, x, y = image.astype(np.float32), x[None, :, None], y[:, None, None]
    rows = pixels[:, left] + (pixels[:, right] - pixels[:, left]) * x
    return rows[top] + (rows[bottom] - rows[top]) * y


def _legacy_taps(n: int, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For m outputs and n inputs: lower index, upper index, weight of the upper one; each [m]."""
    source = np.arange(m, dtype=np.float32) * np.float32(n / m)
    low = source.astype(np.int64)
    return low, np.minimum(low + 1, n - 1), source - low.astype(np.float32)


def _area(image: np.ndarray, h: int, w: int) -> np.ndarray:
    """The mean of the image over the area of each output pixel; float32 [h, w, 3]."""
    rows, columns = _overlap(image.shape[0], h), _overlap(image.shape[1], w)
    return np.einsum("hH,HWc,wW->hwc", rows, image.astype(np.float32), columns, optimize=True)


def _overlap(n: int, m: int) -> np.ndarray:
    """[m, n], the fraction of output pixel i that input pixel j covers; rows sum to 1."""
    low, edge = np.arange(m) * (n / m), np.arange(n)
    overlap = np.minimum((low + n / m)[:, None], edge[None, :] + 1) - np.maximum(low[:, None], edge[None, :])
    return (np.maximum(overlap, 0) * (m / n)).astype(np.float32)


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raises errors.UserError if `value` is not among the choices."""
    if value not in choices:
        raise errors.UserError(f"{name} is {value!r}; choices: {', '.join(map(repr, choices))}")
