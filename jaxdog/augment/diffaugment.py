"""Differentiable augmentations of real and generated images: DiffAugment and ADA.

Each is a pure function `(key, image, p, **settings) -> image` of images [b, h, w, c] in [-1, 1], applied to
each image with probability p []. The result is not clipped. In DiffAugment (Zhao et al. 2020) p is 1. In ADA
(Karras et al. 2020) it grows with the discriminator's overfitting. An `AugmentPController` computes p.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdog import types
from jaxdog.ops import resample
from jaxdog.utils import errors

Array = types.Array
Key = types.Key
PyTree = types.PyTree


def _apply_with_probability(key: Key, image: Array, changed: Array, p: Array | float) -> Array:
    chosen = jax.random.bernoulli(key, p, (image.shape[0], 1, 1, 1))
    return jnp.where(chosen, changed, image)


# ------------------------------------------------------------------ DiffAugment


def color(
    key: Key, image: Array, p: Array | float, brightness: float, saturation: float, contrast: float
) -> Array:
    """Brightness, saturation and contrast, in this order, each with probability p (Zhao et al. 2020, app. A).

    Args:
      key: random key for the batch.
      image: [b, h, w, 3].
      p: a probability.
      brightness: adds U(-brightness / 2, brightness / 2); 1 in the paper.
      saturation: multiplies the distance to the pixel's mean by 1 + saturation * U(-1, 1); 1 in the paper.
      contrast: multiplies the distance to the image's mean by 1 + contrast * U(-1, 1); 0.5 in the paper.
    """
    b = image.shape[0]

    def uniform(key: Key, width: float) -> Array:
        return width * jax.random.uniform(key, (b, 1, 1, 1), minval=-1.0)

    keys = jax.random.split(key, 6)
    image = _apply_with_probability(keys[0], image, image + 0.5 * uniform(keys[1], brightness), p)
    gray = jnp.mean(image, 3, keepdims=True)
    saturated = gray + (image - gray) * (1.0 + uniform(keys[3], saturation))
    image = _apply_with_probability(keys[2], image, saturated, p)
    mean = jnp.mean(image, (1, 2, 3), keepdims=True)
    contrasted = mean + (image - mean) * (1.0 + uniform(keys[5], contrast))
    return _apply_with_probability(keys[4], image, contrasted, p)


def translation(key: Key, image: Array, p: Array | float, ratio: float) -> Array:
    """Shifts by up to round(ratio * side) whole pixels, with zero padding; ratio is 1/8 in DiffAugment."""
    p_key, key = jax.random.split(key)
    reach = (round(image.shape[1] * ratio), round(image.shape[2] * ratio))
    return _apply_with_probability(p_key, image, resample.random_shift(key, image, reach, "constant"), p)


def cutout(key: Key, image: Array, p: Array | float, ratio: float) -> Array:
    """Zeroes a rectangle with sides round(ratio * side), centered anywhere; ratio is 1/2 in DiffAugment."""
    b, h, w, _ = image.shape
    p_key, key = jax.random.split(key)

    def interval(key: Key, n: int) -> Array:  # [b, n] bool
        side = round(n * ratio)
        center = jax.random.randint(key, (b, 1), 0, n + 1 - side % 2)
        offset = jnp.arange(n)[None] - center + side // 2
        return (offset >= 0) & (offset < side)

    rows, columns = (interval(key, n) for key, n in zip(jax.random.split(key), (h, w), strict=True))
    hole = rows[:, :, None, None] & columns[:, None, :, None]
    return _apply_with_probability(p_key, image, jnp.where(hole, 0.0, image), p)


# ------------------------------------------------------------------ ADA


def blit(key: Key, image: Array, p: Array | float, shift: float) -> Array:
    """Pixel blitting (ADA, app. B): flip, 90-degree rotation and integer shift, each with probability p.

    Args:
      key: random key for the batch.
      image: square.
      p: a probability.
      shift: largest shift as a fraction of the side; the border is reflected.

    Raises:
      UserError: images that are not square.
    """
    b, h, w, _ = image.shape
    if h != w:
        raise errors.UserError(f"images are {h}x{w}; rotations by 90 degrees need squares")
    keys = jax.random.split(key, 6)
    image = _apply_with_probability(keys[1], image, resample.random_flip(keys[0], image, 0.5), p)
    turns = jax.random.randint(keys[2], (b, 1, 1, 1), 0, 4)
    rotated = jnp.select([turns == i for i in range(4)], [jnp.rot90(image, i, (1, 2)) for i in range(4)])
    image = _apply_with_probability(keys[3], image, rotated, p)
    shifted = resample.random_shift(keys[4], image, (round(shift * h), round(shift * w)), "reflect")
    return _apply_with_probability(keys[5], image, shifted, p)


def geometric(key: Key, image: Array, p: Array | float, scale: float, turn: float, shift: float) -> Array:
    """General geometric transforms (ADA, app. B): one warp that combines four maps, each with probability p.

    Interpolation is linear and the border is reflected. ADA applies a wavelet filter before resampling; here
    nothing is antialiased where the map shrinks.

    Args:
      key: random key for the batch.
      image: [b, h, w, c].
      p: a probability.
      scale: isotropic and anisotropic scaling, each by 2^(scale * N(0, 1)); 0.2 in ADA.
      turn: rotation by U(-turn, turn) * pi; 1 in ADA.
      shift: translation by shift * N(0, 1), as a fraction of the side, along each axis; 0.125 in ADA.
    """
    b, h, w, _ = image.shape
    keys = jax.random.split(key, 8)

    def with_probability(i: int, value: Array) -> Array:
        chosen = jax.random.bernoulli(keys[i], p, (b,) + (1,) * (value.ndim - 1))
        return jnp.where(chosen, value, jnp.zeros(()))

    zoom = with_probability(0, scale * jax.random.normal(keys[1], (b,)))
    angle = with_probability(2, math.pi * turn * jax.random.uniform(keys[3], (b,), minval=-1.0))
    stretch = with_probability(4, scale * jax.random.normal(keys[5], (b,)))
    move = with_probability(6, shift * jax.random.normal(keys[7], (b, 2))) * jnp.array([w, h])[None]
    scale_x, scale_y = jnp.exp2(-(zoom + stretch)), jnp.exp2(-(zoom - stretch))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    linear = jnp.stack(
        [jnp.stack([scale_x * cos, -scale_x * sin], 1), jnp.stack([scale_y * sin, scale_y * cos], 1)], 1
    )  # [b, 2, 2], from output to input
    center = jnp.array([(w - 1) / 2, (h - 1) / 2])
    offset = center[None] - move - jnp.einsum("bij,j->bi", linear, center, precision=resample.HIGHEST)
    return resample.warp(image, jnp.concatenate([linear, offset[:, :, None]], 2), h, "linear")


# In the order of application. Cutout is last: otherwise warps would move the hole, and colors fill it.
TRANSFORMS = {
    "blit": blit,
    "geometric": geometric,
    "color": color,
    "translation": translation,
    "cutout": cutout,
}


# ------------------------------------------------------------------ the augmentation probability


class AugmentPController(NamedTuple):
    """How the augmentation probability p is computed during training."""

    p: Callable[[Array, PyTree], Array]  # (step [] int32, state) -> [] in [0, 1]
    # (state, mean sign of D's logits of the real images of an update, their number) -> state
    update: Callable[[PyTree, Array, int], PyTree]
    init_state: PyTree = ()


def fixed(p: float) -> AugmentPController:
    """The same p at every step.

    Raises:
      UserError: `p` is outside [0, 1].
    """
    _check_probability("p", p)
    return AugmentPController(lambda step, state: jnp.full((), p), lambda state, r_t, images: state)


def ramp(first: float, last: float, steps: int) -> AugmentPController:
    """Linear from `first` to `last` over `steps` generator steps, then constant.

    Raises:
      UserError: a probability outside [0, 1], or `steps` below 1.
    """
    _check_probability("first", first)
    _check_probability("last", last)
    if steps < 1:
        raise errors.UserError(f"steps is {steps}, and must be at least 1")

    def p(step: Array, state: PyTree) -> Array:
        return first + (last - first) * jnp.clip(step.astype(jnp.float32) / steps, 0.0, 1.0)

    return AugmentPController(p, lambda state, r_t, images: state)


def ada(target: float, kimg: float, limit: float) -> AugmentPController:
    """Adaptive p: rises while r_t = E[sign(D(real))] is above the target (Karras et al. 2020, sec. 3.1).

    Args:
      target: target value of r_t in (-1, 1); 0.6 in the paper. Real images' logits must tend to be positive.
      kimg: thousands of real images over which p can change by 1; 500 in the paper.
      limit: upper bound of p.

    Raises:
      UserError: `limit` is outside [0, 1].
    """
    _check_probability("limit", limit)

    def update(state: PyTree, r_t: Array, images: int) -> PyTree:
        p = state + jnp.sign(r_t - target) * images / (1000.0 * kimg)
        return jnp.clip(p, 0.0, limit)

    return AugmentPController(lambda step, state: state, update, jnp.zeros(()))


CONTROLLERS: dict[str, Callable[..., AugmentPController]] = {"fixed": fixed, "ramp": ramp, "ada": ada}


def _check_probability(name: str, p: Any) -> None:
    if not 0.0 <= p <= 1.0:
        raise errors.UserError(f"{name} is {p}, and must lie in [0, 1]")
