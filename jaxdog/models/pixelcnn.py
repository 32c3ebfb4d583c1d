"""What follows what, by convolutions: gated PixelCNNs over the levels of a picture's codes.

p(top | breed), then p(bottom | top, breed), each a convolutional network that sees above and to the left
only (van den Oord et al. 2016, "Conditional Image Generation with PixelCNN Decoders", sec. 2); levels named
in `attention` also look back at all earlier places, as in PixelSNAIL (Chen et al. 2018, sec. 3). It speaks
as `priors.Transformer` does, but each drawn code takes a pass over the rows that reach it.
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxdog.models import layers
from jaxdog.ops import conv

Array = jax.Array
Dtype = Any

_normal = nn.initializers.normal(0.02)
# What a 3x3 kernel may see: the rows down to its own, or its own row up to itself.
ABOVE = np.array([[1, 1, 1], [1, 1, 1], [0, 0, 0]])[:, :, None, None]
LEFT = np.array([[0, 0, 0], [1, 1, 0], [0, 0, 0]])[:, :, None, None]


class Masked(nn.Module):
    """3x3 convolution of which only `mask` is there: [b, h, w, c] -> [b, h, w, features]."""

    features: int
    mask: Any  # [3, 3, 1, 1]
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        seen = x.shape[-1] * int(self.mask.sum())
        start = nn.initializers.normal(1.0 / math.sqrt(seen))
        kernel = self.param("kernel", start, (3, 3, x.shape[-1], self.features)) * self.mask
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,)).astype(self.dtype)
        return conv.conv2d(x.astype(self.dtype), kernel.astype(self.dtype)) + bias[None, None, None, :]


def shifted(x: Array, down: int, right: int) -> Array:
    """[b, h, w, c] moved by so many places, zeros behind it."""
    padded = jnp.pad(x, ((0, 0), (down, 0), (right, 0), (0, 0)))
    return padded[:, : x.shape[1], : x.shape[2]]


def _gate(x: Array) -> Array:
    a, b = jnp.split(x, 2, -1)
    return jnp.tanh(a) * nn.sigmoid(b)


class Gated(nn.Module):
    """One layer on (above, here) [b, h, w, width] both (van den Oord et al. 2016, fig. 2).

    `above` knows the rows before a place's, `here` these and its row to the left of it; `told`
    [b, h, w, 4 width] is added before the gates.
    """

    dropout: float
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, above: Array, here: Array, told: Array, train: bool) -> tuple[Array, Array]:
        width = here.shape[-1]
        told_above, told_here = jnp.split(told, 2, -1)
        point = nn.Dropout(self.dropout, deterministic=not train)
        seen = Masked(2 * width, ABOVE, self.dtype, name="above")(above)
        down = _dense(2 * width, self.dtype, "down")(seen, train)
        own = Masked(2 * width, LEFT, self.dtype, name="left")(here)
        out = _dense(width, self.dtype, "out")(point(_gate(own + down + told_here)), train)
        return _gate(seen + told_above), here + out


def _dense(features: int, dtype: Dtype, name: str) -> layers.Dense:
    start = nn.initializers.lecun_normal()
    return layers.Dense(features, spectral=False, dtype=dtype, kernel_init=start, name=name)


class LookBack(nn.Module):
    """here + attention over all places up to each one, [b, h, w, width], which knows earlier places only."""

    heads: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, here: Array, train: bool) -> Array:
        b, h, w, width = here.shape
        flat = here.reshape(b, h * w, width)
        place = self.param("place", _normal, (h * w, width)).astype(self.dtype)
        split = (b, h * w, self.heads, width // self.heads)
        query, key, value = (
            _dense(width, self.dtype, name)(flat + place[None], train).reshape(split)
            for name in ("query", "key", "value")
        )
        logit = jnp.einsum("bmhd,bnhd->bhmn", query, key).astype(jnp.float32) * split[-1] ** -0.5
        later = np.triu(np.ones((h * w, h * w), bool), 1)[None, None]
        weight = nn.softmax(jnp.where(later, -jnp.inf, logit), -1).astype(value.dtype)
        seen = jnp.einsum("bhmn,bnhd->bmhd", weight, value).reshape(here.shape)
        return here + _dense(width, self.dtype, "out")(seen, train)


class Level(nn.Module):
    """One level's embedded codes, and what it is told, [b, h, w, width] both -> [b, h, w, width]."""

    layers: int
    heads: int  # 0: it does not look back
    dropout: float
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, told: Array, train: bool) -> Array:
        above, here = shifted(x, 1, 0), shifted(x, 0, 1)
        for i in range(self.layers):
            added = _dense(4 * x.shape[-1], self.dtype, f"told{i}")(told, train)
            layer = Gated(self.dropout, self.dtype, name=f"layer{i}")
            above, here = layer(above, here, added, train)
            if self.heads and (i + 1) % 4 == 0:
                here = LookBack(self.heads, self.dtype, name=f"back{i}")(here, train)
        return nn.relu(here)


class PixelCNN(nn.Module):
    """codes [b, n] int32, label [b], train -> logits [b, n, codes] float32 of each, given the earlier ones.

    Each level is a square map, row by row. With train=True it needs an rng called "dropout".
    """

    lengths: tuple[int, ...]  # codes of each level, in the order in which they are drawn; n is their sum
    codes: int  # of each level's codebook
    classes: int
    width: int
    layers: int  # of each level
    heads: int  # of the attention
    attention: tuple[int, ...]  # levels, from 0, that look back after every fourth layer
    dropout: float  # behind each gate
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        self.sides = tuple(math.isqrt(length) for length in self.lengths)
        if any(side**2 != length for side, length in zip(self.sides, self.lengths, strict=True)):
            raise ValueError(f"lengths {self.lengths} are not all squares: levels are square maps")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} cannot be dealt out to {self.heads} heads")
        levels = len(self.lengths)
        self.code = layers.Embed(levels * self.codes, self.width, False, _normal)
        self.label = layers.Embed(self.classes, self.width, False, _normal)
        self.level = [
            Level(self.layers, self.heads if i in self.attention else 0, self.dropout, self.dtype)
            for i in range(levels)
        ]
        self.tell = [layers.Conv(self.width, spectral=False, dtype=self.dtype) for _ in range(levels - 1)]
        self.head = [layers.Dense(self.codes, spectral=False, kernel_init=_normal) for _ in range(levels)]

    def __call__(self, code: Array, label: Array, train: bool) -> Array:
        b, n = code.shape
        if n != sum(self.lengths):
            raise ValueError(
                f"sequences of {n} codes, but lengths {self.lengths} add up to {sum(self.lengths)}"
            )
        told = enumerate(self._told(code, label, len(self.lengths), train))
        logits = [self._logits(i, x, more, train) for i, (x, more) in told]
        return jnp.concatenate([x.reshape(b, -1, self.codes) for x in logits], 1)

    def _told(self, code: Array, label: Array, levels: int, train: bool) -> list[tuple[Array, Array]]:
        """Embedded codes of the first levels, and what each level is told: [b, side, side, width] both."""
        parts = jnp.split(code, np.cumsum(self.lengths)[:-1], 1)
        told: Array = self.label(label, train)[:, None, None, :].astype(self.dtype)
        found = []
        for i, (part, side) in enumerate(zip(parts[:levels], self.sides, strict=False)):
            x = self.code(part + self.codes * i, train).astype(self.dtype)
            x = x.reshape(len(code), side, side, self.width)
            told = jnp.broadcast_to(told, x.shape)
            found.append((x, told))
            if i + 1 < levels:  # what the next level is told: all codes of the levels before it
                more = self.sides[i + 1] // side
                told = nn.relu(self.tell[i](x + told, train)).repeat(more, 1).repeat(more, 2)
        return found

    def _logits(self, i: int, x: Array, told: Array, train: bool) -> Array:
        """[b, h, w, codes] float32 of consecutive rows of a level, which know nothing of those above."""
        return self.head[i](self.level[i](x, told, train).astype(jnp.float32), train)

    def step(self, past: Array, before: Array, label: Array, place: Array) -> tuple[Array, Array]:
        """Logits [b, codes] at one place [], and the codes so far with `before` [b] at the place before.

        Places come in order from 0; there `before` is not looked at. Of the place's level only the rows that
        reach it are computed.
        """
        here = jnp.arange(past.shape[1])[None, :] == place - 1
        past = jnp.where(here, before[:, None], past)
        ends = np.cumsum(self.lengths)
        level = jnp.searchsorted(ends, place, side="right")
        branches = [functools.partial(PixelCNN._at, i=i) for i in range(len(ends))]
        return nn.switch(level, branches, self, past, label, place), past

    def _at(self, code: Array, label: Array, place: Array, *, i: int) -> Array:
        """Logits [b, codes] at a place [] of level i."""
        x, told = self._told(code, label, i + 1, False)[i]
        side = self.sides[i]
        row, column = jnp.divmod(place - sum(self.lengths[:i]), side)
        # Each layer sees one row more, as does the shift before them: rows above do not reach the last.
        rows = side if i in self.attention else min(self.layers + 2, side)
        begin = jnp.clip(row + 1 - rows, 0, side - rows)
        x, told = (jax.lax.dynamic_slice_in_dim(y, begin, rows, 1) for y in (x, told))
        return self._logits(i, x, told, False)[:, row - begin, column]

    def past(self, b: int) -> Array:
        """Codes [b, n] of which none is drawn yet."""
        return jnp.zeros((b, sum(self.lengths)), jnp.int32)
