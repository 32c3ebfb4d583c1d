"""Losses against their formulas, computed here in numpy."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog.losses import adversarial

KEY = jax.random.key(0)
REAL = np.array([-2.0, -0.3, 0.0, 0.9, 1.5, 4.0], np.float32)
FAKE = np.array([3.0, 0.2, -0.1, -0.9, -1.5, 0.7], np.float32)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def _entropy(x: np.ndarray, target: float) -> np.ndarray:
    return -target * np.log(_sigmoid(x)) - (1 - target) * np.log(1 - _sigmoid(x))


FORMULAS = {
    "hinge": (adversarial.hinge(), np.maximum(0, 1 - REAL), np.maximum(0, 1 + FAKE), -FAKE),
    "non_saturating": (
        adversarial.non_saturating(),
        -np.log(_sigmoid(REAL)),
        -np.log(1 - _sigmoid(FAKE)),
        -np.log(_sigmoid(FAKE)),
    ),
    "least_squares": (adversarial.least_squares(), (REAL - 1) ** 2, FAKE**2, (FAKE - 1) ** 2),
    "least_squares_targets": (
        adversarial.least_squares(0.9, -0.1),
        (REAL - 0.9) ** 2,
        (FAKE + 0.1) ** 2,
        (FAKE - 0.9) ** 2,
    ),
    "least_squares_sigmoid": (
        adversarial.least_squares(sigmoid=True),
        (_sigmoid(REAL) - 1) ** 2,
        _sigmoid(FAKE) ** 2,
        (_sigmoid(FAKE) - 1) ** 2,
    ),
    "cross_entropy": (
        adversarial.cross_entropy(0.7, 0.7, 0.1, 0.1),
        _entropy(REAL, 0.7),
        _entropy(FAKE, 0.1),
        _entropy(FAKE, 0.7),
    ),
    "cross_entropy_margin": (
        adversarial.cross_entropy(0.95, 0.95, margin=0.8),
        0.95 * np.maximum(-np.log(_sigmoid(REAL)), -np.log(0.8)) - 0.05 * np.log(1 - _sigmoid(REAL)),
        _entropy(FAKE, 0.0),
        _entropy(FAKE, 0.95),
    ),
    "cross_entropy_margin_of_both": (
        adversarial.cross_entropy(0.95, 0.95, margin=0.8, g_margin=True),
        0.95 * np.maximum(-np.log(_sigmoid(REAL)), -np.log(0.8)) - 0.05 * np.log(1 - _sigmoid(REAL)),
        _entropy(FAKE, 0.0),
        0.95 * np.maximum(-np.log(_sigmoid(FAKE)), -np.log(0.8)) - 0.05 * np.log(1 - _sigmoid(FAKE)),
    ),
    "relativistic_least_squares": (
        adversarial.relativistic_average(),
        0.5 * (REAL - FAKE.mean() - 1) ** 2,
        0.5 * (FAKE - REAL.mean() + 1) ** 2,
        0.5 * (REAL - FAKE.mean() + 1) ** 2 + 0.5 * (FAKE - REAL.mean() - 1) ** 2,
    ),
    "relativistic_hinge": (
        adversarial.relativistic_average("hinge"),
        0.5 * np.maximum(0, 1 - (REAL - FAKE.mean())),
        0.5 * np.maximum(0, 1 + (FAKE - REAL.mean())),
        0.5 * np.maximum(0, 1 + (REAL - FAKE.mean())) + 0.5 * np.maximum(0, 1 - (FAKE - REAL.mean())),
    ),
    "relativistic_cross_entropy": (
        adversarial.relativistic_average("cross_entropy"),
        0.5 * _entropy(REAL - FAKE.mean(), 1.0),
        0.5 * _entropy(FAKE - REAL.mean(), 0.0),
        0.5 * _entropy(REAL - FAKE.mean(), 0.0) + 0.5 * _entropy(FAKE - REAL.mean(), 1.0),
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_terms_equal_their_formulas(name: str) -> None:
    loss, real, fake, g = FORMULAS[name]
    real_term, fake_term = loss.d(KEY, jnp.asarray(REAL), jnp.asarray(FAKE))
    np.testing.assert_allclose(real_term, real, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(fake_term, fake, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(loss.g(KEY, jnp.asarray(REAL), jnp.asarray(FAKE)), g, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["hinge", "non_saturating"])
def test_large_logits_stay_finite_with_finite_gradients(name: str) -> None:
    loss = FORMULAS[name][0]
    extreme = jnp.array([-200.0, 200.0])

    def total(logit: jax.Array) -> jax.Array:
        real_term, fake_term = loss.d(KEY, logit, logit)
        return jnp.sum(real_term + fake_term + loss.g(KEY, logit, logit))

    assert np.isfinite(total(extreme)) and np.all(np.isfinite(jax.grad(total)(extreme)))


@pytest.mark.parametrize("name", FORMULAS)
def test_the_players_gradients_have_opposite_signs(name: str) -> None:
    """The discriminator wants real up and fake down, the generator fake up, near the decision boundary."""
    loss = FORMULAS[name][0]
    zero = jnp.zeros(1)
    assert jax.grad(lambda x: loss.d(KEY, x, zero)[0][0])(zero)[0] < 0
    assert jax.grad(lambda x: loss.g(KEY, zero, x)[0])(zero)[0] < 0
    small = jnp.full(1, 0.1)
    assert jax.grad(lambda x: loss.d(KEY, zero, x)[1][0])(small)[0] > 0


def test_noisy_targets_lie_in_their_ranges_and_are_the_same_for_both_players() -> None:
    """The targets follow from the gradient: d entropy / d logit at 0 is 1/2 - target."""
    loss = adversarial.cross_entropy(0.8, 0.95, 0.05, 0.2)
    zero = jnp.zeros(500)

    def targets(term: Callable[[jax.Array], jax.Array]) -> np.ndarray:
        return np.asarray(0.5 - jax.grad(lambda x: jnp.sum(term(x)))(zero))

    real = targets(lambda x: loss.d(KEY, x, zero)[0])
    fake = targets(lambda x: loss.d(KEY, zero, x)[1])
    assert 0.8 <= real.min() < 0.81 and 0.94 < real.max() <= 0.95 and np.std(real) > 0.04
    assert 0.05 <= fake.min() < 0.06 and 0.19 < fake.max() <= 0.2
    np.testing.assert_allclose(targets(lambda x: loss.g(KEY, zero, x)), real, atol=1e-6)


def test_targets_flip_for_the_whole_batch_with_the_given_probability() -> None:
    loss = adversarial.cross_entropy(1.0, 1.0, 0.0, 0.0, label_flip_prob=0.25)
    one = jnp.full(4, 3.0)
    keys = jax.random.split(KEY, 400)
    real, fake = jax.vmap(lambda key: loss.d(key, one, one))(keys)
    flipped = np.asarray(real[:, 0] > 1.0)
    np.testing.assert_array_equal(np.asarray(real) > 1.0, np.repeat(flipped[:, None], 4, 1))
    np.testing.assert_array_equal(np.asarray(fake) > 1.0, ~(np.asarray(real) > 1.0))
    assert 0.17 < flipped.mean() < 0.33


def test_unknown_base_names_the_choices() -> None:
    with pytest.raises(ValueError, match="'wasserstein'; choices: cross_entropy, hinge, least_squares"):
        adversarial.relativistic_average("wasserstein")


def test_soft_margins_are_drawn_per_pair_and_the_same_for_both_players() -> None:
    """A term is (0 - margin)^2 / 2 at logits of 0; so every margin shows."""
    loss = adversarial.relativistic_soft(0.70, 0.95, 0.05, 0.15, 3)
    zero = jnp.zeros(32)
    counts = []
    for key in jax.random.split(KEY, 60):
        margins = np.sqrt(2 * np.asarray(loss.d(key, zero, zero)))
        np.testing.assert_allclose(margins[0], margins[1], rtol=1e-5)
        low = margins[0] < 0.5
        assert ((margins[0][low] >= 0.05) & (margins[0][low] <= 0.15)).all()
        assert ((margins[0][~low] >= 0.70) & (margins[0][~low] <= 0.95)).all()
        counts.append(low.sum())
        real, fake = np.asarray(jax.random.normal(key, (2, 32)))
        d = loss.d(key, jnp.asarray(real), jnp.asarray(fake))
        np.testing.assert_allclose(d[0], 0.5 * (real - fake.mean() - margins[0]) ** 2, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(d[1], 0.5 * (fake - real.mean() + margins[0]) ** 2, rtol=1e-4, atol=1e-5)
        g = 0.5 * (real - fake.mean() + margins[0]) ** 2 + 0.5 * (fake - real.mean() - margins[0]) ** 2
        np.testing.assert_allclose(loss.g(key, jnp.asarray(real), jnp.asarray(fake)), g, rtol=1e-4, atol=1e-5)
    assert set(counts) == {0, 1, 2, 3}
    assert min(np.bincount(counts)) >= 6  # 15 expected of each


def test_soft_margins_of_1_are_the_relativistic_average() -> None:
    soft, plain = adversarial.relativistic_soft(), adversarial.relativistic_average()
    real, fake = jnp.asarray(REAL), jnp.asarray(FAKE)
    for a, b in zip(soft.d(KEY, real, fake), plain.d(KEY, real, fake), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    np.testing.assert_allclose(soft.g(KEY, real, fake), plain.g(KEY, real, fake), rtol=1e-6)
