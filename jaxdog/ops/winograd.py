"""Convolutions with fewer products: Winograd's minimal filtering. NHWC.

2x2 outputs of a 3x3 kernel see 4x4 pixels. Written out they are 36 products a channel; with sums before and
after, 16 do, and with a 2x2 kernel 9 in place of 16. As each of those places in a tile goes through channels
by itself, there is one matrix product per place: y = A [(G k G^T) (B x B^T)] A^T (Lavin and Gray 2016, eq. 8;
their A and B are ours transposed). The sums are small next to the products where both sides have many
channels. Rounding is that of another order of sums, as the matrices hold 0, 1 and 1/2 alone.

Gradients are the same parts transposed: <y, g> is a sum over places, pictures and channels of U V D, with
U = G k G^T of the kernel, V = B x B^T of the pixels and D = A^T g A of the outputs.

A 4x4 kernel of stride 2 is a 2x2 kernel over cells, the four pixels of a cell being its channels.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdog.ops import matmul

Array = jax.Array
Places = Array  # [column, row, ...]: what stands in each place of a tile
Pads = tuple[tuple[int, int], tuple[int, int]]

TILES = 256  # that are gone through at a time, at least
# By the kernel's height: what is added up of pixels, of a kernel, and for outputs.
B = {
    2: np.array([[1, -1, 0], [0, 1, 0], [0, -1, 1]]),
    3: np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]]),
}
G = {
    2: np.array([[1, 0], [1, 1], [0, 1]]),
    3: np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]),
}
A = {2: np.array([[1, 1, 0], [0, 1, 1]]), 3: np.array([[1, 1, 1, 0], [0, 1, -1, -1]])}


def conv(x: Array, kernel: Array, pads: Pads) -> Array:
    """x [b, h, w, c] * kernel [n, n, c, k], n 2 or 3, zeros around as `pads` -> [b, h', w', k], both even."""
    size, taps = len(kernel), _taps(kernel)
    return _few(lambda x: _outputs(_seen(_pixels(x, size, pads), taps), size), x)


def returned(g: Array, kernel: Array, pads: Pads) -> Array:
    """g [b, h', w', k] * kernel [n, n, c, k] turned, channels k to c -> [b, h, w, c], both even."""
    size, taps = len(kernel), _taps(kernel[::-1, ::-1])
    return _few(lambda g: _outputs(_seen_back(_pixels(g, size, pads), taps), size), g)


def kernel_sum(x: Array, g: Array, pads: Pads) -> Array:
    """Gradient [n, n, c, k] of <conv(x, kernel, pads), g>, g [b, h', w', k]."""
    size = x.shape[1] + sum(pads[0]) - g.shape[1] + 1
    return _kernel(_few_added(lambda x, g: _summed(_pixels(x, size, pads), _spread(g, size)), x, g), size)


def strided(x: Array, kernel: Array) -> Array:
    """x [b, 4t, 4u, c] * kernel [4, 4, c, k] -> [b, 2t, 2u, k]: stride 2, one zero around x."""
    taps = _taps_of_cells(kernel)
    return _few(lambda x: _outputs(_seen(_cells(x), taps), 2), x, 2)


def transposed(x: Array, kernel: Array) -> Array:
    """x [b, 2t, 2u, c], kernel [4, 4, k, c] -> [b, 4t, 4u, k]: the transpose of a strided convolution."""
    return _from_cells(_seen_back(_spread(x, 2), _taps_of_cells(kernel)))


def tap_sums(y: Array, x: Array) -> Array:
    """Gradient [4, 4, c, k] of <strided(y, kernel), x>, y [b, 4t, 4u, c], x [b, 2t, 2u, k]."""
    return _kernel_of_cells(_few_added(lambda x, y: _summed(_cells(y), _spread(x, 2)), x, y))


# A few pictures at a time, so that what stands in all places is still near when it is read ------------------


def _parts(x: Array, stride: int) -> int:
    """In how many parts pictures x [b, h, w, c] are gone through."""
    b, h, w, _ = x.shape
    tiles = h * w // (2 * stride) ** 2
    return max(n for n in range(1, b + 1) if b % n == 0 and (b // n * tiles >= TILES or n == 1))


def _few(function: Callable[[Array], Array], x: Array, stride: int = 1) -> Array:
    """function(x), of pictures that do not look at each other."""
    parts = _parts(x, stride)
    if parts == 1:
        return function(x)
    y = lax.map(function, x.reshape(parts, -1, *x.shape[1:]))
    return y.reshape(-1, *y.shape[2:])


def _few_added(function: Callable[[Array, Array], Array], x: Array, y: Array) -> Array:
    """function(x, y), a sum over pictures; x has as many pixels as a convolution has outputs."""
    return matmul.in_parts(function, x, y, _parts(x, 1))


# Products, one a place --------------------------------------------------------------------------------------


def _seen(pixels: Places, taps: Places) -> Places:
    """[q, p, b, t, u, c] times [q, p, c, k] -> [q, p, b, t, u, k]."""
    return _in_place(pixels, taps, 2)


def _seen_back(outputs: Places, taps: Places) -> Places:
    """[q, p, b, t, u, k] times [q, p, c, k] -> [q, p, b, t, u, c]."""
    return _in_place(outputs, taps, 3)


def _in_place(a: Places, taps: Places, axis: int) -> Places:
    """Sums over the channels of a [q, p, b, t, u, ...] and an axis of `taps` [q, p, c, k]."""
    n, channels = len(a), taps.shape[5 - axis]
    rows, flat = a.reshape(n * n, -1, a.shape[-1]), taps.reshape(n * n, *taps.shape[2:])
    found = lax.dot_general(rows, flat, (((2,), (axis - 1,)), ((0,), (0,))))
    return found.reshape(*a.shape[:-1], channels)


def _summed(pixels: Places, outputs: Places) -> Places:
    """[q, p, b, t, u, c], [q, p, b, t, u, k] -> [q, p, c, k]."""
    n, c, k = len(pixels), pixels.shape[-1], outputs.shape[-1]
    rows, others = pixels.reshape(n * n, -1, c), outputs.reshape(n * n, -1, k)
    return lax.dot_general(rows, others, (((1,), (1,)), ((0,), (0,)))).reshape(n, n, c, k)


# Sums before and after --------------------------------------------------------------------------------------


def sums(matrix: np.ndarray, parts: list[Array], axis: int = 0) -> Array:
    """matrix @ parts, written out: what a small product with much on its other side is fastest as."""
    found = []
    for row in matrix:
        (weight, first), *rest = [(w, part) for w, part in zip(row, parts, strict=True) if w]
        total = first if weight == 1 else float(weight) * first
        for weight, part in rest:
            part = part if abs(weight) == 1 else abs(float(weight)) * part
            total = total + part if weight > 0 else total - part
        found.append(total)
    return jnp.stack(found, axis)


def _widened(x: Array, pads: Pads) -> Array:
    """x with zeros around, laid down: what is read often must not ask at each number whether it is one."""
    if not any(map(any, pads)):
        return x
    return lax.optimization_barrier(jnp.pad(x, ((0, 0), *pads, (0, 0))))


def _pixels(x: Array, size: int, pads: Pads) -> Places:
    """V of x [b, h, w, c], [size + 1, size + 1, b, t, u, c]."""
    x = _widened(x, pads)
    h, w = x.shape[1] - size + 1, x.shape[2] - size + 1
    rows = sums(B[size], [x[:, i : i + h : 2] for i in range(size + 1)])
    return sums(B[size], [rows[:, :, :, j : j + w : 2] for j in range(size + 1)])


def _taps(kernel: Array) -> Places:
    """U of kernel [n, n, c, k], [n + 1, n + 1, c, k]."""
    matrix = G[len(kernel)]
    rows = sums(matrix, list(kernel))
    return sums(matrix, [rows[:, j] for j in range(len(kernel))])


def _kernel(taps: Places, size: int) -> Array:
    """The transpose of `_taps`: [size, size, c, k]."""
    columns = sums(G[size].T, list(taps))
    return sums(G[size].T, [columns[:, p] for p in range(size + 1)])


def _spread(g: Array, size: int) -> Places:
    """D of g [b, 2t, 2u, k], [size + 1, size + 1, b, t, u, k]."""
    rows = sums(A[size].T, [g[:, ::2], g[:, 1::2]])
    return sums(A[size].T, [rows[:, :, :, ::2], rows[:, :, :, 1::2]])


def _outputs(places: Places, size: int) -> Array:
    """The transpose of `_spread`: [b, 2t, 2u, k]."""
    b, t, u, k = places.shape[2:]
    rows = sums(A[size], [places[:, p] for p in range(size + 1)])
    both = sums(A[size], [rows[:, q] for q in range(size + 1)], 4)  # [row, b, t, u, column, k]
    return both.transpose(1, 2, 0, 3, 4, 5).reshape(b, 2 * t, 2 * u, k)


# Cells: 2x2 pixels, the first of a row beginning one before the picture ------------------------------------


def _taps_of_cells(kernel: Array) -> Places:
    """U of kernel [4, 4, c, k], [3, 3, 4 c, k]."""
    c, k = kernel.shape[2:]
    apart = kernel.reshape(2, 2, 2, 2, c, k)  # cell, pixel in it
    rows = sums(G[2], list(apart))  # [3, 2, 2, 2, c, k]
    return sums(G[2], [rows[:, :, j] for j in (0, 1)]).reshape(3, 3, 4 * c, k)


def _kernel_of_cells(taps: Places) -> Array:
    """The transpose of `_taps_of_cells`: [4, 4, c, k]."""
    c, k = taps.shape[2] // 4, taps.shape[3]
    columns = sums(G[2].T, list(taps.reshape(3, 3, 2, 2, c, k)), 2)  # [3, 2, 2, 2, c, k]
    return sums(G[2].T, list(columns)).reshape(4, 4, c, k)


def _cells(x: Array) -> Places:
    """V of x [b, 4t, 4u, c] as cells, [3, 3, b, t, u, 4 c]."""
    b, h, w, c = x.shape
    t, u = h // 4, w // 4
    x = _widened(x, ((1, 3), (1, 3))).reshape(b, t + 1, 2, 2, u + 1, 2, 2, c)
    rows = sums(B[2], [x[:, i // 2 : i // 2 + t, i % 2] for i in range(3)])
    both = sums(B[2], [rows[:, :, :, :, j // 2 : j // 2 + u, j % 2] for j in range(3)])
    return both.transpose(0, 1, 2, 3, 5, 4, 6, 7).reshape(3, 3, b, t, u, 4 * c)


def _from_cells(places: Places) -> Array:
    """The transpose of `_cells`: [b, 4t, 4u, c]. A tile's last cells are the next one's first."""
    b, t, u, c = places.shape[2:]

    def joined(parts: Array, axis: int) -> Array:
        def beside(part: Array, before: int) -> Array:
            return jnp.pad(part, [(before, 1 - before) if i == axis else (0, 0) for i in range(part.ndim)])

        return jnp.stack([beside(parts[0], 0) + beside(parts[2], 1), beside(parts[1], 0)], axis + 1)

    rows = joined(sums(B[2].T, [places[:, p] for p in range(3)]), 2)  # [3, b, t + 1, 2, u, c]
    both = joined(sums(B[2].T, list(rows)), 3)  # [b, t + 1, 2, u + 1, 2, c]
    y = both.reshape(b, 2 * t + 2, 2 * u + 2, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(b, 4 * t + 4, 4 * u + 4, c // 4)[:, 1 : 4 * t + 1, 1 : 4 * u + 1]
