"""Colours of pictures [b, h, w, 3] float32 in [-1, 1]: jitters, grey, and OpenCV's 8-bit Lab.

The jitters are torchvision's and Pillow's: each mixes the picture with something by a factor, 1 being the
picture itself, and clips the result to [-1, 1].
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxdog.types import Array

GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma, Pillow's conversion to "L"


def grey(image: Array) -> Array:
    """Luma, [b, h, w, 1] in [-1, 1]."""
    r, g, b = jnp.split(image, 3, -1)
    return GREY[0] * r + GREY[1] * g + GREY[2] * b


def mix(image: Array, other: Array, factor: Array) -> Array:
    """factor * image + (1 - factor) * other, clipped to [-1, 1]; factor [b], other broadcasts to image."""
    factor = factor[:, None, None, None]
    return jnp.clip(factor * image + (1.0 - factor) * other, -1.0, 1.0)


def brightness(image: Array, factor: Array) -> Array:
    """Mixed with black: 0 is black, 2 twice as bright; factor [b] >= 0."""
    return mix(image, jnp.full((1, 1, 1, 1), -1.0, image.dtype), factor)


def contrast(image: Array, factor: Array) -> Array:
    """Mixed with the picture's mean grey: 0 is flat; factor [b] >= 0."""
    return mix(image, jnp.mean(grey(image), (1, 2, 3), keepdims=True), factor)


def saturation(image: Array, factor: Array) -> Array:
    """Mixed with its own grey: 0 is grey; factor [b] >= 0."""
    return mix(image, grey(image), factor)


def hue(image: Array, turn: Array) -> Array:
    """Hue turned by [b] whole turns (0.5 is the complement), saturation and value of HSV kept."""
    r, g, b = jnp.split(image, 3, -1)
    value = jnp.maximum(jnp.maximum(r, g), b)
    chroma = value - jnp.minimum(jnp.minimum(r, g), b)
    share = jnp.where(chroma > 0.0, chroma, 1.0)
    sixth = jnp.where(
        value == r, (g - b) / share, jnp.where(value == g, (b - r) / share + 2.0, (r - g) / share + 4.0)
    )
    k = (sixth + 6.0 * turn[:, None, None, None] + jnp.array([5.0, 3.0, 1.0])[None, None, None]) % 6.0
    return value - chroma * jnp.clip(jnp.minimum(k, 4.0 - k), 0.0, 1.0)


# ------------------------------------------------------------------------------------- 8-bit Lab

# Linear RGB to XYZ for the white point D65 and CIE's cube root with its straight foot, as OpenCV has them.
_XYZ = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
)
_WHITE = np.array([0.950456, 1.0, 1.088754])
_TO_XYZ = np.rint(_XYZ / _WHITE[:, None] * 4096).astype(int).tolist()  # 12 bits after the point
_TO_RGB = np.rint(np.linalg.inv(_XYZ) * _WHITE * 4096).astype(int).tolist()
_FOOT, _SLOPE, _RISE = 216 / 24389, 841 / 108, 16 / 116


def _roots() -> np.ndarray:
    """[3072] int: CIE's cube root of i / 2040, with 15 bits after the point."""
    x = np.arange(3072) / 2040
    return np.rint(32768 * np.where(x < _FOOT, _SLOPE * x + _RISE, np.cbrt(x))).astype(np.int32)


def _lightnesses() -> tuple[np.ndarray, np.ndarray]:
    """Y and its root for each level of L, [256] int, with 14 bits after the point."""
    level = np.arange(256) * (100 / 255)
    y = np.where(level <= 8, level * (27 / 24389), ((level + 16) / 116) ** 3)
    root = np.where(level <= 8, _SLOPE * y + _RISE, (level + 16) / 116)
    return np.rint(16384 * y).astype(np.int32), np.rint(16384 * root).astype(np.int32)


def lab_from_rgb(levels: Array) -> Array:
    """Linear RGB levels -> OpenCV's 8-bit Lab, both [b, h, w, 3] int32 in 0..255: cv2.COLOR_LRGB2Lab.

    L is scaled by 255 / 100, a and b are shifted by 128. The roundings are OpenCV's: 15 bits after the point.
    """
    index = (_descale(_dot(row, levels * 8), 12) for row in _TO_XYZ)
    x, y, z = (jnp.asarray(_roots())[i] for i in index)
    lightness = _descale(296 * y - 1336934, 15)
    a, b = _descale(500 * (x - y), 15) + 128, _descale(200 * (y - z), 15) + 128
    return jnp.clip(jnp.stack([lightness, a, b], -1), 0, 255)


def rgb_from_lab(lab: Array) -> Array:
    """OpenCV's 8-bit Lab -> linear RGB levels, both [b, h, w, 3] int32: cv2.COLOR_Lab2LRGB.

    OpenCV cuts off here where it should round, so levels come out half a step too dark and 255 never does.
    """
    y, root = (jnp.asarray(table)[lab[..., 0]] for table in _lightnesses())
    x = _cube(root + ((5 * 53687 * lab[..., 1] + 128) >> 13) - 128 * 16384 // 500)
    z = _cube(root - ((41943 * lab[..., 2] + 16) >> 9) + 128 * 16384 // 200 - 1)
    linear = [_descale(_dot(row, jnp.stack([x, y, z], -1)), 14) for row in _TO_RGB]
    return 255 * jnp.clip(jnp.stack(linear, -1), 0, 4095) >> 12


def _cube(root: Array) -> Array:
    """The inverse of CIE's cube root, both int32 with 14 bits after the point."""
    return jnp.where(root <= 3390, jax.lax.div(108 * root, 841) - 290, (root * root >> 14) * root >> 14)


def _dot(row: Sequence[int], x: Array) -> Array:
    """A row of three whole numbers times the channels of x [..., 3] int32: [...]."""
    return row[0] * x[..., 0] + row[1] * x[..., 1] + row[2] * x[..., 2]


def _descale(x: Array, bits: int) -> Array:
    """x / 2^bits, rounded to the nearest whole number, halves up."""
    return (x + (1 << (bits - 1))) >> bits
