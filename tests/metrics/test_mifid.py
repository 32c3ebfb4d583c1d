"""MiFID against NumPy in float64 and the official scores of 2019, and on one and four devices."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdog.metrics import mifid

# id: FID, distance, score of the public leaderboard, then one of the private leaderboard (threshold 0.25)
PUBLISHED = [
    (31.096021168891806, 0.1684748144839175, 31.096021168891767, 0.1),
    (31.06344955240684, 0.17190992701530233, 31.0634495524068, 0.1),
    (15.785303456989991, 0.15172746456042174, 15.785303456989976, 0.1),
    (15.816054708251894, 0.156163134709397, 15.816054708251881, 0.1),
    (12.463284281781455, 0.16184376001061654, 12.46328428178144, 0.1),
    (30.333403179820145, 0.1764930352355225, 30.333403179820124, 0.1),
    (9.760399508819491, 0.09570749817614364, 101.98155520538198, 0.1),
    (3.834251328785399, 0.02071500442167368, 185.0953661768721, 0.1),
    (13.475501380007074, 0.09325630605781984, 144.49962634861373, 0.1),
    (55.42142354698902, 0.2502234994489345, 55.42142354698902, 0.25),
]


@pytest.mark.parametrize("score", PUBLISHED)
def test_composition_of_published_scores(score):
    value, distance, expected, eps = score
    ours = mifid.mifid(value, distance, eps=eps)
    assert isinstance(ours, float)
    assert ours == pytest.approx(expected, rel=1e-12, abs=0)


def test_private_score_with_penalty():
    """The published value has six digits."""
    assert mifid.mifid(232.110871, 0.182444, eps=0.25) == pytest.approx(1272.234064, rel=5e-6)


def test_every_official_score(real_data):
    with open(real_data / "golden" / "competition_results.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1666
    for row in rows:
        ours = mifid.mifid(float(row["FID_public"]), float(row["distance_public"]))
        assert ours == pytest.approx(float(row["public_score"]), rel=1e-12, abs=0), row["submission_id"]
        if row["private_score"] and float(row["private_score"]) != 999999:  # judged as cheating by hand
            ours = mifid.mifid(float(row["FID_private"]), float(row["distance_private"]), eps=0.25)
            assert ours == pytest.approx(float(row["private_score"]), rel=1e-12, abs=0), row["submission_id"]


def test_threshold_is_strict_and_zero_distance_is_finite():
    assert mifid.mifid(5.0, 0.1) == pytest.approx(5.0, rel=1e-12)
    assert mifid.mifid(5.0, 0.0) == pytest.approx(5e15)
    assert mifid.mifid(5.0, 0.12, eps=0.15) == pytest.approx(5 / 0.12)


def test_composition_inside_jit():
    compose = jax.jit(mifid.mifid)
    for distance in (0.02, 0.0999, 0.1, 0.3):
        np.testing.assert_allclose(compose(7.0, distance), mifid.mifid(7.0, distance), rtol=1e-6)


def official_distance(fake: np.ndarray, real: np.ndarray) -> float:
    """The definition, over all pairs in float64."""
    fake, real = (rows[rows.sum(1) != 0].astype(np.float64) for rows in (fake, real))
    fake, real = (rows / np.sqrt((rows**2).sum(1))[:, None] for rows in (fake, real))
    return float(np.mean([min(1 - abs(row @ other) for other in real) for row in fake]))


def rows(seed: int, n: int, d: int = 24) -> np.ndarray:
    return np.maximum(np.random.default_rng(seed).normal(0.3, 1, (n, d)), 0).astype(np.float32)


@pytest.mark.parametrize("block", [1, 7, 50, 500])
def test_distance_equals_all_pairs(block):
    fake, real = rows(0, 20), rows(1, 50)
    ours = jax.jit(mifid.memorization_distance, static_argnames="block")(fake, real, block=block)
    np.testing.assert_allclose(ours, official_distance(fake, real), atol=1e-6)


def test_direction_is_generated_to_real():
    fake, real = rows(0, 20), rows(1, 50)
    forward, backward = (
        float(mifid.memorization_distance(*map(jnp.asarray, pair))) for pair in ((fake, real), (real, fake))
    )
    assert abs(forward - backward) > 0.01
    assert forward == pytest.approx(official_distance(fake, real), abs=1e-6)
    # A generator that copies only one photo is caught, whatever the other photos are.
    copies = jnp.asarray(np.repeat(real[:1], 5, axis=0))
    assert float(mifid.memorization_distance(copies, jnp.asarray(real))) == pytest.approx(0, abs=1e-6)


def test_only_the_absolute_cosine_matters():
    real = rows(2, 10)
    assert float(mifid.memorization_distance(jnp.asarray(-real), jnp.asarray(real))) == pytest.approx(
        0, abs=1e-6
    )


def test_rows_that_sum_to_zero_are_dropped_on_both_sides():
    fake, real = rows(3, 12), rows(4, 30)
    fake[[2, 5]], real[[0, 29]] = 0, 0
    fake[7, :2], fake[7, 2:] = (1.5, -1.5), 0  # not a zero row, but its sum is
    ours = mifid.memorization_distance(jnp.asarray(fake), jnp.asarray(real), block=8)
    np.testing.assert_allclose(ours, official_distance(fake, real), atol=1e-6)
    kept = mifid.memorization_distance(jnp.asarray(np.delete(fake, [2, 5, 7], 0)), jnp.asarray(real[1:29]))
    np.testing.assert_allclose(ours, kept, atol=1e-6)


def test_each_image_has_its_distance_and_its_nearest_photo():
    fake, real = rows(10, 9), rows(11, 30)
    fake[4], fake[6] = 2 * real[21], 0
    found = jax.jit(mifid.memorization)(fake, real)
    unit = [x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9) for x in (fake, real)]
    cosine = unit[0] @ unit[1].T
    np.testing.assert_allclose(found.distance, 1 - cosine.max(1), atol=1e-6)
    np.testing.assert_array_equal(found.included, np.arange(9) != 6)
    np.testing.assert_array_equal(found.index[found.included], cosine.argmax(1)[found.included])
    assert found.index[4] == 21
    mean = float(found.distance[found.included].mean())
    assert mean == pytest.approx(official_distance(fake, real), abs=1e-6)


def test_rows_of_weight_zero_are_ignored():
    fake, real = rows(5, 12), rows(6, 30)
    padded_fake, padded_real = np.concatenate([fake, real[:4]]), np.concatenate([real, fake[:3]])
    ours = mifid.memorization_distance(
        jnp.asarray(padded_fake),
        jnp.asarray(padded_real),
        block=16,
        fake_weight=jnp.arange(16) < 12,
        real_weight=jnp.arange(33) < 30,
    )
    np.testing.assert_allclose(ours, official_distance(fake, real), atol=1e-6)


def test_one_device_and_four_agree():
    fake, real = rows(8, 64), rows(9, 40)
    mesh = Mesh(np.array(jax.devices()), "data")
    spread = jax.device_put(fake, NamedSharding(mesh, P("data")))
    whole = jax.device_put(real, NamedSharding(mesh, P()))
    distance = jax.jit(mifid.memorization_distance)
    np.testing.assert_allclose(distance(spread, whole), distance(fake, real), rtol=1e-6)


def test_block_must_be_positive():
    with pytest.raises(ValueError, match="block is 0, and must be at least 1"):
        mifid.memorization_distance(jnp.ones((4, 2)), jnp.ones((4, 2)), block=0)
