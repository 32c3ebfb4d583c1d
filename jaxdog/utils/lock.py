"""`lock.json`: the process that writes to a folder, so that no other one does so at the same time.

A lock ends with its process. That of a process of this machine is replaced once the process has ended, in
whatever way. Processes of other machines and containers cannot be seen from here: their locks are replaced if
they are not renewed for `PATIENCE` seconds. The file is created exclusively, which file systems that several
machines share can do, too.

A process that was suspended may so lose its lock. `check`, which comes before each write, notices that.
"""

import contextlib
import json
import logging
import os
import pathlib
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import NamedTuple

from jaxdog.utils import errors, files, untrusted

log = logging.getLogger("jaxdog")

NAME = "lock.json"
RENEWAL = 10.0  # seconds from one renewal of a lock to the next
PATIENCE = 60.0  # seconds without a renewal after which the lock of another machine is replaced
POLL = 0.5  # seconds between two looks at such a lock
MAX_TEXT = 100_000  # characters of a lock that are read
UNKNOWN = "unknown"  # when a process started that runs

_held: dict[pathlib.Path, str] = {}  # locks of this process, and their texts


class Holder(NamedTuple):
    """The process that holds a lock."""

    command: str  # what it does
    host: str
    machine: str  # host, its last start, and container: where `pid` is valid
    pid: int
    started: str  # tells processes with the same id apart, see `_started`
    since: str  # local time
    id: str  # of this lock


@contextlib.contextmanager
def hold(folder: pathlib.Path, command: str) -> Iterator[None]:
    """Holds the lock of a folder, which is created if missing; folders that stay empty are removed again.

    Args:
      folder: a folder to which one process at a time may write.
      command: what this process does, for messages in others.

    Raises UserError if another process holds the lock, or the folder cannot be written to.
    """
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    path, pid, stop = folder / NAME, os.getpid(), threading.Event()
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    mine = Holder(command, socket.gethostname(), _machine(), pid, _started(pid), since, uuid.uuid4().hex)
    text = json.dumps(mine._asdict(), indent=1) + "\n"
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _take(path, text)
        except OSError as error:
            raise errors.UserError(f"{folder} cannot be written to: {errors.explain(error)}") from error
        _held[path] = text
        threading.Thread(target=_renew, args=(path, text, stop), daemon=True).start()
        yield
    finally:
        stop.set()
        if _held.get(path) == text:
            del _held[path]
        if _read(path)[0] == text:
            path.unlink(missing_ok=True)
        for empty in created:
            with contextlib.suppress(OSError):  # it is not empty
                empty.rmdir()


def check() -> None:
    """Raises UserError if a lock that this process holds was replaced or removed. It takes microseconds."""
    for path, text in _held.items():
        try:
            now = path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            now = None
        except OSError:  # of a network file system, for a moment
            continue
        if now != text:
            holder = _holder(now)
            who = "another process" if holder is None else f"jaxdog {holder.command} on {holder.host}"
            raise errors.UserError(
                f"{path.parent} was taken over by {who}, as this one was suspended or {NAME} was removed. "
                "It ends and writes no more; run the command again to continue from the last checkpoint."
            )


def _take(path: pathlib.Path, text: str) -> None:
    """Creates the lock; raises UserError if a living process holds it."""
    while True:
        try:
            _create(path, text)
            return
        except FileExistsError:
            found = _read(path)
            if found[0] is None and (not os.path.lexists(path) or _read(path)[0] is not None):
                continue  # it has just been released, or replaced
            if found[0] is None:
                raise errors.UserError(
                    f"{path} cannot be read: it is a folder, a link, or another user's. Remove it if no "
                    "other process uses the folder"
                ) from None
            if _is_held(path, found):
                raise errors.UserError(_message(path, found[0])) from None
            _remove(path, found[0])


def _create(path: pathlib.Path, text: str) -> None:
    """Creates the lock, or nothing; raises OSError."""
    with path.open("x", encoding="utf-8") as file:
        try:
            file.write(text)
            file.flush()
        except OSError:  # the disk is full
            path.unlink()
            raise


def _renew(path: pathlib.Path, text: str, stop: threading.Event) -> None:
    while not stop.wait(RENEWAL):
        if _read(path)[0] == text:
            with contextlib.suppress(OSError):
                os.utime(path)


def _read(path: pathlib.Path) -> tuple[str | None, float]:
    """Text of a lock, and the time of its last renewal; None and 0 if there is none."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(MAX_TEXT), os.fstat(file.fileno()).st_mtime
    except OSError:
        return None, 0.0


def _holder(text: str | None) -> Holder | None:
    """The holder of a lock; None for a file that is damaged, or not complete yet."""
    try:
        values = untrusted.parse_json(text or "")
        return untrusted.record(Holder, values) if isinstance(values, dict) else None
    except errors.UserError:
        return None


def _is_held(path: pathlib.Path, found: tuple[str | None, float]) -> bool:
    """Whether the process of a lock, as `_read` has found it, still runs; waits if that cannot be seen."""
    holder = _holder(found[0])
    if holder is not None and holder.machine == _machine() and os.name == "posix":
        started = _started(holder.pid)
        if started != UNKNOWN or holder.started == UNKNOWN:
            return started == holder.started
    log.info("%s Waiting %.0f s for a sign of life of that process.", _message(path, found[0]), PATIENCE)
    for _ in range(round(PATIENCE / POLL)):
        time.sleep(POLL)
        now = _read(path)
        if now != found:  # renewed; or released or replaced, which the next attempt sees
            return now[0] == found[0]
    return False


def _remove(path: pathlib.Path, text: str) -> None:
    """Removes the lock with this text, and no other one that has just replaced it."""
    aside = path.with_name(files.temporary_name(NAME))  # removed later if this process is killed
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
        if _read(aside)[0] == text:
            log.info("%s: replaced the lock of a process that has ended", path)
            aside.unlink()
        else:
            aside.rename(path)


def _message(path: pathlib.Path, text: str | None) -> str:
    holder = _holder(text)
    who = "another process" if holder is None else f"jaxdog {holder.command} (process {holder.pid}"
    where = "" if holder is None else f" on {holder.host}, since {holder.since})"
    return (
        f"{path.parent} is in use by {who}{where}, and one process at a time may write there. Wait for it, "
        "stop it, or use another work folder; sample, interpolate, project, export and compare only read the "
        "run, and work at any time."
    )


# ------------------------------------------------------------------ processes


def _machine() -> str:
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _started(pid: int) -> str:
    """When a process of this machine started, as the system counts, or UNKNOWN; "" if it does not run."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except OSError:  # there is no such file system, no such process, or another user's that is hidden
        pass
    try:
        if os.name == "posix":
            os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return ""
    except PermissionError:
        pass
    return UNKNOWN
