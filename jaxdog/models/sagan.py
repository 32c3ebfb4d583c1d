"""SAGAN (Zhang et al. 2019): residual networks with self-attention and conditional batch norm.

Both networks have spectral norm. The options cover two competition entries, which are configs in `configs/`.
Kernels are initialized as in Glorot & Bengio 2010 (uniform), biases with 0, gains of all classes with 1.
"""

from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdog import types
from jaxdog.models import attention, heads, layers, norms, resolutions
from jaxdog.ops import resample2x
from jaxdog.utils import errors

Array = jax.Array

glorot = nn.initializers.glorot_uniform()

AttentionForm = Literal["pooled", "whole"]
ATTENTIONS: dict[str, layers.MakeLayer] = {
    "pooled": partial(attention.SelfAttention, kernel_init=glorot),  # as in the authors' code
    "whole": attention.WholeAttention,
}


def _attention(form: str, bias: bool, dtype: layers.Dtype) -> layers.MakeLayer:
    if form not in ATTENTIONS:
        raise errors.UserError(f"attention_form is {form!r}; choices: {', '.join(ATTENTIONS)}")
    return partial(ATTENTIONS[form], dtype=dtype, use_bias=bias)


class GeneratorBlock(nn.Module):
    """Residual block: [b, h, w, c], condition of the norms [b, k] -> [b, 2h, 2w, features]."""

    features: int
    conv: layers.MakeLayer
    norm: layers.MakeLayer

    @nn.compact
    def __call__(self, x: Array, condition: Array, train: bool) -> Array:
        h = nn.relu(self.norm(name="norm1")(x, condition, train))
        h = self.conv(self.features, resample="up", name="conv1")(h, train)
        h = nn.relu(self.norm(name="norm2")(h, condition, train))
        h = self.conv(self.features, name="conv2")(h, train)
        return h + self.conv(self.features, 1, resample="up", name="shortcut")(x, train)


class Generator(nn.Module):
    """z [b, latent_dim], label [b] int32 in [0, classes), train, key [b] -> [b, size, size, 3] in [-1, 1]."""

    widths: tuple[int, ...]  # channels of the smallest map, then of each block; each doubles the height
    latent_dim: int
    classes: int
    size: int = 64
    attention: tuple[int, ...] = ()  # heights of the maps that self-attention follows
    attention_form: AttentionForm = "pooled"
    attention_bias: bool = False
    normalize_latent: bool = False  # scale z to length 1
    norm_base_affine: bool = False  # the blocks' norms also have an unconditional gain and bias
    final_norm: bool = True  # batch norm and ReLU before the last convolution
    momentum: float = 0.9  # decay of the running statistics
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, z: Array, label: Array, train: bool, key: Array | None = None) -> Array:
        first, *widths = self.widths
        bottom = resolutions.bottom_width(self.size, len(widths))
        heights = [bottom << i for i in range(1, len(self.widths))]
        attention.check_resolutions(self.attention, heights)
        attend = _attention(self.attention_form, self.attention_bias, self.dtype)
        conv = partial(layers.Conv, dtype=self.dtype, kernel_init=glorot)
        norm = partial(
            norms.ConditionalBatchNorm,
            spectral=False,
            joint=True,
            base_affine=self.norm_base_affine,
            kernel_init=nn.initializers.zeros_init(),
            momentum=self.momentum,
        )
        condition = jax.nn.one_hot(label, self.classes)
        z = norms.l2_normalize(z) if self.normalize_latent else z
        linear = layers.Dense(first * bottom**2, dtype=self.dtype, kernel_init=glorot, name="linear")
        h = linear(z, train).reshape(-1, bottom, bottom, first)
        for height, width in zip(heights, widths, strict=True):
            h = layers.checkpoint_block(
                GeneratorBlock(width, conv, norm, name=f"block{height}")(h, condition, train)
            )
            if height in self.attention:
                h = attend(name=f"attention{height}")(h, train)
        if self.final_norm:
            h = nn.relu(norms.BatchNorm(self.momentum, affine=True, name="norm")(h, train))
        rgb = layers.Conv(3, kernel_init=glorot, name="rgb")
        return jnp.tanh(rgb(h.astype(jnp.float32), train))


class DiscriminatorBlock(nn.Module):
    """Residual block: [b, h, w, c] -> [b, h, w, features], or [b, h/2, w/2, features] if `halves`.

    `single_conv` is the block of a competition entry: leaky ReLUs, one convolution, and a shortcut from the
    activated input, because the first activation was in-place.
    """

    features: int
    conv: layers.MakeLayer
    halves: bool
    bare: bool = False  # no activation before the first convolution, whose input is the image
    single_conv: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        resample = "down" if self.halves else "none"
        if self.single_conv and not self.bare:
            act = layers.activation("leaky_relu", 0.2)
            x = act(x)
            h = act(self.conv(self.features, name="conv1")(x, train))
            h = resample2x.avg_pool(h) if self.halves else h
        else:
            h = x if self.bare else nn.relu(x)
            h = nn.relu(self.conv(self.features, name="conv1")(h, train))
            h = self.conv(self.features, resample=resample, name="conv2")(h, train)
        if self.halves or x.shape[-1] != self.features:
            x = self.conv(self.features, 1, resample=resample, name="shortcut")(x, train)
        return h + x


class Discriminator(nn.Module):
    """x [b, size, size, 3] in [-1, 1], label [b] int32 in [0, classes), train -> DiscriminatorOutput.

    Projection discriminator: linear(h) + <embed(label), h>, with h the last feature map after a ReLU, summed
    over height and width (Miyato & Koyama 2018, eq. 3).
    """

    widths: tuple[int, ...]  # channels of each block's output
    classes: int
    size: int = 64
    halvings: int = 4  # the number of blocks, from the first, that halve the height
    attention: tuple[int, ...] = ()  # heights of the maps that self-attention follows
    attention_form: AttentionForm = "pooled"
    attention_bias: bool = False
    single_conv: bool = False  # see DiscriminatorBlock
    head_bias: bool = True  # has no effect under a relativistic loss
    projection: bool = True
    class_head: heads.ClassHead = "none"
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, label: Array, train: bool) -> types.DiscriminatorOutput:
        h = nn.relu(self.features(x, train)).astype(jnp.float32).sum((1, 2))
        linear = partial(layers.Dense, use_bias=self.head_bias, kernel_init=glorot)
        embed = partial(layers.Embed, kernel_init=glorot)
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
        """The last block's map, [b, h, w, widths[-1]]."""
        if not 1 <= self.halvings <= len(self.widths) or self.size % 2**self.halvings:
            raise errors.UserError(
                f"halvings is {self.halvings}: it must be in 1 to {len(self.widths)}, a block per width, and "
                f"size {self.size} a multiple of 2**halvings"
            )
        heights = [self.size >> i for i in range(1, self.halvings + 1)]
        attention.check_resolutions(self.attention, heights)
        attend = _attention(self.attention_form, self.attention_bias, self.dtype)
        conv = partial(layers.Conv, dtype=self.dtype, kernel_init=glorot)
        h = x
        for i, width in enumerate(self.widths):
            halves = i < self.halvings
            block = DiscriminatorBlock(width, conv, halves, i == 0, self.single_conv, name=f"block{i + 1}")
            h = layers.checkpoint_block(block(h, train))
            if halves and heights[i] in self.attention:
                h = attend(name=f"attention{heights[i]}")(h, train)
        return h
