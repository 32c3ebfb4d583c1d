"""2-D convolutions with stride 1, resampled by two, or with stride 2, fast on each platform. NHWC.

`IMPLEMENTATIONS` has one row per platform: `conv_xla` leaves everything to XLA, `conv_gpu` adds its own
gradients of strided convolutions, and `conv_cpu` chooses among several methods by the shapes. All compute the
same function up to rounding.

Resampling and a 3x3 kernel are fused on CPU and GPU. After nearest upsampling, a 3x3 kernel reads each pixel
several times: a transposed convolution with a 4x4 kernel computes the same with 4/9 of the products and
without the upsampled input. A 3x3 kernel before 2x2 averaging is a strided convolution with a 4x4 kernel.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdog.ops import conv_cpu, conv_gpu, conv_xla, resample2x, winograd
from jaxdog.utils import errors

Array = jax.Array

RESAMPLE = ("none", "up", "down")
# Maps the rows of a 3x3 kernel to those of the 4x4 one, before 2x2 averaging or after nearest upsampling.
DOWN = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]], np.float32) / 2
UP = 2 * DOWN[::-1]


class Implementation(NamedTuple):
    """How a platform computes convolutions."""

    conv: Callable[[Array, Array, conv_xla.Pads], Array]  # stride 1
    strided: Callable[[Array, Array], Array]  # 4x4, stride 2
    transposed: Callable[[Array, Array], Array]  # 4x4, the transpose of `strided` with c and k exchanged
    fuses_resampling: bool  # whether resampled 3x3 kernels become 4x4 ones of stride 2


IMPLEMENTATIONS = {
    "cpu": Implementation(conv_cpu.conv, conv_cpu.strided, conv_cpu.transposed, True),
    "gpu": Implementation(conv_xla.conv, conv_gpu.strided, conv_gpu.transposed, True),
}
DEFAULT_IMPLEMENTATION = Implementation(conv_xla.conv, conv_xla.strided, conv_xla.transposed, False)


def conv2d(x: Array, kernel: Array, resample: str = "none") -> Array:
    """x [b, h, w, c] * kernel [n, n, c, k] -> [b, h, w, k]: cross-correlation with zero padding.

    Args:
      x: [b, h, w, c].
      kernel: [n, n, c, k]; if n is even, the padding is one larger after than before.
      resample: "none", "up" (nearest upsampling to [2h, 2w] before the convolution) or "down" (2x2 average
        pooling to [h/2, w/2] after it).

    Any number of reverse-mode derivatives may be taken. Forward mode is not supported on CPU, nor on GPU if x
    is resampled.

    Raises:
      UserError: an unknown `resample`, or "down" with an odd height or width.
    """
    if resample not in RESAMPLE:
        raise errors.UserError(f"resample is {resample!r}; choices: {', '.join(RESAMPLE)}")
    if resample == "down":
        resample2x.split_cells(x)  # raises if a side is odd
    kernel_size, implementation = kernel.shape[0], _implementation()
    if kernel_size == 1:  # commutes with resampling: convolve at the lower resolution
        x = resample2x.avg_pool(x) if resample == "down" else x
        y = jnp.einsum("bhwc,ck->bhwk", x, kernel[0, 0])
        return resample2x.upsample_nearest(y) if resample == "up" else y
    if kernel_size == 3 and implementation.fuses_resampling:
        if resample == "up":
            return implementation.transposed(x, _widen(kernel, UP))
        if resample == "down":
            return implementation.strided(x, _widen(kernel, DOWN))
    x = resample2x.upsample_nearest(x) if resample == "up" else x
    y = implementation.conv(x, kernel, (same_padding(kernel_size), same_padding(kernel_size)))
    return resample2x.avg_pool(y) if resample == "down" else y


def strided(x: Array, kernel: Array) -> Array:
    """x [b, h, w, c] * kernel [4, 4, c, k] -> [b, h/2, w/2, k]: stride 2, zero padding of 1.

    torch's `Conv2d(c, k, 4, 2, 1)`, whose weight is [k, c, 4, 4]. Raises UserError if h or w is odd.
    """
    resample2x.split_cells(x)  # raises if a side is odd
    return _implementation().strided(x, kernel)


def transposed(x: Array, kernel: Array) -> Array:
    """x [b, h, w, c], kernel [4, 4, c, k] -> [b, 2h, 2w, k]: the transpose of a strided convolution.

    torch's `ConvTranspose2d(c, k, 4, 2, 1)`, whose weight is [c, k, 4, 4].
    """
    return _implementation().transposed(x, kernel)


def same_padding(kernel_size: int) -> tuple[int, int]:
    """The zero padding (before, after) that keeps the length of an axis."""
    return (kernel_size - 1) // 2, kernel_size // 2


def _implementation() -> Implementation:
    return IMPLEMENTATIONS.get(jax.default_backend(), DEFAULT_IMPLEMENTATION)


def _widen(kernel: Array, rows: np.ndarray) -> Array:
    """[3, 3, c, k] -> [4, 4, c, k], by UP or DOWN along both axes."""
    tall = winograd.combine(rows, list(kernel))
    return winograd.combine(rows, [tall[:, j] for j in range(3)], 1)
