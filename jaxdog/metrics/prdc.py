"""Precision and recall, density and coverage: fidelity and diversity of generated images.

Improved precision and recall: Kynkaanniemi et al. 2019, arXiv:1904.06991, equations 1 and 2. Density and
coverage: Naeem et al. 2020, arXiv:2002.09797. All four count features of one side inside balls around
features of the other. The radius of a ball is the distance to the k-th nearest neighbor on its own side.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdog.metrics import comparison, neighbors
from jaxdog.utils import errors

Array = jax.Array

K = 3  # Kynkaanniemi et al.; Naeem et al. use 5


class PRDC(NamedTuple):
    """Fractions in [0, 1] except for density; all [] float32."""

    precision: Array  # generated images inside the ball of any real image
    recall: Array  # real images inside the ball of any generated image
    density: Array  # mean number of real balls around a generated image / k; about 1 for real images
    coverage: Array  # real images with a generated image inside their ball


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
    """The four metrics of features [n, d] of real and [m, d] of generated images.

    Args:
      real: [n, d].
      fake: [m, d].
      k: the radius of a ball is the distance to the k-th nearest neighbor.
      closed: balls include their surface, as in the code of Kynkaanniemi et al.; those of Naeem et al. do
        not. It matters only where distances tie, such as among copies.
      block: rows at a time, see `neighbors`.
      real_weight, fake_weight: [n] and [m]; rows of weight 0 are ignored.
      real_radius: [n], `neighbors.kth` of the real rows if known, which is the slowest part.

    Raises UserError if a side has fewer than k + 1 rows.
    """
    if not 1 <= k < min(len(real), len(fake)):
        raise errors.UserError(
            f"k is {k}, and must be from 1 to {min(len(real), len(fake)) - 1} for {len(real)} real and "
            f"{len(fake)} generated images"
        )
    weights = [jnp.ones(len(x)) if w is None else w for x, w in ((real, real_weight), (fake, fake_weight))]
    if real_radius is None:
        real_radius = neighbors.kth(real, k, block=block, weight=weights[0])
    fake_radius = neighbors.kth(fake, k, block=block, weight=weights[1])
    within = partial(neighbors.within, closed=closed, block=block)
    in_real = within(fake, real, real_radius, query_weight=weights[1], reference_weight=weights[0])
    in_fake = within(real, fake, fake_radius, query_weight=weights[0], reference_weight=weights[1])
    return PRDC(
        precision=_mean(in_real.balls > 0, weights[1]),
        recall=_mean(in_fake.balls > 0, weights[0]),
        density=_mean(in_real.balls / k, weights[1]),
        coverage=_mean(in_real.rows > 0, weights[0]),
    )


def _mean(x: Array, weight: Array) -> Array:
    included = (weight != 0).astype(jnp.float32)
    return jnp.sum(x.astype(jnp.float32) * included) / jnp.sum(included)


def real_radius(compared: comparison.Comparison, k: int) -> Array:
    """[n]: `neighbors.kth` of the rows of `compared.real_rows`, cached; 0 for padding."""
    rows, n = compared.real_rows, compared.real.count

    def compute() -> dict[str, Array]:
        return {"radius": compared.devices.jitted(neighbors.kth, 1)(rows.x, k, weight=rows.weight)[:n]}

    def place(arrays: comparison.Arrays) -> Array:
        return compared.devices.replicate(np.pad(arrays["radius"], (0, len(rows.weight) - n)))

    return compared.derived(f"radius_{k}", compute, place)


def scores(compared: comparison.Comparison) -> comparison.Scores:
    """Row "prdc" of the table of metrics."""
    k = min(K, compared.real.count - 1, compared.fake.count - 1)
    if k < K:
        compared.warn(f"precision, recall, density and coverage use {k} neighbors instead of {K}")
    real, fake = compared.real_rows, compared.fake_rows
    result = compared.devices.jitted(prdc, 2)(
        real.x,
        fake.x,
        k,
        real_weight=real.weight,
        fake_weight=fake.weight,
        real_radius=real_radius(compared, k),
    )
    return {compared.metric_name(name): float(x) for name, x in result._asdict().items()}
