"""Every source, on layouts made here from drawn dogs; the real archives where the machine has them."""

import errno
import importlib.util
import io
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import types
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import tensorflow_datasets
from PIL import Image

from jaxdog.data import crop_dataset, crop_recipes, photos, sources, toy
from jaxdog.utils import errors, optional

MISSING = "n02105855_2933"  # the photo that the competition's data lacks


def jpeg(image: np.ndarray, kind: str = "JPEG", mode: str = "RGB", **settings) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).convert(mode).save(out, kind, **settings)
    return out.getvalue()


def voc(name: str, image: np.ndarray, boxes) -> bytes:
    """A PASCAL VOC annotation, as Stanford Dogs has them."""
    root = ET.Element("annotation")
    ET.SubElement(root, "filename").text = name
    size = ET.SubElement(root, "size")
    for tag, value in (("width", image.shape[1]), ("height", image.shape[0]), ("depth", 3)):
        ET.SubElement(size, tag).text = str(value)
    for box in boxes:
        found = ET.SubElement(ET.SubElement(root, "object"), "bndbox")
        for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True):
            ET.SubElement(found, tag).text = str(value)
    return ET.tostring(root)


# ------------------------------------------------------------------ tfds

BREEDS = [f"n{2085620 + k:08d}-Breed_{k}" for k in range(120)]


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def make_archives(folder: pathlib.Path) -> dict[str, photos.Photo]:
    """The three official archives, with 126 drawn dogs of 120 breeds: 121 to train, 5 to test."""
    scipy_io = pytest.importorskip("scipy.io", reason="scipy is not installed")
    drawn = toy.dogs(126, 5, (32, 48))
    chosen: dict[str, photos.Photo] = {}
    lists: dict[str, list[str]] = {"train": [], "test": []}
    with (
        tarfile.open(folder / "images.tar", "w") as images,
        tarfile.open(folder / "annotation.tar", "w") as notes,
    ):
        for i, photo in enumerate(drawn.photos):
            breed = BREEDS[i % 120]
            name = f"{breed.split('-')[0]}_{100 + i}"
            image, boxes = photo.read(), list(photo.boxes)
            if i == 7:
                boxes[0] = (boxes[0][0], boxes[0][1], image.shape[1] + 9, boxes[0][3])  # beyond the photo
            data = jpeg(image, quality=90)
            if i == 11:
                data = data[: len(data) // 2]
            add(images, f"Images/{breed}/{name}.jpg", data)
            add(notes, f"Annotation/{breed}/{name}", voc(name, image, boxes))
            lists["test" if i >= 121 else "train"].append(f"{breed}/{name}.jpg")
            chosen[f"{name}.jpg"] = photo._replace(label=i % 120)
    with tarfile.open(folder / "lists.tar", "w") as archive:
        for split, names in lists.items():
            out = io.BytesIO()
            scipy_io.savemat(out, {"file_list": np.array([[name] for name in names], dtype=object)})
            add(archive, f"{split}_list.mat", out.getvalue())
    return chosen


def run(code: str, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=1800)


PREPARE = """
import socket, sys
def offline(*a, **k): raise OSError("the network was asked for")
socket.create_connection = socket.getaddrinfo = socket.socket.connect = offline
from jaxdog.data import sources
print(len(sources.tfds(sys.argv[1], archives=sys.argv[2]).photos))
"""

READ = """
import sys
class Without:  # this machine, had TensorFlow never been installed
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, *rest):
        return None if name.split(".")[0] == "tensorflow" else self.finder.find_spec(name, *rest)
sys.meta_path = [Without(finder) for finder in sys.meta_path]
from jaxdog.data import sources
source = sources.tfds(sys.argv[1])
print(len(source.photos), source.photos[0].read().shape[2])
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> tuple[pathlib.Path, dict[str, photos.Photo]]:
    """A tfds folder prepared from small archives, without network, by a process of its own."""
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed, and preparing needs it")
    folder = tmp_path_factory.mktemp("archives")
    chosen = make_archives(folder)
    data_dir = tmp_path_factory.mktemp("tfds")
    done = run(PREPARE, data_dir, folder)
    assert done.stdout.split()[-1:] == ["126"], done.stderr
    return data_dir, chosen


@pytest.mark.oracle
def test_tfds_has_every_photo_with_its_breed_and_boxes(prepared):
    data_dir, chosen = prepared
    source = sources.tfds(data_dir)
    assert source.class_names == tuple(breed.lower() for breed in BREEDS)
    assert sorted(photo.name for photo in source.photos) == sorted(chosen)
    for photo in source.photos:
        drawn = chosen[photo.name]
        assert photo.label == drawn.label
        if photo.name.endswith("_107.jpg"):
            assert photo.boxes[0][2] == photo.read().shape[1]  # clipped
        elif not photo.name.endswith("_111.jpg"):
            assert photo.boxes == drawn.boxes
            assert np.abs(photo.read().astype(int) - drawn.read()).mean() < 12


@pytest.mark.oracle
def test_tfds_reads_without_tensorflow(prepared):
    done = run(READ, prepared[0])
    assert done.stdout == "126 3\n", done.stderr


@pytest.mark.oracle
def test_a_truncated_tfds_photo_does_not_affect_others(prepared):
    source = sources.tfds(prepared[0])
    (torn,) = (photo for photo in source.photos if photo.name.endswith("_111.jpg"))
    with pytest.raises(photos.BrokenPhotoError, match="truncated"):
        torn.read()


@pytest.mark.oracle
def test_tfds_splits_and_keys(prepared, tmp_path):
    both, train, test = (
        sources.tfds(prepared[0], splits=s) for s in (("train", "test"), ("train",), ("test",))
    )
    assert [len(s.photos) for s in (both, train, test)] == [126, 121, 5]
    assert len({both.key, train.key, test.key}) == 3
    assert [p.name for p in both.photos] == [p.name for p in (*train.photos, *test.photos)]
    assert both.photos[-1].name == test.photos[4].name and len(both.photos[120:123]) == 3
    made = crop_dataset.load(test, lambda p, b: crop_recipes.box_square(p, b, size=8), "small", tmp_path)
    assert set(made.photo) == set(range(5))
    with pytest.raises(IndexError, match="photo 5 of 5"):
        test.photos[5]
    with pytest.raises(ValueError, match="split is 'valid'; stanford_dogs has 'train' and 'test'"):
        sources.tfds(prepared[0], splits=("valid",))


def test_tfds_names_the_archives_it_lacks(tmp_path):
    (tmp_path / "images.tar").touch()
    with pytest.raises(FileNotFoundError, match="lacks annotation.tar, lists.tar. Stanford Dogs is prepared"):
        sources.tfds(tmp_path / "tfds", archives=tmp_path)


def test_tfds_names_the_extra_for_preparing(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(optional.MissingExtraError, match=r"not prepared yet in .* 'jaxdog\[tfds\]'"):
        sources.tfds(tmp_path)


@pytest.mark.parametrize("archives", [None, "here"])
def test_tfds_explains_a_failed_preparation(tmp_path, monkeypatch, archives):
    def offline(self, **_):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(tensorflow_datasets.core.DatasetBuilder, "download_and_prepare", offline)
    for name in sources.ARCHIVES:
        (tmp_path / name).touch()
    origin = tmp_path if archives else "its download"
    with pytest.raises(
        errors.UserError, match=f"from {origin} .ConnectionError: no route to host.. Without a network"
    ):
        sources.tfds(tmp_path / "tfds", archives=archives and tmp_path)


class Torn(list):
    """Records of which each is damaged."""

    def __getitem__(self, i):
        raise RuntimeError("DATA_LOSS: invalid record")


def builder(folder: pathlib.Path, records: list) -> types.SimpleNamespace:
    """What tensorflow_datasets gives for a prepared folder."""
    info = types.SimpleNamespace(features={"label": types.SimpleNamespace(names=["pug\n"])}, splits={})
    read = lambda split, decoders: records  # noqa: E731
    return types.SimpleNamespace(data_path=folder, version="0.2.0", info=info, as_data_source=read)


def test_a_damaged_tfds_record_costs_one_photo(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorflow_datasets, "builder", lambda *_, **__: builder(tmp_path, Torn([1, 2])))
    source = sources.tfds(splits=("train",))
    assert source.class_names == (r"pug\n",) and source.photos[1].name == "record 1"
    with pytest.raises(photos.BrokenPhotoError, match="damaged in its file, RuntimeError: DATA_LOSS"):
        source.photos[1].read()


@pytest.mark.parametrize(
    "error", [RuntimeError("odd"), KeyError("odd"), PermissionError(errno.EACCES, "odd")]
)
def test_damaged_tfds_files_end_in_one_paragraph(tmp_path, monkeypatch, error):
    """Files that may not be read are not called damaged."""

    def fail(*_, **__):
        raise error

    readable = isinstance(error, OSError)
    advice = "Make its files readable, or" if readable else "Its files may be damaged: delete it, or"
    message = rf"cannot be read \({type(error).__name__}: .*odd.*\). {advice}"
    later = builder(tmp_path, [])
    later.as_data_source = fail
    for made in (fail, lambda *_, **__: later):
        monkeypatch.setattr(tensorflow_datasets, "builder", made)
        with pytest.raises(errors.UserError, match=message):
            sources.tfds(tmp_path)


@pytest.mark.oracle
def test_tfds_in_a_format_for_tensorflow_is_not_read(prepared, tmp_path):
    shutil.copytree(prepared[0] / "stanford_dogs", tmp_path / "stanford_dogs")
    (info,) = tmp_path.rglob("dataset_info.json")
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(ValueError, match="is not in the array_record format .*Use another data folder"):
        sources.tfds(tmp_path)


@pytest.mark.slow
def test_the_real_archives(real_data, tmp_path):
    archives = real_data / "stanford_dogs"
    done = run(PREPARE, tmp_path, archives)
    assert done.stdout.split()[-1:] == ["18547"], done.stderr
    source = sources.tfds(tmp_path)
    assert len(source.class_names) == 120
    names = {photo.name: photo for photo in source.photos}
    assert len(names) == 18547
    counts = np.bincount([photo.label for photo in names.values()], minlength=120)
    assert counts.min() >= 100
    with tarfile.open(archives / "images.tar") as tar:
        for entry in list(tar)[::500]:
            file = tar.extractfile(entry)
            assert file is not None
            photo = names[os.path.basename(entry.name)]
            image = photo.read()
            np.testing.assert_array_equal(image, photos.decode(file.read()))
            assert photo.boxes == ((0, 0, image.shape[1], image.shape[0]),)
            assert source.class_names[photo.label] == entry.name.split("/")[1].lower()


# ------------------------------------------------------------------ the competition's layout


@pytest.fixture
def competition(tmp_path) -> tuple[pathlib.Path, list[photos.Photo]]:
    """Twelve drawn dogs of three breeds, and one annotation whose photo does not exist."""
    class_names = ["n02085620-Chihuahua", "n02105855-Shetland_sheepdog", "n02116738-African_hunting_dog"]
    (tmp_path / "all-dogs").mkdir()
    drawn = list(toy.dogs(12, 3, (32, 48)).photos)
    for i, photo in enumerate(drawn):
        breed = class_names[i % 3]
        name, image = f"{breed.split('-')[0]}_{10 + i}", photo.read()
        (tmp_path / "Annotation" / breed).mkdir(parents=True, exist_ok=True)
        (tmp_path / "all-dogs" / f"{name}.jpg").write_bytes(jpeg(image, quality=90))
        (tmp_path / "Annotation" / breed / name).write_bytes(voc(name, image, photo.boxes))
    (tmp_path / "Annotation" / class_names[1] / MISSING).write_bytes(
        voc(MISSING, drawn[0].read(), [(0, 0, 9, 9)])
    )
    return tmp_path, drawn


def test_kaggle_pairs_photos_with_annotations(competition):
    folder, drawn = competition
    source = sources.kaggle(folder)
    assert source.class_names[1] == "n02105855-shetland_sheepdog"
    assert len(source.photos) == 12
    for photo in source.photos:
        i = int(photo.name.split("_")[1][:-4]) - 10
        assert photo.label == i % 3 and photo.boxes == drawn[i].boxes
        assert np.abs(photo.read().astype(int) - drawn[i].read()).mean() < 12
    (note,) = source.notes
    assert (
        note == f"left out as annotations whose photo is missing: 1 (n02105855-Shetland_sheepdog/{MISSING})"
    )


@pytest.mark.parametrize(
    "text",
    [
        "<a><bndbox><xmin>1e999</xmin><ymin>0</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></a>",
        "<a><bndbox><xmin>nan</xmin><ymin>0</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></a>",
        '<?xml version="1.0" encoding="klingon"?><a/>',
        '<?xml version="1.0" encoding="utf-7"?><a/>',
        "<a><bndbox/></a>",
        "",
    ],
)
def test_a_bad_annotation_costs_one_photo(competition, text):
    folder, _ = competition
    note = folder / "Annotation" / "n02085620-Chihuahua" / "n02085620_10"
    note.write_text(text)
    source = sources.kaggle(folder)
    with pytest.raises(photos.BrokenPhotoError, match="annotation n02085620-Chihuahua/n02085620_10: "):
        source.photos[0].read()
    made = crop_dataset.load(source, lambda p, b: crop_recipes.squash(p, b, size=8), "small", None)
    assert len(made.image) == 11 and made.broken[0].startswith("n02085620_10.jpg: annotation")


def test_a_photo_whose_annotation_has_no_box_is_named(competition):
    folder, drawn = competition
    (folder / "Annotation" / "n02085620-Chihuahua" / "n02085620_10").write_text("<annotation/>")
    source = sources.kaggle(folder)
    assert source.photos[0].boxes == () and source.photos[1].boxes == drawn[3].boxes
    made = crop_dataset.load(source, lambda p, b: crop_recipes.squash(p, b, size=8), "small", None)
    assert made.notes == (f"n02085620_10.jpg: {sources.NO_BOX}",)


@pytest.mark.parametrize(
    ("boxes", "comment", "message"),
    [(1001, 0, "it has 1,001 boxes, the limit is 1,000"), (1, 1 << 20, "bytes, the limit is 1,048,576")],
)
def test_an_annotation_that_is_too_large_costs_one_photo(competition, boxes, comment, message):
    folder, drawn = competition
    note = folder / "Annotation" / "n02085620-Chihuahua" / "n02085620_10"
    note.write_bytes(voc("n02085620_10", drawn[0].read(), [(1, 2, 5, 6)] * boxes) + b" " * comment)
    with pytest.raises(photos.BrokenPhotoError, match=f"annotation n02085620-Chihuahua.*: .*{message}"):
        sources.kaggle(folder).photos[0].read()


def test_boxes_without_area_are_left_out_by_name(competition):
    folder, drawn = competition
    note, image = folder / "Annotation" / "n02085620-Chihuahua" / "n02085620_10", drawn[0].read()
    note.write_bytes(voc("n02085620_10", image, [(9, 1, 3, 8), (1, 2, 5, 6), (2, 3, 9, 3), (900, 0, 999, 9)]))
    photo = sources.kaggle(folder).photos[0]
    assert photo.boxes == ((1, 2, 5, 6),)
    assert [note.partition(",")[0] for note in photo.notes] == ["left out: box (9"] + [
        f"left out: box ({x}" for x in (2, 900)
    ]
    note.write_bytes(voc("n02085620_10", image, [(9, 1, 3, 8)]))
    with pytest.raises(photos.BrokenPhotoError, match=r"box \(9, 1, 3, 8\), which is empty or outside"):
        sources.kaggle(folder).photos[0].read()


def test_kaggle_pairs_by_the_whole_name(tmp_path):
    image = np.zeros((20, 30, 3), np.uint8)
    boxes = {"p0": (0, 0, 4, 4), "p0.1": (1, 1, 5, 5), "2019.05.01": (2, 2, 6, 6), "x": (3, 3, 7, 7)}
    for name in ("p0.jpg", "p0.1.jpg", "2019.05.01.jpg", "x.png", "x.jpg", "._p0.jpg"):
        write(tmp_path / "all-dogs" / name, image)
    write(tmp_path / "all-dogs" / "other.heic", image)
    (tmp_path / "Annotation" / "pug").mkdir(parents=True)
    (tmp_path / "Annotation" / ".svn").mkdir()
    (tmp_path / "Annotation" / ".svn" / "p0").write_bytes(b"")
    (tmp_path / "Annotation" / "loose").write_bytes(b"")
    for i, (name, box) in enumerate(boxes.items()):
        suffix = ".xml" if i == 3 else ""
        (tmp_path / "Annotation" / "pug" / f"{name}{suffix}").write_bytes(voc(name, image, [box]))
    (tmp_path / "Annotation" / "pug" / "x").write_bytes(b"")
    source = sources.kaggle(tmp_path)
    assert source.class_names == ("pug",)
    found = {photo.name: photo.boxes for photo in source.photos if photo.name[0] != "x"}
    assert found == {f"{name}.jpg": (box,) for name, box in boxes.items() if name != "x"}
    assert source.notes[:3] == (
        "left out as photos whose name another photo has: 1 (x.png)",
        "left out as annotations that are not in the folder of a breed: 1 (loose)",
        "left out as annotations of a photo that another one describes: 1 (pug/x.xml)",
    )
    assert source.notes[3:] == (
        "left out as hidden files or folders: 1 (._p0.jpg)",
        f"left out as .heic files: 1 (other.heic); {photos.HEIC_HINT}",
        "left out as hidden files or folders: 1 (.svn)",
    )


def test_kaggle_nested_as_on_kaggle(competition):
    folder, _ = competition
    key = sources.kaggle(folder).key
    for outer in ("all-dogs", "Annotation"):
        (folder / outer).rename(folder / "moved")
        (folder / outer).mkdir()
        (folder / "moved").rename(folder / outer / outer)
    assert sources.kaggle(folder).key == key


def test_kaggle_boxes_beyond_the_photo_are_clipped(competition):
    folder, drawn = competition
    h, w, _ = drawn[0].read().shape
    note = folder / "Annotation" / "n02085620-Chihuahua" / "n02085620_10"
    note.write_bytes(voc("n02085620_10", drawn[0].read(), [(-3, 2, w + 50, h + 1), (1, 1, 5.0, 6)]))
    assert sources.kaggle(folder).photos[0].boxes == ((0, 2, w, h), (1, 1, 5, 6))


def test_kaggle_odd_files(competition):
    folder, drawn = competition
    pictures, image = folder / "all-dogs", drawn[0].read()
    (pictures / "n02085620_10.jpg").write_bytes(jpeg(image, "PNG"))  # as one of ImageNet's files is
    (pictures / "n02085620_13.jpg").write_bytes(jpeg(image, mode="CMYK"))
    (pictures / "n02085620_16.jpg").write_bytes(jpeg(image, mode="L"))
    (pictures / "n02085620_19.jpg").write_bytes(b"torn")
    (folder / "Annotation" / "n02105855-Shetland_sheepdog" / "n02105855_11").write_text("<annotation><obj")
    (pictures / "stray_1.jpg").write_bytes(jpeg(image))
    source = sources.kaggle(folder)
    np.testing.assert_array_equal(source.photos[0].read(), image)
    assert source.photos[1].read().shape == source.photos[2].read().shape == image.shape
    with pytest.raises(photos.BrokenPhotoError, match="it is not an image in a format"):
        source.photos[3].read()
    with pytest.raises(photos.BrokenPhotoError, match="annotation .*n02105855_11"):
        source.photos[4].read()
    assert "left out as photos without an annotation: 1 (stray_1.jpg)" in source.notes


def test_kaggle_key_follows_the_files(competition):
    folder, _ = competition
    before = sources.kaggle(folder).key
    assert sources.kaggle(folder).key == before
    (folder / "all-dogs" / "n02085620_10.jpg").unlink()
    assert sources.kaggle(folder).key != before


def test_kaggle_wrong_layouts_are_described(competition, tmp_path_factory):
    folder, _ = competition
    with pytest.raises(
        FileNotFoundError, match="nowhere does not exist; it should be the folder with the comp"
    ):
        sources.kaggle(folder / "nowhere")
    with pytest.raises(FileNotFoundError, match="n02085620_10.jpg is a file; it should be the folder"):
        sources.kaggle(folder / "all-dogs" / "n02085620_10.jpg")
    with pytest.raises(
        FileNotFoundError, match="competition's layout: looked for .*all-dogs.* found nothing"
    ):
        sources.kaggle(tmp_path_factory.mktemp("empty"))
    for photo in (folder / "all-dogs").iterdir():
        photo.rename(photo.with_name(f"renamed_{photo.name}"))
    with pytest.raises(FileNotFoundError, match=r"None of the photos in .* has an annotation .*\(renamed_"):
        sources.kaggle(folder)
    shutil.rmtree(folder / "Annotation")
    with pytest.raises(FileNotFoundError, match="found all-dogs. Unpack all-dogs.zip and Annotation.zip"):
        sources.kaggle(folder)


# ------------------------------------------------------------------ folders


def write(path: pathlib.Path, image: np.ndarray, kind: str = "PNG", **settings) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jpeg(image, kind, **settings))


def test_folder_of_classes(tmp_path):
    image = toy.dogs(1, 0, (32, 48)).photos[0].read()
    for name in (
        "pug/b.PNG",
        "pug/a.jpg",
        "beagle/deep/er/c.webp",
        "beagle/z.jpeg",
        ".hidden/x.png",
        "none/readme.txt",
    ):
        write(tmp_path / name, image)
    source = sources.folder(tmp_path)
    assert source.class_names == ("beagle", "pug")
    assert [(p.name, p.label) for p in source.photos] == [
        ("beagle/deep/er/c.webp", 0),
        ("beagle/z.jpeg", 0),
        ("pug/a.jpg", 1),
        ("pug/b.PNG", 1),
    ]
    for photo in source.photos:
        assert photo.boxes == ()
        np.testing.assert_array_equal(photo.read(), image)
        (whole,) = crop_recipes.box_square(photo.read(), photo.boxes, size=16, mode="clip")
        np.testing.assert_array_equal(whole.image, crop_recipes.squash(image, size=16)[0].image)


def test_flat_folder(tmp_path):
    rows = toy.dogs(3, 0, (32, 48)).photos
    for photo in rows:
        write(tmp_path / "my dogs" / photo.name, photo.read())
    source = sources.folder(tmp_path / "my dogs")
    assert source.class_names == ("my dogs",) and {photo.label for photo in source.photos} == {0}
    for photo, drawn in zip(source.photos, rows, strict=True):
        np.testing.assert_array_equal(photo.read(), drawn.read())


def test_folder_photos_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 8
    write(tmp_path / "a.jpg", np.zeros((20, 30, 3), np.uint8), "JPEG", exif=exif)
    assert sources.folder(tmp_path).photos[0].read().shape == (30, 20, 3)


def test_folder_key_follows_the_files(tmp_path):
    write(tmp_path / "a.png", np.zeros((20, 30, 3), np.uint8))
    keys = [sources.folder(tmp_path).key]
    write(tmp_path / "b.png", np.zeros((20, 30, 3), np.uint8))
    keys.append(sources.folder(tmp_path).key)
    os.utime(tmp_path / "b.png", (0, 1))
    keys.append(sources.folder(tmp_path).key)
    assert len(set(keys)) == 3 and sources.folder(tmp_path).key == keys[-1]


def test_folder_problems_are_described(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist; it should be .* use the toy source"):
        sources.folder(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="has no photos: looked for .jpg, .jpeg, .* found nothing"):
        sources.folder(tmp_path)
    for k in range(7):
        (tmp_path / f"notes_{k}.txt").touch()
    with pytest.raises(
        FileNotFoundError,
        match=r"left out as .txt files: 7 \(notes_0.txt, .*, notes_4.txt and 2 more\). Put photos there",
    ):
        sources.folder(tmp_path)
    write(tmp_path / "a.png", np.zeros((20, 30, 3), np.uint8))
    write(tmp_path / "pug" / "b.png", np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(ValueError, match=r"has 1 photos \(a.png\) next to 1 class folders \(pug\)"):
        sources.folder(tmp_path)


def test_without_tensorflow_datasets_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(optional.MissingExtraError, match=r"Stanford Dogs .* pip install 'jaxdog\[tfds\]'"):
        sources.tfds()
