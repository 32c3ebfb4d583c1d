"""R3GAN's networks (Huang et al. 2024, "The GAN is dead; long live the GAN!"): residual, without any norm.

Both are built of one block: 1x1 to more channels, 3x3, 1x1 back, added to what came in. Kernels start as
wide as He et al. 2015 have them for a leaky ReLU, narrower the more blocks there are, and the last of each
block at zero (Zhang et al. 2019, "Fixup"), so that the networks begin linear. Maps change their height by the
filter (1, 2, 1). The paper's 3x3 convolutions are grouped; `group` = 0 makes them dense, which an `expansion`
below 1 pays for.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxdog import types
from jaxdog.models import layers
from jaxdog.ops import conv

Array = jax.Array
BOTTOM = 4  # height of the smallest map
SLOPE = 0.2
GAIN = math.sqrt(2.0 / (1.0 + SLOPE**2))  # of a leaky ReLU (He et al. 2015, eq. 15)
LINEAR = 3  # layers of a block, the last of which starts at zero


def started(gain: float) -> layers.Init:
    """Normal of deviation gain / sqrt(fan_in); 0: zeros."""
    if gain == 0.0:
        return nn.initializers.zeros_init()
    return nn.initializers.variance_scaling(gain**2, "fan_in", "normal")


class Conv(nn.Module):
    """Convolution without bias, zeros around: [b, h, w, c] -> [b, h, w, features]."""

    features: int
    size: int
    gain: float
    group: int = 0  # channels that see each other; 0: all
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        c = x.shape[-1]
        inputs = self.group or c
        if self.group and (c % inputs or self.features % inputs):
            raise ValueError(f"{c} and {self.features} channels cannot be cut into groups of {self.group}")
        shape = (self.size, self.size, inputs, self.features)
        kernel = self.param("kernel", started(self.gain), shape).astype(self.dtype)
        x = x.astype(self.dtype)
        if inputs == c:
            return conv.conv2d(x, kernel)
        numbers, groups = ("NHWC", "HWIO", "NHWC"), c // inputs
        return lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=numbers, feature_group_count=groups
        )


class Active(nn.Module):
    """A bias per channel, then a leaky ReLU."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        bias = self.param("bias", nn.initializers.zeros_init(), (x.shape[-1],))
        x = x + bias.astype(x.dtype)[None, None, None, :]
        return jnp.where(x >= 0, x, SLOPE * x)


class Block(nn.Module):
    """Residual block: [b, h, w, c] -> [b, h, w, c]."""

    expansion: float  # channels of the 3x3 convolution are so many times c
    group: int
    blocks: int  # of the whole network
    dtype: layers.Dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        c = x.shape[-1]
        hidden, gain = round(self.expansion * c), GAIN * self.blocks ** (-1.0 / (2 * LINEAR - 2))
        h = Conv(hidden, 1, gain, dtype=self.dtype, name="conv1")(x)
        h = Active(name="active1")(h)
        h = Conv(hidden, 3, gain, self.group, self.dtype, name="conv2")(h)
        h = Active(name="active2")(h)
        return x + Conv(c, 1, 0.0, dtype=self.dtype, name="conv3")(h)


def doubled(x: Array) -> Array:
    """[b, h, w, c] -> [b, 2h, 2w, c]: zeros between the pixels, then (1, 2, 1) / 2 along both axes."""
    for axis in (1, 2):
        n, last = x.shape[axis], x.ndim
        wide = jnp.pad(x, [(0, 1) if i == axis else (0, 0) for i in range(last)])
        here, after = (lax.slice_in_dim(wide, i, i + n, axis=axis) for i in range(2))
        both = jnp.stack([here, 0.5 * (here + after)], axis + 1)
        x = both.reshape(*x.shape[:axis], 2 * n, *x.shape[axis + 1 :])
    return x


def halved(x: Array) -> Array:
    """[b, h, w, c] -> [b, h/2, w/2, c]: (1, 2, 1) / 4 along both axes, every second pixel kept."""
    if x.shape[1] % 2 or x.shape[2] % 2:
        raise ValueError(f"halving needs an even height and width, got {x.shape[1]}x{x.shape[2]}")
    return layers.blur(x)[:, ::2, ::2]


def heights(size: int, widths: tuple[int, ...]) -> int:
    """The number of stages; ValueError unless `size` is reached from BOTTOM with one width for each."""
    if size != BOTTOM << (len(widths) - 1):
        raise ValueError(
            f"{len(widths)} widths are those of {BOTTOM} to {BOTTOM << (len(widths) - 1)} pixels, "
            f"but size is {size}"
        )
    return len(widths)


class Generator(nn.Module):
    """z [b, latent_dim], label [b] int32 in [0, classes), train, key [b] -> [b, size, size, 3].

    The smallest map is a learnt one, its channels scaled by what the latent says. Only what is
    sampled is clipped to [-1, 1].
    """

    widths: tuple[int, ...]  # channels at 4 pixels, then at each doubled height
    blocks: int  # of each height
    expansion: float
    group: int
    embed_dim: int  # of a breed's vector, which is put beside z; 0: breeds are not looked at
    latent_dim: int
    classes: int
    size: int = 64
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, z: Array, label: Array, train: bool, key: Array | None = None) -> Array:
        count = heights(self.size, self.widths) * self.blocks
        if self.embed_dim:
            breeds = layers.Embed(
                self.classes, self.embed_dim, False, nn.initializers.normal(1.0), name="embed"
            )
            z = jnp.concatenate([z, breeds(label, train)], -1)
        first = self.widths[0]
        basis = self.param("basis", nn.initializers.normal(1.0), (BOTTOM, BOTTOM, first))
        scale = layers.Dense(first, False, False, kernel_init=started(1.0), name="scale")(z, train)
        x = (basis[None] * scale[:, None, None, :]).astype(self.dtype)
        for i, width in enumerate(self.widths):
            if width != x.shape[-1]:
                x = Conv(width, 1, 1.0, dtype=self.dtype, name=f"width{i}")(x)
            x = doubled(x) if i else x
            for j in range(self.blocks):
                block = Block(self.expansion, self.group, count, self.dtype, name=f"block{i}_{j}")
                x = layers.handed(block(x))
        image = Conv(3, 1, 1.0, name="rgb")(x.astype(jnp.float32))
        return image if train else jnp.clip(image, -1.0, 1.0)


class Discriminator(nn.Module):
    """image [b, size, size, 3], label [b] int32 in [0, classes), train -> `system.Verdict`, float32."""

    widths: tuple[int, ...]  # channels at the picture's height, then at each halved one down to 4 pixels
    blocks: int
    expansion: float
    group: int
    embed_dim: int  # the logit is the product of so many features and the breed's vector; 0: of one alone
    classes: int
    size: int = 64
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, image: Array, label: Array, train: bool) -> types.Verdict:
        count = heights(self.size, self.widths) * self.blocks
        x = Conv(self.widths[0], 1, 1.0, dtype=self.dtype, name="rgb")(image)
        for i, width in enumerate(self.widths):
            x = halved(x) if i else x
            if width != x.shape[-1]:
                x = Conv(width, 1, 1.0, dtype=self.dtype, name=f"width{i}")(x)
            for j in range(self.blocks):
                block = Block(self.expansion, self.group, count, self.dtype, name=f"block{i}_{j}")
                x = layers.handed(block(x))
        basis = self.param("basis", started(1.0), (BOTTOM, BOTTOM, 1, x.shape[-1]))
        feature = jnp.einsum("bijc,ijc->bc", x.astype(jnp.float32), basis[:, :, 0])
        head = layers.Dense(self.embed_dim or 1, False, False, kernel_init=started(1.0), name="head")
        out = head(feature, train)
        if self.embed_dim:
            init = nn.initializers.normal(1.0 / math.sqrt(self.embed_dim))
            breeds = layers.Embed(self.classes, self.embed_dim, False, init, name="embed")
            out = out * breeds(label, train)
        return types.Verdict(jnp.sum(out, -1))
