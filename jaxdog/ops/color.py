"""Color transforms of images [b, h, w, 3] float32 in [-1, 1], and OpenCV's 8-bit Lab.

Brightness, contrast, saturation and hue follow torchvision and Pillow: each of the first three blends the
image with another one by a factor, where 1 returns the image itself, and clips the result to [-1, 1].
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxdog.types import Array

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, Pillow's conversion to mode "L"


def gray(image: Array) -> Array:
    """Luma, [b, h, w, 1] in [-1, 1]."""
    r, g, b = jnp.split(image, 3, -1)
    return LUMA[0] * r + LUMA[1] * g + LUMA[2] * b


def blend(image: Array, other: Array, factor: Array) -> Array:
    """factor * image + (1 - factor) * other, clipped to [-1, 1]; factor [b], other broadcasts to image."""
    factor = factor[:, None, None, None]
    return jnp.clip(factor * image + (1.0 - factor) * other, -1.0, 1.0)


def brightness(image: Array, factor: Array) -> Array:
    """Blends with black; factor [b] >= 0, 0 gives black."""
    return blend(image, jnp.full((1, 1, 1, 1), -1.0, image.dtype), factor)


def contrast(image: Array, factor: Array) -> Array:
    """Blends with the image's mean gray; factor [b] >= 0, 0 gives a constant image."""
    return blend(image, jnp.mean(gray(image), (1, 2, 3), keepdims=True), factor)


def saturation(image: Array, factor: Array) -> Array:
    """Blends with the grayscale image; factor [b] >= 0, 0 gives grayscale."""
    return blend(image, gray(image), factor)


def hue(image: Array, turn: Array) -> Array:
    """Rotates the hue in HSV by `turn` [b] full turns; 0.5 gives the complementary color."""
    r, g, b = jnp.split(image, 3, -1)
    value = jnp.maximum(jnp.maximum(r, g), b)
    chroma = value - jnp.minimum(jnp.minimum(r, g), b)
    divisor = jnp.where(chroma > 0.0, chroma, 1.0)
    sextant = jnp.where(  # the hue in units of 60 degrees
        value == r,
        (g - b) / divisor,
        jnp.where(value == g, (b - r) / divisor + 2.0, (r - g) / divisor + 4.0),
    )
    k = (sextant + 6.0 * turn[:, None, None, None] + jnp.array([5.0, 3.0, 1.0])[None, None, None]) % 6.0
    return value - chroma * jnp.clip(jnp.minimum(k, 4.0 - k), 0.0, 1.0)


# ------------------------------------------------------------------------------------- 8-bit Lab

# Linear RGB to XYZ with white point D65, in OpenCV's 12-bit fixed point.
_XYZ = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
)
_WHITE = np.array([0.950456, 1.0, 1.088754])
_TO_XYZ = np.rint(_XYZ / _WHITE[:, None] * 4096).astype(int).tolist()
_TO_RGB = np.rint(np.linalg.inv(_XYZ) * _WHITE * 4096).astype(int).tolist()
# CIE's f(t): the cube root above t = _LINEAR_UP_TO, linear with this slope and offset below.
_LINEAR_UP_TO, _SLOPE, _OFFSET = 216 / 24389, 841 / 108, 16 / 116


def _f_table() -> np.ndarray:
    """[3072] int32: CIE's f of i / 2040, in 15-bit fixed point."""
    x = np.arange(3072) / 2040
    return np.rint(32768 * np.where(x < _LINEAR_UP_TO, _SLOPE * x + _OFFSET, np.cbrt(x))).astype(np.int32)


def _lightness_tables() -> tuple[np.ndarray, np.ndarray]:
    """Y and f(Y) for each level of L, [256] int32, in 14-bit fixed point."""
    level = np.arange(256) * (100 / 255)
    y = np.where(level <= 8, level * (27 / 24389), ((level + 16) / 116) ** 3)
    f = np.where(level <= 8, _SLOPE * y + _OFFSET, (level + 16) / 116)
    return np.rint(16384 * y).astype(np.int32), np.rint(16384 * f).astype(np.int32)


def lab_from_rgb(levels: Array) -> Array:
    """Linear RGB levels -> OpenCV's 8-bit Lab, both [b, h, w, 3] int32 in 0..255 (cv2.COLOR_LRGB2Lab).

    L is scaled by 255 / 100; a and b are shifted by 128. Rounding is that of OpenCV's 15-bit fixed point.
    """
    index = (_descale(_dot(row, levels * 8), 12) for row in _TO_XYZ)
    x, y, z = (jnp.asarray(_f_table())[i] for i in index)
    lightness = _descale(296 * y - 1336934, 15)
    a, b = _descale(500 * (x - y), 15) + 128, _descale(200 * (y - z), 15) + 128
    return jnp.clip(jnp.stack([lightness, a, b], -1), 0, 255)


def rgb_from_lab(lab: Array) -> Array:
    """OpenCV's 8-bit Lab -> linear RGB levels, both [b, h, w, 3] int32 (cv2.COLOR_Lab2LRGB).

    OpenCV truncates here where it should round: levels come out half a step too dark, and 255 never occurs.
    """
    y, f = (jnp.asarray(table)[lab[..., 0]] for table in _lightness_tables())
    x = _inverse_f(f + ((5 * 53687 * lab[..., 1] + 128) >> 13) - 128 * 16384 // 500)
    z = _inverse_f(f - ((41943 * lab[..., 2] + 16) >> 9) + 128 * 16384 // 200 - 1)
    linear = [_descale(_dot(row, jnp.stack([x, y, z], -1)), 14) for row in _TO_RGB]
    return 255 * jnp.clip(jnp.stack(linear, -1), 0, 4095) >> 12


def _inverse_f(f: Array) -> Array:
    """The inverse of CIE's f; both are int32 in 14-bit fixed point."""
    return jnp.where(f <= 3390, jax.lax.div(108 * f, 841) - 290, (f * f >> 14) * f >> 14)


def _dot(row: Sequence[int], x: Array) -> Array:
    """The dot product of three integers and the channels of x [..., 3] int32: [...]."""
    return row[0] * x[..., 0] + row[1] * x[..., 1] + row[2] * x[..., 2]


def _descale(x: Array, bits: int) -> Array:
    """x / 2^bits, rounded to the nearest integer, ties upwards."""
    return (x + (1 << (bits - 1))) >> bits
