"""The kernel inception distance (KID; Binkowski et al. 2018, arXiv:1801.01401).

The squared maximum mean discrepancy (MMD^2) of features with the kernel (x.y / d + 1)^3, estimated without
bias on random subsets. Unlike FID its expectation does not depend on the number of images. For
equal distributions its expectation is 0, so an estimate may be slightly negative.

Where two subsets share many images, as with fewer than 2,000 on a side, the spread over subsets is not that
of an estimate, and is undefined.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdog.metrics import comparison
from jaxdog.utils import errors

Array = jax.Array

SUBSETS, SUBSET_SIZE, SEED = 100, 1000, 2020  # as in torch-fidelity


class KID(NamedTuple):
    """Statistics over the subsets."""

    mean: Array  # [] float32
    std: Array  # [] float32, ddof 0


class Subsets(NamedTuple):
    """The rows of both sides in each subset."""

    real: np.ndarray  # [subsets, size] int32
    fake: np.ndarray  # [subsets, size] int32


def draw(real: int, fake: int, subsets: int = SUBSETS, size: int = SUBSET_SIZE, seed: int = SEED) -> Subsets:
    """Random subsets of `real` and of `fake` rows, drawn without replacement by numpy's RandomState(seed).

    Raises UserError if a subset would have more rows than a side, or fewer than 2.
    """
    if not 2 <= size <= min(real, fake):
        raise errors.UserError(
            f"subsets of {size} rows cannot be drawn from {real} real and {fake} generated rows; the size "
            f"must be from 2 to {min(real, fake)}"
        )
    if subsets < 1:
        raise errors.UserError(f"subsets is {subsets}, and must be at least 1")
    generator = np.random.RandomState(seed)
    drawn = [[generator.choice(n, size, replace=False) for n in (real, fake)] for _ in range(subsets)]
    both = np.asarray(drawn, np.int32)
    return Subsets(both[:, 0], both[:, 1])


def kid(real: Array, fake: Array, subsets: Subsets) -> KID:
    """Mean and standard deviation over the subsets (see `draw`) of MMD^2 of features [n, d] and [m, d]."""
    real, fake = real.astype(jnp.float32), fake.astype(jnp.float32)

    def one(rows: tuple[Array, Array]) -> Array:
        return mmd2(real[rows[0]], fake[rows[1]])

    estimates = lax.map(one, (jnp.asarray(subsets.real), jnp.asarray(subsets.fake)))
    return KID(jnp.mean(estimates), jnp.std(estimates))


def mmd2(x: Array, y: Array) -> Array:
    """[] float32: unbiased estimate of MMD^2 of features [n, d], [m, d] (Gretton et al. 2012, equation 3)."""
    n, m = len(x), len(y)
    within = _off_diagonal(x) / (n * (n - 1)) + _off_diagonal(y) / (m * (m - 1))
    # Rows first: short sums have smaller rounding errors, and MMD^2 is a small difference of means.
    return within - 2 * jnp.sum(jnp.sum(_kernel(x, y), axis=1)) / (n * m)


def _off_diagonal(x: Array) -> Array:
    kernel = _kernel(x, x)
    return jnp.sum(jnp.sum(kernel, axis=1) - jnp.diagonal(kernel))


def _kernel(x: Array, y: Array) -> Array:
    """(x.y / d + 1)^3 - 1: the constant 1 cancels in MMD^2 and would only lose precision."""
    a = jnp.matmul(x, y.T, precision=lax.Precision.HIGHEST) / x.shape[1]
    return a * (3 + a * (3 + a))


def scores(compared: comparison.Comparison) -> comparison.Scores:
    """Row "kid" of the table of metrics."""
    counts = compared.real.count, compared.fake.count
    size = min(SUBSET_SIZE, *counts)
    shared = 2 * size > min(counts)  # a subset holds more than half of a side
    if size < SUBSET_SIZE:
        compared.warn(f"KID is computed on subsets of {size} images instead of {SUBSET_SIZE}")
    if shared:
        part = "all" if size == min(counts) else "more than half"
        compared.warn(
            f"KID has no standard deviation: each subset of {size} images holds {part} of "
            f"{counts[0]:,} real or {counts[1]:,} generated ones"
        )
    real, fake = (
        compared.devices.replicate(side.layers[compared.network.layer])
        for side in (compared.real, compared.fake)
    )
    subsets = 1 if counts == (size, size) else SUBSETS  # all subsets are the same
    score = compared.devices.jitted(kid)(real, fake, draw(*counts, subsets, size))
    std = None if shared else float(score.std)
    return {compared.metric_name("kid"): float(score.mean), compared.metric_name("kid_std"): std}
