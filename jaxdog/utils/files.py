"""Atomic file writes, and exceptions raised for damaged archives."""

import contextlib
import glob
import os
import pathlib
import shutil
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator

from jaxdog.utils import errors

# Raised by zipfile for files that are damaged, encrypted or use an unknown compression method.
DAMAGED = (zipfile.BadZipFile, zlib.error, UnicodeDecodeError, KeyError, EOFError, OSError, RuntimeError)
STALE_SECONDS = 3600  # an older temporary file is from a process that was killed


@contextlib.contextmanager
def guard(raised: type[OSError], what: str = "") -> Iterator[None]:
    """Raises `raised` in place of whatever a decoder raises in the block on damaged or malicious bytes.

    Decoders raise nearly everything: struct.error, TypeError, RuntimeError, LookupError. Errors that jaxdog
    itself raises pass unchanged, and so does MemoryError, which says more about the machine.
    """
    try:
        yield
    except (errors.UserError, raised, MemoryError):
        raise
    except Exception as error:
        raise raised(f"{what}{type(error).__name__}: {error}") from error


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """A temporary file that replaces `path` when the block ends; readers never see a partial file.

        with files.atomic_path("scores.npz") as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)

    If the block raises, the temporary file is removed and an existing file at `path` is unchanged. Missing
    folders are created.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for old in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with contextlib.suppress(OSError):  # another process removed or renamed it, or has it open (Windows)
            if time.time() - old.stat().st_mtime > STALE_SECONDS:
                old.unlink()
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    try:
        yield pathlib.Path(name)
        os.chmod(name, 0o644)  # mkstemp creates files that only their owner can read
        os.replace(name, path)
    finally:
        pathlib.Path(name).unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a UTF-8 text file atomically, without converting line breaks."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def link_or_copy(source: str | os.PathLike, path: str | os.PathLike) -> None:
    """Makes `path` a hard link of the file `source`, or a copy where links fail; replaces it atomically."""
    with atomic_path(path) as temporary:
        temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, temporary)


def sync(path: pathlib.Path) -> None:
    """Flushes a file, or a folder with all that it holds, from the system's cache to the disk."""
    if not path.is_dir():
        with path.open("r+b") as file:
            os.fsync(file.fileno())
        return
    with contextlib.suppress(FileNotFoundError):  # another process removed or renamed it
        for child in path.iterdir():
            sync(child)
    with contextlib.suppress(OSError):  # Windows opens no folders, and some file systems flush none
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
