"""Blockwise nearest neighbors, for the memorization distance, precision, recall, density and coverage.

A scan over blocks of reference rows keeps memory at n x block for any m; query rows [n, d] may be sharded.
All computations are in float32 with matrix products at the highest precision, and can be jitted.

Distances: "cosine" is 1 - |cosine|, as in MiFID. "euclidean" is the square root of |x|^2 + |y|^2 - 2 x.y,
after subtracting the reference's mean from both sides, which changes no distance but reduces rounding errors.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdog.utils import errors

Array = jax.Array

METRICS = ("cosine", "euclidean")
BLOCK = 500  # reference rows per step of the scan


class Nearest(NamedTuple):
    """The nearest reference row of each query row."""

    distance: Array  # [n] float32; infinite if there is no reference row
    index: Array  # [n] int32, row of the reference; the first in case of ties


class Within(NamedTuple):
    """Counts of query rows inside balls around reference rows."""

    balls: Array  # [n] int32: number of balls around each query row
    rows: Array  # [m] int32: number of query rows inside each ball


class _Block(NamedTuple):
    """A block of reference rows, the input of one step of the scan."""

    rows: Array  # [block, d] float32
    included: Array  # [block] bool, False for rows of weight 0 and padding
    index: Array  # [block] int32


def nearest(
    query: Array,
    reference: Array,
    metric: str = "cosine",
    block: int = BLOCK,
    reference_weight: Array | None = None,
    exclude_self: bool = False,
) -> Nearest:
    """The nearest reference row of each query row.

    Args:
      query: [n, d]. A zero row has cosine 0 to every row.
      reference: [m, d]. Zero rows are ignored by "cosine".
      metric: "cosine" | "euclidean".
      block: reference rows per step.
      reference_weight: [m]; rows of weight 0 are ignored.
      exclude_self: query and reference have the same rows, and row i is not a neighbor of itself
        (leave-one-out).
    """
    if exclude_self and len(query) != len(reference):
        raise errors.UserError(
            f"query has {len(query)} rows and reference has {len(reference)}, but exclude_self needs the "
            "same rows on both sides"
        )

    def nearer(best: Nearest, distance: Array, part: _Block) -> tuple[Nearest, None]:
        at = jnp.argmin(distance, axis=1)
        least = jnp.min(distance, axis=1)
        closer = least < best.distance
        return Nearest(
            jnp.where(closer, least, best.distance), jnp.where(closer, part.index[at], best.index)
        ), None

    start = Nearest(jnp.full(len(query), jnp.inf, jnp.float32), jnp.zeros(len(query), jnp.int32))
    best, _ = _scan(nearer, start, query, reference, metric, block, reference_weight, exclude_self)
    return best


def kth(
    rows: Array, k: int, metric: str = "euclidean", block: int = BLOCK, weight: Array | None = None
) -> Array:
    """[n] float32: the distance of each row [n, d] to its k-th nearest other row.

    This is the radius of the balls in Kynkaanniemi et al. 2019 (arXiv:1904.06991, equation 1) and Naeem et
    al. 2020 (arXiv:2002.09797). Only the row itself is excluded: a duplicate is a neighbor at distance 0.
    Rows whose `weight` [n] is 0 are ignored as neighbors.
    """
    n = len(rows)
    if not 1 <= k < n:
        raise errors.UserError(f"k is {k}, and must be from 1 to {n - 1} for {n} rows")

    def closest(best: Array, distance: Array, part: _Block) -> tuple[Array, None]:
        negative, _ = lax.top_k(-jnp.concatenate([best, distance], axis=1), k)
        return -negative, None

    start = jnp.full((n, k), jnp.inf, jnp.float32)
    best, _ = _scan(closest, start, rows, rows, metric, block, weight, exclude_self=True)
    return best[:, k - 1]


def within(
    query: Array,
    reference: Array,
    radius: Array,
    closed: bool = True,
    metric: str = "euclidean",
    block: int = BLOCK,
    query_weight: Array | None = None,
    reference_weight: Array | None = None,
) -> Within:
    """Counts query rows [n, d] inside balls of `radius` [m] around reference rows [m, d], in one pass.

    With real rows as reference, `balls > 0` gives precision, `balls / k` density and `rows > 0` coverage;
    with the sides swapped, `balls > 0` gives recall. `closed` balls include their surface (Kynkaanniemi et
    al. 2019), open ones do not (Naeem et al. 2020).
    """
    if len(radius) != len(reference):
        raise errors.UserError(f"{len(radius)} radii for {len(reference)} reference rows")
    query_included = jnp.ones(len(query), bool) if query_weight is None else query_weight != 0

    def count(balls: Array, distance: Array, part: _Block) -> tuple[Array, Array]:
        r = radius[jnp.minimum(part.index, len(radius) - 1)][None, :]
        inside = (
            (distance <= r if closed else distance < r) & part.included[None, :] & query_included[:, None]
        )
        return balls + jnp.sum(inside, axis=1, dtype=jnp.int32), jnp.sum(inside, axis=0, dtype=jnp.int32)

    start = jnp.zeros(len(query), jnp.int32)
    balls, rows = _scan(count, start, query, reference, metric, block, reference_weight)
    return Within(balls, rows.reshape(-1)[: len(reference)])


def _scan(
    step: Callable[[Any, Array, _Block], tuple[Any, Any]],
    start: Any,
    query: Array,
    reference: Array,
    metric: str,
    block: int,
    weight: Array | None,
    exclude_self: bool = False,
) -> tuple[Any, Any]:
    """Scans `step` over blocks of distances [n, block], infinite for reference rows that are ignored."""
    if metric not in METRICS:
        raise errors.UserError(f"metric is {metric!r}; choices: {', '.join(map(repr, METRICS))}")
    if block < 1:
        raise errors.UserError(f"block is {block}, and must be at least 1")
    included = jnp.ones(len(reference), bool) if weight is None else weight != 0
    query, reference, included = _prepare(query, reference, included, metric)
    m, d = reference.shape
    parts = _Block(
        jnp.pad(reference, ((0, -m % block), (0, 0))).reshape(-1, block, d),
        jnp.pad(included, (0, -m % block)).reshape(-1, block),
        jnp.arange(m + -m % block, dtype=jnp.int32).reshape(-1, block),
    )
    own = jnp.arange(len(query), dtype=jnp.int32)
    length = jnp.sum(jnp.square(query), axis=1)

    def fold(carry: Any, part: _Block) -> tuple[Any, Any]:
        product = jnp.matmul(query, part.rows.T, precision=lax.Precision.HIGHEST)
        if metric == "cosine":
            distance = 1 - jnp.abs(product)
        else:
            other = jnp.sum(jnp.square(part.rows), axis=1)
            distance = jnp.sqrt(jnp.maximum(length[:, None] + other[None, :] - 2 * product, 0))
        valid = part.included[None, :]
        if exclude_self:
            valid = valid & (own[:, None] != part.index[None, :])
        return step(carry, jnp.where(valid, distance, jnp.inf), part)

    return lax.scan(fold, start, parts)


def _prepare(query: Array, reference: Array, included: Array, metric: str) -> tuple[Array, Array, Array]:
    """Both sides in float32, normalized or centered on the reference's mean; and included reference rows."""
    query, reference = query.astype(jnp.float32), reference.astype(jnp.float32)
    if metric == "cosine":
        reference, nonzero = _normalize(reference)
        return _normalize(query)[0], reference, included & nonzero
    kept = jnp.where(included[:, None], reference, 0)
    mean = jnp.sum(kept, axis=0) / jnp.maximum(jnp.sum(included), 1)
    return query - mean[None, :], reference - mean[None, :], included


def _normalize(rows: Array) -> tuple[Array, Array]:
    """[n, d] -> rows of norm 1, where zero rows stay zero, and [n] bool: which rows are nonzero."""
    length = jnp.linalg.norm(rows, axis=1, keepdims=True)
    return rows / jnp.where(length > 0, length, 1), length[:, 0] > 0
