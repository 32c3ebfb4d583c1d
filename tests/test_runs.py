"""Runs: what the folder keeps of the photos, checkpoints by score, age or step."""

import json
import math
import os
import pathlib
import shutil
import types
from typing import Any

import numpy as np
import PIL.Image
import pytest

from configs import toy as config_file
from jaxdog import runs
from jaxdog.config import build, library, photo_reader, saved, schema
from jaxdog.data import dataset_info, photos, sources
from jaxdog.metrics import features
from jaxdog.report import compare, report
from jaxdog.training import warm_start
from jaxdog.utils import errors

INFO = dataset_info.DatasetInfo(("x", "y"), (2, 2), 4, 4, "folder-1", "squash", (32, 32, 3))


def run_in(folder: pathlib.Path, **fields: Any) -> runs.Run:
    checked, nothing = build.check(config_file.get_config("test")), None
    values = {"config": checked, "folder": folder, "dataset": INFO, **fields}
    return runs.Run(**{**dict.fromkeys(runs.Run._fields, nothing), **values})  # pyright: ignore


# ------------------------------------------------------------------ the same run?


def make(folder: pathlib.Path, data: pathlib.Path, *words: str) -> runs.Run:
    """A run that would train on the photos in `data`."""
    cache = folder.parent / f"cache_of_{data.name}"
    overrides = [f"data.cache_dir={cache}", "data.select={}", *words]
    config = library.load("toy:test", overrides=overrides, data=data)
    return runs.make(build.check(config), folder, cache, training=True, scoring=False)


def start(folder: pathlib.Path, data: pathlib.Path, checkpoint: bool = True) -> runs.Run:
    """A run that has started, and, to all appearances, has a checkpoint."""
    run = runs.start(make(folder, data))
    run.checkpoints.close()
    if checkpoint:
        (folder / "checkpoints" / "2").mkdir(exist_ok=True)
    return run


@pytest.fixture
def data(tmp_path: pathlib.Path) -> pathlib.Path:
    """Three photos of each of two classes."""
    for i in range(6):
        path = tmp_path / "photos" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (40, 40), (40 * i, 0, 0)).save(path)
    return tmp_path / "photos"


def test_nothing_is_written_before_a_run_starts(tmp_path: pathlib.Path, data: pathlib.Path) -> None:
    run = make(tmp_path / "run", data)
    assert not (tmp_path / "run").exists()
    runs.start(run).checkpoints.close()
    assert {"config.json", "dataset.json", "checkpoints"} == {x.name for x in (tmp_path / "run").iterdir()}
    assert json.loads((tmp_path / "run" / "config.json").read_text())["data"]["classes"] == 2


def test_config_json_can_be_read_from_another_folder(
    tmp_path: pathlib.Path, data: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = make(tmp_path / "run", data, "data.cache_dir=cache_of_photos", "eval.nasnet_weights=w.h5")
    runs.start(run).checkpoints.close()
    config = saved.load(tmp_path / "run")
    assert config.data.cache_dir == "cache_of_photos"  # which may be anywhere
    assert config.eval.nasnet_weights == f"{tmp_path}/w.h5" and config.eval.weights == run.config.eval.weights
    saved.check_same(tmp_path / "run", run.config)


def test_a_run_that_cannot_have_checkpoints_writes_nothing(
    tmp_path: pathlib.Path, data: pathlib.Path
) -> None:
    run = make(tmp_path / "run", data)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").symlink_to(tmp_path / "gone" / "disk")
    with pytest.raises((OSError, ValueError)):
        runs.start(run)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoints"]


def test_a_run_is_bound_to_its_config_once_it_has_a_checkpoint(
    tmp_path: pathlib.Path, data: pathlib.Path
) -> None:
    folder = tmp_path / "run"
    start(folder, data, checkpoint=False)
    shutil.move(data / "b" / "1.png", data / "a")
    assert make(folder, data, "seed=1").dataset.class_counts == (4, 2)
    start(folder, data)
    with pytest.raises(errors.ConfigError, match="holds a run with another config: seed is 1, was 0"):
        make(folder, data, "seed=1")
    with pytest.raises(errors.ConfigError, match="another config: .*seed is 1"):  # no other command, either
        config = library.load("toy:test", overrides=["seed=1"], data=data)
        runs.make(build.check(config), folder, tmp_path / "cache", training=False, scoring=False)


def test_photos_may_be_moved_copied_and_renamed(tmp_path: pathlib.Path, data: pathlib.Path) -> None:
    """Where they are, when they were written and what they are called is not learned."""
    old = start(tmp_path / "run", data)
    copy = tmp_path / "elsewhere"
    shutil.copytree(data, copy)
    for i, path in enumerate(sorted(copy.rglob("*.png"))):
        os.utime(path, (i, i))
        path.rename(path.with_name(f"photo_{i}.png"))
    shutil.rmtree(data)
    new = make(tmp_path / "run", copy)
    assert new.dataset == old.dataset
    start(tmp_path / "run", copy)
    reader = photo_reader.PhotoReader(new.config, tmp_path / "cache", new.dataset)
    assert reader.source().key != new.dataset.source and reader.training_set().class_names == ("a", "b")


def test_other_photos_are_another_run(tmp_path: pathlib.Path, data: pathlib.Path) -> None:
    folder = tmp_path / "run"
    run = start(folder, data)
    (data / "a").rename(data / "z")
    with pytest.raises(errors.ConfigError, match="class 'a' is now called 'z'; the order of the classes"):
        make(folder, data)
    with pytest.raises(
        errors.UserError, match="not those that the run was trained on: class 'a' is now called"
    ):
        photo_reader.PhotoReader(run.config, tmp_path / "cache", run.dataset).training_set()
    (data / "z").rename(data / "a")
    (data / "c").mkdir()
    PIL.Image.new("RGB", (40, 40)).save(data / "c" / "9.png")
    with pytest.raises(errors.ConfigError, match="class 'c', 1 image, is new. .*restore them. "):
        make(folder, data)


@pytest.mark.parametrize("content", [b"", b'{"format": 1', b"\xff\x00"])
def test_a_damaged_dataset_json_is_written_again(
    tmp_path: pathlib.Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / dataset_info.NAME).write_bytes(content)
    with caplog.at_level("WARNING", logger="jaxdog"):
        assert runs.load_dataset(tmp_path) is None
        assert "dataset.json cannot be read" in caplog.text and "writes it again" in caplog.text
        runs.start(run_in(tmp_path)).checkpoints.close()
    assert runs.load_dataset(tmp_path) == INFO


@pytest.mark.parametrize("name", ["config.json", "sweep.json"])
@pytest.mark.parametrize("content", [b"", b'{"eval"', b"\xff\x00"])
def test_a_damaged_file_of_a_run_is_named_with_what_to_do(
    tmp_path: pathlib.Path, name: str, content: bytes
) -> None:
    (tmp_path / "log.jsonl").write_text("")
    (tmp_path / name).write_bytes(content)
    readers = [report.write] + [saved.load, warm_start.load, lambda folder: compare.read(folder, "x")] * (
        name == "config.json"
    )
    for read in readers:
        with pytest.raises(errors.UserError, match=f"{name} is damaged: .*. Delete it"):
            read(tmp_path)


class Checkpoints:
    """Steps 10 and 20, the first of which is better."""

    folder = pathlib.Path("run/checkpoints")

    def __init__(self, *steps: int):
        self.steps = lambda: list(steps)

    def best(self) -> int:
        return 10

    def latest(self) -> int:
        return 20


def test_checkpoints_are_found_by_score_age_or_step() -> None:
    run = run_in(pathlib.Path(), checkpoints=Checkpoints(10, 20))
    assert [runs.find_step(run, which) for which in ("best", "latest", 20)] == [10, 20, 20]
    for which in (15, "newest", True):
        with pytest.raises(errors.MissingFileError, match="it has 'best', 'latest' and 10, 20"):
            runs.find_step(run, which)  # pyright: ignore[reportArgumentType]
    with pytest.raises(errors.MissingFileError, match="holds no checkpoint: nothing has been trained"):
        runs.find_step(run_in(pathlib.Path(), checkpoints=Checkpoints()))


def test_only_the_photos_of_the_training_are_read_again(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = build.check(config_file.get_config("test"))
    source = photos.Source("folder-2", tuple("abcdefghij"), [])
    asked = []
    monkeypatch.setitem(build.SOURCES, "toy", lambda data, prepare: asked.append(prepare) or source)
    reader = photo_reader.PhotoReader(given, tmp_path, expected=INFO._replace(source="folder-2"))
    assert reader.source() is source and reader.source() is source and asked == [False]
    assert photo_reader.PhotoReader(given, tmp_path).source() is source and asked[-1]
    with pytest.raises(errors.UserError, match="has no photos"):  # which is why they are read
        runs.make(given, tmp_path / "without_dataset_json", tmp_path, training=False, scoring=False)
    assert not asked[-1]


def test_stanford_dogs_are_downloaded_for_training_only(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Builder:
        data_path = tmp_path / "stanford_dogs"

    monkeypatch.setattr(sources.optional, "load", lambda *_: None)
    monkeypatch.setattr(sources, "_tfds_builder", lambda _: Builder)
    monkeypatch.setattr(sources, "_prepare", lambda *_: pytest.fail("a download"))
    data = schema.Data(crop={}, select={}, source="tfds")
    with pytest.raises(errors.MissingFileError, match="stanford_dogs does not exist"):
        build.source(data, prepare=False)


def test_every_network_scores_the_images_of_an_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line; Inception's score is the one that counts."""
    checked = build.check(config_file.get_config("test"))
    checked = checked._replace(eval=checked.eval._replace(networks=("inception", "nasnet"), best="fid768"))
    asked, written = [], []

    def evaluator(network: str = "inception") -> Any:
        names = {"inception": {"fid768": 1.0}, "nasnet": {"fid_nasnet": 2.0, "mifid_nasnet": 3.0}}[network]
        line = {**names, "memorization_distance": 0.5, "network": network, "weights_kind": "published"}
        line |= {"warnings": (), "evaluation_seconds": 1.0}

        def score_system(*arguments: Any, batch_size: int) -> dict[str, Any]:
            asked.append((*arguments, batch_size))
            return line

        return types.SimpleNamespace(score_system=score_system)

    run = run_in(pathlib.Path(), evaluator=evaluator)._replace(config=checked)
    monkeypatch.setattr(runs, "record_scores", lambda *x, **_: written.append(x[3]))
    monkeypatch.setattr(runs, "labels", lambda *_: np.zeros(2))
    monkeypatch.setattr(runs, "batch_size", lambda *_: 7)
    phase: Any = types.SimpleNamespace(system="a system")
    assert runs._evaluate(run, None, phase, "state", 4) == 1.0  # pyright: ignore[reportArgumentType]
    assert len(asked) == 2 and asked[0][:2] == ("a system", "state")
    assert all(a is b for a, b in zip(*asked, strict=True))  # the same images
    assert written[0]["fid_nasnet"] == 2.0 and written[0]["evaluation_seconds"] == 2.0


def test_an_undefined_score_is_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = build.check(config_file.get_config("test"))
    name = features.metric_names("random")._asdict()[checked.eval.best]
    scores = {"weights_kind": "random", name: None}
    evaluator = types.SimpleNamespace(score_system=lambda *_, **__: scores)
    run = run_in(pathlib.Path(), evaluator=lambda: evaluator)
    for skipped in ("record_scores", "labels", "batch_size"):
        monkeypatch.setattr(runs, skipped, lambda *_, **__: None)
    phase: Any = types.SimpleNamespace(system=None)
    assert math.isnan(runs._evaluate(run, None, phase, None, 4))  # pyright: ignore[reportArgumentType]
