"""Resizing, cropping and affine warps of images; jittable, with one region or map per image.

Images are [b, h, w, c] float32 in [-1, 1], where black is -1. Positions are in pixels of the input: (y, x)
for regions, (x, y) for affine maps, as in OpenCV.
"""

from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from jaxdog.types import Array, Key
from jaxdog.utils import errors

HIGHEST = jax.lax.Precision.HIGHEST


def _box(x: Array) -> Array:
    return ((x > -0.5 + 1e-4) & (x <= 0.5 + 1e-4)).astype(x.dtype)  # ties go left, with tolerance


def _triangle(x: Array) -> Array:
    return jax.nn.relu(1.0 - jnp.abs(x))


def _cubic(x: Array, a: float) -> Array:
    """Keys' cubic kernel (IEEE Trans. ASSP 29, 1981), slope `a` at distance 1, zero beyond distance 2."""
    x = jnp.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = a * (((x - 5.0) * x + 8.0) * x - 4.0)
    return jnp.where(x < 1.0, near, jnp.where(x < 2.0, far, 0.0))


def _lanczos(x: Array) -> Array:
    return jnp.where(jnp.abs(x) < 3.0, jnp.sinc(x) * jnp.sinc(x / 3.0), 0.0)


Filter = Literal["box", "bilinear", "bicubic", "lanczos"]
FILTERS = get_args(Filter)
KERNELS: dict[str, Callable[[Array], Array]] = {
    "box": _box,
    "bilinear": _triangle,
    "bicubic": lambda x: _cubic(x, -0.5),
    "lanczos": _lanczos,
}
NEGATIVE_FILTERS = ("bicubic", "lanczos")  # these have negative weights and may overshoot
WarpFilter = Literal["nearest", "linear", "cubic"]
WARP_FILTERS = get_args(WarpFilter)
WARP_KERNELS: dict[str, tuple[int, Callable[[Array], Array]]] = {  # pixels to either side, kernel
    "nearest": (1, lambda x: ((x >= -0.5) & (x < 0.5)).astype(x.dtype)),
    "linear": (1, _triangle),
    "cubic": (2, lambda x: _cubic(x, -0.75)),
}
Border = Literal["reflect_101", "black"]
BORDERS = get_args(Border)


# ------------------------------------------------------------------------------------- resizing


def resize_matrix(
    low: Array, high: Array, n: int, size: int, filter: str = "bilinear", inside: bool = True
) -> Array:
    """Weights [b, size, n] that resize the interval [low, high) of an axis with n pixels; rows sum to 1.

    As in Pillow the kernel is stretched by max(1, (high - low) / size) for antialiasing and truncated at the
    border. A partially covered pixel is weighted by the covered fraction.

    Args:
      low, high: [b] float32 in [0, n], low < high; pixel i covers [i, i + 1).
      n: pixels of the input.
      size: pixels of the output.
      filter: "box", "bilinear" (a triangle), "bicubic" (a = -0.5) or "lanczos" (3 lobes).
      inside: True: pixels outside the interval are not used, as in cropping before resizing. False: they may
        be used, as in resizing before cropping.

    Raises:
      UserError: an unknown filter.
    """
    if filter not in KERNELS:
        raise errors.UserError(f"filter is {filter!r}; choices: {', '.join(FILTERS)}")
    scale = ((high - low) / size)[:, None, None]
    low, high = low[:, None, None], high[:, None, None]
    pixel = jnp.arange(n, dtype=jnp.float32)[None, None]
    center = low + (jnp.arange(size, dtype=jnp.float32) + 0.5)[None, :, None] * scale
    weights = KERNELS[filter]((pixel + 0.5 - center) / jnp.maximum(scale, 1.0))
    if inside:
        weights = weights * jnp.clip(jnp.minimum(pixel + 1.0, high) - jnp.maximum(pixel, low), 0.0, 1.0)
    return weights / jnp.sum(weights, 2, keepdims=True)


def crop_resize(
    image: Array, low: Array, high: Array, size: int, filter: str = "bilinear", inside: bool = True
) -> Array:
    """The region [low, high) of each image, resized to [b, size, size, c] in [-1, 1].

    As in Pillow columns are resized first, and overshoot is clipped after each axis.

    Args:
      image: [b, h, w, c] in [-1, 1].
      low, high: [b, 2] float32, corners (y, x) of the region in pixels; `high` is exclusive.
      size, filter, inside: as in `resize_matrix`.
    """
    _, h, w, _ = image.shape

    def clip(x: Array) -> Array:
        return jnp.clip(x, -1.0, 1.0) if filter in NEGATIVE_FILTERS else x

    columns = resize_matrix(low[:, 1], high[:, 1], w, size, filter, inside)
    rows = resize_matrix(low[:, 0], high[:, 0], h, size, filter, inside)
    image = clip(jnp.einsum("bjw,bhwc->bhjc", columns, image, precision=HIGHEST))
    return clip(jnp.einsum("bih,bhjc->bijc", rows, image, precision=HIGHEST))


def resize(image: Array, size: int, filter: str = "bilinear") -> Array:
    """Resizes images [b, h, w, c] to [b, size, size, c], both in [-1, 1]; the aspect ratio may change."""
    b, h, w, c = image.shape
    if filter == "box" and h % size == 0 and w % size == 0:  # the same as with matrices, faster on CPU
        return jnp.mean(image.reshape(b, size, h // size, size, w // size, c), (2, 4))
    for axis in (2, 1):
        image = jnp.clip(resize_axis(image, axis, size, filter), -1.0, 1.0)
    return image


def resize_axis(image: Array, axis: int, size: int, filter: str = "bilinear") -> Array:
    """Images [b, h, w, c] resized to `size` pixels along axis 1 or 2; overshoot is not clipped."""
    n = image.shape[axis]
    (weights,) = resize_matrix(jnp.zeros(1), jnp.full(1, n, jnp.float32), n, size, filter)
    spec = {1: "ij,bjwc->biwc", 2: "ij,bhjc->bhic"}[axis]
    return jnp.einsum(spec, weights, image, precision=HIGHEST)


# ------------------------------------------------------------------------------------- warps


def warp(image: Array, matrix: Array, size: int, filter: str = "cubic", border: str = "reflect_101") -> Array:
    """Affine warp to [b, size, size, c]: output pixel (x, y) is the input at matrix @ (x, y, 1).

    As in OpenCV (`warpAffine` with `WARP_INVERSE_MAP`) the center of the first pixel is (0, 0), and nothing
    is antialiased where the map shrinks. Overshoot of the cubic kernel is clipped to [-1, 1].

    Args:
      image: [b, h, w, c] in [-1, 1].
      matrix: [b, 2, 3] float32, from output to input positions.
      size: height and width of the output.
      filter: "cubic" (a = -0.75, 16 pixels), "linear" (4 pixels) or "nearest" (as in Pillow's rotate).
      border: outside the image: "reflect_101" mirrors about the outermost pixels, or "black".

    Raises:
      UserError: an unknown filter or border.
    """
    if filter not in WARP_FILTERS:
        raise errors.UserError(f"filter is {filter!r}; choices: {', '.join(WARP_FILTERS)}")
    if border not in BORDERS:
        raise errors.UserError(f"border is {border!r}; choices: {', '.join(BORDERS)}")
    b, h, w, c = image.shape
    grid = jnp.arange(size, dtype=jnp.float32)
    position = (
        matrix[:, :, None, None, 0] * grid[None, None, None, :]
        + matrix[:, :, None, None, 1] * grid[None, None, :, None]
        + matrix[:, :, None, None, 2]
    )  # [b, 2, size, size], (x, y)
    reach, kernel = WARP_KERNELS[filter]
    first = jnp.floor(position)
    fraction = position - first  # [0, 1)
    first = first.astype(jnp.int32)
    flat = image.reshape(b, h * w, c)
    out = jnp.zeros((b, size, size, c), image.dtype)
    for dy in range(1 - reach, reach + 1):
        y, y_inside = _reflect(first[:, 1] + dy, h)
        row = jnp.zeros_like(out)
        for dx in range(1 - reach, reach + 1):
            x, x_inside = _reflect(first[:, 0] + dx, w)
            tap = jax.vmap(lambda pixels, index: pixels[index])(flat, y * w + x)
            if border == "black":
                tap = jnp.where((x_inside & y_inside)[..., None], tap, -1.0)
            row += tap * kernel(fraction[:, 0] - dx)[..., None]
        out += row * kernel(fraction[:, 1] - dy)[..., None]
    return jnp.clip(out, -1.0, 1.0) if filter == "cubic" else out


def _reflect(index: Array, n: int) -> tuple[Array, Array]:
    """The index reflected into [0, n) about the first and the last pixel, and whether it was in [0, n)."""
    period = max(2 * n - 2, 1)
    folded = index % period
    return jnp.where(folded < n, folded, period - folded), (index >= 0) & (index < n)


# ------------------------------------------------------------------------------------- flips, shifts


def random_flip(key: Key, image: Array, p: float) -> Array:
    """Flips each image [b, h, w, c] left to right with probability p."""
    chosen = jax.random.bernoulli(key, p, (image.shape[0],))
    return jnp.where(chosen[:, None, None, None], image[:, :, ::-1, :], image)


def random_shift(key: Key, image: Array, reach: tuple[int, int], mode: str) -> Array:
    """Shifts each image [b, h, w, c] by whole pixels, uniformly up to `reach` (y, x) in each direction.

    mode: padding mode as in `jnp.pad`: "reflect", "constant" (zeros), ...
    """
    b, h, w, c = image.shape
    wide = jnp.pad(image, ((0, 0), (reach[0], reach[0]), (reach[1], reach[1]), (0, 0)), mode=mode)
    corner = jax.random.randint(key, (b, 2), 0, 2 * jnp.array([reach]) + 1)
    return jax.vmap(lambda x, at: jax.lax.dynamic_slice(x, (at[0], at[1], 0), (h, w, c)))(wide, corner)
