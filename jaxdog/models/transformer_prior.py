"""What follows what: a transformer over a picture's codes, one after the other, and drawing from it.

The codes of all levels are one sequence: those of the top map row by row, then those of the bottom map. So
one network is the prior of the top, p(top | breed), and that of the bottom, p(bottom | top, breed). Where
there is a whole sequence it is read at once; where one is drawn, each new code looks at the keys and values
that the earlier ones have left, and drawing n codes takes n steps of one code each.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdog import types
from jaxdog.models import layers

Array = jax.Array
Dtype = Any
Past = tuple[tuple[Array, Array], ...]  # of each layer keys and values, [b, n, heads, width / heads] both

_normal = nn.initializers.normal(0.02)
_dense = partial(layers.Dense, spectral=False, kernel_init=_normal)
_norm = partial(nn.LayerNorm, epsilon=1e-5, use_fast_variance=False)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), on x [b, m, width] (Vaswani 2017, norms first).

    `past`: keys and values of all n places, those of the m places of x, from `begin` on, still to be written.
    Returns x, and `past` with them written.
    """

    heads: int
    dropout: float
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Array, past: tuple[Array, Array], begin: Array | int, train: bool
    ) -> tuple[Array, tuple[Array, Array]]:
        b, m, width = x.shape
        dense = partial(_dense, dtype=self.dtype)
        drop = nn.Dropout(self.dropout, deterministic=not train)
        h = _norm(dtype=self.dtype, name="norm0")(x)
        split = (b, m, self.heads, width // self.heads)
        query, key, value = (
            dense(width, name=name)(h, train).reshape(split) for name in ("query", "key", "value")
        )
        past = (
            lax.dynamic_update_slice_in_dim(past[0], key, begin, 1),
            lax.dynamic_update_slice_in_dim(past[1], value, begin, 1),
        )
        seen = self.attend(query, past, begin)
        x = x + drop(dense(width, name="out")(seen.reshape(b, m, width), train))
        h = _norm(dtype=self.dtype, name="norm1")(x)
        h = nn.gelu(dense(4 * width, name="widen")(h, train), approximate=False)
        return x + drop(dense(width, name="narrow")(h, train)), past

    def attend(self, query: Array, past: tuple[Array, Array], begin: Array | int) -> Array:
        """query [b, m, heads, d] of places from `begin` on -> [b, m, heads, d]; none sees a later one."""
        key, value = past
        logit = jnp.einsum("bmhd,bnhd->bhmn", query, key).astype(jnp.float32) * query.shape[-1] ** -0.5
        place = begin + jnp.arange(query.shape[1])
        hidden = jnp.arange(key.shape[1])[None, :] > place[:, None]
        weight = nn.softmax(jnp.where(hidden[None, None], -jnp.inf, logit), -1)
        return jnp.einsum("bhmn,bnhd->bmhd", weight.astype(value.dtype), value)


class Transformer(nn.Module):
    """codes [b, n] int32, label [b], train -> logits [b, n, codes] float32 of each, given the earlier ones.

    With train=True it needs an rng called "dropout".
    """

    lengths: tuple[int, ...]  # codes of each level, in the order in which they are drawn; n is their sum
    codes: int  # of each level's codebook
    classes: int
    width: int
    layers: int
    heads: int
    dropout: float  # after each attention and each multilayer perceptron
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} cannot be dealt out to {self.heads} heads")
        n, levels = sum(self.lengths), len(self.lengths)
        embed = partial(layers.Embed, features=self.width, spectral=False, kernel_init=_normal)
        self.code = embed(levels * self.codes)  # a table for each level, one below the other
        self.place, self.label = embed(n), embed(self.classes)
        self.block = [Block(self.heads, self.dropout, self.dtype) for _ in range(self.layers)]
        self.norm = _norm()
        self.head = [_dense(self.codes) for _ in range(levels)]

    def __call__(self, code: Array, label: Array, train: bool) -> Array:
        b, n = code.shape
        if n != sum(self.lengths):
            raise ValueError(
                f"sequences of {n} codes, but lengths {self.lengths} add up to {sum(self.lengths)}"
            )
        place = jnp.arange(n)
        # Each place is told the code before it; the first is told none.
        before = self.code(code[:, :-1] + self.codes * self.level(place[:-1])[None, :], train)
        x = jnp.pad(before, ((0, 0), (1, 0), (0, 0)))
        x, _ = self.through(x, label, place, self.past(b), train)
        parts = jnp.split(x, np.cumsum(self.lengths)[:-1], 1)
        return jnp.concatenate([head(part, train) for head, part in zip(self.head, parts, strict=True)], 1)

    def step(self, past: Past, before: Array, label: Array, place: Array) -> tuple[Array, Past]:
        """Logits [b, codes] at one place [], and the past with that place in it.

        Places come in order from 0. `before` [b] is the code of the place before; at 0 it is not looked at.
        """
        told = self.code(before + self.codes * self.level(jnp.maximum(place - 1, 0)), False)
        x = jnp.where(place > 0, told, 0.0)[:, None, :]
        x, past = self.through(x, label, place[None], past, False)
        logits = jnp.stack([head(x[:, 0], False) for head in self.head])
        return logits[self.level(place)], past

    def past(self, b: int) -> Past:
        """A past of b pictures in which nothing is written."""
        empty = jnp.zeros((b, sum(self.lengths), self.heads, self.width // self.heads), self.dtype)
        return tuple((empty, empty) for _ in range(self.layers))

    def level(self, place: Array) -> Array:
        """Which level's code stands at each place, int32 of the same shape."""
        return sum(((place >= end).astype(jnp.int32) for end in np.cumsum(self.lengths)[:-1]), 0 * place)

    def through(self, x: Array, label: Array, place: Array, past: Past, train: bool) -> tuple[Array, Past]:
        """The blocks on what is told to the places `place` [m] of x [b, m, width]."""
        x = (x + self.place(place, train)[None] + self.label(label, train)[:, None]).astype(self.dtype)
        written = []
        for block, own in zip(self.block, past, strict=True):
            x, own = block(x, own, place[0], train)
            written.append(own)
        return self.norm(x.astype(jnp.float32)), tuple(written)


def nats(logits: Array, code: Array) -> Array:
    """-log p of each code [b, n] under logits [b, n, codes], [b, n] float32."""
    chosen = jnp.take_along_axis(logits, code[..., None], -1)[..., 0]
    return nn.logsumexp(logits, -1) - chosen


def draw(prior: Any, params: types.PyTree, key: Array, label: Array, temperature: float) -> Array:
    """Codes [b, n] int32 of pictures with one key [b] and one breed [b] each, one place after the other.

    `prior` is a Transformer, or a network with its `lengths`, `past` and `step`.
    `temperature` divides the logits: below 1 likely codes become likelier.
    """
    b = label.shape[0]
    draw_one = jax.vmap(
        lambda key, place, logit: jax.random.categorical(jax.random.fold_in(key, place), logit)
    )

    def one(carry: tuple[Any, Array], place: Array) -> tuple[tuple[Any, Array], Array]:
        past, before = carry
        said: Any = prior.apply({"params": params}, past, before, label, place, method="step")
        code = draw_one(key, jnp.broadcast_to(place, (b,)), said[0] / temperature).astype(jnp.int32)
        return (said[1], code), code

    begin = prior.past(b), jnp.zeros(b, jnp.int32)
    _, drawn = lax.scan(one, begin, jnp.arange(sum(prior.lengths)))
    return drawn.T
