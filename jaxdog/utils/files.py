"""Atomic and durable file writes, limited reads, and exceptions raised for damaged archives."""

import contextlib
import errno
import functools
import logging
import os
import pathlib
import re
import secrets
import shutil
import stat
import time
import zipfile
import zlib
from collections.abc import Iterator

from jaxdog.utils import errors

log = logging.getLogger("jaxdog")

# Raised by zipfile for files that are damaged, encrypted or use an unknown compression method.
DAMAGED = (zipfile.BadZipFile, zlib.error, UnicodeDecodeError, KeyError, EOFError, OSError, RuntimeError)
# Of the disk, while a file is written; any other error has another cause.
WHILE_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
TEMPORARY = re.compile(r"\..+\.jaxdog-[0-9a-f]{16}\.tmp")  # names of temporary files
MAX_IMAGE_BYTES = 128 << 20  # of a file with an image of a run that is read
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
def atomic_path(path: str | os.PathLike, durable: bool = True) -> Iterator[pathlib.Path]:
    """A temporary file that replaces `path` when the block ends; readers never see a partial file.

        with files.atomic_path("scores.npz") as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)

    If the block raises, the temporary file is removed and an existing file at `path` is unchanged. Missing
    folders are created. Those may read the file whom the umask allows it.

    durable: whether the file is on disk, not only in the system's cache, before it replaces the old one. A
      power cut can otherwise leave an empty file. It takes milliseconds.

    Raises errors.WriteError, which says what to do, if the disk is full or the file cannot be written there.
    """
    path = pathlib.Path(path)
    temporary = path.parent / temporary_name(path.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path.parent)
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        mode = temporary.stat().st_mode
    except OSError as error:
        raise _write_error(path, error) from error
    try:
        yield temporary
        if durable:
            sync(temporary)
        if temporary.stat().st_mode != mode:  # a library has replaced the file
            temporary.chmod(stat.S_IMODE(mode))
        try:
            os.replace(temporary, path)
        except OSError as error:
            raise _write_error(path, error) from error
        if durable:
            _sync_folder(path.parent)
    except errors.UserError:
        raise
    except Exception as error:  # writers of images and arrays hide the cause behind errors of their own
        full = _disk_error(error)
        if full is None:
            raise
        raise _write_error(path, full) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def temporary_name(name: str) -> str:
    """A new name for a temporary file that becomes `name`; if its process is killed, it is removed later."""
    return f".{name[:40]}.jaxdog-{secrets.token_hex(8)}.tmp"


def _disk_error(error: BaseException | None) -> OSError | None:
    """The error of the disk that caused `error`; None if another did."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in WHILE_WRITING:
            return error
        if os.strerror(errno.ENOSPC) in str(error):  # of a library or program that is not Python
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        error = error.__cause__ or error.__context__
    return None


def _write_error(path: pathlib.Path, error: OSError) -> errors.WriteError:
    old = ""
    with contextlib.suppress(OSError):
        if path.is_dir():
            return errors.WriteError(f"{path} could not be written: it is a folder. Name a file")
        old = ". The old file is unchanged" if path.is_file() else ""
    return errors.WriteError(f"{path} could not be written: {errors.explain(error)}{old}.")


@functools.cache  # once for each folder
def _remove_stale(folder: pathlib.Path) -> None:
    """Removes temporary files of `atomic_path` that killed processes left in `folder`, and no others."""
    for old in folder.glob(".*.tmp"):
        if not TEMPORARY.fullmatch(old.name):
            continue
        with contextlib.suppress(OSError):  # another process removed or renamed it, or has it open (Windows)
            if time.time() - old.stat().st_mtime > STALE_SECONDS:
                old.unlink()


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a UTF-8 text file atomically, without converting line breaks."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def read_limited(path: str | os.PathLike, most: int) -> bytes:
    """The bytes of a regular file, of which there are at most `most`.

    Raises errors.UserError for a larger file, and for pipes and devices, which are not waited for; OSError if
    the file cannot be read.
    """
    opener = lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))  # noqa: E731
    with open(path, "rb", opener=opener) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise errors.UserError(f"{os.fspath(path)} is a pipe or a device, and must be a regular file")
        data = b"" if status.st_size > most else file.read(min(status.st_size, most) + 1)
        while data and status.st_size < len(data) <= most:  # some file systems give 0 as the size of any file
            if not (more := file.read(1 << 20)):
                break
            data += more
    if max(len(data), status.st_size) > most:
        raise errors.UserError(f"{os.fspath(path)} is larger than {most:,} bytes, which is the limit")
    return data


def own_file(folder: pathlib.Path, name: str) -> pathlib.Path | None:
    """A file of a folder; None if it is missing, or if a link leads out of the folder.

    Reports are published, and the folder may be a stranger's: what its links lead to is not for the page.
    """
    path = folder / name
    if not path.is_file():
        return None
    if not path.resolve().is_relative_to(folder.resolve()):
        log.warning("%s is left out: it is a link to a file outside of %s", path, folder)
        return None
    return path


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
    _sync_folder(path)


def _sync_folder(path: pathlib.Path) -> None:
    """Flushes the names of a folder's files to the disk, as far as the file system does so."""
    with contextlib.suppress(OSError):  # Windows opens no folders
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
