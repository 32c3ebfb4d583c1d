"""Errors that are caused by user input."""

import difflib
import errno
import os
from collections.abc import Iterable

NO_MEMORY = (
    "This machine has too little memory: end other programs, give fewer or smaller images, or for training a "
    "smaller config.system.batch_size"
)
_FULL = "Free some space, or use a folder on another disk, and run the command again"
_LOCKED = "Use another folder, or make this one writable"
_AGAIN = "The disk or the network connection was lost: see that it is there, and run the command again"
_NO_FOLDER = "A file, or a symbolic link that leads nowhere, is where a folder is needed: use another path"
ADVICE = {  # what to do about errors of the operating system
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: "The file system or a limit of this process (ulimit -f) allows no files of this size",
    errno.EROFS: _LOCKED,
    errno.EACCES: _LOCKED,
    errno.EPERM: _LOCKED,
    errno.ENOTDIR: _NO_FOLDER,
    errno.EEXIST: _NO_FOLDER,
    errno.ELOOP: _NO_FOLDER,
    errno.EISDIR: "It is a folder where a file is needed: use another path",
    errno.ENAMETOOLONG: "Use a shorter path",
    errno.ENOTCONN: _AGAIN,
    errno.ESTALE: _AGAIN,
    errno.ETIMEDOUT: _AGAIN,
    errno.ENODEV: _AGAIN,
    errno.EMFILE: "Too many files are open at once: allow more (ulimit -n), and run the command again",
    errno.ENFILE: "Too many files are open on this machine: end other programs, and run the command again",
    errno.ENOMEM: NO_MEMORY,
    errno.EIO: "The disk failed: look at the system's log, and use a folder on another disk",
}
# Errors of the system that say nothing about the file itself.
PASSING = (errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
PASSING += (errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.ENODEV)


class UserError(ValueError):
    """An error that the user can fix: an invalid argument, config field or file.

    The command line prints its message without a traceback, as it does for errors of the operating system and
    a lack of memory; other exceptions keep their traceback.
    """


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder given by the user, or written by an earlier step, does not exist."""


class WriteError(UserError, OSError):
    """A file could not be written; the message says why, and what to do next."""


class ConfigError(UserError):
    """A config field is unknown, missing, of the wrong type, or not one of its choices."""


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """A question that names the choice nearest to a mistyped name, for a message; "" if none is near."""
    near = difflib.get_close_matches(name, list(choices), n=1)
    return f"did you mean {near[0]}? " if near else ""


def some(names: Iterable[str], limit: int = 5, between: str = ", ") -> str:
    """The first few names, and how many more there are, for a message."""
    names = list(names)
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return between.join(names[:limit]) + more


def explain(error: OSError) -> str:
    """An error of the operating system in words, without a last period, with what to do if that is known."""
    code = error.errno or 0
    where = "" if error.filename is None else f" ({os.fsdecode(error.filename)})"
    reason = f"{error.strerror or error}{where}"
    return f"{reason}. {ADVICE[code]}" if code in ADVICE else reason


def of_the_system(error: BaseException | None) -> str:
    """Why a file that may be sound cannot be read at the moment, in words; "" if `error` has another cause.

    Libraries that are not Python name the error of the system in their text only.
    """
    while error is not None:
        for code in PASSING:
            if getattr(error, "errno", None) == code or os.strerror(code) in str(error):
                return f"{os.strerror(code)} ({' '.join(str(error).split())[:200]})"
        error = error.__cause__ or error.__context__
    return ""


def out_of_memory(error: Exception) -> str:
    """An error of XLA for lack of memory in words, without a last period; "" for another error."""
    reason = str(error).splitlines()[0] if str(error) else ""
    if "RESOURCE_EXHAUSTED" not in reason:
        return ""
    reason = reason.removeprefix("RESOURCE_EXHAUSTED: ").rstrip(".")
    return (
        f"the device has too little memory ({reason}). Training: set a smaller config.system.batch_size with "
        "config.system.grad_accumulation_steps, or "
        "config.parallel.remat=True; jaxdog find-batch-size CONFIG lists the sizes that fit. Scoring: "
        "--batch-size of jaxdog score, or config.eval.batch_size of a run. While another program uses the "
        "device: JAX_PLATFORMS=cpu. Checkpoints are as they were"
    )
