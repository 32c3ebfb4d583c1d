"""U-Net with attention and adaptive group norm (Ronneberger et al. 2015; Dhariwal and Nichol 2021). NHWC.

A function of a noisy image, a time and a class with values of the image's shape, as diffusion models and flow
matching use it.
"""

import math
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdog.models import attention, layers
from jaxdog.utils import errors

Array = jax.Array
Dtype = Any

TIME_SCALE = 1000.0  # of a time in [0, 1] before its sines: the number of steps of a diffusion model
MAX_PERIOD = 10_000.0  # of the slowest sine

_conv = partial(layers.Conv, spectral=False, kernel_init=nn.initializers.lecun_normal())
_dense = partial(layers.Dense, spectral=False, kernel_init=nn.initializers.lecun_normal())
_zeros = nn.initializers.zeros_init()  # of the last layer of each branch, which so starts as the identity


def time_features(time: Array, features: int) -> Array:
    """Cosines and sines at geometric frequencies (Vaswani et al. 2017): times [b] -> [b, features]."""
    half = features // 2
    frequency = jnp.exp(-math.log(MAX_PERIOD) * jnp.arange(half) / half)
    angle = TIME_SCALE * time[:, None] * frequency[None, :]
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], 1)


def group_norm(c: int, name: str) -> nn.GroupNorm:
    """Group norm of up to 32 groups, computed in float32."""
    return nn.GroupNorm(math.gcd(32, c), epsilon=1e-5, use_fast_variance=False, name=name)


class Block(nn.Module):
    """Residual block whose second norm is scaled and shifted by the condition (AdaGN).

    x [b, h, w, c], condition [b, k] -> [b, h, w, features].
    """

    features: int
    dropout: float
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, condition: Array, train: bool) -> Array:
        conv = partial(_conv, self.features, dtype=self.dtype)
        h = conv(name="conv0")(nn.silu(group_norm(x.shape[-1], "norm0")(x)), train)
        scale, shift = jnp.split(
            _dense(2 * self.features, name="condition")(nn.silu(condition), train), 2, -1
        )
        h = group_norm(self.features, "norm1")(h) * (1.0 + scale[:, None, None, :]) + shift[:, None, None, :]
        h = nn.Dropout(self.dropout, deterministic=not train)(nn.silu(h))
        h = conv(kernel_init=_zeros, name="conv1")(h, train)
        if x.shape[-1] != self.features:
            x = conv(kernel_size=1, name="shortcut")(x, train)
        return x + h


class Attention(nn.Module):
    """x + attention(norm(x)) over all pixels, with scaled dot products: [b, h, w, c] -> [b, h, w, c]."""

    head_channels: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        b, h, w, c = x.shape
        heads = max(c // self.head_channels, 1)
        normed = group_norm(c, "norm")(x).reshape(b, h * w, c)
        dense = partial(_dense, dtype=self.dtype)
        query, key, value = (
            dense(c, name=name)(normed, train).reshape(b, h * w, heads, c // heads)
            for name in ("query", "key", "value")
        )
        attended = attention.dot_product(query, key, value)
        out = dense(c, kernel_init=_zeros, name="out")(attended.reshape(b, h * w, c), train)
        return x + out.reshape(b, h, w, c)


class UNet(nn.Module):
    """(image [b, s, s, 3], time [b] in [0, 1], label [b] in [0, classes], train) -> [b, s, s, 3] float32.

    The label `classes` stands for no class (Ho and Salimans 2022). With train=True it needs an rng named
    "dropout". The last layer starts at zero.

    Raises UserError if the size cannot be halved often enough, if there is no map of an attention's height,
    or if channels are no multiple of `head_channels`.
    """

    size: int
    classes: int
    channels: int  # of the largest maps
    multipliers: tuple[int, ...] = (1, 2, 3, 4)  # of `channels`, from the largest maps to the smallest
    blocks: int = 2  # of each height, one more on the way up
    attention: tuple[int, ...] = (16, 8)  # heights of maps with attention
    head_channels: int = 64  # of each head of attention; fewer channels have one head
    dropout: float = 0.0  # rate before the last convolution of each block
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, image: Array, time: Array, label: Array, train: bool) -> Array:
        heights = self._heights()
        width = 4 * self.channels
        condition = nn.silu(_dense(width, name="time0")(time_features(time, self.channels), train))
        condition = _dense(width, name="time1")(condition, train)
        condition += layers.Embed(
            self.classes + 1, width, spectral=False, kernel_init=nn.initializers.normal(1.0), name="label"
        )(label, train)

        def block(x: Array, features: int, name: str) -> Array:
            x = Block(features, self.dropout, self.dtype, name=name)(x, condition, train)
            if x.shape[1] not in self.attention:
                return x
            return Attention(self.head_channels, self.dtype, name=f"{name}_attention")(x, train)

        x = _conv(self.channels, dtype=self.dtype, name="first")(image, train)
        skips, levels = [x], [self.channels * multiplier for multiplier in self.multipliers]
        for level, features in enumerate(levels):
            for i in range(self.blocks):
                x = block(x, features, f"down{heights[level]}_{i}")
                skips.append(x)
            if level + 1 < len(levels):
                name = f"down{heights[level]}"
                x = _conv(features, resample="down", dtype=self.dtype, name=name)(x, train)
                skips.append(x)
        x = Block(levels[-1], self.dropout, self.dtype, name="middle0")(x, condition, train)
        x = Attention(self.head_channels, self.dtype, name="middle_attention")(x, train)
        x = Block(levels[-1], self.dropout, self.dtype, name="middle1")(x, condition, train)
        for level, features in reversed([*enumerate(levels)]):
            for i in range(self.blocks + 1):
                x = block(jnp.concatenate([x, skips.pop()], -1), features, f"up{heights[level]}_{i}")
            if level:
                x = _conv(features, resample="up", dtype=self.dtype, name=f"up{heights[level]}")(x, train)
        x = nn.silu(group_norm(x.shape[-1], "norm")(x))
        return _conv(image.shape[-1], kernel_init=_zeros, name="last")(x, train).astype(jnp.float32)

    def _heights(self) -> list[int]:
        """Heights of the maps, from the largest; raises UserError."""
        halvings = len(self.multipliers) - 1
        if self.size % 2**halvings:
            raise errors.UserError(
                f"a U-Net with multipliers {self.multipliers} halves maps {halvings} times, and {self.size} "
                f"is no multiple of {2**halvings}"
            )
        heights = [self.size >> i for i in range(halvings + 1)]
        attention.check_resolutions(self.attention, heights)
        for channels in (self.channels * multiplier for multiplier in self.multipliers):
            if channels > self.head_channels and channels % self.head_channels:
                raise errors.UserError(
                    f"maps of {channels} channels cannot be split into heads of "
                    f"head_channels = {self.head_channels}"
                )
        return heights
