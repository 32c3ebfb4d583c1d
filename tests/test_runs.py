"""Runs: what the folder keeps of the photos, checkpoints by score, age or step."""

import math
import pathlib
import types
from typing import Any

import pytest

from configs import toy as config_file
from jaxdog import runs
from jaxdog.config import build, photo_reader, saved, schema
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


def test_dataset_json_keeps_the_held_out_rows_of_the_same_photos(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    runs.save_dataset(run_in(tmp_path))
    assert runs.load_dataset(tmp_path) == INFO
    dataset_info.write(tmp_path, INFO._replace(held_out=(3,)), "1.0")
    runs.save_dataset(run_in(tmp_path))
    assert runs.load_dataset(tmp_path) == INFO._replace(held_out=(3,)) and not caplog.text
    changed = INFO._replace(source="folder-2")
    runs.save_dataset(run_in(tmp_path, dataset=changed))
    assert runs.load_dataset(tmp_path) == changed and "The photos have changed" in caplog.text


@pytest.mark.parametrize("changes", [{"class_names": ("x", "z")}, {"image_shape": (16, 16, 3)}])
def test_a_folder_with_other_classes_is_refused(tmp_path: pathlib.Path, changes: dict[str, Any]) -> None:
    dataset_info.write(tmp_path, INFO._replace(**changes), "1.0")
    with pytest.raises(
        errors.ConfigError, match="holds a run with other photos: 2 classes .* another --workdir"
    ):
        runs.save_dataset(run_in(tmp_path))
    assert runs.load_dataset(tmp_path) == INFO._replace(**changes)


@pytest.mark.parametrize("content", [b"", b'{"format": 1', b"\xff\x00"])
def test_a_damaged_dataset_json_is_written_again(
    tmp_path: pathlib.Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / dataset_info.NAME).write_bytes(content)
    with caplog.at_level("WARNING", logger="jaxdog"):
        assert runs.load_dataset(tmp_path) is None
        assert "dataset.json cannot be read" in caplog.text and "writes it again" in caplog.text
        runs.save_dataset(run_in(tmp_path))
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
    reader = photo_reader.PhotoReader(given, tmp_path, expected="folder-2")
    assert reader.source() is source and reader.source() is source and asked == [False]
    with pytest.raises(
        errors.UserError, match="not those that the run was trained on: folder-2, not folder-1"
    ):
        photo_reader.PhotoReader(given, tmp_path, expected="folder-1").source()
    assert photo_reader.PhotoReader(given, tmp_path).source() is source and asked[-1]


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
