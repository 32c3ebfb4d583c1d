"""Crop recipes of 2019, against Pillow and the original programs' arithmetic."""

import numpy as np
import pytest
from PIL import Image

from jaxdog.data import crop_recipes_2019, photos
from tests.data.drawn_photos import coordinates, images, noise


def pillow(photo: np.ndarray, *sizes: tuple[int, int]) -> Image.Image:
    """The photo resized to each (w, h) in turn, as in the memorizers."""
    image = Image.fromarray(photo)
    for size in sizes:
        image = image.resize(size, Image.Resampling.LANCZOS)
    return image


@pytest.mark.parametrize(
    ("h", "w", "sizes"),
    [
        (100, 80, [(73, 91)]),  # 73 / 80 * 100 = 91.25
        (100, 74, [(400, 300), (73, 54)]),  # on the border of 0.74: squashed
        (200, 90, [(400, 300), (73, 54)]),
        (80, 100, [(91, 73)]),
        (90, 90, [(73, 73)]),
        (74, 100, [(300, 400), (54, 73)]),
        (375, 500, [(97, 73)]),  # the usual photo: 73 / 375 * 500 = 97.3
        (333, 500, [(300, 400), (54, 73)]),
    ],
)
def test_corner_is_the_top_left_mirrored(h, w, sizes):
    (got,) = images(crop_recipes_2019.corner(noise(h, w), [(0, 0, 3, 3)], size=64))
    want = pillow(noise(h, w), *sizes).crop((0, 0, 64, 64)).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    np.testing.assert_array_equal(got, np.asarray(want))


def test_corner_leaves_a_black_strip_of_ten_below_or_beside():
    white = np.full((300, 300, 3), 255, np.uint8)
    (tall,) = images(crop_recipes_2019.corner(white[:, :200], size=64))
    (wide,) = images(crop_recipes_2019.corner(white[:200], size=64))
    assert not tall[54:].any() and (tall[:54] == 255).all()
    assert not wide[:, :10].any() and (wide[:, 10:] == 255).all()  # on the left, since it is mirrored


def test_top_left_square_of_each_box():
    photo = coordinates(90, 90)
    boxes = [(10, 20, 42, 80), (-4, 5, 60, 37), (95, 0, 99, 9)]
    first, second = images(crop_recipes_2019.top_left_square(photo, boxes, size=32))
    np.testing.assert_array_equal(first, photo[20:52, 10:42])
    np.testing.assert_array_equal(second, photo[5:37, 0:32])
    (whole,) = images(crop_recipes_2019.top_left_square(noise(40, 70), [], size=40))
    np.testing.assert_array_equal(whole, noise(40, 70)[:, :40])


def four_boxes(h: int, w: int, box: photos.Box) -> list[tuple[float, float, float, float]]:
    """The crops of the original program, case by case."""
    x0, y0, x1, y1 = box
    short = min(x1 - x0, y1 - y0)
    cuts: list = [(x0, y0, x0 + short, y0 + short), (x1 - short, y0, x1, y0 + short)]
    half = abs((x1 - x0) - (y1 - y0)) // 2
    if x1 - x0 >= y1 - y0:
        cuts.append((x0, max(y0 - half, 0), x1, min(y1 + half, h - 1)))
    else:
        cuts.append((max(x0 - half, 0), y0, min(x1 + half, w - 1), y1))
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    reach = min(w - x, h - y, x, y)
    left, top, right, bottom = x - reach, y - reach, x + reach, y + reach
    if left == 0:
        m = int(0.28 * min(w - right, h - bottom, top))
        cuts.append((left, top - m, right + 2 * m, bottom + m))
    elif right == w:
        m = int(0.28 * min(left, h - bottom, top))
        cuts.append((left - 2 * m, top - m, right, bottom + m))
    elif top == 0:
        m = int(0.28 * min(left, w - right, h - bottom))
        cuts.append((left - m, top, right + m, bottom + 2 * m))
    else:
        m = int(0.28 * min(left, w - right, top))
        cuts.append((left - m, top - 2 * m, right + m, bottom))
    return cuts


@pytest.mark.parametrize(
    "box",
    [(10, 20, 62, 50), (70, 5, 88, 75), (3, 2, 9, 79), (40, 3, 60, 9), (30, 50, 71, 80), (0, 0, 90, 80)],
)
def test_four_squares_of_each_box(box):
    photo = noise(80, 90)
    got = images(crop_recipes_2019.four_squares(photo, [box], size=24))
    cuts = four_boxes(80, 90, box)
    assert len(got) == len(cuts) == 4
    for image, cut in zip(got, cuts, strict=True):
        expected = Image.fromarray(photo).crop(cut).resize((24, 24), Image.Resampling.LANCZOS)
        np.testing.assert_array_equal(image, np.asarray(expected))


def test_four_squares_leave_out_what_is_empty():
    photo = noise(80, 90)
    assert len(crop_recipes_2019.four_squares(photo, [], size=8)) == 4  # the whole photo
    assert crop_recipes_2019.four_squares(photo, [(95, 3, 99, 9)], size=8) == []  # beyond it
    assert len(crop_recipes_2019.four_squares(photo, [(0, 0, 1, 20), (5, 5, 30, 40)], size=8)) >= 4 + 3


def test_upper_middle_of_a_photo_100_wide():
    photo = noise(75, 100)
    (got,) = images(crop_recipes_2019.upper_middle(photo, size=64))
    np.testing.assert_array_equal(got, photo[:64, 18:82])
    (wide,) = images(crop_recipes_2019.upper_middle(noise(101, 200), size=64))  # int(101 / 2) = 50 high
    np.testing.assert_array_equal(wide, np.asarray(pillow(noise(101, 200), (100, 50)).crop((18, 0, 82, 64))))
    assert not wide[50:].any()
