"""Winograd's minimal filtering for convolutions (Lavin & Gray 2016), with its gradients. NHWC.

In one dimension, F(2, 3) computes two outputs y of a filter g with three taps from four inputs d. Directly
that is six products; here it is four:

    m0 = (d0 - d2) g0
    m1 = (d1 + d2) (g0 + g1 + g2) / 2
    m2 = (d2 - d1) (g0 - g1 + g2) / 2
    m3 = (d1 - d3) g2

    y0 = d0 g0 + d1 g1 + d2 g2 = m0 + m1 + m2
    y1 = d1 g0 + d2 g1 + d3 g2 = m1 - m2 - m3

As matrices, y = A^T [(G g) * (B^T d)], where * is elementwise: a filter transform G, an input transform B^T
and an output transform A^T. In two dimensions (eq. 8), a tile of 2x2 outputs depends on 4x4 inputs:

    Y = A^T [U * V] A    with U = G g G^T and V = B^T d B.

The 16 positions of a tile replace 36 products. Each position sums over channels by itself, so there is one
matrix product per position. The transforms are cheap compared to these if input and output have many
channels. Their matrices hold only 0, +-1 and +-1/2, so that rounding errors are only slightly larger than
those of a direct convolution.

The gradients use the transposed transforms: <Y, dY> is the sum of U * V * M over positions, tiles and
channels, with M = A dY A^T.

A 4x4 kernel with stride 2 is a 2x2 kernel, F(2, 2), on cells of 2x2 pixels whose four pixels are channels: 9
products replace 16.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdog.ops import bilinear

Array = jax.Array
Tiles = Array  # [column, row, ...]: the values at each position of a transformed tile
Pads = tuple[tuple[int, int], tuple[int, int]]

MIN_TILES = 256  # least number of tiles in a chunk of the batch
# The transforms by the height n of the kernel, which the functions call `size`.
B_T = {
    2: np.array([[1, -1, 0], [0, 1, 0], [0, -1, 1]]),
    3: np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]]),
}
G = {
    2: np.array([[1, 0], [1, 1], [0, 1]]),
    3: np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]),
}
A_T = {2: np.array([[1, 1, 0], [0, 1, 1]]), 3: np.array([[1, 1, 1, 0], [0, 1, -1, -1]])}


def conv(x: Array, kernel: Array, pads: Pads) -> Array:
    """x [b, h, w, c] * kernel [n, n, c, k], n 2 or 3 -> [b, h', w', k]; h' and w' must be even."""
    size, u = len(kernel), filter_transform(kernel)
    return _map_chunks(lambda x: output_transform(_multiply(input_transform(x, size, pads), u), size), x)


def input_grad(g: Array, kernel: Array, pads: Pads) -> Array:
    """Gradient [b, h, w, c] of <conv(x, kernel), g> with respect to x; h and w must be even.

    g: [b, h', w', k].
    pads: the zero padding of g, that of the transposed convolution.
    """
    size, u = len(kernel), filter_transform(kernel[::-1, ::-1])
    return _map_chunks(
        lambda g: output_transform(_multiply_transposed(input_transform(g, size, pads), u), size), g
    )


def weight_grad(x: Array, g: Array, pads: Pads) -> Array:
    """Gradient [n, n, c, k] of <conv(x, kernel, pads), g> with respect to the kernel; g [b, h', w', k]."""
    size = x.shape[1] + sum(pads[0]) - g.shape[1] + 1

    def contract(x: Array, g: Array) -> Tiles:
        return _contract_tiles(input_transform(x, size, pads), output_transform_t(g, size))

    return filter_transform_t(_sum_chunks(contract, x, g), size)


def strided(x: Array, kernel: Array) -> Array:
    """x [b, h, w, c] * kernel [4, 4, c, k] -> [b, h/2, w/2, k]: stride 2, zero padding of 1.

    h and w must be multiples of 4.
    """
    u = _filter_transform_cells(kernel)
    return _map_chunks(lambda x: output_transform(_multiply(_input_transform_cells(x), u), 2), x, 2)


def strided_input_grad(g: Array, kernel: Array) -> Array:
    """Gradient [b, h, w, c] of <strided(x, kernel), g> with respect to x.

    g: [b, h/2, w/2, k].
    kernel: [4, 4, c, k].
    """
    u = _filter_transform_cells(kernel)
    return _input_transform_cells_t(_multiply_transposed(output_transform_t(g, 2), u))


def strided_weight_grad(x: Array, g: Array) -> Array:
    """Gradient [4, 4, c, k] of <strided(x, kernel), g> with respect to the kernel.

    x: [b, h, w, c].
    g: [b, h/2, w/2, k].
    """
    return _filter_transform_cells_t(
        _sum_chunks(lambda g, x: _contract_tiles(_input_transform_cells(x), output_transform_t(g, 2)), g, x)
    )


# The transforms ---------------------------------------------------------------------------------------------


def input_transform(x: Array, size: int, pads: Pads) -> Tiles:
    """V = B^T d B of zero-padded x [b, h, w, c]: [size + 1, size + 1, b, tiles_h, tiles_w, c]."""
    x = _pad(x, pads)
    h, w = x.shape[1] - size + 1, x.shape[2] - size + 1
    rows = combine(B_T[size], [x[:, i : i + h : 2] for i in range(size + 1)])
    return combine(B_T[size], [rows[:, :, :, j : j + w : 2] for j in range(size + 1)])


def filter_transform(kernel: Array) -> Tiles:
    """U = G g G^T of a kernel [n, n, c, k]: [n + 1, n + 1, c, k]."""
    matrix = G[len(kernel)]
    rows = combine(matrix, list(kernel))
    return combine(matrix, [rows[:, j] for j in range(len(kernel))])


def filter_transform_t(u: Tiles, size: int) -> Array:
    """The transpose of `filter_transform`: [size, size, c, k]."""
    columns = combine(G[size].T, list(u))
    return combine(G[size].T, [columns[:, p] for p in range(size + 1)])


def output_transform(m: Tiles, size: int) -> Array:
    """Y = A^T m A of products m [size + 1, size + 1, b, tiles_h, tiles_w, k]: [b, h, w, k]."""
    b, tiles_h, tiles_w, k = m.shape[2:]
    rows = combine(A_T[size], [m[:, p] for p in range(size + 1)])
    both = combine(A_T[size], [rows[:, q] for q in range(size + 1)], 4)  # [row, ..., column, k]
    return both.transpose(1, 2, 0, 3, 4, 5).reshape(b, 2 * tiles_h, 2 * tiles_w, k)


def output_transform_t(g: Array, size: int) -> Tiles:
    """M = A g A^T of g [b, h, w, k]: [size + 1, size + 1, b, tiles_h, tiles_w, k].

    The transpose of `output_transform`.
    """
    rows = combine(A_T[size].T, [g[:, ::2], g[:, 1::2]])
    return combine(A_T[size].T, [rows[:, :, :, ::2], rows[:, :, :, 1::2]])


def combine(matrix: np.ndarray, parts: list[Array], axis: int = 0) -> Array:
    """matrix @ parts, stacked along `axis`; written out as sums, which is fastest for a small matrix."""
    combinations = []
    for row in matrix:
        (weight, first), *rest = [(w, part) for w, part in zip(row, parts, strict=True) if w]
        total = first if weight == 1 else float(weight) * first
        for weight, part in rest:
            part = part if abs(weight) == 1 else abs(float(weight)) * part
            total = total + part if weight > 0 else total - part
        combinations.append(total)
    return jnp.stack(combinations, axis)


def _pad(x: Array, pads: Pads) -> Array:
    """Zero-padded x, materialized: if it were fused, each of many reads would check for the border."""
    if not any(map(any, pads)):
        return x
    return lax.optimization_barrier(jnp.pad(x, ((0, 0), *pads, (0, 0))))


# The same on cells of 2x2 pixels, the first of which begins one pixel before the image ----------------------


def _filter_transform_cells(kernel: Array) -> Tiles:
    """U of a kernel [4, 4, c, k] as a 2x2 kernel on cells: [3, 3, 4 c, k]."""
    c, k = kernel.shape[2:]
    cells = kernel.reshape(2, 2, 2, 2, c, k)  # cell, pixel within it
    rows = combine(G[2], list(cells))  # [3, 2, 2, 2, c, k]
    return combine(G[2], [rows[:, :, j] for j in (0, 1)]).reshape(3, 3, 4 * c, k)


def _filter_transform_cells_t(u: Tiles) -> Array:
    """The transpose of `_filter_transform_cells`: [4, 4, c, k]."""
    c, k = u.shape[2] // 4, u.shape[3]
    columns = combine(G[2].T, list(u.reshape(3, 3, 2, 2, c, k)), 2)  # [3, 2, 2, 2, c, k]
    return combine(G[2].T, list(columns)).reshape(4, 4, c, k)


def _input_transform_cells(x: Array) -> Tiles:
    """V of the cells of x [b, h, w, c]: [3, 3, b, tiles_h, tiles_w, 4 c]."""
    b, h, w, c = x.shape
    tiles_h, tiles_w = h // 4, w // 4
    x = _pad(x, ((1, 3), (1, 3))).reshape(b, tiles_h + 1, 2, 2, tiles_w + 1, 2, 2, c)
    rows = combine(B_T[2], [x[:, i // 2 : i // 2 + tiles_h, i % 2] for i in range(3)])
    both = combine(B_T[2], [rows[:, :, :, :, j // 2 : j // 2 + tiles_w, j % 2] for j in range(3)])
    return both.transpose(0, 1, 2, 3, 5, 4, 6, 7).reshape(3, 3, b, tiles_h, tiles_w, 4 * c)


def _input_transform_cells_t(v: Tiles) -> Array:
    """The transpose of `_input_transform_cells`: [b, h, w, c].

    A tile has three cells along each axis. Its last one is the next tile's first one: the two are added.
    """
    b, tiles_h, tiles_w, c = v.shape[2:]

    def join(cells: Array, axis: int) -> Array:
        def pad(cell: Array, before: int) -> Array:
            return jnp.pad(cell, [(before, 1 - before) if i == axis else (0, 0) for i in range(cell.ndim)])

        return jnp.stack([pad(cells[0], 0) + pad(cells[2], 1), pad(cells[1], 0)], axis + 1)

    rows = join(combine(B_T[2].T, [v[:, p] for p in range(3)]), 2)  # [3, b, tiles_h + 1, 2, tiles_w, c]
    both = join(combine(B_T[2].T, list(rows)), 3)  # [b, tiles_h + 1, 2, tiles_w + 1, 2, c]
    y = both.reshape(b, 2 * tiles_h + 2, 2 * tiles_w + 2, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(b, 4 * tiles_h + 4, 4 * tiles_w + 4, c // 4)[:, 1 : 4 * tiles_h + 1, 1 : 4 * tiles_w + 1]


# One matrix product per position ----------------------------------------------------------------------------


def _multiply(v: Tiles, u: Tiles) -> Tiles:
    """[q, p, b, tiles_h, tiles_w, c] times [q, p, c, k] -> [q, p, b, tiles_h, tiles_w, k]."""
    return _contract_channels(v, u, 2)


def _multiply_transposed(v: Tiles, u: Tiles) -> Tiles:
    """[q, p, b, tiles_h, tiles_w, k] times [q, p, c, k] -> [q, p, b, tiles_h, tiles_w, c]."""
    return _contract_channels(v, u, 3)


def _contract_channels(v: Tiles, u: Tiles, axis: int) -> Tiles:
    """Contracts the channels of v [q, p, b, tiles_h, tiles_w, ...] with `axis` of u [q, p, c, k]."""
    n, channels = len(v), u.shape[5 - axis]
    left, right = v.reshape(n * n, -1, v.shape[-1]), u.reshape(n * n, *u.shape[2:])
    product = lax.dot_general(left, right, (((2,), (axis - 1,)), ((0,), (0,))))
    return product.reshape(*v.shape[:-1], channels)


def _contract_tiles(v: Tiles, m: Tiles) -> Tiles:
    """v [q, p, b, tiles_h, tiles_w, c], m with k channels -> [q, p, c, k], the sum over images and tiles."""
    n, c, k = len(v), v.shape[-1], m.shape[-1]
    left, right = v.reshape(n * n, -1, c), m.reshape(n * n, -1, k)
    return lax.dot_general(left, right, (((1,), (1,)), ((0,), (0,)))).reshape(n, n, c, k)


# A few images at a time, so that transformed tiles stay in the cache ----------------------------------------


def _chunks(x: Array, stride: int) -> int:
    """The number of equal chunks of the batch [b, h, w, c], of at least MIN_TILES tiles each."""
    b, h, w, _ = x.shape
    tiles = h * w // (2 * stride) ** 2
    return max(n for n in range(1, b + 1) if b % n == 0 and (b // n * tiles >= MIN_TILES or n == 1))


def _map_chunks(function: Callable[[Array], Array], x: Array, stride: int = 1) -> Array:
    """function(x), which treats each image independently, computed chunk by chunk."""
    chunks = _chunks(x, stride)
    if chunks == 1:
        return function(x)
    y = lax.map(function, x.reshape(chunks, -1, *x.shape[1:]))
    return y.reshape(-1, *y.shape[2:])


def _sum_chunks(function: Callable[[Array, Array], Array], x: Array, y: Array) -> Array:
    """function(x, y), a sum over the batch, computed chunk by chunk; x [b, h', w', ...]."""
    return bilinear.sum_over_chunks(function, x, y, _chunks(x, 1))
