"""Errors that are caused by user input."""


class UserError(ValueError):
    """An error that the user can fix: an invalid argument, config field or file.

    The command line prints its message without a traceback; other exceptions keep their traceback.
    """


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder given by the user, or written by an earlier step, does not exist."""


class ConfigError(UserError):
    """A config field is unknown, missing, of the wrong type, or not one of its choices."""
