"""Folders whose files have the names of a run's files, and hold something else."""

import contextlib
from collections.abc import Iterator

import jinja2
import PIL.Image

from jaxdog.utils import errors, untrusted

# What code raises on values of other types than it expects.
OTHER_VALUES = (LookupError, TypeError, AttributeError, ArithmeticError, jinja2.UndefinedError)
BROKEN_IMAGE = (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError)  # what Pillow raises


@contextlib.contextmanager
def named(folders: str) -> Iterator[None]:
    """Whatever values of other types and broken images raise in the block is a UserError about `folders`."""
    try:
        yield
    except errors.UserError:
        raise
    except (*OTHER_VALUES, *BROKEN_IMAGE) as error:
        what = f"{type(error).__name__}: {untrusted.one_line(error)}"
        raise errors.UserError(f"{folders} has files that are not those of a run ({what})") from error
