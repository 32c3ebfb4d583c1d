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
    with pytest.raises(errors.UserError, match="damaged zip archive, or none"):
        untrusted.read_npz(tmp_path / "x.npz")
    assert untrusted.npz_names(tmp_path / "x.npz") == untrusted.npz_names(tmp_path / "none.npz") == []
    with pytest.raises(FileNotFoundError):
        untrusted.read_npz(tmp_path / "none.npz")


def test_many_entries_are_refused_before_they_are_listed(tmp_path, monkeypatch):
    (tmp_path / "x.npz").write_bytes(samples.zipped({str(i): b"" for i in range(100)}))
    monkeypatch.setattr(untrusted, "MAX_DIRECTORY", 1000)
    with pytest.raises(errors.UserError, match=r"directory of the zip archive has \d,\d+ bytes; the limit"):
        untrusted.read_npz(tmp_path / "x.npz")


def test_entries_that_share_their_bytes_are_refused(tmp_path):
    """A directory may name the same bytes many times."""
    x = np.zeros(100_000)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a.npy", samples.npy(x))
        entry = archive.getinfo("a.npy")
        archive.filelist += [entry] * 50
    with pytest.raises(errors.UserError, match="it declares more bytes than it has"):
        untrusted.read_npz(tmp_path / "x.npz")


@pytest.mark.parametrize(
    "text", ["[" * 200_000, "9" * 5000, "{", '{"a":' * 100_000, "\x00"], ids=["deep", "long", "cut", "d", "0"]
)
def test_json_that_python_cannot_read(text: str, tmp_path: pathlib.Path):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(errors.UserError, match="it is not JSON that can be read") as error:
        untrusted.read_json(tmp_path / "x.json")
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_json_of_any_size_is_refused(tmp_path):
    (tmp_path / "x.json").write_text("[1, 2]")
    assert untrusted.read_json(tmp_path / "x.json", 6) == [1, 2]
    with pytest.raises(errors.UserError, match="x.json is larger than 5 bytes"):
        untrusted.read_json(tmp_path / "x.json", 5)
