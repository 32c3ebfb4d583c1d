"""The images of one side of `jaxdog.score`: paths, arrays, lists of images, generators of batches."""

import functools
import hashlib
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import PIL.Image

from jaxdog.data import image_files, photos, sources
from jaxdog.metrics import features, statistics_files
from jaxdog.utils import errors, integers

# Floats must reach down to this value, as nearly all images in [-1, 1] do and none in [0, 1].
DARKEST = -0.5
ACCEPTED = (
    "Accepted are a path, an array [n, h, w, 3] (uint8, or floats in [-1, 1]), a list of PIL images or of "
    "arrays [h, w, 3], and an iterable of batches [b, h, w, 3]"
)


def open_images(images: Any, n: int | None, side: str) -> pathlib.Path | photos.Source:
    """One side of a comparison, for `score_files.score`.

    Args:
      images: see ACCEPTED, and `image_files.source` for paths. Arrays may also be [n, 3, h, w] or gray.
      n: number of images to take: evenly spaced ones of a path or an array, the first of a list, a generator
        or another iterable; None: all of them.
      side: "real" or "fake", for the name of the source and for messages.

    Raises errors.UserError if the images are of another type, shape or range, or there are fewer than n.
    """
    if n is not None:
        integers.check(n, "n", 1)
    if isinstance(images, str | os.PathLike):
        path = pathlib.Path(images).expanduser()
        return path if n is None else _spread(_source(path, side), n, side)
    if _is_array(images):
        source = _array([np.atleast_1d(np.asarray(images))], side)
        return source if n is None else _spread(source, n, side)
    if isinstance(images, Iterable):
        return _collect(images, n, side)
    raise errors.UserError(f"the {side} images are a {type(images).__name__}. {ACCEPTED}")


def _source(path: pathlib.Path, side: str) -> photos.Source:
    if features.is_features_file(path) or statistics_files.is_statistics_file(path):
        raise errors.UserError(f"{path} holds features of the {side} images, so n cannot select some of them")
    return image_files.source(path)


def _spread(source: photos.Source, n: int, side: str) -> photos.Source:
    """n images of a source, evenly spaced: those of a folder are sorted by class."""
    total = len(source.photos)
    _check_count(n, total, side)
    picked = sources.Lazy(n, lambda i: source.photos[i * total // n])
    return source._replace(key=f"{source.key}-{n}-of-{total}", photos=picked)


def _check_count(n: int, total: int, side: str) -> None:
    if total < n:
        raise errors.UserError(f"n is {n:,}, and there are {total:,} {side} images")


def _is_array(value: Any) -> bool:
    """Whether NumPy can read `value`: its own arrays, those of JAX, tensors of torch on the host."""
    return hasattr(value, "__array__") and not isinstance(value, PIL.Image.Image)


# ------------------------------------------------------------------ lists and generators


def _collect(images: Iterable[Any], n: int | None, side: str) -> photos.Source:
    """The images of an iterable of PIL images, arrays [h, w, 3] or batches [b, h, w, 3]."""
    batches: list[np.ndarray] = []
    for item in images:
        batches.append(_batch(item, side))
        if n is not None and sum(map(len, batches)) >= n:
            break
    total = sum(map(len, batches))
    if not total:
        raise errors.UserError(f"there are no {side} images. {ACCEPTED}")
    if n is not None:
        _check_count(n, total, side)
        batches[-1] = batches[-1][: len(batches[-1]) - (total - n)]
    if len({batch.shape[1:] for batch in batches}) == 1:
        return _array(batches, side)
    return _mixed([image for batch in _to_uint8(batches, side) for image in batch], side)


def _array(batches: Sequence[np.ndarray], side: str) -> photos.Source:
    """The images of batches of one shape."""
    image = np.concatenate(_to_uint8(batches, side))
    try:
        return image_files.array(side, image)
    except errors.UserError as error:
        raise errors.UserError(f"the {side} images cannot be read: {error}") from error


def _batch(item: Any, side: str) -> np.ndarray:
    """An element of an iterable as a batch [b, ...]."""
    if isinstance(item, PIL.Image.Image):
        try:
            return photos.pixels(item, upright=True)[None]
        except photos.BrokenPhotoError as error:
            raise errors.UserError(f"one of the {side} images cannot be read: {error}") from error
    if not _is_array(item):
        raise errors.UserError(f"the {side} images hold a {type(item).__name__}. {ACCEPTED}")
    array = np.asarray(item)
    if array.ndim not in (3, 4):
        raise errors.UserError(f"the {side} images hold an array of shape {array.shape}. {ACCEPTED}")
    return array if array.ndim == 4 else array[None]


def _mixed(images: Sequence[np.ndarray], side: str) -> photos.Source:
    """Images of several sizes, each [h, w, 3] uint8."""
    digest = hashlib.sha256()
    for image in images:
        if image.dtype != np.uint8 or image.shape[-1] != 3:
            raise errors.UserError(
                f"the {side} images have several sizes, and one is {list(image.shape)} {image.dtype}; each "
                "must be [h, w, 3] uint8"
            )
        digest.update(repr(image.shape).encode() + image.tobytes())

    def photo(i: int) -> photos.Photo:
        return photos.Photo(str(i), 0, (), functools.partial(np.asarray, images[i]))

    return photos.Source(f"list-{side}-{digest.hexdigest()[:16]}", ("0",), sources.Lazy(len(images), photo))


def _to_uint8(batches: Sequence[np.ndarray], side: str) -> list[np.ndarray]:
    """Batches with floats in [-1, 1] as uint8, rounded to nearest; other types are unchanged."""
    floats = [bool(jnp.issubdtype(batch.dtype, jnp.floating)) for batch in batches]
    if not any(floats) or not all(batch.size for batch in batches):
        return list(batches)  # `image_files.array` checks other types and empty arrays
    if not all(floats):
        raise errors.UserError(f"some of the {side} images are floats and some are not. {ACCEPTED}")
    batches = [np.asarray(batch, np.float32) for batch in batches]
    low, high = min(float(batch.min()) for batch in batches), max(float(batch.max()) for batch in batches)
    if not (-1.0 <= low <= DARKEST and high <= 1.0):
        raise errors.UserError(
            f"the {side} images are floats from {low:.3g} to {high:.3g}; floats must lie in [-1, 1] and "
            f"reach below {DARKEST:g}, so that they cannot be in [0, 1]. Convert other images to uint8 in "
            "0..255, for example np.clip(np.round(255 * x), 0, 255).astype(np.uint8) from [0, 1]"
        )
    return [np.round(127.5 * (batch + 1.0)).astype(np.uint8) for batch in batches]
