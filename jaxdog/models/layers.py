"""Layers that the networks share: spectral norm, batch norms, attention, resampling. NHWC throughout.

`dtype` is the compute dtype of convolutions and matmuls (float32 or bfloat16); parameters, statistics and
spectral norms stay float32. `train=True` means batch statistics, and updates of those collections that the
caller made mutable: `SPECTRAL` holds singular vectors, `BATCH_STATS` running means and variances.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from jaxdog.models import initializers
from jaxdog.ops import conv, matmul

Array = jax.Array
Dtype = Any
Init = Callable[..., Array]

SPECTRAL = "spectral"  # u, v of every spectral-normed layer
BATCH_STATS = "batch_stats"  # running mean and variance of every batch norm
BLOCK = "block"  # names what a network hands from block to block, see `handed`
HIGHEST = lax.Precision.HIGHEST
RELU_GAIN = math.sqrt(2.0)  # a ReLU halves the variance

# Other networks need this file only.
orthogonal, zero_bias = initializers.orthogonal, initializers.zero_bias
TorchDefault = initializers.TorchDefault
blur, upsample_nearest = conv.blur, conv.upsample_nearest
avg_pool, max_pool = conv.avg_pool, conv.max_pool

# What `jax.checkpoint` may keep of a network, everything within its blocks being made again.
handed = partial(checkpoint_name, name=BLOCK)


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
        squared = jnp.sum(row * lax.stop_gradient(row))  # one sum serves the length and u^T row
        length = jnp.maximum(jnp.sqrt(lax.stop_gradient(squared)), eps)
        u.value = lax.stop_gradient(row) / length
        return kernel * (length / squared)
    left, right = lax.stop_gradient((v.value, u.value))
    # Averages of unit vectors are shorter than 1; sigma must not shrink with them.
    lengths = jnp.sum(jnp.square(left)) * jnp.sum(jnp.square(right))
    return kernel * (jnp.sqrt(lengths) / _product(_product(left, matrix), right))


class Conv(nn.Module):
    """Convolution, zeros around: [b, h, w, c] -> [b, h', w', features], h' and w' as `resample` says.

    resample:
      none        stride 1
      up, down    stride 1; nearest to twice the height before, 2x2 means after
      strided     4x4, half the height: torch's Conv2d(c, features, 4, 2, 1)
      transposed  4x4, twice the height: torch's ConvTranspose2d(c, features, 4, 2, 1)
      expand      from 1x1 to size x size: torch's ConvTranspose2d(c, features, size, 1, 0)
      collapse    from size x size to 1x1: torch's Conv2d(c, features, size, 1, 0)

    The matrix that spectral norm sees is [size * size * c, features] throughout, as in torch.

    `equalised` multiplies the kernel by gain / sqrt(n) whenever it is used, n being the numbers that one
    number of the output is made of: kernels that start as N(0, 1) give variance 1 behind a ReLU, and one
    learning rate suits layers of all sizes (Karras et al. 2018, sec. 4.1).
    """

    features: int
    size: int = 3  # height and width of the kernel
    bias: bool = True
    spectral: bool = True
    resample: str = "none"
    dtype: Dtype = jnp.float32
    kernel_init: Init = orthogonal
    bias_init: Init = zero_bias  # (key, the kernel's shape) -> [features]
    eps: float = 1e-8
    equalised: bool = False
    gain: float = RELU_GAIN  # only where equalised

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        kernel = self.param("kernel", self.kernel_init, (self.size, self.size, x.shape[-1], self.features))
        if self.equalised:
            inputs = x.shape[-1] * (1 if self.resample == "expand" else self.size**2)
            kernel = kernel * (self.gain / math.sqrt(inputs))
        if self.spectral:
            kernel = spectral_normed(self, kernel, kernel.reshape(-1, self.features), train, self.eps)
        y = RESAMPLED.get(self.resample, partial(conv.conv2d, resample=self.resample))(
            x.astype(self.dtype), kernel.astype(self.dtype)
        )
        if self.bias:
            bias = self.param("bias", self.bias_init, kernel.shape)
            y = y + bias.astype(self.dtype)[None, None, None, :]
        return y


def _expand(x: Array, kernel: Array) -> Array:
    if x.shape[1:3] != (1, 1):
        raise ValueError(f"expand begins with pictures of 1x1, got {x.shape[1]}x{x.shape[2]}")
    return jnp.einsum("bc,ijck->bijk", x[:, 0, 0], kernel)


def _collapse(x: Array, kernel: Array) -> Array:
    if x.shape[1:3] != kernel.shape[:2]:
        raise ValueError(
            f"a kernel of {kernel.shape[0]}x{kernel.shape[1]} cannot collapse {x.shape[1]}x{x.shape[2]}"
        )
    return jnp.einsum("bijc,ijck->bk", x, kernel)[:, None, None, :]


RESAMPLED: dict[str, Callable[[Array, Array], Array]] = {
    "strided": conv.strided,
    "transposed": conv.transposed,
    "expand": _expand,
    "collapse": _collapse,
}


class Dense(nn.Module):
    """Matrix product: [..., n] -> [..., features].

    `equalised` is that of `Conv`; it also multiplies kernel and bias by `rate` whenever they are used. With
    kernels that start as N(0, 1 / rate^2) nothing changes but that the layer learns at `rate` times the
    optimiser's rate, as long as that does not look at the gradient's size (Karras et al. 2019, app. C).
    """

    features: int
    bias: bool = True
    spectral: bool = True
    dtype: Dtype = jnp.float32
    kernel_init: Init = orthogonal
    bias_init: Init = zero_bias  # (key, the kernel's shape) -> [features]
    eps: float = 1e-8
    equalised: bool = False
    gain: float = RELU_GAIN  # only where equalised, as `rate`
    rate: float = 1.0

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        rate = self.rate if self.equalised else 1.0
        if self.equalised:
            kernel = kernel * (rate * self.gain / math.sqrt(x.shape[-1]))
        if self.spectral:
            kernel = spectral_normed(self, kernel, kernel, train, self.eps)
        y = x.astype(self.dtype) @ kernel.astype(self.dtype)
        if self.bias:
            bias = rate * self.param("bias", self.bias_init, kernel.shape).astype(self.dtype)
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


class Statistics(NamedTuple):
    """Of each channel, float32 [c]."""

    origin: Array  # some constant near the mean, from which the mean counts
    mean: Array
    scale: Array  # 1 / standard deviation


def batch_statistics(layer: nn.Module, x: Array, train: bool, momentum: float, eps: float) -> Statistics:
    """Those of x [..., c]; the running ones if train is False.

    The running ones live in `layer`'s collection `BATCH_STATS` and move when train is True and it is mutable.
    Their variance is the unbiased estimate, as in torch; momentum is the weight of the past.
    """
    c = x.shape[-1]
    running_mean = layer.variable(BATCH_STATS, "mean", lambda: jnp.zeros((c,)))
    running_var = layer.variable(BATCH_STATS, "var", lambda: jnp.ones((c,)))
    if not train:
        return Statistics(running_mean.value, jnp.zeros((c,)), lax.rsqrt(running_var.value + eps))
    origin, mean, var = moments(x)
    if not layer.is_initializing() and layer.is_mutable_collection(BATCH_STATS):
        n = x.size // c
        running_mean.value = momentum * running_mean.value + (1 - momentum) * (origin + mean)
        running_var.value = momentum * running_var.value + (1 - momentum) * var * (n / max(n - 1, 1))
    return Statistics(origin, mean, lax.rsqrt(var + eps))


def moments(x: Array) -> tuple[Array, Array, Array]:
    """(origin [c], mean less the origin [c], biased variance [c]) of x [..., c] in float32, in one pass.

    What is squared counts from the first pixel's numbers, so that a mean far from zero cancels nothing.
    """
    flat = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
    origin = lax.stop_gradient(flat[0])
    flat = flat - origin[None, :]
    mean = flat.mean(0)
    return origin, mean, jnp.maximum(jnp.square(flat).mean(0) - jnp.square(mean), 0.0)


def normalised(x: Array, found: Statistics, gain: Array, bias: Array) -> Array:
    """gain (x - mean) / deviation + bias: x [b, ..., c]; gain and bias [b or 1, c], float32.

    A product and a sum for each number: the gradients of both are all that the backward pass has to sum up.
    """
    factor = gain * found.scale[None, :]
    term = bias - found.mean[None, :] * factor
    origin, factor, term = (
        y.reshape(len(y), *[1] * (x.ndim - 2), -1) for y in (found.origin[None, :], factor, term)
    )
    return ((x.astype(jnp.float32) - origin) * factor + term).astype(x.dtype)


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
        gain, bias = jnp.ones((c,)), jnp.zeros((c,))
        found = batch_statistics(self, x, train, self.momentum, self.eps)
        if self.affine:
            gain = self.param("gain", nn.initializers.ones_init(), (c,))
            bias = self.param("bias", nn.initializers.zeros_init(), (c,))
        return normalised(x, found, gain[None, :], bias[None, :])


class ConditionalBatchNorm(nn.Module):
    """Batch norm whose gain and bias are linear in a condition: [b, h, w, c], [b, k] -> [b, h, w, c].

    The condition's matmuls are float32. `joint` makes one layer to 2c (gain first) in place of two to c.
    `own`: a gain and a bias that hold for all conditions come before the others. de Vries et al. 2017.
    """

    gain_offset: float = 1.0  # gain = gain_offset + dense(condition)
    spectral: bool = True
    joint: bool = False
    bias: bool = False  # bias of the dense layers
    kernel_init: Init = orthogonal
    bias_init: Init = zero_bias
    own: bool = False
    momentum: float = 0.9
    eps: float = 1e-5

    @nn.compact
    def __call__(self, x: Array, condition: Array, train: bool) -> Array:
        c = x.shape[-1]
        gain, bias = self.affine(condition, c, train)
        gain = self.gain_offset + gain
        if self.own:
            bias = bias + gain * self.param("own_bias", nn.initializers.zeros_init(), (c,))[None, :]
            gain = gain * self.param("own_gain", nn.initializers.ones_init(), (c,))[None, :]
        return normalised(x, batch_statistics(self, x, train, self.momentum, self.eps), gain, bias)

    def affine(self, condition: Array, c: int, train: bool) -> tuple[Array, Array]:
        """(gain without its offset [b, c], bias [b, c]) from the condition [b, k]."""

        def dense(features: int, name: str) -> Array:
            own = partial(Dense, kernel_init=self.kernel_init, bias_init=self.bias_init)
            return own(features, self.bias, self.spectral, name=name)(condition, train)

        if self.joint:
            both = dense(2 * c, "gain_and_bias")
            return both[:, :c], both[:, c:]
        return dense(c, "gain"), dense(c, "bias")


class PixelNorm(nn.Module):
    """x / sqrt(mean over channels of x^2 + eps), [b, h, w, c] (Karras et al. 2018, sec. 4.2)."""

    eps: float = 1e-8

    def __call__(self, x: Array) -> Array:
        x32 = x.astype(jnp.float32)
        return (x32 * lax.rsqrt(jnp.mean(jnp.square(x32), -1, keepdims=True) + self.eps)).astype(x.dtype)


class MinibatchStd(nn.Module):
    """[b, h, w, c] -> [b, h, w, c + 1]: the mean standard deviation in a group (Karras et al. 2018, sec. 3).

    Item i's group holds the items i + k b / group. `centred` hands the features on without their group's
    mean, as a program of 2019 did that subtracted it in place: only what sets a picture apart is left.
    """

    group: int = 0  # items of a group; 0: the whole batch, as in a batch that is smaller than a group
    centred: bool = False
    eps: float = 1e-8

    def __call__(self, x: Array) -> Array:
        b, h, w, c = x.shape
        group = min(self.group or b, b)
        if b % group:
            raise ValueError(f"minibatch stddev: a batch of {b} cannot be cut into groups of {group}")
        grouped = x.reshape(group, b // group, h, w, c).astype(jnp.float32)
        deviation = grouped - grouped.mean(0, keepdims=True)
        std = jnp.sqrt(jnp.square(deviation).mean(0) + self.eps).mean((1, 2, 3))  # [b / group]
        spread = jnp.broadcast_to(jnp.tile(std, group)[:, None, None, None], (b, h, w, 1)).astype(x.dtype)
        kept = deviation.reshape(x.shape).astype(x.dtype) if self.centred else x
        return jnp.concatenate([kept, spread], -1)


class Noise(nn.Module):
    """x + weight * noise, one N(0, 1) map per picture, a weight per channel from 0 (Karras et al. 2019).

    `shared` makes it one weight for all channels (Karras et al. 2020). `place` tells the layers of one
    network apart: a picture's key gives each of them other noise.
    """

    place: int
    shared: bool = False

    @nn.compact
    def __call__(self, x: Array, key: Array) -> Array:
        _, h, w, c = x.shape
        shape = (1,) if self.shared else (c,)
        weight = self.param("weight", nn.initializers.zeros_init(), shape).astype(x.dtype)
        # Latents are drawn from the key itself, numbers from 0 on are folded in when latents are drawn again.
        own = jax.vmap(jax.random.fold_in, in_axes=(0, None))(key, 1_000_000 + self.place)
        noise = jax.vmap(lambda key: jax.random.normal(key, (h, w, 1)))(own).astype(x.dtype)
        return x + weight[None, None, None, :] * noise


# Attention --------------------------------------------------------------------------------------------------


class SelfAttention(nn.Module):
    """x + gain * attention(x), [b, h, w, c] -> [b, h, w, c], gain from 0 (Zhang et al. 2018, as in BigGAN).

    Query and key have c / key_ratio channels, value c / 2, both rounded down; key and value are max-pooled
    2x2; no scaling. The softmax is float32. Keys have no `bias`: it would add as much to each of a query's
    logits.
    """

    key_ratio: int = 8
    dtype: Dtype = jnp.float32
    bias: bool = False
    kernel_init: Init = orthogonal
    bias_init: Init = zero_bias

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        b, h, w, c = x.shape
        if c < max(self.key_ratio, 2):
            raise ValueError(
                f"attention over {c} channels: key_ratio is {self.key_ratio}, take at least as many"
            )

        def project(y: Array, features: int, name: str) -> Array:
            bias = self.bias and name != "key"
            own = partial(
                Conv, size=1, dtype=self.dtype, kernel_init=self.kernel_init, bias_init=self.bias_init
            )
            return own(features, bias=bias, name=name)(y, train)

        query = project(x, c // self.key_ratio, "query").reshape(b, h * w, -1)
        key = max_pool(project(x, c // self.key_ratio, "key")).reshape(b, h * w // 4, -1)
        value = max_pool(project(x, c // 2, "value")).reshape(b, h * w // 4, -1)
        logit = matmul.matmul(query, matmul.turned(key)).astype(jnp.float32)
        weight = jnp.exp(logit - lax.stop_gradient(logit.max(-1, keepdims=True)))
        seen = matmul.matmul(weight.astype(self.dtype), value)
        # The softmax's division comes after the product, on c / 2 numbers per pixel instead of h * w / 4.
        seen = (seen / weight.sum(-1, keepdims=True).astype(self.dtype)).reshape(b, h, w, c // 2)
        gain = self.param("gain", nn.initializers.zeros_init(), ())
        return x + gain.astype(x.dtype) * project(seen, c, "out")
