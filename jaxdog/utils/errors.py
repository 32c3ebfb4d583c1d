"""Errors that are caused by user input."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """An error that the user can fix: an invalid argument, config field or file.

    The command line prints its message without a traceback; other exceptions keep their traceback.
    """


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder given by the user, or written by an earlier step, does not exist."""


class ConfigError(UserError):
    """A config field is unknown, missing, of the wrong type, or not one of its choices."""


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """A question that names the choice nearest to a mistyped name, for a message; "" if none is near."""
    near = difflib.get_close_matches(name, list(choices), n=1)
    return f"did you mean {near[0]}? " if near else ""
