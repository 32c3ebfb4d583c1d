"""`images.zip`: 10,000 PNG files of 64x64 RGB, written atomically and checked as in the competition."""

import concurrent.futures
import hashlib
import io
import os
import pathlib
import zipfile
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import PIL.Image

from jaxdog.data import photos
from jaxdog.utils import archives, errors, files

COUNT = 10_000  # images
SIZE = 64  # px, height and width

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time of a zip entry, so that equal images give equal bytes


class ZipInfo(NamedTuple):
    """Properties of a checked zip."""

    count: int  # images
    size: int  # px, height and width
    bytes: int  # size of the zip file
    sha256: str  # hash of the zip file


class SubmissionError(errors.UserError):
    """The zip, or an image for it, violates a rule of the competition."""


def write_zip(
    path: str | os.PathLike[str], images: Iterable[np.ndarray], count: int = COUNT, size: int = SIZE
) -> ZipInfo:
    """Writes batches [b, size, size, 3] uint8 into a zip of `count` PNG files and checks it.

    The write is atomic: if it fails, an existing file at `path` is unchanged. For a given version of zlib,
    the bytes depend only on the images.
    """
    with files.atomic_path(path) as temporary:
        _write(temporary, images, count, size)
        return check_zip(temporary, count, size)


def _write(path: pathlib.Path, images: Iterable[np.ndarray], count: int, size: int) -> None:
    written = 0
    digits = max(5, len(str(count - 1)))
    workers = os.cpu_count() or 1
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive,
        concurrent.futures.ThreadPoolExecutor(workers) as pool,
    ):
        for batch in images:
            batch = np.asarray(batch)
            if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[1:] != (size, size, 3):
                raise SubmissionError(
                    f"images must be [b, {size}, {size}, 3] uint8, got {list(batch.shape)} {batch.dtype}"
                )
            if written + len(batch) > count:
                raise SubmissionError(f"more than {count} images were given")
            for png in pool.map(_png, batch):
                info = zipfile.ZipInfo(f"{written:0{digits}d}.png", _EPOCH)
                info.create_system, info.external_attr = 3, 0o644 << 16
                archive.writestr(info, png)
                written += 1
    if written != count:
        raise SubmissionError(f"{count} images are required, but only {written} were given")


def _png(image: np.ndarray) -> bytes:
    """[h, w, 3] uint8 -> the bytes of a PNG file."""
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def check_zip(path: str | os.PathLike[str], count: int = COUNT, size: int = SIZE) -> ZipInfo:
    """The competition's checks: `count` files with distinct names, each an RGB PNG of size x size.

    Raises SubmissionError, which names the file and the rule, or FileNotFoundError.
    """
    path = pathlib.Path(path)
    try:
        with archives.open_zip(path) as archive:
            entries = archive.infolist()
            if len(entries) != count:
                raise SubmissionError(f"{path}: has {len(entries)} files, but {count} are required")
            seen: set[str] = set()
            for entry in entries:
                if entry.filename in seen:
                    raise SubmissionError(
                        f"{path}: {entry.filename} occurs twice, but names must be distinct"
                    )
                seen.add(entry.filename)
                _check_png(f"{path}: {entry.filename}", archives.read(archive, entry), size)
    except archives.ArchiveError as error:
        raise SubmissionError(f"{error}; write it again") from error
    except archives.EntryError as error:
        raise SubmissionError(f"{path} is not a complete zip file ({error}); write it again") from error
    return ZipInfo(count, size, path.stat().st_size, _sha256(path))


def _check_png(name: str, data: bytes, size: int) -> None:
    try:
        with photos.open_image(data) as image:
            if image.format != "PNG":
                raise SubmissionError(f"{name} is a {image.format} file, but PNG is required")
            if image.size != (size, size):
                w, h = image.size
                raise SubmissionError(f"{name} is {w}x{h} pixels, but {size}x{size} is required")
            if image.mode != "RGB":
                raise SubmissionError(f"{name} has mode {image.mode}, but RGB is required")
            image.load()
    except photos.BrokenPhotoError as error:
        raise SubmissionError(f"{name} cannot be read as a PNG image ({error})") from error


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
