"""Batched matrix products whose gradients are fast on CPU.

The gradient with respect to the second operand contracts the rows of two matrices, for which XLA's CPU
backend has no fast batched kernel. It has one if the smaller matrix is transposed first, and if XLA is kept
from undoing the transposition.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxdog.ops import bilinear

Array = jax.Array


def matmul(a: Array, b: Array) -> Array:
    """[..., n, k] times [..., k, m] -> [..., n, m]; the leading axes must be equal.

    Any number of reverse-mode derivatives may be taken; on CPU, forward mode is not supported.
    """
    return (_matmul_cpu if jax.default_backend() == "cpu" else jnp.matmul)(a, b)


def transpose_last(x: Array) -> Array:
    """[..., n, m] -> [..., m, n]."""
    return x.swapaxes(-1, -2)


def _grad_b(a: Array, g: Array) -> Array:
    """a^T g, the gradient [..., k, m] of <a b, g> with respect to b; a [..., n, k], g [..., n, m]."""
    barrier = lax.optimization_barrier  # keeps XLA from fusing the transposition back into the product
    if a.size <= g.size:
        return barrier(_matmul_cpu(barrier(transpose_last(a)), g))
    return transpose_last(barrier(_matmul_cpu(barrier(transpose_last(g)), a)))


_matmul_cpu = bilinear.with_gradients(jnp.matmul, lambda b, g: _matmul_cpu(g, transpose_last(b)), _grad_b)
