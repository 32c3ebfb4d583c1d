"""Modes of the command line: config.json, final scores, and which errors keep their traceback."""

import json
import os
import pathlib
from typing import Any

import pytest

from configs import toy
from jaxdog import commands, runs, sharding
from jaxdog.cli import entry
from jaxdog.config import build, library
from jaxdog.evaluation import submission
from jaxdog.metrics.backbones import inception_weights, weight_files
from jaxdog.report import report
from jaxdog.training import checkpoint, progress, writers
from jaxdog.utils import errors, optional


def test_config_json_is_written_atomically(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, path, seen = toy.get_config("test"), tmp_path / "config.json", []

    def replace(temporary: str, target: pathlib.Path) -> None:
        seen.append(json.loads(target.read_text()) if target.exists() else None)  # at the last moment before
        pathlib.Path(temporary).rename(target)

    monkeypatch.setattr(os, "replace", replace)
    commands._save_config(config, tmp_path)
    first = json.loads(path.read_text())
    with config.unlocked():
        config.train.log_every += 1
    commands._save_config(config, tmp_path)
    assert seen == [None, first]
    assert json.loads(path.read_text())["train"]["log_every"] == first["train"]["log_every"] + 1
    assert [child.name for child in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize("measured", [{}, {"random_precision": 0.5}, {"random_mifid": None}])
def test_a_run_may_end_without_distances(
    measured: dict[str, float], tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    checked = build.check(toy.get_config("test"))
    nothing: Any = None
    run = runs.Run(checked, tmp_path, sharding.make_mesh(), nothing, build.phases(checked, 4), *4 * [nothing])
    about = {"weights_kind": "random", "weights_sha256": "0" * 64, "samples": 4, "real": 8}
    commands._save_config(toy.get_config("test"), tmp_path)
    with writers.Writer(tmp_path, step=None) as files, caplog.at_level("INFO", logger="jaxdog"):
        scores = {**about, **measured, "warnings": ()}
        runs.record_scores(run, files, 2, scores, checked.sample, final=True)
    assert "no distances requested" in caplog.text
    assert measured.items() <= writers.read_jsonl(tmp_path / "scores.jsonl")[0].items()
    assert report.write(tmp_path).is_file()


FORMS = pytest.mark.parametrize(
    "words", [["report", "x"], ["--mode=report", "--workdir=x"]], ids=["new", "old"]
)


@FORMS
def test_mistakes_of_the_user_are_one_paragraph(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise errors.ConfigError("config.x is 1, and must be 2")

    monkeypatch.setattr(commands, "run_mode", fail)
    with pytest.raises(SystemExit) as stop:
        entry.main(words)
    assert stop.value.code == 1
    assert capsys.readouterr().err == "\njaxdog: config.x is 1, and must be 2\n"


@FORMS
@pytest.mark.parametrize("error", [ValueError, RuntimeError, FileNotFoundError])
def test_other_errors_keep_their_traceback(
    words: list[str], error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in a custom model shows its location."""

    def model() -> None:
        raise error("shapes (2,) and (3,) do not broadcast")

    monkeypatch.setattr(commands, "run_mode", lambda *_, **__: model())
    with pytest.raises(error, match="do not broadcast") as raised:
        entry.main(words)
    assert raised.traceback[-1].name == "model"


@pytest.mark.parametrize(
    "error",
    [
        errors.ConfigError,
        checkpoint.CheckpointError,
        progress.TrainingError,
        progress.NotFiniteError,
        submission.SubmissionError,
        optional.MissingExtraError,
        errors.MissingFileError,
        inception_weights.DownloadError,
        weight_files.ArchiveError,
    ],
)
def test_our_errors_are_user_errors(error: type[Exception]) -> None:
    assert issubclass(error, errors.UserError)


def test_a_run_resumes_with_another_cache_and_another_spelling_of_its_folder(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toy.get_config("test")
    monkeypatch.chdir(tmp_path)
    config.data.path = "photos"
    commands._save_config(config, tmp_path)
    config.data.path, config.data.cache_dir = str(tmp_path / "photos" / "."), "elsewhere"
    config.data.workers = 3
    commands._save_config(config, tmp_path)
    config.data.path = "others"
    with pytest.raises(errors.ConfigError, match="data.path is 'others', was"):
        commands._save_config(config, tmp_path)


@pytest.mark.parametrize(("name", "which"), [("toy", "best"), ("lsgan_sn", "latest")])
def test_entries_of_2019_submit_their_last_checkpoint(
    name: str, which: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(runs, "find_step", lambda run, which: asked.append(which) or 7)
    monkeypatch.setattr(runs, "restore", lambda run, step: step)
    monkeypatch.setattr(commands.sampling_sweep, "best_option", lambda run, option, step, start: option)
    checked, nothing = build.check(library.load(f"{name}:test")), None
    run: Any = runs.Run(checked, tmp_path, sharding.make_mesh(), nothing, (), *4 * [nothing])
    assert commands._best_option(run) == (7, 7) and asked == [which]
