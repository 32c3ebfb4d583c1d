"""Resampling by a factor of two: nearest upsampling, 2x2 pooling and a binomial blur. NHWC."""

import jax
import jax.numpy as jnp
from jax import lax

from jaxdog.utils import errors

Array = jax.Array


def upsample_nearest(x: Array) -> Array:
    """[b, h, w, c] -> [b, 2h, 2w, c]: each pixel is repeated 2x2."""
    b, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)


def avg_pool(x: Array) -> Array:
    """[b, h, w, c] -> [b, h/2, w/2, c]: the mean of each 2x2 cell. Raises UserError if h or w is odd."""
    return split_cells(x).mean((2, 4))


def max_pool(x: Array) -> Array:
    """[b, h, w, c] -> [b, h/2, w/2, c]: the maximum of each 2x2 cell. Raises UserError if h or w is odd."""
    return split_cells(x).max((2, 4))


def blur(x: Array) -> Array:
    """Filters each channel of [b, h, w, c] with (1, 2, 1) / 4 along h and w, with zero padding.

    After `upsample_nearest` or before `avg_pool`, the combined filter is StyleGAN2's (1, 3, 3, 1).
    """
    for axis in (1, 2):
        n = x.shape[axis]
        padded = jnp.pad(x, [(1, 1) if i == axis else (0, 0) for i in range(4)])
        before, here, after = (lax.slice_in_dim(padded, i, i + n, axis=axis) for i in range(3))
        x = 0.25 * (before + after) + 0.5 * here
    return x


def split_cells(x: Array) -> Array:
    """[b, h, w, c] -> [b, h/2, 2, w/2, 2, c]: the 2x2 cells. Raises UserError if h or w is odd."""
    b, h, w, c = x.shape
    if h % 2 or w % 2:
        raise errors.UserError(f"2x2 pooling needs an even height and width, got {h}x{w}")
    return x.reshape(b, h // 2, 2, w // 2, 2, c)
