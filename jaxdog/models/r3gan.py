"""R3GAN (Huang et al. 2024, "The GAN is dead; long live the GAN!"): residual networks without normalization.

Both networks are built from one kind of block: a 1x1, a 3x3 and a 1x1 convolution, added to the block's
input. Kernels are initialized as in He et al. 2015 for a leaky ReLU, scaled down by the number of blocks, and
the last one of each block with zero (Zhang et al. 2019, "Fixup"). Resampling uses the filter (1, 2, 1). The
paper's 3x3 convolutions are grouped; with `group_size` 0 they are dense, and an `expansion` below 1 can
offset the cost.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxdog import types
from jaxdog.models import layers, resolutions
from jaxdog.ops import conv, resample2x
from jaxdog.utils import errors

Array = jax.Array
BOTTOM = resolutions.BOTTOM
SLOPE = 0.2
GAIN = math.sqrt(2.0 / (1.0 + SLOPE**2))  # of a leaky ReLU (He et al. 2015, eq. 15)
BLOCK_CONVS = 3  # convolutions of a block, of which the last is initialized with zero


def normal_init(gain: float) -> layers.Init:
    """Normal with standard deviation gain / sqrt(fan_in); zeros if gain is 0."""
    if gain == 0.0:
        return nn.initializers.zeros_init()
    return nn.initializers.variance_scaling(gain**2, "fan_in", "normal")


class Conv(nn.Module):
    """Convolution without bias, with zero padding: [b, h, w, c] -> [b, h, w, features]."""

    features: int
    kernel_size: int
    gain: float
    group_size: int = 0  # channels of a group; 0: not grouped
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        c = x.shape[-1]
        inputs = self.group_size or c
        if self.group_size and (c % inputs or self.features % inputs):
            raise errors.UserError(
                f"{c} and {self.features} channels cannot be split into groups of {self.group_size}"
            )
        shape = (self.kernel_size, self.kernel_size, inputs, self.features)
        kernel = self.param("kernel", normal_init(self.gain), shape).astype(self.dtype)
        x = x.astype(self.dtype)
        if inputs == c:
            return conv.conv2d(x, kernel)
        layout, groups = ("NHWC", "HWIO", "NHWC"), c // inputs
        return lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=layout, feature_group_count=groups
        )


class BiasedActivation(nn.Module):
    """A bias per channel, then a leaky ReLU: [b, h, w, c] -> [b, h, w, c]."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        bias = self.param("bias", nn.initializers.zeros_init(), (x.shape[-1],))
        x = x + bias.astype(x.dtype)[None, None, None, :]
        return jnp.where(x >= 0, x, SLOPE * x)


class Block(nn.Module):
    """Residual block: [b, h, w, c] -> [b, h, w, c]."""

    expansion: float  # channels of the 3x3 convolution over c
    group_size: int
    blocks: int  # the number of blocks of the whole network
    dtype: layers.Dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        c = x.shape[-1]
        hidden, gain = round(self.expansion * c), GAIN * self.blocks ** (-1.0 / (2 * BLOCK_CONVS - 2))
        h = Conv(hidden, 1, gain, dtype=self.dtype, name="conv1")(x)
        h = BiasedActivation(name="active1")(h)
        h = Conv(hidden, 3, gain, self.group_size, self.dtype, name="conv2")(h)
        h = BiasedActivation(name="active2")(h)
        return x + Conv(c, 1, 0.0, dtype=self.dtype, name="conv3")(h)


def upsample(x: Array) -> Array:
    """[b, h, w, c] -> [b, 2h, 2w, c]: zeros between pixels, then the filter (1, 2, 1) / 2 along h and w."""
    for axis in (1, 2):
        n, last = x.shape[axis], x.ndim
        padded = jnp.pad(x, [(0, 1) if i == axis else (0, 0) for i in range(last)])
        here, after = (lax.slice_in_dim(padded, i, i + n, axis=axis) for i in range(2))
        both = jnp.stack([here, 0.5 * (here + after)], axis + 1)
        x = both.reshape(*x.shape[:axis], 2 * n, *x.shape[axis + 1 :])
    return x


def downsample(x: Array) -> Array:
    """[b, h, w, c] -> [b, h/2, w/2, c]: the filter (1, 2, 1) / 4 along h and w, then every second pixel."""
    if x.shape[1] % 2 or x.shape[2] % 2:
        raise errors.UserError(f"downsampling needs an even height and width, got {x.shape[1]}x{x.shape[2]}")
    return resample2x.blur(x)[:, ::2, ::2]


def num_stages(size: int, widths: tuple[int, ...]) -> int:
    """The number of resolutions from BOTTOM to size; UserError unless there is one width for each."""
    if size != BOTTOM << (len(widths) - 1):
        raise errors.UserError(
            f"{len(widths)} widths are for resolutions {BOTTOM} to {BOTTOM << (len(widths) - 1)}, "
            f"but size is {size}"
        )
    return len(widths)


class Generator(nn.Module):
    """z [b, latent_dim], label [b] int32 in [0, classes), train, key [b] -> [b, size, size, 3].

    The smallest map is learned, and its channels are scaled by a linear function of the latent. Images are
    clipped to [-1, 1] if `train` is False; in training they are not bounded.
    """

    widths: tuple[int, ...]  # channels at 4x4, then at each doubling of the height
    blocks: int  # per resolution
    expansion: float
    group_size: int
    embed_dim: int  # of the class embedding, concatenated with z; 0: unconditional
    latent_dim: int
    classes: int
    size: int = 64
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, z: Array, label: Array, train: bool, key: Array | None = None) -> Array:
        count = num_stages(self.size, self.widths) * self.blocks
        if self.embed_dim:
            init = nn.initializers.normal(1.0)
            embed = layers.Embed(self.classes, self.embed_dim, False, init, name="embed")
            z = jnp.concatenate([z, embed(label, train)], -1)
        first = self.widths[0]
        basis = self.param("basis", nn.initializers.normal(1.0), (BOTTOM, BOTTOM, first))
        scale = layers.Dense(first, False, False, kernel_init=normal_init(1.0), name="scale")(z, train)
        x = (basis[None] * scale[:, None, None, :]).astype(self.dtype)
        for i, width in enumerate(self.widths):
            if width != x.shape[-1]:
                x = Conv(width, 1, 1.0, dtype=self.dtype, name=f"width{i}")(x)
            x = upsample(x) if i else x
            for j in range(self.blocks):
                block = Block(self.expansion, self.group_size, count, self.dtype, name=f"block{i}_{j}")
                x = layers.checkpoint_block(block(x))
        image = Conv(3, 1, 1.0, name="rgb")(x.astype(jnp.float32))
        return image if train else jnp.clip(image, -1.0, 1.0)


class Discriminator(nn.Module):
    """image [b, size, size, 3], label [b] int32 in [0, classes), train -> DiscriminatorOutput, float32."""

    widths: tuple[int, ...]  # channels at the image's resolution, then at each halving down to 4x4
    blocks: int  # per resolution
    expansion: float
    group_size: int
    embed_dim: int  # of the class embedding, multiplied with the last features; 0: unconditional
    classes: int
    size: int = 64
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, image: Array, label: Array, train: bool) -> types.DiscriminatorOutput:
        count = num_stages(self.size, self.widths) * self.blocks
        x = Conv(self.widths[0], 1, 1.0, dtype=self.dtype, name="rgb")(image)
        for i, width in enumerate(self.widths):
            x = downsample(x) if i else x
            if width != x.shape[-1]:
                x = Conv(width, 1, 1.0, dtype=self.dtype, name=f"width{i}")(x)
            for j in range(self.blocks):
                block = Block(self.expansion, self.group_size, count, self.dtype, name=f"block{i}_{j}")
                x = layers.checkpoint_block(block(x))
        basis = self.param("basis", normal_init(1.0), (BOTTOM, BOTTOM, 1, x.shape[-1]))
        feature = jnp.einsum("bijc,ijc->bc", x.astype(jnp.float32), basis[:, :, 0])
        head = layers.Dense(self.embed_dim or 1, False, False, kernel_init=normal_init(1.0), name="head")
        out = head(feature, train)
        if self.embed_dim:
            init = nn.initializers.normal(1.0 / math.sqrt(self.embed_dim))
            embed = layers.Embed(self.classes, self.embed_dim, False, init, name="embed")
            out = out * embed(label, train)
        return types.DiscriminatorOutput(jnp.sum(out, -1))
