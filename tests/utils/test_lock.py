"""lock.json: one process at a time writes to a folder."""

import errno
import io
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

import pytest

from jaxdog.utils import errors, files, lock

HOLD = """
import pathlib, sys, time
from jaxdog.utils import lock
with lock.hold(pathlib.Path(sys.argv[1]), "train"):
    print("held", flush=True)
    time.sleep(600)
"""


# The process id of a holder that is no number.
WRONG = json.dumps(lock.Holder("train", "host", lock._machine(), "1", "", "", "")._asdict())  # pyright: ignore


def other_process(folder: pathlib.Path) -> subprocess.Popen:
    """A process that holds the folder's lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen) -> None:
    process.kill()
    process.communicate()


def changed(folder: pathlib.Path, **fields: Any) -> str:
    """The lock of this process, which holds it, as that of another one; returns its text."""
    path = folder / lock.NAME
    text = json.dumps({**json.loads(path.read_text()), **fields})
    path.write_text(text)
    return text


def test_a_lock_ends_with_its_block(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "runs" / "x"
    with lock.hold(folder, "train"):
        holder = json.loads((folder / lock.NAME).read_text())
        assert (holder["command"], holder["pid"]) == ("train", os.getpid())
    assert not (tmp_path / "runs").exists()
    with pytest.raises(RuntimeError), lock.hold(folder, "train"):
        (folder / "log").touch()
        raise RuntimeError
    assert [path.name for path in folder.iterdir()] == ["log"]


def test_a_living_process_keeps_its_lock(tmp_path: pathlib.Path) -> None:
    process = other_process(tmp_path)
    try:
        message = rf"in use by jaxdog train \(process {process.pid} on .*, since 20.* sample, .* only read"
        for _ in range(2):
            with pytest.raises(errors.UserError, match=message), lock.hold(tmp_path, "evaluate"):
                pass
    finally:
        end(process)
    with lock.hold(tmp_path, "evaluate"):  # the process was killed, and has left its lock
        pass
    assert not any(tmp_path.iterdir())


def test_the_lock_of_this_process_is_a_lock(tmp_path: pathlib.Path) -> None:
    with (
        lock.hold(tmp_path, "train"),
        pytest.raises(errors.UserError, match=f"process {os.getpid()} on"),
        lock.hold(tmp_path, "train"),
    ):
        pass


def test_another_process_with_the_same_id_does_not_hold_the_lock(tmp_path: pathlib.Path) -> None:
    with lock.hold(tmp_path, "train"):
        text = changed(tmp_path, started="1")
    assert (tmp_path / lock.NAME).read_text() == text  # only its own lock is removed
    if pathlib.Path("/proc/self/stat").exists():
        with lock.hold(tmp_path, "train"):
            assert (tmp_path / lock.NAME).read_text() != text


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 1.0)
    monkeypatch.setattr(lock, "POLL", 0.05)
    monkeypatch.setattr(lock, "RENEWAL", 0.1)


@pytest.mark.usefixtures("fast")
def test_the_lock_of_another_machine_is_replaced_unless_it_is_renewed(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_machine", lambda: "other start")
    with lock.hold(tmp_path, "train"):  # renews it all the time
        monkeypatch.setattr(lock, "_machine", lambda: "this start")
        with pytest.raises(errors.UserError, match="in use by jaxdog train"), lock.hold(tmp_path, "train"):
            pass
        text = (tmp_path / lock.NAME).read_text()
    (tmp_path / lock.NAME).write_text(text)  # that of a machine that is gone
    start = time.time()
    with lock.hold(tmp_path, "train"):
        assert time.time() - start > 0.5 and (tmp_path / lock.NAME).read_text() != text


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_what_is_no_file_is_an_error_at_once(kind: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / lock.NAME
    path.symlink_to("nowhere") if kind == "link" else path.mkdir()
    with pytest.raises(errors.UserError, match="lock.json cannot be read: it is a folder, a link"):
        with lock.hold(tmp_path, "train"):
            pass
    assert os.path.lexists(path)


def test_a_full_disk_leaves_no_lock(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pathlib.Path.open

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    def create(path: pathlib.Path, mode: str = "r", **given: Any) -> Any:
        if mode != "x":
            return whole(path, mode, **given)
        path.touch()
        return Full()

    monkeypatch.setattr(pathlib.Path, "open", create)
    with pytest.raises(errors.UserError, match="run cannot be written to: No space left"):
        with lock.hold(tmp_path / "run", "train"):
            pass
    assert not any(tmp_path.iterdir())


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 3}', "[" * 10**5, WRONG])
def test_a_damaged_lock_is_replaced(text: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / lock.NAME).write_text(text)
    with lock.hold(tmp_path, "train"):
        pass
    assert not any(tmp_path.iterdir())


def test_only_the_stale_lock_is_removed(tmp_path: pathlib.Path) -> None:
    """Another process may have replaced it since it was read."""
    path = tmp_path / lock.NAME
    path.write_text("new")
    lock._remove(path, "stale")
    assert path.read_text() == "new"
    lock._remove(path, "new")
    lock._remove(path, "new")
    assert not any(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_to(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(errors.UserError, match="file/run cannot be written to"):
        with lock.hold(tmp_path / "file" / "run", "train"):
            pass


@pytest.mark.parametrize("now", ["another lock", None])
def test_a_process_notices_that_it_has_lost_its_lock(tmp_path: pathlib.Path, now: str | None) -> None:
    """It was suspended, and another one has begun, or has begun and ended, meanwhile."""
    path = tmp_path / lock.NAME
    with lock.hold(tmp_path, "train"):
        lock.check()
        path.unlink() if now is None else changed(tmp_path, command="submit", id=now)
        who = "another process" if now is None else "jaxdog submit on"
        with pytest.raises(errors.UserError, match=f"was taken over by {who}.* writes no more") as error:
            lock.check()
        assert "\n" not in str(error.value)
        with lock.hold(tmp_path / "other", "train"), pytest.raises(errors.UserError, match="taken over"):
            lock.check()
    lock.check()
    assert path.exists() == (now is not None)  # that of the other process is left


@pytest.mark.usefixtures("fast")
def test_only_its_own_lock_is_renewed(tmp_path: pathlib.Path) -> None:
    path = tmp_path / lock.NAME
    with lock.hold(tmp_path, "train"):
        os.utime(path, (0, 0))
        time.sleep(0.5)
        assert path.stat().st_mtime > 0
        changed(tmp_path, id="another")
        os.utime(path, (0, 0))
        time.sleep(0.5)
        assert path.stat().st_mtime == 0


@pytest.mark.usefixtures("fast")
def test_the_process_of_another_user_may_be_hidden(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By /proc with hidepid: it runs, and its start cannot be seen. It keeps its lock while it renews it."""
    pid, whole = os.getpid(), pathlib.Path.read_text

    def hidden(path: pathlib.Path, *given: Any, **options: Any) -> str:
        if path == pathlib.Path(f"/proc/{pid}/stat"):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        return whole(path, *given, **options)

    def refuse(process: int, number: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with lock.hold(tmp_path, "train"):
        text = (tmp_path / lock.NAME).read_text()
        with monkeypatch.context() as patched:
            patched.setattr(pathlib.Path, "read_text", hidden)
            patched.setattr(os, "kill", refuse)
            assert lock._started(pid) == lock.UNKNOWN
            with (
                pytest.raises(errors.UserError, match="in use by jaxdog train"),
                lock.hold(tmp_path, "train"),
            ):
                pass
    assert lock._started(10**30) == lock._started(2**22 + 1) == ""
    (tmp_path / lock.NAME).write_text(text)  # not renewed: its process is another one
    with monkeypatch.context() as patched:
        patched.setattr(lock, "_started", lambda _: lock.UNKNOWN)
        patched.setattr(lock, "PATIENCE", 0.2)
        with lock.hold(tmp_path, "train"):
            assert (tmp_path / lock.NAME).read_text() != text


def test_what_a_kill_leaves_of_a_stale_lock_is_removed_later(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / lock.NAME).write_text("stale")
    with monkeypatch.context() as patched:
        patched.setattr(pathlib.Path, "unlink", lambda _: None)
        lock._remove(tmp_path / lock.NAME, "stale")
    (left,) = tmp_path.iterdir()
    os.utime(left, (0, 0))
    files.write_text(tmp_path / "log", "")
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
