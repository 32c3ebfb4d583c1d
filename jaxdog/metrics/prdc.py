"""Precision and recall, density and coverage: are pictures realistic, and is every kind of picture there?

Improved precision and recall: Kynkaanniemi et al. 2019, arXiv:1904.06991. Density and coverage: Naeem et al.
2020, arXiv:2002.09797. All four look which features lie in the balls about other features that reach to their
k-th nearest neighbour of their own kind.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdog.metrics import neighbors

Array = jax.Array

K = 3  # Kynkaanniemi's; Naeem took 5


class PRDC(NamedTuple):
    """Shares of 1, but for density; all [] float32."""

    precision: Array  # generated pictures in some real picture's ball
    recall: Array  # real pictures in some generated picture's ball
    density: Array  # real balls about a generated picture, over k: 1 on average for real pictures
    coverage: Array  # real pictures with a generated one in their ball


def prdc(
    real: Array,
    fake: Array,
    k: int = K,
    closed: bool = True,
    block: int = neighbors.BLOCK,
    real_weight: Array | None = None,
    fake_weight: Array | None = None,
    real_radius: Array | None = None,
) -> PRDC:
    """Features [n, d] of real and [m, d] of generated pictures -> the four numbers.

    `closed` balls hold their border, as in Kynkaanniemi's code; Naeem's are open. It matters only where
    distances tie, such as among copies. Rows whose weight ([n], [m]) is 0 do not count. `real_radius` [n],
    neighbours.kth of the real rows, if it is known: it takes longest. Raises ValueError
    when a side has no k + 1 rows.
    """
    if not 1 <= k < min(len(real), len(fake)):
        raise ValueError(
            f"k is {k}, but the k-th neighbour of {len(real)} real and {len(fake)} generated pictures exists "
            f"for k from 1 to {min(len(real), len(fake)) - 1}"
        )
    here = [jnp.ones(len(x)) if w is None else w for x, w in ((real, real_weight), (fake, fake_weight))]
    if real_radius is None:
        real_radius = neighbors.kth(real, k, block=block, weight=here[0])
    fake_radius = neighbors.kth(fake, k, block=block, weight=here[1])
    within = partial(neighbors.within, closed=closed, block=block)
    about_real = within(fake, real, real_radius, query_weight=here[1], reference_weight=here[0])
    about_fake = within(real, fake, fake_radius, query_weight=here[0], reference_weight=here[1])
    return PRDC(
        precision=_mean(about_real.balls > 0, here[1]),
        recall=_mean(about_fake.balls > 0, here[0]),
        density=_mean(about_real.balls / k, here[1]),
        coverage=_mean(about_real.rows > 0, here[0]),
    )


def _mean(x: Array, weight: Array) -> Array:
    counts = (weight != 0).astype(jnp.float32)
    return jnp.sum(x.astype(jnp.float32) * counts) / jnp.sum(counts)
