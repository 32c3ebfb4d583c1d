"""Zip files from anywhere: how much of them is read."""

import os
import pathlib
import zipfile
from typing import Any

from jaxdog.utils import errors, files

MAX_FILES = 1_000_000  # in a zip
MAX_FILE_BYTES = 512 << 20  # of one file
MAX_BYTES = 64 << 30  # of all files in a zip, uncompressed
MAX_DIRECTORY = 256 << 20  # of the list of files at the end of a zip, which is read at once
MAX_RATIO = 200  # compression ratio of files larger than FREE_BYTES; images hardly compress
FREE_BYTES = 1 << 20


class ArchiveError(errors.UserError):
    """A zip is damaged or malicious."""


class EntryError(OSError):
    """A file in a zip cannot be read; others still can."""


def open_zip(path: str | os.PathLike[str], max_directory: int = MAX_DIRECTORY) -> zipfile.ZipFile:
    """Opens a zip for reading; nothing of it is extracted yet.

    max_directory: limit of the list of its files, in bytes.

    Raises:
      FileNotFoundError: the path does not exist.
      ArchiveError: it is not a zip, is damaged, or is made to fill memory or disks: its list is too large, it
        has more than MAX_FILES, or MAX_BYTES, or files that share their bytes.
    """
    path = pathlib.Path(path)
    size = path.stat().st_size
    try:
        with files.guard(EntryError):
            with path.open("rb") as file:
                end: Any = getattr(zipfile, "_EndRecData")(file)  # noqa: B009  (not public)
            if end is not None and end[5] > max_directory:
                raise ArchiveError(
                    f"the list of the files in {path} has {end[5]:,} bytes; the limit is {max_directory:,}"
                )
            archive = zipfile.ZipFile(path)
    except EntryError as error:
        raise ArchiveError(f"{path} is not a complete zip file ({error})") from error
    entries = archive.infolist()
    total, stored = sum(x.file_size for x in entries), sum(x.compress_size for x in entries)
    if len(entries) > MAX_FILES or total > MAX_BYTES:
        archive.close()
        raise ArchiveError(
            f"{path} would extract to {len(entries):,} files and {total:,} bytes; the limits are "
            f"{MAX_FILES:,} and {MAX_BYTES:,}"
        )
    if stored > size:
        archive.close()
        raise ArchiveError(
            f"{path} has {size:,} bytes, but its files take {stored:,}: it is damaged, or made to fill disks"
        )
    return archive


def read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """The bytes of a file in a zip; their CRC is checked, and no more are read than the entry says.

    Raises EntryError: the file is damaged, encrypted, or larger than the limits.
    """
    check_size(entry, MAX_FILE_BYTES)
    with files.guard(EntryError, "damaged or encrypted in the zip, "):
        return archive.read(entry)


def check_size(entry: zipfile.ZipInfo, max_bytes: int) -> None:
    """Raises EntryError if the file in the zip is larger than `max_bytes`, or compressed too well."""
    ratio = entry.file_size / max(entry.compress_size, 1)
    if entry.file_size > max_bytes or (entry.file_size > FREE_BYTES and ratio > MAX_RATIO):
        raise EntryError(
            f"it would extract to {entry.file_size:,} bytes, {ratio:.0f} times its size; the limits are "
            f"{max_bytes:,} bytes and {MAX_RATIO} times"
        )
