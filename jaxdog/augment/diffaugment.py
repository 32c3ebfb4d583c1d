"""Augmentations of real and generated pictures alike, through which the generator's gradient flows.

Each is a pure function `(key, image, p, **settings) -> image`, images [b, h, w, c] in [-1, 1]. Every picture
is changed with probability p [], on its own; nothing is clipped. In DiffAugment (Zhao et al. 2020) p is 1; in
ADA (Karras et al. 2020) it follows how well the discriminator knows the photos. A `Control` says what p is.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdog import types
from jaxdog.ops import resample

Array = types.Array
Key = types.Key
PyTree = types.PyTree


def _drawn(key: Key, image: Array, changed: Array, p: Array | float) -> Array:
    chosen = jax.random.bernoulli(key, p, (image.shape[0], 1, 1, 1))
    return jnp.where(chosen, changed, image)


# ------------------------------------------------------------------ DiffAugment


def colour(
    key: Key, image: Array, p: Array | float, brightness: float, saturation: float, contrast: float
) -> Array:
    """Brightness, saturation, contrast, in this order, each with probability p (Zhao et al. 2020, app. A).

    Args:
      brightness: the width of what is added, U(-brightness/2, brightness/2); the paper's is 1.
      saturation: each pixel's distance from its own mean is multiplied by 1 + saturation * U(-1, 1); 1.
      contrast: the same of each number's distance from the picture's mean; the paper's is 0.5.
    """
    b = image.shape[0]

    def uniform(key: Key, width: float) -> Array:
        return width * jax.random.uniform(key, (b, 1, 1, 1), minval=-1.0)

    keys = jax.random.split(key, 6)
    image = _drawn(keys[0], image, image + 0.5 * uniform(keys[1], brightness), p)
    grey = jnp.mean(image, 3, keepdims=True)
    image = _drawn(keys[2], image, grey + (image - grey) * (1.0 + uniform(keys[3], saturation)), p)
    mean = jnp.mean(image, (1, 2, 3), keepdims=True)
    return _drawn(keys[4], image, mean + (image - mean) * (1.0 + uniform(keys[5], contrast)), p)


def translation(key: Key, image: Array, p: Array | float, ratio: float) -> Array:
    """Moved by up to round(ratio * side) whole pixels each way; zeros come in. The paper's ratio is 1/8."""
    which, key = jax.random.split(key)
    reach = (round(image.shape[1] * ratio), round(image.shape[2] * ratio))
    return _drawn(which, image, resample.shifted(key, image, reach, "constant"), p)


def cutout(key: Key, image: Array, p: Array | float, ratio: float) -> Array:
    """A rectangle of round(ratio * side) pixels is set to zero; its centre lies anywhere. Theirs: 1/2."""
    b, h, w, _ = image.shape
    which, key = jax.random.split(key)

    def hit(key: Key, n: int) -> Array:  # [b, n]
        side = round(n * ratio)
        centre = jax.random.randint(key, (b, 1), 0, n + 1 - side % 2)
        place = jnp.arange(n)[None] - centre + side // 2
        return (place >= 0) & (place < side)

    rows, columns = (hit(key, n) for key, n in zip(jax.random.split(key), (h, w), strict=True))
    hole = rows[:, :, None, None] & columns[:, None, :, None]
    return _drawn(which, image, jnp.where(hole, 0.0, image), p)


# ------------------------------------------------------------------ ADA


def blit(key: Key, image: Array, p: Array | float, shift: float) -> Array:
    """Mirror, quarter turns, whole-pixel shifts of up to shift * side, each with probability p (ADA, app. B).

    What comes in is the picture reflected. A turn is by 0, 90, 180 or 270 degrees, the pictures are square.
    """
    b, h, w, _ = image.shape
    if h != w:
        raise ValueError(f"pictures are {h}x{w}; quarter turns need squares")
    keys = jax.random.split(key, 6)
    image = _drawn(keys[1], image, resample.mirrored(keys[0], image, 0.5), p)
    turns = jax.random.randint(keys[2], (b, 1, 1, 1), 0, 4)
    turned = jnp.select([turns == i for i in range(4)], [jnp.rot90(image, i, (1, 2)) for i in range(4)])
    image = _drawn(keys[3], image, turned, p)
    moved = resample.shifted(keys[4], image, (round(shift * h), round(shift * w)), "reflect")
    return _drawn(keys[5], image, moved, p)


def geometric(key: Key, image: Array, p: Array | float, scale: float, turn: float, shift: float) -> Array:
    """One affine map out of four, each taken with probability p (ADA, app. B); linear, reflected outside.

    Args:
      scale: isotropic zoom 2^N(0, scale), and as much again of width against height. ADA's is 0.2.
      turn: rotation in units of pi, U(-turn, turn). ADA's is 1.
      shift: N(0, shift) of the side, along both axes. ADA's is 0.125.

    ADA filters with wavelets before it resamples; here nothing is averaged where the map shrinks.
    """
    b, h, w, _ = image.shape
    keys = jax.random.split(key, 8)

    def some(i: int, value: Array) -> Array:
        chosen = jax.random.bernoulli(keys[i], p, (b,) + (1,) * (value.ndim - 1))
        return jnp.where(chosen, value, jnp.zeros(()))

    zoom = some(0, scale * jax.random.normal(keys[1], (b,)))
    angle = some(2, math.pi * turn * jax.random.uniform(keys[3], (b,), minval=-1.0))
    stretch = some(4, scale * jax.random.normal(keys[5], (b,)))
    move = some(6, shift * jax.random.normal(keys[7], (b, 2))) * jnp.array([w, h])[None]
    across, down = jnp.exp2(-(zoom + stretch)), jnp.exp2(-(zoom - stretch))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    linear = jnp.stack(
        [jnp.stack([across * cos, -across * sin], 1), jnp.stack([down * sin, down * cos], 1)], 1
    )  # [b, 2, 2], from output to input
    centre = jnp.array([(w - 1) / 2, (h - 1) / 2])
    offset = centre[None] - move - jnp.einsum("bij,j->bi", linear, centre, precision=resample.HIGHEST)
    return resample.warp(image, jnp.concatenate([linear, offset[:, :, None]], 2), h, "linear")


# Taken in this order: pixels last, as what is cut out must stay cut out.
STEPS = {
    "blit": blit,
    "geometric": geometric,
    "colour": colour,
    "translation": translation,
    "cutout": cutout,
}


# ------------------------------------------------------------------ what p is


class Control(NamedTuple):
    """A rule for p: what it is now, and what becomes of its memory once real pictures are judged."""

    p: Callable[[Array, PyTree], Array]  # (step [] int32, memory) -> [] in [0, 1]
    after: Callable[[PyTree, Array], PyTree]  # (memory, logits of real pictures [b]) -> memory
    memory: PyTree = ()  # before the first step


def fixed(p: float) -> Control:
    """The same p at every step."""
    _probability("p", p)
    return Control(lambda step, memory: jnp.full((), p), lambda memory, logit: memory)


def ramp(first: float, last: float, steps: int) -> Control:
    """From `first` to `last` in a straight line over `steps` steps of the generator, then `last`."""
    _probability("first", first)
    _probability("last", last)
    if steps < 1:
        raise ValueError(f"steps is {steps}, and must be at least 1")

    def p(step: Array, memory: PyTree) -> Array:
        return first + (last - first) * jnp.clip(step.astype(jnp.float32) / steps, 0.0, 1.0)

    return Control(p, lambda memory, logit: memory)


def ada(target: float, kimg: float, limit: float) -> Control:
    """p rises while E sign(D(real)) is above the target, else it falls (Karras et al. 2020, sec. 3.1, r_t).

    Args:
      target: of E sign(D(real)) in (-1, 1); the paper's is 0.6. Needs a D whose logits are above 0 for real.
      kimg: thousand real pictures within which p could go from 0 to 1; the paper's is 500.
      limit: p at most.
    """
    _probability("limit", limit)

    def after(memory: PyTree, logit: Array) -> PyTree:
        known = jnp.mean(jnp.sign(jax.lax.stop_gradient(logit)))
        moved = memory + jnp.sign(known - target) * logit.shape[0] / (1000.0 * kimg)
        return jnp.clip(moved, 0.0, limit)

    return Control(lambda step, memory: memory, after, jnp.zeros(()))


CONTROLS: dict[str, Callable[..., Control]] = {"fixed": fixed, "ramp": ramp, "ada": ada}


def _probability(name: str, p: Any) -> None:
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"{name} is {p}, and must lie in [0, 1]")
