"""Pools of 3x3 windows, as the networks that score pictures have them."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Array = jax.Array

WINDOW = 3


def max_pool(x: Array, stride: int, padding: str) -> Array:
    """Maxima of 3x3 windows of [b, h, w, c]; `padding` is "SAME" or "VALID", what it adds never counts."""
    default = partial(nn.max_pool, window_shape=(WINDOW, WINDOW), strides=(stride, stride), padding=padding)
    cpu = partial(_slid, combine=jnp.maximum, empty=-np.inf, stride=stride, padding=padding)
    return lax.platform_dependent(x, cpu=cpu, default=default)


def avg_pool(x: Array, stride: int, padding: str) -> Array:
    """Means of 3x3 windows of [b, h, w, c], each over the pixels that are in the picture."""
    window, strides = (WINDOW, WINDOW), (stride, stride)
    default = partial(
        nn.avg_pool, window_shape=window, strides=strides, padding=padding, count_include_pad=False
    )
    return lax.platform_dependent(x, cpu=partial(_means, stride=stride, padding=padding), default=default)


def _means(x: Array, stride: int, padding: str) -> Array:
    sums = _slid(x, jnp.add, 0.0, stride, padding)
    rows, columns = (_counts(n, stride, padding) for n in x.shape[1:3])
    return sums / (rows[:, None] * columns[None, :])[None, :, :, None]


def _counts(n: int, stride: int, padding: str) -> np.ndarray:
    """How many of n pixels in a row each window sees, float32."""
    ((before, after),) = lax.padtype_to_pads((n,), (WINDOW,), (stride,), padding)
    seen = np.pad(np.ones(n, np.float32), (before, after))
    return np.lib.stride_tricks.sliding_window_view(seen, WINDOW)[::stride].sum(axis=1)


def _slid(
    x: Array, combine: Callable[[Array, Array], Array], empty: float, stride: int, padding: str
) -> Array:
    """Windows' pixels combined along rows, then along columns, as whole slices: XLA's CPU backend takes 3 to
    8 times as long over a window at a time. It must not fuse the steps, or each is done again for each slice.
    """
    pads = lax.padtype_to_pads(x.shape[1:3], (WINDOW, WINDOW), (stride, stride), padding)
    if any(map(any, pads)):
        x = lax.optimization_barrier(jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=empty))
    for axis in (2, 1):
        reach = x.shape[axis] - WINDOW
        parts = [lax.slice_in_dim(x, i, i + reach + 1, stride, axis) for i in range(WINDOW)]
        x = combine(combine(parts[0], parts[1]), parts[2])
        x = lax.optimization_barrier(x) if axis == 2 else x
    return x
