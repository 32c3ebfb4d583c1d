"""Nearest rows, k-NN radii and balls against all pairs in float64, for any block size."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdog.metrics import neighbors

BLOCKS = [1, 7, 40, 64]


def rows(seed: int, n: int, d: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).normal(2.0, 1, (n, d)).astype(np.float32)


def pairs(a: np.ndarray, b: np.ndarray, metric: str) -> np.ndarray:
    """[n, m] distances in float64."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    if metric == "euclidean":
        return np.sqrt(np.square(a[:, None, :] - b[None, :, :]).sum(2))
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    return 1 - np.abs(a @ b.T)


@functools.partial(jax.jit, static_argnames=("metric", "block", "exclude_self"))
def nearest(query, reference, metric, block=neighbors.BLOCK, reference_weight=None, exclude_self=False):
    return neighbors.nearest(query, reference, metric, block, reference_weight, exclude_self)


@pytest.mark.parametrize("metric", neighbors.METRICS)
@pytest.mark.parametrize("block", BLOCKS)
def test_nearest_equals_all_pairs(metric, block):
    query, reference = rows(0, 9), rows(1, 40)
    got, all_pairs = nearest(query, reference, metric, block), pairs(query, reference, metric)
    np.testing.assert_allclose(got.distance, all_pairs.min(1), atol=2e-6)
    np.testing.assert_array_equal(got.index, all_pairs.argmin(1))
    assert got.distance.dtype == jnp.float32 and got.index.dtype == jnp.int32


@pytest.mark.parametrize("metric", neighbors.METRICS)
def test_leave_one_out_drops_the_row_itself_and_keeps_duplicates(metric):
    query = rows(2, 30)
    query[17] = query[4]
    got, all_pairs = nearest(query, query, metric, 7, exclude_self=True), pairs(query, query, metric)
    np.fill_diagonal(all_pairs, np.inf)
    np.testing.assert_allclose(got.distance, all_pairs.min(1), atol=2e-3)  # the root of float32's rounding
    others = [i for i in range(30) if i not in (4, 17)]
    np.testing.assert_array_equal(got.index[np.array(others)], all_pairs.argmin(1)[others])
    assert got.index[4] == 17 and got.index[17] == 4


@pytest.mark.parametrize("metric", neighbors.METRICS)
def test_rows_of_weight_zero_are_ignored_as_neighbors(metric):
    query, reference = rows(3, 8), rows(4, 25)
    padded = np.concatenate([query, reference])  # the queries themselves would be nearest
    got = nearest(query, padded, metric, 16, reference_weight=jnp.arange(33) >= 8)
    want = nearest(query, reference, metric, 16)
    np.testing.assert_allclose(got.distance, want.distance, atol=2e-6)
    np.testing.assert_array_equal(got.index, want.index + 8)
    nobody = nearest(query, reference, metric, 16, reference_weight=jnp.zeros(25))
    assert jnp.isinf(nobody.distance).all()


def test_zero_rows_have_no_direction():
    query, reference = rows(5, 6), rows(6, 12)
    query[2], reference[3] = 0, 0
    got = nearest(query, reference, "cosine", 5)
    want = pairs(np.delete(query, 2, 0), np.delete(reference, 3, 0), "cosine").min(1)
    np.testing.assert_allclose(np.delete(got.distance, 2), want, atol=1e-6)
    assert got.distance[2] == 1 and 3 not in got.index


def test_ties_return_the_first_neighbor():
    reference = np.concatenate([rows(7, 5), rows(7, 5)])
    np.testing.assert_array_equal(nearest(rows(7, 5), reference, "euclidean", 3).index, np.arange(5))


def test_small_distances_far_from_the_origin_are_accurate():
    """Without subtracting the mean, float32 cannot resolve a distance of 0.01 at a norm of 1,000."""
    query = rows(8, 10) * 0.01 + 400
    reference = rows(9, 30) * 0.01 + 400
    np.testing.assert_allclose(
        nearest(query, reference, "euclidean", 8).distance,
        pairs(query, reference, "euclidean").min(1),
        rtol=1e-3,
    )


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("k", [1, 3, 39])
def test_kth_equals_sorting_all_pairs(block, k):
    x = rows(10, 40)
    got = jax.jit(neighbors.kth, static_argnames=("k", "block"))(x, k=k, block=block)
    np.testing.assert_allclose(got, np.sort(pairs(x, x, "euclidean"), axis=1)[:, k], atol=2e-6)


def test_kth_counts_duplicates_but_not_the_row_itself():
    x = np.concatenate([rows(11, 10), rows(11, 10)[:1]])
    one, two = (neighbors.kth(jnp.asarray(x), k, block=4) for k in (1, 2))
    assert one[0] < 2e-3 and one[10] < 2e-3 and (one[1:10] > 0.1).all() and two[0] > 0.1
    ten = neighbors.kth(jnp.asarray(x), 1, block=4, weight=jnp.arange(11) < 10)
    assert ten[0] > 0.1


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("block", [3, 64])
def test_within_counts_from_both_sides(closed, block):
    """With integer rows distances are exact, so many rows lie on a surface."""
    rng = np.random.default_rng(12)
    query, reference = (rng.integers(-3, 4, (n, 3)).astype(np.float32) for n in (20, 31))
    reference -= reference.sum(0) * np.eye(31, 1)  # a mean of 0 keeps them whole
    radius = rng.integers(1, 5, 31).astype(np.float32)
    all_pairs = pairs(query, reference, "euclidean")
    inside = all_pairs <= radius[None, :] if closed else all_pairs < radius[None, :]
    assert (all_pairs == radius[None, :]).sum() > 3
    got = jax.jit(neighbors.within, static_argnames=("closed", "block"))(
        query, reference, radius, closed=closed, block=block
    )
    np.testing.assert_array_equal(got.balls, inside.sum(1))
    np.testing.assert_array_equal(got.rows, inside.sum(0))
    inside = all_pairs < radius[None, :] + 0.1  # half the rows have another mean: off the borders
    part = neighbors.within(
        jnp.asarray(query),
        jnp.asarray(reference),
        jnp.asarray(radius + 0.1),
        closed,
        block=block,
        query_weight=jnp.arange(20) < 15,
        reference_weight=jnp.arange(31) % 2,
    )
    np.testing.assert_array_equal(part.balls[:15], inside[:15, 1::2].sum(1))
    np.testing.assert_array_equal(part.rows[1::2], inside[:15, 1::2].sum(0))
    assert not part.balls[15:].any() and not part.rows[::2].any()


def test_balls_of_a_set_with_itself():
    """Every row lies in k + 1 closed balls on average, and in k open ones: only the surface differs."""
    x, k = jnp.asarray(rows(13, 50)), 4
    radius = neighbors.kth(x, k, block=16)
    closed, open_ = (neighbors.within(x, x, radius, border, block=16) for border in (True, False))
    np.testing.assert_array_equal(closed.rows, k + 1)
    np.testing.assert_array_equal(open_.rows, k)
    assert closed.balls.sum() == 50 * (k + 1)


def test_one_device_and_four_agree():
    query, reference = rows(14, 64), rows(15, 40)
    mesh = Mesh(np.array(jax.devices()), "data")
    spread = jax.device_put(query, NamedSharding(mesh, P("data")))
    whole = jax.device_put(reference, NamedSharding(mesh, P()))
    one, four = nearest(query, reference, "euclidean", 16), nearest(spread, whole, "euclidean", 16)
    np.testing.assert_allclose(one.distance, four.distance, rtol=1e-6)
    np.testing.assert_array_equal(one.index, four.index)
    kth = jax.jit(neighbors.kth, static_argnames=("k", "block"))
    np.testing.assert_allclose(kth(spread, k=3, block=16), kth(query, k=3, block=16), rtol=1e-6)


def test_invalid_arguments_are_errors():
    x = jnp.ones((4, 2))
    with pytest.raises(ValueError, match="block is 0, and must be at least 1"):
        neighbors.nearest(x, x, block=0)
    with pytest.raises(ValueError, match="metric is 'dot'; choices: 'cosine', 'euclidean'"):
        neighbors.nearest(x, x, "dot")
    with pytest.raises(ValueError, match="query has 3 rows and reference has 4"):
        neighbors.nearest(x[:3], x, exclude_self=True)
    with pytest.raises(ValueError, match="k is 4, and must be from 1 to 3 for 4 rows"):
        neighbors.kth(x, 4)
    with pytest.raises(ValueError, match="3 radii for 4 reference rows"):
        neighbors.within(x, x, jnp.ones(3))
