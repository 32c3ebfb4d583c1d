"""What layers start with."""

import jax
import numpy as np
import pytest

from jaxdog.models import initializers

KEY = jax.random.key(3)


@pytest.mark.parametrize("shape", [(3, 3, 160, 400), (160, 3600), (3, 3, 4, 4), (4, 4)], ids=str)
def test_orthogonal_is_the_q_of_a_normal_matrix(shape):
    """Both ways of coming by it give numpy's q, its r's diagonal positive, in float64."""
    matrix = np.asarray(initializers.orthogonal(KEY, shape), np.float64).reshape(-1, shape[-1])
    tall, narrow = max(matrix.shape), min(matrix.shape)
    z = np.asarray(jax.random.normal(KEY, (tall, narrow)), np.float64)
    q, r = np.linalg.qr(z)
    expected = q * np.sign(np.diag(r))
    got = matrix if matrix.shape == expected.shape else matrix.T
    np.testing.assert_allclose(got, expected, atol=2e-6)
    np.testing.assert_allclose(got.T @ got, np.eye(narrow), atol=5e-6)
