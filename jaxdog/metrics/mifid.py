"""MiFID: FID, made worse for generators whose pictures lie too near to training pictures.

The official metric of Kaggle's Generative Dog Images (Bai et al. 2021, arXiv:2106.03062). The direction is
generated to real: each generated picture is compared with its nearest training picture.
"""

import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array

EPSILON = 0.1  # the public leaderboard's threshold on the distance; the private one took 0.25 with NASNet
TINY = 1e-15  # what the published scores were made with; it keeps a distance of 0 from dividing by 0


def memorization_distance(
    fake: Array,
    real: Array,
    block: int = 500,
    fake_weight: Array | None = None,
    real_weight: Array | None = None,
) -> Array:
    """Features [n, d] of generated and [m, d] of real pictures -> [] float32, mean over generated of the
    minimum over real of 1 - |cosine|.

    Rows that sum to exactly 0 are dropped on both sides, as the official code does, and so are rows whose
    weight ([n], [m]) is 0. Real rows pass by in blocks under a running maximum of |cosine|, so memory is n x
    block, and generated rows may stay sharded. With no row left on a side the result is not finite.
    """
    if block < 1:
        raise ValueError(f"block is {block} rows, but a block needs at least 1")
    fake, fake_counts = _unit_rows(fake, fake_weight)
    real, real_counts = _unit_rows(real, real_weight)
    m, d = real.shape
    real = jnp.pad(real, ((0, -m % block), (0, 0))).reshape(-1, block, d)
    real_counts = jnp.pad(real_counts, (0, -m % block)).reshape(-1, block)

    def nearer(best: Array, part: tuple[Array, Array]) -> tuple[Array, None]:
        rows, counts = part
        cosine = jnp.abs(jnp.matmul(fake, rows.T, precision=lax.Precision.HIGHEST))
        return jnp.maximum(best, jnp.max(jnp.where(counts[None, :], cosine, -jnp.inf), axis=1)), None

    best, _ = lax.scan(nearer, jnp.full(len(fake), -jnp.inf, jnp.float32), (real, real_counts))
    return jnp.sum(jnp.where(fake_counts, 1 - best, 0)) / jnp.sum(fake_counts)


def _unit_rows(rows: Array, weight: Array | None) -> tuple[Array, Array]:
    """[n, d] -> rows of length 1 (zero rows stay zero), and [n] bool: which of them count."""
    rows = rows.astype(jnp.float32)
    counts = jnp.sum(rows, axis=1) != 0
    if weight is not None:
        counts = counts & (weight != 0)
    length = jnp.linalg.norm(rows, axis=1, keepdims=True)
    return rows / jnp.where(length > 0, length, 1), counts


def mifid(
    fid: Array | float, distance: Array | float, eps: float = EPSILON, tiny: float = TINY
) -> Array | float:
    """FID / (d + tiny) where the distance d falls below `eps`, else FID (d is taken as 1).

    Plain floats give a plain float in float64, arrays an array, so it works on the host and inside jit.
    """
    if isinstance(fid, jax.Array) or isinstance(distance, jax.Array):
        return fid / (jnp.where(jnp.less(distance, eps), distance, 1.0) + tiny)
    return fid / ((distance if distance < eps else 1.0) + tiny)
