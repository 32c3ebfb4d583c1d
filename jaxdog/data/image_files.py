"""Any collection of pictures as a source: a folder, a zip read in place, an array, Stanford Dogs."""

import functools
import hashlib
import os
import pathlib
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxdog.data import cropping, photos, sources
from jaxdog.utils import files

MAX_ENTRIES = 1_000_000  # files in a zip
MAX_ENTRY = 64 << 20  # bytes of one file in a zip, unpacked
MAX_TOTAL = 64 << 30  # bytes of all of them
MAX_RATIO = 200  # unpacked over packed bytes of a file of a mebibyte or more; pictures hardly shrink
MAX_PIXELS = 50_000_000  # of one picture
MOSTLY_ALL = 0.8  # share of a photo's area from which a box shows nothing that the whole does not
IMAGES = ("images", "image", "arr_0", "samples", "x")  # what arrays of pictures are called in .npz files
LABELS = ("labels", "label", "arr_1", "y")
ACCEPTED = (
    "Accepted are a folder of pictures (or of one folder per class), a .zip of them, an .npy or .npz array "
    "[n, h, w, 3] uint8, a file of features, and tfds, tfds:train or tfds:test for Stanford Dogs."
)


def source(path: str | os.PathLike[str]) -> photos.Source:
    """The pictures at a path, read lazily; what is accepted says ACCEPTED.

    Raises FileNotFoundError, or ValueError for what is no collection of pictures, is damaged, or would unpack
    to more than the limits above.
    """
    name = os.fspath(path)
    if name.partition(":")[0] == "tfds":
        split = name.partition(":")[2]
        return sources.tfds(splits=(split,) if split else ("train", "test"))
    path = pathlib.Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist (looked from {os.getcwd()}). {ACCEPTED}")
    if path.is_dir():
        return sources.folder(path)
    readers: dict[str, Callable[[pathlib.Path], photos.Source]]
    readers = {".zip": _zip, ".npy": _npy, ".npz": _npz}
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path} is no collection of pictures. {ACCEPTED}")
    return readers[path.suffix.lower()](path)


def as_is(photo: np.ndarray, boxes: Sequence[photos.Box] = ()) -> list[np.ndarray]:
    """The recipe that leaves a picture as it is."""
    return [photo]


def whole_and_boxes(
    photo: np.ndarray, boxes: Sequence[photos.Box] = (), *, size: int, resampler: str = "lanczos"
) -> list[np.ndarray]:
    """What copies are looked for in: the whole photo, squashed, then each box that is not most of it."""
    h, w, _ = photo.shape
    parts = [box for box in boxes if (box[2] - box[0]) * (box[3] - box[1]) < MOSTLY_ALL * h * w]
    crops = cropping.box_square(photo, parts, size=size, mode="clip", resampler=resampler) if parts else []
    return cropping.squash(photo, size=size, resampler=resampler) + crops


# ------------------------------------------------------------------------------------- zip


def _zip(path: pathlib.Path) -> photos.Source:
    """Pictures in a zip; nothing is unpacked to disk, names in it are never used as paths."""
    try:
        archive = zipfile.ZipFile(path)
        entries = [entry for entry in archive.infolist() if _is_picture(entry)]
    except files.DAMAGED as error:
        raise ValueError(f"{path} is not a whole zip file ({error})") from error
    _check_bounds(path, archive.infolist())
    if not entries:
        held = ", ".join(archive.namelist()[:5]) or "nothing"
        raise ValueError(f"{path} holds no pictures ({', '.join(sources.EXTENSIONS)}), but {held}")
    entries.sort(key=lambda entry: entry.filename)
    folders = [entry.filename.split("/")[:-1] for entry in entries]
    shared = os.path.commonprefix(folders)
    classes = ["/".join(folder[len(shared) : len(shared) + 1]) for folder in folders]
    breeds = sorted(set(classes))
    label = [breeds.index(name) for name in classes]

    def photo(i: int) -> photos.Photo:
        read = functools.partial(_read_entry, archive, entries[i])
        return photos.Photo(entries[i].filename, label[i], (), read)

    facts = [(entry.filename, entry.CRC, entry.file_size) for entry in entries]
    return photos.Source(
        f"zip-{path.name}-{_digest(facts)}", tuple(breeds), sources.Lazy(len(entries), photo)
    )


def _is_picture(entry: zipfile.ZipInfo) -> bool:
    parts = entry.filename.split("/")
    hidden = any(part.startswith((".", "__MACOSX")) for part in parts if part not in (".", ".."))
    return not entry.is_dir() and not hidden and parts[-1].lower().endswith(sources.EXTENSIONS)


def _check_bounds(path: pathlib.Path, entries: Sequence[zipfile.ZipInfo]) -> None:
    """Refuses a zip that is made to fill the memory."""
    total = sum(entry.file_size for entry in entries)
    if len(entries) > MAX_ENTRIES or total > MAX_TOTAL:
        raise ValueError(
            f"{path} would unpack to {len(entries):,} files and {total:,} bytes; the limits are "
            f"{MAX_ENTRIES:,} and {MAX_TOTAL:,}"
        )


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    """One picture; zipfile never reads beyond the size that the entry announces, and checks its CRC."""
    ratio = entry.file_size / max(entry.compress_size, 1)
    if entry.file_size > MAX_ENTRY or (entry.file_size > 1 << 20 and ratio > MAX_RATIO):
        raise photos.BrokenPhoto(
            f"it would unpack to {entry.file_size:,} bytes, {ratio:.0f} times its size; the limits are "
            f"{MAX_ENTRY:,} bytes and {MAX_RATIO} times"
        )
    try:
        data = archive.read(entry)
    except files.DAMAGED as error:
        raise photos.BrokenPhoto(f"damaged or encrypted in the zip ({error})") from error
    h, w = photos.size(data)
    if h * w > MAX_PIXELS:
        raise photos.BrokenPhoto(f"it has {h} x {w} pixels, the limit is {MAX_PIXELS:,}")
    return photos.decode(data, upright=True)


# ------------------------------------------------------------------------------------- arrays


def _npy(path: pathlib.Path) -> photos.Source:
    try:
        return array(path.name, np.load(path, mmap_mode="r", allow_pickle=False), None)
    except (*files.DAMAGED, ValueError) as error:
        raise ValueError(f"{path} cannot be read as pictures: {error}") from error


def _npz(path: pathlib.Path) -> photos.Source:
    try:
        with zipfile.ZipFile(path) as archive:
            _check_bounds(path, archive.infolist())
        with np.load(path, allow_pickle=False) as stored:
            name = next((name for name in IMAGES if name in stored.files), None)
            if name is None and len(stored.files) == 1:
                name = stored.files[0]
            if name is None:
                raise ValueError(
                    f"its arrays are {', '.join(stored.files[:8])}; pictures are looked for under "
                    f"{', '.join(IMAGES)}"
                )
            label = next((stored[name] for name in LABELS if name in stored.files), None)
            return array(path.name, stored[name], label)
    except (*files.DAMAGED, ValueError) as error:
        raise ValueError(f"{path} cannot be read as pictures: {error}") from error


def array(name: str, image: np.ndarray, label: Any = None) -> photos.Source:
    """Pictures [n, h, w, 3], [n, h, w, 1], [n, h, w] or channels first, whole numbers of 0..255.

    Args:
      name: of the source.
      image: the pictures.
      label: [n] whole numbers, the classes.

    Raises ValueError for other shapes and numbers.
    """
    shape = image.shape
    if image.ndim == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3):
        image = np.moveaxis(image, 1, -1)
    if image.ndim == 3:
        image = image[..., None]
    if image.ndim != 4 or image.shape[-1] not in (1, 3) or 0 in shape:
        raise ValueError(f"its array has shape {shape}, and should have [n, h, w, 3]")
    if image.dtype != np.uint8:
        image = _whole_numbers(image)
    n = len(image)
    if label is not None and (label.shape != (n,) or label.dtype.kind not in "iu" or label.min() < 0):
        raise ValueError(f"its labels have shape {label.shape} and type {label.dtype}, not [{n}] of classes")
    classes = 1 if label is None else int(label.max()) + 1

    def photo(i: int) -> photos.Photo:
        read = functools.partial(np.broadcast_to, image[i], (*image.shape[1:3], 3))
        return photos.Photo(str(i), 0 if label is None else int(label[i]), (), read)

    digest = _digest([shape, hashlib.sha256(image.tobytes()).hexdigest()])
    breeds = tuple(str(c) for c in range(classes))
    return photos.Source(f"array-{name}-{digest}", breeds, sources.Lazy(n, photo))


def _whole_numbers(image: np.ndarray) -> np.ndarray:
    """Other types to uint8 where nothing is lost; raises ValueError where something would be."""
    if image.dtype.kind not in "iuf":
        raise ValueError(f"its array is of type {image.dtype}; pictures are uint8")
    if not np.isfinite(image).all():
        raise ValueError(f"{(~np.isfinite(image)).sum():,} of its numbers are NaN or infinite")
    low, high = float(image.min()), float(image.max())
    if low < 0 or high > 255 or (image != np.rint(image)).any() or high <= 1:
        raise ValueError(
            f"its numbers are {image.dtype} from {low:.3g} to {high:.3g}; save them as uint8 of 0..255, as "
            "pictures on disk are: scores of unrounded numbers are scores of other pictures"
        )
    return image.astype(np.uint8)


def _digest(facts: Any) -> str:
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
