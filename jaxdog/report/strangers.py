"""Folders whose files have the names of a run's files, and hold something else."""

import contextlib
from collections.abc import Iterator

import PIL.Image

from jaxdog.utils import errors, untrusted

BROKEN_IMAGE = (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError)  # what Pillow raises


@contextlib.contextmanager
def named(folders: str) -> Iterator[None]:
    """Whatever values of other types and broken images raise in the block is a UserError about `folders`."""
    try:
        yield
    except errors.UserError:
        raise
    except (KeyError, TypeError, AttributeError, OverflowError, *BROKEN_IMAGE) as error:
        what = f"{type(error).__name__}: {untrusted.one_line(error)}"
        raise errors.UserError(f"{folders} has files that are not those of a run ({what})") from error
