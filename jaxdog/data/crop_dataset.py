"""All crops of a source in one uint8 array, made in threads and cached in one file."""

import hashlib
import json
import logging
import os
import pathlib
import re
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from jaxdog.data import photos
from jaxdog.utils import errors, files

log = logging.getLogger(__name__)

FEW_BROKEN, MAX_BROKEN = 5, 0.01  # photos that may be unreadable: this many or this fraction, below half
# Pixels of a source that are decoded at most: so many, or so many times its bytes if that is more. Photos
# have up to about 50 pixels per byte; files that are made to fill the memory have thousands.
FREE_PIXELS, PIXELS_PER_BYTE = 1_000_000_000, 200
# Fields of CropDataset in a cache file.
ARRAYS = ("image", "label", "photo", "original_size", "crop_type", "box")
FORMAT = 5  # version of cache files; older versions are not read


class CropDataset(NamedTuple):
    """The crops that a recipe made of a source, n of them from p photos."""

    image: np.ndarray  # uint8 [n, s, s, 3]
    label: np.ndarray  # int32 [n], index into class_names
    photo: np.ndarray  # int32 [n], index into names
    original_size: np.ndarray  # int32 [n, 2], height and width before the crop was squashed to s x s
    crop_type: np.ndarray  # int32 [n], see photos.Crop
    names: tuple[str, ...]  # [p] file names of all photos of the source
    class_names: tuple[str, ...]
    broken: tuple[str, ...]  # "name: reason" of each photo that could not be read
    box: np.ndarray | None = None  # int32 [n, 4], the box in the photo that the crop shows; None: unknown
    notes: tuple[str, ...] = ()  # what is left out of photos that could be read
    row: np.ndarray | None = None  # int [n], each one's index among all crops of the recipe; None: 0 to n - 1


def subset(crops: CropDataset, rows: np.ndarray) -> CropDataset:
    """The crops at `rows`, int [k] or bool [n]; names, class_names and photo indices are unchanged."""
    arrays = {name: getattr(crops, name) for name in ARRAYS}
    arrays["row"] = np.arange(len(crops.image)) if crops.row is None else crops.row
    return crops._replace(**{name: None if x is None else x[rows] for name, x in arrays.items()})


def readable(crops: CropDataset) -> np.ndarray:
    """int [k], the indices into `names` of the photos that could be read, whether or not they have crops."""
    broken = iter([*crops.broken, ""])
    line = next(broken)
    found = []
    for i, name in enumerate(crops.names):
        if line.startswith(f"{name}: "):  # broken photos are in the order of `names`
            line = next(broken)
        else:
            found.append(i)
    return np.asarray(found, int)


def load(
    source: photos.Source,
    recipe: photos.Recipe,
    recipe_key: str,
    cache_dir: str | os.PathLike | None,
    workers: int | None = None,
) -> CropDataset:
    """All crops that `recipe` makes of `source`, from the cache if present.

    The cache file is written atomically: an interrupted run leaves no partial file, and several processes may
    make the same crops at the same time.

    Args:
      source: the photos.
      recipe: see `crop_recipes`; all of its crops must have the same size.
      recipe_key: identifies the recipe with its settings (`crop_recipes.cache_key`); together with
        `source.key` it is the cache key.
      cache_dir: folder of the cache, created if missing; None: no cache.
      workers: number of threads; None or 0: one per core.

    Raises:
      errors.UserError: too many of the photos are broken (`max_broken`), or decode to more pixels than is
        plausible for their files, or the recipe makes no crops, or crops of different sizes.
    """
    crops = _load(source, recipe, recipe_key, cache_dir, workers)
    for line in crops.broken:
        log.warning("Skipped a broken photo, %s", line)
    for line in crops.notes:
        log.warning("%s", line)
    return crops


def _load(
    source: photos.Source,
    recipe: photos.Recipe,
    recipe_key: str,
    cache_dir: str | os.PathLike | None,
    workers: int | None,
) -> CropDataset:
    path = None if cache_dir is None else cache_path(source.key, recipe_key, cache_dir)
    if path is not None and path.exists():
        try:
            with files.guard(OSError):
                return _read(path, source.key, recipe_key)
        except (OSError, MemoryError) as error:  # a damaged file may declare any size
            log.warning("The crop cache %s cannot be used (%s) and will be recreated.", path, error)
    crops = _make(source, recipe, workers)
    try:
        if path is not None:
            _write(path, crops, source.key, recipe_key)
    except OSError as error:
        log.warning("The crops could not be cached in %s (%s); continuing without a cache.", path, error)
    return crops


def cache_path(source_key: str, recipe_key: str, cache_dir: str | os.PathLike) -> pathlib.Path:
    """The cache file of this source and recipe."""
    digest = hashlib.sha256(f"{source_key}\n{recipe_key}".encode()).hexdigest()[:16]
    readable = re.sub(r"[^A-Za-z0-9_]+", "-", f"{source_key[:24]}-{recipe_key.split('(')[0][:24]}")
    return pathlib.Path(cache_dir) / f"{readable}-{digest}.npz"


# ------------------------------------------------------------------------------------- cropping


class _PhotoCrops(NamedTuple):
    """The crops of one photo."""

    name: str
    label: int
    crops: list[photos.Crop]
    error: str  # why the photo could not be read; "" if it could
    notes: tuple[str, ...] = ()  # what of it is left out
    num_pixels: int = 0

    @property
    def broken(self) -> str:
        """The photo and its error, as one line."""
        return f"{self.name}: {self.error}"


def _make(source: photos.Source, recipe: photos.Recipe, workers: int | None) -> CropDataset:
    """Decodes and crops every photo in threads."""
    results = list(_crop_all(source, recipe, "cropping photos", workers))
    crops = [crop for result in results for crop in result.crops]
    notes = [f"{result.name}: {note}" for result in results for note in result.notes]
    empty = [result.name for result in results if not result.crops and not result.error]
    if empty:
        notes.append(f"the recipe makes no crop of {len(empty):,} photos, such as {empty[0]}")
    _check_crops(crops, source)
    return CropDataset(
        np.stack([crop.image for crop in crops]),
        np.asarray([result.label for result in results for _ in result.crops], np.int32),
        np.asarray([i for i, result in enumerate(results) for _ in result.crops], np.int32),
        np.asarray([crop.original_size for crop in crops], np.int32),
        np.asarray([crop.crop_type for crop in crops], np.int32),
        tuple(result.name for result in results),
        source.class_names,
        tuple(result.broken for result in results if result.error),
        np.asarray([crop.box for crop in crops], np.int32),
        tuple(notes),
    )


def _crop_all(
    source: photos.Source, recipe: photos.Recipe, description: str, workers: int | None = None
) -> Iterator[_PhotoCrops]:
    """The crops of each photo in order, made in threads; raises UserError if the limits are exceeded."""
    n, num_pixels = len(source.photos), 0
    if n == 0:
        raise errors.UserError(f"The source {source.key} has no photos.")
    broken: list[str] = []
    with photos.thread_map(partial(_crop_photo, source, recipe), range(n), description, workers) as results:
        for result in results:
            if result.error:
                broken.append(result.broken)
                _check_broken(broken, n, source.key)
            num_pixels += result.num_pixels
            _check_pixels(num_pixels, source)
            yield result


def _crop_photo(source: photos.Source, recipe: photos.Recipe, i: int) -> _PhotoCrops:
    """The crops of photo i, with the defaults of `photos.Crop` filled in."""
    name, label = f"photo {i}", 0
    try:
        photo = source.photos[i]
        name, label = photo.name, photo.label
        image = photo.read()
        found = recipe(image, photo.boxes)
    except OSError as error:
        return _PhotoCrops(name, label, [], photos.why_broken(name, error))
    h, w, _ = image.shape
    default_box = [*photo.boxes, (0, 0, w, h)][0]
    crops = [
        crop._replace(
            original_size=crop.image.shape[:2] if crop.original_size is None else crop.original_size,
            box=default_box if crop.box is None else crop.box,
        )
        for crop in found
    ]
    return _PhotoCrops(name, label, crops, "", photo.notes, h * w)


def max_broken(n: int) -> int:
    """How many of n photos may be unreadable: 5, or 1 % if that is more, but fewer than half of them."""
    return min(max(FEW_BROKEN, int(MAX_BROKEN * n)), (n - 1) // 2)


def _check_broken(broken: list[str], n: int, key: str) -> None:
    if len(broken) <= max_broken(n):
        return
    raise errors.UserError(
        f"At least {len(broken)} of the {n} photos of {key} are broken, more than the {max_broken(n)} that "
        f"are skipped: {errors.some(broken, between='; ')}. So many indicate that the data is damaged or "
        "incomplete: copy or download it again, or remove these photos."
    )


def _check_pixels(num_pixels: int, source: photos.Source) -> None:
    limit = max(FREE_PIXELS, PIXELS_PER_BYTE * source.num_bytes)
    if source.num_bytes and num_pixels > limit:
        raise errors.UserError(
            f"The photos of {source.key} have more than {limit:,} pixels, but only {source.num_bytes:,} "
            "bytes: so many pixels in so few bytes are not photos"
        )


def _check_crops(crops: list[photos.Crop], source: photos.Source) -> None:
    if not crops:
        raise errors.UserError(
            f"The recipe made no crops of the {len(source.photos)} photos of {source.key}: its filters "
            "(smallest side, aspect) drop every box. Loosen them."
        )
    _check_sizes({crop.image.shape[:2] for crop in crops}, source)


def _check_sizes(sizes: set[tuple[int, ...]], source: photos.Source) -> None:
    if len(sizes) > 1:
        (h, w), (h2, w2) = min(sizes), max(sizes)
        raise errors.UserError(
            f"The images of {source.key} have different sizes, such as {h}x{w} and {h2}x{w2}, but must all "
            "have the same size."
        )


class Batch(NamedTuple):
    """Some images of a stream."""

    image: np.ndarray  # uint8 [b, s, s, 3]
    label: np.ndarray  # int32 [b]


def stream(source: photos.Source, recipe: photos.Recipe, batch_size: int) -> Iterator[Batch]:
    """The images of the crops that `load` makes, in batches; only a few photos are in memory at a time.

    Photos are decoded in threads while a batch is in use. Raises the same errors as `load`, where it comes to
    them; broken photos are left out and logged.
    """
    images: list[np.ndarray] = []
    labels: list[int] = []
    size = None
    for result in _crop_all(source, recipe, ""):
        if result.error:
            log.warning("Skipped a broken photo, %s", result.broken)
        for crop in result.crops:
            size = size or crop.image.shape[:2]
            _check_sizes({size, crop.image.shape[:2]}, source)
            images.append(crop.image)
            labels.append(result.label)
            if len(images) == batch_size:
                yield Batch(np.stack(images), np.asarray(labels, np.int32))
                images, labels = [], []
    if images:
        yield Batch(np.stack(images), np.asarray(labels, np.int32))
    if size is None:
        _check_crops([], source)


# ------------------------------------------------------------------------------------- the cache file


def _write(path: pathlib.Path, crops: CropDataset, source_key: str, recipe_key: str) -> None:
    metadata = dict(
        format=FORMAT,
        source=source_key,
        recipe=recipe_key,
        names=crops.names,
        class_names=crops.class_names,
        broken=crops.broken,
        notes=crops.notes,
    )
    encoded = np.frombuffer(json.dumps(metadata).encode(), np.uint8)
    arrays = {name: getattr(crops, name) for name in ARRAYS}
    with files.atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, metadata=encoded, **arrays)


def _read(path: pathlib.Path, source_key: str, recipe_key: str) -> CropDataset:
    """Reads a cache file; the zip's checksums detect damage."""
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        metadata = json.loads(file["metadata"].tobytes())
        if metadata["format"] != FORMAT:
            raise ValueError(f"another version wrote it: its format is {metadata['format']}, not {FORMAT}")
        stored = (metadata["source"], metadata["recipe"])
        if stored != (source_key, recipe_key):
            raise ValueError(f"it has the key {stored}, not {(source_key, recipe_key)}")
        arrays = {name: file[name] for name in ARRAYS}
    texts: dict[str, Any] = {
        name: tuple(metadata[name]) for name in ("names", "class_names", "broken", "notes")
    }
    return CropDataset(**arrays, **texts)
