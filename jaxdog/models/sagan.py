"""SAGAN (Zhang et al. 2019): residual networks with self-attention and a breed in the generator's norms.

Spectral norm on both sides. What two entries of 2019 chose otherwise is a field; `configs/` says which had
what. Weights start uniform as Glorot and Bengio 2010 have them, biases at 0, every breed's gains at 1.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdog import types
from jaxdog.models import heads, layers
from jaxdog.ops import matmul

Array = jax.Array
Dtype = Any
Layer = Callable[..., Any]  # makes a module

glorot = nn.initializers.glorot_uniform()
lecun = nn.initializers.lecun_uniform()  # uniform within sqrt(3 / fan_in)


class WholeAttention(nn.Module):
    """x + gain * attention(x), [b, h, w, c] -> [b, h, w, c], gain from 0, nothing pooled.

    As in the first version of the paper (arXiv 1805.08318v1, eq. 1 and 2): query and key have c / key_ratio
    channels, the value c, and no convolution follows. The softmax is float32. `bias`: as in SelfAttention.
    """

    key_ratio: int = 8
    dtype: Dtype = jnp.float32
    bias: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        b, h, w, c = x.shape
        if c < self.key_ratio:
            raise ValueError(
                f"attention over {c} channels: key_ratio is {self.key_ratio}, take at least as many"
            )

        def project(features: int, name: str) -> Array:
            conv = layers.Conv(
                features, 1, self.bias and name != "key", dtype=self.dtype, kernel_init=lecun, name=name
            )
            return conv(x, train).reshape(b, h * w, features)

        query, key = project(c // self.key_ratio, "query"), project(c // self.key_ratio, "key")
        weight = jax.nn.softmax(matmul.matmul(query, matmul.turned(key)).astype(jnp.float32), -1)
        seen = matmul.matmul(weight.astype(self.dtype), project(c, "value")).reshape(x.shape)
        return x + self.param("gain", nn.initializers.zeros_init(), ()).astype(x.dtype) * seen


ATTENTIONS: dict[str, Layer] = {
    "pooled": partial(layers.SelfAttention, kernel_init=glorot),  # the paper's own program
    "whole": WholeAttention,
}


def _attention(form: str, bias: bool, dtype: Dtype) -> Layer:
    if form not in ATTENTIONS:
        raise ValueError(f"attention_form is {form!r}; choices: {', '.join(ATTENTIONS)}")
    return partial(ATTENTIONS[form], dtype=dtype, bias=bias)


def _check_attention(attention: tuple[int, ...], heights: list[int]) -> None:
    strange = [height for height in attention if height not in heights]
    if strange:
        raise ValueError(
            f"no block ends at attention height {strange[0]}; heights: {', '.join(map(str, heights))}"
        )


class GeneratorBlock(nn.Module):
    """Residual block: [b, h, w, c], the breed as it conditions the norms [b, k] -> [b, 2h, 2w, features]."""

    features: int
    conv: Layer
    norm: Layer

    @nn.compact
    def __call__(self, x: Array, breed: Array, train: bool) -> Array:
        h = nn.relu(self.norm(name="norm1")(x, breed, train))
        h = self.conv(self.features, resample="up", name="conv1")(h, train)
        h = nn.relu(self.norm(name="norm2")(h, breed, train))
        h = self.conv(self.features, name="conv2")(h, train)
        return h + self.conv(self.features, 1, resample="up", name="shortcut")(x, train)


class Generator(nn.Module):
    """z [b, latent_dim], label [b] int32 in [0, classes), train, key [b] -> [b, size, size, 3] in [-1, 1]."""

    widths: tuple[int, ...]  # channels of the smallest map, then of each block; each doubles the height
    latent_dim: int
    classes: int
    size: int = 64
    attention: tuple[int, ...] = ()  # heights of the blocks that self-attention follows
    attention_form: str = "pooled"  # "pooled" | "whole": see ATTENTIONS
    attention_bias: bool = False
    unit_latent: bool = False  # z is brought to length 1
    norm_own: bool = False  # the blocks' norms have a gain and a bias for all breeds beside each breed's
    last_norm: bool = True  # a norm and a ReLU before the last convolution
    momentum: float = 0.9  # weight of the past in the norms' running statistics
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
        bottom, (first, *widths) = self.bottom(), self.widths
        heights = [bottom << i for i in range(1, len(self.widths))]
        _check_attention(self.attention, heights)
        attend = _attention(self.attention_form, self.attention_bias, self.dtype)
        conv = partial(layers.Conv, dtype=self.dtype, kernel_init=glorot)
        norm = partial(
            layers.ConditionalBatchNorm,
            spectral=False,
            joint=True,
            own=self.norm_own,
            kernel_init=nn.initializers.zeros_init(),
            momentum=self.momentum,
        )
        breed = jax.nn.one_hot(label, self.classes)
        if self.unit_latent:
            z = z / jnp.maximum(jnp.linalg.norm(z, axis=1, keepdims=True), 1e-12)
        linear = layers.Dense(first * bottom**2, dtype=self.dtype, kernel_init=glorot, name="linear")
        h = linear(z, train).reshape(-1, bottom, bottom, first)
        for height, width in zip(heights, widths, strict=True):
            h = layers.handed(GeneratorBlock(width, conv, norm, name=f"block{height}")(h, breed, train))
            if height in self.attention:
                h = attend(name=f"attention{height}")(h, train)
        if self.last_norm:
            h = nn.relu(layers.BatchNorm(self.momentum, affine=True, name="norm")(h, train))
        rgb = layers.Conv(3, kernel_init=glorot, name="rgb")
        return jnp.tanh(rgb(h.astype(jnp.float32), train))


class DiscriminatorBlock(nn.Module):
    """Residual block: [b, h, w, c] -> [b, h, w, features], or half the height and width.

    One of 2019 was meant to have leaky ReLUs and two convolutions. The second had been taken out, and the
    first leaky ReLU was in place, so that the shortcut saw its result: that is `single`.
    """

    features: int
    conv: Layer
    halves: bool
    bare: bool = False  # the block sees its input, the picture, without an activation
    single: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        resample = "down" if self.halves else "none"
        if self.single and not self.bare:
            act = layers.activation("leaky_relu", 0.2)
            x = act(x)
            h = act(self.conv(self.features, name="conv1")(x, train))
            h = layers.avg_pool(h) if self.halves else h
        else:
            h = x if self.bare else nn.relu(x)
            h = nn.relu(self.conv(self.features, name="conv1")(h, train))
            h = self.conv(self.features, resample=resample, name="conv2")(h, train)
        if self.halves or x.shape[-1] != self.features:
            x = self.conv(self.features, 1, resample=resample, name="shortcut")(x, train)
        return h + x


class Discriminator(nn.Module):
    """x [b, size, size, 3] in [-1, 1], label [b] int32 in [0, classes), train -> system.Verdict.

    linear(h) + <embed(label), h>, h the last map after a ReLU, summed over height and width (Miyato & Koyama
    2018, eq. 3).
    """

    widths: tuple[int, ...]  # channels of each block's output
    classes: int
    size: int = 64
    halvings: int = 4  # how many blocks, from the first, halve the height
    attention: tuple[int, ...] = ()  # heights of the blocks that self-attention follows
    attention_form: str = "pooled"  # "pooled" | "whole": see ATTENTIONS
    attention_bias: bool = False
    single: bool = False  # see DiscriminatorBlock
    head_bias: bool = True  # to a relativistic loss a bias of all logits is nothing
    projection: bool = True
    breed_head: str = "none"  # one of heads.BREED_HEADS
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, label: Array, train: bool) -> types.Verdict:
        h = nn.relu(self.features(x, train)).astype(jnp.float32).sum((1, 2))
        linear = partial(layers.Dense, bias=self.head_bias, kernel_init=glorot)
        embed = partial(layers.Embed, kernel_init=glorot)
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
        """The last block's map, [b, h, w, widths[-1]]."""
        if not 1 <= self.halvings <= len(self.widths) or self.size % 2**self.halvings:
            raise ValueError(
                f"halvings is {self.halvings}, and must lie in 1 to {len(self.widths)}, a block per width; "
                f"size {self.size} must be a multiple of 2**halvings"
            )
        heights = [self.size >> i for i in range(1, self.halvings + 1)]
        _check_attention(self.attention, heights)
        attend = _attention(self.attention_form, self.attention_bias, self.dtype)
        conv = partial(layers.Conv, dtype=self.dtype, kernel_init=glorot)
        h = x
        for i, width in enumerate(self.widths):
            halves = i < self.halvings
            block = DiscriminatorBlock(width, conv, halves, i == 0, self.single, name=f"block{i + 1}")
            h = layers.handed(block(h, train))
            if halves and heights[i] in self.attention:
                h = attend(name=f"attention{heights[i]}")(h, train)
        return h
