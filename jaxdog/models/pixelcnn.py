"""Gated PixelCNNs as the prior over the codes of a VQ-VAE (see `models.code_prior`).

One causal convolutional network per level (van den Oord et al. 2016, "Conditional Image Generation with
PixelCNN Decoders", sec. 2), conditioned on the class and on the levels before it. Levels in `attention` also
attend to all earlier positions, as in PixelSNAIL (Chen et al. 2018, sec. 3). Unlike that of the transformer,
a sampling step recomputes all rows in its receptive field.
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxdog.models import attention, layers
from jaxdog.ops import conv
from jaxdog.utils import errors

Array = jax.Array
Dtype = Any

_normal = nn.initializers.normal(0.02)
# Masks of a 3x3 kernel: all rows up to the current one, or the current row up to the current position.
VERTICAL = np.array([[1, 1, 1], [1, 1, 1], [0, 0, 0]])[:, :, None, None]
HORIZONTAL = np.array([[0, 0, 0], [1, 1, 0], [0, 0, 0]])[:, :, None, None]


class MaskedConv(nn.Module):
    """3x3 convolution with a masked kernel: [b, h, w, c] -> [b, h, w, features]."""

    features: int
    mask: Any  # [3, 3, 1, 1]
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        fan_in = x.shape[-1] * int(self.mask.sum())
        kernel_init = nn.initializers.normal(1.0 / math.sqrt(fan_in))
        kernel = self.param("kernel", kernel_init, (3, 3, x.shape[-1], self.features)) * self.mask
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,)).astype(self.dtype)
        return conv.conv2d(x.astype(self.dtype), kernel.astype(self.dtype)) + bias[None, None, None, :]


def shift(x: Array, down: int, right: int) -> Array:
    """[b, h, w, c] shifted down and right by the given numbers of positions, with zero padding."""
    padded = jnp.pad(x, ((0, 0), (down, 0), (right, 0), (0, 0)))
    return padded[:, : x.shape[1], : x.shape[2]]


def _gate(x: Array) -> Array:
    a, b = jnp.split(x, 2, -1)
    return jnp.tanh(a) * nn.sigmoid(b)


class GatedLayer(nn.Module):
    """One layer of the vertical and the horizontal stack (van den Oord et al. 2016, fig. 2).

    `vertical` and `horizontal` are [b, h, w, width]. The vertical stack sees the rows above a position, the
    horizontal stack also the positions to its left. `condition` [b, h, w, 4 width] is added before the gates.
    """

    dropout: float
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, vertical: Array, horizontal: Array, condition: Array, train: bool
    ) -> tuple[Array, Array]:
        width = horizontal.shape[-1]
        vertical_condition, horizontal_condition = jnp.split(condition, 2, -1)
        drop = nn.Dropout(self.dropout, deterministic=not train)
        above = MaskedConv(2 * width, VERTICAL, self.dtype, name="above")(vertical)
        down = _dense(2 * width, self.dtype, "down")(above, train)
        left = MaskedConv(2 * width, HORIZONTAL, self.dtype, name="left")(horizontal)
        gated = drop(_gate(left + down + horizontal_condition))
        out = _dense(width, self.dtype, "out")(gated, train)
        return _gate(above + vertical_condition), horizontal + out


def _dense(features: int, dtype: Dtype, name: str) -> layers.Dense:
    kernel_init = nn.initializers.lecun_normal()
    return layers.Dense(features, spectral=False, dtype=dtype, kernel_init=kernel_init, name=name)


class CausalAttention(nn.Module):
    """x + causal self-attention over all positions of x [b, h, w, width]."""

    heads: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        b, h, w, width = x.shape
        flat = x.reshape(b, h * w, width)
        position = self.param("position", _normal, (h * w, width)).astype(self.dtype)
        split = (b, h * w, self.heads, width // self.heads)
        query, key, value = (
            _dense(width, self.dtype, name)(flat + position[None], train).reshape(split)
            for name in ("query", "key", "value")
        )
        # The horizontal stack already excludes a position's own code, so the position may attend to itself.
        seen = np.tri(h * w, dtype=bool)
        attended = attention.dot_product(query, key, value, seen).reshape(x.shape)
        return x + _dense(width, self.dtype, "out")(attended, train)


class Level(nn.Module):
    """The network of one level: embedded codes and condition, both [b, h, w, width] -> [b, h, w, width]."""

    layers: int
    heads: int  # 0: no attention
    dropout: float
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, condition: Array, train: bool) -> Array:
        vertical, horizontal = shift(x, 1, 0), shift(x, 0, 1)
        for i in range(self.layers):
            bias = _dense(4 * x.shape[-1], self.dtype, f"condition{i}")(condition, train)
            layer = GatedLayer(self.dropout, self.dtype, name=f"layer{i}")
            vertical, horizontal = layer(vertical, horizontal, bias, train)
            if self.heads and (i + 1) % 4 == 0:
                horizontal = CausalAttention(self.heads, self.dtype, name=f"attention{i}")(horizontal, train)
        return nn.relu(horizontal)


class PixelCNN(nn.Module):
    """code [b, n] int32, label [b], train -> logits [b, n, codebook_size] float32.

    Each level is a square map, row by row. With train=True it needs an rng named "dropout".

    Raises:
      UserError: a level is not square, `width` is not a multiple of `heads`, or there are not n codes.
    """

    lengths: tuple[int, ...]  # number of codes of each level, in sequence order; n is their sum
    codebook_size: int  # of each level
    classes: int
    width: int
    layers: int  # of each level
    heads: int  # of the attention
    attention: tuple[int, ...]  # levels, from 0, with attention after every fourth layer
    dropout: float  # after each gate of the horizontal stack
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        self.sides = tuple(math.isqrt(length) for length in self.lengths)
        if any(side**2 != length for side, length in zip(self.sides, self.lengths, strict=True)):
            raise errors.UserError(f"lengths {self.lengths} are not all squares: levels are square maps")
        if self.width % self.heads:
            raise errors.UserError(f"width is {self.width}, and must be a multiple of heads = {self.heads}")
        levels = len(self.lengths)
        self.code = layers.Embed(levels * self.codebook_size, self.width, False, _normal)
        self.label = layers.Embed(self.classes, self.width, False, _normal)
        self.level = [
            Level(self.layers, self.heads if i in self.attention else 0, self.dropout, self.dtype)
            for i in range(levels)
        ]
        self.downward = [layers.Conv(self.width, spectral=False, dtype=self.dtype) for _ in range(levels - 1)]
        self.head = [
            layers.Dense(self.codebook_size, spectral=False, kernel_init=_normal) for _ in range(levels)
        ]

    def __call__(self, code: Array, label: Array, train: bool) -> Array:
        b, n = code.shape
        if n != sum(self.lengths):
            raise errors.UserError(
                f"sequences of {n} codes, but lengths {self.lengths} add up to {sum(self.lengths)}"
            )
        inputs = self._level_inputs(code, label, len(self.lengths), train)
        logits = [self._logits(i, x, condition, train) for i, (x, condition) in enumerate(inputs)]
        return jnp.concatenate([x.reshape(b, -1, self.codebook_size) for x in logits], 1)

    def _level_inputs(self, code: Array, label: Array, levels: int, train: bool) -> list[tuple[Array, Array]]:
        """Embedded codes and condition of each of the first levels, both [b, side, side, width]."""
        parts = jnp.split(code, np.cumsum(self.lengths)[:-1], 1)
        condition: Array = self.label(label, train)[:, None, None, :].astype(self.dtype)
        inputs = []
        for i, (part, side) in enumerate(zip(parts[:levels], self.sides, strict=False)):
            x = self.code(part + self.codebook_size * i, train).astype(self.dtype)
            x = x.reshape(len(code), side, side, self.width)
            condition = jnp.broadcast_to(condition, x.shape)
            inputs.append((x, condition))
            if i + 1 < levels:  # the next level is conditioned on all codes of this one, upsampled
                scale = self.sides[i + 1] // side
                condition = nn.relu(self.downward[i](x + condition, train)).repeat(scale, 1).repeat(scale, 2)
        return inputs

    def _logits(self, i: int, x: Array, condition: Array, train: bool) -> Array:
        """[b, h, w, codebook_size] float32 for consecutive rows of level i; rows above are ignored."""
        return self.head[i](self.level[i](x, condition, train).astype(jnp.float32), train)

    def step(self, cache: Array, previous: Array, label: Array, position: Array) -> tuple[Array, Array]:
        """Logits [b, codebook_size] at one position [], and the cache with the code before it written.

        The cache [b, n] holds the codes so far. Positions come in order from 0. `previous` [b] is the code
        before the position; it is ignored at 0.
        """
        is_previous = jnp.arange(cache.shape[1])[None, :] == position - 1
        cache = jnp.where(is_previous, previous[:, None], cache)
        ends = np.cumsum(self.lengths)
        level = jnp.searchsorted(ends, position, side="right")
        branches = [functools.partial(PixelCNN._logits_at, i=i) for i in range(len(ends))]
        return nn.switch(level, branches, self, cache, label, position), cache

    def _logits_at(self, code: Array, label: Array, position: Array, *, i: int) -> Array:
        """Logits [b, codebook_size] at a position [] of level i."""
        x, condition = self._level_inputs(code, label, i + 1, False)[i]
        side = self.sides[i]
        row, column = jnp.divmod(position - sum(self.lengths[:i]), side)
        # The receptive field grows by one row per layer, and the first shift adds one: rows above it do not
        # affect the logits.
        rows = side if i in self.attention else min(self.layers + 2, side)
        begin = jnp.clip(row + 1 - rows, 0, side - rows)
        x, condition = (jax.lax.dynamic_slice_in_dim(y, begin, rows, 1) for y in (x, condition))
        return self._logits(i, x, condition, False)[:, row - begin, column]

    def init_cache(self, b: int) -> Array:
        """The cache [b, n] of b empty sequences."""
        return jnp.zeros((b, sum(self.lengths)), jnp.int32)
