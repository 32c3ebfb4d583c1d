"""What layers start with: kernels [..., in, out] and biases [out] from a key."""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array

TALL = 2  # times as many rows as columns: the columns of a random matrix are far from dependent
LARGE = 2**19  # numbers of a matrix whose q is worth a way of its own


def orthogonal(key: Array, shape: tuple[int, ...]) -> Array:
    """[..., in, out] whose matrix [prod(...) * in, out] has orthonormal columns, or rows if those are fewer.

    torch's orthogonal_ on [out, in, ...]; uniform over such matrices (Saxe et al. 2014). The q of z = q r, z
    normal, the diagonal of r positive. Where z is large and tall, r is Cholesky's of z^T z: several times as
    fast to come by, and as good where z is well-conditioned.
    """
    rows, columns = math.prod(shape[:-1]), shape[-1]
    tall, narrow = max(rows, columns), min(rows, columns)
    if tall < TALL * narrow or tall * narrow < LARGE:
        return nn.initializers.orthogonal()(key, shape)
    z = jax.random.normal(key, (tall, narrow))
    r = lax.linalg.cholesky(jnp.matmul(z.T, z, precision=lax.Precision.HIGHEST)).T
    q = lax.linalg.triangular_solve(r, z)
    return (q if rows >= columns else q.T).reshape(shape)


def zero_bias(key: Array, shape: tuple[int, ...]) -> Array:
    """Bias [out] of a kernel of `shape` [..., in, out]: zeros."""
    del key
    return jnp.zeros(shape[-1:])


class TorchDefault(NamedTuple):
    """How torch starts a layer: kernel and bias uniform within 1 / sqrt(fan)."""

    fan: str = "in"  # "out" for transposed convolutions, whose weights torch reads the other way round

    def kernel(self, key: Array, shape: tuple[int, ...]) -> Array:
        """[..., in, out]."""
        return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0) / math.sqrt(self._fan(shape))

    def bias(self, key: Array, shape: tuple[int, ...]) -> Array:
        """[out] of a kernel of `shape` [..., in, out]."""
        return jax.random.uniform(key, shape[-1:], minval=-1.0, maxval=1.0) / math.sqrt(self._fan(shape))

    def _fan(self, shape: tuple[int, ...]) -> int:
        return math.prod(shape[:-2]) * shape[-2 if self.fan == "in" else -1]
