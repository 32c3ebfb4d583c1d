"""Crop recipes of entries of the 2019 competition (see `crop_recipes.py`); another is in `multicrop.py`."""

from collections.abc import Sequence

import numpy as np

from jaxdog.data import cropping, photos

# Crops without a dog, photo and number of the box: a list of korovai's, which the 1st place used.
INTRUDERS = tuple(
    name.replace(":", ".jpg:")
    for name in """
n02088238_10870:0 n02088466_6901:1 n02088466_6963:0 n02088466_9167:0 n02088466_9167:1 n02088466_9167:2
n02089867_2221:0 n02089867_2227:1 n02089973_1132:3 n02089973_1352:3 n02089973_1458:1 n02089973_1799:2
n02089973_2791:3 n02089973_4055:0 n02089973_4185:1 n02089973_4185:2 n02090379_4673:1 n02090379_4875:1
n02090622_7705:1 n02090622_9358:1 n02090622_9883:1 n02090721_209:1 n02090721_1222:1 n02090721_1534:1
n02090721_1835:1 n02090721_3999:1 n02090721_4089:1 n02090721_4276:2 n02091032_722:1 n02091032_745:1
n02091032_1773:0 n02091032_9592:0 n02091134_2349:1 n02091134_14246:2 n02091244_583:1 n02091244_2407:0
n02091244_3438:1 n02091244_5639:1 n02091244_5639:2 n02091467_473:0 n02091467_4386:1 n02091467_4427:1
n02091467_4558:1 n02091467_4560:1 n02091635_1192:1 n02091635_4422:0 n02091831_1594:1 n02091831_2880:0
n02091831_7237:1 n02092002_1551:1 n02092002_1937:1 n02092002_4218:0 n02092002_4596:0 n02092002_5246:1
n02092002_6518:0 n02093256_1826:1 n02093256_4997:0 n02093256_14914:0 n02093428_5662:0 n02093428_6949:1
""".split()
)


def corner(
    photo: np.ndarray,
    boxes: Sequence[photos.Box] = (),
    *,
    size: int,
    resampler: cropping.Resampler = "lanczos",
) -> list[photos.Crop]:
    """The top left corner of the whole photo, flipped: hirune924's memorizer.

    The short side is first resized to 73 / 64 of `size`. A photo whose short side is at most 0.74 of its long
    side is squashed before that, a tall one to 400 x 300 (w x h), a wide one to 300 x 400. The crop then
    extends beyond the photo, and a strip of 10 / 64 is black.
    """
    h, w, _ = photo.shape
    side = 73 * size // 64
    if w < h:
        if w / h <= 0.74:
            photo, h, w = cropping.resize(photo, 300, 400, resampler), 300, 400
        h, w = int(side / w * h), side
    else:
        if h / w <= 0.74:
            photo, h, w = cropping.resize(photo, 400, 300, resampler), 400, 300
        h, w = side, int(side / h * w)
    image = cropping.take(cropping.resize(photo, h, w, resampler), (0, 0, size, size), "black")
    return [photos.Crop(np.ascontiguousarray(image[:, ::-1]))]


def upper_middle(
    photo: np.ndarray,
    boxes: Sequence[photos.Box] = (),
    *,
    size: int,
    resampler: cropping.Resampler = "lanczos",
) -> list[photos.Crop]:
    """The top square, 18 / 64 from the left, of the whole photo resized to a width of 100 / 64 of `size`.

    Used for two thirds of the images in cdeotte's supervised network. If the photo is too wide, the rest of
    the square below it is black.
    """
    h, w, _ = photo.shape
    width, left = 100 * size // 64, 18 * size // 64
    photo = cropping.resize(photo, max(int(h / (w / width)), 1), width, resampler)
    return [photos.Crop(np.ascontiguousarray(cropping.take(photo, (left, 0, left + size, size), "black")))]


def upper_middle_and_center(
    photo: np.ndarray,
    boxes: Sequence[photos.Box] = (),
    *,
    size: int,
    resampler: cropping.Resampler = "lanczos",
) -> list[photos.Crop]:
    """Both crops of cdeotte's supervised network.

    Crop type 0 is `upper_middle`, used for two thirds of its images; type 1 is the center square of the whole
    photo.
    """
    (upper,) = upper_middle(photo, boxes, size=size, resampler=resampler)
    center = cropping.resize_center_crop(photo, size, resampler)
    return [photos.Crop(upper.image, (size, size), 0), photos.Crop(center, (size, size), 1)]


def top_left_square(
    photo: np.ndarray,
    boxes: Sequence[photos.Box],
    *,
    size: int,
    which: cropping.Which = "all",
    resampler: cropping.Resampler = "lanczos",
) -> list[photos.Crop]:
    """The top left square of each box, as large as its short side: cdeotte's memorizer."""
    h, w, _ = photo.shape
    crops = []
    for box, (xmin, ymin, xmax, ymax) in cropping.valid_boxes(boxes, h, w, which=which):
        side = min(xmax - xmin, ymax - ymin)
        pixels = cropping.take(photo, (xmin, ymin, xmin + side, ymin + side))
        crops.append(photos.Crop(cropping.resize(pixels, size, size, resampler), box=box))
    return crops


def four_squares(
    photo: np.ndarray, boxes: Sequence[photos.Box], *, size: int, resampler: cropping.Resampler = "lanczos"
) -> list[photos.Crop]:
    """Four crops of each dog: MeisterMorxrc's DCGAN.

    Squares as large as the box's short side at its top left and top right; the box with its short side
    extended evenly within the photo without its last row and column, squashed; and the square of
    `_shifted_square`.
    """
    h, w, _ = photo.shape
    crops = []
    for box, (xmin, ymin, xmax, ymax) in cropping.valid_boxes(boxes, h, w):
        side, added = min(xmax - xmin, ymax - ymin), abs((xmax - xmin) - (ymax - ymin)) // 2
        if xmax - xmin >= ymax - ymin:
            grown = (xmin, max(ymin - added, 0), xmax, min(ymax + added, h - 1))
        else:
            grown = (max(xmin - added, 0), ymin, min(xmax + added, w - 1), ymax)
        regions = (
            (xmin, ymin, xmin + side, ymin + side),
            (xmax - side, ymin, xmax, ymin + side),
            grown,
            _shifted_square((xmin + xmax) / 2, (ymin + ymax) / 2, h, w),
        )
        for region in regions:
            if region[0] < region[2] and region[1] < region[3]:
                image = cropping.resize(cropping.take(photo, region), size, size, resampler)
                crops.append(photos.Crop(image, box=box))
    return crops


def _shifted_square(x: float, y: float, h: int, w: int) -> photos.Box:
    """The largest square about (x, y) inside the photo, then enlarged away from the border that it touches.

    Its side grows by 2 * 0.28 of the smallest free space on the three other sides.
    """
    half = min(w - x, h - y, x, y)
    left, top, right, bottom = x - half, y - half, w - x - half, h - y - half  # free space on each side
    added = int(sorted((left, top, right, bottom))[1] * 0.28)  # [0] is the side that touches the border
    # Multiples of `added` on the low and high side of each axis: all of it away from the border.
    steps = {"left": (0, 2, 1, 1), "right": (2, 0, 1, 1), "top": (1, 1, 0, 2), "bottom": (1, 1, 2, 0)}
    touched = next(side for side, room in zip(steps, (left, right, top, bottom), strict=True) if room <= 0)
    low_x, high_x, low_y, high_y = (added * step for step in steps[touched])
    corners = (x - half - low_x, y - half - low_y, x + half + high_x, y + half + high_y)
    return (round(corners[0]), round(corners[1]), round(corners[2]), round(corners[3]))
