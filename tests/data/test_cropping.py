"""Boxes and pixels are checked on photos whose pixels encode their coordinates: photo[y, x] = (x, y, 7)."""

import numpy as np
import pytest

from jaxdog.data import cropping
from tests.data.drawn_photos import noise

# ------------------------------------------------------------------ boxes


@pytest.mark.parametrize(
    ("mode", "rows"),
    [
        ("grow", [(27, 47), (0, 20), (80, 100), (27, 48)]),
        ("grow_high", [(28, 48), (0, 20), (83, 100), (27, 48)]),
        ("grow_evenly", [(28, 47), (0, 15), (85, 100), (27, 48)]),
    ],
)
def test_three_ways_to_grow_differ_by_an_odd_pixel_and_at_the_borders(mode, rows):
    """9 pixels missing: in the middle, at the top, at the bottom; 8 missing in the middle."""
    wide = [(30, 32, 50, 43), (30, 2, 50, 13), (30, 87, 50, 98), (30, 31, 51, 44)]
    got = [cropping.grow(box, 100, 100, mode) for box in wide]
    assert [(box[1], box[3]) for box in got] == rows
    tall = [cropping.grow((ymin, xmin, ymax, xmax), 100, 100, mode) for xmin, ymin, xmax, ymax in wide]
    assert [(box[0], box[2]) for box in tall] == rows


def test_take_refuses_to_leave_the_photo_unpadded():
    with pytest.raises(ValueError, match=r"box \(-1, 0, 5, 5\) extends beyond the photo of 9 x 8"):
        cropping.take(noise(8, 9), (-1, 0, 5, 5))


# ------------------------------------------------------------------ resamplers


def legacy_pixel(image: np.ndarray, y: int, x: int, h: int, w: int) -> np.ndarray:
    """One output pixel of TensorFlow 1's ResizeBilinear, written out."""
    f = np.float32
    sy, sx = f(y) * f(image.shape[0] / h), f(x) * f(image.shape[1] / w)
    top, left = int(np.floor(sy)), int(np.floor(sx))
    bottom, right = min(top + 1, image.shape[0] - 1), min(left + 1, image.shape[1] - 1)
    dy, dx = f(sy - f(top)), f(sx - f(left))
    p = image.astype(np.float32)
    upper = p[top, left] + (p[top, right] - p[top, left]) * dx
    lower = p[bottom, left] + (p[bottom, right] - p[bottom, left]) * dx
    return upper + (lower - upper) * dy


@pytest.mark.parametrize(("h", "w"), [(37, 50), (9, 90), (16, 16)])
def test_tf1_bilinear_against_a_loop_over_pixels(h, w):
    image = noise(h, w)
    loop = np.array([[legacy_pixel(image, y, x, 16, 16) for x in range(16)] for y in range(16)])
    np.testing.assert_array_equal(
        cropping.resize(image, 16, 16, "tf1-bilinear"), np.rint(loop).astype(np.uint8)
    )


def test_tf1_bilinear_against_another_implementation(real_data):
    check = np.load(real_data / "inception" / "port_check.npz")
    resized = check["resized"][0] * 128 + 128  # [299, 299, 3], of images[0], not rounded
    got = cropping.resize(check["images"][0], 299, 299, "tf1-bilinear")
    assert np.abs(got - resized).max() <= 0.5 + 1e-3


def test_tf1_bilinear_does_not_look_at_what_lies_between():
    stripes = np.zeros((8, 64, 3), np.uint8)
    stripes[:, 1::4] = 255  # 64 -> 16 reads columns 0, 4, 8, ... only
    assert not cropping.resize(stripes, 8, 16, "tf1-bilinear").any()
    assert cropping.resize(stripes, 8, 16, "bilinear").any()


def test_area_is_the_mean_over_each_pixels_area():
    image = noise(12, 20)
    blocks = image.reshape(4, 3, 5, 4, 3).astype(np.float64).mean((1, 3))
    assert np.abs(cropping.resize(image, 4, 5, "area") - blocks).max() <= 0.5 + 1e-4
    row = np.array([[[0], [90], [60]]], np.uint8).repeat(3, 2)  # 3 pixels into 2: weights 1, 1/2
    np.testing.assert_array_equal(cropping.resize(row, 1, 2, "area")[0, :, 0], [30, 70])
    flat = np.full((13, 29, 3), 201, np.uint8)
    np.testing.assert_array_equal(cropping.resize(flat, 16, 16, "area"), 201)


@pytest.mark.oracle
def test_area_is_opencvs_inter_area_when_shrinking():
    cv2 = pytest.importorskip("cv2", reason="opencv is not installed")
    image = noise(123, 211)
    theirs = cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA)
    assert np.abs(cropping.resize(image, 64, 64, "area").astype(int) - theirs.astype(int)).max() <= 1
