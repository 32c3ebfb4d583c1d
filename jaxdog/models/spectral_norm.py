"""Spectral normalization (Miyato et al. 2018): a layer's weights divided by their largest singular value."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array

SPECTRAL = "spectral"  # the collection that holds u and v of every spectrally normalized layer


def spectral_normalize(layer: nn.Module, kernel: Array, matrix: Array, train: bool, epsilon: float) -> Array:
    """kernel / sigma, where sigma estimates the largest singular value of matrix [n, m], the kernel reshaped.

    u [m] and v [n] are in `layer`'s collection `SPECTRAL`. They are updated by one power iteration if `train`
    is True and the collection is mutable; otherwise they are used as stored. No gradient flows through them.
    """
    matrix = matrix.astype(jnp.float32)
    fixed = lax.stop_gradient(matrix)

    def start() -> tuple[Array, Array]:
        # The kernel is random, so a vector of ones is as good a start as a random one.
        v = _normalize(_matmul(fixed, jnp.ones(matrix.shape[1])), epsilon)
        return _normalize(_matmul(v, fixed), epsilon), v

    u = layer.variable(SPECTRAL, "u", lambda: start()[0])
    v = layer.variable(SPECTRAL, "v", lambda: start()[1])
    if train and not layer.is_initializing() and layer.is_mutable_collection(SPECTRAL):
        u.value, v.value, inverse_sigma = power_iteration(matrix, u.value, epsilon)
        return kernel * inverse_sigma
    left, right = lax.stop_gradient((v.value, u.value))
    # In an EMA of the model state, u and v are averages of unit vectors and shorter than 1.
    lengths = jnp.sum(jnp.square(left)) * jnp.sum(jnp.square(right))
    return kernel * (jnp.sqrt(lengths) / _matmul(_matmul(left, matrix), right))


def power_iteration(matrix: Array, u: Array, epsilon: float) -> tuple[Array, Array, Array]:
    """One power iteration on W = matrix [n, m] from u [m] (Miyato et al. 2018, algorithm 1).

    W is the transpose of the paper's.

    Returns:
      u_new: W^T v / |W^T v|, [m].
      v: W u / |W u|, [n].
      1 / sigma: with sigma = v^T W u_new, differentiable in W only.
    """
    v = _normalize(_matmul(lax.stop_gradient(matrix), lax.stop_gradient(u)), epsilon)
    row = _matmul(v, matrix)  # W^T v
    # |W^T v|^2 with one factor detached, so that d(squared) = |W^T v| d(sigma): sigma is squared / |W^T v|.
    squared = jnp.sum(row * lax.stop_gradient(row))
    length = jnp.maximum(jnp.sqrt(lax.stop_gradient(squared)), epsilon)
    return lax.stop_gradient(row) / length, v, length / squared


def _normalize(x: Array, epsilon: float) -> Array:
    return x / jnp.maximum(jnp.sqrt(jnp.sum(jnp.square(x))), epsilon)


def _matmul(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)
