"""The crops of the competition's 5th place (Dmitry Vorobiev's BigGAN): up to eleven per dog, in three types.

Which crops are made depends on the box's aspect ratio and on whether its sides have `size` pixels. The crop
type determines how training augments them:

  PLAIN   size / 2 on a side, not augmented; stored with each pixel repeated 2x2 times, so that the mean of
          2x2 pixels restores it exactly
  TURNED  `size` on a side, of the annotated box: rotated and scaled
  MOVED   `size` on a side, of a slightly larger box: shifted, rotated and scaled
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxdog.data import cropping, photos
from jaxdog.utils import errors

PLAIN, TURNED, MOVED = 0, 1, 2
# Relative enlargement of boxes: for MOVED crops, and for the region that is not grown.
LIGHT, MEDIUM = 0.08, 0.12


def multicrop(
    photo: np.ndarray,
    boxes: Sequence[photos.Box],
    *,
    size: int,
    both_sides: bool = False,
    resampler: cropping.Resampler = "lanczos",
) -> list[photos.Crop]:
    """All crops of all dogs.

    Three regions are cut per box: the box enlarged by LIGHT and grown to a square within the photo; the box
    itself, grown in the same way; and the box enlarged by MEDIUM and not grown, if that is a different
    region. Regions that cannot grow enough are not square; `Cuts` decides which squares of a region become
    crops. The original size of a PLAIN crop is the size before its pixels were repeated.

    Args:
      photo: uint8 [h, w, 3].
      boxes: in pixels; clipped to the photo first. If empty, the whole photo is the box.
      size: side of the crops, even. Dogs whose grown box has a side below size / 2 are omitted.
      both_sides: whether PLAIN crops of a wide box show both its left and its right end. False as in the
        original, which used the left end twice: corners 0 and 2 of torchvision's FiveCrop are both on the
        left.
      resampler: of the resize.

    Raises:
      errors.UserError: `size` is odd.
    """
    if size % 2:
        raise errors.UserError(f"multicrop: size is {size}, and must be even")
    h, w, _ = photo.shape
    cuts = Cuts(both_sides, resampler)
    return [
        crop._replace(box=box)
        for box, clipped in cropping.valid_boxes(boxes, h, w)
        for crop in _crops_of_dog(photo, clipped, size, cuts)
    ]


def region(box: photos.Box, h: int, w: int, zoom: float = 0.0, grow: bool = True) -> photos.Box:
    """The box enlarged by the fraction `zoom` of its sides, then grown to a square, both within h x w.

    Both ends of the short side move by half of the missing length. If the photo ends before that, the rest is
    added at the opposite end. Coordinates are rounded down only at the end.
    """
    xmin, ymin, xmax, ymax = box
    x = _widened(xmin, xmax, (xmax - xmin) * zoom / 2, w)
    y = _widened(ymin, ymax, (ymax - ymin) * zoom / 2, h)
    for fraction in (0.5, 1.0) if grow else ():
        missing = (x[1] - x[0]) - (y[1] - y[0])
        if missing > 0:
            y = _widened(*y, fraction * missing, h)
        else:
            x = _widened(*x, -fraction * missing, w)
    return int(x[0]), int(y[0]), int(x[1]), int(y[1])


def _widened(low: float, high: float, margin: float, end: int) -> tuple[float, float]:
    return max(0, low - margin), min(end, high + margin)


def _crops_of_dog(photo: np.ndarray, box: photos.Box, size: int, cuts: "Cuts") -> list[photos.Crop]:
    h, w, _ = photo.shape
    crops: list[photos.Crop] = []

    def add(images: Sequence[np.ndarray], crop_type: int) -> None:
        for image in images:
            original_size = (image.shape[0], image.shape[1])
            stored = doubled(image) if crop_type == PLAIN else image
            crops.append(photos.Crop(np.ascontiguousarray(stored), original_size, crop_type))

    add(cuts.large(cropping.take(photo, region(box, h, w, LIGHT)), size), MOVED)
    grown = region(box, h, w)
    image = cropping.take(photo, grown)
    if min(image.shape[:2]) < size // 2:
        return crops
    add(cuts.plain(image, size // 2), PLAIN)
    add(cuts.large(image, size), TURNED)

    loose = region(box, h, w, MEDIUM, grow=False)
    image = cropping.take(photo, loose)
    if loose != grown and min(image.shape[:2]) >= size:
        images = cuts.plain_loose(image, size // 2)
        add(images, PLAIN)
        add(cuts.large(image, size) if images else [], TURNED)
    return crops


def doubled(image: np.ndarray) -> np.ndarray:
    """[h, w, 3] -> [2h, 2w, 3], each pixel repeated 2x2 times."""
    return image.repeat(2, 0).repeat(2, 1)


class Cuts(NamedTuple):
    """Selects the squares, uint8 [side, side, 3], to cut from a region [h, w, 3] by its aspect ratio."""

    both_sides: bool
    resampler: str

    def plain(self, image: np.ndarray, side: int) -> list[np.ndarray]:
        """PLAIN crops of a grown region."""
        wide, tall = _aspects(image)
        if wide == 1.0:
            return [self._whole(image, side)]
        if 1.0 < wide < 1.3:
            return [self._middle(image, side), self._mirrored(image, side)]
        if 1.3 <= wide < 1.5:
            return [*self._plain_ends(image, side), self._mirrored(image, side)]
        if 1.5 <= wide < 2.0:
            return self._plain_ends(image, side)
        if 1.0 < tall < 1.5:
            return [self._top(image, side), self._mirrored(image, side)]
        return [self._top(image, side)] if 1.5 <= tall < 1.8 else []

    def plain_loose(self, image: np.ndarray, side: int) -> list[np.ndarray]:
        """PLAIN crops of a region that was not grown."""
        wide, tall = _aspects(image)
        if 1.3 < wide < 1.5:
            return self._plain_ends(image, side)
        return [self._top(image, side)] if 1.05 < tall < 1.6 else []

    def large(self, image: np.ndarray, side: int) -> list[np.ndarray]:
        """TURNED and MOVED crops; none if a side of the region is below `side`."""
        if min(image.shape[:2]) < side:
            return []
        wide, tall = _aspects(image)
        if wide == 1.0:
            return [self._whole(image, side)]
        if 1.0 < wide < 1.15:
            return [self._middle(image, side)]
        if 1.15 < wide < 1.25:
            return [self._mirrored(image, side)]
        if 1.25 < wide < 1.5:
            return self._ends(image, side)
        return [self._top(image, side)] if 1.0 < tall < 1.6 else []

    def _whole(self, image: np.ndarray, side: int) -> np.ndarray:
        return cropping.resize(image, side, side, self.resampler)

    def _middle(self, image: np.ndarray, side: int) -> np.ndarray:
        return cropping.resize_center_crop(image, side, self.resampler)

    def _mirrored(self, image: np.ndarray, side: int) -> np.ndarray:
        """A square with the region's long side, padded with its mirror image instead of the photo."""
        h, w, _ = image.shape
        return self._whole(cropping.take(image, cropping.square((0, 0, w, h)), "reflect"), side)

    def _top(self, image: np.ndarray, side: int) -> np.ndarray:
        short = min(image.shape[:2])
        return self._whole(image[:short, :short], side)

    def _ends(self, image: np.ndarray, side: int) -> list[np.ndarray]:
        """The left and the right end of a wide region, both square."""
        image = cropping.resize_short_side(image, side, self.resampler)
        return [image[:, :side], image[:, -side:]]

    def _plain_ends(self, image: np.ndarray, side: int) -> list[np.ndarray]:
        left, right = self._ends(image, side)
        return [left, right if self.both_sides else left]


def _aspects(image: np.ndarray) -> tuple[float, float]:
    """(width / height, height / width); the second is computed as 1 / the first, as in the original."""
    wide = image.shape[1] / image.shape[0]
    return wide, 1.0 / wide
