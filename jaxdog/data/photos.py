"""A source of photos, and its crops: decoded once, in parallel, into one cached uint8 array.

Every source (Stanford Dogs, a folder, drawn dogs) is a `Source`; every recipe of `crop.py` turns one
photo and its boxes into square crops; `crops` applies one to the other and remembers the result.
"""

import concurrent.futures
import hashlib
import io
import json
import logging
import os
import pathlib
import re
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tqdm
from PIL import Image, ImageOps

log = logging.getLogger(__name__)

Box = tuple[int, int, int, int]  # xmin, ymin, xmax, ymax in pixels; xmax and ymax are outside the box


MAX_BROKEN = 0.01  # share of a source's photos that may be unreadable
ARRAYS = ("image", "label", "photo", "extent", "kind", "box")  # of Crops, in a cache file
STALE_SECONDS = 3600  # a temporary file this old belongs to nobody any more
FORMAT = 3  # grows when the layout of a cache file changes


class BrokenPhoto(OSError):
    """A photo that cannot be read; it costs that photo only."""


class Photo(NamedTuple):
    """One photo, not yet decoded."""

    name: str  # file name
    label: int  # index into the source's breeds
    boxes: tuple[Box, ...]  # within the photo; () means that the whole photo is the dog
    read: Callable[[], np.ndarray]  # () -> uint8 [h, w, 3]; raises OSError if the photo is broken
    bytes: int = 0  # of its file; 0: it has none


class Source(NamedTuple):
    """Photos to learn from. `photos[i]` is lazy and safe to call from several threads."""

    key: str  # names the source and its content: another content has another key
    breeds: tuple[str, ...]
    photos: Sequence[Photo]
    notes: tuple[str, ...] = ()  # facts about the source worth a line in the run's log


class Kept(NamedTuple):
    """A crop that is kept squashed, or one of several kinds."""

    image: np.ndarray  # uint8 [s, s, 3]
    extent: tuple[int, int]  # height and width in pixels before it was squashed
    kind: int = 0


# photo uint8 [h, w, 3], boxes -> its crops: uint8 [s, s, 3], or Kept where there is more to say.
Recipe = Callable[[np.ndarray, Sequence[Box]], Sequence[np.ndarray | Kept]]


class Crops(NamedTuple):
    """What a recipe made of a source."""

    image: np.ndarray  # uint8 [n, s, s, 3]
    label: np.ndarray  # int32 [n], index into breeds
    photo: np.ndarray  # int32 [n], index into names
    extent: np.ndarray  # int32 [n, 2], height and width in pixels before the crop was squashed
    kind: np.ndarray  # int32 [n], which of the recipe's crops it is
    names: tuple[str, ...]  # file name of every photo of the source
    breeds: tuple[str, ...]
    broken: tuple[str, ...]  # 'name: reason' of each photo that could not be read
    box: np.ndarray | None = None  # int32 [n, 4], the box it was made of (see `owners`); None: not known


def chosen(crops: Crops, rows: np.ndarray) -> Crops:
    """Some of the crops: int [k] or bool [n] `rows`; names, breeds and numbers of photos stay."""
    arrays = {name: getattr(crops, name) for name in ARRAYS}
    return crops._replace(**{name: None if x is None else x[rows] for name, x in arrays.items()})


# ------------------------------------------------------------------------------------- decoding


def decode(data: bytes, *, upright: bool = False) -> np.ndarray:
    """Bytes of a JPEG, PNG or WebP file -> uint8 [h, w, 3] RGB, whatever its colour mode.

    Transparency is laid over white and 16-bit grey is scaled to 8. The file's content decides its
    format, not its name.

    Args:
      data: the file.
      upright: turn the photo as its EXIF orientation says. Off for annotated photos, whose boxes
        count the pixels as they are stored.

    Raises:
      BrokenPhoto: the bytes are no picture, or an incomplete one.
    """
    try:
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
            upright_picture = ImageOps.exif_transpose(picture) if upright else picture
            return np.asarray(_rgb(upright_picture))
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, Image.DecompressionBombError) as error:
        raise BrokenPhoto(f"{type(error).__name__}: {error}") from error


def size(data: bytes) -> tuple[int, int]:
    """Height and width of an encoded picture, from its header only; raises BrokenPhoto."""
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return picture.height, picture.width
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, Image.DecompressionBombError) as error:
        raise BrokenPhoto(f"{type(error).__name__}: {error}") from error


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):  # 16 or 32 bits of grey, 0..65535
        grey = np.clip(np.asarray(picture, np.int64) // 256, 0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        paper = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(paper, layer).convert("RGB")
    return picture.convert("RGB")


# ------------------------------------------------------------------------------------- the cache


def crops(
    source: Source,
    recipe: Recipe,
    recipe_key: str,
    cache_dir: str | os.PathLike | None,
    workers: int | None = None,
) -> Crops:
    """All crops that `recipe` makes of `source`, from the cache or made now.

    The cache is one file, written under a temporary name and renamed when it is complete: an
    interruption leaves no half cache, and two processes that prepare the same crops do no harm.

    Args:
      source: where the photos come from.
      recipe: (photo uint8 [h, w, 3], boxes) -> its crops, all of one size.
      recipe_key: names the recipe and its settings (see `crop.key`); with `source.key` it is the
        cache's key.
      cache_dir: folder of the caches, made if it is missing; None: nothing is kept.
      workers: threads that decode; default: one per core.

    Raises:
      ValueError: more than 1 % of the photos are broken, or the recipe keeps no crop at all.
    """
    path = None if cache_dir is None else cache_path(source.key, recipe_key, cache_dir)
    if path is not None and path.exists():
        try:
            return _load(path, source.key, recipe_key)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            log.warning("The crops in %s are damaged (%s); they are made again.", path, error)
    made = _make(source, recipe, workers)
    for line in made.broken:
        log.warning("Skipped a broken photo, %s", line)
    try:
        if path is not None:
            _save(path, made, source.key, recipe_key)
    except OSError as error:
        log.warning("The crops could not be cached in %s (%s); the run goes on without.", path, error)
    return made


def cache_path(source_key: str, recipe_key: str, cache_dir: str | os.PathLike) -> pathlib.Path:
    """The file that holds (or will hold) the crops of this source and recipe."""
    digest = hashlib.sha256(f"{source_key}\n{recipe_key}".encode()).hexdigest()[:16]
    readable = re.sub(r"[^A-Za-z0-9_]+", "-", f"{source_key[:24]}-{recipe_key.split('(')[0][:24]}")
    return pathlib.Path(cache_dir) / f"{readable}-{digest}.npz"


def _make(source: Source, recipe: Recipe, workers: int | None) -> Crops:
    """Decodes every photo in threads (Pillow releases the GIL) and crops it."""
    n = len(source.photos)
    if n == 0:
        raise ValueError(f"The source {source.key} has no photos.")
    names, made, labels, photos, boxes, broken = [], [], [], [], [], []
    pool = concurrent.futures.ThreadPoolExecutor(workers or os.cpu_count() or 1)
    try:
        results = pool.map(lambda i: _crops_of(source, recipe, i), range(n))
        for i, result in enumerate(
            tqdm.tqdm(results, "cropping photos", n, unit="photo", leave=False, disable=None)
        ):
            name, label, kept, of, reason = result
            names.append(name)
            made += kept
            boxes += of
            labels += [label] * len(kept)
            photos += [i] * len(kept)
            if reason:
                broken.append(f"{name}: {reason}")
                _check_broken(broken, n, source.key)
    finally:
        pool.shutdown(cancel_futures=True)
    if not made:
        raise ValueError(
            f"The recipe made no crop of any of the {n} photos of {source.key}: its filters "
            "(smallest side, aspect) drop every box. Loosen them."
        )
    sizes = sorted({crop.image.shape[:2] for crop in made})
    if len(sizes) > 1:
        (h, w), (h2, w2) = sizes[0], sizes[-1]
        raise ValueError(
            f"The pictures of {source.key} have {len(sizes)} sizes, from {h}x{w} to {h2}x{w2}, and must be "
            "brought to one size."
        )
    return Crops(
        np.stack([crop.image for crop in made]),
        np.asarray(labels, np.int32),
        np.asarray(photos, np.int32),
        np.asarray([crop.extent for crop in made], np.int32),
        np.asarray([crop.kind for crop in made], np.int32),
        tuple(names),
        source.breeds,
        tuple(broken),
        np.asarray(boxes, np.int32),
    )


def _crops_of(source: Source, recipe: Recipe, i: int) -> tuple[str, int, list[Kept], list[Box], str]:
    """Name, label, crops and their boxes of photo i, and why it could not be read ('' if it could)."""
    name, label = f"photo {i}", 0
    try:
        photo = source.photos[i]
        name, label = photo.name, photo.label
        pixels = photo.read()
    except OSError as error:
        return name, label, [], [], str(error) or type(error).__name__
    made = _kept(recipe(pixels, photo.boxes))
    return name, label, made, owners(recipe, pixels, photo.boxes, made), ""


def _kept(made: Sequence[np.ndarray | Kept]) -> list[Kept]:
    return [crop if isinstance(crop, Kept) else Kept(crop, (crop.shape[0], crop.shape[1])) for crop in made]


def owners(recipe: Recipe, photo: np.ndarray, boxes: Sequence[Box], made: Sequence[Kept]) -> list[Box]:
    """The box that each crop of a photo was made of: the first one, where a recipe takes the whole photo.

    A recipe cuts each box by itself, so what it makes of a box alone tells that box's crops. A photo without
    boxes is its own box, and so is a crop that none of the boxes alone gives.
    """
    h, w, _ = photo.shape
    whole = (0, 0, w, h)
    if len(boxes) < 2:
        return [*boxes, whole][:1] * len(made)
    alone = [(box, crop) for box in boxes for crop in _kept(recipe(photo, [box]))]
    found, at = [], 0
    for crop in made:
        i = next((i for i in range(at, len(alone)) if _same(crop, alone[i][1])), None)
        found.append(whole if i is None else alone[i][0])
        at = at if i is None else i + 1
    return found


def _same(a: Kept, b: Kept) -> bool:
    return a[1:] == b[1:] and np.array_equal(a.image, b.image)


def _check_broken(broken: list[str], n: int, key: str) -> None:
    if len(broken) <= MAX_BROKEN * n:
        return
    raise ValueError(
        f"At least {len(broken)} of the {n} photos of {key} are broken, more than {MAX_BROKEN:.0%}; the "
        f"first: {'; '.join(broken[:5])}. A few broken photos are skipped, but so many mean that the data is "
        "damaged or incomplete: copy or download it again."
    )


def _save(path: pathlib.Path, made: Crops, source_key: str, recipe_key: str) -> None:
    """Writes a complete file or none."""
    meta = dict(
        format=FORMAT,
        source=source_key,
        recipe=recipe_key,
        names=made.names,
        breeds=made.breeds,
        broken=made.broken,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    for old in path.parent.glob(f"{path.name}.*.tmp"):  # left by a run that was killed while it wrote
        if time.time() - old.stat().st_mtime > STALE_SECONDS:
            old.unlink(missing_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            encoded = np.frombuffer(json.dumps(meta).encode(), np.uint8)
            arrays = {name: getattr(made, name) for name in ARRAYS}
            np.savez(file, meta=encoded, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        pathlib.Path(temporary).unlink(missing_ok=True)
        raise


def _load(path: pathlib.Path, source_key: str, recipe_key: str) -> Crops:
    """Reads a cache file; the zip's checksums find damage."""
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        meta = json.loads(file["meta"].tobytes())
        found = (meta["format"], meta["source"], meta["recipe"])
        if found != (FORMAT, source_key, recipe_key):
            raise ValueError(f"it holds {found}, not {(FORMAT, source_key, recipe_key)}")
        arrays = {name: file[name] for name in ARRAYS}
    names, breeds, broken = (tuple(meta[name]) for name in ("names", "breeds", "broken"))
    return Crops(**arrays, names=names, breeds=breeds, broken=broken)
