"""MiFID: FID, made worse for generators whose pictures lie too near to training pictures.

The official metric of Kaggle's Generative Dog Images (Bai et al. 2021, arXiv:2106.03062). The direction is
generated to real: each generated picture is compared with its nearest training picture.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdog.metrics import neighbors

Array = jax.Array

EPSILON = 0.1  # the public leaderboard's threshold on the distance; the private one took 0.25 with NASNet
TINY = 1e-15  # what the published scores were made with; it keeps a distance of 0 from dividing by 0


class Memorization(NamedTuple):
    """How near each generated picture lies to its nearest training picture."""

    distance: Array  # [n] float32, 1 - |cosine|
    index: Array  # [n] int32, which training picture that is
    counts: Array  # [n] bool: the pictures that the metric's mean runs over


def memorization(
    fake: Array,
    real: Array,
    block: int = neighbors.BLOCK,
    fake_weight: Array | None = None,
    real_weight: Array | None = None,
) -> Memorization:
    """Features [n, d] of generated and [m, d] of real pictures -> the distance of each generated one.

    Rows that sum to exactly 0 are dropped on both sides, as the official code does, and so are rows whose
    weight ([n], [m]) is 0. Generated rows may stay sharded.
    """
    best = neighbors.nearest(fake, real, "cosine", block, reference_weight=_counts(real, real_weight))
    return Memorization(best.distance, best.index, _counts(fake, fake_weight))


def memorization_distance(
    fake: Array,
    real: Array,
    block: int = neighbors.BLOCK,
    fake_weight: Array | None = None,
    real_weight: Array | None = None,
) -> Array:
    """The official distance, [] float32: the mean of `memorization` over the generated rows that count.

    With no row left on a side the result is not finite.
    """
    found = memorization(fake, real, block, fake_weight, real_weight)
    return jnp.sum(jnp.where(found.counts, found.distance, 0)) / jnp.sum(found.counts)


def _counts(rows: Array, weight: Array | None) -> Array:
    """[n, d] -> [n] bool: the rows that the metric does not drop."""
    counts = jnp.sum(rows.astype(jnp.float32), axis=1) != 0
    return counts if weight is None else counts & (weight != 0)


def mifid(
    fid: Array | float, distance: Array | float, eps: float = EPSILON, tiny: float = TINY
) -> Array | float:
    """FID / (d + tiny) where the distance d falls below `eps`, else FID (d is taken as 1).

    Plain floats give a plain float in float64, arrays an array, so it works on the host and inside jit.
    """
    if isinstance(fid, jax.Array) or isinstance(distance, jax.Array):
        return fid / (jnp.where(jnp.less(distance, eps), distance, 1.0) + tiny)
    return fid / ((distance if distance < eps else 1.0) + tiny)
