"""A run's folder: what is kept there, and what other processes of the run read of it meanwhile."""

import json
import pathlib
from typing import Any

import pytest

from configs import toy
from jaxdog import commands, runs, sharding
from jaxdog.config import build
from jaxdog.data import tables
from jaxdog.report import report
from jaxdog.training import writers


def test_a_config_is_whole_whenever_another_process_reads_it(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, path, seen = toy.get_config("test"), tmp_path / "config.json", []

    def replace(temporary: str, target: pathlib.Path) -> None:
        seen.append(json.loads(target.read_text()) if target.exists() else None)  # at the last moment before
        pathlib.Path(temporary).rename(target)

    monkeypatch.setattr(tables.os, "replace", replace)
    commands._same_experiment(config, tmp_path)
    first = json.loads(path.read_text())
    with config.unlocked():
        config.train.log_every += 1
    commands._same_experiment(config, tmp_path)
    assert seen == [None, first]
    assert json.loads(path.read_text())["train"]["log_every"] == first["train"]["log_every"] + 1
    assert [child.name for child in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize("measured", [{}, {"rprecision": 0.5}])
def test_pictures_of_which_no_distance_is_asked_for_end_a_run_well(
    measured: dict[str, float], tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    checked = build.check(toy.get_config("test"))
    nothing: Any = None
    made = runs.Job(
        checked, tmp_path, sharding.mesh(), nothing, build.phases(checked, 4), nothing, nothing, nothing
    )
    about = {"weights_kind": "random", "weights_sha256": "0" * 64, "samples": 4, "real": 8}
    commands._same_experiment(toy.get_config("test"), tmp_path)
    with writers.Writer(tmp_path, step=None) as files, caplog.at_level("INFO", logger="jaxdog"):
        runs.record(made, files, 2, {**about, **measured, "warnings": ()}, final=True)
    assert "no distances asked for" in caplog.text
    assert measured.items() <= writers.read_jsonl(tmp_path / "scores.jsonl")[0].items()
    assert report.write(tmp_path).is_file()
