"""Files are written completely or not at all, and no temporary files remain."""

import os
import time

import pytest

from jaxdog.utils import files


def test_a_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "new" / "scores[1].txt"
    with files.atomic_path(path) as temporary:
        temporary.write_bytes(b"whole")
        assert not path.exists() and temporary.parent == path.parent
    assert path.read_bytes() == b"whole" and list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "scores.txt"
    files.write_text(path, "old\r\n")
    with pytest.raises(KeyboardInterrupt), files.atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old\r\n" and list(tmp_path.iterdir()) == [path]


def test_what_killed_processes_left_is_removed_but_not_what_others_write_now(tmp_path):
    path = tmp_path / "scores[1].txt"
    stale, fresh, other = (
        tmp_path / name for name in (".scores[1].txt.a.tmp", ".scores[1].txt.b.tmp", "x.tmp")
    )
    for left in (stale, fresh, other):
        left.write_bytes(b"half")
    for left in (stale, other):
        os.utime(left, (0, time.time() - 2 * files.STALE_SECONDS))
    files.write_text(path, "new")
    assert sorted(tmp_path.iterdir()) == sorted([path, fresh, other])
