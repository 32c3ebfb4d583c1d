"""`jaxdog train --data photos/`: what is measured, chosen and printed."""

import logging
import pathlib
import shlex
from typing import Any

import numpy as np
import PIL.Image
import pytest

import jaxdog
from jaxdog import commands
from jaxdog.advice import own_photos
from jaxdog.cli import entry
from jaxdog.config import build, library
from jaxdog.training import loop
from jaxdog.utils import errors


@pytest.fixture
def photos(tmp_path: pathlib.Path) -> pathlib.Path:
    """Five photos of two classes, 40 to 44 px high, and a broken one."""
    for i in range(5):
        path = tmp_path / "pets" / ("cat" if i % 2 else "dog") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(np.full((40 + i, 60, 3), 20 * i, np.uint8)).save(path)
    (tmp_path / "pets" / "dog" / "broken.jpg").write_bytes(b"no image")
    return tmp_path / "pets"


def test_photos_are_examined(photos: pathlib.Path) -> None:
    found = own_photos.examine(str(photos), 96)
    assert (found.photos, found.classes, found.photo_side, found.resolution) == (6, 2, 42, 96)
    assert not found.accelerator and found.memory_gb > 0.5
    assert found.gray
    PIL.Image.new("RGB", (50, 50), (9, 10, 10)).save(photos / "cat" / "color.png")
    assert not own_photos.examine(photos, None).gray
    assert (
        own_photos.examine(photos.parent, None).classes == 2
    )  # a folder that only holds a folder is skipped


def test_train_chooses_says_why_and_trains(
    photos: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    seen = []
    monkeypatch.setattr(commands, "run_mode", lambda mode, config, workdir, **more: seen.append(config))
    monkeypatch.setattr(own_photos, "estimate", lambda config, classes: 11_000.0)
    entry.main(["train", "--data", str(photos), "--config.train.steps=4000"])
    text = capsys.readouterr().out
    assert "Training takes about 3.1 hours, estimated" in text and "It stops after" not in text
    assert "6 photos of 2 classes, short side 42 px" in text
    assert "config: record_biggan at 32 px" in text and "3.0 photos per class are few" in text
    (config,) = seen
    assert config.train.steps == 4_000 and config.data.path == str(photos)
    assert config.name == "record_biggan_pets" and build.check(config).system.resolution == 32
    command = text.split("The same config:\n")[1].strip()
    entry.main([*shlex.split(command)[1:], "--config.train.steps=4000"])
    assert seen[1] == config
    words = [
        "--config.train.max_hours=2",
        "dtype=float32",
        "--config.parallel.remat",
        "--noconfig.parallel.fsdp",
    ]
    _, text = own_photos.choose(str(photos), None, words)
    assert "It stops after 2 hours" in text and text.count("max_hours=") == 1
    assert "--config.train.max_hours=2 " in text and "--config.dtype=float32" in text
    assert "--config.parallel.remat=True" in text and "--config.parallel.fsdp=False" in text


def test_python_chooses_the_same(photos: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    seen = []
    monkeypatch.setattr(own_photos, "estimate", lambda config, classes: 11_000.0)
    monkeypatch.setattr(
        commands, "train", lambda *args: (seen.append(args), (loop.TrainResult(8, None, 1.0, "steps"), {}))[1]
    )
    monkeypatch.setattr(logging.getLogger("jaxdog"), "propagate", True)  # the command line sets it to False
    with caplog.at_level("INFO", "jaxdog"):
        run = jaxdog.train(data=photos, overrides={"train.steps": 4_000}, workdir=photos / "run")
    assert run.step == 8 and run.folder == photos / "run"
    assert seen[0][0] == own_photos.choose(str(photos), None, ["train.steps=4000"])[0]
    assert "record_biggan at 32 px" in caplog.text and "note: the photos are gray" in caplog.text
    with pytest.raises(errors.UserError, match="Give a config, photos"):
        jaxdog.train()
    with pytest.raises(errors.UserError, match=r"resolution .* is \(64, 96\), and must be an integer"):
        own_photos.choose(photos, (64, 96))  # type: ignore


def test_the_estimate_is_flops_by_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_photos, "product_flops_per_second", lambda dtype: 2e9)
    monkeypatch.setattr(own_photos.cost, "count_flops", lambda phase, side: 1e9)
    experiment = build.check(library.load("toy:test"))
    devices, steps = 4, experiment.train.steps
    assert own_photos.estimate(experiment, 10) == pytest.approx(steps * 0.5 / own_photos.EFFICIENCY / devices)


def test_the_speed_of_products() -> None:
    assert 1e7 < own_photos.product_flops_per_second("float32") < 1e16


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (30, "a minute"),
        (2_400, "40 minutes"),
        (11_000, "3.1 hours"),
        (200_000, "2.3 days"),
        (120 * 86_400, "120 days"),
    ],
)
def test_durations_are_rough(seconds: float, text: str) -> None:
    assert own_photos.duration(seconds) == text
