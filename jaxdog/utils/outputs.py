"""Outputs of commands, checked before the work whose results they hold."""

import mimetypes
import os
import pathlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxdog.utils import errors


def check(
    path: str | os.PathLike[str],
    name: str,
    suffixes: Sequence[str] = (),
    folder: bool = False,
    empty: bool = False,
    apart: Mapping[str, Any] | None = None,
) -> pathlib.Path:
    """The path of an output that can be written; leaves no file or folder.

    Args:
      path: a file, or a folder; missing folders above it are created when it is written.
      name: what the path was given as, such as "--out", for messages.
      suffixes: those that the file may have; (): any.
      folder: whether the output is a folder.
      empty: whether a folder that exists must be empty, but for hidden files.
      apart: inputs and other outputs by name, none of which the output may replace; a folder stands for the
        images in it. What is no path, such as None, is ignored.

    Raises UserError for another suffix, a folder that is not empty, a path that cannot be written to, and one
    of `apart`.
    """
    out = pathlib.Path(path).expanduser()
    if suffixes and out.suffix.lower() not in suffixes:
        raise errors.UserError(f"{name} is {os.fspath(path)!r}; it must end in {', '.join(suffixes)}")
    if out.exists() and out.is_dir() != folder:
        kinds = ("a file", "a folder") if folder else ("a folder", "a file")
        raise errors.UserError(f"{name} is {os.fspath(path)!r}, which is {kinds[0]}, and must be {kinds[1]}")
    if empty and out.is_dir() and (held := sum(not x.name.startswith(".") for x in out.iterdir())):
        raise errors.UserError(
            f"{name} is {os.fspath(path)!r}, which is not empty ({held:,} entries), and new files would mix "
            "with them: name a new folder, or empty this one"
        )
    for other, used in (apart or {}).items():
        if isinstance(used, str | os.PathLike) and os.fspath(used) and _replaces(out, pathlib.Path(used)):
            raise errors.UserError(
                f"{name} is {os.fspath(path)!r}, which would replace {other} ({os.fspath(used)}): name "
                "another file"
            )
    place = next(above for above in ((out, *out.parents) if folder else out.parents) if above.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise errors.UserError(
            f"{name} is {os.fspath(path)!r}, and {place} cannot be written to: {error.strerror or error}"
        ) from error
    return out


def _replaces(out: pathlib.Path, used: pathlib.Path) -> bool:
    """Whether a file `out` would be written over the file `used`, or an image in the folder `used`."""
    out, used = (pathlib.Path(os.path.realpath(os.path.expanduser(x))) for x in (out, used))
    is_image = (mimetypes.guess_type(out.name)[0] or "").startswith("image/")
    inside = is_image and out.is_file() and used.is_dir() and out.is_relative_to(used)
    return out == used or inside or (out.is_file() and used.is_file() and out.samefile(used))


def check_links(folder: pathlib.Path, names: Iterable[str]) -> None:
    """Raises UserError if one of these files and folders of `folder` is a link out of it.

    Writing would follow it. Files that are written atomically need no check: they replace a link.
    """
    for path in (folder / name for name in names):
        inside = pathlib.Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
        if path.is_symlink() and not inside:
            raise errors.UserError(
                f"{path} is a link out of its folder, and would be written to: remove it, or put what it "
                "leads to in its place"
            )
