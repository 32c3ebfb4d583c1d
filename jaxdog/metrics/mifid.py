"""MiFID: FID divided by the memorization distance, where that distance is below a threshold.

The official metric of Kaggle's Generative Dog Images (Bai et al. 2021, arXiv:2106.03062), in three steps:

  1. `memorization`           of each generated image: 1 - |cosine| to its nearest training image
  2. `memorization_distance`  their mean, s
  3. `mifid`                  FID / (s + tiny) if s < eps, else FID / (1 + tiny) as in the official code

The direction is generated to real: for each generated image the minimum is over the training images.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdog.metrics import comparison, features, fid, neighbors

Array = jax.Array

THRESHOLD = 0.1  # on the distance, of the public leaderboard; the private one used 0.25, with NASNet
TINY = 1e-15  # avoids division by 0; the published scores were computed with this value
MIN_FID = 1e-5  # rounding error of FID in float32; a smaller FID, or a negative one, would reward copies


class Memorization(NamedTuple):
    """The nearest training image of each generated image."""

    distance: Array  # [n] float32, 1 - |cosine|
    index: Array  # [n] int32, row of the training images
    included: Array  # [n] bool: whether the image is included in the mean


def memorization(
    fake: Array,
    real: Array,
    block: int = neighbors.BLOCK,
    fake_weight: Array | None = None,
    real_weight: Array | None = None,
) -> Memorization:
    """Nearest training images from features [n, d] of generated and [m, d] of training images.

    Rows that sum to exactly 0 are ignored on both sides, as in the official code, and so are rows of weight 0
    (weights are [n] and [m]). Generated rows may be sharded.
    """
    best = neighbors.nearest(fake, real, "cosine", block, reference_weight=_included(real, real_weight))
    return Memorization(best.distance, best.index, _included(fake, fake_weight))


def memorization_distance(
    fake: Array,
    real: Array,
    block: int = neighbors.BLOCK,
    fake_weight: Array | None = None,
    real_weight: Array | None = None,
) -> Array:
    """The official distance, [] float32 in [0, 1]: the mean of `memorization` over the included rows.

    Not finite if a side has no included row. `mifid` applies the threshold.
    """
    return mean_distance(memorization(fake, real, block, fake_weight, real_weight))


def mean_distance(nearest: Memorization) -> Array:
    """The mean distance of the included rows, []."""
    return jnp.sum(jnp.where(nearest.included, nearest.distance, 0)) / jnp.sum(nearest.included)


def _included(rows: Array, weight: Array | None) -> Array:
    """[n, d] -> [n] bool: the rows that are not ignored."""
    included = jnp.sum(rows.astype(jnp.float32), axis=1) != 0
    return included if weight is None else included & (weight != 0)


def mifid(
    fid: Array | float, distance: Array | float, eps: float = THRESHOLD, tiny: float = TINY
) -> Array | float:
    """FID / (distance + tiny) if distance < eps, else FID / (1 + tiny) as in the official code.

    `eps` is the threshold. Floats give a float (float64), arrays an array. Can be jitted.
    """
    if isinstance(fid, jax.Array) or isinstance(distance, jax.Array):
        return fid / (jnp.where(jnp.less(distance, eps), distance, 1.0) + tiny)
    return fid / ((distance if distance < eps else 1.0) + tiny)


def scores(compared: comparison.Comparison) -> comparison.Scores:
    """Row "mifid" of the table of metrics: FID of each layer, MiFID and the memorization distance."""
    layers = comparison.shared_frechet_layers(compared.real, compared.fake)
    fids = {layer: fid.score(compared, layer) for layer in layers}
    named: comparison.Scores = {
        compared.metric_name(compared.network.frechet[layer], layer): max(distance, 0.0)
        for layer, distance in fids.items()
    }
    fake, real = compared.fake_rows, compared.real_rows
    distance = float(
        compared.devices.jitted(memorization_distance)(
            fake.x, real.x, fake_weight=fake.weight, real_weight=real.weight
        )
    )
    undefined = not np.isfinite(distance)
    if undefined:
        compared.warn("all features of a side are zero, so memorization distance and MiFID are undefined")
    distance = None if undefined else max(distance, 0.0)
    if compared.eps is not None:
        named[compared.metric_name("mifid")] = _penalized(
            compared, fids[compared.network.layer], distance, compared.eps
        )
    return named | {"memorization_distance": distance}


def _penalized(
    compared: comparison.Comparison, fid: float, distance: float | None, eps: float
) -> float | None:
    """MiFID with warnings about the distance; None if that is undefined."""
    if distance is None:
        return None
    if not features.judges_distances(compared.real.spec.kind):
        compared.warn(
            "the feature network has random weights: its memorization distance says nothing about copies, so "
            "no threshold is applied, and MiFID is FID"
        )
    elif distance < eps:
        compared.warn(
            f"the memorization distance {distance:.4g} is below {eps}: the images are too similar "
            "to real ones, and MiFID is FID divided by this distance"
        )
    return float(mifid(max(fid, MIN_FID), distance, eps))
