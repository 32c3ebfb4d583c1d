"""KID against its definition in float64 and torch-fidelity, and its unbiasedness."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog.metrics import kid
from tests import oracles


def rows(seed: int, n: int, d: int = 64, shift: float = 0.0) -> np.ndarray:
    normal = np.random.default_rng(seed).normal(size=(n, d))
    return (np.abs(normal) + shift).astype(np.float32) * 0.5


def official(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased estimate, in float64, over all pairs."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    kernel = lambda a, b: (a @ b.T / a.shape[1] + 1) ** 3  # noqa: E731
    off = lambda k: (k.sum() - np.trace(k)) / (len(k) * (len(k) - 1))  # noqa: E731
    return off(kernel(x, x)) + off(kernel(y, y)) - 2 * kernel(x, y).mean()


def test_equals_the_definition():
    x, y = rows(0, 300), rows(1, 200, shift=0.1)
    np.testing.assert_allclose(jax.jit(kid.mmd2)(x, y), official(x, y), atol=1e-6)
    assert official(x, y) > 1e-3


@pytest.mark.oracle
def test_equals_torch_fidelity_on_its_own_subsets():
    torch, metrics = oracles.torch_fidelity("metric_kid")
    real, fake = rows(0, 150), rows(1, 120, shift=0.05)
    names = dict(kid_subsets=6, kid_subset_size=50, rng_seed=2020, verbose=False)
    names |= dict(kid_kernel="poly", kid_kernel_poly_degree=3, kid_kernel_poly_gamma=None)
    theirs = metrics.kid_features_to_metric(
        torch.from_numpy(real), torch.from_numpy(fake), kid_kernel_poly_coef0=1, **names
    )
    ours = kid.kid(jnp.asarray(real), jnp.asarray(fake), kid.draw(150, 120, subsets=6, size=50))
    np.testing.assert_allclose(ours, tuple(theirs.values()), atol=1e-6)


def test_one_distribution_averages_to_zero_and_two_do_not():
    near = [float(kid.mmd2(jnp.asarray(rows(i, 60)), jnp.asarray(rows(i + 100, 60)))) for i in range(30)]
    assert min(near) < 0 < max(near)  # unbiased: not clamped at 0
    assert abs(np.mean(near)) < 3 * np.std(near) / np.sqrt(30)
    assert kid.mmd2(jnp.asarray(rows(0, 60)), jnp.asarray(rows(1, 60, shift=0.3))) > 5 * np.std(near)


def test_subsets_have_no_row_twice():
    found = kid.draw(30, 20, subsets=4, size=15)
    assert found.real.shape == found.fake.shape == (4, 15)
    assert all(len(set(row)) == 15 for row in [*found.real.tolist(), *found.fake.tolist()])
    assert found.real.max() < 30 and found.fake.max() < 20


@pytest.mark.parametrize("size", [1, 21])
def test_impossible_subsets_are_an_error(size):
    with pytest.raises(ValueError, match=f"subsets of {size} rows .* 30 real and 20 .* from 2 to 20"):
        kid.draw(30, 20, size=size)
