"""Augmentations in-graph: pure functions `(key, batch, **settings) -> batch`.

Each picture of the batch draws its own randomness. Stored crops are squares of s pixels that may have had
another shape before: a crop's `extent` says which, and shapes and places are drawn on that extent. What
leaves a crop with other pixels than it came with has the extent of the part that is left.

Ranges are [-1, 1] in and, but for the noises, out.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxdog.ops import color, resample
from jaxdog.types import Array, Augment, Batch, Key

PerKind = float | tuple[float, ...]  # one value for all crops, or one for each kind of crop
TRIES = 10  # of torchvision's RandomResizedCrop


def applied(augments: Sequence[Augment], key: Key, batch: Batch) -> Batch:
    """`batch` after each of `augments` in order."""
    for i, augment in enumerate(augments):
        batch = augment(jax.random.fold_in(key, i), batch)
    return batch


# ------------------------------------------------------------------------------------- mirror, noise


def flip(key: Key, batch: Batch, p: float = 0.5) -> Batch:
    """Mirrors each picture left to right with probability p."""
    return batch._replace(image=resample.mirrored(key, batch.image, p))


def uniform_noise(key: Key, batch: Batch, scale: float) -> Batch:
    """Adds scale * U[0, 1) to every value; the sum is not clipped."""
    image = batch.image
    return batch._replace(image=image + scale * jax.random.uniform(key, image.shape, image.dtype))


def normal_noise(key: Key, batch: Batch, scale: float) -> Batch:
    """Adds scale * N(0, 1) to every value; the sum is not clipped."""
    image = batch.image
    return batch._replace(image=image + scale * jax.random.normal(key, image.shape, image.dtype))


# ------------------------------------------------------------------------------------- crops


def random_resized_crop(
    key: Key,
    batch: Batch,
    size: int,
    scale_min: float,
    scale_max: float,
    ratio_min: float = 3 / 4,
    ratio_max: float = 4 / 3,
    filter: str = "bilinear",
) -> Batch:
    """torchvision's RandomResizedCrop on pictures of their extent: [b, size, size, c].

    Args:
      key: of the batch.
      batch: its crops may be of any size.
      size: of the result.
      scale_min, scale_max: the region's share of the extent's area.
      ratio_min, ratio_max: the region's width / height.
      filter: as in `resample.matrix`.
    """
    corner, sides = resized_crop_region(key, batch.extent, (scale_min, scale_max), (ratio_min, ratio_max))
    return _take(batch, corner, sides, size, filter, inside=True)


def resized_crop_region(
    key: Key, extent: Array, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[Array, Array]:
    """The region that RandomResizedCrop takes: its upper left corner and its sides, [b, 2] int32 (y, x).

    The first of ten draws that fits into the extent; if none does, a centred region as large as its
    ratio, brought between the limits, allows.
    """
    b, _ = extent.shape
    draw = jax.random.uniform(key, (4, b, TRIES))
    whole = extent.astype(jnp.float32)[:, None]  # [b, 1, 2]
    area = whole[..., 0] * whole[..., 1] * (scale[0] + draw[0] * (scale[1] - scale[0]))
    low, high = jnp.log(jnp.float32(ratio[0])), jnp.log(jnp.float32(ratio[1]))
    shape = jnp.exp(low + draw[1] * (high - low))
    sides = jnp.round(jnp.sqrt(jnp.stack([area / shape, area * shape], -1)))  # [b, tries, 2]
    fits = jnp.all((sides > 0.0) & (sides <= whole), -1)
    first = jnp.argmax(fits, 1)[:, None]
    sides = jnp.take_along_axis(sides, first[..., None], 1)[:, 0]
    place = jnp.take_along_axis(draw[2:], first[None], 2)[..., 0].T  # [b, 2]

    h, w = whole[:, 0, 0], whole[:, 0, 1]
    most = jnp.stack([jnp.minimum(h, jnp.round(w / ratio[0])), jnp.minimum(w, jnp.round(h * ratio[1]))], -1)
    any_fits = jnp.any(fits, 1)[:, None]
    sides = jnp.where(any_fits, sides, most).astype(jnp.int32)
    room = extent - sides
    drawn = jnp.minimum(jnp.floor(place * (room + 1)).astype(jnp.int32), room)
    return jnp.where(any_fits, drawn, room // 2), sides


def random_square(
    key: Key,
    batch: Batch,
    size: int,
    central: float = 0.0,
    zoom: float = 1.0,
    kinds: tuple[int, ...] = (),
    filter: str = "bilinear",
) -> Batch:
    """The short side resized to zoom * size, then a square of `size` cut out at a random place.

    With zoom 1 the square is as large as the extent allows and its place along the long side is random.

    Args:
      key: of the batch.
      batch: its crops may be of any size.
      size: of the result.
      central: the probability that the square is cut from the middle instead.
      zoom: at least 1, the short side's pixels before the cut in units of `size`.
      kinds: the kinds of crops that are cut; those of others are squashed whole. None named: all are cut.
      filter: as in `resample.matrix`.
    """
    b = batch.image.shape[0]
    place_key, middle_key = jax.random.split(key)
    extent = batch.extent.astype(jnp.float32)
    short = round(zoom * size)
    resized = jnp.floor(short * extent / jnp.min(extent, 1, keepdims=True) + 1e-3)  # [b, 2]
    room = resized - size
    drawn = jnp.minimum(jnp.floor(jax.random.uniform(place_key, (b, 2)) * (room + 1.0)), room)
    middle = jax.random.bernoulli(middle_key, central, (b, 1))
    corner = jnp.where(middle, jnp.round(room / 2.0), drawn)
    pixel = extent / resized
    cut = _take(batch, corner * pixel, size * pixel, size, filter, inside=False)
    if not kinds:
        return cut
    is_cut = jnp.any(batch.kind[:, None] == jnp.array(kinds, batch.kind.dtype)[None], 1)
    return jax.tree.map(
        lambda x, y: jnp.where(jnp.expand_dims(is_cut, tuple(range(1, x.ndim))), x, y),
        cut,
        batch._replace(image=resample.resize(batch.image, size, filter)),
    )


def jittered_square(
    key: Key, batch: Batch, size: int, context: float, shift: float, grow: float, filter: str = "bilinear"
) -> Batch:
    """A square about the middle of each crop, moved and enlarged at random, cut where the crop ends.

    What is cut off may leave a rectangle: its short side is resized to `size`, a square of it cut out at a
    random place.

    Args:
      key: of the batch.
      batch: its crops may be of any size.
      size: of the result.
      context: the long side of a crop is so many times the square's side.
      shift: the square moves by at most so much of its side, along each axis.
      grow: it is enlarged by at most so much of its side.
      filter: as in `resample.matrix`.
    """
    b = batch.image.shape[0]
    place_key, grow_key, shift_key = jax.random.split(key, 3)
    extent = batch.extent.astype(jnp.float32)
    side = jnp.max(extent, 1, keepdims=True) / context  # [b, 1]
    middle = extent / 2.0 + side * jax.random.uniform(shift_key, (b, 2), minval=-shift, maxval=shift)
    half = side * (1.0 + grow * jax.random.uniform(grow_key, (b, 1))) / 2.0
    low, high = jnp.maximum(middle - half, 0.0), jnp.minimum(middle + half, extent)
    resized = jnp.floor(size * (high - low) / jnp.min(high - low, 1, keepdims=True) + 1e-3)  # [b, 2]
    room = resized - size
    place = jnp.minimum(jnp.floor(jax.random.uniform(place_key, (b, 2)) * (room + 1.0)), room)
    pixel = (high - low) / resized
    return _take(batch, low + place * pixel, size * pixel, size, filter, inside=False)


def _take(batch: Batch, corner: Array, sides: Array, size: int, filter: str, inside: bool) -> Batch:
    """The regions at `corner` with `sides`, [b, 2] (y, x) in pixels of the extent, as crops of `size`."""
    _, h, w, _ = batch.image.shape
    stored = jnp.array([[h, w]], jnp.float32) / batch.extent
    low, high = corner * stored, (corner + sides) * stored
    image = resample.crop_resize(batch.image, low, high, size, filter, inside)
    return batch._replace(image=image, extent=jnp.round(sides).astype(jnp.int32))


# ------------------------------------------------------------------------------------- warps


def shift_scale_rotate(
    key: Key,
    batch: Batch,
    size: int,
    shift: PerKind = 0.0,
    scale_min: PerKind = 1.0,
    scale_max: PerKind = 1.0,
    degrees: PerKind = 0.0,
    zoom: PerKind = 1.0,
    zoom_p: PerKind = 0.0,
    border: str = "reflect_101",
    filter: str = "box",
) -> Batch:
    """Shifted, scaled and turned by one cubic warp, then shrunk to `size`.

    The warp is that of albumentations' ShiftScaleRotate in 2019: about the point (w / 2, h / 2), half a
    pixel off the middle. With probability zoom_p a picture is not warped so but enlarged by `zoom` and
    cut at a random place. Each setting is one value, or a value for each kind of crop; a crop with shift 0,
    scales 1, degrees 0 and zoom_p 0 keeps its pixels up to the shrink.

    Args:
      key: of the batch.
      batch: its crops may be of any size.
      size: of the result.
      shift: at most, along each axis, in units of that axis' side.
      scale_min, scale_max: limits of the scale; above 1 enlarges.
      degrees: at most, to either side.
      zoom: at least 1.
      zoom_p: a probability.
      border: as in `resample.warp`.
      filter: of the shrink, as in `resample.matrix`.
    """
    b, h, w, _ = batch.image.shape
    draw = jax.random.uniform(key, (7, b))
    sides = jnp.array([[w, h]], jnp.float32)

    def spread(limit: PerKind, u: Array) -> Array:
        return _per_kind(limit, batch.kind) * (2.0 * u - 1.0)

    low, high = _per_kind(scale_min, batch.kind), _per_kind(scale_max, batch.kind)
    shifts = jnp.stack([spread(shift, draw[0]), spread(shift, draw[1])], -1) * sides
    turned = affine(shifts, low + draw[2] * (high - low), spread(degrees, draw[3]), sides / 2.0)

    step = 1.0 / _per_kind(zoom, batch.kind)
    place = draw[4:6].T * (1.0 - step)[:, None] * sides  # of the cut's upper left corner, in pixels
    offset = place + (0.5 * step - 0.5)[:, None]  # of its first pixel's centre
    zoomed = jnp.concatenate([step[:, None, None] * jnp.eye(2)[None], offset[..., None]], -1)

    is_zoomed = draw[6] < _per_kind(zoom_p, batch.kind)
    matrix = jnp.where(is_zoomed[:, None, None], zoomed, turned)
    warped = resample.warp(batch.image, matrix, h, "cubic", border)
    return batch._replace(image=resample.resize(warped, size, filter))


def rotate(
    key: Key, batch: Batch, degrees: float, p: float = 1.0, border: str = "black", filter: str = "nearest"
) -> Batch:
    """With probability p, pictures turned about their middle: torchvision's RandomRotation.

    Args:
      key: of the batch.
      batch: of squares.
      degrees: at most, to either side.
      p: the probability that a picture is turned at all.
      border, filter: as in `resample.warp`.
    """
    b, h, w, _ = batch.image.shape
    angle_key, p_key = jax.random.split(key)
    angle = degrees * jax.random.uniform(angle_key, (b,), minval=-1.0)
    angle = jnp.where(jax.random.bernoulli(p_key, p, (b,)), angle, 0.0)
    middle = jnp.array([[w - 1.0, h - 1.0]]) / 2.0
    turned = affine(jnp.zeros((b, 2)), jnp.ones(b), angle, middle)
    return batch._replace(image=resample.warp(batch.image, turned, h, filter, border))


def affine(shift: Array, scale: Array, degrees: Array, center: Array) -> Array:
    """The map from output to input [b, 2, 3] that `resample.warp` needs to scale, turn and then shift.

    Args:
      shift: [b, 2] (x, y) in pixels, to the right and down.
      scale: [b], above 1 enlarges.
      degrees: [b], counter-clockwise.
      center: [b, 2] or [1, 2] (x, y), the point that stays when nothing is shifted.
    """
    cos, sin = jnp.cos(jnp.deg2rad(degrees)) / scale, jnp.sin(jnp.deg2rad(degrees)) / scale
    back = jnp.stack([jnp.stack([cos, -sin], -1), jnp.stack([sin, cos], -1)], -2)  # [b, 2, 2]
    from_there = jnp.sum(back * (shift + center)[:, None], -1)
    return jnp.concatenate([back, (center - from_there)[..., None]], -1)


def _per_kind(value: PerKind, kind: Array) -> Array:
    """[b] float32: the value itself, or the one of each crop's kind."""
    table = jnp.asarray(value, jnp.float32)
    return jnp.broadcast_to(table, kind.shape) if table.ndim == 0 else table[kind]


# ------------------------------------------------------------------------------------- colours


def colour_jitter(
    key: Key,
    batch: Batch,
    brightness: float = 0.0,
    contrast_min: float = 1.0,
    contrast_max: float = 1.0,
    saturation: float = 0.0,
    hue: float = 0.0,
    p: float = 1.0,
) -> Batch:
    """torchvision's ColorJitter with probability p: four changes by random amounts, in a random order.

    Args:
      key: of the batch.
      batch: of colour pictures.
      brightness, saturation: factors are uniform in [1 - x, 1 + x], not below 0.
      contrast_min, contrast_max: limits of the factor of contrast.
      hue: the turn is uniform in [-x, x], in whole turns.
      p: the probability that a picture is changed at all.
    """
    b = batch.image.shape[0]
    order_key, factor_key, p_key = jax.random.split(key, 3)
    low = jnp.array([max(0.0, 1.0 - brightness), contrast_min, max(0.0, 1.0 - saturation), -hue])
    high = jnp.array([1.0 + brightness, contrast_max, 1.0 + saturation, hue])
    factor = low[None] + jax.random.uniform(factor_key, (b, 4)) * (high - low)[None]
    rank = jnp.argsort(jax.random.uniform(order_key, (b, 4)), 1)  # when each of the four has its turn
    image = jittered(batch.image, factor, rank)
    chosen = jax.random.bernoulli(p_key, p, (b, 1, 1, 1))
    return batch._replace(image=jnp.where(chosen, image, batch.image))


def jittered(image: Array, factor: Array, rank: Array) -> Array:
    """Pictures [b, h, w, 3] with brightness, contrast, saturation and hue changed, in this order of columns.

    Args:
      image: in [-1, 1].
      factor: [b, 4], three factors and a turn.
      rank: [b, 4] int, a permutation of 0..3 in each row: when each of the four has its turn.
    """
    when, hue_when = rank[:, :3], rank[:, 3:]

    def mixed(image: Array, turns: Sequence[int], wanted: Array) -> Array:
        for turn in turns:  # a picture whose turn it is not is mixed with factor 1, that is not at all
            now = ((when == turn) & wanted)[:, :, None, None, None]  # [b, 3, 1, 1, 1], at most one of 3
            grey = color.grey(image)
            flat = jnp.mean(grey, (1, 2, 3), keepdims=True)
            other = jnp.where(now[:, 0], -1.0, jnp.where(now[:, 1], flat, grey))
            amount = jnp.where(now[:, :, 0, 0, 0], factor[:, :3], 1.0)
            image = color.mix(image, other, jnp.prod(amount, 1))
        return image

    image = mixed(image, (0, 1, 2), when < hue_when)
    image = color.hue(image, factor[:, 3])
    return mixed(image, (1, 2, 3), when > hue_when)
