"""BigGAN-deep (Brock, Donahue, Simonyan 2018, appendix B) for small images.

Each resolution has two bottleneck blocks: two 3x3 convolutions between two 1x1 convolutions, at a quarter of
the width. Shortcuts are the identity: those of the generator drop channels, those of the discriminator append
channels from a 1x1 convolution. The whole latent and the class embedding condition the first layer and every
norm.

At 64x64 with channels 32 (generator) and 64 (discriminator), latent and shared embedding 128, 120 classes and
attention at 32x32 they have 6,597,828 and 4,854,018 parameters.
"""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdog import types
from jaxdog.models import attention, heads, layers, norms, resolutions
from jaxdog.ops import resample2x
from jaxdog.utils import errors

Array = jax.Array


class Shape(NamedTuple):
    """The architecture at one image size. Widths are in units of `channels`."""

    g: tuple[int, ...]  # width of the generator's 4x4 map, then after each doubling of the height
    d: tuple[int, ...]  # width of the discriminator's first convolution, then of each pair of blocks
    halvings: int  # the number of pairs, from the first, that halve the height


SHAPES = {
    32: Shape((4, 4, 4, 4), (4, 4, 4, 4), 2),
    64: Shape((16, 16, 8, 4, 2), (1, 2, 4, 8, 16), 4),
    128: Shape((16, 16, 8, 4, 2, 1), (1, 2, 4, 8, 16, 16), 5),
    256: Shape((16, 16, 8, 8, 4, 2, 1), (1, 2, 4, 8, 8, 16, 16), 6),
}


def shape_of(size: int) -> Shape:
    """The row of `SHAPES` for images of size x size."""
    if size not in SHAPES:
        raise errors.UserError(
            f"BigGAN-deep at {size}x{size} is unknown; sizes: {', '.join(map(str, SHAPES))}"
        )
    return SHAPES[size]


class GeneratorBlock(nn.Module):
    """[b, h, w, c], condition [b, k] -> [b, h, w, features], or [b, 2h, 2w, features] if `upsample`.

    `features` must be at most c.
    """

    features: int
    conv: layers.MakeLayer
    norm: layers.MakeLayer
    upsample: bool
    bottleneck: int = 4

    @nn.compact
    def __call__(self, x: Array, condition: Array, train: bool) -> Array:
        narrow = x.shape[-1] // self.bottleneck

        def norm_relu(h: Array, i: int) -> Array:
            return nn.relu(self.norm(name=f"norm{i}")(h, condition, train))

        h = self.conv(narrow, kernel_size=1, name="conv1")(norm_relu(x, 1), train)
        resample = "up" if self.upsample else "none"
        h = self.conv(narrow, resample=resample, name="conv2")(norm_relu(h, 2), train)
        h = self.conv(narrow, name="conv3")(norm_relu(h, 3), train)
        h = self.conv(self.features, kernel_size=1, name="conv4")(norm_relu(h, 4), train)
        x = x[..., : self.features]
        return layers.checkpoint_block(h + (resample2x.upsample_nearest(x) if self.upsample else x))


class Generator(nn.Module):
    """z [b, latent_dim], label [b] int32 in [0, classes), train -> [b, size, size, 3] in [-1, 1]."""

    channels: int
    latent_dim: int
    shared_dim: int  # of the shared embedding
    classes: int
    size: int = 64
    attention: tuple[int, ...] = ()  # heights of the maps that self-attention follows
    attention_key_ratio: int = 8
    bottleneck: int = 4  # width of a block over that of its 3x3 convolutions
    rgb_width: int = 3  # channels of the last convolution, of which the first three are the image
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, z: Array, label: Array, train: bool, key: Array | None = None) -> Array:
        first, *widths = (multiple * self.channels for multiple in shape_of(self.size).g)
        bottom = resolutions.BOTTOM
        heights = [bottom << i for i in range(1, len(widths) + 1)]
        attention.check_resolutions(self.attention, heights)
        embed = layers.Embed(self.classes, self.shared_dim, spectral=False, name="embed")
        condition = jnp.concatenate([z, embed(label, train)], 1)
        h = layers.Dense(first * bottom**2, dtype=self.dtype, name="linear")(condition, train)
        h = h.reshape(-1, bottom, bottom, first)
        conv = partial(layers.Conv, dtype=self.dtype)
        block = partial(
            GeneratorBlock, conv=conv, norm=norms.ConditionalBatchNorm, bottleneck=self.bottleneck
        )
        for height, width in zip(heights, widths, strict=True):
            h = block(h.shape[-1], upsample=False, name=f"to{height}_1")(h, condition, train)
            h = block(width, upsample=True, name=f"to{height}_2")(h, condition, train)
            if height in self.attention:
                attend = attention.SelfAttention(
                    self.attention_key_ratio, self.dtype, name=f"attention{height}"
                )
                h = attend(h, train)
        h = nn.relu(norms.BatchNorm(affine=True, name="norm")(h, train))
        return jnp.tanh(layers.Conv(self.rgb_width, name="rgb")(h, train)[..., :3])


class DiscriminatorBlock(nn.Module):
    """[b, h, w, c] -> [b, h, w, features], or [b, h/2, w/2, features] if `downsample`.

    `features` must be at least c.
    """

    features: int
    conv: layers.MakeLayer
    downsample: bool
    bottleneck: int = 4

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        narrow = self.features // self.bottleneck
        h = self.conv(narrow, kernel_size=1, name="conv1")(nn.relu(x), train)
        h = self.conv(narrow, name="conv2")(nn.relu(h), train)
        h = self.conv(narrow, name="conv3")(nn.relu(h), train)
        # Average pooling commutes with a 1x1 convolution; `conv.conv2d` pools first.
        resample = "down" if self.downsample else "none"
        h = self.conv(self.features, kernel_size=1, resample=resample, name="conv4")(nn.relu(h), train)
        x = resample2x.avg_pool(x) if self.downsample else x
        missing = self.features - x.shape[-1]
        if missing:
            extra = self.conv(missing, kernel_size=1, name="shortcut")(x, train)
            x = jnp.concatenate([x, extra.astype(x.dtype)], -1)
        return layers.checkpoint_block(h + x)


class Discriminator(nn.Module):
    """x [b, size, size, 3] in [-1, 1], label [b] int32 in [0, classes), train -> DiscriminatorOutput.

    Projection discriminator (Miyato & Koyama 2018): linear(h) + <embed(label), h>, with h the last feature
    map after its activation, summed over height and width.
    """

    channels: int
    classes: int
    size: int = 64
    attention: tuple[int, ...] = ()  # heights of the maps that self-attention follows
    attention_key_ratio: int = 8
    bottleneck: int = 4
    projection: bool = True
    class_head: heads.ClassHead = "none"
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, label: Array, train: bool) -> types.DiscriminatorOutput:
        shape = shape_of(self.size)
        first, *widths = (multiple * self.channels for multiple in shape.d)
        halved = [i < shape.halvings for i in range(len(widths))]
        heights = [self.size >> sum(halved[: i + 1]) for i in range(len(widths))]
        attention.check_resolutions(self.attention, heights)
        conv = partial(layers.Conv, dtype=self.dtype)
        block = partial(DiscriminatorBlock, conv=conv, bottleneck=self.bottleneck)
        h = conv(first, name="stem")(x, train)
        for i, (height, width) in enumerate(zip(heights, widths, strict=True)):
            h = block(width, downsample=halved[i], name=f"pair{i + 1}_1")(h, train)
            h = block(width, downsample=False, name=f"pair{i + 1}_2")(h, train)
            if height in self.attention and height not in heights[:i]:
                attend = attention.SelfAttention(
                    self.attention_key_ratio, self.dtype, name=f"attention{height}"
                )
                h = attend(h, train)
        h = nn.relu(h).astype(jnp.float32).sum((1, 2))
        return heads.discriminator_head(
            h,
            label,
            train,
            class_head=self.class_head,
            classes=self.classes,
            linear=layers.Dense,
            embed=layers.Embed if self.projection else None,
        )
