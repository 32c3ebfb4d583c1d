"""Batch i of a run as a pure function of (key, i), gathered in-graph from one resident uint8 array.

No loader and no shuffled copy: each epoch is a keyed bijection of [0, n), computed for the b
positions of one batch only. Positions are uint32, so a run may see at most 2^32 pictures.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdog import types
from jaxdog.types import Array, Key

ROUNDS = 8  # Feistel rounds; the small factors of a small n mix slowly


class Data(NamedTuple):
    """The training set on the devices, replicated."""

    image: Any  # [n, s, s, c] uint8
    label: Any  # [n] int32
    extent: Any  # [n, 2] int32, as in system.Batch
    kind: Any  # [n] int32


def resident(image: Any, label: Any, extent: Any = None, kind: Any = None) -> Data:
    """A training set on the host; without extents the pictures [n, s, s, c] were square, of one kind."""
    n, side = len(image), image.shape[1]
    extent = np.full((n, 2), side, np.int32) if extent is None else extent
    return Data(image, label, extent, np.zeros(n, np.int32) if kind is None else kind)


def batch(data: Data, key: Key, i: Array | int, batch_size: int, hours: Array | float = 0.0) -> types.Batch:
    """Batch i: position p = i * batch_size + j of an endless sequence of epochs, each a permutation.

    Args:
      data: the training set.
      key: the order of the run.
      i: [] integer, the batch's number, below 2^32 / batch_size.
      batch_size: b; it need not divide n: a batch may end one epoch and begin the next.
      hours: [] time trained so far.

    Returns:
      Its rows of `data`, as `seen`.
    """
    chosen = indices(data.image.shape[0], key, i, batch_size)
    rows = Data(*(jnp.asarray(x).at[chosen].get(mode="promise_in_bounds") for x in data))
    return seen(rows, hours)


def seen(rows: Data, hours: Array | float = 0.0) -> types.Batch:
    """Rows of a training set as a system sees them, the pictures as float32 = x / 127.5 - 1."""
    image = (rows.image.astype(jnp.float32) - 127.5) / 127.5  # x / 127.5 - 1 could come out as 1.0000001
    now = jnp.full(rows.label.shape, hours, jnp.float32)
    return types.Batch(image, rows.label, rows.extent, rows.kind, now)


def indices(n: int, key: Key, i: Array | int, batch_size: int) -> Array:
    """[b] int32: which of the n pictures are in batch i; see `batch`."""
    first = jnp.asarray(i).astype(jnp.uint32) * np.uint32(batch_size)
    return at(n, key, first, batch_size)


def at(n: int, key: Key, first: Array | int, count: int) -> Array:
    """[count] int32: which of the n pictures are at positions `first`, first + 1, ... of all epochs."""
    position = jnp.asarray(first).astype(jnp.uint32) + jnp.arange(count, dtype=jnp.uint32)
    epoch, within = position // np.uint32(n), position % np.uint32(n)
    return types.known_to_all(permute(within, n, key, epoch).astype(jnp.int32))


def permute(i: Array, n: int, key: Key, epoch: Array | int = 0) -> Array:
    """[b] uint32 in [0, n) -> [b] uint32 in [0, n): a bijection for each (key, epoch).

    A Feistel network on Z_a x Z_c with a * c >= n (Black and Rogaway, "Ciphers with arbitrary finite
    domains", 2002): rounds (l, r) -> (r, l + hash(r) mod size of l); what lands outside [0, n) is sent
    through again until it lands inside (cycle walking).

    Args:
      i: [b] uint32 below n.
      n: size of the set, below 2^31.
      key: a PRNG key.
      epoch: [] or [b]: each number is a permutation of its own.
    """
    if not 1 <= n < 2**31:
        raise ValueError(f"a permutation needs 1 <= n < 2^31 elements, not {n}")
    a = math.isqrt(n - 1) + 1
    c = -(-n // a)
    epoch = jnp.broadcast_to(jnp.asarray(epoch).astype(jnp.uint32), i.shape)
    words = jax.random.bits(key, (ROUNDS,), jnp.uint32)
    subkeys = jnp.stack([_hash(words[r] ^ _hash(epoch + np.uint32(r))) for r in range(ROUNDS)])  # [rounds, b]

    def walk(x: Array) -> Array:
        return jnp.where(x < np.uint32(n), x, _feistel(x, a, c, subkeys))

    x = _feistel(i.astype(jnp.uint32), a, c, subkeys)
    return jax.lax.while_loop(lambda x: jnp.any(x >= np.uint32(n)), walk, x)


def _feistel(x: Array, a: int, c: int, subkeys: Array) -> Array:
    """One pass of the network: a bijection of [0, a * c)."""
    left, right = x // np.uint32(c), x % np.uint32(c)  # in Z_a, Z_c
    sizes = a, c
    for subkey in subkeys:
        left, right = right, (left + _hash(right ^ subkey) % np.uint32(sizes[0])) % np.uint32(sizes[0])
        sizes = sizes[::-1]
    return left * np.uint32(c) + right  # an even number of rounds: left is in Z_a again


def _hash(x: Array) -> Array:
    """uint32 -> uint32, every output bit depending on every input bit ("lowbias32", C. Wellons, 2018)."""
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)
