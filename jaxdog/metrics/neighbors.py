"""Nearest rows among many, block by block: for memorization, precision and recall, density and coverage.

Reference rows pass by in blocks, so memory is n x block whatever m is, and query rows [n, d] may stay
spread over devices. Everything is float32 with full products and works inside jit.

Distances: "cosine" is 1 - |cosine|, as in the competition's metric; "euclidean" is the root of
|x|^2 + |y|^2 - 2 x.y with both sides moved by the reference's mean, which leaves distances as they are and
rounding smaller.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array

METRICS = ("cosine", "euclidean")
BLOCK = 500  # reference rows at a time


class Nearest(NamedTuple):
    """The nearest reference row of each query row."""

    distance: Array  # [n] float32; infinite where no reference row counts
    index: Array  # [n] int32, row of the reference; the first one of several at the same distance


class Within(NamedTuple):
    """Who lies in whose ball."""

    balls: Array  # [n] int32: the balls that each query row lies in
    rows: Array  # [m] int32: the query rows that lie in each ball


class _Block(NamedTuple):
    """Some reference rows, as a step of the scan gets them."""

    rows: Array  # [block, d], prepared
    counts: Array  # [block] bool
    index: Array  # [block] int32


def nearest(
    query: Array,
    reference: Array,
    metric: str = "cosine",
    block: int = BLOCK,
    reference_weight: Array | None = None,
    exclude_self: bool = False,
) -> Nearest:
    """Query rows [n, d] -> distance to, and index of, the nearest of the reference rows [m, d].

    Args:
      query: [n, d]. A row of length 0 has cosine 0 to every row.
      reference: [m, d]. Rows of length 0 do not count for "cosine".
      metric: "cosine" | "euclidean".
      block: reference rows at a time.
      reference_weight: [m], rows with 0 do not count.
      exclude_self: query row i is reference row i and is no neighbour of itself (leave-one-out).
    """
    if exclude_self and len(query) != len(reference):
        raise ValueError(
            f"query has {len(query)} rows and reference {len(reference)}, but leaving out each row itself "
            "needs the same rows on both sides"
        )

    def nearer(best: Nearest, distance: Array, part: _Block) -> tuple[Nearest, None]:
        at = jnp.argmin(distance, axis=1)
        found = jnp.min(distance, axis=1)
        closer = found < best.distance
        return Nearest(
            jnp.where(closer, found, best.distance), jnp.where(closer, part.index[at], best.index)
        ), None

    start = Nearest(jnp.full(len(query), jnp.inf, jnp.float32), jnp.zeros(len(query), jnp.int32))
    best, _ = _scan(nearer, start, query, reference, metric, block, reference_weight, exclude_self)
    return best


def kth(
    rows: Array, k: int, metric: str = "euclidean", block: int = BLOCK, weight: Array | None = None
) -> Array:
    """Rows [n, d] -> [n] float32, distance to the k-th nearest other row: the radius of each row's ball.

    A row itself is left out exactly once, so the twin of a duplicated row is a neighbour at 0. Rows whose
    `weight` [n] is 0 are nobody's neighbours. The radius of Kynkaanniemi et al. 2019 (arXiv:1904.06991,
    equation 1) and of Naeem et al. 2020 (arXiv:2002.09797).
    """
    n = len(rows)
    if not 1 <= k < n:
        raise ValueError(f"k is {k}, but {n} rows have 1 to {n - 1} neighbours each")

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
    """Query rows [n, d] against balls about the reference rows [m, d]: counts from both sides, in one pass.

    With real rows and their radii as reference, `balls > 0` gives precision, `balls / k` density, and
    `rows > 0` coverage; with the sides swapped `balls > 0` is recall. `closed` balls hold their border
    (Kynkaanniemi et al. 2019), open ones do not (Naeem et al. 2020).
    """
    if len(radius) != len(reference):
        raise ValueError(f"{len(radius)} radii for {len(reference)} reference rows")
    here = jnp.ones(len(query), bool) if query_weight is None else query_weight != 0

    def count(balls: Array, distance: Array, part: _Block) -> tuple[Array, Array]:
        r = radius[jnp.minimum(part.index, len(radius) - 1)][None, :]
        inside = (distance <= r if closed else distance < r) & part.counts[None, :] & here[:, None]
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
    """Folds `step` over distances [n, block], which are infinite for reference rows that do not count."""
    if metric not in METRICS:
        raise ValueError(f"metric is {metric!r}; it can be {', '.join(map(repr, METRICS))}")
    if block < 1:
        raise ValueError(f"block is {block} rows, but a block needs at least 1")
    counts = jnp.ones(len(reference), bool) if weight is None else weight != 0
    query, reference, counts = _prepare(query, reference, counts, metric)
    m, d = reference.shape
    parts = _Block(
        jnp.pad(reference, ((0, -m % block), (0, 0))).reshape(-1, block, d),
        jnp.pad(counts, (0, -m % block)).reshape(-1, block),
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
        valid = part.counts[None, :]
        if exclude_self:
            valid = valid & (own[:, None] != part.index[None, :])
        return step(carry, jnp.where(valid, distance, jnp.inf), part)

    return lax.scan(fold, start, parts)


def _prepare(query: Array, reference: Array, counts: Array, metric: str) -> tuple[Array, Array, Array]:
    """Both sides in float32, of length 1 or moved by the reference's mean, and which reference rows count."""
    query, reference = query.astype(jnp.float32), reference.astype(jnp.float32)
    if metric == "cosine":
        reference, whole = _unit(reference)
        return _unit(query)[0], reference, counts & whole
    some = jnp.where(counts[:, None], reference, 0)
    mean = jnp.sum(some, axis=0) / jnp.maximum(jnp.sum(counts), 1)
    return query - mean[None, :], reference - mean[None, :], counts


def _unit(rows: Array) -> tuple[Array, Array]:
    """[n, d] -> rows of length 1 (zero rows stay zero), and [n] bool: those that are not zero."""
    length = jnp.linalg.norm(rows, axis=1, keepdims=True)
    return rows / jnp.where(length > 0, length, 1), length[:, 0] > 0
