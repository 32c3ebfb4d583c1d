"""Ramps against their closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog.ops import ramps


def test_cosine_ramp_of_a_number_and_of_a_pair() -> None:
    assert ramps.cosine_ramp(0.3, 0.9) == 0.3
    progress = jnp.array([-1.0, 0.0, 0.25, 0.5, 1.0, 2.0])
    half = 0.2 + 1.8 * 0.5 * (1 + np.cos(np.pi / 4))
    np.testing.assert_allclose(
        ramps.cosine_ramp((2.0, 0.2), progress), [2.0, 2.0, half, 1.1, 0.2, 0.2], rtol=1e-6
    )
    np.testing.assert_allclose(
        ramps.cosine_ramp((0.9, 0.99), progress)[jnp.array([1, 4])], [0.9, 0.99], rtol=1e-6
    )


def test_linear_ramp_is_straight_between_its_ends() -> None:
    progress = jnp.array([0.0, 0.2, 0.3, 0.4, 1.0])
    np.testing.assert_allclose(ramps.linear_ramp(0.2, 0.4, progress), [0, 0, 0.5, 1, 1], atol=1e-6)


def test_three_numbers_are_no_ramp() -> None:
    with pytest.raises(ValueError, match="has 3 numbers; a ramp has two"):
        ramps.cosine_ramp((1.0, 2.0, 3.0), 0.5)
