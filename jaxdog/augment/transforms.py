"""Augmentations of real images, jittable: pure functions `(key, batch, **settings) -> batch`.

Each image has its own random draws. Stored crops are squares of s x s pixels, resized without regard to their
aspect ratio: `batch.original_size` is their size before. Regions are drawn in original pixels, and transforms
that crop update it. Images are in [-1, 1] before and, except for noise, after.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxdog.ops import color, resample
from jaxdog.types import Array, Augment, Batch, Key

PerCropType = float | tuple[float, ...]  # one value for all crops, or one per crop type
TRIES = 10  # attempts of torchvision's RandomResizedCrop


def apply_augments(augments: Sequence[Augment], key: Key, batch: Batch) -> Batch:
    """`batch` after all of `augments`, in order."""
    for i, augment in enumerate(augments):
        batch = augment(jax.random.fold_in(key, i), batch)
    return batch


# ------------------------------------------------------------------------------------- flip, noise


def flip(key: Key, batch: Batch, p: float = 0.5) -> Batch:
    """Flips each image left to right with probability p."""
    return batch._replace(image=resample.random_flip(key, batch.image, p))


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
    filter: resample.Filter = "bilinear",
) -> Batch:
    """torchvision's RandomResizedCrop, with regions drawn in original pixels.

    Args:
      key: random key for the batch.
      batch: crops of any size.
      size: height and width of the result.
      scale_min, scale_max: area of the region, as a fraction of the original area.
      ratio_min, ratio_max: width / height of the region.
      filter: of the resize.
    """
    corner, sides = resized_crop_region(
        key, batch.original_size, (scale_min, scale_max), (ratio_min, ratio_max)
    )
    return _crop_resize(batch, corner, sides, size, filter, inside=True)


def resized_crop_region(
    key: Key, original_size: Array, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[Array, Array]:
    """The region of RandomResizedCrop: its upper left corner and its sides, both [b, 2] int32 (y, x).

    It is the first of ten random regions that fits into the image; if none does, the largest centered region
    whose aspect ratio is within the limits.
    """
    b, _ = original_size.shape
    draw = jax.random.uniform(key, (4, b, TRIES))
    full = original_size.astype(jnp.float32)[:, None]  # [b, 1, 2]
    area = full[..., 0] * full[..., 1] * (scale[0] + draw[0] * (scale[1] - scale[0]))
    low, high = jnp.log(jnp.float32(ratio[0])), jnp.log(jnp.float32(ratio[1]))
    aspect = jnp.exp(low + draw[1] * (high - low))
    sides = jnp.round(jnp.sqrt(jnp.stack([area / aspect, area * aspect], -1)))  # [b, tries, 2]
    fits = jnp.all((sides > 0.0) & (sides <= full), -1)
    first = jnp.argmax(fits, 1)[:, None]
    sides = jnp.take_along_axis(sides, first[..., None], 1)[:, 0]
    place = jnp.take_along_axis(draw[2:], first[None], 2)[..., 0].T  # [b, 2]

    h, w = full[:, 0, 0], full[:, 0, 1]
    largest = jnp.stack(
        [jnp.minimum(h, jnp.round(w / ratio[0])), jnp.minimum(w, jnp.round(h * ratio[1]))], -1
    )
    any_fits = jnp.any(fits, 1)[:, None]
    sides = jnp.where(any_fits, sides, largest).astype(jnp.int32)
    room = original_size - sides
    corner = jnp.minimum(jnp.floor(place * (room + 1)).astype(jnp.int32), room)
    return jnp.where(any_fits, corner, room // 2), sides


def random_square(
    key: Key,
    batch: Batch,
    size: int,
    central: float = 0.0,
    zoom: float = 1.0,
    crop_types: tuple[int, ...] = (),
    filter: resample.Filter = "bilinear",
) -> Batch:
    """Resizes the short side to zoom * size, then crops a square of `size` at a random position.

    With zoom 1 the square is as large as possible, and its position along the long side is random.

    Args:
      key: random key for the batch.
      batch: crops of any size.
      size: height and width of the result.
      central: probability of a center crop instead.
      zoom: the resized short side in units of `size`, at least 1.
      crop_types: crop types to which this applies; other crops are resized as a whole. (): all.
      filter: of the resize.
    """
    b = batch.image.shape[0]
    place_key, center_key = jax.random.split(key)
    original_size = batch.original_size.astype(jnp.float32)
    short = round(zoom * size)
    # 1e-3 absorbs float32 rounding below an integer.
    resized = jnp.floor(short * original_size / jnp.min(original_size, 1, keepdims=True) + 1e-3)  # [b, 2]
    room = resized - size
    drawn = jnp.minimum(jnp.floor(jax.random.uniform(place_key, (b, 2)) * (room + 1.0)), room)
    is_central = jax.random.bernoulli(center_key, central, (b, 1))
    corner = jnp.where(is_central, jnp.round(room / 2.0), drawn)
    pixel = original_size / resized
    cropped = _crop_resize(batch, corner * pixel, size * pixel, size, filter, inside=False)
    if not crop_types:
        return cropped
    is_cropped = jnp.any(batch.crop_type[:, None] == jnp.array(crop_types, batch.crop_type.dtype)[None], 1)
    return jax.tree.map(
        lambda x, y: jnp.where(jnp.expand_dims(is_cropped, tuple(range(1, x.ndim))), x, y),
        cropped,
        batch._replace(image=resample.resize(batch.image, size, filter)),
    )


def jittered_square(
    key: Key,
    batch: Batch,
    size: int,
    context: float,
    shift: float,
    grow: float,
    filter: resample.Filter = "bilinear",
) -> Batch:
    """A square around the center of each crop, randomly shifted and enlarged, and clipped to the crop.

    Clipping may leave a rectangle: its short side is resized to `size`, then a square is cropped from it at a
    random position.

    Args:
      key: random key for the batch.
      batch: crops of any size.
      size: height and width of the result.
      context: long side of a crop in units of the square's side.
      shift: largest shift along each axis, in units of the square's side.
      grow: largest enlargement, in units of the square's side.
      filter: of the resize.
    """
    b = batch.image.shape[0]
    place_key, grow_key, shift_key = jax.random.split(key, 3)
    original_size = batch.original_size.astype(jnp.float32)
    side = jnp.max(original_size, 1, keepdims=True) / context  # [b, 1]
    center = original_size / 2.0 + side * jax.random.uniform(shift_key, (b, 2), minval=-shift, maxval=shift)
    half = side * (1.0 + grow * jax.random.uniform(grow_key, (b, 1))) / 2.0
    low, high = jnp.maximum(center - half, 0.0), jnp.minimum(center + half, original_size)
    resized = jnp.floor(size * (high - low) / jnp.min(high - low, 1, keepdims=True) + 1e-3)  # [b, 2]
    room = resized - size
    place = jnp.minimum(jnp.floor(jax.random.uniform(place_key, (b, 2)) * (room + 1.0)), room)
    pixel = (high - low) / resized
    return _crop_resize(batch, low + place * pixel, size * pixel, size, filter, inside=False)


def _crop_resize(batch: Batch, corner: Array, sides: Array, size: int, filter: str, inside: bool) -> Batch:
    """The regions at `corner` with `sides`, [b, 2] (y, x) in original pixels, resized to `size`."""
    _, h, w, _ = batch.image.shape
    stored = jnp.array([[h, w]], jnp.float32) / batch.original_size  # stored per original pixel
    low, high = corner * stored, (corner + sides) * stored
    image = resample.crop_resize(batch.image, low, high, size, filter, inside)
    return batch._replace(image=image, original_size=jnp.round(sides).astype(jnp.int32))


# ------------------------------------------------------------------------------------- warps


def shift_scale_rotate(
    key: Key,
    batch: Batch,
    size: int,
    shift: PerCropType = 0.0,
    scale_min: PerCropType = 1.0,
    scale_max: PerCropType = 1.0,
    degrees: PerCropType = 0.0,
    zoom: PerCropType = 1.0,
    zoom_p: PerCropType = 0.0,
    border: resample.Border = "reflect_101",
    filter: resample.Filter = "box",
) -> Batch:
    """Shifts, scales and rotates by one cubic warp, then resizes to `size`.

    The warp is that of albumentations' ShiftScaleRotate in 2019: around the point (w / 2, h / 2), half a
    pixel off the center. With probability zoom_p the image is instead enlarged by `zoom` and cropped at a
    random position. A crop with shift 0, scales 1, degrees 0 and zoom_p 0 keeps its pixels exactly until it
    is resized.

    Args:
      key: random key for the batch.
      batch: crops of any size.
      size: height and width of the result.
      shift: largest shift along each axis, in units of the side along that axis.
      scale_min, scale_max: limits of the scale; values above 1 enlarge.
      degrees: largest rotation in either direction.
      zoom: at least 1.
      zoom_p: probability of zooming in instead.
      border: what lies beyond the border: the reflection of the image without its last row, or black.
      filter: of the final resize.
    """
    b, h, w, _ = batch.image.shape
    draw = jax.random.uniform(key, (7, b))
    sides = jnp.array([[w, h]], jnp.float32)

    def symmetric(limit: PerCropType, u: Array) -> Array:
        return _per_crop_type(limit, batch.crop_type) * (2.0 * u - 1.0)

    low, high = _per_crop_type(scale_min, batch.crop_type), _per_crop_type(scale_max, batch.crop_type)
    shifts = jnp.stack([symmetric(shift, draw[0]), symmetric(shift, draw[1])], -1) * sides
    warped = affine(shifts, low + draw[2] * (high - low), symmetric(degrees, draw[3]), sides / 2.0)

    step = 1.0 / _per_crop_type(zoom, batch.crop_type)
    corner = draw[4:6].T * (1.0 - step)[:, None] * sides  # upper left corner of the region, in pixels
    offset = corner + (0.5 * step - 0.5)[:, None]  # center of its first output pixel
    zoomed = jnp.concatenate([step[:, None, None] * jnp.eye(2)[None], offset[..., None]], -1)

    is_zoomed = draw[6] < _per_crop_type(zoom_p, batch.crop_type)
    matrix = jnp.where(is_zoomed[:, None, None], zoomed, warped)
    image = resample.warp(batch.image, matrix, h, "cubic", border)
    return batch._replace(image=resample.resize(image, size, filter))


def rotate(
    key: Key,
    batch: Batch,
    degrees: float,
    p: float = 1.0,
    border: resample.Border = "black",
    filter: resample.WarpFilter = "nearest",
) -> Batch:
    """torchvision's RandomRotation around the center, applied with probability p.

    Args:
      key: random key for the batch.
      batch: square images.
      degrees: largest rotation in either direction.
      p: probability that an image is rotated.
      border: what lies beyond the border: the reflection of the image without its last row, or black.
      filter: interpolation.
    """
    b, h, w, _ = batch.image.shape
    angle_key, p_key = jax.random.split(key)
    angle = degrees * jax.random.uniform(angle_key, (b,), minval=-1.0)
    angle = jnp.where(jax.random.bernoulli(p_key, p, (b,)), angle, 0.0)
    center = jnp.array([[w - 1.0, h - 1.0]]) / 2.0
    matrix = affine(jnp.zeros((b, 2)), jnp.ones(b), angle, center)
    return batch._replace(image=resample.warp(batch.image, matrix, h, filter, border))


def affine(shift: Array, scale: Array, degrees: Array, center: Array) -> Array:
    """Matrix [b, 2, 3] for `resample.warp` that scales and rotates around `center`, then shifts.

    It maps output positions to input positions.

    Args:
      shift: [b, 2] (x, y) in pixels, to the right and down.
      scale: [b], above 1 enlarges.
      degrees: [b], counterclockwise.
      center: [b, 2] or [1, 2] (x, y), the fixed point of scaling and rotation.
    """
    cos, sin = jnp.cos(jnp.deg2rad(degrees)) / scale, jnp.sin(jnp.deg2rad(degrees)) / scale
    inverse = jnp.stack([jnp.stack([cos, -sin], -1), jnp.stack([sin, cos], -1)], -2)  # [b, 2, 2]
    moved_center = jnp.sum(inverse * (shift + center)[:, None], -1)
    return jnp.concatenate([inverse, (center - moved_center)[..., None]], -1)


def _per_crop_type(value: PerCropType, crop_type: Array) -> Array:
    """[b] float32: `value` itself, or its entry for each crop's type."""
    table = jnp.asarray(value, jnp.float32)
    return jnp.broadcast_to(table, crop_type.shape) if table.ndim == 0 else table[crop_type]


# ------------------------------------------------------------------------------------- colors


def color_jitter(
    key: Key,
    batch: Batch,
    brightness: float = 0.0,
    contrast_min: float = 1.0,
    contrast_max: float = 1.0,
    saturation: float = 0.0,
    hue: float = 0.0,
    p: float = 1.0,
) -> Batch:
    """torchvision's ColorJitter with probability p: four random transforms in random order.

    Args:
      key: random key for the batch.
      batch: RGB images.
      brightness, saturation: the factor is uniform in [max(0, 1 - x), 1 + x].
      contrast_min, contrast_max: limits of the factor of contrast.
      hue: the rotation is uniform in [-x, x] full turns.
      p: probability that an image is changed.
    """
    b = batch.image.shape[0]
    order_key, factor_key, p_key = jax.random.split(key, 3)
    low = jnp.array([max(0.0, 1.0 - brightness), contrast_min, max(0.0, 1.0 - saturation), -hue])
    high = jnp.array([1.0 + brightness, contrast_max, 1.0 + saturation, hue])
    factor = low[None] + jax.random.uniform(factor_key, (b, 4)) * (high - low)[None]
    rank = jnp.argsort(jax.random.uniform(order_key, (b, 4)), 1)
    image = adjust_colors(batch.image, factor, rank)
    chosen = jax.random.bernoulli(p_key, p, (b, 1, 1, 1))
    return batch._replace(image=jnp.where(chosen, image, batch.image))


def adjust_colors(image: Array, factor: Array, rank: Array) -> Array:
    """Images with brightness, contrast, saturation and hue adjusted, each image in its own order.

    Args:
      image: [b, h, w, 3] in [-1, 1].
      factor: [b, 4]: factors of brightness, contrast and saturation, and the hue's rotation in full turns.
      rank: [b, 4] int, a permutation of 0..3 in each row: the position of each transform in the order.
    """
    # Hue is computed once for all images. The other transforms take up to three rounds before it and three
    # after it; an image that has none in a round is blended with factor 1, which leaves it unchanged.
    blend_rank, hue_rank = rank[:, :3], rank[:, 3:]

    def blend_rounds(image: Array, rounds: Sequence[int], wanted: Array) -> Array:
        for i in rounds:
            now = ((blend_rank == i) & wanted)[:, :, None, None, None]  # [b, 3, 1, 1, 1], at most one of 3
            gray = color.gray(image)
            mean = jnp.mean(gray, (1, 2, 3), keepdims=True)
            other = jnp.where(now[:, 0], -1.0, jnp.where(now[:, 1], mean, gray))
            amount = jnp.where(now[:, :, 0, 0, 0], factor[:, :3], 1.0)
            image = color.blend(image, other, jnp.prod(amount, 1))
        return image

    image = blend_rounds(image, (0, 1, 2), blend_rank < hue_rank)
    image = color.hue(image, factor[:, 3])
    return blend_rounds(image, (1, 2, 3), blend_rank > hue_rank)
