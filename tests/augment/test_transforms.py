"""Augmentations against torchvision, Pillow and OpenCV, and on images of their own coordinates."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxdog import types
from jaxdog.augment import transforms
from tests import oracles
from tests.ops import test_resample

KEY = jax.random.key(3)


def batch_of(image, original_size=None, crop_type=None) -> types.Batch:
    """Images as a batch; the original size is the images' unless given, other fields are zeros."""
    b, h, w, _ = image.shape
    empty = types.Batch(**{name: jnp.zeros(b, jnp.int32) for name in types.Batch._fields})
    original_size = np.broadcast_to([h, w] if original_size is None else original_size, (b, 2))
    crop_type = np.zeros(b) if crop_type is None else crop_type
    return empty._replace(
        image=jnp.asarray(image),
        original_size=jnp.asarray(original_size, jnp.int32),
        crop_type=jnp.asarray(crop_type, jnp.int32),
    )


def run(function, first, *settings, **named):
    """function(KEY, first, ...), compiled as one program."""
    return jax.jit(lambda key, first: function(key, first, *settings, **named))(KEY, first)


def counted(b: int) -> jax.Array:
    return jnp.arange(b * 4 * 6 * 3, dtype=jnp.float32).reshape(b, 4, 6, 3) / 1000


def places(b: int, size: int) -> np.ndarray:
    """Images of their own coordinates: channels (y, x, 0) in (-1, 1), the borders at -1 and 1."""
    axis = (2 * np.arange(size, dtype=np.float32) + 1) / size - 1
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return np.broadcast_to(np.stack([y, x, 0 * x], -1), (b, size, size, 3))


def lines(image) -> tuple[np.ndarray, np.ndarray]:
    """The least-squares plane of images of coordinates: value at the center [b, 2], slope [b, 2, 2].

    slope[i, j] is the distance along axis j of the input per pixel along axis i of the output. Least squares
    average out the kernels' ripple on a slope.
    """
    b, size, _, _ = np.shape(image)
    part = np.asarray(image)[:, size // 4 : -size // 4, size // 4 : -size // 4, :2]
    axis = np.arange(size // 2) - (size // 2 - 1) / 2
    norm = np.sum(axis**2) * len(axis)
    steps = np.stack([np.einsum("bhwc,h->bc", part, axis), np.einsum("bhwc,w->bc", part, axis)], 1) / norm
    return part.mean((1, 2)), steps


def straight(steps: np.ndarray) -> np.ndarray:
    """The slopes along each image's own axes, [b, 2], after a check that the others are 0."""
    assert np.abs(steps[:, [0, 1], [1, 0]]).max() < 1e-5
    return steps[:, [0, 1], [0, 1]]


# ------------------------------------------------------------------ flip, noise


def test_flip_flips_each_image_left_to_right_or_not():
    image = counted(64)
    got = np.asarray(run(transforms.flip, batch_of(image)).image)
    kept = np.array([np.array_equal(a, b) for a, b in zip(got, image, strict=True)])
    flipped = np.array([np.array_equal(a, b[:, ::-1]) for a, b in zip(got, image, strict=True)])
    assert (kept ^ flipped).all()
    assert 16 < flipped.sum() < 48  # 64 fair coins: 4 standard deviations


def test_flip_probabilities():
    image = counted(8)
    batch = batch_of(image)
    np.testing.assert_array_equal(run(transforms.flip, batch, p=0.0).image, image)
    np.testing.assert_array_equal(run(transforms.flip, batch, p=1.0).image, image[:, :, ::-1])
    np.testing.assert_array_equal(run(transforms.flip, run(transforms.flip, batch)).image, image)


def test_flip_of_another_key_flips_others():
    batch = batch_of(counted(64))
    other = transforms.flip(jax.random.key(4), batch)
    assert not np.array_equal(run(transforms.flip, batch).image, other.image)


def test_uniform_noise_adds_up_to_scale_to_every_value_independently():
    batch = batch_of(counted(16))
    added = np.asarray(run(transforms.uniform_noise, batch, 1 / 128).image - batch.image)
    assert added.min() > -1e-6 and added.max() < 1 / 128 + 1e-6
    assert abs(added.mean() - 1 / 256) < 1e-3 / 4
    zeros = batch._replace(image=batch.image * 0)
    assert (
        np.unique(np.asarray(run(transforms.uniform_noise, zeros, 1.0).image)).size > 0.99 * zeros.image.size
    )


def test_normal_noise_has_the_requested_standard_deviation():
    batch = batch_of(jnp.full((8, 16, 16, 3), 0.9))
    added = np.asarray(run(transforms.normal_noise, batch, 0.25).image) - 0.9
    assert abs(added.std() - 0.25) < 0.01 and abs(added.mean()) < 0.01
    assert abs(np.mean(np.abs(added) < 0.25) - 0.6827) < 0.02  # within one deviation
    assert np.unique(added).size > 0.9 * added.size


def test_dtype_and_other_fields_are_kept():
    batch = batch_of(counted(2).astype(jnp.bfloat16), crop_type=[1, 2])
    for function in (
        transforms.flip,
        functools.partial(transforms.uniform_noise, scale=0.1),
        functools.partial(transforms.normal_noise, scale=0.1),
    ):
        got = function(KEY, batch)
        assert got.image.dtype == jnp.bfloat16
        np.testing.assert_array_equal(got.crop_type, batch.crop_type)
        np.testing.assert_array_equal(got.original_size, batch.original_size)


# ------------------------------------------------------------------ random resized crops


def torchvision_regions(n: int, h: int, w: int, scale, ratio) -> np.ndarray:
    """(top, left, height, width) as torchvision draws them, [n, 4]."""
    torch, transforms = oracles.torchvision_transforms()
    torch.manual_seed(0)
    photo = torch.zeros(1, h, w)
    draw = transforms.RandomResizedCrop.get_params
    return np.array([draw(photo, list(scale), list(ratio)) for _ in range(n)])


def our_regions(n: int, h: int, w: int, scale, ratio) -> np.ndarray:
    original_size = jnp.broadcast_to(jnp.array([h, w], jnp.int32), (n, 2))
    return np.concatenate(run(transforms.resized_crop_region, original_size, scale, ratio), 1)


@pytest.mark.parametrize(
    ("h", "w", "scale", "ratio"),
    [
        (100, 100, (0.7, 1.0), (1.0, 1.0)),
        (100, 100, (0.8, 1.0), (3 / 4, 4 / 3)),
        (120, 90, (0.08, 1.0), (3 / 4, 4 / 3)),
        (60, 100, (0.85, 1.0), (3 / 4, 4 / 3)),  # sometimes none of the ten draws fits
    ],
)
@pytest.mark.oracle
def test_regions_have_the_distribution_of_torchvision(h, w, scale, ratio):
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    ours, theirs = our_regions(4000, h, w, scale, ratio), torchvision_regions(4000, h, w, scale, ratio)
    for a, b in zip(ours.T, theirs.T, strict=True):
        assert stats.ks_2samp(a, b).pvalue > 1e-3
    assert stats.ks_2samp(ours[:, 0] * ours[:, 3], theirs[:, 0] * theirs[:, 3]).pvalue > 1e-3
    assert (ours[:, :2] >= 0).all() and (ours[:, :2] + ours[:, 2:] <= [h, w]).all()


@pytest.mark.parametrize(("h", "w"), [(50, 1000), (1000, 51), (49, 203)])
@pytest.mark.oracle
def test_regions_where_no_draw_fits(h, w):
    ours = our_regions(50, h, w, (0.9, 1.0), (3 / 4, 4 / 3))
    np.testing.assert_array_equal(ours, torchvision_regions(50, h, w, (0.9, 1.0), (3 / 4, 4 / 3)))
    whole = our_regions(5, 100, 100, (1.1, 1.2), (3 / 4, 4 / 3))  # too large, the ratio is allowed
    np.testing.assert_array_equal(whole, [[0, 0, 100, 100]] * 5)


def test_resized_crops_of_dogs_against_pillow(real_data):
    photos = test_resample.dogs(real_data, 6, 96)
    batch = batch_of(test_resample.image_of(photos))
    got = run(transforms.random_resized_crop, batch, 64, 0.3, 1.0)
    corner, sides = run(transforms.resized_crop_region, batch.original_size, (0.3, 1.0), (3 / 4, 4 / 3))
    np.testing.assert_array_equal(got.original_size, sides)
    for photo, (y, x), (h, w), one in zip(photos, corner, sides, got.image, strict=True):
        cut = Image.fromarray(photo[y : y + h, x : x + w])
        want = np.asarray(cut.resize((64, 64), Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(test_resample.levels(one) - want).max() <= 1
    assert len({tuple(side) for side in sides.tolist()}) == 6


def test_resized_crops_of_squashed_images_show_the_same_region():
    original_size = np.array([[200, 50], [64, 96], [333, 500]])
    batch = batch_of(places(3, 96), original_size)
    corner, sides = run(transforms.resized_crop_region, batch.original_size, (0.5, 0.9), (3 / 4, 4 / 3))
    middle, steps = lines(run(transforms.random_resized_crop, batch, 64, 0.5, 0.9).image)
    np.testing.assert_allclose(middle, 2 * (corner + sides / 2) / original_size - 1, atol=2e-3)
    np.testing.assert_allclose(straight(steps), 2 * sides / original_size / 64, rtol=2e-3)


# ------------------------------------------------------------------ random squares


def test_squares_are_placed_along_the_long_side():
    b = 600
    original_size = np.where(np.arange(b)[:, None] % 2, [[80, 200]], [[150, 100]])
    got = run(transforms.random_square, batch_of(places(b, 96), original_size), 64)
    middle, steps = lines(got.image)
    np.testing.assert_allclose(straight(steps)[::2], [[2 * 100 / 150 / 64, 2 / 64]] * (b // 2), rtol=2e-3)
    np.testing.assert_allclose(straight(steps)[1::2], [[2 / 64, 2 * 80 / 200 / 64]] * (b // 2), rtol=2e-3)
    assert np.abs(middle[::2, 1]).max() < 1e-3 and np.abs(middle[1::2, 0]).max() < 1e-3
    # 96 of the 160 pixels lie outside the square: 97 places, all equally likely
    first = np.rint(((middle[1::2, 1] + 1) * 80) - 32).astype(int)
    assert first.min() >= 0 and first.max() <= 96 and len(set(first)) > 80
    assert abs(first.mean() - 48) < 4 * 28 / np.sqrt(b / 2)
    np.testing.assert_array_equal(got.original_size[:2], [[100, 100], [80, 80]])


def test_central_squares():
    original_size = np.full((64, 2), [100, 300])
    batch = batch_of(places(64, 96), original_size)
    middle, _ = lines(run(transforms.random_square, batch, 64, central=1.0).image)
    assert np.abs(middle).max() < 2e-3
    middle, _ = lines(run(transforms.random_square, batch, 64, central=0.5).image)
    assert 16 < (np.abs(middle[:, 1]) < 2e-3).sum() < 48


def test_enlarged_squares_of_dogs_against_pillow(real_data):
    photos = test_resample.dogs(real_data, 4, 96)
    got = run(transforms.random_square, batch_of(test_resample.image_of(photos)), 64, zoom=72 / 64).image
    corners = []
    for photo, one in zip(photos, test_resample.levels(got), strict=True):
        whole = np.asarray(Image.fromarray(photo).resize((72, 72), Image.Resampling.BILINEAR)).astype(int)
        at = [
            (y, x)
            for y, x in itertools.product(range(9), range(9))
            if np.abs(whole[y : y + 64, x : x + 64] - one).max() <= 1
        ]
        assert len(at) == 1
        corners += at
    assert len(set(corners)) > 1


def test_other_crop_types_are_resized_whole():
    image = test_resample.smooth(3, 64)
    batch = batch_of(image, np.full((3, 2), [100, 200]), [0, 1, 0])
    got = run(transforms.random_square, batch, 32, crop_types=(1,), filter="box")
    want = image.reshape(3, 32, 2, 32, 2, 3).mean((2, 4))
    np.testing.assert_allclose(got.image[::2], want[::2], atol=1e-6)
    assert np.abs(got.image[1] - want[1]).max() > 0.1
    np.testing.assert_array_equal(got.original_size, [[100, 200], [100, 100], [100, 200]])


# ------------------------------------------------------------------ warps


@pytest.mark.oracle
def test_affine_equals_the_rotation_matrix_of_opencv_with_a_shift():
    cv2 = pytest.importorskip("cv2", reason="opencv is an oracle (make oracles)")
    draw = np.random.default_rng(0)
    shift, scale, degrees = draw.uniform(-9, 9, (8, 2)), draw.uniform(0.5, 2, 8), draw.uniform(-90, 90, 8)
    center = np.array([[64.0, 60.0]])
    got = transforms.affine(*map(jnp.float32, (shift, scale, degrees, center)))
    for one, d, s, a in zip(got, shift, scale, degrees, strict=True):
        forward = cv2.getRotationMatrix2D(tuple(center[0]), a, s)
        forward[:, 2] += d
        np.testing.assert_allclose(one, cv2.invertAffineTransform(forward), atol=1e-4)


@pytest.mark.oracle
def test_scaled_dogs_against_opencv(real_data):
    cv2 = pytest.importorskip("cv2", reason="opencv is an oracle (make oracles)")
    photos = test_resample.dogs(real_data, 2, 128)
    batch = batch_of(test_resample.image_of(photos))
    got = run(transforms.shift_scale_rotate, batch, 64, scale_min=0.9, scale_max=0.9)
    for photo, one in zip(photos, test_resample.levels(got.image), strict=True):
        matrix = cv2.getRotationMatrix2D((64.0, 64.0), 0.0, 0.9)
        mode = dict(flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
        want = cv2.resize(
            cv2.warpAffine(photo, matrix, (128, 128), **mode), (64, 64), None, 0, 0, cv2.INTER_AREA
        )
        assert np.abs(one - want.astype(int)).mean() < 0.4  # OpenCV rounds between the two steps


def test_each_crop_type_has_its_own_limits():
    crop_type = np.arange(900) % 3
    batch = batch_of(places(900, 32), crop_type=crop_type)
    limits = dict(
        shift=(0.0, 0.0, 0.06), scale_min=(1.0, 0.9, 1.0), scale_max=(1.0, 1.1, 1.0), degrees=(0.0, 8.0, 0.0)
    )
    got = np.asarray(run(transforms.shift_scale_rotate, batch, 32, **limits).image)
    np.testing.assert_array_equal(got[crop_type == 0], batch.image[:300])
    middle, steps = lines(got)
    slope = 16 * steps
    scale = 1 / np.sqrt(np.abs(np.linalg.det(slope)))
    degrees = np.rad2deg(np.arctan2(slope[:, 0, 1], slope[:, 0, 0]))
    for value, low, high in ((scale, 0.9, 1.1), (degrees, -8, 8)):
        drawn = value[crop_type == 1]
        assert drawn.min() > low - 0.01 * (high - low) and drawn.max() < high + 0.01 * (high - low)
        quarters = np.quantile(drawn, [0.25, 0.5, 0.75]) - np.linspace(low, high, 5)[1:4]
        assert np.abs(quarters).max() < 0.1 * (high - low)
    shift = -16 * middle[crop_type == 2]  # in pixels, (y, x)
    assert np.abs(shift).max() < 0.0605 * 32 and np.abs(shift).max(0).min() > 0.055 * 32
    assert abs(np.corrcoef(shift.T)[0, 1]) < 0.2


def test_doubled_pixels_are_recovered_exactly(real_data):
    photos = test_resample.image_of(test_resample.dogs(real_data, 3, 64))
    doubled = jnp.repeat(jnp.repeat(photos, 2, 1), 2, 2)
    batch = batch_of(doubled, crop_type=[0, 0, 1])
    got = run(
        transforms.shift_scale_rotate, batch, 64, degrees=(0.0, 8.0), zoom=(1.0, 1.125), zoom_p=(0.0, 0.5)
    )
    np.testing.assert_array_equal(got.image[:2], photos[:2])
    assert np.abs(got.image[2] - photos[2]).max() > 0.1


def test_zoomed_images_are_cropped_anywhere():
    batch = batch_of(places(200, 32))
    got = run(transforms.shift_scale_rotate, batch, 32, zoom=1.25, zoom_p=1.0).image
    middle, steps = lines(got)
    np.testing.assert_allclose(straight(steps), 2 / 32 / 1.25, rtol=5e-3)
    assert 0.19 < middle.max() < 0.201 and -0.201 < middle.min() < -0.19  # +-(1 - 1 / 1.25)
    some, _ = lines(run(transforms.shift_scale_rotate, batch, 32, zoom=1.25, zoom_p=0.25).image)
    assert 25 < (np.abs(some[:, 0]) > 1e-3).sum() < 75


# ------------------------------------------------------------------ colors


@pytest.mark.oracle
def test_jitter_in_every_order_equals_torchvision(real_data):
    torch, reference = oracles.torchvision_transforms()
    order = np.array(list(itertools.permutations(range(4))))  # of operations, by time
    photos = test_resample.dogs(real_data, 1, 32).repeat(len(order), 0)
    factor = np.random.default_rng(0).uniform(0.6, 1.5, (len(order), 4))
    factor[:, 3] -= 1.05
    image = jax.jit(transforms.adjust_colors)(
        test_resample.image_of(photos), jnp.float32(factor), np.argsort(order, 1)
    )
    names = ("adjust_brightness", "adjust_contrast", "adjust_saturation", "adjust_hue")
    for photo, steps, amounts, got in zip(photos, order, factor, 0.5 * image + 0.5, strict=True):
        want = torch.tensor(photo / 255.0, dtype=torch.float32).permute(2, 0, 1)
        for step in steps:
            want = getattr(reference.functional, names[step])(want, float(amounts[step]))
        np.testing.assert_allclose(got, want.permute(1, 2, 0), atol=1e-3)


def test_jitter_draws_for_each_image():
    image = np.full((2000, 2, 2, 3), -0.5, np.float32)
    image[..., 0] = -0.4
    got = np.asarray(run(transforms.color_jitter, batch_of(image), brightness=0.2, p=0.5).image)
    factor = (got[:, 0, 0, 0] + 1) / 0.6
    changed = factor[np.abs(factor - 1) > 1e-6]
    assert abs(len(changed) - 1000) < 90  # 4 standard deviations
    assert 0.8 - 1e-5 <= changed.min() < 0.805 and 1.195 < changed.max() <= 1.2 + 1e-5
    assert abs(np.median(changed) - 1) < 0.03
    np.testing.assert_allclose(
        (got + 1) / (image + 1), np.broadcast_to(factor[:, None, None, None], got.shape), atol=1e-5
    )


def test_jitter_limits_of_contrast_saturation_and_hue():
    image = test_resample.smooth(400, 8) / 4
    std = image.reshape(400, -1).std(1)

    def jitter(**settings):
        return np.asarray(run(transforms.color_jitter, batch_of(image), **settings).image)

    gray = np.array([0.299, 0.587, 0.114], np.float32)
    ratio = (jitter(contrast_min=0.9, contrast_max=1.2) @ gray).std((1, 2)) / (image @ gray).std((1, 2))
    assert 0.9 - 1e-4 <= ratio.min() < 0.91 and 1.19 < ratio.max() <= 1.2 + 1e-4
    more = jitter(saturation=0.3)
    np.testing.assert_allclose(more @ gray, image @ gray, atol=1e-5)
    ratio = (more - (more @ gray)[..., None]).std((1, 2, 3)) / (image - (image @ gray)[..., None]).std(
        (1, 2, 3)
    )
    assert 0.7 - 1e-4 <= ratio.min() < 0.71 and 1.29 < ratio.max() <= 1.3 + 1e-4
    rotated = jitter(hue=0.01)
    assert 0 < np.abs(rotated - image).max() < 0.01 * 6 * 2 * std.max() * 4
    np.testing.assert_allclose(rotated.max(-1), image.max(-1), atol=1e-5)


def test_without_jitter_values_out_of_range_are_kept():
    batch = batch_of(test_resample.smooth(4, 8) * 1.5)
    settings = dict(brightness=0.2, contrast_min=0.9, contrast_max=1.2, saturation=0.3, hue=0.01)
    np.testing.assert_array_equal(run(transforms.color_jitter, batch, **settings, p=0.0).image, batch.image)


# Jittered squares, rotations ------------------------------------------------------------------------------


def jittered(original_size, context=1.25, shift=0.05, grow=0.05) -> tuple[np.ndarray, np.ndarray]:
    """Centers [b, 2] and sides [b, 2] of the regions, in units of the crop's long side."""
    b = 400
    batch = batch_of(places(b, 50), [original_size] * b)
    got = run(transforms.jittered_square, batch, 32, context, shift, grow)
    middle, steps = lines(got.image)
    scale = np.array(original_size) / max(original_size)
    return (middle + 1) / 2 * scale, straight(steps) * 32 / 2 * scale


def test_jittered_squares_are_shifted_and_enlarged_within_their_limits():
    middle, side = jittered((200, 200))
    np.testing.assert_allclose(side[:, 0], side[:, 1], rtol=5e-3)
    assert (0.8 * 0.996 < side).all() and (side < 0.8 * 1.054).all() and np.ptp(side) > 0.8 * 0.045
    off = middle - 0.5
    assert np.abs(off).max() <= 0.8 * 0.051 and np.abs(off).max(0).min() > 0.8 * 0.045
    assert abs(np.corrcoef(off.T)[0, 1]) < 0.2
    middle, side = jittered((200, 200), shift=0.0, grow=0.0)
    np.testing.assert_allclose(middle, 0.5, atol=1e-3)
    np.testing.assert_allclose(side, 0.8, rtol=5e-3)


def test_jittered_squares_are_clipped_to_the_crop():
    """A square of 160 pixels is clipped to a width of 120, then cropped along its height."""
    middle, side = jittered((200, 120), shift=0.0, grow=0.0)
    np.testing.assert_allclose(side, 0.6, rtol=2e-2)
    np.testing.assert_allclose(middle[:, 1], 0.3, atol=1e-3)
    assert 0.1 + 0.3 - 0.01 < middle[:, 0].min() < 0.42 and 0.58 < middle[:, 0].max() < 0.9 - 0.3 + 0.01


def test_rotated_images_equal_torchvision():
    """Pillow's nearest-neighbor rotation by the same angles; other images are unchanged."""
    image = np.random.default_rng(2).integers(0, 256, (60, 16, 16, 3), np.uint8)
    batch = batch_of(image.astype(np.float32) / 127.5 - 1)
    got = np.asarray(run(transforms.rotate, batch, 20.0, p=0.3).image)
    angle_key, p_key = jax.random.split(KEY)
    angle = 20.0 * np.asarray(jax.random.uniform(angle_key, (60,), minval=-1.0))
    rotated = np.asarray(jax.random.bernoulli(p_key, 0.3, (60,)))
    assert 8 < rotated.sum() < 30 and angle.min() < -15 and angle.max() > 15
    for i in range(60):
        want = Image.fromarray(image[i]).rotate(angle[i] * rotated[i], Image.Resampling.NEAREST)
        np.testing.assert_allclose(got[i], np.asarray(want) / 127.5 - 1, atol=1e-6)
