"""Zip archives, .npz files and JSON from others, within limits."""

import pathlib
import zipfile

import numpy as np
import pytest

from jaxdog.utils import errors, untrusted
from tests.fuzz import samples


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_read_as_numpy_wrote_them(save, tmp_path):
    arrays = {
        "floats": np.arange(6, dtype=np.float32).reshape(2, 3),
        "columns": np.asfortranarray(np.arange(6, dtype=np.int64).reshape(3, 2)),
        "half": np.ones((0, 4), np.float16),
        "flags": np.array([True, False]),
        "text": np.array("ä text"),
        "number": np.float64(2.5),
        "words": np.array(["a", "bcd"]),
    }
    save(tmp_path / "x.npz", **arrays)
    found = untrusted.read_npz(tmp_path / "x.npz")
    assert sorted(untrusted.npz_names(tmp_path / "x.npz")) == sorted(found) == sorted(arrays)
    for name, x in arrays.items():
        np.testing.assert_array_equal(found[name], x)
        assert found[name].dtype == np.asarray(x).dtype and found[name].shape == np.shape(x)
    assert list(untrusted.read_npz(tmp_path / "x.npz", "half".__eq__)) == ["half"]


def test_objects_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.array([None, {}], object))
    with pytest.raises(errors.UserError, match="'x.npy' is not an array of numbers or text"):
        untrusted.read_npz(tmp_path / "x.npz")


def test_files_that_are_no_archives(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"hello")
    with pytest.raises(errors.UserError, match="is not a complete zip file"):
        untrusted.read_npz(tmp_path / "x.npz")
    assert untrusted.npz_names(tmp_path / "x.npz") == untrusted.npz_names(tmp_path / "none.npz") == []
    with pytest.raises(FileNotFoundError):
        untrusted.read_npz(tmp_path / "none.npz")


def test_many_entries_are_refused_before_they_are_listed(tmp_path, monkeypatch):
    (tmp_path / "x.npz").write_bytes(samples.zipped({str(i): b"" for i in range(100)}))
    monkeypatch.setattr(untrusted, "MAX_DIRECTORY", 1000)
    with pytest.raises(errors.UserError, match=r"list of the files in .* has \d,\d+ bytes; the limit"):
        untrusted.read_npz(tmp_path / "x.npz")


def test_entries_that_share_their_bytes_are_refused(tmp_path):
    """A directory may name the same bytes many times."""
    x = np.zeros(100_000)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a.npy", samples.npy(x))
        entry = archive.getinfo("a.npy")
        archive.filelist += [entry] * 50
    with pytest.raises(errors.UserError, match="its files take 40,806,528: it is damaged"):
        untrusted.read_npz(tmp_path / "x.npz")


DEEP, LONG = b"[" * 200_000, b"9" * 5000


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        *((b"", "it is empty"), (b'{"a"', "Expecting"), (b"\xff\x00", "decode"), (b"[1]", "no JSON object")),
        *((DEEP, "recursion"), (LONG, "integer"), (b'{"a":' * 100_000, "recursion"), (b"\x00", "Expecting")),
    ],
    ids=["empty", "cut", "bytes", "list", "deep", "long", "deep objects", "zero"],
)
def test_a_damaged_json_file_is_named_with_what_to_do(tmp_path: pathlib.Path, content: bytes, reason: str):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(errors.UserError, match=f"config.json is damaged: .*{reason}.*. Delete it$") as error:
        untrusted.read_json(path, "Delete it")
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    path.write_text('{"a": 1}')
    assert untrusted.read_json(path, "") == {"a": 1}


def test_json_that_is_too_large_is_not_read(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(untrusted.MAX_JSON + 1)
    with pytest.raises(errors.UserError, match=r"config.json is larger than 16,777,216 bytes, which is the"):
        untrusted.read_json(path, "")
