"""The Frechet distance between two sets of features, in float32 and safe inside jit.

FID (Heusel et al. 2017, arXiv:1706.08500, equation 6) is |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)). With
S = R^T R, R the triangular factor of the centred features / sqrt(n - 1), the last trace is the sum of the
singular values of R1 R2^T. Covariances are never formed: the root of an eigenvalue of S1 S2 turns float32's
relative error e into sqrt(e), which summed over 2,048 directions was 0.17 at a true FID of 0.88.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Array = jax.Array

HIGHEST = lax.Precision.HIGHEST


class Factor(NamedTuple):
    """What the distance needs of a set of features; R^T R is their covariance with n - 1 below (ddof 1)."""

    mean: Array  # [d] float32
    r: Array  # [min(n, d), d] float32, upper triangular
    n: Array  # [] float32, how many rows counted


def factor(features: Array, weight: Array | None = None, block: int = 4096) -> Factor:
    """Features [n, d] -> their mean and triangular factor, by QR of `block` rows at a time (TSQR).

    `weight` [n] is 1 for rows that count, 0 for padding. One QR of all rows is slow on CPU (79 s for 20,579 x
    2,048), blocks take 4 s. The result does not depend on `block` but for rounding.
    """
    n, d = features.shape
    if block < 1:
        raise ValueError(f"block is {block} rows, but a block needs at least 1")
    x = features.astype(jnp.float32)
    weight = jnp.ones(n, jnp.float32) if weight is None else weight.astype(jnp.float32)
    count = jnp.sum(weight)
    mean = jnp.sum(x * weight[:, None], axis=0) / count
    # A second pass takes out the rounding of the first sum, which runs over all rows.
    mean = mean + jnp.sum((x - mean[None, :]) * weight[:, None], axis=0) / count
    centred = (x - mean[None, :]) * weight[:, None] / jnp.sqrt(jnp.maximum(count - 1, 1))
    if n <= max(block, d):
        return Factor(mean, jnp.linalg.qr(centred, mode="r"), count)
    rows = jnp.pad(centred, ((0, -n % block), (0, 0))).reshape(-1, block, d)

    def absorb(r: Array, block_rows: Array) -> tuple[Array, None]:
        return jnp.linalg.qr(jnp.concatenate([r, block_rows]), mode="r"), None

    r, _ = lax.scan(absorb, jnp.zeros((d, d), jnp.float32), rows)
    return Factor(mean, r, count)


def frechet(real: Factor, fake: Factor) -> Array:
    """[] float32: the Frechet distance; for equal sets about 1e-5 of either sign, not clamped."""
    gap = jnp.sum(jnp.square(real.mean - fake.mean))
    cross = jnp.matmul(real.r, fake.r.T, precision=HIGHEST)
    overlap = jnp.sum(jnp.linalg.svd(cross, compute_uv=False))
    return gap + _square_sum(real.r) + _square_sum(fake.r) - 2 * overlap


def _square_sum(r: Array) -> Array:
    return jnp.sum(jnp.sum(jnp.square(r), axis=1))  # row by row: shorter sums round less


def frechet_exact(real: np.ndarray, fake: np.ndarray) -> float:
    """Features [n, d] and [m, d] -> the distance in float64 on the host, as a check of the float32 path."""
    means, factors = [], []
    for rows in (real, fake):
        rows = np.asarray(rows, np.float64)
        means.append(rows.mean(axis=0))
        factors.append(np.linalg.qr((rows - means[-1][None, :]) / np.sqrt(len(rows) - 1), mode="r"))
    overlap = np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum()
    spread = sum(float(np.square(r).sum()) for r in factors)
    return float(np.square(means[0] - means[1]).sum() + spread - 2 * overlap)


class Extrapolation(NamedTuple):
    """A straight line through distances at several numbers of generated pictures."""

    at_infinity: Array  # [] float32, its height where 1/n is 0
    slope: Array  # [] float32, by 1/n
    r2: Array  # [] float32, share of the variance that the line explains


def extrapolate(
    real: Factor, fake: Array, key: Array, smallest: int = 5000, points: int = 15
) -> Extrapolation:
    """FID without its bias for few samples: the limit of infinitely many (Chong and Forsyth 2020).

    The bias falls like 1/n, so distances of random subsets of `fake` [n, d], of `points` sizes evenly spaced
    from `smallest` to n, lie on a line over 1/n (arXiv:1911.07023, section 3). Where n is not well above
    `smallest`, sizes start at n / 10, which bends the line: see `r2`. The real side is not extrapolated.
    """
    n = len(fake)
    if n < 20:
        raise ValueError(f"{n} pictures are too few to extrapolate from; at least 20 are needed")
    low = smallest if n >= 2 * smallest else max(n // 10, 2)
    sizes = jnp.asarray(np.unique(np.linspace(low, n, points).astype(np.int32)))

    def at(size_and_key: tuple[Array, Array]) -> Array:
        size, key = size_and_key
        chosen = jax.random.permutation(key, n) < size
        return frechet(real, factor(fake, chosen))

    distance = lax.map(at, (sizes, jax.random.split(key, len(sizes))))
    x = 1 / sizes.astype(jnp.float32)
    x_gap, y_gap = x - jnp.mean(x), distance - jnp.mean(distance)
    slope = jnp.sum(x_gap * y_gap) / jnp.sum(jnp.square(x_gap))
    residual = jnp.sum(jnp.square(y_gap - slope * x_gap)) / jnp.sum(jnp.square(y_gap))
    return Extrapolation(jnp.mean(distance) - slope * jnp.mean(x), slope, 1 - residual)
