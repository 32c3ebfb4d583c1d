"""Reads zip archives, .npz files and JSON that anybody may have made.

Sizes that a file declares are compared with what it holds, and with limits, before memory is allocated. All
functions raise errors.UserError for a file that is damaged or exceeds a limit, and OSError if it cannot be
read.
"""

import json
import math
import os
import pathlib
import re
import struct
import sys
import typing
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from jaxdog.utils import archives, errors, files

MAX_JSON = 16 << 20  # bytes
MAX_DEPTH = 50  # levels of JSON, so that functions that recurse over it end
MAX_DIGITS = 40  # of an integer, so that it is also a float
MAX_UNPACKED = 1 << 30  # bytes of the compressed files of an archive, unpacked
MAX_DIRECTORY = 8 << 20  # bytes of the list of the files in an archive, for about 100,000 files
MAX_HEADER = 10_000  # bytes of the header of an .npy file
CHUNK = 16 << 20  # bytes of an array that are read at once

T = TypeVar("T")

_DAMAGED = (*files.DAMAGED, ValueError, struct.error, OverflowError)
_MAGIC = b"\x93NUMPY"
# The header that NumPy writes for arrays of numbers and of text; not of objects, which are pickles.
_HEADER = re.compile(
    rb"\{'descr': '([<>|][fiubU][1-9]\d{0,8})', 'fortran_order': (True|False), 'shape': \(([\d, ]*)\), \} *\n"
)


class EntryFile:
    """An open file in an archive; what reading damaged bytes raises becomes a UserError."""

    def __init__(self, archive: zipfile.ZipFile, entry: zipfile.ZipInfo):
        self.name, self.size = entry.filename, entry.file_size
        self._file = self._guard(lambda: archive.open(entry))

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes."""
        data = self._guard(lambda: self._file.read(size))
        if len(data) != size:
            raise errors.UserError(f"{self.name!r} is cut off in the archive")
        return data

    def _guard(self, read: Callable[[], T]) -> T:
        try:
            return read()
        except _DAMAGED as error:
            raise errors.UserError(f"{self.name!r} is damaged in the archive ({one_line(error)})") from error


def read_entries(
    archive: zipfile.ZipFile, wanted: Callable[[str], bool], limit: int = MAX_UNPACKED
) -> Iterator[EntryFile]:
    """Each wanted file of an archive, opened.

    Files that are not compressed may have any size that the archive holds; together, compressed ones may have
    `limit` bytes.
    """
    unpacked = 0
    for entry in archive.infolist():
        if not wanted(entry.filename):
            continue
        if entry.compress_type == zipfile.ZIP_DEFLATED:
            unpacked += entry.file_size
        elif entry.compress_type != zipfile.ZIP_STORED:
            raise errors.UserError(f"{entry.filename!r} is compressed in a way other than deflate")
        elif entry.file_size != entry.compress_size:
            raise errors.UserError(f"{entry.filename!r} has two sizes, although it is not compressed")
        if unpacked > limit:
            raise errors.UserError(
                f"its compressed files would unpack to more than {limit:,} bytes, which is the limit"
            )
        yield EntryFile(archive, entry)


def read_npz(
    path: str | os.PathLike[str], names: Callable[[str], bool] = lambda _: True, limit: int = MAX_UNPACKED
) -> dict[str, np.ndarray]:
    """The arrays of an .npz file whose names are wanted.

    Arrays of numbers and of text only, so that nothing is unpickled. `limit`: see `read_entries`.
    """
    wanted = lambda name: name.endswith(".npy") and names(name.removesuffix(".npy"))  # noqa: E731
    with archives.open_zip(path, MAX_DIRECTORY) as archive:
        entries = read_entries(archive, wanted, limit)
        return {entry.name.removesuffix(".npy"): read_npy(entry) for entry in entries}


def npz_names(path: str | os.PathLike[str]) -> list[str]:
    """The names of the arrays of an .npz file; [] for files that are none, or damaged."""
    try:
        with archives.open_zip(path, MAX_DIRECTORY) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    except (errors.UserError, OSError):
        return []


def read_npy(entry: EntryFile) -> np.ndarray:
    """The array of numbers or text in an .npy file of an archive."""
    start = entry.read(min(8, entry.size))
    width = {1: 2, 2: 4, 3: 4}.get(start[6] if len(start) == 8 else 0, 0)  # by version: bytes of the length
    length = int.from_bytes(entry.read(width), "little")
    if start[:6] != _MAGIC or not width or length > MAX_HEADER:
        raise errors.UserError(f"{entry.name!r} is no .npy file, or one of an unknown version")
    header = _HEADER.fullmatch(entry.read(length))
    if header is None:
        raise errors.UserError(f"{entry.name!r} is not an array of numbers or text")
    left = entry.size - 8 - width - length
    try:
        dtype, shape = np.dtype(header[1].decode()), tuple(int(n) for n in header[3].split(b",") if n.strip())
        declared = math.prod(shape) * dtype.itemsize
        np.broadcast_to(np.empty((), dtype), shape)  # raises for dimensions that no array can have
    except (TypeError, ValueError) as error:
        raise errors.UserError(f"{entry.name!r} is not an array that can be ({one_line(error)})") from error
    if declared != left:
        raise errors.UserError(f"{entry.name!r} declares shape {shape} of {dtype}, and has {left:,} bytes")
    data = np.empty(left, np.uint8)
    for i in range(0, left, CHUNK):
        data[i : i + CHUNK] = np.frombuffer(entry.read(min(CHUNK, left - i)), np.uint8)
    if dtype.kind == "U" and left:  # numpy makes texts of any numbers, on which Python's decoders fail
        if data.view(np.dtype(np.uint32).newbyteorder(dtype.byteorder)).max() > sys.maxunicode:
            raise errors.UserError(f"{entry.name!r} has a text with characters that there are not")
    return data.view(dtype).reshape(shape, order="F" if header[2] == b"True" else "C")


def read_json(path: pathlib.Path, remedy: str) -> dict[str, Any]:
    """The JSON object in a file of at most MAX_JSON bytes.

    Raises UserError, with the `remedy` if the file is damaged, or OSError.
    """
    data = files.read_limited(path, MAX_JSON)
    try:
        value = parse_json(data)
    except errors.UserError as error:
        reason = error if data else "it is empty"
        raise errors.UserError(f"{path} is damaged: {reason}. {remedy}") from error
    if not isinstance(value, dict):
        raise errors.UserError(f"{path} is damaged: it holds no JSON object. {remedy}")
    return value


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text, in UTF-8. Any mistake, also nesting deeper than MAX_DEPTH, is a UserError.

    Integers of more than MAX_DIGITS digits are read as floats.
    """
    try:
        value = json.loads(text if isinstance(text, str) else text.decode(), parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise errors.UserError(f"it is not JSON that can be read ({one_line(error)})") from error
    level, depth = [value], 0
    while level := [x for one in level for x in _members(one)]:
        depth += 1
        if depth > MAX_DEPTH:
            raise errors.UserError(f"it is not JSON that can be read (nested deeper than {MAX_DEPTH} levels)")
    return value


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= MAX_DIGITS else float(digits)


def _members(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def record(kind: Callable[..., T], values: Mapping[str, Any]) -> T:
    """The NamedTuple `kind` with these values from JSON; lists become tuples, and other names are left out.

    Its fields are numbers, texts, tuples of those, or None. Raises UserError that names a field of another
    type, or one that is missing.
    """
    hints = typing.get_type_hints(kind)
    known = {name: x for name, x in values.items() if name in hints}
    for name, x in known.items():
        if not _fits(x, hints[name]):
            raise errors.UserError(f"{name} is {one_line(repr(x))}, and must be of type {hints[name]}")
    try:
        return kind(**{name: tuple(x) if isinstance(x, list) else x for name, x in known.items()})
    except TypeError as error:
        raise errors.UserError(f"a value is missing ({one_line(error)})") from error


def _fits(value: Any, hint: Any) -> bool:
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        return isinstance(value, list) and all(_fits(x, arguments[0]) for x in value)
    return any(_fits(value, one) for one in arguments) if arguments else type(value) is hint


def one_line(error: BaseException | str) -> str:
    """A text, or that of an exception, in one line of at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__
