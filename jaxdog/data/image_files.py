"""Collections of images as sources: a folder, a zip, an array, or Stanford Dogs."""

import functools
import hashlib
import os
import pathlib
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxdog.data import photos, sources
from jaxdog.utils import errors, files

MAX_ENTRIES = 1_000_000  # files in a zip
MAX_ENTRY = 64 << 20  # bytes of one file in a zip, uncompressed
MAX_TOTAL = 64 << 30  # bytes of all files in a zip, uncompressed
MAX_RATIO = 200  # compression ratio of files larger than 1 MiB; images hardly compress
MAX_PIXELS = 50_000_000  # pixels of one image
# Names of arrays in .npz files, in order of preference.
IMAGES = ("images", "image", "arr_0", "samples", "x")
LABELS = ("labels", "label", "arr_1", "y")
ACCEPTED = (
    "Accepted are a folder of images (or of one folder per class), a .zip of them, an .npy or .npz array "
    "[n, h, w, 3] uint8, a file of features, and tfds, tfds:train or tfds:test for Stanford Dogs."
)


def source(path: str | os.PathLike[str]) -> photos.Source:
    """The images at a path, read lazily; ACCEPTED lists the formats.

    Raises:
      FileNotFoundError: the path does not exist.
      errors.UserError: it is not a collection of images, is damaged, or exceeds the limits above.
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


# ------------------------------------------------------------------------------------- zip


def _zip(path: pathlib.Path) -> photos.Source:
    """Images in a zip; nothing is extracted to disk, and names in it are never used as paths."""
    try:
        archive = zipfile.ZipFile(path)
        entries = [entry for entry in archive.infolist() if _is_image(entry)]
    except files.DAMAGED as error:
        raise errors.UserError(f"{path} is damaged or not a zip file ({error})") from error
    _check_bounds(path, archive.infolist())
    if not entries:
        held = ", ".join(archive.namelist()[:5]) or "none"
        raise errors.UserError(f"{path} has no images ({', '.join(sources.EXTENSIONS)}); its files: {held}")
    entries.sort(key=lambda entry: entry.filename)
    folders = [entry.filename.split("/")[:-1] for entry in entries]
    shared = os.path.commonprefix(folders)
    classes = ["/".join(folder[len(shared) : len(shared) + 1]) for folder in folders]
    class_names = sorted(set(classes))
    label = [class_names.index(name) for name in classes]

    def photo(i: int) -> photos.Photo:
        read = functools.partial(_read_entry, archive, entries[i])
        return photos.Photo(entries[i].filename, label[i], (), read)

    facts = [(entry.filename, entry.CRC, entry.file_size) for entry in entries]
    return photos.Source(
        f"zip-{path.name}-{_digest(facts)}", tuple(class_names), sources.Lazy(len(entries), photo)
    )


def _is_image(entry: zipfile.ZipInfo) -> bool:
    parts = entry.filename.split("/")
    hidden = any(part.startswith((".", "__MACOSX")) for part in parts if part not in (".", ".."))
    return not entry.is_dir() and not hidden and parts[-1].lower().endswith(sources.EXTENSIONS)


def _check_bounds(path: pathlib.Path, entries: Sequence[zipfile.ZipInfo]) -> None:
    """Raises errors.UserError for a zip bomb."""
    total = sum(entry.file_size for entry in entries)
    if len(entries) > MAX_ENTRIES or total > MAX_TOTAL:
        raise errors.UserError(
            f"{path} would extract to {len(entries):,} files and {total:,} bytes; the limits are "
            f"{MAX_ENTRIES:,} and {MAX_TOTAL:,}"
        )


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    """One image; zipfile checks its CRC and never reads beyond the size in the entry."""
    ratio = entry.file_size / max(entry.compress_size, 1)
    if entry.file_size > MAX_ENTRY or (entry.file_size > 1 << 20 and ratio > MAX_RATIO):
        raise photos.BrokenPhotoError(
            f"it would extract to {entry.file_size:,} bytes, {ratio:.0f} times its size; the limits are "
            f"{MAX_ENTRY:,} bytes and {MAX_RATIO} times"
        )
    try:
        data = archive.read(entry)
    except files.DAMAGED as error:
        raise photos.BrokenPhotoError(f"damaged or encrypted in the zip ({error})") from error
    h, w = photos.image_size(data)
    if h * w > MAX_PIXELS:
        raise photos.BrokenPhotoError(f"it has {h} x {w} pixels, the limit is {MAX_PIXELS:,}")
    return photos.decode(data, upright=True)


# ------------------------------------------------------------------------------------- arrays


def _npy(path: pathlib.Path) -> photos.Source:
    try:
        return array(path.name, np.load(path, mmap_mode="r", allow_pickle=False), None)
    except (*files.DAMAGED, ValueError) as error:
        raise errors.UserError(f"{path} cannot be read as images: {error}") from error


def _npz(path: pathlib.Path) -> photos.Source:
    try:
        with zipfile.ZipFile(path) as archive:
            _check_bounds(path, archive.infolist())
        with np.load(path, allow_pickle=False) as stored:
            name = next((name for name in IMAGES if name in stored.files), None)
            if name is None and len(stored.files) == 1:
                name = stored.files[0]
            if name is None:
                raise errors.UserError(
                    f"its arrays are {', '.join(stored.files[:8])}; images are expected under "
                    f"{', '.join(IMAGES)}"
                )
            label = next((stored[name] for name in LABELS if name in stored.files), None)
            return array(path.name, stored[name], label)
    except (*files.DAMAGED, ValueError) as error:
        raise errors.UserError(f"{path} cannot be read as images: {error}") from error


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
    if image.ndim == 3:
        image = image[..., None]
    if image.ndim != 4 or image.shape[-1] not in (1, 3) or 0 in shape:
        raise errors.UserError(f"its array has shape {shape}, and must have shape [n, h, w, 3]")
    if image.dtype != np.uint8:
        image = _to_uint8(image)
    n = len(image)
    if label is not None and (label.shape != (n,) or label.dtype.kind not in "iu" or label.min() < 0):
        raise errors.UserError(
            f"its labels have shape {label.shape} and type {label.dtype}, and must be [{n}] integers >= 0"
        )
    classes = 1 if label is None else int(label.max()) + 1

    def photo(i: int) -> photos.Photo:
        read = functools.partial(np.broadcast_to, image[i], (*image.shape[1:3], 3))
        return photos.Photo(str(i), 0 if label is None else int(label[i]), (), read)

    digest = _digest([shape, hashlib.sha256(image.tobytes()).hexdigest()])
    class_names = tuple(str(c) for c in range(classes))
    return photos.Source(f"array-{name}-{digest}", class_names, sources.Lazy(n, photo))


def _to_uint8(image: np.ndarray) -> np.ndarray:
    """Converts other types to uint8; raises errors.UserError where that would lose information."""
    if image.dtype.kind not in "iuf":
        raise errors.UserError(f"its array is of type {image.dtype}, and must be uint8")
    if not np.isfinite(image).all():
        raise errors.UserError(f"{(~np.isfinite(image)).sum():,} of its values are NaN or infinite")
    low, high = float(image.min()), float(image.max())
    if low < 0 or high > 255 or (image != np.rint(image)).any() or high <= 1:
        raise errors.UserError(
            f"its values are {image.dtype} from {low:.3g} to {high:.3g}; save them as uint8 in 0..255, as "
            "in image files: scores of unrounded values are those of different images"
        )
    return image.astype(np.uint8)


def _digest(facts: Any) -> str:
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
