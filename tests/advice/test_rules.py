"""Configs chosen for photos and a device."""

import pathlib

import pytest

from jaxdog import cost
from jaxdog.advice import rules
from jaxdog.config import build, library
from jaxdog.utils import errors

GPU = rules.Situation(photos=5_000, classes=6, photo_side=512, memory_gb=24.0, accelerator=True)
CPU = GPU._replace(memory_gb=8.0, accelerator=False)
DEVICES = (CPU, GPU._replace(memory_gb=4.0), GPU._replace(memory_gb=8.0), GPU)


@pytest.mark.parametrize(
    ("photos", "device", "resolution"),
    [
        (1, CPU, None),
        *(pytest.param(*row, marks=pytest.mark.long) for row in ((300, CPU, 32), (300, DEVICES[1], 256))),
        (5_000, DEVICES[2], 96),
        (50_000, GPU, 128),
        *(pytest.param(50_000, *row, marks=pytest.mark.long) for row in ((CPU, 256), (GPU, 512))),
    ],
)
def test_every_choice_is_a_valid_config(
    photos: int, device: rules.Situation, resolution: int | None, tmp_path: pathlib.Path
) -> None:
    chosen = rules.choose(device._replace(photos=photos, resolution=resolution))
    config = library.load(
        chosen.config, overrides=chosen.overrides(), data=tmp_path, resolution=chosen.resolution
    )
    experiment = build.check(config)
    cost.check_networks(experiment)
    assert experiment.system.resolution == chosen.resolution == (resolution or chosen.resolution)
    for name, value in chosen.changes.items():
        place = config
        for field in name.split("."):
            place = place[field]
        assert (place.to_dict() if hasattr(place, "to_dict") else place) == value, name
    assert experiment.train.steps % experiment.train.steps_per_execution == 0


def test_few_photos_need_more_augmentation_and_fewer_images() -> None:
    few, some, many = (rules.choose(GPU._replace(photos=n)).changes for n in (300, 8_000, 200_000))
    ends = [(x["system.augment_p.first"], x["system.augment_p.last"]) for x in (few, some, many)]
    assert ends == [(0.6, 0.6), (0.6, 0.6), (0.0, 0.0)]
    assert few["train.steps"] < some["train.steps"] < many["train.steps"]
    assert few["data.select"] == {} and "data.select" not in some


def test_devices_differ_in_width_and_resolution() -> None:
    choices = [rules.choose(device) for device in DEVICES]
    assert [x.changes.get("generator.channels", 48) for x in choices] == [8, 8, 24, 48]
    assert [x.resolution for x in choices] == [64, 64, 128, 128]
    assert "dtype" not in choices[0].changes and choices[1].changes["dtype"] == "bfloat16"
    assert choices[0].changes["train.log_every"] == 20 and "train.log_every" not in choices[1].changes


def test_the_resolution_is_at_most_that_of_the_photos() -> None:
    assert [rules.choose(GPU._replace(photo_side=n)).resolution for n in (20, 63, 64, 100, 4_000)] == [
        *(32, 32, 64, 64, 128)
    ]
    asked = rules.choose(GPU._replace(photo_side=40, resolution=96))
    assert asked.resolution == 96 and "most photos are smaller (40 px)" in asked.reasons[0]
    with pytest.raises(errors.UserError, match="100 px; choices: 32, 64, 96, 128, 256, 512"):
        rules.choose(GPU._replace(resolution=100))


def test_classes() -> None:
    assert any("3.0 photos per class are few" in why for why in rules.choose(GPU._replace(photos=18)).reasons)
    large = GPU._replace(resolution=256)
    assert rules.choose(large).changes["generator.embed_dim"] == 64
    assert "generator.embed_dim" not in rules.choose(large._replace(classes=1)).changes
    with pytest.raises(errors.UserError, match="0 photos of 6 classes"):
        rules.choose(GPU._replace(photos=0))


def test_the_command_and_the_table() -> None:
    command = rules.choose(CPU).command("my photos/")
    assert command.startswith("jaxdog train record_biggan --data 'my photos/' --resolution 64 --config.")
    assert "--config.generator.channels=8 " in command and "'--config.sample.sweep={}'" in command
    rows = rules.table().splitlines()
    assert len({row.count("|") for row in rows}) == 1 and len(rows) == 15
