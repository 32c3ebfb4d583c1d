"""The residual networks of WGAN-GP (Gulrajani et al. 2017) and of SNGAN with projection.

SNGAN: Miyato et al. 2018 and Miyato & Koyama 2018. In both, the generator is a dense layer and blocks that
double the height, and the discriminator is blocks that halve it; the fields cover the differences. Kernels
are initialized as in Glorot & Bengio 2010 (uniform), those of the blocks' 3x3 convolutions sqrt(2) times as
wide; biases with 0.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdog import types
from jaxdog.models import heads, layers, norms, resolutions
from jaxdog.utils import errors

Array = jax.Array
Norm = Callable[[Array, str], Array]  # (x [b, h, w, c], the layer's name) -> normalized x

STEMS = ("conv", "block")
NORMS = ("none", "layer")
HEADS = ("sum", "flat")


def glorot(gain: float = 1.0) -> layers.Init:
    """Uniform within gain * sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010, eq. 16)."""
    return nn.initializers.variance_scaling(gain**2, "fan_avg", "uniform")


def _check_choice(field: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise errors.UserError(f"{field} is {value!r}; choices: {', '.join(choices)}")


class Block(nn.Module):
    """Residual block: [b, h, w, c] -> [b, 2h, 2w, features] ("up") or [b, h/2, w/2, features] ("down").

    "up" upsamples (nearest) before the first convolution; "down" average-pools after the second. The shortcut
    has a 1x1 convolution.
    """

    features: int
    hidden: int  # channels between the two convolutions
    resample: str
    conv: layers.MakeLayer
    inner_bias: bool = True  # of the first convolution
    outer_bias: bool = True  # of the second convolution and of the shortcut
    bare: bool = False  # no norm and activation before the first convolution

    @nn.compact
    def __call__(self, x: Array, norm: Norm, train: bool) -> Array:
        first, second = ("up", "none") if self.resample == "up" else ("none", "down")
        wide = partial(self.conv, kernel_init=glorot(math.sqrt(2.0)))
        h = x if self.bare else nn.relu(norm(x, "norm1"))
        h = wide(self.hidden, use_bias=self.inner_bias, resample=first, name="conv1")(h, train)
        last = partial(wide, self.features, use_bias=self.outer_bias)
        h = last(resample=second, name="conv2")(nn.relu(norm(h, "norm2")), train)
        shortcut = last(kernel_size=1, resample=self.resample, kernel_init=glorot(), name="shortcut")
        return layers.checkpoint_block(h + shortcut(x, train))


class Generator(nn.Module):
    """z [b, latent_dim], label [b] int32 in [0, classes), train, key [b] -> [b, size, size, 3] in [-1, 1]."""

    widths: tuple[int, ...]  # channels of the smallest map, then of each block; each doubles the height
    latent_dim: int
    classes: int
    size: int = 64
    conditional: bool = True  # whether the blocks' batch norms are conditional
    inner_bias: bool = True  # of each block's first convolution, which a norm follows
    rgb_gain: float = 1.0  # of the last convolution's initialization
    epsilon: float = 1e-5  # of all batch norms
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, z: Array, label: Array, train: bool, key: Array | None = None) -> Array:
        condition = jax.nn.one_hot(label, self.classes)
        conditional_norm = partial(
            norms.ConditionalBatchNorm,
            spectral=False,
            kernel_init=nn.initializers.zeros_init(),  # all classes start with gain 1 and bias 0
            epsilon=self.epsilon,
        )
        plain_norm = partial(norms.BatchNorm, affine=True, epsilon=self.epsilon)

        def norm(h: Array, name: str) -> Array:
            if self.conditional:
                return conditional_norm(name=name)(h, condition, train)
            return plain_norm(name=name)(h, train)

        first, *widths = self.widths
        bottom = resolutions.bottom_width(self.size, len(widths))
        linear = layers.Dense(
            first * bottom**2, spectral=False, dtype=self.dtype, kernel_init=glorot(), name="linear"
        )
        h = linear(z, train).reshape(-1, bottom, bottom, first)
        conv = partial(layers.Conv, spectral=False, dtype=self.dtype)
        for i, width in enumerate(widths):
            h = Block(width, width, "up", conv, self.inner_bias, name=f"block{i + 1}")(h, norm, train)
        h = nn.relu(plain_norm(name="norm")(h, train)).astype(jnp.float32)
        rgb = layers.Conv(3, spectral=False, kernel_init=glorot(self.rgb_gain), name="rgb")
        return jnp.tanh(rgb(h, train))


class Discriminator(nn.Module):
    """x [b, size, size, 3] in [-1, 1], label [b] int32 in [0, classes), train -> DiscriminatorOutput."""

    widths: tuple[int, ...]  # channels of the first layer, then of each block
    classes: int
    size: int = 64
    stem: Literal["block", "conv"] = "block"  # the first layer: a block that halves the height, or 3x3
    norm: Literal["none", "layer"] = "none"  # before the blocks' activations; "layer": over each image
    spectral: bool = True
    inner_bias: bool = True  # of each block's first convolution
    head: Literal["sum", "flat"] = "sum"  # the last features: the activated map summed over h and w, or flat
    head_bias: bool = True  # of the last linear layer and, with head "flat", of the last block's output
    projection: bool = True  # Miyato & Koyama 2018, eq. 3
    class_head: heads.ClassHead = "none"
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, label: Array, train: bool) -> types.DiscriminatorOutput:
        h = self.features(x, train).astype(jnp.float32)
        h = nn.relu(h).sum((1, 2)) if self.head == "sum" else h.reshape(h.shape[0], -1)
        linear = partial(layers.Dense, use_bias=self.head_bias, spectral=self.spectral, kernel_init=glorot())
        embed = partial(layers.Embed, spectral=self.spectral, kernel_init=glorot())
        return heads.discriminator_head(
            h,
            label,
            train,
            class_head=self.class_head,
            classes=self.classes,
            linear=linear,
            embed=embed if self.projection else None,
        )

    def features(self, x: Array, train: bool) -> Array:
        """The last block's map [b, h, w, widths[-1]]."""
        for field, choices in (("stem", STEMS), ("norm", NORMS), ("head", HEADS)):
            _check_choice(field, getattr(self, field), choices)

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
