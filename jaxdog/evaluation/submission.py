"""`images.zip`: 10,000 PNG of 64x64 RGB, written atomically, checked as the competition did."""

import concurrent.futures
import hashlib
import io
import os
import pathlib
import zipfile
import zlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import PIL.Image

COUNT = 10_000  # pictures in an entry
SIZE = 64  # pixels on a side

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can hold: same pictures, same bytes


class Facts(NamedTuple):
    """What a checked zip is."""

    count: int  # pictures
    size: int  # pixels on a side
    bytes: int  # of the zip file
    sha256: str  # of the zip file


class SubmissionError(ValueError):
    """The zip, or what should go into it, breaks a rule of the competition."""


def write_zip(
    path: str | os.PathLike[str], images: Iterable[np.ndarray], count: int = COUNT, size: int = SIZE
) -> Facts:
    """Streams batches [b, size, size, 3] uint8 into a zip of `count` PNG, checks it, then puts it in place.

    Until the last moment an older file at `path` stays untouched; on any failure the new one is removed.
    The bytes are a function of the pictures alone (one version of zlib assumed).
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        _write(partial, images, count, size)
        facts = check_zip(partial, count, size)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return facts


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
                    f"pictures must be [b, {size}, {size}, 3] uint8, got {list(batch.shape)} {batch.dtype}"
                )
            if written + len(batch) > count:
                raise SubmissionError(f"more than the {count} pictures asked for were generated")
            for png in pool.map(_png, batch):
                info = zipfile.ZipInfo(f"{written:0{digits}d}.png", _EPOCH)
                info.create_system, info.external_attr = 3, 0o644 << 16
                archive.writestr(info, png)
                written += 1
    if written != count:
        raise SubmissionError(f"{count} pictures were asked for, only {written} were generated")


def _png(image: np.ndarray) -> bytes:
    """[h, w, 3] uint8 -> a PNG file."""
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def check_zip(path: str | os.PathLike[str], count: int = COUNT, size: int = SIZE) -> Facts:
    """The competition's checks: exactly `count` files of different names, each a PNG of size x size, RGB.

    Raises SubmissionError naming the file, what was found and what is demanded; FileNotFoundError.
    """
    path = pathlib.Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) != count:
                raise SubmissionError(f"{path}: holds {len(entries)} files, the competition demands {count}")
            seen: set[str] = set()
            for entry in entries:
                if entry.filename in seen:
                    raise SubmissionError(f"{path}: {entry.filename} is there twice, names must differ")
                seen.add(entry.filename)
                _check_png(f"{path}: {entry.filename}", archive.read(entry), size)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise SubmissionError(f"{path} is not a whole zip file ({error}); write it again") from error
    return Facts(count, size, path.stat().st_size, _sha256(path))


def _check_png(name: str, data: bytes, size: int) -> None:
    try:
        with PIL.Image.open(io.BytesIO(data)) as image:
            if image.format != "PNG":
                raise SubmissionError(f"{name} is {image.format} inside, only PNG images are accepted")
            if image.size != (size, size):
                w, h = image.size
                raise SubmissionError(f"{name} is {w}x{h} pixels, {size}x{size} is demanded")
            if image.mode != "RGB":
                raise SubmissionError(f"{name} has mode {image.mode}, RGB is demanded")
            image.load()
    except (OSError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        raise SubmissionError(f"{name} cannot be read as a picture, a PNG is demanded ({error})") from error


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
