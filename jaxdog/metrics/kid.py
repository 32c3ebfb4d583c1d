"""The kernel inception distance (Binkowski et al. 2018, arXiv:1801.01401): an unbiased distance of features.

The squared maximum mean discrepancy with the kernel (x.y / d + 1)^3, estimated without bias on many small
subsets. Unlike FID its expectation does not depend on how many pictures there are; slightly below 0 is as
good as 0.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Array = jax.Array

SUBSETS, SUBSET_SIZE, SEED = 100, 1000, 2020  # the usual choice, and torch-fidelity's


class KID(NamedTuple):
    """Over the subsets."""

    mean: Array  # [] float32
    std: Array  # [] float32, of the population (ddof 0)


class Subsets(NamedTuple):
    """Which rows of either side each subset takes."""

    real: np.ndarray  # [subsets, size] int32
    fake: np.ndarray  # [subsets, size] int32


def draw(real: int, fake: int, subsets: int = SUBSETS, size: int = SUBSET_SIZE, seed: int = SEED) -> Subsets:
    """Random subsets of `real` and `fake` rows, each without a row twice; real and fake rows in turn.

    Raises ValueError when a side has fewer rows than a subset, or a subset fewer than 2.
    """
    if not 2 <= size <= min(real, fake):
        raise ValueError(
            f"subsets of {size} rows cannot be drawn from {real} real and {fake} generated ones; a subset "
            f"can have 2 to {min(real, fake)} rows"
        )
    if subsets < 1:
        raise ValueError(f"subsets is {subsets}, at least 1 is needed")
    generator = np.random.RandomState(seed)
    drawn = [[generator.choice(n, size, replace=False) for n in (real, fake)] for _ in range(subsets)]
    both = np.asarray(drawn, np.int32)
    return Subsets(both[:, 0], both[:, 1])


def kid(real: Array, fake: Array, subsets: Subsets) -> KID:
    """Features [n, d] and [m, d] -> mean and deviation over the subsets (see `draw`) of MMD^2."""
    real, fake = real.astype(jnp.float32), fake.astype(jnp.float32)

    def one(rows: tuple[Array, Array]) -> Array:
        return mmd2(real[rows[0]], fake[rows[1]])

    found = lax.map(one, (jnp.asarray(subsets.real), jnp.asarray(subsets.fake)))
    return KID(jnp.mean(found), jnp.std(found))


def mmd2(x: Array, y: Array) -> Array:
    """Features [n, d] and [m, d] -> [] float32, the unbiased estimate of MMD^2 with the cubic kernel."""
    n, m = len(x), len(y)
    within = _off_diagonal(x) / (n * (n - 1)) + _off_diagonal(y) / (m * (m - 1))
    # Rows first: short sums round less, and MMD^2 is a small difference of means.
    return within - 2 * jnp.sum(jnp.sum(_kernel(x, y), axis=1)) / (n * m)


def _off_diagonal(x: Array) -> Array:
    kernel = _kernel(x, x)
    return jnp.sum(jnp.sum(kernel, axis=1) - jnp.diagonal(kernel))


def _kernel(x: Array, y: Array) -> Array:
    """(x.y / d + 1)^3 - 1, whose 1 would cancel in MMD^2 and cost digits."""
    a = jnp.matmul(x, y.T, precision=lax.Precision.HIGHEST) / x.shape[1]
    return a * (3 + a * (3 + a))
