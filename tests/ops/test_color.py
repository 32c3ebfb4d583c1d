"""Color transforms against torchvision and Pillow, Lab against OpenCV."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from jaxdog.ops import color
from tests import oracles
from tests.ops import test_resample

FACTORS = (0.0, 0.5, 0.9, 1.0, 1.3, 2.0)
TURNS = (-0.5, -0.2, -0.01, 0.0, 0.05, 0.4)


@pytest.fixture(scope="module")
def photos(real_data) -> np.ndarray:
    return test_resample.dogs(real_data, len(FACTORS), 48)


@pytest.mark.parametrize(
    ("ours", "theirs", "amounts"),
    [
        (color.brightness, "adjust_brightness", FACTORS),
        (color.contrast, "adjust_contrast", FACTORS),
        (color.saturation, "adjust_saturation", FACTORS),
        (color.hue, "adjust_hue", TURNS),
    ],
)
@pytest.mark.oracle
def test_transforms_of_dogs_equal_torchvision(photos, ours, theirs, amounts):
    torch, transforms = oracles.torchvision_transforms()
    got = 0.5 * ours(test_resample.image_of(photos), jnp.array(amounts)) + 0.5
    for photo, amount, one in zip(photos, amounts, got, strict=True):
        tensor = torch.tensor(photo / 255.0, dtype=torch.float32).permute(2, 0, 1)
        want = getattr(transforms.functional, theirs)(tensor, amount).permute(1, 2, 0)
        np.testing.assert_allclose(one, want, atol=2e-4)  # their weights of gray add up to 0.9999


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (color.brightness, ImageEnhance.Brightness),
        (color.contrast, ImageEnhance.Contrast),
        (color.saturation, ImageEnhance.Color),
    ],
)
def test_transforms_of_dogs_equal_pillow(photos, ours, theirs):
    got = test_resample.levels(ours(test_resample.image_of(photos), jnp.array(FACTORS)))
    for photo, factor, one in zip(photos, FACTORS, got, strict=True):
        want = np.asarray(theirs(Image.fromarray(photo)).enhance(factor)).astype(int)
        assert np.abs(one - want).max() <= 1 + (factor > 1)  # Pillow rounds gray, and truncates the result


def test_gray_equals_pillow(photos):
    want = np.stack([np.asarray(Image.fromarray(photo).convert("L")) for photo in photos]).astype(int)
    got = test_resample.levels(color.gray(test_resample.image_of(photos)))
    assert np.abs(got[..., 0] - want).max() <= 1


def test_hue_turns_red_to_green_to_blue_and_leaves_gray():
    primary = jnp.eye(3)[None] * 2.0 - 1.0  # [1, 3, 3]: red, green, blue
    for turn, want in ((1 / 3, jnp.roll(primary, 1, 2)), (-1 / 3, jnp.roll(primary, -1, 2)), (0.5, -primary)):
        np.testing.assert_allclose(color.hue(primary[None], jnp.array([turn]))[0], want, atol=1e-5)
    gray = jnp.full((1, 2, 2, 3), 0.3)
    np.testing.assert_array_equal(color.hue(gray, jnp.array([0.3])), gray)


# ------------------------------------------------------------------ Lab


def every_color() -> np.ndarray:
    """Colors drawn from all 2^24, and all grays: [1, 256, 256, 3] int32."""
    drawn = np.random.default_rng(0).integers(0, 256, (1, 256, 256, 3), np.int32)
    drawn[0, 0] = np.arange(256)[:, None]
    return drawn


@pytest.mark.oracle
def test_lab_equals_opencv():
    cv2 = pytest.importorskip("cv2", reason="opencv is an oracle (make oracles)")
    rgb = every_color()
    want = cv2.cvtColor(rgb[0].astype(np.uint8), cv2.COLOR_LRGB2Lab)
    apart = np.abs(np.asarray(color.lab_from_rgb(jnp.asarray(rgb))[0]) - want)
    assert apart.max() <= 1 and apart.mean() < 1e-4  # a few of OpenCV's roots are rounded differently


@pytest.mark.oracle
def test_rgb_of_lab_equals_opencv_inside_and_outside_the_gamut():
    cv2 = pytest.importorskip("cv2", reason="opencv is an oracle (make oracles)")
    lab = every_color()
    want = cv2.cvtColor(lab[0].astype(np.uint8), cv2.COLOR_Lab2LRGB)
    np.testing.assert_array_equal(color.rgb_from_lab(jnp.asarray(lab))[0], want)


def test_white_black_and_the_round_trip():
    ends = jnp.array([[[[0, 0, 0], [255, 255, 255]]]], jnp.int32)
    np.testing.assert_array_equal(color.lab_from_rgb(ends), [[[[0, 128, 128], [255, 128, 128]]]])
    back = color.rgb_from_lab(color.lab_from_rgb(jnp.asarray(every_color())))
    assert np.abs(np.asarray(back) - every_color()).mean() < 2
