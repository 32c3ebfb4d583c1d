"""Files are written completely or not at all, and no temporary files remain."""

import contextlib
import errno
import os
import pathlib
import subprocess
import time
from collections.abc import Iterator

import numpy as np
import PIL.Image
import pytest
import safetensors.numpy

from jaxdog.evaluation import submission
from jaxdog.render import animation
from jaxdog.utils import errors, files


def test_a_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "new" / "scores[1].txt"
    with files.atomic_path(path) as temporary:
        temporary.write_bytes(b"whole")
        assert not path.exists() and temporary.parent == path.parent
    assert path.read_bytes() == b"whole" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_those_read_a_file_whom_the_umask_allows(tmp_path, umask):
    """Also if a library replaces the temporary file by its own, as safetensors does."""
    before = os.umask(umask)
    try:
        files.write_text(tmp_path / "x", "")
        with files.atomic_path(tmp_path / "y") as temporary:
            (tmp_path / "private").touch(0o600)
            (tmp_path / "private").replace(temporary)
    finally:
        os.umask(before)
    for name in ("x", "y"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o666 & ~umask


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "scores.txt"
    files.write_text(path, "old\r\n")
    with pytest.raises(KeyboardInterrupt), files.atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old\r\n" and list(tmp_path.iterdir()) == [path]


def test_what_killed_processes_left_is_removed_but_not_what_others_write_now(tmp_path):
    path = tmp_path / "scores[1].txt"
    left = {}
    for name in ("stale", "fresh"):
        with contextlib.suppress(KeyboardInterrupt), files.atomic_path(tmp_path / f"{name}.txt") as temporary:
            os.link(temporary, tmp_path / "kept")
            left[name] = temporary
            raise KeyboardInterrupt
        os.rename(tmp_path / "kept", left[name])  # as if the process had been killed
    others = [tmp_path / name for name in ("x.tmp", ".backup.tmp", ".log.txt.0123abcd.tmp", ".jaxdog-x.tmp")]
    for old in (left["stale"], *others):
        old.touch()
        os.utime(old, (0, time.time() - 2 * files.STALE_SECONDS))
    files._remove_stale.cache_clear()
    files.write_text(path, "new")
    assert sorted(tmp_path.iterdir()) == sorted([path, left["fresh"], *others])


def test_a_file_is_on_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    path, done, replace, fsync = tmp_path / "config.json", [], os.replace, os.fsync

    def name_of(handle: int) -> str:
        return pathlib.Path(os.readlink(f"/proc/self/fd/{handle}")).name

    monkeypatch.setattr(os, "fsync", lambda handle: done.append(name_of(handle)) or fsync(handle))
    monkeypatch.setattr(os, "replace", lambda *names: done.append("replace") or replace(*names))
    files.write_text(path, "whole")
    temporary, *rest = done
    assert temporary.startswith(".config.json.") and rest == ["replace", tmp_path.name]


@pytest.fixture
def full_disk(tmp_path) -> Iterator[pathlib.Path]:
    """A folder on a file system of 64 kB with a file that fills half of it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root on Linux")
    try:
        (folder / "other").write_bytes(bytes(32_768))
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def write_png(path):
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    with files.atomic_path(path) as temporary:
        PIL.Image.fromarray(noise).save(temporary, format="PNG")


def write_npz(path):
    with files.atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, x=np.ones((256, 256)))


def write_zip(path):
    noise = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), np.uint8)
    submission.write_zip(path, [noise], 20)


def write_safetensors(path):
    with files.atomic_path(path) as temporary:
        safetensors.numpy.save_file({"x": np.ones((256, 256))}, temporary)


def write_gif(path):
    animation.write(
        path.with_suffix(".gif"), np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), np.uint8)
    )


WRITERS = [
    lambda path: files.write_text(path, "x" * 100_000), write_png, write_npz, write_zip, write_safetensors,
    write_gif,
]  # fmt: skip


@pytest.mark.parametrize("write", WRITERS)
def test_a_full_disk_is_one_paragraph_and_leaves_the_old_file(full_disk, write):
    path = full_disk / "scores.gif"
    path.write_text("old")
    with pytest.raises(errors.WriteError) as raised:
        write(path)
    message = str(raised.value)
    assert message.startswith(f"{path} could not be written: No space left on device")
    assert "Free some space" in message and message.endswith("The old file is unchanged.")
    assert path.read_text() == "old" and sorted(x.name for x in full_disk.iterdir()) == [
        "other",
        "scores.gif",
    ]


def make_loop(folder: pathlib.Path) -> pathlib.Path:
    (folder / "a").symlink_to("b")
    (folder / "b").symlink_to("a")
    return folder / "a" / "x"


def make_file(folder: pathlib.Path) -> pathlib.Path:
    (folder / "file").write_text("")
    return folder / "file" / "run" / "x"


def make_folder(folder: pathlib.Path) -> pathlib.Path:
    (folder / "x" / "y").mkdir(parents=True)
    return folder / "x"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_loop, "symbolic link that leads nowhere, is where a folder is needed: use another"),
        (make_file, "Not a directory.*: use another path"),
        (make_folder, "it is a folder. Name a file"),
        (lambda folder: folder / ("x" * 300), "File name too long.* Use a shorter path"),
    ],
)
def test_paths_that_cannot_be_written_say_what_to_do(tmp_path, make, message):
    with pytest.raises(errors.WriteError, match=f"could not be written: .*{message}"):
        files.write_text(make(tmp_path), "")


def test_names_may_be_as_long_as_the_file_system_has_them(tmp_path):
    for name in ("x" * 255, "ä" * 127):
        files.write_text(tmp_path / name, "long")
        assert (tmp_path / name).read_text() == "long"


def test_a_file_system_that_is_read_only_says_what_to_do(full_disk):
    subprocess.run(["mount", "-o", "remount,ro", full_disk], check=True)
    with pytest.raises(errors.WriteError, match="Read-only file system.* Use another folder"):
        files.write_text(full_disk / "new" / "x", "")


def test_errors_of_others_pass_unchanged(tmp_path):
    for error in (ValueError("mine"), FileNotFoundError(errno.ENOENT, "gone", "photo"), KeyError("x")):
        with pytest.raises(type(error)) as raised, files.atomic_path(tmp_path / "x"):
            raise error
        assert raised.value is error


def test_no_more_of_a_file_is_read_than_the_limit(tmp_path):
    path = tmp_path / "x"
    for size in (0, 99, 100):
        path.write_bytes(b"x" * size)
        assert files.read_limited(path, 100) == b"x" * size
    with path.open("wb") as file:
        file.truncate(1 << 32)
    with pytest.raises(errors.UserError, match="x is larger than 100 bytes, which is the limit"):
        files.read_limited(path, 100)
    with pytest.raises(FileNotFoundError):
        files.read_limited(tmp_path / "none", 100)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
def test_pipes_and_devices_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", pathlib.Path("/dev/zero")):
        with pytest.raises(errors.UserError, match=f"{path} is a pipe or a device, and must be"):
            files.read_limited(path, 100)
