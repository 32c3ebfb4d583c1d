"""Convolutions as XLA computes them, and the transposed convolution by phases. NHWC.

A strided convolution here has a 4x4 kernel, stride 2 and zero padding of 1, as torch's
`Conv2d(c, k, 4, 2, 1)`. The transposed one is its transpose, torch's `ConvTranspose2d(c, k, 4, 2, 1)`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Array = jax.Array
Pads = tuple[tuple[int, int], tuple[int, int]]  # zero padding (before, after) of the height, of the width

# Row 2i + p of the transposed convolution's output is a sum over t of row i + p - 1 + t of the input times
# row TAPS[p, t] of the kernel. Each phase (p, q) of the output is a convolution with a 2x2 kernel of its own.
TAPS = np.array([[3, 1], [2, 0]])
PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))


def conv(x: Array, kernel: Array, pads: Pads) -> Array:
    """x [b, h, w, c] * kernel [n, m, c, k] -> [b, h', w', k]: cross-correlation with stride 1."""
    return _conv(x, kernel, pads, 1)


def strided(x: Array, kernel: Array) -> Array:
    """x [b, h, w, c] * kernel [4, 4, c, k] -> [b, h/2, w/2, k]: stride 2, zero padding of 1."""
    return _conv(x, kernel, ((1, 1), (1, 1)), 2)


def transposed(x: Array, kernel: Array, conv: Callable[[Array, Array, Pads], Array] = conv) -> Array:
    """x [b, h, w, c], kernel [4, 4, c, k] -> [b, 2h, 2w, k]: one convolution for each phase of the output.

    Unlike in the definition by dilation, no zeros are inserted between pixels, which would be factors of
    three in four products.
    """
    b, h, w, _ = x.shape
    phases = [conv(x, kernel[TAPS[p]][:, TAPS[q]], phase_pads(p, q)) for p, q in PHASES]
    rows = [jnp.stack(phases[:2], 3), jnp.stack(phases[2:], 3)]  # [b, h, w, 2, k]
    return jnp.stack(rows, 2).reshape(b, 2 * h, 2 * w, -1)


def phase_pads(p: int, q: int) -> Pads:
    """The zero padding of the input of phase (p, q)."""
    return (1 - p, p), (1 - q, q)


def swap_channels(kernel: Array) -> Array:
    """[n, m, c, k] -> [n, m, k, c]: between the kernels of a strided and of its transposed convolution."""
    return kernel.swapaxes(2, 3)


def _conv(x: Array, kernel: Array, pads: Pads, stride: int) -> Array:
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
