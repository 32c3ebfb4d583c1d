"""Conditional SAGAN of transposed convolutions, an entry of 2019: a DCGAN with attention that knows breeds.

Spectral norm on every convolution. The generator gets the breed with z and in its norms, the discriminator as
a fourth channel of the picture. Weights start as torch's own.
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

PLANES = "planes"  # a discriminator's collection: what each breed looks like to it


def drop_channels(x: Array, key: Array, place: int, rate: float) -> Array:
    """x [b, h, w, c] with each picture's channels set to 0 with probability `rate`, the others enlarged.

    `place` tells the layers of one network apart: a picture's key [b] gives each of them other channels
    (Tompson et al. 2015, sec. 3.2; torch's Dropout2d).
    """
    # Latents are drawn from the key itself, numbers from 0 on are folded in when latents are drawn again.
    own = jax.vmap(jax.random.fold_in, in_axes=(0, None))(key, 2_000_000 + place)
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate, (x.shape[-1],)))(own)
    return x * (kept / (1.0 - rate)).astype(x.dtype)[:, None, None, :]


def _attention(height: int, dtype: Dtype) -> layers.SelfAttention:
    start = layers.TorchDefault()
    return layers.SelfAttention(
        8, dtype, bias=True, kernel_init=start.kernel, bias_init=start.bias, name=f"attention{height}"
    )


class Generator(nn.Module):
    """z [b, latent_dim], label [b] int32 in [0, classes), train, key [b] -> [b, size, size, 3] in [-1, 1].

    The smallest map is one transposed convolution of z and the breed's vector, whose length is 1; each width
    after the first doubles the height. In training, `key` says which channels are dropped.
    """

    widths: tuple[int, ...]  # channels of the smallest map, then of each larger one
    latent_dim: int
    classes: int
    size: int = 64
    drop: tuple[float, ...] = ()  # share of each width's channels that is dropped; (): none
    attention: tuple[int, ...] = ()  # heights that self-attention follows
    slope: float = 0.05  # of all leaky ReLUs
    dtype: Dtype = jnp.float32

    def heights(self) -> list[int]:
        """The heights of the maps."""
        n = len(self.widths)
        if self.size % 2 ** (n - 1):
            raise ValueError(f"{n} widths need a size that is a multiple of {2 ** (n - 1)}, not {self.size}")
        if self.drop and len(self.drop) != n:
            raise ValueError(f"drop has {len(self.drop)} shares for {n} widths; give one each, or none")
        heights = [self.size >> i for i in reversed(range(n))]
        strange = [height for height in self.attention if height not in heights]
        if strange:
            raise ValueError(
                f"no map has attention height {strange[0]}; heights: {', '.join(map(str, heights))}"
            )
        return heights

    @nn.compact
    def __call__(self, z: Array, label: Array, train: bool, key: Array | None = None) -> Array:
        heights, breed = self.heights(), jax.nn.one_hot(label, self.classes)
        act = layers.activation("leaky_relu", self.slope)
        conv = partial(layers.Conv, bias=False, kernel_init=layers.TorchDefault("out").kernel)
        norm = partial(
            layers.ConditionalBatchNorm,
            spectral=False,
            joint=True,
            own=True,
            kernel_init=nn.initializers.zeros_init(),
        )
        embed = layers.Embed(self.classes, self.latent_dim, False, nn.initializers.normal(1.0), name="embed")(
            label, train
        )
        unit = embed / jnp.maximum(jnp.linalg.norm(embed, axis=1, keepdims=True), 1e-12)
        h = jnp.concatenate([z, unit], 1)[:, None, None, :]
        for i, (height, width) in enumerate(zip(heights, self.widths, strict=True)):
            size, resample = (4, "transposed") if i else (height, "expand")
            h = conv(width, size, resample=resample, dtype=self.dtype, name=f"conv{i}")(h, train)
            h = act(norm(name=f"norm{i}")(h, breed, train))
            h = layers.handed(h)
            if train and self.drop and self.drop[i]:
                if key is None:
                    raise ValueError("this generator drops channels in training: it needs a key per picture")
                h = drop_channels(h, key, i, self.drop[i])
            if height in self.attention:
                h = _attention(height, self.dtype)(h, train)
        # Transposed in torch, whose 3x3 kernel is ours turned by 180 degrees.
        h = conv(3, 3, name="small")(h.astype(jnp.float32), train)
        h = act(norm(name="small_norm")(h, breed, train))
        last = layers.Conv(3, bias=False, kernel_init=layers.TorchDefault().kernel, name="rgb")
        return jnp.tanh(last(h, train))


class Discriminator(nn.Module):
    """x [b, size, size, 3] in [-1, 1], label [b] int32 in [0, classes), train -> system.Verdict.

    Each breed is a plane of signs, drawn once. They were meant to be learnt, but each number was divided by
    its own length: what is left is its sign, and no gradient.

    In training features are dropped, by the random numbers that flax calls "dropout".
    """

    widths: tuple[int, ...]  # channels after each convolution; each halves the height
    classes: int
    size: int = 64
    drop: tuple[float, ...] = ()  # share of each width's features that is dropped; (): none
    attention: tuple[int, ...] = ()  # heights that self-attention follows
    slope: float = 0.2  # of the leaky ReLUs
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, label: Array, train: bool) -> types.Verdict:
        planes = self.variable(PLANES, "sign", self._signs).value
        h = self.features(jnp.concatenate([x, planes[label][..., None]], -1), train)
        h = layers.MinibatchStd()(h.astype(jnp.float32))
        start = layers.TorchDefault().kernel
        head = layers.Conv(1, h.shape[1], False, resample="collapse", kernel_init=start, name="head")
        return types.Verdict(head(h, train)[:, 0, 0, 0])

    def _signs(self) -> Array:
        shape = (self.classes, self.size, self.size)
        return jax.random.rademacher(self.make_rng("params"), shape, jnp.float32)

    def features(self, x: Array, train: bool) -> Array:
        """The last map, [b, h, w, widths[-1]]."""
        if self.drop and len(self.drop) != len(self.widths):
            raise ValueError(
                f"drop has {len(self.drop)} shares for {len(self.widths)} widths; give one each, or none"
            )
        heights = [self.size >> i for i in range(1, len(self.widths) + 1)]
        strange = [height for height in self.attention if height not in heights]
        if strange:
            raise ValueError(
                f"no map has attention height {strange[0]}; heights: {', '.join(map(str, heights))}"
            )
        act, start = layers.activation("leaky_relu", self.slope), layers.TorchDefault().kernel
        h = x
        for i, (height, width) in enumerate(zip(heights, self.widths, strict=True)):
            conv = layers.Conv(
                width, 4, False, resample="strided", dtype=self.dtype, kernel_init=start, name=f"conv{i}"
            )
            h = act(layers.BatchNorm(affine=True, name=f"norm{i}")(conv(h, train), train))
            h = layers.handed(h)
            if self.drop and self.drop[i]:
                h = nn.Dropout(self.drop[i], deterministic=not train)(h)
            if height in self.attention:
                h = _attention(height, self.dtype)(h, train)
        return h
