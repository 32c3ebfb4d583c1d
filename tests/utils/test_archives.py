"""Zips that are damaged, or made to fill memory and disks."""

import io
import pathlib
import struct
import zipfile

import pytest

from jaxdog.utils import archives, errors


def write(path: pathlib.Path, data: bytes, method: int = zipfile.ZIP_DEFLATED) -> pathlib.Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a.png", data)
    return path


def overlapping(path: pathlib.Path, n: int = 50) -> pathlib.Path:
    """A zip whose n entries are all the same bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("0.png", bytes(10_000))
    data = out.getvalue()
    start = data.index(b"PK\x01\x02")
    record = data[start : data.index(b"PK\x05\x06")]
    central = b"".join(record.replace(b"0.png", f"{chr(48 + i)}.png".encode()) for i in range(n))
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, n, n, len(central), start, 0)
    path.write_bytes(data[:start] + central + end)
    return path


def test_the_bytes_of_a_file_are_read(tmp_path):
    with archives.open_zip(write(tmp_path / "a.zip", b"dogs")) as archive:
        assert archives.read(archive, archive.infolist()[0]) == b"dogs"


def test_files_that_overlap_are_refused(tmp_path):
    with pytest.raises(archives.ArchiveError, match="its files take 500,000: it is damaged, or made to"):
        archives.open_zip(overlapping(tmp_path / "a.zip"))


def test_well_compressed_and_large_files_are_not_read(tmp_path, monkeypatch):
    with archives.open_zip(write(tmp_path / "a.zip", bytes(2 << 20))) as archive:
        with pytest.raises(archives.EntryError, match="would extract to 2,097,152 bytes, .* times its size"):
            archives.read(archive, archive.infolist()[0])
    monkeypatch.setattr(archives, "MAX_BYTES", 1 << 20)
    with pytest.raises(
        errors.UserError, match="would extract to 1 files and 2,097,152 bytes; the limits are"
    ):
        archives.open_zip(tmp_path / "a.zip")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_of_any_kind_is_an_error_of_the_file(tmp_path, method):
    data = bytearray(write(tmp_path / "a.zip", bytes(range(256)) * 40, method).read_bytes())
    for position in range(0, len(data), 3):
        damaged = data.copy()
        damaged[position : position + 8] = b"\xff" * 8
        (tmp_path / "b.zip").write_bytes(damaged[: len(data)])
        try:
            with archives.open_zip(tmp_path / "b.zip") as archive:
                for entry in archive.infolist():
                    archives.read(archive, entry)
        except (archives.ArchiveError, archives.EntryError) as error:
            assert "b.zip" in str(error) or "in the zip" in str(error) or "would extract" in str(error)
