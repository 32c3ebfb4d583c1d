"""Convolutions, resampled or of stride 2, and their gradients in the forms that XLA computes fast. NHWC.

Public functions choose by platform; no choice changes a function beyond rounding. On GPU, point 2 holds, too,
and the functions of stride 2 (`_strided`, `_transposed`, `_tap_sums`) are written such that XLA sees cuDNN's
own three in them: an output and its two gradients. It does not in what autodiff makes of dilated ones.

On CPU five things cost most of a training step:

1. Gradients. XLA's CPU backend brings convolutions into its one fast order of dimensions in a program's entry
   computation only. In a loop's body (every `lax.scan` over steps) the orders that autodiff asks for, with
   kernels transposed or batch and channels swapped, run 5 to 200 times slower. Here gradients are written out
   as convolutions in the fast order.
2. Resampling. A 3x3 kernel after nearest upsampling sees each pixel several times: four 2x2 kernels, one per
   output phase, do the same with 4/9 of the products and no large intermediate. Likewise a 3x3 kernel and 2x2
   averaging are one 4x4 kernel of stride 2.
3. Pictures. Convolutions from or to three channels run at a tenth of the speed of others. To three, they are
   a matrix product and shifts; from three, a channel of zeros is added, and outputs up to NARROW.
4. Small maps of many channels, where kernels are larger than maps: the products that see zeros are a third of
   all, and kernels are turned at the cost of half a convolution. They are products with gathered patches.
5. Larger maps of many channels, where products are all that counts: four ninths to nine sixteenths of them do
   (`models/winograd.py`).
"""

import contextlib
import contextvars
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdog.ops import matmul, winograd

Array = jax.Array
Pads = tuple[tuple[int, int], tuple[int, int]]  # zeros before and after: of the height, of the width

RESAMPLE = ("none", "up", "down")
COLOURS = 3  # channels of a picture
NARROW = 32  # channels from which on XLA's fast convolution for CPUs is taken
SMALL, DEEP = 4 * 4, 512 * 512  # pixels of a map, and products of a tap, for which patches are gathered
SEVERAL, MANY = 256, 64  # outputs, and channels on both sides, from which on products are saved
AT_ONCE = 2**18  # numbers of the larger operand of a kernel's gradient that are summed over at a time
LARGEST = 4  # height of a layer's kernel; the "kernels" of gradients' sums are whole maps


def conv2d(x: Array, kernel: Array, resample: str = "none") -> Array:
    """x [b, h, w, c] * kernel [n, n, c, k] -> [b, h, w, k]: cross-correlation with zeros around x.

    Args:
      x: [b, h, w, c].
      kernel: [n, n, c, k]; the odd zero of an even n comes after.
      resample: "none", "up" (nearest to [2h, 2w], then the convolution) or "down" (the convolution, then the
        mean of 2x2 cells, [h/2, w/2]).

    Any number of reverse-mode derivatives may be taken; forward mode is not there on CPU, nor on GPU if x is
    resampled.
    """
    if resample not in RESAMPLE:
        raise ValueError(f"resample is {resample!r}; choices: {', '.join(RESAMPLE)}")
    if resample == "down":
        _cells(x)  # complains of odd sides
    size = kernel.shape[0]
    if size == 1:  # commutes with both; the cheap order
        x = avg_pool(x) if resample == "down" else x
        y = _pointwise(x, kernel)
        return upsample_nearest(y) if resample == "up" else y
    if size == 3 and resample == "up" and _chooses():
        return transposed(x, _widened(kernel, UP))
    if size == 3 and resample == "down" and _chooses():
        return strided(x, _widened(kernel, DOWN))
    x = upsample_nearest(x) if resample == "up" else x
    y = (_conv_cpu if jax.default_backend() == "cpu" else _conv)(x, kernel, (same(size), same(size)))
    return avg_pool(y) if resample == "down" else y


def _chooses() -> bool:
    """Whether this platform is one whose forms are written out here."""
    return jax.default_backend() in ("cpu", "gpu")


def same(size: int) -> tuple[int, int]:
    """The zeros before and after that keep a length under a kernel of `size`."""
    return (size - 1) // 2, size // 2


# Resampling -------------------------------------------------------------------------------------------------


def upsample_nearest(x: Array) -> Array:
    """[b, h, w, c] -> [b, 2h, 2w, c], each pixel repeated 2x2."""
    b, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)


def avg_pool(x: Array) -> Array:
    """[b, h, w, c] -> [b, h/2, w/2, c], the mean of each 2x2 cell."""
    return _cells(x).mean((2, 4))


def max_pool(x: Array) -> Array:
    """[b, h, w, c] -> [b, h/2, w/2, c], the maximum of each 2x2 cell."""
    return _cells(x).max((2, 4))


def blur(x: Array) -> Array:
    """Each channel of [b, h, w, c] weighted (1, 2, 1) / 4 along h and along w, zeros around.

    After `upsample_nearest`, and before `avg_pool`, it makes the filter (1, 3, 3, 1) of them.
    """
    for axis in (1, 2):
        n = x.shape[axis]
        wide = jnp.pad(x, [(1, 1) if i == axis else (0, 0) for i in range(4)])
        before, here, after = (lax.slice_in_dim(wide, i, i + n, axis=axis) for i in range(3))
        x = 0.25 * (before + after) + 0.5 * here
    return x


def _cells(x: Array) -> Array:
    """[b, h, w, c] -> [b, h/2, 2, w/2, 2, c]."""
    b, h, w, c = x.shape
    if h % 2 or w % 2:
        raise ValueError(f"2x2 pooling needs an even height and width, got {h}x{w}")
    return x.reshape(b, h // 2, 2, w // 2, 2, c)


# One resolution ---------------------------------------------------------------------------------------------


def _conv(x: Array, kernel: Array, pads: Pads, stride: int = 1) -> Array:
    """x [b, h, w, c] * kernel [n, m, c, k]; on CPU the three channels of pictures are treated apart."""
    size, _, c, k = kernel.shape
    if jax.default_backend() == "cpu" and size <= LARGEST:
        if k <= COLOURS and stride == 1:
            return _shifted(x, kernel, pads)
        if stride == 1 and _deep(x.shape, c, k):
            return jnp.tensordot(_patches(x, kernel.shape, pads), kernel.reshape(-1, k), 1)
        if stride == 1 and kernel.shape[:2] == (3, 3) and _saves(x, _sides(x, kernel.shape, pads), c, k):
            return winograd.conv(x, kernel, pads)
        if c <= COLOURS and k <= NARROW:
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, COLOURS + 1 - c)))
            kernel = jnp.pad(kernel, ((0, 0), (0, 0), (0, COLOURS + 1 - c), (0, NARROW - k)))
            return _plain(x, kernel, pads, stride)[..., :k]
    return _plain(x, kernel, pads, stride)


def _plain(x: Array, kernel: Array, pads: Pads, stride: int) -> Array:
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _deep(maps: tuple[int, ...], c: int, k: int) -> bool:
    """Whether patches are gathered from maps [b, h, w, ...], c channels to k."""
    return maps[1] * maps[2] <= SMALL and c * k >= DEEP


_written_out = contextvars.ContextVar("written_out", default=False)


@contextlib.contextmanager
def written_out() -> Iterator[None]:
    """What is traced within saves no products: to count operations, whatever becomes of them."""
    before = _written_out.set(True)
    try:
        yield
    finally:
        _written_out.reset(before)


def saving() -> bool:
    """Whether products are saved, and kernels' gradients added up in loops, at all.

    Not where pictures are dealt out over devices: kernels' gradients would travel before they are added up.
    """
    return jax.default_backend() == "cpu" and jax.device_count() == 1 and not _written_out.get()


def _saves(x: Array, outputs: tuple[int, ...], c: int, k: int) -> bool:
    """Whether a convolution of c channels to k, to so many rows and columns, is worth Winograd's sums."""
    h, w = outputs
    fits = not (h % 2 or w % 2) and x.dtype == jnp.float32
    return saving() and fits and len(x) * h * w >= SEVERAL and min(c, k) >= MANY


def _sides(x: Array, kernel: tuple[int, ...], pads: Pads) -> tuple[int, int]:
    """Rows and columns of maps x [b, h, w, c] after a kernel [n, m, ...] of stride 1."""
    return x.shape[1] + sum(pads[0]) - kernel[0] + 1, x.shape[2] + sum(pads[1]) - kernel[1] + 1


def _patches(x: Array, kernel: tuple[int, ...], pads: Pads) -> Array:
    """x [b, h, w, c] -> [b, h', w', n m c]: what each output of a kernel [n, m, c, k] sees."""
    n, m = kernel[:2]
    h, w = _sides(x, kernel, pads)
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    return jnp.concatenate([x[:, i : i + h, j : j + w] for i in range(n) for j in range(m)], -1)


def _shifted(x: Array, kernel: Array, pads: Pads) -> Array:
    """`_conv` as one product with all taps, whose outputs are then shifted by their taps and added."""
    n, m, c, k = kernel.shape
    taps = jnp.matmul(x, kernel.transpose(2, 0, 1, 3).reshape(c, n * m * k))
    return _added(taps, [(i, j) for i in range(n) for j in range(m)], pads)


def _added(taps: Array, places: list[tuple[int, int]], pads: Pads) -> Array:
    """Outputs of all taps [b, h, w, n m k], each seen from its place among zeros, added: [b, h', w', k]."""
    taps = jnp.pad(taps, ((0, 0), *pads, (0, 0)))
    (n, m), k = (max(side) for side in zip(*places, strict=True)), taps.shape[-1] // len(places)
    h, w = taps.shape[1] - n, taps.shape[2] - m
    parts = [taps[:, i : i + h, j : j + w, t * k : t * k + k] for t, (i, j) in enumerate(places)]
    return sum(parts[1:], parts[0])


def _pointwise(x: Array, kernel: Array) -> Array:
    return jnp.einsum("bhwc,ck->bhwk", x, kernel[0, 0])


def _turned(kernel: Array) -> Array:
    """[n, n, c, k] -> [n, n, k, c], rotated by 180 degrees: the kernel of the transposed convolution."""
    return kernel[::-1, ::-1].swapaxes(2, 3)


def _back(kernel: tuple[int, ...], pads: Pads) -> Pads:
    """The zeros of the transposed convolution."""
    (top, bottom), (left, right) = pads
    h, w = kernel[0] - 1, kernel[1] - 1
    return (h - top, h - bottom), (w - left, w - right)


def _returned(g: Array, kernel: Array, pads: Pads) -> Array:
    """Gradient [b, h, w, c] of <_conv(x, kernel), g>, g [b, h', w', k]."""
    n, m, c, k = kernel.shape
    back = _back(kernel.shape, pads)
    if not _deep(g.shape, c, k):
        if kernel.shape[:2] == (3, 3) and _saves(g, _sides(g, kernel.shape, back), c, k):
            return winograd.returned(g, kernel, back)
        return _conv(g, _turned(kernel), back)
    taps = lax.dot_general(g, kernel.reshape(n * m * c, k), (((3,), (1,)), ((), ())))
    return _added(taps, [(n - 1 - i, m - 1 - j) for i in range(n) for j in range(m)], back)


def _kernel_sum(x: Array, g: Array, pads: Pads) -> Array:
    """Gradient [n, n, c, k] of <_conv(x, kernel), g>, x [b, h, w, c], g [b, h', w', k]: a sum over b.

    Of large maps a few pictures at a time, which stay in a core's cache.
    """
    size = _sides(x, g.shape[1:], pads)
    c, k = x.shape[-1], g.shape[-1]
    if _deep(x.shape, c, k):
        found = jnp.tensordot(_patches(x, size, pads), g, ((0, 1, 2), (0, 1, 2)))
        return found.reshape(*size, c, k)
    if size == (3, 3) and _saves(x, g.shape[1:3], c, k):
        return winograd.kernel_sum(x, g, pads)
    b = len(x)
    few = max(1, AT_ONCE * b // max(x.size, g.size)) if saving() else b
    parts = next(n for n in range(1, b + 1) if b % n == 0 and b // n <= few)
    return matmul.in_parts(lambda x, g: _kernel_sum_of_few(x, g, pads), x, g, parts)


def _kernel_sum_of_few(x: Array, g: Array, pads: Pads) -> Array:
    """`_kernel_sum` as a convolution whose "channels" are the batch.

    The channels of its first operand have to come to the front, which is dear: the narrower of the two is
    taken.
    """
    if x.shape[-1] <= g.shape[-1]:
        return _conv(x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3), pads).transpose(1, 2, 0, 3)
    size = _sides(x, g.shape[1:], pads)
    turned = _conv(g.transpose(3, 1, 2, 0), x.transpose(1, 2, 0, 3), _back(size, pads))
    return turned[:, ::-1, ::-1].transpose(1, 2, 3, 0)


# <conv(x, kernel), g> is linear in each of the three: gradients of the gradients are these functions again.
_conv_cpu = matmul.with_gradients(
    lambda x, kernel, pads: _conv(x, kernel, pads),
    lambda kernel, g, pads: _input_gradient(g, kernel, pads),
    lambda x, g, pads: _kernel_gradient(x, g, pads),
    static=1,
)
_input_gradient = matmul.with_gradients(
    _returned,
    lambda kernel, x, pads: _conv_cpu(x, kernel, pads),
    lambda g, x, pads: _kernel_gradient(x, g, pads),
    static=1,
)
_kernel_gradient = matmul.with_gradients(
    _kernel_sum,
    lambda g, kernel, pads: _input_gradient(g, kernel, pads),
    lambda x, kernel, pads: _conv_cpu(x, kernel, pads),
    static=1,
)


# Two resolutions --------------------------------------------------------------------------------------------

# 4x4 kernels of stride 2 with one zero around, and their transposes. Row j of a strided one's output sees row
# 2j - 1 + t through tap t. Row 2i + p of a transposed one's sees row i + p - 1 + t through TAPS[p, t]: one
# 2x2 kernel for each phase (p, q), without the zeros between pixels that transposing is often written with.
TAPS = np.array([[3, 1], [2, 0]])
PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))
# The 4x4 kernel of a 3x3 one: mean of the output rows 2j and 2j + 1 (DOWN), nearest upsampling before (UP).
DOWN = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]], np.float32) / 2
UP = 2 * DOWN[::-1]


def strided(x: Array, kernel: Array) -> Array:
    """x [b, h, w, c] * kernel [4, 4, c, k] -> [b, h/2, w/2, k]: stride 2, one zero around x.

    torch's `Conv2d(c, k, 4, 2, 1)`, whose weight is [k, c, 4, 4].
    """
    _cells(x)  # complains of odd sides
    return (_strided_own if _chooses() else _strided)(x, kernel)


def transposed(x: Array, kernel: Array) -> Array:
    """x [b, h, w, c], kernel [4, 4, c, k] -> [b, 2h, 2w, k]: the transpose of a strided convolution.

    torch's `ConvTranspose2d(c, k, 4, 2, 1)`, whose weight is [c, k, 4, 4].
    """
    return (_transposed_own if _chooses() else _transposed)(x, kernel)


def _widened(kernel: Array, rows: np.ndarray) -> Array:
    """[3, 3, c, k] -> [4, 4, c, k], by UP or DOWN."""
    tall = winograd.sums(rows, list(kernel))
    return winograd.sums(rows, [tall[:, j] for j in range(3)], 1)


def _swapped(kernel: Array) -> Array:
    return kernel.swapaxes(2, 3)


def _phase_pads(p: int, q: int) -> Pads:
    return (1 - p, p), (1 - q, q)


def _strided(x: Array, kernel: Array) -> Array:
    c, k = kernel.shape[2:]
    if _saves(x, (x.shape[1] // 2, x.shape[2] // 2), c, k // 2):
        return winograd.strided(x, kernel)
    return _conv(x, kernel, ((1, 1), (1, 1)), stride=2)


def _transposed(x: Array, kernel: Array) -> Array:
    b, h, w, c = x.shape
    if jax.default_backend() == "gpu":
        big = jax.ShapeDtypeStruct((b, 2 * h, 2 * w, kernel.shape[-1]), x.dtype)
        return jax.linear_transpose(lambda y: _strided(y, _swapped(kernel)), big)(x)[0]
    if _saves(x, (h, w), c, 4 * kernel.shape[-1]):
        return winograd.transposed(x, _swapped(kernel))
    return _phases(x, kernel)


def _phases(x: Array, kernel: Array) -> Array:
    """`_transposed` as a convolution for each phase."""
    b, h, w, _ = x.shape
    phases = [_conv(x, kernel[TAPS[p]][:, TAPS[q]], _phase_pads(p, q)) for p, q in PHASES]
    rows = [jnp.stack(phases[:2], 3), jnp.stack(phases[2:], 3)]  # [b, h, w, 2, k]
    return jnp.stack(rows, 2).reshape(b, 2 * h, 2 * w, -1)


def _tap_sums(y: Array, x: Array) -> Array:
    """Gradient [4, 4, c, k] of <_strided(y, kernel), x>, y [b, 2h, 2w, c], x [b, h, w, k]."""
    if jax.default_backend() == "gpu":
        sums = jax.ShapeDtypeStruct((4, 4, y.shape[-1], x.shape[-1]), x.dtype)
        return jax.linear_transpose(lambda kernel: _strided(y, kernel), sums)(x)[0]
    if _saves(y, x.shape[1:3], y.shape[-1], x.shape[-1] // 2):
        return winograd.tap_sums(y, x)
    cells = _cells(y)
    phases = [_kernel_sum(x, cells[:, :, p, :, q], _phase_pads(p, q)) for p, q in PHASES]  # [2, 2, k, c]
    taps = np.argsort(TAPS.ravel())  # of tap t: its place among (p, t) in order
    small = jnp.stack(phases).reshape(2, 2, 2, 2, x.shape[-1], y.shape[-1]).transpose(0, 2, 1, 3, 5, 4)
    return small.reshape(4, 4, y.shape[-1], x.shape[-1])[taps][:, taps]


_strided_own = matmul.with_gradients(
    _strided, lambda kernel, g: _transposed_own(g, _swapped(kernel)), lambda x, g: _tap_gradient(x, g)
)
_transposed_own = matmul.with_gradients(
    _transposed,
    lambda kernel, g: _strided_own(g, _swapped(kernel)),
    lambda x, g: _swapped(_tap_gradient(g, x)),
)
_tap_gradient = matmul.with_gradients(
    _tap_sums,
    lambda x, kernel: _transposed_own(x, _swapped(kernel)),
    lambda y, kernel: _strided_own(y, kernel),
)
