"""The images of batch i: a pure function of (key, i), computed inside the training step.

The training set is on the devices as one uint8 array (`Data`). `batch` gathers the rows of batch i: `indices`
maps the positions i * batch_size + j of an endless sequence of epochs to rows, and `permute` shuffles each
epoch by a keyed bijection of [0, n) that is evaluated for the b positions of one batch only. No loader or
shuffled copy is needed, and a resumed run only needs its step number. Positions are uint32, so a run can use
at most 2^32 images. `host_loader` reads the same batches if the training set does not fit on a device.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdog import types
from jaxdog.ops import batch_layout
from jaxdog.types import Array, Key
from jaxdog.utils import errors

ROUNDS = 8  # Feistel rounds; many, as small n mix slowly


class Data(NamedTuple):
    """The training set, replicated on all devices, or on the host if it does not fit."""

    image: Any  # [n, s, s, c] uint8
    label: Any  # [n] int32
    original_size: Any  # [n, 2] int32, see types.Batch
    crop_type: Any  # [n] int32, see types.Batch


def make_data(image: Any, label: Any, original_size: Any = None, crop_type: Any = None) -> Data:
    """A training set of images [n, s, s, c]; by default of original size (s, s) and crop type 0."""
    n, side = len(image), image.shape[1]
    original_size = np.full((n, 2), side, np.int32) if original_size is None else original_size
    return Data(image, label, original_size, np.zeros(n, np.int32) if crop_type is None else crop_type)


def batch(data: Data, key: Key, i: Array | int, batch_size: int, hours: Array | float = 0.0) -> types.Batch:
    """Batch i: position p = i * batch_size + j of an endless sequence of epochs, each a permutation.

    Args:
      data: the training set.
      key: determines the order of the images.
      i: [] integer, the index of the batch, below 2^32 / batch_size.
      batch_size: b; it need not divide n, as a batch may span two epochs.
      hours: [] training time so far.

    Returns:
      The batch; images are float32 in [-1, 1].
    """
    rows = indices(data.image.shape[0], key, i, batch_size)
    return to_batch(Data(*(jnp.asarray(x).at[rows].get(mode="promise_in_bounds") for x in data)), hours)


def to_batch(rows: Data, hours: Array | float = 0.0) -> types.Batch:
    """Rows of a training set as a batch, images uint8 -> float32 x / 127.5 - 1."""
    image = (rows.image.astype(jnp.float32) - 127.5) / 127.5  # x / 127.5 - 1 could round to 1.0000001
    now = jnp.full(rows.label.shape, hours, jnp.float32)
    return types.Batch(image, rows.label, rows.original_size, rows.crop_type, now)


def indices(n: int, key: Key, i: Array | int, batch_size: int) -> Array:
    """[b] int32: indices of the images in batch i, of n images; see `batch`."""
    first = jnp.asarray(i).astype(jnp.uint32) * np.uint32(batch_size)
    return indices_at(n, key, first, batch_size)


def indices_at(n: int, key: Key, first: Array | int, count: int) -> Array:
    """[count] int32: indices of the images at positions `first`, first + 1, ..., of n images."""
    position = jnp.asarray(first).astype(jnp.uint32) + jnp.arange(count, dtype=jnp.uint32)
    epoch, within = position // np.uint32(n), position % np.uint32(n)
    return batch_layout.replicate(permute(within, n, key, epoch).astype(jnp.int32))


def permute(i: Array, n: int, key: Key, epoch: Array | int = 0) -> Array:
    """[b] uint32 in [0, n) -> [b] uint32 in [0, n): a bijection for each (key, epoch).

    A Feistel network on Z_a x Z_c with a * c >= n (Black and Rogaway, "Ciphers with arbitrary finite
    domains", 2002): rounds (l, r) -> (r, l + hash(r) mod size of l). Values outside [0, n) are permuted
    again until they are in range (cycle walking).

    Args:
      i: [b] uint32 below n.
      n: size of the set, below 2^31.
      key: a PRNG key.
      epoch: [] or [b]: each epoch has its own permutation.
    """
    if not 1 <= n < 2**31:
        raise errors.UserError(f"n is {n}, and must satisfy 1 <= n < 2^31")
    a = math.isqrt(n - 1) + 1
    c = -(-n // a)
    epoch = jnp.broadcast_to(jnp.asarray(epoch).astype(jnp.uint32), i.shape)
    words, rounds = jax.random.bits(key, (ROUNDS, 1), jnp.uint32), jnp.arange(ROUNDS, dtype=jnp.uint32)
    subkeys = _hash(words ^ _hash(epoch[None] + rounds[:, None]))  # [rounds, b]

    def walk(x: Array) -> Array:
        return jnp.where(x < np.uint32(n), x, _feistel(x, a, c, subkeys))

    x = _feistel(i.astype(jnp.uint32), a, c, subkeys)
    return jax.lax.while_loop(lambda x: jnp.any(x >= np.uint32(n)), walk, x)


def _feistel(x: Array, a: int, c: int, subkeys: Array) -> Array:
    """One pass of the Feistel network: a bijection of [0, a * c)."""
    left, right = x // np.uint32(c), x % np.uint32(c)  # in Z_a, Z_c
    sizes = a, c
    for subkey in subkeys:
        left, right = right, (left + _hash(right ^ subkey) % np.uint32(sizes[0])) % np.uint32(sizes[0])
        sizes = sizes[::-1]
    return left * np.uint32(c) + right  # left is in Z_a again: the number of rounds is even


def _hash(x: Array) -> Array:
    """uint32 -> uint32, every output bit depending on every input bit ("lowbias32", C. Wellons, 2018)."""
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)
