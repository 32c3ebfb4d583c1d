"""Paths between latents: closed forms, keyframes, loops, classes and noise."""

import jax
import numpy as np
import pytest

from jaxdog.render import decoding, interpolation
from jaxdog.systems import sampling
from jaxdog.utils import errors
from tests.render import fakes

KEY = jax.random.key(5)
RNG = np.random.default_rng(1)
Z = RNG.standard_normal((3, fakes.DIM)).astype(np.float32)
LABEL = np.array([0, 1, 2], np.int32)


def slerp(a, b, *t):
    a, b = (np.repeat(np.asarray(x, np.float32)[None], len(t), 0) for x in (a, b))
    return interpolation.slerp(a, b, np.asarray(t))


def frames_of(system, z, label, **options):
    return interpolation.interpolate(system, {}, z, label, KEY, **options)


# ------------------------------------------------------------------ slerp


def test_slerp_moves_at_constant_speed_along_the_circle():
    angle = np.array([0.0, 0.25, 0.5, 1.0]) * np.pi / 2
    expected = np.stack([np.cos(angle), np.sin(angle)], 1)
    np.testing.assert_allclose(slerp([1, 0], [0, 1], 0.0, 0.25, 0.5, 1.0), expected, atol=1e-7)


def test_norms_are_interpolated_linearly():
    z = slerp([3, 0, 0], [0, 0, 5], 0.5)
    np.testing.assert_allclose(z, [[4 * 0.5**0.5, 0, 4 * 0.5**0.5]], rtol=1e-6)


def test_gaussian_latents_keep_their_norm():
    a, b = RNG.standard_normal((2, 200, 512))
    norm = np.linalg.norm(interpolation.slerp(a, b, np.full(200, 0.5)), axis=1)
    assert np.all(np.abs(norm / 512**0.5 - 1.0) < 0.15)
    assert np.linalg.norm((a + b) / 2, axis=1).mean() < 0.75 * 512**0.5  # the straight line


def test_parallel_vectors_give_a_straight_line():
    np.testing.assert_allclose(slerp([1, 2], [2, 4], 0.5), [[1.5, 3]], rtol=1e-6)
    np.testing.assert_allclose(slerp([1, 2], [1, 2], 0.5), [[1, 2]], rtol=1e-6)


def test_opposite_vectors_go_around():
    z = slerp([2, 0, 0], [-2, 0, 0], 0.0, 0.25, 0.5, 0.75, 1.0)
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 2.0, rtol=1e-6)
    np.testing.assert_allclose(z[:, 0], 2 * np.cos(np.pi * np.linspace(0, 1, 5)), atol=1e-6)


@pytest.mark.parametrize("offset", [1e-3, 1e-5, 1e-7])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_nearly_parallel_and_opposite_vectors_are_smooth(offset, sign):
    a = RNG.standard_normal(64)
    b = sign * a + offset * RNG.standard_normal(64)
    z = slerp(a, b, *np.linspace(0, 1, 33)).astype(np.float64)
    length = np.linalg.norm(a)
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), length, rtol=1e-3)
    steps = np.linalg.norm(np.diff(z, axis=0), axis=1)
    angle = 0.0 if sign > 0 else np.pi
    np.testing.assert_allclose(steps, angle / 32 * length, atol=2e-3 * length)


def test_zero_vectors_have_the_direction_of_the_other():
    np.testing.assert_allclose(slerp([0, 0], [0, 4], 0.25, 0.5), [[0, 1], [0, 2]], rtol=1e-6)
    np.testing.assert_allclose(slerp([4, 0], [0, 0], 0.25), [[3, 0]], rtol=1e-6)
    np.testing.assert_array_equal(slerp([0, 0], [0, 0], 0.5), [[0, 0]])


def test_the_ends_are_exact():
    a, b = RNG.standard_normal((2, 100, 7)).astype(np.float32)
    np.testing.assert_array_equal(interpolation.slerp(a, b, np.zeros(100)), a)
    np.testing.assert_array_equal(interpolation.slerp(a, b, np.ones(100)), b)
    b = (-a + 1e-6 * b).astype(np.float32)  # as good as opposite
    np.testing.assert_array_equal(interpolation.slerp(a, b, np.ones(100)), b)


# ------------------------------------------------------------------ positions


def test_a_loop_leads_back_to_the_first_keyframe_without_repeating_it():
    start, end, t = interpolation.positions(3, 6, loop=True)
    assert start.tolist() == [0, 0, 1, 1, 2, 2] and end.tolist() == [1, 1, 2, 2, 0, 0]
    assert t.tolist() == [0.0, 0.5] * 3


def test_a_path_ends_at_the_last_keyframe():
    start, end, t = interpolation.positions(3, 5, loop=False)
    assert start.tolist() == [0, 0, 1, 1, 2] and end.tolist() == [1, 1, 2, 2, 2]
    assert t.tolist() == [0.0, 0.5, 0.0, 0.5, 0.0]
    start, end, t = interpolation.positions(4, 1, loop=False)
    assert start.tolist() == [0] and t.tolist() == [0.0]


@pytest.mark.parametrize("loop", [True, False])
def test_frames_are_evenly_spaced_between_keyframes(loop):
    start, _, t = interpolation.positions(4, 11, loop)
    np.testing.assert_allclose(np.diff(start + t), 4 / 11 if loop else 3 / 10)


# ------------------------------------------------------------------ images


def expected(label, x):
    noise = 0.05 * np.asarray(jax.random.normal(KEY))
    images = fakes.linear(np.asarray(label, np.float32), np.asarray(x, np.float32), noise)
    return np.asarray(sampling.to_uint8(images)).astype(int)


def test_images_follow_the_path_and_the_class_switches_halfway():
    frames = frames_of(fakes.z_system(), Z[:2], LABEL[:2], frames=5, loop=False)
    assert frames.shape == (5, 8, 8, 3) and frames.dtype == np.uint8
    z = interpolation.slerp(Z[[0] * 5], Z[[1] * 5], np.linspace(0, 1, 5))
    assert np.abs(frames - expected([0, 0, 1, 1, 1], z)).max() <= 1


def test_every_frame_has_the_same_noise():
    same = np.repeat(Z[:1], 2, axis=0)
    frames = frames_of(fakes.z_system(), same, LABEL[[0, 0]], frames=20)
    assert (frames == frames[:1]).all()
    other = interpolation.interpolate(fakes.z_system(), {}, same, LABEL[[0, 0]], jax.random.key(6), 2)
    assert (other[0] != frames[0]).any()


def test_frames_do_not_depend_on_how_many_there_are():
    many = frames_of(fakes.z_system(), Z, LABEL, frames=36)
    few = frames_of(fakes.z_system(), Z, LABEL, frames=9)
    np.testing.assert_array_equal(many[::4], few)


def test_keyframes_are_the_images_of_their_latents():
    system = fakes.z_system()
    frames = frames_of(system, Z, LABEL, frames=12)
    images = decoding.decode(system, {}, Z, LABEL, decoding.repeat_key(KEY, 3))
    np.testing.assert_array_equal(frames[::4], images)


def test_the_path_is_linear_in_w_and_the_class_changes_gradually():
    frames = frames_of(fakes.w_system(), Z, LABEL, frames=12)
    w = Z + 0.5 * LABEL[:, None]
    start, end, t = interpolation.positions(3, 12, True)
    path = (1 - t)[:, None] * w[start] + t[:, None] * w[end]
    images = np.asarray(sampling.to_uint8(fakes.linear(np.zeros(12, np.float32), path.astype(np.float32))))
    assert np.abs(frames.astype(int) - images).max() <= 1
    in_z = frames_of(fakes.w_system(), Z, LABEL, frames=12, space="z")
    np.testing.assert_array_equal(in_z[::4], frames[::4])
    assert (in_z[2] != frames[2]).any()


def test_one_keyframe_stands_still():
    frames = frames_of(fakes.z_system(), Z[:1], LABEL[:1], frames=3)
    assert (frames == frames[:1]).all()


@pytest.mark.parametrize(
    ("system", "z", "label", "options", "message"),
    [
        (fakes.without_latents(), Z, LABEL, {}, "interpolation needs a latent vector"),
        (fakes.z_system(), Z[:, :4], LABEL, {}, r"shape \[3, 4\], and must be \[k, 6\]"),
        (fakes.z_system(), Z[:0], LABEL[:0], {}, "k at least 1"),
        (fakes.z_system(), Z, LABEL[:2], {}, r"3 latents need 3 classes, got shape \[2\]"),
        (fakes.z_system(), Z, LABEL, {"frames": 0}, "frames is 0"),
        (fakes.z_system(), Z, LABEL, {"space": "w"}, "only style-based generators have"),
        (fakes.w_system(), Z, LABEL, {"space": "x"}, "'x'; choices: 'auto', 'z', 'w'"),
    ],
)
def test_wrong_input_is_named(system, z, label, options, message):
    with pytest.raises(errors.UserError, match=message):
        frames_of(system, z, label, **options)
