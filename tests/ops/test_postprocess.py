"""Postprocessing: quantization to bytes, resizing as in Pillow."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxdog.ops import postprocess
from jaxdog.systems import sampling
from tests.ops import test_resample


def values(n: int = 4001) -> np.ndarray:
    """[1, 1, n, 1] float32 that reach beyond [-1, 1], its ends and the middle among them."""
    return np.linspace(-2, 2, n, dtype=np.float32)[None, None, :, None]


def test_levels_256_are_the_floor_of_256_x():
    unit = np.clip((values().astype(np.float64) + 1) / 2, 0, 1)
    level = np.floor(unit * 256).astype(int)
    wrapped = sampling.to_uint8(postprocess.quantize(values(), levels_256=True, wrap=True))
    np.testing.assert_array_equal(wrapped, level.astype(np.uint8))  # 256 as a byte is 0
    assert wrapped[0, 0, -1, 0] == 0
    kept = sampling.to_uint8(postprocess.quantize(values(), levels_256=True))
    np.testing.assert_array_equal(kept, np.minimum(level, 255))


def test_nearest_levels_are_those_of_the_png():
    got = postprocess.quantize(values())
    np.testing.assert_array_equal(sampling.to_uint8(got), sampling.to_uint8(jnp.asarray(values())))
    np.testing.assert_array_equal(postprocess.quantize(got), got)
    every = test_resample.image_of(np.arange(256)[None, None, :, None])
    np.testing.assert_array_equal(sampling.to_uint8(postprocess.quantize(every))[0, 0, :, 0], np.arange(256))


def test_wrap_needs_256_levels():
    with pytest.raises(ValueError, match="wrap is True and levels_256 False"):
        postprocess.quantize(values(), wrap=True)


@pytest.mark.parametrize("filter", ["lanczos", "bicubic", "box"])
@pytest.mark.parametrize("size", [64, 40, 120])
def test_resized_dogs_equal_pillow(real_data, filter, size):
    photos = test_resample.dogs(real_data, 3, 96)
    got = sampling.to_uint8(postprocess.resize(test_resample.image_of(photos), size, filter))
    want = [Image.fromarray(p).resize((size, size), test_resample.PILLOW[filter]) for p in photos]
    apart = np.abs(np.asarray(got, int) - np.stack([np.asarray(one, int) for one in want]))
    assert apart.max() <= 1 and (apart > 0).mean() < 4e-3  # halves that are none in float32


def test_resizing_rounds_to_levels_first():
    levels = np.tile([10.6, 10.3], 4)[None, None, :, None] * np.ones((1, 8, 1, 3))  # as bytes 11 and 10
    got = postprocess.resize(test_resample.image_of(levels), 4, "box")
    np.testing.assert_array_equal(test_resample.levels(got), 11)  # of 10.5; without bytes 10, of 10.45
