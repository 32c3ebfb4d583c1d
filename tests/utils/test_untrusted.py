"""Zip archives, .npz files and JSON from others, within limits."""

import pathlib
import zipfile
from typing import NamedTuple

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


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [("<f3", "(3,)"), ("<f4", f"(0, {10**30})"), ("<f4", f"({'1, ' * 100})"), ("<f9", "()")],
)
def test_arrays_that_cannot_be_are_refused(tmp_path, dtype, shape):
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(701) + "\n"
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(4)
    (tmp_path / "x.npz").write_bytes(samples.zipped({"x.npy": data}))
    with pytest.raises(errors.UserError, match="'x.npy' is not an array that can be"):
        untrusted.read_npz(tmp_path / "x.npz")


@pytest.mark.parametrize("order", ["<", ">"])
def test_texts_have_characters_that_there_are(order, tmp_path):
    path = tmp_path / "a.npz"
    for code, valid in ((0x10FFFF, True), (0x110000, False), (0xFFFFFFFF, False)):
        text = np.array([ord("a"), code], f"{order}u4").view(f"{order}U2")
        np.savez(path, text=text)
        if valid:
            assert untrusted.read_npz(path)["text"].tolist() == text.tolist()
        else:
            with pytest.raises(errors.UserError, match="'text.npy' has a text with characters"):
                untrusted.read_npz(path)


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


DEEP = b"[" * 200_000


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        *((b"", "it is empty"), (b'{"a"', "Expecting"), (b"\xff\x00", "decode"), (b"[1]", "no JSON object")),
        *((DEEP, "recursion"), (b'{"a":' * 100_000, "recursion"), (b"\x00", "Expecting")),
        *((b"9" * 5000, "no JSON object"), (b'{"a":' * 52 + b"1" + b"}" * 52, "deeper than 50 levels")),
    ],
    ids=["empty", "cut", "bytes", "list", "deep", "deep objects", "zero", "long", "somewhat deep"],
)
def test_a_damaged_json_file_is_named_with_what_to_do(tmp_path: pathlib.Path, content: bytes, reason: str):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(errors.UserError, match=f"config.json is damaged: .*{reason}.*. Delete it$") as error:
        untrusted.read_json(path, "Delete it")
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    path.write_text('{"a": 1}')
    assert untrusted.read_json(path, "") == {"a": 1}


def test_json_is_neither_too_deep_nor_too_large_to_be_worked_with() -> None:
    deepest = "[" * 51 + "]" * 51
    assert str(untrusted.parse_json(deepest)) == deepest
    numbers = untrusted.parse_json("[" + ", ".join([str(2**64), "-3", "9" * 40, "9" * 41, "9" * 5000]) + "]")
    assert numbers == [2**64, -3, int("9" * 40), 1e41, float("inf")]
    assert [type(x) for x in numbers] == [int, int, int, float, float]


class Row(NamedTuple):
    name: str
    count: int
    sides: tuple[int, ...]
    rate: float = 1.0
    held_out: tuple[str, ...] | None = None


def test_a_record_has_values_of_its_types() -> None:
    values = {"name": "a", "count": 3, "sides": [4, 5], "held_out": None, "another": 1}
    assert untrusted.record(Row, values) == Row("a", 3, (4, 5))
    assert untrusted.record(Row, {**values, "held_out": ["b"], "rate": 0.5}) == Row(
        "a", 3, (4, 5), 0.5, ("b",)
    )
    for change in (
        {"name": None}, {"name": ["a"]}, {"count": "3"}, {"count": 3.0}, {"count": True}, {"sides": 4},
        {"sides": "45"}, {"sides": ["4"]}, {"sides": [[4]]}, {"sides": {"4": 5}}, {"held_out": [None]},
    ):  # fmt: skip
        (name,) = change
        with pytest.raises(errors.UserError, match=f"{name} is .* must be of type "):
            untrusted.record(Row, {**values, **change})
    with pytest.raises(errors.UserError, match="a value is missing .*'sides'"):
        untrusted.record(Row, {"name": "a", "count": 3})


def test_json_that_is_too_large_is_not_read(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(untrusted.MAX_JSON + 1)
    with pytest.raises(errors.UserError, match=r"config.json is larger than 16,777,216 bytes, which is the"):
        untrusted.read_json(path, "")
