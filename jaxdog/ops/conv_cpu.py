"""Convolutions on CPU, by one of several methods that the shapes decide. NHWC.

Four things decide how fast XLA's CPU backend is:

1. Layouts. XLA converts convolutions to its fast layout in a program's entry computation only. In the body of
   a loop (every `lax.scan` over training steps) the layouts that autodiff produces, with kernels transposed
   or batch and channels exchanged, are 5 to 200 times slower. Here the gradients are convolutions in the
   fast layout.
2. Images. Convolutions from or to three channels run at a tenth of the usual speed. To three channels, they
   are computed as one matrix product and shifts. From three channels, the input is padded with zeros to four
   channels and the output to 32.
3. Small maps with many channels. A third of the products have a factor from the padding, and rotating the
   kernel costs half a convolution. These are computed as matrix products with gathered patches (im2col).
4. Larger maps with many channels. Winograd's algorithm saves 5/9 of the products of a 3x3 kernel, and 7/16 of
   those of a 4x4 kernel with stride 2.

`METHODS` is the table of methods with stride 1; `_choose` selects one.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdog.ops import bilinear, conv_xla, resample2x, winograd

Array = jax.Array
Pads = conv_xla.Pads

IMAGE_CHANNELS = 3
PADDED_FEATURES = 32  # least output channels for which XLA uses its fast convolution
PATCHES_MAX_PIXELS = 4 * 4  # largest h * w of a map whose patches are gathered
PATCHES_MIN_CHANNEL_PRODUCT = 512 * 512  # least c * k of such a convolution
WINOGRAD_MIN_OUTPUTS = 256  # least b * h * w
WINOGRAD_MIN_CHANNELS = 64  # least of c and of k
WEIGHT_GRAD_CHUNK = 2**18  # elements of the larger operand that fit a core's cache
MAX_KERNEL_SIZE = 4  # of a layer; the larger "kernels" of weight gradients are whole maps

_direct_only = contextvars.ContextVar("direct_only", default=False)


@contextlib.contextmanager
def direct_only() -> Iterator[None]:
    """Context in which convolutions are traced without Winograd's algorithm and loops, to count FLOPs."""
    before = _direct_only.set(True)
    try:
        yield
    finally:
        _direct_only.reset(before)


def may_reduce_products() -> bool:
    """Whether Winograd's algorithm and loops over chunks may be used (FLOP counts are then too low).

    Only on a single CPU device. With several devices, Winograd's weight gradients would be communicated
    before they are summed.
    """
    return jax.default_backend() == "cpu" and jax.device_count() == 1 and not _direct_only.get()


# Stride 1 ---------------------------------------------------------------------------------------------------


def _conv(x: Array, kernel: Array, pads: Pads) -> Array:
    """x [b, h, w, c] * kernel [n, m, c, k] -> [b, h', w', k]."""
    n, _, c, k = kernel.shape
    if n > MAX_KERNEL_SIZE:
        return conv_xla.conv(x, kernel, pads)
    if k <= IMAGE_CHANNELS:
        return _shift_and_add(x, kernel, pads)
    outputs = _output_size(x, kernel.shape, pads)
    return METHODS[_choose(x, kernel.shape[:2], outputs, c, k)].conv(x, kernel, pads)


def _input_grad(g: Array, kernel: Array, pads: Pads) -> Array:
    """Gradient [b, h, w, c] of <conv(x, kernel, pads), g> with respect to x; g [b, h', w', k]."""
    c, k = kernel.shape[2:]
    outputs = _output_size(g, kernel.shape, _transposed_pads(kernel.shape, pads))
    return METHODS[_choose(g, kernel.shape[:2], outputs, c, k)].input_grad(g, kernel, pads)


def _weight_grad(x: Array, g: Array, pads: Pads) -> Array:
    """Gradient [n, m, c, k] of <conv(x, kernel, pads), g> with respect to the kernel.

    x: [b, h, w, c].
    g: [b, h', w', k].
    """
    size = _output_size(x, g.shape[1:], pads)
    return METHODS[_choose(x, size, g.shape[1:3], x.shape[-1], g.shape[-1])].weight_grad(x, g, pads)


def _choose(x: Array, kernel_size: tuple[int, ...], outputs: tuple[int, ...], c: int, k: int) -> str:
    """The method for maps x [b, h, w, ...], a kernel of [n, m, c, k] and `outputs` (rows, columns)."""
    if x.shape[1] * x.shape[2] <= PATCHES_MAX_PIXELS and c * k >= PATCHES_MIN_CHANNEL_PRODUCT:
        return "patches"
    if tuple(kernel_size) == (3, 3) and _suits_winograd(x, outputs, c, k):
        return "winograd"
    return "direct"


def _suits_winograd(x: Array, outputs: tuple[int, ...], c: int, k: int) -> bool:
    """Whether Winograd's algorithm is faster for c channels to k, to `outputs` (rows, columns)."""
    h, w = outputs
    fits = not (h % 2 or w % 2) and x.dtype == jnp.float32
    large = len(x) * h * w >= WINOGRAD_MIN_OUTPUTS and min(c, k) >= WINOGRAD_MIN_CHANNELS
    return may_reduce_products() and fits and large


def _output_size(x: Array, kernel: tuple[int, ...], pads: Pads) -> tuple[int, int]:
    """Rows and columns of maps x [b, h, w, c] after a kernel [n, m, ...]."""
    return x.shape[1] + sum(pads[0]) - kernel[0] + 1, x.shape[2] + sum(pads[1]) - kernel[1] + 1


def _transposed_pads(kernel: tuple[int, ...], pads: Pads) -> Pads:
    """The zero padding of the transposed convolution, with a kernel [n, m, ...]."""
    (top, bottom), (left, right) = pads
    h, w = kernel[0] - 1, kernel[1] - 1
    return (h - top, h - bottom), (w - left, w - right)


# To three channels: shift and add --------------------------------------------------------------------------


def _shift_and_add(x: Array, kernel: Array, pads: Pads) -> Array:
    """One matrix product of all pixels with all taps; the results are shifted by their taps and added."""
    n, m, c, k = kernel.shape
    products = jnp.matmul(x, kernel.transpose(2, 0, 1, 3).reshape(c, n * m * k))
    return _add_shifted(products, [(i, j) for i in range(n) for j in range(m)], pads)


def _add_shifted(products: Array, offsets: list[tuple[int, int]], pads: Pads) -> Array:
    """[b, h, w, taps * k] -> [b, h', w', k]: the sum over taps, each read at its offset in the padded map."""
    products = jnp.pad(products, ((0, 0), *pads, (0, 0)))
    (n, m), k = (max(side) for side in zip(*offsets, strict=True)), products.shape[-1] // len(offsets)
    h, w = products.shape[1] - n, products.shape[2] - m
    parts = [products[:, i : i + h, j : j + w, t * k : t * k + k] for t, (i, j) in enumerate(offsets)]
    return sum(parts[1:], parts[0])


# Direct: XLA's convolution ----------------------------------------------------------------------------------


def _direct(x: Array, kernel: Array, pads: Pads) -> Array:
    return _fill_channels(lambda x, kernel: conv_xla.conv(x, kernel, pads), x, kernel)


def _fill_channels(conv: Callable[[Array, Array], Array], x: Array, kernel: Array) -> Array:
    """conv(x, kernel); for images, x is zero-padded to four channels and the output to PADDED_FEATURES."""
    c, k = kernel.shape[2:]
    if c > IMAGE_CHANNELS or k > PADDED_FEATURES:
        return conv(x, kernel)
    x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, IMAGE_CHANNELS + 1 - c)))
    kernel = jnp.pad(kernel, ((0, 0), (0, 0), (0, IMAGE_CHANNELS + 1 - c), (0, PADDED_FEATURES - k)))
    return conv(x, kernel)[..., :k]


def _direct_input_grad(g: Array, kernel: Array, pads: Pads) -> Array:
    """A convolution with the kernel rotated by 180 degrees."""
    rotated = kernel[::-1, ::-1].swapaxes(2, 3)
    return _conv(g, rotated, _transposed_pads(kernel.shape, pads))


def _direct_weight_grad(x: Array, g: Array, pads: Pads) -> Array:
    """A sum over the batch; large maps are summed a few images at a time, to stay in a core's cache."""
    b = len(x)
    chunk = max(1, WEIGHT_GRAD_CHUNK * b // max(x.size, g.size)) if may_reduce_products() else b
    chunks = next(n for n in range(1, b + 1) if b % n == 0 and b // n <= chunk)
    return bilinear.sum_over_chunks(lambda x, g: _batch_as_channels(x, g, pads), x, g, chunks)


def _batch_as_channels(x: Array, g: Array, pads: Pads) -> Array:
    """The weight gradient as a convolution whose input channels are the batch.

    The channels of its first operand become the batch, and transposing it is expensive: the operand with
    fewer channels comes first.
    """
    if x.shape[-1] <= g.shape[-1]:
        return _conv(x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3), pads).transpose(1, 2, 0, 3)
    size = _output_size(x, g.shape[1:], pads)
    rotated = _conv(g.transpose(3, 1, 2, 0), x.transpose(1, 2, 0, 3), _transposed_pads(size, pads))
    return rotated[:, ::-1, ::-1].transpose(1, 2, 3, 0)


# Patches: small maps with many channels ---------------------------------------------------------------------


def _gather_patches(x: Array, kernel: tuple[int, ...], pads: Pads) -> Array:
    """x [b, h, w, c] -> [b, h', w', n m c]: the inputs of each output of a kernel [n, m, c, k]."""
    n, m = kernel[:2]
    h, w = _output_size(x, kernel, pads)
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    return jnp.concatenate([x[:, i : i + h, j : j + w] for i in range(n) for j in range(m)], -1)


def _patches(x: Array, kernel: Array, pads: Pads) -> Array:
    return jnp.tensordot(_gather_patches(x, kernel.shape, pads), kernel.reshape(-1, kernel.shape[-1]), 1)


def _patches_input_grad(g: Array, kernel: Array, pads: Pads) -> Array:
    n, m, c, k = kernel.shape
    products = lax.dot_general(g, kernel.reshape(n * m * c, k), (((3,), (1,)), ((), ())))
    offsets = [(n - 1 - i, m - 1 - j) for i in range(n) for j in range(m)]
    return _add_shifted(products, offsets, _transposed_pads(kernel.shape, pads))


def _patches_weight_grad(x: Array, g: Array, pads: Pads) -> Array:
    size = _output_size(x, g.shape[1:], pads)
    flat = jnp.tensordot(_gather_patches(x, size, pads), g, ((0, 1, 2), (0, 1, 2)))
    return flat.reshape(*size, x.shape[-1], g.shape[-1])


def _winograd_input_grad(g: Array, kernel: Array, pads: Pads) -> Array:
    return winograd.input_grad(g, kernel, _transposed_pads(kernel.shape, pads))


class Method(NamedTuple):
    """One way to compute a convolution with stride 1 and its two gradients."""

    conv: Callable[[Array, Array, Pads], Array]  # (x, kernel, pads) -> y
    input_grad: Callable[[Array, Array, Pads], Array]  # (g, kernel, pads) -> gradient w.r.t. x
    weight_grad: Callable[[Array, Array, Pads], Array]  # (x, g, pads) -> gradient w.r.t. the kernel


METHODS = {
    "direct": Method(_direct, _direct_input_grad, _direct_weight_grad),
    "patches": Method(_patches, _patches_input_grad, _patches_weight_grad),
    "winograd": Method(winograd.conv, _winograd_input_grad, winograd.weight_grad),
}
conv, input_grad, weight_grad = bilinear.conv_with_gradients(_conv, _input_grad, _weight_grad, static=1)


# Stride 2, kernels of 4x4 -----------------------------------------------------------------------------------


def _strided(x: Array, kernel: Array) -> Array:
    """x [b, h, w, c] * kernel [4, 4, c, k] -> [b, h/2, w/2, k]."""
    c, k = kernel.shape[2:]
    if _suits_winograd(x, (x.shape[1] // 2, x.shape[2] // 2), c, k // 2):
        return winograd.strided(x, kernel)
    return _fill_channels(conv_xla.strided, x, kernel)


def _strided_input_grad(g: Array, kernel: Array) -> Array:
    """Gradient [b, 2h, 2w, c] of <strided(x, kernel), g> with respect to x; g [b, h, w, k]."""
    if _suits_winograd(g, g.shape[1:3], g.shape[-1], 4 * kernel.shape[2]):
        return winograd.strided_input_grad(g, kernel)
    return conv_xla.transposed(g, conv_xla.swap_channels(kernel), _conv)


def _strided_weight_grad(x: Array, g: Array) -> Array:
    """Gradient [4, 4, c, k] of <strided(x, kernel), g> with respect to the kernel.

    x: [b, 2h, 2w, c].
    g: [b, h, w, k].
    """
    c, k = x.shape[-1], g.shape[-1]
    if _suits_winograd(x, g.shape[1:3], c, k // 2):
        return winograd.strided_weight_grad(x, g)
    cells = resample2x.split_cells(x)
    phases = [
        _weight_grad(g, cells[:, :, p, :, q], conv_xla.phase_pads(p, q)) for p, q in conv_xla.PHASES
    ]  # each [2, 2, k, c]
    order = np.argsort(conv_xla.TAPS.ravel())  # from (phase, tap of the phase) to the kernel's rows
    rows = jnp.stack(phases).reshape(2, 2, 2, 2, k, c).transpose(0, 2, 1, 3, 5, 4)
    return rows.reshape(4, 4, c, k)[order][:, order]


strided, strided_input_grad, _ = bilinear.conv_with_gradients(
    _strided, _strided_input_grad, _strided_weight_grad
)


def transposed(x: Array, kernel: Array) -> Array:
    """x [b, h, w, c], kernel [4, 4, c, k] -> [b, 2h, 2w, k]: the transpose of a strided convolution."""
    return strided_input_grad(x, conv_xla.swap_channels(kernel))
