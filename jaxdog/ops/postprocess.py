"""Postprocessing of generated images: pure functions `(image, **settings) -> image`.

Input and output are [b, h, w, c] float32 in [-1, 1]; outputs are on the 256 levels of an 8-bit image.
`non_local_means.non_local_means` has the same signature.
"""

import jax.numpy as jnp

from jaxdog.ops import resample
from jaxdog.types import Array
from jaxdog.utils import errors


def quantize(image: Array, levels_256: bool = False, wrap: bool = False) -> Array:
    """Quantizes each value to one of 256 levels.

    Args:
      image: [b, h, w, c]; clipped to [-1, 1] first.
      levels_256: floor(256 x) of x in [0, 1], instead of round(255 x).
      wrap: 256 becomes 0, so that pure white turns black, as in a competition entry's cast to uint8. Needs
        levels_256.

    Raises:
      UserError: wrap without levels_256.
    """
    if wrap and not levels_256:
        raise errors.UserError("wrap is True and levels_256 False; there is no level 256 to wrap")
    unit = jnp.clip(0.5 * image + 0.5, 0.0, 1.0)
    if not levels_256:
        return _image(jnp.round(255.0 * unit))
    level = jnp.floor(256.0 * unit)
    return _image(level % 256.0 if wrap else jnp.minimum(level, 255.0))


def resize(image: Array, size: int, filter: resample.Filter = "lanczos") -> Array:
    """Pillow's resize of the 8-bit image to [b, size, size, c], rounded after each axis as Pillow does.

    Args:
      image: [b, h, w, c]; rounded to the nearest of the 256 levels first.
      size: height and width of the output.
      filter: of the resize; Pillow once called "lanczos" ANTIALIAS.
    """
    level = jnp.clip(jnp.round(127.5 * (image + 1.0)), 0.0, 255.0)
    for axis in (2, 1):
        level = resample.resize_axis(level, axis, size, filter)
        level = jnp.clip(jnp.floor(level + 0.5), 0.0, 255.0)  # Pillow rounds ties upwards
    return _image(level)


def _image(level: Array) -> Array:
    return level / 127.5 - 1.0
