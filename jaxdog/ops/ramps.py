"""Hyperparameters that change over training."""

import jax
import jax.numpy as jnp

from jaxdog.utils import errors

Array = jax.Array


def cosine_ramp(value: float | tuple, progress: Array | float) -> Array | float:
    """`value` if it is a number; for a pair (first, last), half a cosine from first to last.

    R3GAN's hyperparameters follow this ramp (Huang et al. 2024).

    Args:
      value: a number or a pair.
      progress: [...], the fraction of training done; clipped to [0, 1].

    Raises:
      UserError: a tuple that is not a pair.
    """
    if not isinstance(value, tuple):
        return value
    if len(value) != 2:
        raise errors.UserError(f"{value} has {len(value)} numbers; a ramp has two, its first and its last")
    first, last = value
    return last + (first - last) * 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.clip(progress, 0.0, 1.0)))


def linear_ramp(begin: float, end: float, progress: Array | float) -> Array:
    """0 up to `progress` = begin, 1 from `progress` = end, linear in between; fractions of training."""
    return jnp.clip((jnp.asarray(progress, jnp.float32) - begin) / max(end - begin, 1e-9), 0.0, 1.0)
