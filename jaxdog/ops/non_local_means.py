"""Non-local means denoising as in OpenCV, jittable, for generated images.

Buades, Coll and Morel 2005 and 2011 (IPOL, "Non-Local Means Denoising"): each pixel becomes a mean of the
pixels in a search window, weighted by the similarity of the patches around the two.
"""

import jax
import jax.numpy as jnp

from jaxdog.ops import color as color_ops
from jaxdog.types import Array
from jaxdog.utils import errors

MIN_WEIGHT = 0.001  # smaller weights are set to zero, as in OpenCV


def non_local_means(
    image: Array, luminance: float, color: float, template: int = 7, search: int = 21
) -> Array:
    """OpenCV's fastNlMeansDenoisingColored, bit-exact except at rare ties.

    Images are denoised in OpenCV's 8-bit Lab of linear RGB: L alone, a and b together. The color conversion
    alone changes values by a few levels, and white becomes 254.

    Args:
      image: [b, h, w, 3] in [-1, 1]; rounded to the nearest level first.
      luminance: filter strength h for L, in levels.
      color: filter strength for a and b, in levels.
      template: height and width of the compared patches, in pixels, odd.
      search: height and width of the search window, in pixels, odd.

    Raises:
      UserError: a side that is not odd and positive, or a strength that is not positive.
    """
    for name, strength in (("luminance", luminance), ("color", color)):
        if not strength > 0.0:
            raise errors.UserError(f"{name} is {strength}; it must be positive")
    for name, side in (("template", template), ("search", search)):
        if side < 1 or side % 2 == 0:
            raise errors.UserError(f"{name} is {side}; it must be odd and positive: 1, 3, 5, ...")
    levels = jnp.clip(jnp.round(127.5 * (image + 1.0)), 0.0, 255.0).astype(jnp.int32)
    lab = color_ops.lab_from_rgb(levels).astype(jnp.float32)
    smooth = jnp.concatenate(
        [
            _denoise(lab[..., :1], luminance, template, search),
            _denoise(lab[..., 1:], color, template, search),
        ],
        -1,
    )
    return color_ops.rgb_from_lab(smooth.astype(jnp.int32)).astype(image.dtype) / 127.5 - 1.0


def _denoise(levels: Array, strength: float, template: int, search: int) -> Array:
    """Weighted means of levels [b, h, w, c] in 0..255, rounded to integers, ties upwards."""
    b, h, w, c = levels.shape
    margin, reach = template // 2, search // 2
    edge = margin + reach
    padded = jnp.pad(levels, ((0, 0), (edge, edge), (edge, edge), (0, 0)), mode="reflect")
    center = padded[:, reach : reach + h + 2 * margin, reach : reach + w + 2 * margin]
    # OpenCV divides the patch distance by the next power of two instead of template^2, truncates it to an
    # integer, and compensates for the divisor in the exponent.
    power = 1 << (template * template - 1).bit_length()
    scale = -(power / template**2) / (strength * strength * c)

    def add(i: Array, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        total, weights = sums
        offset = (0, i // search, i % search, 0)
        shifted = jax.lax.dynamic_slice(padded, offset, center.shape)
        distance = _window_sums(jnp.sum(jnp.square(shifted - center), -1), template)
        weight = jnp.exp(jnp.floor(distance / power) * scale)[..., None]
        weight = jnp.where(weight < MIN_WEIGHT, 0.0, weight)
        return total + weight * shifted[:, margin : margin + h, margin : margin + w], weights + weight

    zeros = jnp.zeros((b, h, w, c)), jnp.zeros((b, h, w, 1))
    total, weights = jax.lax.fori_loop(0, search * search, add, zeros)
    return jnp.floor(total / weights + 0.5)


def _window_sums(x: Array, side: int) -> Array:
    """Sums over windows of side x side: [b, h + side - 1, w + side - 1] -> [b, h, w]."""
    _, h, w = x.shape
    rows = sum(x[:, i : h - side + 1 + i] for i in range(1, side)) + x[:, : h - side + 1]
    return sum(rows[:, :, i : w - side + 1 + i] for i in range(1, side)) + rows[:, :, : w - side + 1]
