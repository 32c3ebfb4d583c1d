"""dataset.json: a round trip, and files that are refused."""

import json
import pathlib
from typing import Any

import numpy as np
import pytest

from jaxdog.data import crop_dataset, dataset_info, photos
from jaxdog.utils import errors

ZEROS = np.zeros(3, np.int32)
CROPS = crop_dataset.CropDataset(
    np.zeros((3, 8, 8, 3), np.uint8), np.array([2, 0, 2]), ZEROS, ZEROS, ZEROS, ("a",), ("x", "y", "z"), ()
)
SOURCE = photos.Source("folder-abc", ("x", "y", "z"), [photos.Photo("a", 0, (), lambda: ZEROS)] * 4)


def test_round_trip(tmp_path: pathlib.Path) -> None:
    info = dataset_info.describe(SOURCE, CROPS, CROPS, "squash")
    assert info[:8] == (("x", "y", "z"), (1, 0, 2), 4, 3, "folder-abc", "squash", (8, 8, 3), None)
    assert len(info.content) == 64 and [len(text) for text in info.images] == [8, 0, 16]
    assert dataset_info.read(tmp_path) is None
    for changed in (info, info._replace(held_out=(1, 3))):
        dataset_info.write(tmp_path, changed, "1.0")
        assert dataset_info.read(tmp_path) == changed


def test_the_crops_that_are_selected_have_the_hashes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.arange(5, dtype=np.uint8)[:, None, None, None] + np.zeros((5, 8, 8, 3), np.uint8)
    zeros = np.zeros(5, np.int32)
    every = crop_dataset.CropDataset(image, zeros, zeros, zeros, zeros, (), ("x",), ())
    chosen = crop_dataset.subset(crop_dataset.subset(every, image[:, 0, 0, 0] > 1), np.array([2, 0]))
    of_all, hashed = dataset_info._hashes(every), []
    hashes = dataset_info._hashes
    monkeypatch.setattr(dataset_info, "_hashes", lambda crops: hashed.append(crops) or hashes(crops))
    info = dataset_info.describe(SOURCE, every, chosen, "squash")
    assert info.images == (of_all[4][:8] + of_all[2][:8],)
    assert [len(crops.image) for crops in hashed] == [5]  # each image once


# ------------------------------------------------------------------ the same photos?

CAT, DOG = [1, 2, 3], [4, 5]


def info_of(*, select: bool = False, key: str = "folder-1", **classes: list[int]) -> dataset_info.DatasetInfo:
    """Classes of images of one gray level each; `select`: only those below 100 are trained on."""
    level = np.array(sum(classes.values(), []), np.uint8)
    label = np.array([i for i, levels in enumerate(classes.values()) for _ in levels], np.int32)
    image = np.broadcast_to(level[:, None, None, None], (len(level), 8, 8, 3))
    sizes, kind = np.full((len(level), 2), 8), np.zeros(len(level), int)
    crops = crop_dataset.CropDataset(image, label, kind, sizes, kind, (), tuple(classes), ())
    chosen = crop_dataset.subset(crops, level < 100) if select else crops
    return dataset_info.describe(SOURCE._replace(key=key), crops, chosen, "squash")


def test_photos_are_the_same_wherever_they_are_and_whatever_their_classes_are_called(
    caplog: pytest.LogCaptureFixture,
) -> None:
    old = info_of(cat=CAT, dog=DOG)._replace(held_out=(2,))
    now = dataset_info.resumed(pathlib.Path("run"), old, info_of(cat=CAT, dog=DOG, key="folder-2"))
    assert now == old and not caplog.text  # the key of the cached features is that of the old place
    now = dataset_info.resumed(pathlib.Path("run"), old, info_of(cat=CAT, hound=DOG))
    assert now == old._replace(class_names=("cat", "hound"))
    assert "class 'dog' is now called 'hound'" in caplog.text


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"dog": DOG, "zebra": CAT}, "'cat' is now called 'zebra'; the order of the classes.* has changed"),
        ({"cat": CAT, "cow": [9], "dog": DOG}, r"photos: class 'cow', 1 image, is new\. Its networks"),
        ({"cat": CAT}, "class 'dog', 2 images, is gone"),
        ({"cat": CAT, "dog": DOG, "zebra": []}, "photos: class 'zebra', 0 images, is new"),
        ({"cat": CAT, "hound": [7, 8]}, "class 'dog', 2 images, is gone; class 'hound', 2 images, is new"),
        ({"cat": [*CAT, 6, 7], "dog": DOG}, "photos: images of class 'cat': 2 added. Its"),
        ({"cat": CAT[1:], "dog": DOG}, "photos: images of class 'cat': 1 removed. Its"),
        ({"cat": CAT, "dog": [4, 6]}, "photos: images of class 'dog': 1 changed. Its"),
        ({"cat": [1, 2, 6, 7], "pug": [4, 5, 6]}, "'pug'; .*'cat': 1 changed, 1 added; .*'pug': 1 added"),
        ({"cat": CAT[::-1], "dog": DOG}, "the same images are in another order, as their files have other"),
        ({chr(97 + i): [10 * i] for i in range(9)}, "'c', 1 image, is new and 6 more. Its"),
    ],
)  # fmt: skip
def test_what_has_changed_is_named(classes: dict[str, list[int]], message: str) -> None:
    old = info_of(cat=CAT, dog=DOG)
    with pytest.raises(errors.ConfigError, match=message) as raised:
        dataset_info.resumed(pathlib.Path("runs/x"), old, info_of(**classes))
    assert "runs/x was trained on other photos" in str(raised.value) and "init_from=runs/x" in str(
        raised.value
    )
    assert "delete" not in str(raised.value)


def test_photos_that_are_not_trained_on_count_too() -> None:
    """Scores are against all photos."""
    old = info_of(cat=[*CAT, 200], select=True)
    assert old.class_counts == (3,)
    dataset_info.resumed(pathlib.Path("run"), old, info_of(cat=[*CAT, 200], select=True))
    with pytest.raises(errors.ConfigError, match=r"photos that config\.data\.select leaves out have changed"):
        dataset_info.resumed(pathlib.Path("run"), old, info_of(cat=[*CAT, 201], select=True))


def test_a_class_without_images_is_a_class() -> None:
    """The contents are equal, the networks' numbers of classes are not."""
    old = info_of(cat=CAT, dog=DOG, zebra=[])
    assert old.content == info_of(cat=CAT, dog=DOG).content
    with pytest.raises(errors.ConfigError, match="class 'zebra', 0 images, is gone"):
        dataset_info.resumed(pathlib.Path("run"), old, info_of(cat=CAT, dog=DOG))


def test_the_shape_of_the_crops_counts() -> None:
    old = info_of(cat=CAT)
    with pytest.raises(errors.ConfigError, match=r"the shape of the crops is \[8, 8, 3\], was \[4, 4, 3\]"):
        dataset_info.resumed(pathlib.Path("run"), old._replace(image_shape=(4, 4, 3)), old)


def test_large_sets_are_identified_by_their_content_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """dataset.json would exceed the limit of JSON, and could not be read again."""
    monkeypatch.setattr(dataset_info, "MAX_LISTED", 4)
    old, now = info_of(cat=CAT, dog=DOG), info_of(cat=CAT, dog=[4, 6])
    assert old.images == now.images == () and info_of(cat=CAT, dog=[4]).images
    dataset_info.resumed(pathlib.Path("run"), old, info_of(cat=CAT, dog=DOG))
    with pytest.raises(errors.ConfigError, match="photos: images have changed\\. Its"):
        dataset_info.resumed(pathlib.Path("run"), old, now)


# ------------------------------------------------------------------ the file


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "its format is 2, and only 1 can be read"),
        ({"class_names": []}, "its numbers of classes"),
        ({"class_names": ["a", "b"]}, "its numbers of classes"),
        ({"images": ["a", "b"]}, "its numbers of classes"),
        ({"image_shape": [8]}, "its numbers of classes, images or sides contradict each other"),
        ({"image_shape": [8, 8, -3]}, "its numbers of classes"),
        ({"held_out": [-1]}, "its numbers of classes"),
        ({"class_counts": 3}, "class_counts is 3, and must be of type tuple"),
        ({"class_names": "cat"}, "class_names is 'cat', and must be"),
        ({"class_names": [None]}, "class_names is .None., and must be"),
        ({"image_shape": [8.0, 8, 3]}, "image_shape is .8.0, 8, 3., and must be"),
        ({"photos": None}, "photos is None, and must be of type <class 'int'>"),
        ({"source": ["a"]}, "source is .'a'., and must be"),
        ({"images": [3]}, "images is .3., and must be"),
    ],
)
def test_other_files_are_refused(tmp_path: pathlib.Path, changes: dict[str, Any], message: str) -> None:
    dataset_info.write(tmp_path, dataset_info.describe(SOURCE, CROPS, CROPS, "squash"), "1.0")
    path = tmp_path / dataset_info.NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(errors.UserError, match=f"dataset.json cannot be read: .*{message}"):
        dataset_info.read(tmp_path)
    path.write_text("{")
    with pytest.raises(errors.UserError, match="dataset.json cannot be read"):
        dataset_info.read(tmp_path)
