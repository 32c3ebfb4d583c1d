"""BigGAN-deep (Brock, Donahue, Simonyan 2018, appendix B) for small pictures.

Two blocks per height, each with two 3x3 convolutions between two 1x1 ones at a quarter of the width.
Shortcuts pass on what is there: the generator's drop channels, the discriminator's put those of a 1x1
convolution beside it. Latent and breed go whole to the first layer and to every norm.

At 64x64 with channels 32 (generator) and 64 (discriminator), latent and embedding 128, 120 classes and
attention at 32x32 they hold 6,597,828 and 4,854,018 numbers.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdog import types
from jaxdog.models import heads, layers

Array = jax.Array
Dtype = Any
Layer = Callable[..., Any]  # makes a module


class Shape(NamedTuple):
    """Widths of both networks for one picture size, in units of `channels`."""

    g: tuple[int, ...]  # of the generator's first map of 4x4, then of what each doubling of the height gives
    d: tuple[int, ...]  # of the discriminator's first convolution, then of what each pair of blocks gives
    halvings: int  # how many of those pairs, from the first, halve the height


SHAPES = {
    32: Shape((4, 4, 4, 4), (4, 4, 4, 4), 2),
    64: Shape((16, 16, 8, 4, 2), (1, 2, 4, 8, 16), 4),
    128: Shape((16, 16, 8, 4, 2, 1), (1, 2, 4, 8, 16, 16), 5),
}
BOTTOM = 4  # height of the generator's first map


def shape_of(size: int) -> Shape:
    """The row of `SHAPES` for pictures of size x size."""
    if size not in SHAPES:
        raise ValueError(f"BigGAN-deep at {size}x{size} is unknown; sizes: {', '.join(map(str, SHAPES))}")
    return SHAPES[size]


def _check_attention(attention: tuple[int, ...], heights: list[int]) -> None:
    strange = [size for size in attention if size not in heights]
    if strange:
        raise ValueError(
            f"no block ends at attention height {strange[0]}; heights: {', '.join(map(str, heights))}"
        )


class GeneratorBlock(nn.Module):
    """[b, h, w, c], condition [b, k] -> [b, h, w, features], or twice the height and width if upsample.

    features may not exceed c.
    """

    features: int
    conv: Layer
    norm: Layer
    upsample: bool
    bottleneck: int = 4

    @nn.compact
    def __call__(self, x: Array, condition: Array, train: bool) -> Array:
        narrow = x.shape[-1] // self.bottleneck

        def active(h: Array, i: int) -> Array:
            return nn.relu(self.norm(name=f"norm{i}")(h, condition, train))

        h = self.conv(narrow, size=1, name="conv1")(active(x, 1), train)
        resample = "up" if self.upsample else "none"
        h = self.conv(narrow, resample=resample, name="conv2")(active(h, 2), train)
        h = self.conv(narrow, name="conv3")(active(h, 3), train)
        h = self.conv(self.features, size=1, name="conv4")(active(h, 4), train)
        x = x[..., : self.features]
        return layers.handed(h + (layers.upsample_nearest(x) if self.upsample else x))


class Generator(nn.Module):
    """z [b, latent_dim], label [b] int32 in [0, classes), train -> [b, size, size, 3] in [-1, 1]."""

    channels: int
    latent_dim: int
    embed_dim: int
    classes: int
    size: int = 64
    attention: tuple[int, ...] = ()  # heights after which self-attention follows
    attention_key_ratio: int = 8
    bottleneck: int = 4  # width of a block over that of its 3x3 convolutions
    rgb_width: int = 3  # channels of the last convolution, of which the first three are the picture
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, z: Array, label: Array, train: bool, key: Array | None = None) -> Array:
        first, *widths = (multiple * self.channels for multiple in shape_of(self.size).g)
        heights = [BOTTOM << i for i in range(1, len(widths) + 1)]
        _check_attention(self.attention, heights)
        breed = layers.Embed(self.classes, self.embed_dim, spectral=False, name="embed")(label, train)
        condition = jnp.concatenate([z, breed], 1)
        h = layers.Dense(first * BOTTOM**2, dtype=self.dtype, name="linear")(condition, train)
        h = h.reshape(-1, BOTTOM, BOTTOM, first)
        conv = partial(layers.Conv, dtype=self.dtype)
        block = partial(
            GeneratorBlock, conv=conv, norm=layers.ConditionalBatchNorm, bottleneck=self.bottleneck
        )
        for height, width in zip(heights, widths, strict=True):
            h = block(h.shape[-1], upsample=False, name=f"to{height}_1")(h, condition, train)
            h = block(width, upsample=True, name=f"to{height}_2")(h, condition, train)
            if height in self.attention:
                attend = layers.SelfAttention(self.attention_key_ratio, self.dtype, name=f"attention{height}")
                h = attend(h, train)
        h = nn.relu(layers.BatchNorm(affine=True, name="norm")(h, train))
        return jnp.tanh(layers.Conv(self.rgb_width, name="rgb")(h, train)[..., :3])


class DiscriminatorBlock(nn.Module):
    """[b, h, w, c] -> [b, h, w, features], or half the height and width if downsample.

    features may not be below c.
    """

    features: int
    conv: Layer
    downsample: bool
    bottleneck: int = 4

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        narrow = self.features // self.bottleneck
        h = self.conv(narrow, size=1, name="conv1")(nn.relu(x), train)
        h = self.conv(narrow, name="conv2")(nn.relu(h), train)
        h = self.conv(narrow, name="conv3")(nn.relu(h), train)
        # A 1x1 convolution and the mean of 2x2 commute; the mean comes first.
        resample = "down" if self.downsample else "none"
        h = self.conv(self.features, size=1, resample=resample, name="conv4")(nn.relu(h), train)
        x = layers.avg_pool(x) if self.downsample else x
        more = self.features - x.shape[-1]
        if more:
            x = jnp.concatenate([x, self.conv(more, size=1, name="shortcut")(x, train).astype(x.dtype)], -1)
        return layers.handed(h + x)


class Discriminator(nn.Module):
    """x [b, size, size, 3] in [-1, 1], label [b] int32 in [0, classes), train -> system.Verdict.

    Projection discriminator (Miyato & Koyama 2018): linear(h) + <embed(label), h>, with h the last feature
    map after its activation, summed over height and width.
    """

    channels: int
    classes: int
    size: int = 64
    attention: tuple[int, ...] = ()  # heights after which self-attention follows
    attention_key_ratio: int = 8
    bottleneck: int = 4
    projection: bool = True
    breed_head: str = "none"  # one of heads.BREED_HEADS
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, label: Array, train: bool) -> types.Verdict:
        shape = shape_of(self.size)
        first, *widths = (multiple * self.channels for multiple in shape.d)
        halved = [i < shape.halvings for i in range(len(widths))]
        heights = [self.size >> sum(halved[: i + 1]) for i in range(len(widths))]
        _check_attention(self.attention, heights)
        conv = partial(layers.Conv, dtype=self.dtype)
        block = partial(DiscriminatorBlock, conv=conv, bottleneck=self.bottleneck)
        h = conv(first, name="stem")(x, train)
        for i, (height, width) in enumerate(zip(heights, widths, strict=True)):
            h = block(width, downsample=halved[i], name=f"pair{i + 1}_1")(h, train)
            h = block(width, downsample=False, name=f"pair{i + 1}_2")(h, train)
            if height in self.attention and height not in heights[:i]:
                attend = layers.SelfAttention(self.attention_key_ratio, self.dtype, name=f"attention{height}")
                h = attend(h, train)
        h = nn.relu(h).astype(jnp.float32).sum((1, 2))
        return heads.verdict(
            h,
            label,
            train,
            breed_head=self.breed_head,
            classes=self.classes,
            linear=layers.Dense,
            embed=layers.Embed if self.projection else None,
        )
