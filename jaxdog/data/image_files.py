"""Collections of images as sources: a folder, a zip, an array, or Stanford Dogs."""

import contextlib
import functools
import hashlib
import os
import pathlib
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jaxdog.data import listing, photos, sources
from jaxdog.utils import archives, errors, files, untrusted

MAX_ARRAY_BYTES = 16 << 30  # of an array in an .npz, which is held in memory
MAX_CLASSES = 100_000
MAX_IMAGES = 10_000_000  # in an array
PIECE = 100_000  # labels that are hashed at once
# Names of arrays in .npz files, in order of preference.
IMAGES = ("images", "image", "arr_0", "samples", "x")
LABELS = ("labels", "label", "arr_1", "y")
ACCEPTED = (
    "Accepted are a folder of images (or of one folder per class), a .zip of them, an .npy or .npz array "
    "[n, h, w, 3] uint8, a file of features or of statistics, and tfds, tfds:train or tfds:test for Stanford "
    "Dogs."
)


def source(path: str | os.PathLike[str]) -> photos.Source:
    """The images at a path, read lazily; ACCEPTED lists the formats.

    Raises:
      FileNotFoundError: the path does not exist.
      errors.UserError: it is not a collection of images, is damaged, or exceeds the limits of `archives`.
    """
    name = os.fspath(path)
    if name.partition(":")[0] == "tfds":
        split = name.partition(":")[2]
        return sources.tfds(splits=(split,) if split else ("train", "test"))
    path = pathlib.Path(path).expanduser()
    if not path.exists():
        raise errors.MissingFileError(f"{path} does not exist (looked from {os.getcwd()}). {ACCEPTED}")
    if path.is_dir():
        return sources.folder(path)
    readers: dict[str, Callable[[pathlib.Path], photos.Source]]
    readers = {".zip": _zip, ".npy": _npy, ".npz": _npz}
    if path.suffix.lower() not in readers:
        raise errors.UserError(f"{path} is not a collection of images. {ACCEPTED}")
    return readers[path.suffix.lower()](path)


def _zip(path: pathlib.Path) -> photos.Source:
    return sources.of_files(listing.of_zip(path), path, "zip", path.name)


# ------------------------------------------------------------------------------------- arrays


def _npy(path: pathlib.Path) -> photos.Source:
    with _named(path):
        return array(path.name, np.load(path, mmap_mode="r", allow_pickle=False), None)


def _npz(path: pathlib.Path) -> photos.Source:
    with _named(path):
        with archives.open_zip(path) as archive:
            arrays = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
            name = next((name for name in IMAGES if name in arrays), None)
            if name is None and len(arrays) == 1:
                name = next(iter(arrays))
            if name is None:
                raise errors.UserError(
                    f"its arrays are {errors.some(arrays)}; images are expected under {', '.join(IMAGES)}"
                )
            label = next((_read_array(archive, arrays[name]) for name in LABELS if name in arrays), None)
            return array(path.name, _read_array(archive, arrays[name]), label)


@contextlib.contextmanager
def _named(path: pathlib.Path) -> Iterator[None]:
    """Errors in the block name the file."""
    try:
        with files.guard(archives.EntryError):
            yield
    except (errors.UserError, archives.EntryError) as error:
        raise errors.UserError(f"{path} cannot be read as images: {error}") from error


def _read_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    """An array of an .npz; its size is checked before memory is allocated for it."""
    archives.check_size(entry, MAX_ARRAY_BYTES)
    return untrusted.read_npy(untrusted.EntryFile(archive, entry))


def array(name: str, image: np.ndarray, label: Any = None) -> photos.Source:
    """Images [n, h, w, 3], [n, h, w, 1], [n, h, w] or channels first, with integer values in 0..255.

    Args:
      name: name of the source.
      image: the images.
      label: [n] integers, the classes; None: one class.

    Raises errors.UserError for other shapes and values.
    """
    shape = image.shape
    if image.ndim == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3):
        image = np.moveaxis(image, 1, -1)
    if image.ndim == 3 and (shape[0] in (1, 3) or shape[-1] in (1, 2, 3, 4)):  # with alpha: 2, 4
        raise errors.UserError(
            f"its array has shape {shape}, which is that of one image; an array of images has shape "
            "[n, h, w, 3], and of gray ones [n, h, w, 1] or [n, h, w]"
        )
    if image.ndim == 3:
        image = image[..., None]
    if image.ndim != 4 or image.shape[-1] not in (1, 3) or 0 in shape:
        raise errors.UserError(f"its array has shape {shape}, and must have shape [n, h, w, 3]")
    n, h, w, _ = image.shape
    if n > MAX_IMAGES:
        raise errors.UserError(f"it has {n:,} images; the limit is {MAX_IMAGES:,}")
    if h * w > photos.MAX_PIXELS:
        raise errors.UserError(f"its images have {h} x {w} pixels; the limit is {photos.MAX_PIXELS:,}")
    if image.dtype != np.uint8:
        image = _to_uint8(image)
    if label is not None and (label.shape != (n,) or label.dtype.kind not in "iu" or label.min() < 0):
        raise errors.UserError(
            f"its labels have shape {label.shape} and type {label.dtype}, and must be [{n}] integers >= 0"
        )
    if label is not None and label.max() >= MAX_CLASSES:
        raise errors.UserError(f"its labels reach {label.max():,}; the limit is {MAX_CLASSES:,} classes")
    classes = 1 if label is None else int(label.max()) + 1

    def photo(i: int) -> photos.Photo:
        read = functools.partial(np.broadcast_to, image[i], (*image.shape[1:3], 3))
        return photos.Photo(str(i), 0 if label is None else int(label[i]), (), read)

    class_names = tuple(str(c) for c in range(classes))
    return photos.Source(f"array-{name}-{_content(shape, image, label)}", class_names, sources.Lazy(n, photo))


def _content(shape: tuple[int, ...], image: np.ndarray, label: np.ndarray | None) -> str:
    """A hash of the images, in the shape that they had, and of their labels."""
    hashed = hashlib.sha256()
    for one in image:  # one by one, as the array may be larger than the memory
        hashed.update(one.tobytes())
    digest = hashlib.sha256(f"[{shape!r}, {hashed.hexdigest()!r}".encode())
    labels = np.zeros(0, int) if label is None else label
    for i in range(0, len(labels), PIECE):
        digest.update("".join(f", {x}" for x in labels[i : i + PIECE].tolist()).encode())
    digest.update(b"]")
    return digest.hexdigest()[:16]


def _to_uint8(image: np.ndarray) -> np.ndarray:
    """Converts other types to uint8; raises errors.UserError where that would lose information."""
    if image.dtype.kind not in "iuf":
        raise errors.UserError(f"its array is of type {image.dtype}, and must be uint8")
    converted, low, high, whole = np.empty(image.shape, np.uint8), np.inf, -np.inf, True
    for i, one in enumerate(image):  # one by one, as copies of the array may not fit into memory
        if not np.isfinite(one).all():
            raise errors.UserError(f"{(~np.isfinite(image)).sum():,} of its values are NaN or infinite")
        low, high = min(low, float(one.min())), max(high, float(one.max()))
        whole = whole and 0 <= low and high <= 255 and bool((one == np.rint(one)).all())
        if whole:
            converted[i] = one
    if not whole or high <= 1:
        raise errors.UserError(
            f"its values are {image.dtype} from {low:.3g} to {high:.3g}; save them as uint8 in 0..255, as "
            "in image files: scores of unrounded values are those of different images"
        )
    return converted
