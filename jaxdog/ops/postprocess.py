"""What can happen to a picture after the generator: pure functions `(image, **settings) -> image`.

Both sides are [b, h, w, c] float32 in [-1, 1]; what comes out stands on the 256 levels of a PNG.
`denoise.non_local_means` is another of these.
"""

import jax.numpy as jnp

from jaxdog.ops import resample
from jaxdog.types import Array


def quantise(image: Array, levels_256: bool = False, wrap: bool = False) -> Array:
    """Each value brought to one of the 256 levels.

    Args:
      image: [b, h, w, c]; clipped to [-1, 1] first.
      levels_256: cuts [0, 1] into 256 equal parts and takes the lower end of each, instead of the nearest
        of 256 levels that lie 1 / 255 apart.
      wrap: exact white becomes black, what a cast of 256 to a byte did in 2019. Only with levels_256.

    Raises:
      ValueError: wrap without levels_256.
    """
    if wrap and not levels_256:
        raise ValueError("wrap is True and levels_256 False; there is no level 256 to wrap")
    share = jnp.clip(0.5 * image + 0.5, 0.0, 1.0)
    if not levels_256:
        return _picture(jnp.round(255.0 * share))
    level = jnp.floor(256.0 * share)
    return _picture(level % 256.0 if wrap else jnp.minimum(level, 255.0))


def shrink(image: Array, size: int, filter: str = "lanczos") -> Array:
    """Pillow's resize of the picture's bytes to [b, size, size, c], rounded after each axis as Pillow does.

    Args:
      image: [b, h, w, c]; brought to the nearest of the 256 levels first.
      size: pixels of the output's side; it may also be larger than the picture.
      filter: as in `resample.matrix`; "lanczos" was called ANTIALIAS.
    """
    level = jnp.clip(jnp.round(127.5 * (image + 1.0)), 0.0, 255.0)
    for axis in (2, 1):
        level = resample.resize_axis(level, axis, size, filter)
        level = jnp.clip(jnp.floor(level + 0.5), 0.0, 255.0)  # halves up, as Pillow has it
    return _picture(level)


def _picture(level: Array) -> Array:
    return level / 127.5 - 1.0
