"""Progressive GAN (Karras et al. 2018) conditioned on classes: the networks of one resolution.

The networks at size x size have the blocks of all resolutions from 4 up to size. Blocks are named by their
resolution, so that their parameters carry over when a network grows. Images are generated and discriminated
at the full size only. These are the networks of the competition's 6th place: equalized learning rate
everywhere, no spectral norm, no batch norm.

With channels 256, latent 136 and 120 classes at 64x64 they have 5,622,403 and 5,655,937 parameters. The
original code also kept the image layers of the lower resolutions.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdog import types
from jaxdog.models import layers, norms, resolutions
from jaxdog.ops import resample2x

Array = jax.Array

FULL_WIDTH_RESOLUTION = 32  # up to it maps have `channels`; above, each doubling halves them

_normal = nn.initializers.normal(1.0)
_act = layers.activation("leaky_relu", 0.2)
_conv = partial(layers.Conv, spectral=False, equalized_lr=True, kernel_init=_normal)


def widths(channels: int, size: int) -> dict[int, int]:
    """The channels of the maps of each resolution 4, 8, ..., size."""
    return resolutions.widths(channels, size, FULL_WIDTH_RESOLUTION)


class GeneratorBlock(nn.Module):
    """[b, h, w, c] -> [b, 2h, 2w, features]."""

    features: int
    dtype: layers.Dtype

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        for i, resample in enumerate(("up", "none")):
            conv = _conv(self.features, resample=resample, dtype=self.dtype, name=f"conv{i + 1}")
            x = norms.PixelNorm()(_act(conv(x, train)))
        return x


class Generator(nn.Module):
    """z [b, latent_dim], label [b] int32 in [0, classes) -> [b, size, size, 3] in [-1, 1].

    The one-hot label is concatenated with z. With `alpha` the last block fades in: the output is tanh of
    alpha * its image + (1 - alpha) * the upsampled image of the previous resolution.
    """

    channels: int
    latent_dim: int
    classes: int
    size: int = 64
    alpha: Any = None  # None or [] float32 in [0, 1]
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, z: Array, label: Array, train: bool, key: Array | None = None) -> Array:
        del key
        code = jnp.concatenate([jax.nn.one_hot(label, self.classes), z], 1)[:, None, None, :]
        (bottom, _), *larger = widths(self.channels, self.size).items()
        conv = partial(_conv, self.channels, dtype=self.dtype)
        h = _act(conv(kernel_size=bottom, resample="expand", name="expand")(code, train))
        h = norms.PixelNorm()(_act(conv(name="conv")(h, train)))
        before = h
        for size, width in larger:
            before = h
            h = layers.checkpoint_block(GeneratorBlock(width, self.dtype, name=f"block{size}")(h, train))
        image = self._to_rgb(h, self.size, train)
        if self.alpha is not None and larger:
            lower = resample2x.upsample_nearest(self._to_rgb(before, self.size // 2, train))
            image = resolutions.fade_in(image, lower, self.alpha)
        return jnp.tanh(image)

    def _to_rgb(self, h: Array, size: int, train: bool) -> Array:
        return _conv(3, kernel_size=1, name=f"rgb{size}")(h.astype(jnp.float32), train)


class DiscriminatorBlock(nn.Module):
    """[b, h, w, c] -> [b, h/2, w/2, features]."""

    features: int
    dtype: layers.Dtype

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        for i, features in enumerate((x.shape[-1], self.features)):
            x = _act(_conv(features, dtype=self.dtype, name=f"conv{i + 1}")(x, train))
        return resample2x.avg_pool(x)


def clipped_normal_rows(key: Array, shape: tuple[int, ...]) -> Array:
    """N(0, 1) rows [n, c]; rows longer than 1 are scaled to length 1."""
    rows = jax.random.normal(key, shape)
    return rows / jnp.maximum(jnp.linalg.norm(rows, axis=-1, keepdims=True), 1.0)


class Discriminator(nn.Module):
    """x [b, size, size, 3] in [-1, 1], label [b] int32 in [0, classes) -> DiscriminatorOutput.

    The logit is leaky_relu(linear(h)) + <embed(label), h>: unlike in a projection discriminator (Miyato &
    Koyama 2018), the first term is activated. Rows of the embedding start with length at most 1, and the
    optimizer keeps it that way (see `optimizers.clip_row_norms`). With `alpha` the first block fades in: its
    features are mixed with those of the downsampled image.
    """

    channels: int
    classes: int
    size: int = 64
    alpha: Any = None  # None or [] float32 in [0, 1]
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, label: Array, train: bool) -> types.DiscriminatorOutput:
        table = widths(self.channels, self.size)
        h = self._from_rgb(x, self.size, table, train)
        bottom, *larger = table
        for size in reversed(larger):
            block = DiscriminatorBlock(table[size // 2], self.dtype, name=f"block{size}")
            h = layers.checkpoint_block(block(h, train))
            if self.alpha is not None and size == self.size:
                lower = self._from_rgb(resample2x.avg_pool(x), size // 2, table, train)
                h = resolutions.fade_in(h, lower, self.alpha)
        h = layers.MinibatchStd()(h)
        conv = partial(_conv, self.channels, dtype=self.dtype)
        h = _act(conv(name="conv")(h, train))
        h = _act(conv(kernel_size=bottom, resample="collapse", name="collapse")(h, train))
        h = h.astype(jnp.float32)
        logit = _act(_conv(1, kernel_size=1, name="score")(h, train))[:, 0, 0, 0]
        embed = layers.Embed(
            self.classes, self.channels, False, kernel_init=clipped_normal_rows, name="embed"
        )
        return types.DiscriminatorOutput(logit + jnp.sum(embed(label, train) * h[:, 0, 0], -1))

    def _from_rgb(self, x: Array, size: int, table: dict[int, int], train: bool) -> Array:
        return _conv(table[size], kernel_size=1, dtype=self.dtype, name=f"rgb{size}")(x, train)
