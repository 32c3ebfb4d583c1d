"""Non-local means as OpenCV computes it, in-graph, so that a sampler can end with it.

Buades, Coll and Morel 2005 and 2011 (IPOL, "Non-Local Means Denoising"): each pixel becomes the mean of the
pixels around it, weighted by how alike the small windows about the two are.
"""

import jax
import jax.numpy as jnp

from jaxdog.ops import color as colours
from jaxdog.types import Array

SMALLEST = 0.001  # weights below it count as none


def non_local_means(
    image: Array, luminance: float, colour: float, template: int = 7, search: int = 21
) -> Array:
    """OpenCV's fastNlMeansDenoisingColored of pictures in [-1, 1], byte for byte but for rare ties.

    It works on the 256 levels of the picture, in OpenCV's 8-bit Lab of linear RGB: L by itself, a and b
    together. The way there and back alone costs up to a few levels, and white becomes 254.

    Args:
      image: [b, h, w, 3] in [-1, 1]; rounded to the nearest level first.
      luminance: the strength h for L, in levels.
      colour: the strength for a and b, in levels.
      template: side of the windows that are compared, in pixels, odd.
      search: side of the window in which pixels are looked for, in pixels, odd.

    Raises:
      ValueError: a window with an even side, or a strength that is not positive.
    """
    for name, strength in (("luminance", luminance), ("colour", colour)):
        if not strength > 0.0:
            raise ValueError(f"{name} is {strength}; it must be positive")
    for name, side in (("template", template), ("search", search)):
        if side < 1 or side % 2 == 0:
            raise ValueError(f"{name} is {side}; it can be 1, 3, 5, ...")
    levels = jnp.clip(jnp.round(127.5 * (image + 1.0)), 0.0, 255.0).astype(jnp.int32)
    lab = colours.lab_from_rgb(levels).astype(jnp.float32)
    smooth = jnp.concatenate(
        [_means(lab[..., :1], luminance, template, search), _means(lab[..., 1:], colour, template, search)],
        -1,
    )
    return colours.rgb_from_lab(smooth.astype(jnp.int32)).astype(image.dtype) / 127.5 - 1.0


def _means(levels: Array, strength: float, template: int, search: int) -> Array:
    """The weighted means of whole levels [b, h, w, c] in 0..255, rounded to whole levels, halves up."""
    b, h, w, c = levels.shape
    margin, reach = template // 2, search // 2
    edge = margin + reach
    padded = jnp.pad(levels, ((0, 0), (edge, edge), (edge, edge), (0, 0)), mode="reflect")  # 101
    around = padded[:, reach : reach + h + 2 * margin, reach : reach + w + 2 * margin]
    # OpenCV divides the sum of squares by the next power of two instead of template^2, cuts off what is
    # behind the point, and makes good for the divisor afterwards.
    power = 1 << (template * template - 1).bit_length()
    scale = -(power / template**2) / (strength * strength * c)

    def add(i: Array, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        total, weights = sums
        start = (0, i // search, i % search, 0)
        there = jax.lax.dynamic_slice(padded, start, around.shape)
        apart = _window_sums(jnp.sum(jnp.square(there - around), -1), template)
        weight = jnp.exp(jnp.floor(apart / power) * scale)[..., None]
        weight = jnp.where(weight < SMALLEST, 0.0, weight)
        return total + weight * there[:, margin : margin + h, margin : margin + w], weights + weight

    empty = jnp.zeros((b, h, w, c)), jnp.zeros((b, h, w, 1))
    total, weights = jax.lax.fori_loop(0, search * search, add, empty)
    return jnp.floor(total / weights + 0.5)


def _window_sums(x: Array, side: int) -> Array:
    """Sums over windows of side x side: [b, h + side - 1, w + side - 1] -> [b, h, w]."""
    _, h, w = x.shape
    rows = sum(x[:, i : h - side + 1 + i] for i in range(1, side)) + x[:, : h - side + 1]
    return sum(rows[:, :, i : w - side + 1 + i] for i in range(1, side)) + rows[:, :, : w - side + 1]
