"""Precision, recall, density and coverage against scikit-learn, torch-fidelity and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog.metrics import prdc
from tests import oracles


def rows(seed: int, n: int, d: int = 8, spread: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(n, d)) * spread).astype(np.float32)


@pytest.mark.oracle
@pytest.mark.parametrize("k", [1, 3, 5])
def test_equals_sklearn(k):
    distances = pytest.importorskip("sklearn.metrics", reason="sklearn is an oracle").pairwise_distances
    real, fake = rows(0, 170), rows(1, 140, spread=0.8)
    inner = [np.sort(distances(x.astype(np.float64)), axis=1)[:, k] for x in (real, fake)]  # column 0: itself
    cross = distances(real.astype(np.float64), fake.astype(np.float64))
    expected = (
        np.mean((cross <= inner[0][:, None]).any(0)),
        np.mean((cross <= inner[1][None, :]).any(1)),
        np.mean((cross <= inner[0][:, None]).sum(0) / k),
        np.mean((cross <= inner[0][:, None]).any(1)),
    )
    ours = jax.jit(prdc.prdc, static_argnums=(2, 3, 4))(real, fake, k, True, 64)
    np.testing.assert_allclose(ours, expected, rtol=1e-6)
    assert 0.1 < min(expected[:2]) and max(expected[:2]) < 1 and expected[0] != expected[1]


@pytest.mark.oracle
def test_equals_torch_fidelity():
    torch, metrics = oracles.torch_fidelity("metric_prc")
    real, fake = rows(0, 120), rows(1, 150, spread=1.2)
    options = dict(prc_neighborhood=3, prc_batch_size=64, save_cpu_ram=False, verbose=False)
    theirs = metrics.prc_features_to_metric(torch.from_numpy(fake), torch.from_numpy(real), **options)
    ours = prdc.prdc(jnp.asarray(real), jnp.asarray(fake))
    np.testing.assert_allclose(ours[:2], (theirs["precision"], theirs["recall"]), rtol=1e-6)


def test_directions():
    """Real images in two clusters, generated ones in one of them: full precision and half recall."""
    near, far = rows(0, 40, spread=0.1), rows(1, 40, spread=0.1) + 100
    found = prdc.prdc(jnp.concatenate([near, far]), jnp.asarray(rows(2, 60, spread=0.05)))
    assert found.precision > 0.95 and found.density > 1
    assert found.recall <= 0.5 and found.coverage <= 0.5


def test_equal_sets_and_sets_far_apart():
    real = jnp.asarray(rows(0, 50))
    same, apart = prdc.prdc(real, real), prdc.prdc(real, real + 1000)
    np.testing.assert_array_equal([same.precision, same.recall, same.coverage], 1)
    np.testing.assert_array_equal(apart, 0)


def test_open_balls_exclude_their_surface():
    """Three images at distance 1 from each other: each is on the surface of the others' balls."""
    real, fake = jnp.array([[0.0], [1.0], [2.0]]), jnp.array([[3.0], [4.0], [5.0]])
    assert prdc.prdc(real, fake, k=1).precision > 0
    assert prdc.prdc(real, fake, k=1, closed=False).precision == 0


def test_too_few_images_are_an_error():
    with pytest.raises(ValueError, match="k is 3, .* from 1 to 2 for 9 real and 3 generated"):
        prdc.prdc(jnp.zeros((9, 4)), jnp.zeros((3, 4)))


@pytest.mark.long
def test_rows_of_weight_zero_are_ignored():
    real, fake = jnp.asarray(rows(0, 60)), jnp.asarray(rows(1, 50, spread=0.8))
    padded = [jnp.pad(x, ((0, 6), (0, 0))) for x in (real, fake)]
    weight = [jnp.arange(len(x)) < n for x, n in zip(padded, (60, 50), strict=True)]
    found = prdc.prdc(*padded, real_weight=weight[0], fake_weight=weight[1])
    np.testing.assert_allclose(found, prdc.prdc(real, fake), rtol=1e-6)
