"""FID and memorization distance of each class alone: which breeds are good, which are missing."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdog.metrics import fid, mifid

Array = jax.Array


class Groups(NamedTuple):
    """The rows of each class, padded to the largest class by repeating row 0 with weight 0."""

    rows: np.ndarray  # [classes, most] int32
    weight: np.ndarray  # [classes, most] float32


class PerClass(NamedTuple):
    """Of each class, float32 [classes]; not finite where a side has fewer than 2 pictures of it."""

    fid: Array
    memorization_distance: Array  # to the nearest real picture of the same class


def groups(label: np.ndarray, classes: int) -> Groups:
    """Labels [n] in [0, classes) -> which rows each class has."""
    members = [np.flatnonzero(label == c) for c in range(classes)]
    most = max(1, max(map(len, members)))
    rows, weight = np.zeros((classes, most), np.int32), np.zeros((classes, most), np.float32)
    for c, member in enumerate(members):
        rows[c, : len(member)], weight[c, : len(member)] = member, 1
    return Groups(rows, weight)


def per_class(real: Array, fake: Array, real_groups: Groups, fake_groups: Groups) -> PerClass:
    """Features [n, d] of real and [m, d] of generated pictures, and each side's `groups`.

    A class has few pictures, so its FID is biased upwards: compare classes, and models with as many pictures,
    not these numbers with the FID of all.
    """

    def one(group: tuple[Array, Array, Array, Array]) -> tuple[Array, Array]:
        real_rows, real_weight, fake_rows, fake_weight = group
        r, f = real[real_rows], fake[fake_rows]
        distance = fid.frechet(fid.factor(r, real_weight), fid.factor(f, fake_weight))
        near = mifid.memorization_distance(f, r, len(r), fake_weight, real_weight)
        enough = (jnp.sum(real_weight) > 1) & (jnp.sum(fake_weight) > 1)
        return jnp.where(enough, distance, jnp.nan), jnp.where(enough, near, jnp.nan)

    return PerClass(*lax.map(one, jax.tree.map(jnp.asarray, (*real_groups, *fake_groups))))
