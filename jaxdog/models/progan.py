"""Progressive GAN (Karras et al. 2018) conditioned on breeds: the networks of one resolution.

A network at size x size has the blocks of all sizes from 4 up to its own, called by their size; pictures are
made and read at its own size only. From one size to the next, blocks with the same names are taken along.
Both networks are those of the competition's 6th place: every kernel N(0, 1) and equalised, no spectral norm,
no batch norm. With channels 256, latent 136 and 120 classes they hold 5,622,403 and 5,655,937 numbers at
64x64; the programs of 2019 held what the smaller sizes had needed besides.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdog import types
from jaxdog.models import layers

Array = jax.Array
Dtype = Any

BOTTOM = 4  # height of the smallest picture
FULL = 32  # up to this size every block is `channels` wide; above, half as wide for each size

_normal = nn.initializers.normal(1.0)
_act = layers.activation("leaky_relu", 0.2)
_conv = partial(layers.Conv, spectral=False, equalised=True, kernel_init=_normal)


def sizes_to(size: int) -> list[int]:
    """4, 8, ..., size."""
    sizes = [BOTTOM << i for i in range(max(size // BOTTOM, 1).bit_length())]
    if sizes[-1] != size:
        raise ValueError(f"a progressive GAN of {size}x{size} is unknown; sizes: 4, 8, 16, ...")
    return sizes


def width(channels: int, size: int) -> int:
    """Channels of the features at `size`, before they become a picture or after they were one."""
    found = channels * FULL // max(size, FULL)
    if found < 1:
        raise ValueError(f"{channels} channels are too few for {size}x{size}: nothing is left of them")
    return found


def _faded(new: Array, old: Array, alpha: Array | float) -> Array:
    return alpha * new + (1.0 - alpha) * old


class GeneratorBlock(nn.Module):
    """[b, h, w, c] -> [b, 2h, 2w, features]."""

    features: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        for i, resample in enumerate(("up", "none")):
            conv = _conv(self.features, resample=resample, dtype=self.dtype, name=f"conv{i + 1}")
            x = layers.PixelNorm()(_act(conv(x, train)))
        return x


class Generator(nn.Module):
    """z [b, latent_dim], label [b] int32 in [0, classes) -> [b, size, size, 3] in [-1, 1].

    The breed goes in as its one-hot code beside z, and nowhere else. Where `alpha` is not None the newest
    block fades in: alpha of its picture and 1 - alpha of the enlarged picture of the size before are mixed
    before the tanh.
    """

    channels: int
    latent_dim: int
    classes: int
    size: int = 64
    alpha: Any = None  # None | [] float32 in [0, 1]
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, z: Array, label: Array, train: bool, key: Array | None = None) -> Array:
        del key
        code = jnp.concatenate([jax.nn.one_hot(label, self.classes), z], 1)[:, None, None, :]
        sizes = sizes_to(self.size)
        conv = partial(_conv, self.channels, dtype=self.dtype)
        h = _act(conv(size=BOTTOM, resample="expand", name="expand")(code, train))
        h = layers.PixelNorm()(_act(conv(name="conv")(h, train)))
        before = h
        for size in sizes[1:]:
            before = h
            block = GeneratorBlock(width(self.channels, size), self.dtype, name=f"block{size}")
            h = layers.handed(block(h, train))
        image = self._rgb(h, self.size, train)
        if self.alpha is not None and self.size > BOTTOM:
            lower = layers.upsample_nearest(self._rgb(before, self.size // 2, train))
            image = _faded(image, lower, self.alpha)
        return jnp.tanh(image)

    def _rgb(self, h: Array, size: int, train: bool) -> Array:
        return _conv(3, size=1, name=f"rgb{size}")(h.astype(jnp.float32), train)


class DiscriminatorBlock(nn.Module):
    """[b, h, w, c] -> [b, h / 2, w / 2, features]."""

    features: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        for i, features in enumerate((x.shape[-1], self.features)):
            x = _act(_conv(features, dtype=self.dtype, name=f"conv{i + 1}")(x, train))
        return layers.avg_pool(x)


def short_rows(key: Array, shape: tuple[int, ...]) -> Array:
    """N(0, 1) rows [n, c], those that are longer than 1 shortened to 1."""
    rows = jax.random.normal(key, shape)
    return rows / jnp.maximum(jnp.linalg.norm(rows, axis=-1, keepdims=True), 1.0)


class Discriminator(nn.Module):
    """x [b, size, size, 3] in [-1, 1], label [b] int32 in [0, classes) -> system.Verdict.

    leaky_relu(conv1x1(h)) + <embed(label), h>: the score, but not the projection (Miyato & Koyama 2018), goes
    through a leaky ReLU. The rows of the embedding start within length 1; that they stay there is the
    optimiser's business. Where `alpha` is not None the newest block fades in: its features are mixed with
    those of the halved picture.
    """

    channels: int
    classes: int
    size: int = 64
    alpha: Any = None  # None | [] float32 in [0, 1]
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, label: Array, train: bool) -> types.Verdict:
        h = self._features(x, self.size, train)
        for size in reversed(sizes_to(self.size)[1:]):
            block = DiscriminatorBlock(width(self.channels, size // 2), self.dtype, name=f"block{size}")
            h = layers.handed(block(h, train))
            if self.alpha is not None and size == self.size:
                h = _faded(h, self._features(layers.avg_pool(x), size // 2, train), self.alpha)
        h = layers.MinibatchStd()(h)
        h = _act(_conv(self.channels, dtype=self.dtype, name="conv")(h, train))
        collapse = _conv(self.channels, size=BOTTOM, resample="collapse", dtype=self.dtype, name="collapse")
        h = _act(collapse(h, train)).astype(jnp.float32)
        score = _act(_conv(1, size=1, name="score")(h, train))[:, 0, 0, 0]
        embed = layers.Embed(self.classes, self.channels, False, kernel_init=short_rows, name="embed")
        return types.Verdict(score + jnp.sum(embed(label, train) * h[:, 0, 0], -1))

    def _features(self, x: Array, size: int, train: bool) -> Array:
        return _conv(width(self.channels, size), size=1, dtype=self.dtype, name=f"rgb{size}")(x, train)
