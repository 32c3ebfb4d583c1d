"""Curves against their closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog.ops import ramps


def test_a_number_stays_and_a_pair_goes_from_one_to_the_other() -> None:
    assert ramps.at(0.3, 0.9) == 0.3
    done = jnp.array([-1.0, 0.0, 0.25, 0.5, 1.0, 2.0])
    half = 0.2 + 1.8 * 0.5 * (1 + np.cos(np.pi / 4))
    np.testing.assert_allclose(ramps.at((2.0, 0.2), done), [2.0, 2.0, half, 1.1, 0.2, 0.2], rtol=1e-6)
    np.testing.assert_allclose(ramps.at((0.9, 0.99), done)[jnp.array([1, 4])], [0.9, 0.99], rtol=1e-6)


def test_a_ramp_is_straight_between_its_ends() -> None:
    done = jnp.array([0.0, 0.2, 0.3, 0.4, 1.0])
    np.testing.assert_allclose(ramps.ramp(0.2, 0.4, done), [0, 0, 0.5, 1, 1], atol=1e-6)


def test_three_numbers_are_no_curve() -> None:
    with pytest.raises(ValueError, match="has 3 numbers; a curve has two"):
        ramps.at((1.0, 2.0, 3.0), 0.5)
