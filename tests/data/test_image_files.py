"""Collections of images in all formats, including damaged and malicious ones."""

import hashlib
import io
import pathlib
import zipfile

import numpy as np
import PIL.Image
import pytest

from jaxdog.data import crop_dataset, crop_recipes, image_files, photos
from jaxdog.utils import archives, errors

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 12, 12, 3), np.uint8)


def encoded(image: np.ndarray, form: str = "PNG", mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).convert(mode).save(buffer, form)
    return buffer.getvalue()


def write_zip(path: pathlib.Path, files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> pathlib.Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def read(source: photos.Source) -> np.ndarray:
    return crop_dataset.load(source, crop_recipes.as_is, "as is", None).image


def test_folder_zip_and_arrays_hold_the_same(tmp_path):
    folder = tmp_path / "dogs"
    folder.mkdir()
    files = {f"{i}.png": encoded(image) for i, image in enumerate(IMAGES)}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    np.save(tmp_path / "a.npy", IMAGES)
    np.save(tmp_path / "first.npy", np.moveaxis(IMAGES, -1, 1))
    np.savez(tmp_path / "b.npz", arr_0=IMAGES.astype(np.int64), arr_1=np.array([0, 2, 0, 1, 1]))
    np.save(tmp_path / "float.npy", IMAGES.astype(np.float32))
    packed = write_zip(tmp_path / "images.zip", {f"__MACOSX/._{n}": b"x" for n in files} | files)
    for path in (folder, packed, *(tmp_path / n for n in ("a.npy", "first.npy", "b.npz", "float.npy"))):
        np.testing.assert_array_equal(read(image_files.source(path)), IMAGES, err_msg=str(path))
    labels = crop_dataset.load(image_files.source(tmp_path / "b.npz"), crop_recipes.as_is, "", None)
    assert labels.label.tolist() == [0, 2, 0, 1, 1] and labels.class_names == ("0", "1", "2")


def test_folders_in_a_zip_are_classes(tmp_path):
    names = ("all/pug/1.png", "all/pug/deep/2.png", "all/collie/1.png")
    source = image_files.source(write_zip(tmp_path / "z.zip", {name: encoded(IMAGES[0]) for name in names}))
    assert source.class_names == ("collie", "pug")
    assert [(photo.name, photo.label) for photo in source.photos] == [
        ("all/collie/1.png", 0),
        ("all/pug/1.png", 1),
        ("all/pug/deep/2.png", 1),
    ]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "LA", "I;16"])
def test_every_color_mode_becomes_rgb(tmp_path, mode):
    gray = np.repeat(IMAGES[..., :1], 3, axis=3)[0]
    if mode == "I;16":
        buffer = io.BytesIO()
        PIL.Image.fromarray(gray[..., 0].astype(np.uint16) * 257).save(buffer, "PNG")
        data = buffer.getvalue()
    else:
        data = encoded(gray, mode=mode)
    found = read(image_files.source(write_zip(tmp_path / "z.zip", {"a.png": data})))
    assert found.shape == (1, 12, 12, 3) and found.dtype == np.uint8
    if mode not in ("1", "P"):
        np.testing.assert_array_equal(found[0], gray)


def test_gray_arrays_and_sources_with_other_content_have_other_keys(tmp_path):
    np.save(tmp_path / "g.npy", IMAGES[..., 0])
    np.testing.assert_array_equal(read(image_files.source(tmp_path / "g.npy"))[..., 2], IMAGES[..., 0])
    keys = {image_files.array("x", image).key for image in (IMAGES, IMAGES[::-1], IMAGES[:4])}
    one = write_zip(tmp_path / "a.zip", {"a.png": encoded(IMAGES[0])})
    keys.add(image_files.source(one).key)
    keys.add(image_files.source(write_zip(one, {"a.png": encoded(IMAGES[1])})).key)
    assert len(keys) == 5


def test_labels_are_content_within_limits():
    images = np.zeros((3, 4, 4, 3), np.uint8)
    keys = {image_files.array("a", images, x).key for x in (None, np.array([0, 0, 1]), np.array([0, 1, 1]))}
    assert len(keys) == 3
    for labels in ([0, 10**12, 0], [0, 1, image_files.MAX_CLASSES]):
        with pytest.raises(errors.UserError, match="its labels reach 1.*; the limit is 100,000 classes"):
            image_files.array("a", images, np.array(labels))


def test_the_key_of_an_array_is_that_of_its_content(monkeypatch):
    """Whatever the pieces: cached crops and features are found by it."""
    monkeypatch.setattr(image_files, "PIECE", 2)
    content = hashlib.sha256(IMAGES.tobytes()).hexdigest()
    facts = repr([IMAGES.shape, content, 3, 0, 2, 1, 0])
    label = np.array([3, 0, 2, 1, 0], np.uint8)
    key = f"array-a-{hashlib.sha256(facts.encode()).hexdigest()[:16]}"
    assert image_files.array("a", IMAGES, label).key == key


def test_arrays_have_a_limited_number_of_images(monkeypatch):
    """A billion labels of one byte are a small file."""
    monkeypatch.setattr(image_files, "MAX_IMAGES", 4)
    with pytest.raises(errors.UserError, match="it has 5 images; the limit is 4"):
        image_files.array("a", IMAGES, np.zeros(5, np.uint8))
    assert len(image_files.array("a", IMAGES[:4], np.zeros(4, np.uint8)).photos) == 4


def test_a_zip_that_would_fill_the_memory_is_not_extracted(tmp_path, monkeypatch):
    bomb = write_zip(tmp_path / "bomb.zip", {"a.png": bytes(2 << 20)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="would extract to 2,097,152 bytes, .* times its size; the limits"):
        read(image_files.source(bomb))
    many = write_zip(tmp_path / "many.zip", {f"{i}.png": b"" for i in range(4)})
    monkeypatch.setattr(archives, "MAX_FILES", 3)
    with pytest.raises(ValueError, match="many.zip would extract to 4 files and 0 bytes; the limits are 3"):
        image_files.source(many)


def test_arrays_that_would_fill_the_memory_are_not_read(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", images=IMAGES)
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        data = archive.read("images.npy")
    huge = data.replace(b"(5, 12, 12, 3), }" + b" " * 12, b"(5" + b"0" * 12 + b", 12, 12, 3), }")
    assert len(huge) == len(data)
    with pytest.raises(
        ValueError, match=r"h.npz cannot be read as images: 'images.npy' declares shape \(50+, 12, 12, 3\)"
    ):
        image_files.source(write_zip(tmp_path / "h.npz", {"images.npy": huge}))
    np.savez_compressed(tmp_path / "z.npz", images=np.zeros((1000, 64, 64, 3), np.uint8))
    with pytest.raises(
        ValueError, match="would extract to 12,288,128 bytes, .* times its size; the limits are 17,"
    ):
        image_files.source(tmp_path / "z.npz")
    monkeypatch.setattr(photos, "MAX_PIXELS", 100)
    with pytest.raises(ValueError, match="its images have 12 x 12 pixels; the limit is 100"):
        image_files.source(tmp_path / "a.npz")


def test_names_that_climb_out_of_a_zip_write_nothing(tmp_path):
    inner = tmp_path / "in"
    inner.mkdir()
    evil = write_zip(inner / "evil.zip", {"../../up.png": encoded(IMAGES[0]), "/abs.png": encoded(IMAGES[1])})
    assert len(read(image_files.source(evil))) == 2
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["evil.zip", "in"]


def test_truncated_images_are_left_out_with_a_warning_or_refused(tmp_path, caplog):
    good = {f"{i:03}.png": encoded(IMAGES[i % 5]) for i in range(150)}
    cut = encoded(IMAGES[0])[:60]
    crops = crop_dataset.load(
        image_files.source(write_zip(tmp_path / "a.zip", good | {"cut.png": cut})),
        crop_recipes.as_is,
        "",
        None,
    )
    assert len(crops.image) == 150 and crops.broken[0].startswith("cut.png: ")
    assert "Skipped a broken photo, cut.png" in caplog.text
    with pytest.raises(ValueError, match="of the 2 photos .* are broken"):
        read(image_files.source(write_zip(tmp_path / "b.zip", {"a.png": cut, "b.png": encoded(IMAGES[0])})))


def test_mixed_sizes_are_an_error(tmp_path):
    files = {"a.png": encoded(IMAGES[0]), "b.png": encoded(IMAGES[0, :7])}
    with pytest.raises(ValueError, match="different sizes, such as 7x12 and 12x12"):
        read(image_files.source(write_zip(tmp_path / "z.zip", files)))


@pytest.mark.parametrize(
    "array, message",
    [
        (np.zeros((3, 4)), r"has shape \(3, 4\), and must have shape \[n, h, w, 3\]"),
        (np.zeros((0, 8, 8, 3), np.uint8), r"has shape \(0, 8, 8, 3\)"),
        *(
            (np.zeros((8, 8, c), np.uint8), rf"has shape \(8, 8, {c}\), which is that of one image")
            for c in (1, 2, 3, 4)
        ),
        (np.full((2, 8, 8, 3), np.nan), "384 of its values are NaN or infinite"),
        (np.linspace(-1, 1, 384).reshape(2, 8, 8, 3), "float64 from -1 to 1; save them as uint8"),
        (np.ones((2, 8, 8, 3)), "float64 from 1 to 1; save them as uint8"),
        (np.full((2, 8, 8, 3), 300), "int64 from 300 to 300"),
        (np.full((2, 8, 8, 3), "a"), "of type <U1, and must be uint8"),
    ],
)
def test_arrays_that_are_not_images_are_refused(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match=message):
        image_files.source(tmp_path / "a.npy")


def test_what_is_not_a_collection_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.zip does not exist .* Accepted are a folder"):
        image_files.source(tmp_path / "none.zip")
    (tmp_path / "a.txt").write_text("dogs")
    with pytest.raises(ValueError, match="a.txt is not a collection of images. Accepted"):
        image_files.source(tmp_path / "a.txt")
    (tmp_path / "b.zip").write_text("dogs")
    with pytest.raises(ValueError, match="b.zip is not a complete zip file"):
        image_files.source(tmp_path / "b.zip")
    with pytest.raises(ValueError, match=r"c.zip has no photos: .*left out as .txt files: 1 \(a.txt\)"):
        image_files.source(write_zip(tmp_path / "c.zip", {"a.txt": b""}))
    np.save(tmp_path / "o.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(ValueError, match="o.npy cannot be read as images: .*objects"):
        image_files.source(tmp_path / "o.npy")
    np.savez(tmp_path / "d.npz", a=IMAGES, b=IMAGES)
    with pytest.raises(ValueError, match="its arrays are a, b; images are expected under"):
        image_files.source(tmp_path / "d.npz")
