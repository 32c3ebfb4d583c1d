"""FID, MiFID and memorization distance of each class."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdog.metrics import comparison, fid, mifid

Array = jax.Array


class Groups(NamedTuple):
    """The rows of each class, padded to the size of the largest class with row 0 at weight 0."""

    rows: np.ndarray  # [classes, m] int32
    weight: np.ndarray  # [classes, m] float32


class PerClass(NamedTuple):
    """float32 [classes] each; NaN if a side has fewer than 2 images of the class."""

    fid: Array
    memorization_distance: Array  # to the nearest real image of the same class


def groups(label: np.ndarray, classes: int) -> Groups:
    """The rows of each class, from labels [n] in [0, classes)."""
    members = [np.flatnonzero(label == c) for c in range(classes)]
    largest = max(1, max(map(len, members)))
    rows, weight = np.zeros((classes, largest), np.int32), np.zeros((classes, largest), np.float32)
    for c, member in enumerate(members):
        rows[c, : len(member)], weight[c, : len(member)] = member, 1
    return Groups(rows, weight)


def per_class(real: Array, fake: Array, real_groups: Groups, fake_groups: Groups) -> PerClass:
    """Scores of each class from features [n, d] of real and [m, d] of generated images and their `groups`.

    FID of few images is biased upwards. Compare these values between classes, or between models at equal
    numbers of images, but not with the FID of all images.
    """

    def one(group: tuple[Array, Array, Array, Array]) -> tuple[Array, Array]:
        real_rows, real_weight, fake_rows, fake_weight = group
        r, f = real[real_rows], fake[fake_rows]
        distance = fid.frechet(fid.factor(r, real_weight), fid.factor(f, fake_weight))
        memorization = mifid.memorization_distance(f, r, len(r), fake_weight, real_weight)
        enough = (jnp.sum(real_weight) > 1) & (jnp.sum(fake_weight) > 1)
        return jnp.where(enough, distance, jnp.nan), jnp.where(enough, memorization, jnp.nan)

    return PerClass(*lax.map(one, jax.tree.map(jnp.asarray, (*real_groups, *fake_groups))))


def scores(compared: comparison.Comparison) -> dict[str, comparison.Scores]:
    """Row "per_class" of the table of metrics: class name -> its scores."""
    layer, classes = compared.network.layer, len(compared.real.class_names)
    assert compared.real.label is not None and compared.fake.label is not None
    real, fake = (compared.solver.replicate(side.layers[layer]) for side in (compared.real, compared.fake))
    result = compared.solver.jitted(per_class)(
        real, fake, groups(compared.real.label, classes), groups(compared.fake.label, classes)
    )
    fid_name = compared.metric_name(compared.network.frechet[layer], layer)
    table: dict[str, comparison.Scores] = {}
    clamped = (np.maximum(np.asarray(x, np.float64), 0.0) for x in result)  # rounding may make them negative
    for name, distance, memorization in zip(compared.real.class_names, *clamped, strict=True):
        row = {fid_name: float(distance), "memorization_distance": float(memorization)}
        if compared.eps is not None:
            score = mifid.mifid(max(float(distance), mifid.MIN_FID), float(memorization), compared.eps)
            row[compared.metric_name("mifid")] = float(score) if np.isfinite(memorization) else np.nan
        table[name] = {key: float(x) if np.isfinite(x) else None for key, x in row.items()}
    return table
