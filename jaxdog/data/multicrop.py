"""Several square crops of each dog, of three kinds: the training set of the competition's 5th place.

Dmitry Vorobiev's BigGAN saw every dog in up to eleven crops that were made once. Which ones depends on the
box's width / height and on whether it has `size` pixels. What else happens to a crop depends on its kind:

  PLAIN   half of `size` on a side, shown as it is; stored with each pixel doubled, so that the mean of 2x2
          gives it back exactly
  TURNED  of `size`, of the box as it is annotated: turned and scaled in training, not shifted
  MOVED   of `size`, of a slightly larger box: shifted, turned and scaled in training
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxdog.data import cropping, photos

PLAIN, TURNED, MOVED = 0, 1, 2
LIGHT, MEDIUM = 0.08, 0.12  # how much wider and higher the boxes of MOVED crops and of a dog's last crops are


def multicrop(
    photo: np.ndarray,
    boxes: Sequence[cropping.Box],
    *,
    size: int,
    both_sides: bool = False,
    resampler: str = "lanczos",
) -> list[photos.Kept]:
    """All crops of all dogs.

    Three boxes are cut: the annotated one widened by LIGHT and grown to a square inside the photo; the
    annotated one grown likewise; the annotated one widened by MEDIUM and not grown, where it is another.
    They are not square where the photo or the box is not, and `plain` and `large` say which squares of them
    are kept. The extent of a PLAIN crop is that before its pixels were doubled.

    Args:
      photo: uint8 [h, w, 3].
      boxes: in pixels; clipped to the photo first. Without any the whole photo is one.
      size: side of what is kept, even. Dogs whose grown box has a side below size / 2 are left out.
      both_sides: PLAIN crops of the left and the right end of a wide box. False is how it was: the left
        end twice, because the corners 0 and 2 of torchvision's FiveCrop are both on the left.
      resampler: one of crop.RESAMPLERS.

    Raises:
      ValueError: an odd size.
    """
    if size % 2:
        raise ValueError(
            f"multicrop keeps pictures of two scales, and size {size} has no half; take an even size"
        )
    h, w, _ = photo.shape
    inside = [cropping.clip(box, h, w) for box in cropping.select(boxes, h, w, "all")]
    dogs = [box for box in inside if box[0] < box[2] and box[1] < box[3]]
    return [kept for box in dogs for kept in _of_dog(photo, box, size, Cuts(both_sides, resampler))]


def region(box: cropping.Box, h: int, w: int, zoom: float = 0.0, grow: bool = True) -> cropping.Box:
    """The box widened by the share `zoom` of its sides then grown to a square, both within h x w.

    The short side grows by half of what it lacks at either end; what then still lacks, because the photo
    ended at one of them, it gains at the other. Corners are real numbers until the end and then cut off.
    """
    xmin, ymin, xmax, ymax = box
    x = _widened(xmin, xmax, (xmax - xmin) * zoom / 2, w)
    y = _widened(ymin, ymax, (ymax - ymin) * zoom / 2, h)
    for share in (0.5, 1.0) if grow else ():
        spare = (x[1] - x[0]) - (y[1] - y[0])
        if spare > 0:
            y = _widened(*y, share * spare, h)
        else:
            x = _widened(*x, -share * spare, w)
    return int(x[0]), int(y[0]), int(x[1]), int(y[1])


def _widened(low: float, high: float, margin: float, end: int) -> tuple[float, float]:
    return max(0, low - margin), min(end, high + margin)


def _of_dog(photo: np.ndarray, box: cropping.Box, size: int, cuts: "Cuts") -> list[photos.Kept]:
    h, w, _ = photo.shape
    made: list[photos.Kept] = []

    def add(images: Sequence[np.ndarray], kind: int) -> None:
        for image in images:
            extent = image.shape[0], image.shape[1]
            stored = doubled(image) if kind == PLAIN else image
            made.append(photos.Kept(np.ascontiguousarray(stored), extent, kind))

    add(cuts.large(cropping.take(photo, region(box, h, w, LIGHT)), size), MOVED)
    grown = region(box, h, w)
    image = cropping.take(photo, grown)
    if min(image.shape[:2]) < size // 2:
        return made
    add(cuts.plain(image, size // 2), PLAIN)
    add(cuts.large(image, size), TURNED)

    loose = region(box, h, w, MEDIUM, grow=False)
    image = cropping.take(photo, loose)
    if loose != grown and min(image.shape[:2]) >= size:
        images = cuts.plain_loose(image, size // 2)
        add(images, PLAIN)
        add(cuts.large(image, size) if images else [], TURNED)
    return made


def doubled(image: np.ndarray) -> np.ndarray:
    """[h, w, 3] -> [2h, 2w, 3], each pixel four times."""
    return image.repeat(2, 0).repeat(2, 1)


class Cuts(NamedTuple):
    """Which squares uint8 [side, side, 3] of a box's pixels [h, w, 3] are kept, by its width / height."""

    both_sides: bool
    resampler: str

    def plain(self, image: np.ndarray, side: int) -> list[np.ndarray]:
        """PLAIN crops of a grown box."""
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
        """PLAIN crops of a box that was not grown."""
        wide, tall = _aspects(image)
        if 1.3 < wide < 1.5:
            return self._plain_ends(image, side)
        return [self._top(image, side)] if 1.05 < tall < 1.6 else []

    def large(self, image: np.ndarray, side: int) -> list[np.ndarray]:
        """Crops of `side`, none of a box with a side below it."""
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
        return cropping.fit_center(image, side, self.resampler)

    def _mirrored(self, image: np.ndarray, side: int) -> np.ndarray:
        """A square on the long side; beyond the box stands its own mirror image, not what the photo has."""
        h, w, _ = image.shape
        return self._whole(cropping.take(image, cropping.square((0, 0, w, h)), "reflect"), side)

    def _top(self, image: np.ndarray, side: int) -> np.ndarray:
        short = min(image.shape[:2])
        return self._whole(image[:short, :short], side)

    def _ends(self, image: np.ndarray, side: int) -> list[np.ndarray]:
        """The left and the right square of a wide box."""
        image = cropping.fit_short(image, side, self.resampler)
        return [image[:, :side], image[:, -side:]]

    def _plain_ends(self, image: np.ndarray, side: int) -> list[np.ndarray]:
        left, right = self._ends(image, side)
        return [left, right if self.both_sides else left]


def _aspects(image: np.ndarray) -> tuple[float, float]:
    """(width / height, height / width); the second is 1 / the first, as it was."""
    wide = image.shape[1] / image.shape[0]
    return wide, 1.0 / wide
