"""Precision and recall, density and coverage: are pictures realistic, and is every kind of picture there?

Improved precision and recall: Kynkaanniemi et al. 2019, arXiv:1904.06991. Density and coverage: Naeem et al.
2020, arXiv:2002.09797. All four look which features lie in the balls about other features that reach to their
k-th nearest neighbour of their own kind.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdog.metrics import neighbours

Array = jax.Array

K = 3  # Kynkaanniemi's; Naeem took 5


class PRDC(NamedTuple):
    """Shares of 1, but for density; all [] float32."""

    precision: Array  # generated pictures in some real picture's ball
    recall: Array  # real pictures in some generated picture's ball
    density: Array  # real balls about a generated picture, over k: 1 on average for real pictures
    coverage: Array  # real pictures with a generated one in their ball


def prdc(real: Array, fake: Array, k: int = K, closed: bool = True, block: int = neighbours.BLOCK) -> PRDC:
    """Features [n, d] of real and [m, d] of generated pictures -> the four numbers.

    `closed` balls hold their border, as in Kynkaanniemi's code; Naeem's are open. It matters only where
    distances tie, such as among copies. Raises ValueError when a side has no k + 1 pictures.
    """
    if not 1 <= k < min(len(real), len(fake)):
        raise ValueError(
            f"k is {k}, but the k-th neighbour of {len(real)} real and {len(fake)} generated pictures exists "
            f"for k from 1 to {min(len(real), len(fake)) - 1}"
        )
    about_real = neighbours.within(fake, real, neighbours.kth(real, k, block=block), closed, block=block)
    about_fake = neighbours.within(real, fake, neighbours.kth(fake, k, block=block), closed, block=block)
    return PRDC(
        precision=jnp.mean(about_real.balls > 0, dtype=jnp.float32),
        recall=jnp.mean(about_fake.balls > 0, dtype=jnp.float32),
        density=jnp.mean(about_real.balls / k, dtype=jnp.float32),
        coverage=jnp.mean(about_real.rows > 0, dtype=jnp.float32),
    )
