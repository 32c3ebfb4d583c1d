"""DINOv2: its input against Pillow, its sizes, its parameters."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from flax import traverse_util

from jaxdog.metrics.backbones import dinov2

TINY = dinov2.Plan(width=24, depth=3, heads=2)


def noise(h: int, w: int, seed: int = 0) -> np.ndarray:
    """[2, h, w, 3] uint8: random pixels, and only black and white ones, whose filtered values overshoot."""
    pixels = np.random.default_rng(seed).integers(0, 256, (h, w, 3), np.uint8)
    return np.stack([pixels, np.where(pixels > 127, 255, 0).astype(np.uint8)])


def pillow(image: np.ndarray) -> np.ndarray:
    resized = [PIL.Image.fromarray(x).resize((224, 224), PIL.Image.Resampling.BICUBIC) for x in image]
    return np.stack([np.asarray(x) for x in resized])


@pytest.mark.parametrize("h, w", [(64, 64), (96, 96), (1, 1), (224, 224), (300, 300), (512, 512), (90, 700)])
def test_resize_is_that_of_pillow(h, w):
    """Larger, equal and smaller, bit for bit. (Pillow 13 takes columns first where these shrink more.)"""
    image = noise(h, w)
    np.testing.assert_array_equal(dinov2.resize(jnp.asarray(image), 224), pillow(image))


def test_the_rounding_between_rows_and_columns_matters():
    """What the comparison above could not see if both filters were applied before rounding."""
    image = noise(64, 64)
    weight = dinov2._bicubic(64, 224) / 2**22
    once = np.clip(
        np.floor(np.einsum("bhwc,iw,jh->bjic", image, weight, weight, optimize=True) + 0.5), 0, 255
    )
    different = (once != pillow(image)).mean(axis=(1, 2, 3))
    assert different[0] > 0.05 and different[1] > 0.5


def test_input_is_standardized():
    """As torchvision's ToTensor and Normalize, in float64."""
    image = noise(224, 224)
    expected = (image / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    for given in (jnp.asarray(image), jnp.asarray(image, jnp.float32) + 0.3):
        out = dinov2.preprocess(given)
        assert out.shape == (2, 224, 224, 3) and out.dtype == jnp.float32
        np.testing.assert_allclose(out, expected, atol=1e-6)


def test_sizes():
    """Numbers of parameters as published: with all positions of 518 px, and a mask token."""
    published = {dinov2.SMALL: 22_056_576, dinov2.BASE: 86_580_480, dinov2.LARGE: 304_368_640}
    for plan, count in published.items():
        ours = sum(int(np.prod(shape)) for shape in dinov2.shapes(plan).values())
        assert ours + (1370 - 257) * plan.width + plan.width == count
    # Two for each product: the tokens' matrices, and those of queries and values.
    block = 257 * 12 * 1024**2 + 2 * 257**2 * 1024
    assert dinov2.LARGE.flops == 2 * (24 * block + 256 * 588 * 1024)
    assert dinov2.LARGE.flops / dinov2.SMALL.flops == pytest.approx(13.2, abs=0.1)


def test_parameters_are_those_of_the_table():
    image = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
    out, made = jax.eval_shape(dinov2.DINOv2(TINY).init_with_output, jax.random.key(0), image)
    flat: dict[str, Any] = traverse_util.flatten_dict(made["params"], sep="/")  # pyright: ignore
    assert {name: leaf.shape for name, leaf in flat.items()} == dinov2.shapes(TINY)
    assert {name: x.shape for name, x in out.items()} == {"class_token": (2, TINY.width)}
