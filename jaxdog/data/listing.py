"""The files of a folder or a zip: which are photos, of which classes, and what is left out.

The rules are the same for both, so that a zip is read as the folder that it unpacks to.
"""

import contextlib
import errno
import os
import pathlib
import stat
import unicodedata
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from jaxdog.data import photos
from jaxdog.utils import archives, errors

EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp"),
    *(".avif", ".bmp", ".gif", ".tif", ".tiff"),
)
HEIC = (".heic", ".heif")
HIDDEN, LINK, SPECIAL, REPEATED = "hidden", "link", "special", "repeated"
KINDS = {  # kind of an entry that is never read -> what it is called
    HIDDEN: "hidden files or folders",
    LINK: "links to nowhere or to a folder that they are in",
    SPECIAL: "devices, pipes, sockets or links in a zip",
    REPEATED: "files that a later one of the same name in the zip replaces",
}
# Hidden folders, in small letters.
OF_SYSTEMS = ("__macosx", "lost+found", "system volume information", "$recycle.bin")
NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)  # errors of links
UTF8_FLAG = 0x800  # of a file in a zip


class File(NamedTuple):
    """A visible file in a folder or a zip."""

    name: str  # its path below the folder, with /
    stamp: Any  # changes with the file: part of a source's key
    num_bytes: int
    read: Callable[[], bytes]  # raises OSError

    @property
    def parts(self) -> tuple[str, ...]:
        """The folders of the path, and the file's own name."""
        return tuple(self.name.split("/"))


class Files(NamedTuple):
    """The content of a folder or a zip."""

    name: str  # of the folder, or of the zip without its extension
    files: tuple[File, ...]  # ordered as in folders that are sorted by name
    skipped: dict[str, list[str]]  # one of KINDS -> names of entries that are never read
    num_bytes: int  # of the photos in a folder, or of a zip

    @property
    def photos(self) -> tuple[File, ...]:
        """The files whose extension is that of a photo."""
        return tuple(file for file in self.files if extension(file.name) in EXTENSIONS)


class Classes(NamedTuple):
    """Photos and their classes."""

    class_names: tuple[str, ...]
    labels: tuple[int, ...]  # of each photo


# ------------------------------------------------------------------------------------- names


def printable(name: str) -> str:
    """A file name in one line: bytes that are not UTF-8, control characters and line ends become escapes."""
    odd = {c for c in name if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")}
    return "".join(c.encode("unicode_escape").decode() if c in odd else c for c in name)


def check_path(path: pathlib.Path) -> None:
    """Raises errors.UserError for a path that cannot be written into logs, tables and reports as it is."""
    if printable(os.fspath(path)) != os.fspath(path):
        raise errors.UserError(
            f"the path {printable(os.fspath(path))} has bytes that are not UTF-8, or control characters: "
            "rename its folders or the file"
        )


def extension(name: str) -> str:
    """The part after the last dot of a file's name, with the dot, in lower case; "" if there is none."""
    before, _, last = name.rpartition("/")[2].rpartition(".")
    return f".{last.lower()}" if before and last else ""


def stem(name: str, extensions: Sequence[str]) -> str:
    """A file's name without its folders, and without its extension if that is one of `extensions`."""
    name, found = name.rpartition("/")[2], extension(name)
    return name[: -len(found)] if found in extensions else name


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is ignored."""
    return name.startswith(".") or name.casefold() in OF_SYSTEMS


# ------------------------------------------------------------------------------------- folders


def of_folder(root: pathlib.Path) -> Files:
    """The files of a folder and of the folders in it; links are followed.

    Raises errors.UserError for paths of `check_path`, for more than archives.MAX_FILES entries, or if the
    system does not let a folder in it be opened, or say what an entry is.
    """
    check_path(root)
    found: list[File] = []
    skipped: dict[str, list[str]] = {}
    here = os.stat(root)
    waiting = [_Folder(os.fspath(root), "", frozenset({(here.st_dev, here.st_ino)}))]
    number = 0
    while waiting:
        folder = waiting.pop()
        for name, entry in _entries(folder):
            number += 1
            if number > archives.MAX_FILES:
                raise errors.UserError(
                    f"{root} has more files and folders than the limit of {archives.MAX_FILES:,}"
                )
            kind, status = _kind(entry, folder)
            if kind:
                skipped.setdefault(kind, []).append(name)
            elif stat.S_ISDIR(status.st_mode):
                here = (status.st_dev, status.st_ino)
                waiting.append(_Folder(entry.path, f"{name}/", folder.ids | {here}))
            else:
                stamp, read = (status.st_size, status.st_mtime_ns), partial(_read_file, entry.path)
                found.append(File(name, stamp, status.st_size, read))
    found.sort(key=lambda file: file.parts)
    skipped = {kind: sorted(names) for kind, names in skipped.items()}
    listed = Files(root.resolve().name, tuple(found), skipped, 0)
    return listed._replace(num_bytes=sum(min(x.num_bytes, archives.MAX_FILE_BYTES) for x in listed.photos))


class _Folder(NamedTuple):
    """A folder whose content is not listed yet."""

    path: str
    prefix: str  # of names in it
    ids: frozenset[tuple[int, int]]  # (device, inode) of it and of the folders that it is in


def _entries(folder: _Folder) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """The entries of a folder and their names."""
    try:
        with os.scandir(folder.path) as entries:
            for entry in entries:
                yield folder.prefix + printable(entry.name), entry
    except OSError as error:
        raise _closed(folder.path, error) from error


def _kind(entry: os.DirEntry[str], folder: _Folder) -> tuple[str, os.stat_result]:
    """One of KINDS if an entry is not read, else "", and what it or the target of its link is."""
    nothing = os.stat_result([0] * 10)
    if is_hidden(entry.name):
        return HIDDEN, nothing
    try:
        status = os.stat(entry.path)
    except OSError as error:
        odd = error.errno == errno.EINVAL and entry.is_symlink()  # a loop of links on Windows
        if error.errno in NOWHERE or odd:
            return LINK, nothing
        raise _closed(entry.path, error) from error
    if stat.S_ISDIR(status.st_mode):
        return LINK if (status.st_dev, status.st_ino) in folder.ids else "", status
    return "" if stat.S_ISREG(status.st_mode) else SPECIAL, status


def _closed(path: str, error: OSError) -> errors.UserError:
    """The error for a file or folder that may hold photos and that the system does not show."""
    return errors.UserError(
        f"{printable(path)} cannot be read: {error.strerror or error}. It may hold photos, so it is not left "
        "out: make it readable, or take it out of the folder"
    )


def _read_file(path: str) -> bytes:
    """The bytes of a file; raises BrokenPhotoError above the limit, or OSError."""
    with open(path, "rb") as file:
        data = file.read(archives.MAX_FILE_BYTES + 1)
    if len(data) > archives.MAX_FILE_BYTES:
        raise photos.BrokenPhotoError(f"it has more than {archives.MAX_FILE_BYTES:,} bytes, the limit")
    return data


# ------------------------------------------------------------------------------------- zips


def of_zip(path: pathlib.Path) -> Files:
    """The files in a zip, of which nothing is extracted to disk; names in it are never used as paths.

    Of several files of one name the last counts, as when they are extracted; the others are skipped.

    Raises:
      FileNotFoundError: the path does not exist.
      errors.UserError: it is not a zip, is damaged, or malicious, or for paths of `check_path`.
    """
    check_path(path)
    archive = archives.open_zip(path)
    found: dict[tuple[str, ...], File] = {}  # by names that are not escaped
    skipped: dict[str, list[str]] = {}
    for entry in archive.infolist():
        full = _zip_name(entry)
        parts = tuple(part for part in full.split("/") if part not in ("", ".", ".."))
        name = printable("/".join(parts))
        hidden = next((i for i, part in enumerate(parts) if is_hidden(part)), None)
        if hidden is not None:
            skipped.setdefault(HIDDEN, []).append(printable("/".join(parts[: hidden + 1])))
        elif not parts or full.endswith("/"):
            continue
        elif (mode := entry.external_attr >> 16) and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            skipped.setdefault(SPECIAL, []).append(name)
        else:
            if parts in found:
                skipped.setdefault(REPEATED, []).append(name)
            stamp, read = (entry.CRC, entry.file_size), partial(archives.read, archive, entry)
            found[parts] = File(name, stamp, entry.file_size, read)
    ordered = tuple(sorted(found.values(), key=lambda file: file.parts))
    names = {kind: sorted(x if kind == REPEATED else set(x)) for kind, x in skipped.items()}
    return Files(path.stem, ordered, names, path.stat().st_size)


def _zip_name(entry: zipfile.ZipInfo) -> str:
    """The path of a file in a zip, with /; that of a folder ends in /.

    Some programs, such as the Finder of macOS, write UTF-8 without the flag that says so.
    """
    name = entry.filename
    if not entry.flag_bits & UTF8_FLAG:
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return name.replace("\\", "/") if entry.create_system == 0 else name  # 0: Windows


# ------------------------------------------------------------------------------------- rules


def classes(listed: Files, photos: Sequence[File], where: str) -> Classes:
    """The classes of photos: the folders that hold them.

    Folders that hold only one folder are skipped. Then either all photos are in the folder itself and have
    one class, named after it, or each folder with photos is a class, whatever folders it has. A single class
    that has photos next to several folders is refused, as these may be the classes.

    Args:
      listed: the folder or zip.
      photos: its photos, in its order.
      where: its path, for the error.

    Raises errors.UserError if some photos are in the folder itself and others in class folders.
    """
    paths = [photo.parts for photo in photos]
    depth = 0
    while min(map(len, paths)) > depth + 2 and len({path[depth] for path in paths}) == 1:
        depth += 1
    inner = {path[depth + 1] for path in paths if len(path) > depth + 2}
    if len({path[depth] for path in paths}) == 1 and len(inner) > 1:
        depth += 1  # with photos next to them
    names = sorted({path[depth] for path in paths if len(path) > depth + 1})
    flat = [path[-1] for path in paths if len(path) == depth + 1]
    if flat and names:
        raise errors.UserError(
            f"{where} has {len(flat)} photos ({errors.some(flat)}) next to {len(names)} class folders "
            f"({errors.some(names)}), so the class of these photos is unclear. Move them into a class "
            "folder, or move the class folders elsewhere."
        )
    if flat:
        return Classes((printable(listed.name),), (0,) * len(paths))
    index = {name: i for i, name in enumerate(names)}
    return Classes(tuple(names), tuple(index[path[depth]] for path in paths))


def notes(listed: Files) -> tuple[str, ...]:
    """A line for each kind of entries that are left out, with their number and some of their names."""
    kinds = {KINDS[kind]: names for kind, names in sorted(listed.skipped.items())}
    for file in listed.files:
        found = extension(file.name)
        if found not in EXTENSIONS:
            kind = f"{found} files" if found else "files without an extension"
            kinds.setdefault(kind, []).append(file.name)
    return tuple(left_out(kind, names) for kind, names in kinds.items() if names)


def left_out(kind: str, names: Sequence[str]) -> str:
    """A note about what is left out: its number, kind and some names."""
    hint = f"; {photos.HEIC_HINT}" if kind.startswith(HEIC) else ""
    return f"left out as {kind}: {len(names):,} ({errors.some(names)}){hint}"
