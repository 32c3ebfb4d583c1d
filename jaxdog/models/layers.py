"""Layers that the networks share: spectral norm, batch norms, attention, resampling. NHWC throughout.

`dtype` is the compute dtype of convolutions and matmuls (float32 or bfloat16); parameters, statistics and
spectral norms stay float32. `train=True` means batch statistics, and updates of those collections that the
caller made mutable: `SPECTRAL` holds singular vectors, `BATCH_STATS` running means and variances.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxdog.models import convolution

Array = jax.Array
Dtype = Any
Init = Callable[..., Array]

SPECTRAL = "spectral"  # u, v of every spectral-normed layer
BATCH_STATS = "batch_stats"  # running mean and variance of every batch norm
HIGHEST = lax.Precision.HIGHEST

# Other networks need this file only.
conv = convolution.conv
upsample_nearest, avg_pool, max_pool = (
    convolution.upsample_nearest,
    convolution.avg_pool,
    convolution.max_pool,
)

orthogonal = (
    nn.initializers.orthogonal()
)  # columns of [kh*kw*in, out]: torch's orthogonal_ on [out, in*kh*kw]


def activation(name: str, slope: float = 0.2) -> Callable[[Array], Array]:
    """The nonlinearity called `name`: relu, or leaky_relu with `slope` below 0."""
    if name == "relu":
        return nn.relu
    if name == "leaky_relu":
        return lambda x: jnp.where(x >= 0, x, slope * x)
    raise ValueError(f"activation {name!r} is unknown; choose relu or leaky_relu")


# Spectral norm ----------------------------------------------------------------------------------------------


def _unit(x: Array, eps: float) -> Array:
    return x / jnp.maximum(jnp.sqrt(jnp.sum(jnp.square(x))), eps)


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=HIGHEST)


def spectral_normed(layer: nn.Module, kernel: Array, matrix: Array, train: bool, eps: float) -> Array:
    """kernel / sigma, where sigma = v^T matrix u estimates the top singular value of matrix [n, m].

    u [m] and v [n] live in `layer`'s collection `SPECTRAL`. They take one power iteration when train is True
    and that collection is mutable, otherwise they are used as stored. No gradient flows through them.
    Miyato et al. 2018, algorithm 1.
    """
    matrix = matrix.astype(jnp.float32)
    fixed = lax.stop_gradient(matrix)

    def start() -> tuple[Array, Array]:
        # To a random matrix the vector of ones is as good a start as a random one, and needs no key.
        v = _unit(_product(fixed, jnp.ones(matrix.shape[1])), eps)
        return _unit(_product(v, fixed), eps), v

    u = layer.variable(SPECTRAL, "u", lambda: start()[0])
    v = layer.variable(SPECTRAL, "v", lambda: start()[1])
    if train and not layer.is_initializing() and layer.is_mutable_collection(SPECTRAL):
        v.value = _unit(_product(fixed, lax.stop_gradient(u.value)), eps)
        row = _product(v.value, matrix)
        u.value = _unit(lax.stop_gradient(row), eps)
        return kernel / _product(row, u.value)
    left, right = lax.stop_gradient((v.value, u.value))
    # Averages of unit vectors are shorter than 1; sigma must not shrink with them.
    lengths = jnp.sum(jnp.square(left)) * jnp.sum(jnp.square(right))
    return kernel * (jnp.sqrt(lengths) / _product(_product(left, matrix), right))


class Conv(nn.Module):
    """Convolution, stride 1, zeros around: [b, h, w, c] -> [b, h, w, features], resampled as `conv` says."""

    features: int
    size: int = 3  # height and width of the kernel
    bias: bool = True
    spectral: bool = True
    resample: str = "none"  # "up": nearest to twice the height before; "down": 2x2 means after
    dtype: Dtype = jnp.float32
    kernel_init: Init = orthogonal
    eps: float = 1e-8

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        kernel = self.param("kernel", self.kernel_init, (self.size, self.size, x.shape[-1], self.features))
        if self.spectral:
            kernel = spectral_normed(self, kernel, kernel.reshape(-1, self.features), train, self.eps)
        y = conv(x.astype(self.dtype), kernel.astype(self.dtype), self.resample)
        if self.bias:
            bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
            y = y + bias.astype(self.dtype)[None, None, None, :]
        return y


class Dense(nn.Module):
    """Matrix product: [..., n] -> [..., features]."""

    features: int
    bias: bool = True
    spectral: bool = True
    dtype: Dtype = jnp.float32
    kernel_init: Init = orthogonal
    eps: float = 1e-8

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        if self.spectral:
            kernel = spectral_normed(self, kernel, kernel, train, self.eps)
        y = x.astype(self.dtype) @ kernel.astype(self.dtype)
        if self.bias:
            bias = self.param("bias", nn.initializers.zeros_init(), (self.features,)).astype(self.dtype)
            y = y + bias.reshape((1,) * (y.ndim - 1) + (-1,))
        return y


class Embed(nn.Module):
    """A learnt vector per class: [b] int32 in [0, classes) -> [b, features] float32."""

    classes: int
    features: int
    spectral: bool = True
    kernel_init: Init = orthogonal
    eps: float = 1e-8

    @nn.compact
    def __call__(self, label: Array, train: bool) -> Array:
        kernel = self.param("kernel", self.kernel_init, (self.classes, self.features))
        if self.spectral:
            kernel = spectral_normed(self, kernel, kernel.T, train, self.eps)
        return kernel[label]


# Normalisation ----------------------------------------------------------------------------------------------


def batch_statistics(
    layer: nn.Module, x: Array, train: bool, momentum: float, eps: float
) -> tuple[Array, Array]:
    """(mean [c], 1 / standard deviation [c]) of x [..., c], float32; the running ones if train is False.

    The running ones live in `layer`'s collection `BATCH_STATS` and move when train is True and it is mutable.
    Their variance is the unbiased estimate, as in torch; momentum is the weight of the past.
    """
    c = x.shape[-1]
    running_mean = layer.variable(BATCH_STATS, "mean", lambda: jnp.zeros((c,)))
    running_var = layer.variable(BATCH_STATS, "var", lambda: jnp.ones((c,)))
    if not train:
        return running_mean.value, lax.rsqrt(running_var.value + eps)
    mean, var = moments(x)
    if not layer.is_initializing() and layer.is_mutable_collection(BATCH_STATS):
        n = x.size // c
        running_mean.value = momentum * running_mean.value + (1 - momentum) * mean
        running_var.value = momentum * running_var.value + (1 - momentum) * var * (n / max(n - 1, 1))
    return mean, lax.rsqrt(var + eps)


def moments(x: Array) -> tuple[Array, Array]:
    """(mean [c], biased variance [c]) of x [..., c] in float32, two passes."""
    flat = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
    mean = flat.mean(0)
    return mean, jnp.square(flat - mean[None, :]).mean(0)


class BatchNorm(nn.Module):
    """Zero mean, unit variance per channel over all other axes: [..., c] -> [..., c] (Ioffe & Szegedy 2015).

    Under jit with a sharded batch the statistics are those of the whole batch. See `batch_statistics`.
    """

    momentum: float = 0.9
    eps: float = 1e-5
    affine: bool = False  # a learnt gain (from 1) and bias (from 0) per channel

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        c = x.shape[-1]
        mean, scale = batch_statistics(self, x, train, self.momentum, self.eps)
        shift = jnp.zeros((c,))
        if self.affine:
            scale = scale * self.param("gain", nn.initializers.ones_init(), (c,))
            shift = self.param("bias", nn.initializers.zeros_init(), (c,))
        wide = (1,) * (x.ndim - 1) + (c,)
        y = (x.astype(jnp.float32) - mean.reshape(wide)) * scale.reshape(wide) + shift.reshape(wide)
        return y.astype(x.dtype)


class ConditionalBatchNorm(nn.Module):
    """Batch norm whose gain and bias are linear in a condition: [b, h, w, c], [b, k] -> [b, h, w, c].

    The condition's matmuls are float32. `joint` makes one layer to 2c (gain first) in place of two to c.
    de Vries et al. 2017.
    """

    gain_offset: float = 1.0  # gain = gain_offset + dense(condition)
    spectral: bool = True
    joint: bool = False
    bias: bool = False  # bias of the dense layers
    kernel_init: Init = orthogonal
    momentum: float = 0.9
    eps: float = 1e-5

    @nn.compact
    def __call__(self, x: Array, condition: Array, train: bool) -> Array:
        c = x.shape[-1]
        gain, bias = self.affine(condition, c, train)
        mean, scale = batch_statistics(self, x, train, self.momentum, self.eps)
        scale = scale[None, :] * (self.gain_offset + gain)
        y = (x.astype(jnp.float32) - mean[None, None, None, :]) * scale[:, None, None, :] + bias[
            :, None, None, :
        ]
        return y.astype(x.dtype)

    def affine(self, condition: Array, c: int, train: bool) -> tuple[Array, Array]:
        """(gain without its offset [b, c], bias [b, c]) from the condition [b, k]."""

        def dense(features: int, name: str) -> Array:
            layer = Dense(features, self.bias, self.spectral, kernel_init=self.kernel_init, name=name)
            return layer(condition, train)

        if self.joint:
            both = dense(2 * c, "gain_and_bias")
            return both[:, :c], both[:, c:]
        return dense(c, "gain"), dense(c, "bias")


# Attention --------------------------------------------------------------------------------------------------


class SelfAttention(nn.Module):
    """x + gain * attention(x), [b, h, w, c] -> [b, h, w, c], gain from 0 (Zhang et al. 2018, as in BigGAN).

    Query and key have c / key_ratio channels, value c / 2; key and value are max-pooled 2x2; no scaling.
    The softmax is float32.
    """

    key_ratio: int = 8
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        b, h, w, c = x.shape
        if c % self.key_ratio or c % 2:
            raise ValueError(
                f"attention over {c} channels: key_ratio {self.key_ratio} and 2 must divide them"
            )

        def project(y: Array, features: int, name: str) -> Array:
            return Conv(features, size=1, bias=False, dtype=self.dtype, name=name)(y, train)

        query = project(x, c // self.key_ratio, "query").reshape(b, h * w, -1)
        key = max_pool(project(x, c // self.key_ratio, "key")).reshape(b, h * w // 4, -1)
        value = max_pool(project(x, c // 2, "value")).reshape(b, h * w // 4, -1)
        logit = jnp.einsum("bqc,bkc->bqk", query, key).astype(jnp.float32)
        weight = jnp.exp(logit - lax.stop_gradient(logit.max(-1, keepdims=True)))
        seen = jnp.einsum("bqk,bkc->bqc", weight.astype(self.dtype), value)
        # The softmax's division comes after the product, on c / 2 numbers per pixel instead of h * w / 4.
        seen = (seen / weight.sum(-1, keepdims=True).astype(self.dtype)).reshape(b, h, w, c // 2)
        gain = self.param("gain", nn.initializers.zeros_init(), ())
        return x + gain.astype(x.dtype) * project(seen, c, "out")
