"""Convolutions, dense layers, embeddings with spectral norm or equalized learning rate; small layers. NHWC.

`dtype` is the compute dtype of convolutions and matrix products, float32 or bfloat16. Parameters, statistics
and spectral norms are float32. `train=True` means batch statistics, dropout, and updates of the collections
that are mutable (`spectral_norm.SPECTRAL`, `norms.BATCH_STATS`).
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from jaxdog.models import initializers, spectral_norm
from jaxdog.ops import conv
from jaxdog.utils import errors

Array = jax.Array
Dtype = Any
Init = Callable[..., Array]
Activation = Literal["relu", "leaky_relu"]
MakeLayer = Callable[..., Any]  # makes a module: a module class or a partial of one

BLOCK = "block"  # the name of the values that rematerialization saves, see `checkpoint_block`
RELU_GAIN = math.sqrt(2.0)  # a ReLU halves the second moment (He et al. 2015)

# Marks the output of a block: `jax.checkpoint` saves it and recomputes the inside of the block.
checkpoint_block = partial(checkpoint_name, name=BLOCK)


def activation(name: str, slope: float = 0.2) -> Callable[[Array], Array]:
    """The activation function named `name`: relu, or leaky_relu with `slope` for negative inputs."""
    if name == "relu":
        return nn.relu
    if name == "leaky_relu":
        return lambda x: jnp.where(x >= 0, x, slope * x)
    raise errors.UserError(f"activation {name!r} is unknown; choose relu or leaky_relu")


class Conv(nn.Module):
    """Convolution with zero padding: [b, h, w, c] -> [b, h', w', features].

    `resample` is one of:
      none        stride 1
      up          nearest upsampling to [2h, 2w], then stride 1
      down        stride 1, then 2x2 average pooling to [h/2, w/2]
      strided     4x4 with stride 2: torch's Conv2d(c, features, 4, 2, 1)
      transposed  4x4 to [2h, 2w]: torch's ConvTranspose2d(c, features, 4, 2, 1)
      expand      from 1x1 to n x n, n the kernel's size: torch's ConvTranspose2d(c, features, n, 1, 0)
      collapse    from n x n to 1x1: torch's Conv2d(c, features, n, 1, 0)

    Spectral norm uses the matrix [n * n * c, features] in every case, as in torch.

    `equalized_lr` multiplies the kernel by gain / sqrt(fan_in) in each call. With kernels that start as
    N(0, 1), activations keep their variance, and one learning rate suits layers of all sizes (Karras et al.
    2018, sec. 4.1).
    """

    features: int
    kernel_size: int = 3  # height and width
    use_bias: bool = True
    spectral: bool = True
    resample: str = "none"
    dtype: Dtype = jnp.float32
    kernel_init: Init = initializers.orthogonal
    bias_init: Init = initializers.zero_bias  # (key, the kernel's shape) -> [features]
    epsilon: float = 1e-8
    equalized_lr: bool = False
    gain: float = RELU_GAIN  # with equalized_lr only

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        if self.equalized_lr:
            fan_in = x.shape[-1] * (1 if self.resample == "expand" else self.kernel_size**2)
            kernel = kernel * (self.gain / math.sqrt(fan_in))
        if self.spectral:
            matrix = kernel.reshape(-1, self.features)
            kernel = spectral_norm.spectral_normalize(self, kernel, matrix, train, self.epsilon)
        convolve = RESAMPLED.get(self.resample, partial(conv.conv2d, resample=self.resample))
        y = convolve(x.astype(self.dtype), kernel.astype(self.dtype))
        if self.use_bias:
            bias = self.param("bias", self.bias_init, kernel.shape)
            y = y + bias.astype(self.dtype)[None, None, None, :]
        return y


def _expand(x: Array, kernel: Array) -> Array:
    if x.shape[1:3] != (1, 1):
        raise errors.UserError(f"resample 'expand' needs maps of 1x1, got {x.shape[1]}x{x.shape[2]}")
    return jnp.einsum("bc,ijck->bijk", x[:, 0, 0], kernel)


def _collapse(x: Array, kernel: Array) -> Array:
    if x.shape[1:3] != kernel.shape[:2]:
        raise errors.UserError(
            f"resample 'collapse' needs maps of the kernel's size, {kernel.shape[0]}x{kernel.shape[1]}, "
            f"got {x.shape[1]}x{x.shape[2]}"
        )
    return jnp.einsum("bijc,ijck->bk", x, kernel)[:, None, None, :]


# Resampling modes of `Conv` that `conv.conv2d` does not implement: (x, kernel) -> y.
RESAMPLED: dict[str, Callable[[Array, Array], Array]] = {
    "strided": conv.strided,
    "transposed": conv.transposed,
    "expand": _expand,
    "collapse": _collapse,
}


class Dense(nn.Module):
    """Dense layer: [..., n] -> [..., features].

    `equalized_lr` is as in `Conv`; it also multiplies kernel and bias by `lr_multiplier`. With kernels that
    start as N(0, 1 / lr_multiplier^2), the layer's function is the same, and under Adam it learns at
    `lr_multiplier` times the optimizer's learning rate (Karras et al. 2019, app. C).
    """

    features: int
    use_bias: bool = True
    spectral: bool = True
    dtype: Dtype = jnp.float32
    kernel_init: Init = initializers.orthogonal
    bias_init: Init = initializers.zero_bias  # (key, the kernel's shape) -> [features]
    epsilon: float = 1e-8
    equalized_lr: bool = False
    gain: float = RELU_GAIN  # with equalized_lr only
    lr_multiplier: float = 1.0  # with equalized_lr only

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        lr_multiplier = self.lr_multiplier if self.equalized_lr else 1.0
        if self.equalized_lr:
            kernel = kernel * (lr_multiplier * self.gain / math.sqrt(x.shape[-1]))
        if self.spectral:
            kernel = spectral_norm.spectral_normalize(self, kernel, kernel, train, self.epsilon)
        y = x.astype(self.dtype) @ kernel.astype(self.dtype)
        if self.use_bias:
            bias = lr_multiplier * self.param("bias", self.bias_init, kernel.shape).astype(self.dtype)
            y = y + bias.reshape((1,) * (y.ndim - 1) + (-1,))
        return y


class Embed(nn.Module):
    """Learned class embedding: [b] int32 in [0, classes) -> [b, features] float32."""

    classes: int
    features: int
    spectral: bool = True
    kernel_init: Init = initializers.orthogonal
    epsilon: float = 1e-8

    @nn.compact
    def __call__(self, label: Array, train: bool) -> Array:
        kernel = self.param("kernel", self.kernel_init, (self.classes, self.features))
        if self.spectral:
            kernel = spectral_norm.spectral_normalize(self, kernel, kernel.T, train, self.epsilon)
        return kernel[label]


class MinibatchStd(nn.Module):
    """Appends the mean standard deviation over a group of images (Karras et al. 2018, sec. 3).

    [b, h, w, c] -> [b, h, w, c + 1]. Image i is grouped with the images i + k * b / group_size modulo b.
    `centered` also subtracts the group's mean from the features, as an implementation of 2019 did by mistake.
    """

    group_size: int = 0  # images per group, at most the batch; 0: the whole batch
    centered: bool = False
    epsilon: float = 1e-8

    def __call__(self, x: Array) -> Array:
        b, h, w, c = x.shape
        group = min(self.group_size or b, b)
        if b % group:
            raise errors.UserError(f"minibatch stddev: a batch of {b} cannot be split into groups of {group}")
        grouped = x.reshape(group, b // group, h, w, c).astype(jnp.float32)
        deviation = grouped - grouped.mean(0, keepdims=True)
        std = jnp.sqrt(jnp.square(deviation).mean(0) + self.epsilon).mean((1, 2, 3))  # [b / group]
        channel = jnp.broadcast_to(jnp.tile(std, group)[:, None, None, None], (b, h, w, 1)).astype(x.dtype)
        features = deviation.reshape(x.shape).astype(x.dtype) if self.centered else x
        return jnp.concatenate([features, channel], -1)


class Noise(nn.Module):
    """Adds one N(0, 1) map per image, scaled by a learned weight per channel that starts at 0.

    [b, h, w, c], key [b] -> [b, h, w, c] (Karras et al. 2019, sec. 2).
    """

    layer_index: int  # index within the network; layers with different indices draw different noise
    shared: bool = False  # one weight for all channels (Karras et al. 2020)

    @nn.compact
    def __call__(self, x: Array, key: Array) -> Array:
        _, h, w, c = x.shape
        shape = (1,) if self.shared else (c,)
        weight = self.param("weight", nn.initializers.zeros_init(), shape).astype(x.dtype)
        # Offset, since rejection sampling already uses fold_in(key, 0), fold_in(key, 1), ...
        keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(key, 1_000_000 + self.layer_index)
        noise = jax.vmap(lambda key: jax.random.normal(key, (h, w, 1)))(keys).astype(x.dtype)
        return x + weight[None, None, None, :] * noise
