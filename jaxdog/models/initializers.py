"""Initializers of kernels [..., in, out] and biases [out]: (key, shape) -> array."""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array

CHOLESKY_MIN_ASPECT = 2  # least rows per column for which a random matrix is well-conditioned
CHOLESKY_MIN_SIZE = 2**19  # least number of elements for which the Cholesky decomposition is faster


def orthogonal(key: Array, shape: tuple[int, ...]) -> Array:
    """[..., in, out] whose matrix [prod(...) * in, out] has orthonormal columns, or rows if those are fewer.

    Uniform over such matrices (Saxe et al. 2014), as torch's orthogonal_: Q of a normal matrix Z = Q R, with
    the diagonal of R positive. If Z is large and tall, R is computed as the Cholesky factor of Z^T Z, which
    is several times faster, and accurate because Z is well-conditioned.
    """
    rows, columns = math.prod(shape[:-1]), shape[-1]
    tall, narrow = max(rows, columns), min(rows, columns)
    if tall < CHOLESKY_MIN_ASPECT * narrow or tall * narrow < CHOLESKY_MIN_SIZE:
        return nn.initializers.orthogonal()(key, shape)
    z = jax.random.normal(key, (tall, narrow))
    r = lax.linalg.cholesky(jnp.matmul(z.T, z, precision=lax.Precision.HIGHEST)).T
    q = lax.linalg.triangular_solve(r, z)
    return (q if rows >= columns else q.T).reshape(shape)


def zero_bias(key: Array, shape: tuple[int, ...]) -> Array:
    """Zeros [out], for a kernel of `shape` [..., in, out]."""
    del key
    return jnp.zeros(shape[-1:])


class TorchDefault(NamedTuple):
    """torch's default initialization: kernel and bias uniform within 1 / sqrt(fan)."""

    fan: str = "in"  # "out" for transposed convolutions, whose fan torch takes from the output channels

    def kernel(self, key: Array, shape: tuple[int, ...]) -> Array:
        """[..., in, out]."""
        return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0) / math.sqrt(self._fan(shape))

    def bias(self, key: Array, shape: tuple[int, ...]) -> Array:
        """[out], for a kernel of `shape` [..., in, out]."""
        return jax.random.uniform(key, shape[-1:], minval=-1.0, maxval=1.0) / math.sqrt(self._fan(shape))

    def _fan(self, shape: tuple[int, ...]) -> int:
        return math.prod(shape[:-2]) * shape[-2 if self.fan == "in" else -1]
