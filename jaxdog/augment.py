"""Augmentations in-graph: pure functions `(key, image [b, h, w, c], **settings) -> image`.

Each picture of the batch draws its own randomness. Ranges are those of the input, normally [-1, 1].
"""

import jax
import jax.numpy as jnp

from jaxdog.system import Array, Key


def flip(key: Key, image: Array, p: float = 0.5) -> Array:
    """Mirrors each picture of [b, h, w, c] left to right with probability p."""
    mirrored = jax.random.bernoulli(key, p, (image.shape[0],))
    return jnp.where(mirrored[:, None, None, None], image[:, :, ::-1, :], image)


def uniform_noise(key: Key, image: Array, scale: float) -> Array:
    """Adds scale * U[0, 1) to every value of [b, h, w, c]; the sum is not clipped."""
    return image + scale * jax.random.uniform(key, image.shape, image.dtype)
