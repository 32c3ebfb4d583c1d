"""Resizing against Pillow, warps against OpenCV, scipy and rotated arrays."""

import io
import pathlib
import tarfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxdog.ops import resample

PILLOW = {
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def dogs(real_data: pathlib.Path, n: int, size: int) -> np.ndarray:
    """The first photos of the archive, squashed: [n, size, size, 3] uint8."""
    photos = []
    with tarfile.open(real_data / "stanford_dogs" / "images.tar") as archive:
        for member in archive:
            if member.name.endswith(".jpg"):
                photo = Image.open(io.BytesIO(archive.extractfile(member).read())).convert("RGB")  # type: ignore
                photos.append(np.asarray(photo.resize((size, size), Image.Resampling.LANCZOS)))
            if len(photos) == n:
                return np.stack(photos)
    raise ValueError(f"the archive has fewer than {n} photos")


def image_of(levels: np.ndarray) -> jax.Array:
    """Levels in 0..255 as float32 in [-1, 1]."""
    return jnp.asarray(levels / 127.5 - 1, jnp.float32)


def levels(image: jax.Array) -> np.ndarray:
    """float32 in [-1, 1] as the integer levels of a PNG."""
    return np.rint(127.5 * (np.asarray(image) + 1)).astype(int)


def smooth(b: int, size: int, seed: int = 0) -> np.ndarray:
    """Images without edges, [b, size, size, 3] float32 in [-1, 1]."""
    coarse = np.random.default_rng(seed).uniform(-1, 1, (b, 5, 5, 3)).astype(np.float32)
    return np.asarray(jax.image.resize(coarse, (b, size, size, 3), "linear"))


# ------------------------------------------------------------------ weights, regions


@pytest.mark.parametrize("filter", resample.FILTERS)
@pytest.mark.parametrize(("low", "high", "size"), [(0, 40, 16), (7, 23, 64), (30, 31, 8), (5, 40, 32)])
def test_weights_equal_pillow(filter, low, high, size):
    got = np.asarray(
        resample.resize_matrix(jnp.full(1, float(low)), jnp.full(1, float(high)), 40, size, filter)
    )[0]
    for i in range(low, high):  # Pillow's result for an axis that is 1 at pixel i
        axis = (np.arange(low, high) == i).astype(np.float32)[None]
        want = np.asarray(Image.fromarray(axis).resize((size, 1), PILLOW[filter]))[0]
        np.testing.assert_allclose(got[:, i], want, atol=2e-5)
    assert not got[:, :low].any() and not got[:, high:].any()


def test_a_pixel_is_weighted_by_the_part_covered():
    got = resample.resize_matrix(jnp.array([0.5]), jnp.array([2.5]), 4, 1, "bilinear")
    np.testing.assert_allclose(got[0, 0], [1 / 6, 2 / 3, 1 / 6, 0.0], atol=1e-6)  # 1/2 1/2, 1, 1/2 1/2


@pytest.mark.parametrize(("filter", "most"), [("box", 1), ("bilinear", 1), ("bicubic", 2), ("lanczos", 2)])
def test_regions_of_dogs_against_pillow(real_data, filter, most):
    """Pillow rounds to bytes between its two passes, which kernels with negative weights double."""
    photos = dogs(real_data, 6, 96)
    draw = np.random.default_rng(1)
    low = draw.integers(0, 40, (6, 2))
    high = low + draw.integers(30, 57, (6, 2))
    high[0] = low[0] + 5
    for size in (64, 16):
        got = resample.crop_resize(image_of(photos), jnp.float32(low), jnp.float32(high), size, filter)
        want = [
            np.asarray(Image.fromarray(p[a:c, b:d]).resize((size, size), PILLOW[filter])).astype(int)
            for p, (a, b), (c, d) in zip(photos, low, high, strict=True)
        ]
        apart = np.abs(levels(got) - np.stack(want))
        assert apart.max() <= most and apart.mean() < 0.25


def test_resized_first_and_then_cut(real_data):
    photos = dogs(real_data, 2, 96)
    low = jnp.array([[0.0, 8.0], [5.0, 3.0]]) * 96 / 72
    got = resample.crop_resize(image_of(photos), low, low + 64 * 96 / 72, 64, "bilinear", inside=False)
    want = [
        np.asarray(Image.fromarray(p).resize((72, 72), PILLOW["bilinear"]))[y : y + 64, x : x + 64].astype(
            int
        )
        for p, (y, x) in zip(photos, ((0, 8), (5, 3)), strict=True)
    ]
    assert np.abs(levels(got) - np.stack(want)).max() <= 1


def test_the_mean_over_blocks_is_the_box_filter():
    image = smooth(2, 32)
    low, high = jnp.zeros((2, 2)), jnp.full((2, 2), 32.0)
    want = resample.crop_resize(image, low, high, 8, "box")
    np.testing.assert_allclose(resample.resize(image, 8, "box"), want, atol=1e-6)
    np.testing.assert_allclose(
        resample.resize(image, 12, "lanczos"),
        resample.crop_resize(image, low, high, 12, "lanczos"),
        atol=1e-6,
    )


def test_overshoot_is_clipped():
    edge = np.where(np.arange(32) < 16, -1.0, 1.0).astype(np.float32)
    image = np.broadcast_to(edge[None, None, :, None], (1, 32, 32, 3))
    (weights,) = resample.resize_matrix(jnp.zeros(1), jnp.full(1, 32.0), 32, 20, "lanczos")
    assert np.abs(weights @ edge).max() > 1.01
    assert np.abs(resample.resize(image, 20, "lanczos")).max() <= 1
    whole = jnp.zeros((1, 2)), jnp.full((1, 2), 32.0)
    assert np.abs(resample.crop_resize(image, *whole, 20, "lanczos")).max() <= 1


# ------------------------------------------------------------------ warps


def maps(b: int, size: int) -> np.ndarray:
    """Forward maps as OpenCV has them, [b, 2, 3]: rotated, scaled and shifted by a few pixels."""
    draw = np.random.default_rng(2)
    angle, scale = draw.uniform(-0.3, 0.3, b), draw.uniform(0.8, 1.2, b)
    linear = scale[:, None, None] * np.stack(
        [np.stack([np.cos(angle), np.sin(angle)], -1), np.stack([-np.sin(angle), np.cos(angle)], -1)], -2
    )
    center = np.full(2, size / 2)
    shift = center - linear @ center + draw.uniform(-5, 5, (b, 2))
    return np.concatenate([linear, shift[..., None]], -1)


@pytest.mark.parametrize("border", resample.BORDERS)
@pytest.mark.parametrize("filter", ["linear", "cubic"])
@pytest.mark.oracle
def test_warps_of_dogs_against_opencv(real_data, filter, border):
    cv2 = pytest.importorskip("cv2", reason="opencv is an oracle (make oracles)")
    photos = dogs(real_data, 4, 64)
    forward = maps(4, 64)
    inverse = jnp.float32([cv2.invertAffineTransform(m) for m in forward])
    flag = {"cubic": cv2.INTER_CUBIC, "linear": cv2.INTER_LINEAR}[filter]
    mode = {"reflect_101": cv2.BORDER_REFLECT_101, "black": cv2.BORDER_CONSTANT}[border]
    want = np.stack(
        [
            cv2.warpAffine(p, m, (64, 64), flags=flag, borderMode=mode)
            for p, m in zip(photos, forward, strict=True)
        ]
    )
    apart = np.abs(levels(resample.warp(image_of(photos), inverse, 64, filter, border)) - want.astype(int))
    exact = int(cv2.__version__.split(".")[0]) >= 5  # before, places were rounded to 1 / 32 pixel
    assert apart.mean() < (0.01 if exact else 0.5) and apart.max() <= (1 if exact else 8)


@pytest.mark.oracle
@pytest.mark.parametrize(("border", "mode"), [("reflect_101", "mirror"), ("black", "grid-constant")])
def test_linear_warps_against_scipy(border, mode):
    ndimage = pytest.importorskip("scipy.ndimage", reason="scipy is not installed")
    image, inverse = smooth(3, 24), maps(3, 24)  # as good as any other maps
    got = resample.warp(image, jnp.float32(inverse), 24, "linear", border)
    for one, m, theirs in zip(image, inverse, got, strict=True):
        swapped = m[::-1, [1, 0]]  # scipy's axes are (y, x)
        for c in range(3):
            want = ndimage.affine_transform(one[..., c], swapped, m[::-1, 2], order=1, mode=mode, cval=-1.0)
            np.testing.assert_allclose(theirs[..., c], want, atol=1e-4)


@pytest.mark.parametrize("filter", resample.WARP_FILTERS)
def test_the_identity_and_quarter_turns_are_exact(filter):
    image = smooth(4, 16)
    last = 15.0
    matrix = jnp.array(
        [
            [[1, 0, 0], [0, 1, 0]],
            [[0, -1, last], [1, 0, 0]],  # output (x, y) takes input (15 - y, x)
            [[-1, 0, last], [0, -1, last]],
            [[0, 1, 0], [-1, 0, last]],
        ],
        jnp.float32,
    )
    got = resample.warp(image, matrix, 16, filter)
    for turns in range(4):
        np.testing.assert_array_equal(got[turns], np.rot90(image[turns], turns))


@pytest.mark.parametrize("degrees", [1.0, -0.7, 30.0])
def test_nearest_warps_rotate_as_in_pillow(degrees):
    """About the center, black outside."""
    image = np.random.default_rng(1).integers(1, 256, (32, 32, 3), np.uint8)
    want = np.asarray(Image.fromarray(image).rotate(degrees, Image.Resampling.NEAREST))
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turn, middle = np.array([[cos, -sin], [sin, cos]]), np.array([15.5, 15.5])
    matrix = np.concatenate([turn, (middle - turn @ middle)[:, None]], 1)[None]
    got = resample.warp(image_of(image[None]), jnp.float32(matrix), 32, "nearest", "black")
    np.testing.assert_array_equal(levels(got)[0], want)


def test_far_outside():
    image = smooth(1, 8)
    far = jnp.array([[[1.0, 0.0, 100.0], [0.0, 1.0, 0.0]]])
    assert (np.asarray(resample.warp(image, far, 8, "cubic", "black")) == -1).all()
    padded = np.pad(image, ((0, 0), (0, 0), (0, 120), (0, 0)), mode="reflect")
    np.testing.assert_allclose(resample.warp(image, far, 8), padded[:, :, 100:108], atol=1e-6)


def test_errors_name_the_choices():
    image, part = jnp.zeros((1, 4, 4, 3)), (jnp.zeros(1), jnp.ones(1))
    with pytest.raises(ValueError, match="filter is 'cubic'; choices: box, bilinear, bicubic, lanczos"):
        resample.resize_matrix(*part, 4, 2, "cubic")
    with pytest.raises(ValueError, match="filter is 'lanczos'; choices: nearest, linear, cubic"):
        resample.warp(image, jnp.zeros((1, 2, 3)), 4, "lanczos")
    with pytest.raises(ValueError, match="border is 'white'; choices: reflect_101, black"):
        resample.warp(image, jnp.zeros((1, 2, 3)), 4, border="white")
