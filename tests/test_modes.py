"""A run's folder: what is kept there, and what other processes of the run read of it meanwhile."""

import json
import pathlib

import pytest

from configs import toy
from jaxdog import modes
from jaxdog.data import tables


def test_a_config_is_whole_whenever_another_process_reads_it(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, path, seen = toy.get_config("test"), tmp_path / "config.json", []

    def replace(temporary: str, target: pathlib.Path) -> None:
        seen.append(json.loads(target.read_text()) if target.exists() else None)  # at the last moment before
        pathlib.Path(temporary).rename(target)

    monkeypatch.setattr(tables.os, "replace", replace)
    modes._same_experiment(config, tmp_path)
    first = json.loads(path.read_text())
    with config.unlocked():
        config.train.log_every += 1
    modes._same_experiment(config, tmp_path)
    assert seen == [None, first]
    assert json.loads(path.read_text())["train"]["log_every"] == first["train"]["log_every"] + 1
    assert [child.name for child in tmp_path.iterdir()] == ["config.json"]
