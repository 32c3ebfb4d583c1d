"""Normalization layers: batch norm, conditional batch norm, pixel norm. NHWC."""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxdog.models import initializers, layers

Array = jax.Array

BATCH_STATS = "batch_stats"  # the collection that holds the running mean and variance of every batch norm


class Statistics(NamedTuple):
    """Statistics per channel, float32 [c]."""

    offset: Array  # a value near the mean, subtracted first
    mean_minus_offset: Array
    inv_std: Array


def batch_statistics(layer: nn.Module, x: Array, train: bool, momentum: float, epsilon: float) -> Statistics:
    """The statistics of x [..., c] over all axes but the last; the running ones if `train` is False.

    The running mean and variance are in `layer`'s collection `BATCH_STATS`. They are updated if `train` is
    True and the collection is mutable: running = momentum * running + (1 - momentum) * current. As in torch,
    the running variance is the unbiased estimate.
    """
    c = x.shape[-1]
    running_mean = layer.variable(BATCH_STATS, "mean", lambda: jnp.zeros((c,)))
    running_var = layer.variable(BATCH_STATS, "var", lambda: jnp.ones((c,)))
    if not train:
        return Statistics(running_mean.value, jnp.zeros((c,)), lax.rsqrt(running_var.value + epsilon))
    offset, mean, var = moments(x)
    if not layer.is_initializing() and layer.is_mutable_collection(BATCH_STATS):
        n = x.size // c
        running_mean.value = momentum * running_mean.value + (1 - momentum) * (offset + mean)
        running_var.value = momentum * running_var.value + (1 - momentum) * var * (n / max(n - 1, 1))
    return Statistics(offset, mean, lax.rsqrt(var + epsilon))


def moments(x: Array) -> tuple[Array, Array, Array]:
    """(offset [c], mean minus offset [c], biased variance [c]) of x [..., c] in float32, in one pass.

    The offset is the first pixel. Subtracting it before squaring avoids cancellation if the mean is far from
    zero.
    """
    flat = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
    offset = lax.stop_gradient(flat[0])
    flat = flat - offset[None, :]
    mean = flat.mean(0)
    return offset, mean, jnp.maximum(jnp.square(flat).mean(0) - jnp.square(mean), 0.0)


def normalize(x: Array, statistics: Statistics, gain: Array, bias: Array) -> Array:
    """gain (x - mean) / std + bias: x [b, ..., c]; gain and bias [b or 1, c], float32.

    Written as one multiplication and one addition per element, which keeps the backward pass cheap.
    """
    factor = gain * statistics.inv_std[None, :]
    term = bias - statistics.mean_minus_offset[None, :] * factor
    offset, factor, term = (
        y.reshape(len(y), *[1] * (x.ndim - 2), -1) for y in (statistics.offset[None, :], factor, term)
    )
    return ((x.astype(jnp.float32) - offset) * factor + term).astype(x.dtype)


class BatchNorm(nn.Module):
    """Batch norm over all axes but the last: [..., c] -> [..., c] (Ioffe & Szegedy 2015).

    Under jit with a sharded batch the statistics are those of the global batch. See `batch_statistics`.
    """

    momentum: float = 0.9  # decay of the running statistics
    epsilon: float = 1e-5
    affine: bool = False  # a learned gain and bias per channel, initially 1 and 0

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        c = x.shape[-1]
        gain, bias = jnp.ones((c,)), jnp.zeros((c,))
        statistics = batch_statistics(self, x, train, self.momentum, self.epsilon)
        if self.affine:
            gain = self.param("gain", nn.initializers.ones_init(), (c,))
            bias = self.param("bias", nn.initializers.zeros_init(), (c,))
        return normalize(x, statistics, gain[None, :], bias[None, :])


class ConditionalBatchNorm(nn.Module):
    """Batch norm whose gain and bias are linear in a condition (de Vries et al. 2017).

    [b, h, w, c], condition [b, k] -> [b, h, w, c]. The dense layers of the condition are float32.
    """

    gain_offset: float = 1.0  # gain = gain_offset + dense(condition)
    spectral: bool = True  # spectral norm of the dense layers
    joint: bool = False  # a single dense layer to 2c, gain first, instead of two to c
    use_bias: bool = False  # of the dense layers
    kernel_init: layers.Init = initializers.orthogonal
    bias_init: layers.Init = initializers.zero_bias
    base_affine: bool = False  # an unconditional gain and bias precede the conditional ones
    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Array, condition: Array, train: bool) -> Array:
        c = x.shape[-1]
        gain, bias = self.affine(condition, c, train)
        gain = self.gain_offset + gain
        if self.base_affine:
            bias = bias + gain * self.param("base_bias", nn.initializers.zeros_init(), (c,))[None, :]
            gain = gain * self.param("base_gain", nn.initializers.ones_init(), (c,))[None, :]
        return normalize(x, batch_statistics(self, x, train, self.momentum, self.epsilon), gain, bias)

    def affine(self, condition: Array, c: int, train: bool) -> tuple[Array, Array]:
        """(gain without its offset [b, c], bias [b, c]) from the condition [b, k]."""

        def dense(features: int, name: str) -> Array:
            layer = partial(layers.Dense, kernel_init=self.kernel_init, bias_init=self.bias_init)
            return layer(features, self.use_bias, self.spectral, name=name)(condition, train)

        if self.joint:
            both = dense(2 * c, "gain_and_bias")
            return both[:, :c], both[:, c:]
        return dense(c, "gain"), dense(c, "bias")


class PixelNorm(nn.Module):
    """x / sqrt(mean over channels of x^2 + epsilon): [..., c] -> [..., c] (Karras et al. 2018, sec. 4.2)."""

    epsilon: float = 1e-8

    def __call__(self, x: Array) -> Array:
        x32 = x.astype(jnp.float32)
        return (x32 * lax.rsqrt(jnp.mean(jnp.square(x32), -1, keepdims=True) + self.epsilon)).astype(x.dtype)


def l2_normalize(x: Array) -> Array:
    """Rows [n, k] scaled to length 1; rows of zeros stay zero."""
    return x / jnp.maximum(jnp.linalg.norm(x, axis=1, keepdims=True), 1e-12)
