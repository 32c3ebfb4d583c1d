"""Files: atomic writes, and what readers of damaged ones raise."""

import os
import pathlib
import tempfile
import zipfile
import zlib

# What zipfile raises on files that are damaged, encrypted or written in ways that it does not know.
DAMAGED = (zipfile.BadZipFile, zlib.error, UnicodeDecodeError, KeyError, EOFError, OSError, RuntimeError)


def replace(path: str | os.PathLike, text: str) -> None:
    """A text file, whole or not at all."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        pathlib.Path(temporary).unlink(missing_ok=True)
