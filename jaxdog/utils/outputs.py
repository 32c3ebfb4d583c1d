"""Outputs of commands, checked before the work whose results they hold."""

import os
import pathlib
import tempfile
from collections.abc import Sequence

from jaxdog.utils import errors


def check(
    path: str | os.PathLike[str],
    name: str,
    suffixes: Sequence[str] = (),
    folder: bool = False,
    empty: bool = False,
) -> pathlib.Path:
    """The path of an output that can be written; leaves no file or folder.

    Args:
      path: a file, or a folder; missing folders above it are created when it is written.
      name: what the path was given as, such as "--out", for messages.
      suffixes: those that the file may have; (): any.
      folder: whether the output is a folder.
      empty: whether a folder that exists must be empty, but for hidden files.

    Raises UserError for another suffix, a folder that is not empty, or a path that cannot be written to.
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
    place = next(above for above in ((out, *out.parents) if folder else out.parents) if above.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise errors.UserError(
            f"{name} is {os.fspath(path)!r}, and {place} cannot be written to: {error.strerror or error}"
        ) from error
    return out
