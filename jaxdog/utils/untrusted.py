"""Reads zip archives, .npz files and JSON that anybody may have made.

Sizes that a file declares are compared with what it holds, and with limits, before memory is allocated. All
functions raise errors.UserError for a file that is damaged or exceeds a limit, and OSError if it cannot be
read.
"""

import contextlib
import json
import math
import os
import re
import struct
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jaxdog.utils import errors, files

MAX_UNPACKED = 1 << 30  # bytes of the compressed files of an archive, unpacked
MAX_DIRECTORY = 8 << 20  # bytes of the directory of a zip archive, for about 100,000 files
MAX_HEADER = 10_000  # bytes of the header of an .npy file

_DAMAGED = (*files.DAMAGED, ValueError, struct.error, OverflowError)
_MAGIC = b"\x93NUMPY"
# The header that NumPy writes for arrays of numbers and of text; not of objects, which are pickles.
_HEADER = re.compile(
    rb"\{'descr': '([<>|][fiubU]\d{1,9})', 'fortran_order': (True|False), 'shape': \(([\d, ]*)\), \} *\n"
)


@contextlib.contextmanager
def open_zip(path: str | os.PathLike[str]) -> Iterator[zipfile.ZipFile]:
    """The archive at `path`; what reading a damaged one in the block raises becomes a UserError."""
    try:
        with open(path, "rb") as file:
            end: Any = getattr(zipfile, "_EndRecData")(file)  # noqa: B009  (not public)
            if end is not None and end[5] > MAX_DIRECTORY:
                raise errors.UserError(
                    f"the directory of the zip archive has {end[5]:,} bytes; the limit is {MAX_DIRECTORY:,}"
                )
            file.seek(0)
            with zipfile.ZipFile(file) as archive:
                yield archive
    except errors.UserError:
        raise
    except FileNotFoundError:
        raise
    except _DAMAGED as error:
        raise errors.UserError(f"it is a damaged zip archive, or none ({one_line(error)})") from error


def read_entries(
    archive: zipfile.ZipFile, wanted: Callable[[str], bool], limit: int = MAX_UNPACKED
) -> Iterator[tuple[str, int, Any]]:
    """(name, size in bytes, open file) of each wanted file of an archive, in an `open_zip` block.

    The size is what can be read, unless the file is damaged. Files that are not compressed may have any size
    that the archive holds; together, compressed ones may have `limit` bytes.
    """
    unpacked = stored = 0
    for entry in archive.infolist():
        if not wanted(entry.filename):
            continue
        if entry.compress_type == zipfile.ZIP_STORED:
            stored += entry.file_size
        elif entry.compress_type == zipfile.ZIP_DEFLATED:
            unpacked += entry.file_size
        else:
            raise errors.UserError(f"{entry.filename!r} is compressed in a way other than deflate")
        if unpacked > limit:
            raise errors.UserError(
                f"its compressed files would unpack to more than {limit:,} bytes, which is the limit"
            )
        if stored > os.fstat(archive.fp.fileno()).st_size:  # pyright: ignore[reportOptionalMemberAccess]
            raise errors.UserError("it declares more bytes than it has")
        with archive.open(entry) as file:
            yield entry.filename, entry.file_size, file


def read_npz(
    path: str | os.PathLike[str], names: Callable[[str], bool] = lambda _: True, limit: int = MAX_UNPACKED
) -> dict[str, np.ndarray]:
    """The arrays of an .npz file whose names are wanted; they cannot be written to.

    Arrays of numbers and of text only, so that nothing is unpickled. `limit`: see `read_entries`.
    """
    arrays: dict[str, np.ndarray] = {}
    with open_zip(path) as archive:
        wanted = lambda name: name.endswith(".npy") and names(name.removesuffix(".npy"))  # noqa: E731
        for name, size, file in read_entries(archive, wanted, limit):
            arrays[name.removesuffix(".npy")] = _read_npy(name, size, file)
    return arrays


def npz_names(path: str | os.PathLike[str]) -> list[str]:
    """The names of the arrays of an .npz file; [] for files that are none, or damaged."""
    try:
        with open_zip(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    except (errors.UserError, OSError):
        return []


def _read_npy(name: str, size: int, file: Any) -> np.ndarray:
    start = file.read(8)
    width = {1: 2, 2: 4, 3: 4}.get(start[6] if len(start) == 8 else 0, 0)  # by version: bytes of the length
    length = int.from_bytes(file.read(width), "little")
    if start[:6] != _MAGIC or not width or length > MAX_HEADER:
        raise errors.UserError(f"{name!r} is no .npy file, or one of an unknown version")
    header = _HEADER.fullmatch(file.read(length))
    if header is None:
        raise errors.UserError(f"{name!r} is not an array of numbers or text")
    dtype, shape = np.dtype(header[1].decode()), tuple(int(n) for n in header[3].split(b",") if n.strip())
    left = size - 8 - width - length
    if math.prod(shape) * dtype.itemsize != left:
        raise errors.UserError(f"{name!r} declares shape {shape} of {dtype}, and has {left:,} bytes")
    data = file.read(left) if left else b""
    return np.frombuffer(data, dtype).reshape(shape, order="F" if header[2] == b"True" else "C")


def read_json(path: str | os.PathLike[str], limit: int = files.MAX_JSON) -> Any:
    """The value in a JSON file of at most `limit` bytes."""
    with open(path, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise errors.UserError(f"{path} is larger than {limit:,} bytes, which is the limit")
    return parse_json(data)


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. Nesting that Python cannot read is a UserError like every other mistake."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise errors.UserError(f"it is not JSON that can be read ({one_line(error)})") from error


def one_line(error: BaseException) -> str:
    """The text of an exception in one line of at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__
