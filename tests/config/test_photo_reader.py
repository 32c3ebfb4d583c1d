"""Contradictions between photos and config are found before training, and name the field."""

import logging
from typing import Any

import numpy as np
import pytest

from configs import toy as config_file
from jaxdog.config import build, photo_reader
from jaxdog.data import crop_dataset
from jaxdog.utils import errors


def crops_of(n: int, classes: int = 3, broken: tuple[int, ...] = ()) -> crop_dataset.CropDataset:
    """n photos, each with a crop unless it is broken."""
    names = tuple(f"{i}: odd.jpg" for i in range(n))
    photo = np.asarray([i for i in range(n) if i not in broken], np.int32)
    zeros = np.zeros(len(photo), np.int32)
    return crop_dataset.CropDataset(
        np.zeros((len(photo), 8, 8, 3), np.uint8),
        *(zeros, photo, np.zeros((len(photo), 2), np.int32), zeros, names, tuple("abcdef"[:classes])),
        tuple(f"{names[i]}: torn: twice" for i in broken),
    )


def checked(select: dict[str, Any] | None = None, **fields: Any):
    config = build.check(config_file.get_config("test"))
    return config._replace(
        data=config.data._replace(select=select or {}), sample=config.sample._replace(**fields)
    )


def test_photos_that_could_be_read_are_known():
    assert crop_dataset.readable(crops_of(5, broken=(1, 4))).tolist() == [0, 2, 3]
    assert crop_dataset.readable(crops_of(2)).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("crops", "select", "fields", "message"),
    [
        (crops_of(1), {}, {}, "config.data has too few readable photos, 1; scores need at least 2"),
        (
            crops_of(15),
            {"hold_out": {"every": 10}},
            {},
            "every is 10, which holds out 1 of 15 .* must be at most 7",
        ),
        (
            crops_of(3),
            {"hold_out": {"every": 10}},
            {},
            "holds out 0 of 3 photos.* so leave hold_out out or add ph",
        ),
        (crops_of(20, broken=(9,)), {"hold_out": {"every": 10}}, {}, "holds out 1 of 19 photos"),
        (
            crops_of(9),
            {},
            {"exclude_classes": (0, 3)},
            r"exclude_classes is \(0, 3\); the photos have classes 0 to 2",
        ),
        (
            crops_of(9),
            {},
            {"exclude_classes": (0, 1, 2)},
            "config.sample.exclude_classes .* one must be left",
        ),
    ],
)
def test_too_few_photos_for_the_config_are_an_error(crops, select, fields, message):
    with pytest.raises(errors.ConfigError, match=message):
        photo_reader.check_data(checked(select, **fields), crops)


def test_enough_photos_pass():
    photo_reader.check_data(checked(), crops_of(2))
    photo_reader.check_data(checked({"hold_out": {"every": 10}}, exclude_classes=(0, 2)), crops_of(20))


def test_classes_without_crops_log_a_warning(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("jaxdog"), "propagate", True)
    photo_reader.check_data(checked(exclude_classes=(1, 2)), crops_of(4))
    assert not caplog.text
    photo_reader.check_data(checked(exclude_classes=(1,)), crops_of(4, classes=5))
    assert "3 of 5 classes have no crop to train on (c, d, e)" in caplog.text
    assert "--config.sample.exclude_classes='(1, 2, 3, 4)'" in caplog.text
    nothing = crop_dataset.subset(crops_of(4), np.zeros(4, bool))
    with pytest.raises(errors.ConfigError, match="config.data.select .drop. leaves no crop to train on"):
        photo_reader.check_data(checked({"drop": {"names": ("x",)}}), nothing)


def test_the_training_set_is_checked_when_it_is_read(tmp_path, monkeypatch):
    config = checked({"hold_out": {"every": 10}})
    config = config._replace(data=config.data._replace(toy_photos=15))
    with pytest.raises(errors.ConfigError, match="hold_out.every is 10, which holds out 1 of 15 photos"):
        photo_reader.PhotoReader(config, tmp_path).training_set()


def test_the_photos_of_a_run_of_an_earlier_version_may_have_moved(tmp_path):
    """Its dataset.json has no hash of the images: they are the same as far as their classes say."""
    config = checked()
    info = photo_reader.PhotoReader(config, tmp_path).describe()
    early = info._replace(source="folder-elsewhere", content="", images=())
    assert photo_reader.PhotoReader(config, tmp_path, early).source().key == info.source
    other = early._replace(class_names=("cat", *info.class_names[1:]))
    for expected in (other, early._replace(content="0" * 64)):
        with pytest.raises(errors.UserError, match="the photos are not those that the run was trained on"):
            photo_reader.PhotoReader(config, tmp_path, expected).source()
