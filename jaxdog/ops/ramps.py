"""Numbers that change as a run goes on."""

import jax
import jax.numpy as jnp

Array = jax.Array


def at(value: float | tuple, done: Array | float) -> Array | float:
    """What `value` is once a share `done` [] in [0, 1] of the run is over.

    A number stays as it is. Of a pair (first, last) it is half a cosine from one to the other, the curve that
    R3GAN's settings follow (Huang et al. 2024).
    """
    if not isinstance(value, tuple):
        return value
    if len(value) != 2:
        raise ValueError(f"{value} has {len(value)} numbers; a curve has two, its first and its last")
    first, last = value
    return last + (first - last) * 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.clip(done, 0.0, 1.0)))


def ramp(begin: float, end: float, done: Array | float) -> Array:
    """0 up to the share `begin` of the run, 1 from the share `end` on, straight between."""
    return jnp.clip((jnp.asarray(done, jnp.float32) - begin) / max(end - begin, 1e-9), 0.0, 1.0)
