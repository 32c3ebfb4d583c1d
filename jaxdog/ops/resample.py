"""Parts of pictures at another size, and affine warps; in-graph, one region or map per picture.

Positions are in pixels of the input, (y, x) for regions and (x, y) for affine maps as OpenCV has them.
Pictures are [b, h, w, c] float32 in [-1, 1], where black is -1.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxdog.types import Array, Key

HIGHEST = jax.lax.Precision.HIGHEST


def _box(x: Array) -> Array:
    return ((x > -0.5 + 1e-4) & (x <= 0.5 + 1e-4)).astype(x.dtype)  # a tie goes left, rounding or not


def _triangle(x: Array) -> Array:
    return jax.nn.relu(1.0 - jnp.abs(x))


def _cubic(x: Array, a: float) -> Array:
    """Keys' cubic kernel (IEEE Trans. ASSP 29, 1981), slope `a` at distance 1, zero from distance 2 on."""
    x = jnp.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = a * (((x - 5.0) * x + 8.0) * x - 4.0)
    return jnp.where(x < 1.0, near, jnp.where(x < 2.0, far, 0.0))


def _lanczos(x: Array) -> Array:
    return jnp.where(jnp.abs(x) < 3.0, jnp.sinc(x) * jnp.sinc(x / 3.0), 0.0)


KERNELS: dict[str, Callable[[Array], Array]] = {
    "box": _box,
    "bilinear": _triangle,
    "bicubic": lambda x: _cubic(x, -0.5),
    "lanczos": _lanczos,
}
FILTERS = tuple(KERNELS)
OVERSHOOTING = ("bicubic", "lanczos")  # these have negative weights
WARP_KERNELS: dict[str, tuple[int, Callable[[Array], Array]]] = {  # pixels to either side, kernel
    "nearest": (1, lambda x: ((x >= -0.5) & (x < 0.5)).astype(x.dtype)),
    "linear": (1, _triangle),
    "cubic": (2, lambda x: _cubic(x, -0.75)),
}
WARP_FILTERS = tuple(WARP_KERNELS)
BORDERS = ("reflect_101", "black")


def matrix(
    low: Array, high: Array, n: int, size: int, filter: str = "bilinear", inside: bool = True
) -> Array:
    """Weights [b, size, n] that bring the part [low, high) of an axis of n pixels to `size`; rows sum to 1.

    It is Pillow's rule: the kernel is stretched by max(1, (high - low) / size) and cut off where the
    picture ends. A pixel of which only a share lies in the part counts with that share.

    Args:
      low, high: [b] float32 in [0, n], low < high; pixel i covers [i, i + 1).
      n: pixels of the input.
      size: pixels of the output.
      filter: "box", "bilinear" (a triangle), "bicubic" (a = -0.5) or "lanczos" (3 lobes).
      inside: True looks at nothing outside the part, as when the part is cut out first and then resized;
        False may, as when the picture is resized first and then cut.

    Raises:
      ValueError: an unknown filter.
    """
    if filter not in KERNELS:
        raise ValueError(f"filter is {filter!r}; it can be {', '.join(FILTERS)}")
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
    """The region [low, high) of each picture, resampled to [b, size, size, c] in [-1, 1].

    As in Pillow the columns are resampled first, and what overshoots is clipped after each axis.

    Args:
      image: [b, h, w, c] in [-1, 1].
      low, high: [b, 2] float32, the region's corners as (y, x) in pixels; the higher one is outside.
      size, filter, inside: as in `matrix`.
    """
    _, h, w, _ = image.shape

    def bound(x: Array) -> Array:
        return jnp.clip(x, -1.0, 1.0) if filter in OVERSHOOTING else x

    across = matrix(low[:, 1], high[:, 1], w, size, filter, inside)
    down = matrix(low[:, 0], high[:, 0], h, size, filter, inside)
    image = bound(jnp.einsum("bjw,bhwc->bhjc", across, image, precision=HIGHEST))
    return bound(jnp.einsum("bih,bhjc->bijc", down, image, precision=HIGHEST))


def resize(image: Array, size: int, filter: str = "bilinear") -> Array:
    """The whole of each picture [b, h, w, c] in [-1, 1], squashed to [b, size, size, c] in [-1, 1]."""
    b, h, w, c = image.shape
    if filter == "box" and h % size == 0 and w % size == 0:  # the same, faster on CPU
        return jnp.mean(image.reshape(b, size, h // size, size, w // size, c), (2, 4))
    for axis in (2, 1):
        image = jnp.clip(resize_axis(image, axis, size, filter), -1.0, 1.0)
    return image


def resize_axis(image: Array, axis: int, size: int, filter: str = "bilinear") -> Array:
    """Pictures [b, h, w, c] with `size` pixels along axis 1 or 2; what overshoots is not clipped."""
    n = image.shape[axis]
    (weights,) = matrix(jnp.zeros(1), jnp.full(1, n, jnp.float32), n, size, filter)
    spec = {1: "ij,bjwc->biwc", 2: "ij,bhjc->bhic"}[axis]
    return jnp.einsum(spec, weights, image, precision=HIGHEST)


def warp(image: Array, matrix: Array, size: int, filter: str = "cubic", border: str = "reflect_101") -> Array:
    """Affine maps: output pixel (x, y) takes what is at matrix @ (x, y, 1) in the input; [b, size, size, c].

    As in OpenCV (`warpAffine` with `WARP_INVERSE_MAP`) the centre of the first pixel is (0, 0), and
    nothing is averaged where the map shrinks. What the cubic kernel overshoots is clipped to [-1, 1].

    Args:
      image: [b, h, w, c] in [-1, 1].
      matrix: [b, 2, 3] float32, from output to input.
      size: pixels of the output's side.
      filter: "cubic" (a = -0.75, 16 pixels), "linear" (4 pixels) or "nearest" (1; Pillow's rotate).
      border: what is outside: "reflect_101", the picture mirrored about its outermost pixels, or "black".

    Raises:
      ValueError: an unknown filter or border.
    """
    if filter not in WARP_FILTERS:
        raise ValueError(f"filter is {filter!r}; it can be {', '.join(WARP_FILTERS)}")
    if border not in BORDERS:
        raise ValueError(f"border is {border!r}; it can be {', '.join(BORDERS)}")
    b, h, w, c = image.shape
    grid = jnp.arange(size, dtype=jnp.float32)
    place = (
        matrix[:, :, None, None, 0] * grid[None, None, None, :]
        + matrix[:, :, None, None, 1] * grid[None, None, :, None]
        + matrix[:, :, None, None, 2]
    )  # [b, 2, size, size], (x, y)
    reach, kernel = WARP_KERNELS[filter]
    first = jnp.floor(place)
    part = place - first  # [0, 1)
    first = first.astype(jnp.int32)
    flat = image.reshape(b, h * w, c)
    out = jnp.zeros((b, size, size, c), image.dtype)
    for dy in range(1 - reach, reach + 1):
        y, y_in = _at_border(first[:, 1] + dy, h)
        row = jnp.zeros_like(out)
        for dx in range(1 - reach, reach + 1):
            x, x_in = _at_border(first[:, 0] + dx, w)
            tap = jax.vmap(lambda picture, index: picture[index])(flat, y * w + x)
            if border == "black":
                tap = jnp.where((x_in & y_in)[..., None], tap, -1.0)
            row += tap * kernel(part[:, 0] - dx)[..., None]
        out += row * kernel(part[:, 1] - dy)[..., None]
    return jnp.clip(out, -1.0, 1.0) if filter == "cubic" else out


def mirrored(key: Key, image: Array, p: float) -> Array:
    """Each picture [b, h, w, c] mirrored left to right with probability p."""
    chosen = jax.random.bernoulli(key, p, (image.shape[0],))
    return jnp.where(chosen[:, None, None, None], image[:, :, ::-1, :], image)


def shifted(key: Key, image: Array, reach: tuple[int, int], mode: str) -> Array:
    """Each picture [b, h, w, c] moved by whole pixels, up to `reach` (y, x) each way.

    mode: what comes in, as in `jnp.pad`: "reflect", "constant" (zeros), ...
    """
    b, h, w, c = image.shape
    wide = jnp.pad(image, ((0, 0), (reach[0], reach[0]), (reach[1], reach[1]), (0, 0)), mode=mode)
    corner = jax.random.randint(key, (b, 2), 0, 2 * jnp.array([reach]) + 1)
    return jax.vmap(lambda x, at: jax.lax.dynamic_slice(x, (at[0], at[1], 0), (h, w, c)))(wide, corner)


def _at_border(index: Array, n: int) -> tuple[Array, Array]:
    """Index reflected into [0, n) about the first and the last pixel, and whether it was inside."""
    period = max(2 * n - 2, 1)
    folded = index % period
    return jnp.where(folded < n, folded, period - folded), (index >= 0) & (index < n)
