"""Residual networks of before BigGAN: WGAN-GP's (Gulrajani et al. 2017) and SNGAN's with projection.

The second are those of Miyato et al. 2018 and Miyato & Koyama 2018. Both pairs have one shape: a dense layer
and blocks that double the height on one side, blocks that halve it on the other. What the papers chose
otherwise from each other is a field. All weights start uniform as Glorot & Bengio 2010 have them, those of
the blocks' 3x3 convolutions sqrt(2) times as wide; all biases start at 0.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdog import types
from jaxdog.models import heads, layers

Array = jax.Array
Dtype = Any
Norm = Callable[[Array, str], Array]  # (features [b, h, w, c], the layer's name) -> the same, normalised

STEMS = ("conv", "block")
NORMS = ("none", "layer")
HEADS = ("sum", "flat")


def glorot(gain: float = 1.0) -> layers.Init:
    """Uniform within gain * sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010, eq. 16)."""
    return nn.initializers.variance_scaling(gain**2, "fan_avg", "uniform")


def _choose(field: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{field} is {value!r}; choices: {', '.join(choices)}")


class Block(nn.Module):
    """Residual block: [b, h, w, c] -> [b, 2h, 2w, features] ("up") or [b, h/2, w/2, features] ("down").

    The height changes before the first convolution on the way up (nearest), after the second on the way down
    (2x2 means); the shortcut is a 1x1 convolution.
    """

    features: int
    hidden: int  # channels between the two convolutions
    resample: str
    conv: Callable[..., Any]  # makes a convolution
    inner_bias: bool = True  # of the first convolution
    outer_bias: bool = True  # of the second one and of the shortcut
    bare: bool = False  # the first convolution sees the block's input as it is

    @nn.compact
    def __call__(self, x: Array, norm: Norm, train: bool) -> Array:
        first, second = ("up", "none") if self.resample == "up" else ("none", "down")
        wide = partial(self.conv, kernel_init=glorot(math.sqrt(2.0)))
        h = x if self.bare else nn.relu(norm(x, "norm1"))
        h = wide(self.hidden, bias=self.inner_bias, resample=first, name="conv1")(h, train)
        last = partial(wide, self.features, bias=self.outer_bias)
        h = last(resample=second, name="conv2")(nn.relu(norm(h, "norm2")), train)
        shortcut = last(size=1, resample=self.resample, kernel_init=glorot(), name="shortcut")
        return layers.handed(h + shortcut(x, train))


class Generator(nn.Module):
    """z [b, latent_dim], label [b] int32 in [0, classes), train, key [b] -> [b, size, size, 3] in [-1, 1]."""

    widths: tuple[int, ...]  # channels of the smallest map, then of each block; each doubles the height
    latent_dim: int
    classes: int
    size: int = 64
    conditional: bool = (
        True  # gains and biases of the blocks' norms are the breed's; else it is not looked at
    )
    inner_bias: bool = True  # of each block's first convolution, which a norm follows
    rgb_gain: float = 1.0  # the last convolution's weights start so many times as wide as Glorot's
    eps: float = 1e-5  # of all batch norms
    dtype: Dtype = jnp.float32

    def bottom(self) -> int:
        """The height of the smallest map."""
        times = 2 ** (len(self.widths) - 1)
        if self.size % times:
            raise ValueError(
                f"{len(self.widths)} widths double the height {len(self.widths) - 1} times, and "
                f"size {self.size} is no multiple of {times}"
            )
        return self.size // times

    @nn.compact
    def __call__(self, z: Array, label: Array, train: bool, key: Array | None = None) -> Array:
        breed = jax.nn.one_hot(label, self.classes)
        of_breed = partial(
            layers.ConditionalBatchNorm,
            spectral=False,
            kernel_init=nn.initializers.zeros_init(),  # a gain of 1 and a bias of 0 for every breed
            eps=self.eps,
        )
        of_all = partial(layers.BatchNorm, affine=True, eps=self.eps)

        def norm(h: Array, name: str) -> Array:
            if self.conditional:
                return of_breed(name=name)(h, breed, train)
            return of_all(name=name)(h, train)

        height, (first, *widths) = self.bottom(), self.widths
        linear = layers.Dense(
            first * height**2, spectral=False, dtype=self.dtype, kernel_init=glorot(), name="linear"
        )
        h = linear(z, train).reshape(-1, height, height, first)
        conv = partial(layers.Conv, spectral=False, dtype=self.dtype)
        for i, width in enumerate(widths):
            h = Block(width, width, "up", conv, self.inner_bias, name=f"block{i + 1}")(h, norm, train)
        h = nn.relu(of_all(name="norm")(h, train)).astype(jnp.float32)
        rgb = layers.Conv(3, spectral=False, kernel_init=glorot(self.rgb_gain), name="rgb")
        return jnp.tanh(rgb(h, train))


class Discriminator(nn.Module):
    """x [b, size, size, 3] in [-1, 1], label [b] int32 in [0, classes), train -> system.Verdict."""

    widths: tuple[int, ...]  # channels of the first layer, then of each block
    classes: int
    size: int = 64
    stem: str = "block"  # the first layer: a block that sees the picture bare and halves it, or a 3x3 "conv"
    norm: str = (
        "none"  # before the blocks' activations; "layer": over each picture, gain and bias per channel
    )
    spectral: bool = True
    inner_bias: bool = True  # of each block's first convolution
    head: str = "sum"  # a last activation, then sums over h and w; or the map as it is, "flat"
    head_bias: bool = True  # of the last linear layer and, where a map is "flat", of the last block's output
    projection: bool = True  # Miyato & Koyama 2018, eq. 3
    breed_head: str = "none"  # one of heads.BREED_HEADS
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, label: Array, train: bool) -> types.Verdict:
        h = self.features(x, train).astype(jnp.float32)
        h = nn.relu(h).sum((1, 2)) if self.head == "sum" else h.reshape(h.shape[0], -1)
        linear = partial(layers.Dense, bias=self.head_bias, spectral=self.spectral, kernel_init=glorot())
        embed = partial(layers.Embed, spectral=self.spectral, kernel_init=glorot())
        return heads.verdict(
            h,
            label,
            train,
            breed_head=self.breed_head,
            classes=self.classes,
            linear=linear,
            embed=embed if self.projection else None,
        )

    def features(self, x: Array, train: bool) -> Array:
        """The last block's map [b, h, w, widths[-1]]."""
        for field, choices in (("stem", STEMS), ("norm", NORMS), ("head", HEADS)):
            _choose(field, getattr(self, field), choices)

        def norm(h: Array, name: str) -> Array:
            if self.norm == "none":
                return h
            layer = nn.LayerNorm(
                epsilon=1e-5, reduction_axes=(1, 2, 3), feature_axes=-1, use_fast_variance=False, name=name
            )
            return layer(h.astype(jnp.float32)).astype(h.dtype)

        conv = partial(layers.Conv, spectral=self.spectral, dtype=self.dtype)
        block = partial(Block, resample="down", conv=conv, inner_bias=self.inner_bias)
        first, *widths = self.widths
        if self.stem == "conv":
            h = conv(first, kernel_init=glorot(), name="stem")(x, train)
        else:
            h = block(first, first, bare=True, name="stem")(x, norm, train)
        for i, width in enumerate(widths, 1):
            biased = self.head_bias or self.head == "sum" or i < len(widths)
            h = block(width, h.shape[-1], outer_bias=biased, name=f"block{i}")(h, norm, train)
        return h
