"""The zip holds exactly the images; every rule of the competition is enforced; failures leave nothing."""

import io
import warnings
import zipfile
import zlib

import numpy as np
import PIL.Image
import pytest

from jaxdog.evaluation import submission
from tests.utils import test_archives

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 64, 64, 3), dtype=np.uint8)


def encoded(image: np.ndarray, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, format=form)
    return buffer.getvalue()


def zipped(path, files: list[tuple[str, bytes]]):
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # duplicate names are meant
        for name, data in files:
            archive.writestr(name, data)
    return path


def test_the_zip_holds_the_very_images(tmp_path):
    path = tmp_path / "run" / "images.zip"
    facts = submission.write_zip(path, iter([IMAGES[:3], IMAGES[3:6], IMAGES[6:]]), count=7)
    assert facts == submission.check_zip(path, count=7)
    assert (facts.count, facts.size, facts.bytes) == (7, 64, path.stat().st_size)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [f"{i:05d}.png" for i in range(7)]
        for image, name in zip(IMAGES, archive.namelist(), strict=True):
            with PIL.Image.open(io.BytesIO(archive.read(name))) as saved:
                np.testing.assert_array_equal(np.asarray(saved), image)
    assert [p.name for p in path.parent.iterdir()] == ["images.zip"]


def test_the_same_images_give_the_same_bytes(tmp_path):
    one = submission.write_zip(tmp_path / "a.zip", [IMAGES], count=7)
    two = submission.write_zip(tmp_path / "b.zip", [IMAGES[:2], IMAGES[2:]], count=7)
    assert one.sha256 == two.sha256
    assert submission.write_zip(tmp_path / "b.zip", [IMAGES[::-1]], count=7).sha256 != one.sha256


def test_other_sizes_can_be_asked_for(tmp_path):
    facts = submission.write_zip(tmp_path / "a.zip", [IMAGES[:, :32, :32]], count=7, size=32)
    assert facts.size == 32
    with pytest.raises(submission.SubmissionError, match="is 32x32 pixels, but 64x64 is required"):
        submission.check_zip(tmp_path / "a.zip", count=7)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([IMAGES[:5]], "7 images are required, but only 5 were given"),
        ([IMAGES, IMAGES], "more than 7 images were given"),
        ([IMAGES.astype(np.float32)], r"must be \[b, 64, 64, 3\] uint8, got \[7, 64, 64, 3\] float32"),
        ([IMAGES[0]], r"got \[64, 64, 3\] uint8"),
        ([IMAGES[:, :32]], r"got \[7, 32, 64, 3\] uint8"),
    ],
)
def test_wrong_images_leave_the_old_zip(tmp_path, batches, message):
    path = tmp_path / "images.zip"
    path.write_bytes(b"old")
    with pytest.raises(submission.SubmissionError, match=message):
        submission.write_zip(path, batches, count=7)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_an_interruption_leaves_nothing(tmp_path):
    def stopped():
        yield IMAGES[:3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        submission.write_zip(tmp_path / "images.zip", stopped(), count=7)
    assert list(tmp_path.iterdir()) == []


def test_a_zip_that_fails_the_check_does_not_appear(tmp_path, monkeypatch):
    monkeypatch.setattr(submission, "_png", lambda image: encoded(image, "JPEG"))
    with pytest.raises(submission.SubmissionError, match="00000.png is a JPEG file, but PNG"):
        submission.write_zip(tmp_path / "images.zip", [IMAGES], count=7)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_zip(tmp_path, monkeypatch):
    path = tmp_path / "images.zip"
    path.write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(OSError, match="No space left"):
        submission.write_zip(path, [IMAGES], count=7)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


GOOD = encoded(IMAGES[0])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([("a.png", GOOD)], "has 1 files, but 2 are required"),
        ([("a.png", GOOD)] * 2, "a.png occurs twice"),
        (
            [("a.png", GOOD), ("b.png", encoded(IMAGES[1], "JPEG"))],
            "b.png is a JPEG file, but PNG is required",
        ),
        (
            [("a.png", GOOD), ("b.png", encoded(IMAGES[1][:, :63]))],
            "b.png is 63x64 pixels, but 64x64 is required",
        ),
        ([("a.png", GOOD), ("b.png", encoded(IMAGES[1][..., 0]))], "b.png has mode L, but RGB is required"),
        ([("a.png", GOOD), ("b.png", encoded(np.dstack([IMAGES[1]] * 2)[..., :4]))], "mode RGBA, but RGB"),
        ([("a.png", GOOD), ("b.png", GOOD[:3000])], "b.png cannot be read as a PNG image"),
        ([("a.png", GOOD), ("b.png", b"dog")], "b.png cannot be read as a PNG image"),
        ([("a.png", GOOD), ("more/", b"")], "more/ cannot be read as a PNG image"),
        ([("a.png", GOOD), ("b.png", encoded(IMAGES[1], "EPS"))], "b.png cannot be read as a PNG image"),
        ([("a.png", GOOD), ("b.png", b"\x89PNG" + GOOD[9:])], "b.png cannot be read as a PNG image"),
    ],
)
def test_each_rule_names_the_file(tmp_path, files, message):
    with pytest.raises(submission.SubmissionError, match=message):
        submission.check_zip(zipped(tmp_path / "images.zip", files), count=2)


def test_names_do_not_matter_contents_do(tmp_path):
    path = zipped(tmp_path / "images.zip", [("x", GOOD), ("dir/y.jpg", GOOD)])
    assert submission.check_zip(path, count=2).count == 2


def test_a_damaged_zip_is_named(tmp_path):
    path = zipped(tmp_path / "images.zip", [("a.png", GOOD)])
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"dogs", b"", whole[:200] + b"\x00\xff" + whole[202:]):
        path.write_bytes(damaged)
        with pytest.raises(submission.SubmissionError, match=r"images.zip is not a complete zip file \("):
            submission.check_zip(path, count=1)


def test_a_damaged_stream_in_a_zip_is_named(tmp_path):
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", GOOD)
    data = bytearray(path.read_bytes())
    data[35:45] = b"\xff" * 10  # right behind the entry's header of 30 bytes and its name
    path.write_bytes(data)
    with pytest.raises(submission.SubmissionError, match=r"images.zip is not a complete zip file \("):
        submission.check_zip(path, count=1)


def test_a_missing_zip_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="images.zip"):
        submission.check_zip(tmp_path / "images.zip")


def test_png_bytes_are_compressed():
    flat = submission._png(np.zeros((64, 64, 3), np.uint8))
    assert len(flat) < 64 * 64 * 3 / 20 and zlib.crc32(flat) == zlib.crc32(
        submission._png(np.zeros((64, 64, 3), np.uint8))
    )


def test_zips_that_would_fill_the_memory_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "images.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", GOOD)
        archive.writestr("b.png", bytes(64 << 20))
    with pytest.raises(
        submission.SubmissionError, match="would extract to 67,108,864 bytes, .* times its size"
    ):
        submission.check_zip(tmp_path / "images.zip", count=2)
    test_archives.overlapping(tmp_path / "images.zip", 3)
    with pytest.raises(
        submission.SubmissionError, match="but its files take 30,000: it is damaged, or made to fi"
    ):
        submission.check_zip(tmp_path / "images.zip", count=3)
