"""A causal transformer as the prior over the codes of a VQ-VAE (see `models.code_prior`).

In training the whole sequence is processed at once. In sampling, keys and values of earlier positions are
cached: n codes take n steps of one position each.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdog.models import attention, layers
from jaxdog.utils import errors

Array = jax.Array
Dtype = Any
KVCache = tuple[tuple[Array, Array], ...]  # keys and values of each layer, both [b, n, heads, width / heads]

_normal = nn.initializers.normal(0.02)
_dense = partial(layers.Dense, spectral=False, kernel_init=_normal)
_norm = partial(nn.LayerNorm, epsilon=1e-5, use_fast_variance=False)


class Block(nn.Module):
    """Pre-norm transformer block (Vaswani et al. 2017): attention, then a two-layer perceptron.

    x [b, m, width] holds the positions from `begin` on. `kv` has the keys and values of all n positions, of
    which those of x are not written yet. Returns the new x, and `kv` with x's positions written.
    """

    heads: int
    dropout: float
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Array, kv: tuple[Array, Array], begin: Array | int, train: bool
    ) -> tuple[Array, tuple[Array, Array]]:
        b, m, width = x.shape
        dense = partial(_dense, dtype=self.dtype)
        drop = nn.Dropout(self.dropout, deterministic=not train)
        h = _norm(dtype=self.dtype, name="norm0")(x)
        split = (b, m, self.heads, width // self.heads)
        query, key, value = (
            dense(width, name=name)(h, train).reshape(split) for name in ("query", "key", "value")
        )
        kv = (
            lax.dynamic_update_slice_in_dim(kv[0], key, begin, 1),
            lax.dynamic_update_slice_in_dim(kv[1], value, begin, 1),
        )
        attended = self.attend(query, kv, begin)
        x = x + drop(dense(width, name="out")(attended.reshape(b, m, width), train))
        h = _norm(dtype=self.dtype, name="norm1")(x)
        h = nn.gelu(dense(4 * width, name="widen")(h, train), approximate=False)
        return x + drop(dense(width, name="narrow")(h, train)), kv

    def attend(self, query: Array, kv: tuple[Array, Array], begin: Array | int) -> Array:
        """Causal attention of queries [b, m, heads, d] at positions from `begin` on, [b, m, heads, d]."""
        position = begin + jnp.arange(query.shape[1])
        is_later = jnp.arange(kv[0].shape[1])[None, :] > position[:, None]
        return attention.dot_product(query, *kv, ~is_later)


class Transformer(nn.Module):
    """code [b, n] int32, label [b], train -> logits [b, n, codebook_size] float32.

    With train=True it needs an rng named "dropout".

    Raises:
      UserError: `width` is not a multiple of `heads`, or there are not n codes.
    """

    lengths: tuple[int, ...]  # number of codes of each level, in sequence order; n is their sum
    codebook_size: int  # of each level
    classes: int
    width: int
    layers: int  # blocks of the one stack over all levels
    heads: int  # of the attention
    dropout: float  # rate of the dropout after each attention and each perceptron
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        if self.width % self.heads:
            raise errors.UserError(f"width is {self.width}, and must be a multiple of heads = {self.heads}")
        n, levels = sum(self.lengths), len(self.lengths)
        embed = partial(layers.Embed, features=self.width, spectral=False, kernel_init=_normal)
        self.code = embed(levels * self.codebook_size)  # one table per level, stacked
        self.position, self.label = embed(n), embed(self.classes)
        self.block = [Block(self.heads, self.dropout, self.dtype) for _ in range(self.layers)]
        self.norm = _norm()
        self.head = [_dense(self.codebook_size) for _ in range(levels)]

    def __call__(self, code: Array, label: Array, train: bool) -> Array:
        b, n = code.shape
        if n != sum(self.lengths):
            raise errors.UserError(
                f"sequences of {n} codes, but lengths {self.lengths} add up to {sum(self.lengths)}"
            )
        position = jnp.arange(n)
        # The input at each position is the code before it, and zero at the first.
        previous = self.code(code[:, :-1] + self.codebook_size * self.level_of(position[:-1])[None, :], train)
        x = jnp.pad(previous, ((0, 0), (1, 0), (0, 0)))
        x, _ = self.apply_blocks(x, label, position, self.init_cache(b), train)
        parts = jnp.split(x, np.cumsum(self.lengths)[:-1], 1)
        return jnp.concatenate([head(part, train) for head, part in zip(self.head, parts, strict=True)], 1)

    def step(self, cache: KVCache, previous: Array, label: Array, position: Array) -> tuple[Array, KVCache]:
        """Logits [b, codebook_size] at one position [], and the cache with that position written.

        Positions come in order from 0. `previous` [b] is the code before the position; it is ignored at 0.
        """
        level = self.level_of(jnp.maximum(position - 1, 0))
        embedded = self.code(previous + self.codebook_size * level, False)
        x = jnp.where(position > 0, embedded, 0.0)[:, None, :]
        x, cache = self.apply_blocks(x, label, position[None], cache, False)
        logits = jnp.stack([head(x[:, 0], False) for head in self.head])
        return logits[self.level_of(position)], cache

    def init_cache(self, b: int) -> KVCache:
        """The cache of b empty sequences."""
        zeros = jnp.zeros((b, sum(self.lengths), self.heads, self.width // self.heads), self.dtype)
        return tuple((zeros, zeros) for _ in range(self.layers))

    def level_of(self, position: Array) -> Array:
        """The level of each position, int32 of the same shape."""
        ends = np.cumsum(self.lengths)[:-1]
        return sum(((position >= end).astype(jnp.int32) for end in ends), 0 * position)

    def apply_blocks(
        self, x: Array, label: Array, position: Array, cache: KVCache, train: bool
    ) -> tuple[Array, KVCache]:
        """All blocks on x [b, m, width] at consecutive positions [m]: features [b, m, width], new cache."""
        x = (x + self.position(position, train)[None] + self.label(label, train)[:, None]).astype(self.dtype)
        new_cache = []
        for block, kv in zip(self.block, cache, strict=True):
            x, kv = block(x, kv, position[0], train)
            new_cache.append(kv)
        return self.norm(x.astype(jnp.float32)), tuple(new_cache)
