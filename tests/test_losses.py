"""Losses against their formulas, computed here in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog import losses

REAL = np.array([-2.0, -0.3, 0.0, 0.9, 1.5, 4.0], np.float32)
FAKE = np.array([3.0, 0.2, -0.1, -0.9, -1.5, 0.7], np.float32)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


FORMULAS = {
    "hinge": (losses.hinge(), np.maximum(0, 1 - REAL), np.maximum(0, 1 + FAKE), -FAKE),
    "non_saturating": (
        losses.non_saturating(),
        -np.log(_sigmoid(REAL)),
        -np.log(1 - _sigmoid(FAKE)),
        -np.log(_sigmoid(FAKE)),
    ),
    "least_squares": (losses.least_squares(), (REAL - 1) ** 2, FAKE**2, (FAKE - 1) ** 2),
    "least_squares_targets": (
        losses.least_squares(0.9, -0.1),
        (REAL - 0.9) ** 2,
        (FAKE + 0.1) ** 2,
        (FAKE - 0.9) ** 2,
    ),
    "least_squares_sigmoid": (
        losses.least_squares(sigmoid=True),
        (_sigmoid(REAL) - 1) ** 2,
        _sigmoid(FAKE) ** 2,
        (_sigmoid(FAKE) - 1) ** 2,
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_terms_equal_their_formulas(name: str) -> None:
    loss, real, fake, g = FORMULAS[name]
    real_term, fake_term = loss.d(jnp.asarray(REAL), jnp.asarray(FAKE))
    np.testing.assert_allclose(real_term, real, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(fake_term, fake, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(loss.g(jnp.asarray(FAKE)), g, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["hinge", "non_saturating"])
def test_large_logits_stay_finite_with_finite_gradients(name: str) -> None:
    loss = FORMULAS[name][0]
    extreme = jnp.array([-200.0, 200.0])

    def total(logit: jax.Array) -> jax.Array:
        real_term, fake_term = loss.d(logit, logit)
        return jnp.sum(real_term + fake_term + loss.g(logit))

    assert np.isfinite(total(extreme)) and np.all(np.isfinite(jax.grad(total)(extreme)))


@pytest.mark.parametrize("name", FORMULAS)
def test_each_player_pulls_its_own_way(name: str) -> None:
    """The discriminator wants real up and fake down, the generator fake up, near the decision boundary."""
    loss = FORMULAS[name][0]
    zero = jnp.zeros(1)
    assert jax.grad(lambda x: loss.d(x, zero)[0][0])(zero)[0] < 0
    assert jax.grad(lambda x: loss.g(x)[0])(zero)[0] < 0
    small = jnp.full(1, 0.1)
    assert jax.grad(lambda x: loss.d(zero, x)[1][0])(small)[0] > 0
