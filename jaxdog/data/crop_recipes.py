"""Crop recipes: a photo and its boxes -> square crops of one size.

A recipe is a function

    def my_recipe(photo, boxes, *, size, ...) -> list[photos.Crop]

  photo   uint8 [h, w, 3]
  boxes   (xmin, ymin, xmax, ymax) in pixels, xmax and ymax exclusive; if empty, the whole photo is the object
  size    side of the crops

To add one, write such a function with keyword-only parameters, add it to `RECIPES` and select it in a config:
`config.data.crop = dict(name="my_recipe", ...)`, with its other parameters as fields. A crop of a box should
set `Crop.box`, as `jaxdog clean` lists crops by their boxes. The recipes of the competition's entries
are in `crop_recipes_2019.py` and `multicrop.py`.
"""

import functools
import inspect
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from jaxdog.data import crop_recipes_2019, cropping, multicrop, photos

VERSION = 1  # part of cache keys; increment when the output of a recipe changes

Mode = Literal["grow", "grow_high", "grow_evenly", "pad", "clip", "center"]
MODES = get_args(Mode)
PadMode = Literal["none", "reflect", "black"]
PAD_MODES = get_args(PadMode)
BOX, PHOTO = 0, 1  # crop types of box_and_photo
MOSTLY_ALL = 0.8  # whole_and_boxes omits boxes that cover at least this fraction of the photo


# ------------------------------------------------------------------------------------- whole photos


def as_is(photo: np.ndarray, boxes: Sequence[photos.Box] = ()) -> list[photos.Crop]:
    """The photo unchanged, for images that already are square crops."""
    return [photos.Crop(photo)]


def squash(
    photo: np.ndarray,
    boxes: Sequence[photos.Box] = (),
    *,
    size: int,
    resampler: cropping.Resampler = "lanczos",
) -> list[photos.Crop]:
    """The whole photo resized to size x size, regardless of its aspect ratio.

    These are the real images of the competition's metric: with resampler "lanczos" as in its public demo,
    or "tf1-bilinear" as in the other published version.
    """
    return [photos.Crop(cropping.resize(photo, size, size, resampler))]


def short_side_center(
    photo: np.ndarray,
    boxes: Sequence[photos.Box] = (),
    *,
    size: int,
    resampler: cropping.Resampler = "lanczos",
) -> list[photos.Crop]:
    """The center square of the whole photo, whose short side is resized to `size`."""
    return [photos.Crop(cropping.resize_center_crop(photo, size, resampler))]


def whole_and_boxes(
    photo: np.ndarray,
    boxes: Sequence[photos.Box] = (),
    *,
    size: int,
    resampler: cropping.Resampler = "lanczos",
) -> list[photos.Crop]:
    """The whole photo and each box that is not most of it, squashed; used for the copy search."""
    h, w, _ = photo.shape
    parts = [box for box in boxes if (box[2] - box[0]) * (box[3] - box[1]) < MOSTLY_ALL * h * w]
    crops = squash(photo, size=size, resampler=resampler)
    if parts:
        crops += box_square(
            photo, parts, size=size, mode="clip", max_aspect=float("inf"), resampler=resampler
        )
    return crops


# ------------------------------------------------------------------------------------- square crops of boxes


def box_square(
    photo: np.ndarray,
    boxes: Sequence[photos.Box],
    *,
    size: int,
    mode: Mode = "grow",
    pad_mode: PadMode = "none",
    which: cropping.Which = "all",
    margin: int | float = 0,
    min_side: int = 1,
    min_aspect: float = 0.0,
    max_aspect: float = 100.0,
    resampler: cropping.Resampler = "lanczos",
) -> list[photos.Crop]:
    """One square crop per box that passes the filters.

    Args:
      photo: uint8 [h, w, 3].
      boxes: in pixels; clipped to the photo first.
      size: side of the crops.
      mode: how a box is made square.
        "grow", "grow_high", "grow_evenly": its short side is extended within the photo (`cropping.grow`). If
          the photo is too small, the rest is padded by `pad_mode` or, with "none", the region is squashed;
        "pad": a square about the box's center, which may extend beyond the photo and is padded by `pad_mode`;
        "clip": the box itself, squashed;
        "center": the center square of the box, whose short side is resized to `size`.
      pad_mode: "reflect" (about the border pixel), "black", or "none".
      which: "all" boxes, the "first" or the "last" one only.
      margin: added on each side and clipped to the photo: pixels if int, a fraction of the box's width or
        height if float.
      min_side: boxes whose short side (before the margin) has fewer pixels are dropped.
      min_aspect, max_aspect: boxes whose h / w is outside these limits are dropped.
      resampler: of the resize.

    Raises:
      errors.UserError: `mode`, `pad_mode` or `which` is not among the choices.
    """
    cropping.check_choice("mode", mode, MODES)
    grows = mode in cropping.GROWTHS
    cropping.check_choice(
        "pad_mode", pad_mode, PAD_MODES if grows else PAD_MODES[1:] if mode == "pad" else ("none",)
    )
    h, w, _ = photo.shape
    crops = []
    for box, region in cropping.valid_boxes(
        boxes, h, w, which=which, min_side=min_side, min_aspect=min_aspect, max_aspect=max_aspect
    ):
        region = cropping.clip(cropping.add_margin(region, margin), h, w)
        if mode == "center":
            image = cropping.resize_center_crop(cropping.take(photo, region), size, resampler)
        else:
            region = cropping.grow(region, h, w, mode) if grows else region
            region = cropping.square(region) if mode == "pad" or pad_mode != "none" else region
            image = cropping.resize(cropping.take(photo, region, pad_mode), size, size, resampler)
        crops.append(photos.Crop(image, box=box))
    return crops


# ------------------------------------------------------------------------------------- squashed rectangles
# These record their original size, so that augmentations can cut regions of the true shape during training.


def box(
    photo: np.ndarray,
    boxes: Sequence[photos.Box],
    *,
    size: int,
    which: cropping.Which = "all",
    margin: int = 0,
    min_side: int = 1,
    min_aspect: float = 0.0,
    max_aspect: float = 100.0,
    resampler: cropping.Resampler = "lanczos",
) -> list[photos.Crop]:
    """Same as `box_square` with mode "clip", but the crops record their original size.

    A limit t on |h - w| / min(h, w) corresponds to min_aspect = 1 / (1 + t), max_aspect = 1 + t.

    Args:
      margin: pixels added on each side, clipped to the photo.
    """
    h, w, _ = photo.shape
    crops = []
    for box, region in cropping.valid_boxes(
        boxes, h, w, which=which, min_side=min_side, min_aspect=min_aspect, max_aspect=max_aspect
    ):
        region = cropping.clip(cropping.add_margin(region, int(margin)), h, w)
        crops.append(_squashed(photo, region, size, resampler, box))
    return crops


def box_and_photo(
    photo: np.ndarray, boxes: Sequence[photos.Box], *, size: int, resampler: cropping.Resampler = "lanczos"
) -> list[photos.Crop]:
    """Two crops per box: the box (crop type BOX) and the whole photo (crop type PHOTO).

    The box's short side grows evenly on both sides, up to the nearer border of the photo. A photo is repeated
    for each of its boxes, so each type is half of all crops.
    """
    h, w, _ = photo.shape
    crops = []
    for box, region in cropping.valid_boxes(boxes, h, w):
        grown = cropping.grow(region, h, w, "grow_evenly")
        crops.append(_squashed(photo, grown, size, resampler, box, BOX))
        crops.append(_squashed(photo, (0, 0, w, h), size, resampler, box, PHOTO))
    return crops


def around(
    photo: np.ndarray,
    boxes: Sequence[photos.Box],
    *,
    size: int,
    context: float = 1.0,
    min_photo: int = 1,
    min_side: int = 1,
    resampler: cropping.Resampler = "lanczos",
) -> list[photos.Crop]:
    """A square about each box's center, clipped to the photo.

    Args:
      photo: uint8 [h, w, 3].
      boxes: in pixels; clipped to the photo first.
      size: side of the crops.
      context: side of the square relative to the box's long side.
      min_photo: photos whose short side has fewer pixels are dropped.
      min_side: boxes whose short side has fewer pixels are dropped.
      resampler: of the resize.
    """
    h, w, _ = photo.shape
    if min(h, w) < min_photo:
        return []
    crops = []
    for box, (xmin, ymin, xmax, ymax) in cropping.valid_boxes(boxes, h, w, min_side=min_side):
        x, y, half = (xmin + xmax) // 2, (ymin + ymax) // 2, int(context * max(xmax - xmin, ymax - ymin)) // 2
        region = cropping.clip((x - half, y - half, x + half, y + half), h, w)
        if region[0] < region[2] and region[1] < region[3]:  # a box of one pixel has half = 0
            crops.append(_squashed(photo, region, size, resampler, box))
    return crops


def _squashed(
    photo: np.ndarray, region: photos.Box, size: int, resampler: str, box: photos.Box, crop_type: int = 0
) -> photos.Crop:
    """A region within the photo, squashed to size x size."""
    pixels = cropping.take(photo, region)
    original_size = (pixels.shape[0], pixels.shape[1])
    return photos.Crop(cropping.resize(pixels, size, size, resampler), original_size, crop_type, box)


# ------------------------------------------------------------------------------------- the table

RECIPES = {
    "around": around,
    "box": box,
    "box_and_photo": box_and_photo,
    "box_square": box_square,
    "corner": crop_recipes_2019.corner,
    "four_squares": crop_recipes_2019.four_squares,
    "multicrop": multicrop.multicrop,
    "short_side_center": short_side_center,
    "squash": squash,
    "top_left_square": crop_recipes_2019.top_left_square,
    "upper_middle": crop_recipes_2019.upper_middle,
    "upper_middle_and_center": crop_recipes_2019.upper_middle_and_center,
}


def cache_key(recipe: photos.Recipe) -> str:
    """Identifies a recipe with all its settings, defaults included; crops are cached under it.

    Args:
      recipe: a recipe, or `functools.partial` of one with keyword arguments.
    """
    function, given = recipe, {}
    if isinstance(recipe, functools.partial):
        function, given = recipe.func, recipe.keywords
    settings = {
        name: given.get(name, parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    arguments = ",".join(f"{name}={settings[name]!r}" for name in sorted(settings))
    return f"{getattr(function, '__name__', repr(function))}-v{VERSION}({arguments})"
