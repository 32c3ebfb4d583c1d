"""config.json: what is written, and which fields make another run."""

import json
import os
import pathlib

import pytest

from configs import toy
from jaxdog.config import build, library, saved, schema
from jaxdog.utils import errors


def config(*overrides: str) -> schema.Experiment:
    return build.check(library.override(toy.get_config("test"), overrides))


def test_config_json_is_written_atomically(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "config.json", []

    def replace(temporary: str, target: pathlib.Path) -> None:
        seen.append(json.loads(target.read_text()) if target.exists() else None)  # at the last moment before
        pathlib.Path(temporary).rename(target)

    monkeypatch.setattr(os, "replace", replace)
    saved.write(tmp_path, config("train.log_every=2"))
    first = json.loads(path.read_text())
    saved.write(tmp_path, config("train.log_every=4"))
    assert seen == [None, first] and first["train"]["log_every"] == 2
    assert json.loads(path.read_text())["train"]["log_every"] == 4
    assert [child.name for child in tmp_path.iterdir()] == ["config.json"]


def test_every_field_is_resolved_and_read_again(tmp_path: pathlib.Path) -> None:
    written = config("data.stored_resolution=0", "submit.resolution=0")
    saved.write(tmp_path, written)
    fields = json.loads((tmp_path / "config.json").read_text())
    assert fields["data"]["stored_resolution"] == fields["submit"]["resolution"] == 32
    assert build.check(saved.load(tmp_path)) == written


@pytest.mark.parametrize(
    "words",
    [
        ["train.steps=80", "train.max_hours=1.0", "checkpoint.every=8", "name=another"],
        ["eval.every_kimg=0", "sample.truncation=0.5", "submit.images=32", "parallel.fsdp"],
        ["data.path=elsewhere", "data.archives=x", "data.cache_dir=y", "data.workers=3", "data.classes=10"],
    ],
)
def test_lengths_outputs_and_places_may_change(words: list[str], tmp_path: pathlib.Path) -> None:
    saved.check_same(tmp_path, config(*words))  # nothing is there
    saved.write(tmp_path, config())
    saved.check_same(tmp_path, config(*words))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("seed=1", "seed is 1, was 0"),
        ("system.batch_size=16", "system.batch_size is 16, was 8"),
        ("data.toy_photos=49", "data.toy_photos is 49, was 48"),
        ("optimizer.g.learning_rate=0.5", "optimizer.g.learning_rate is 0.5, was"),
        ("init_from=other", "init_from is 'other', was ''"),
    ],
)
def test_what_is_learned_may_not_change(word: str, message: str, tmp_path: pathlib.Path) -> None:
    saved.write(tmp_path, config())
    with pytest.raises(errors.ConfigError, match=f"holds a run with another config: {message}"):
        saved.check_same(tmp_path, config(word))


def test_the_source_of_the_first_weights_may_be_elsewhere_or_spelled_differently(
    tmp_path: pathlib.Path,
) -> None:
    """Where it lies is not what was learned; that there was one, is."""
    saved.write(tmp_path, config("init_from=other"))
    saved.check_same(tmp_path, config(f"init_from={tmp_path / 'moved'}"))
    with pytest.raises(errors.ConfigError, match="init_from is '', was 'other'"):
        saved.check_same(tmp_path, config())


def test_absolute_paths_hold_from_any_folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["data.path=photos", "data.archives=~/tars", "data.cache_dir=../cache", "init_from=/runs/other"]
    words += ["eval.weights=random", "eval.nasnet_weights=nasnet.h5", "eval.dinov2_weights=published"]
    fields = library.override(toy.get_config("test"), words)
    step = {"path": "a.csv", "keep": True, "clusters": (), "labels": "class"}
    given = build.check(library.override(fields, {"data.select": {"from_csv": step}}))
    found = saved.absolute(given)
    data = given.data._replace(
        path=f"{tmp_path}/photos",
        select=given.data.select | {"from_csv": step | {"path": f"{tmp_path}/a.csv"}},
    )
    assert found == given._replace(
        data=data, eval=given.eval._replace(nasnet_weights=f"{tmp_path}/nasnet.h5")
    )
    assert saved.absolute(found) == found


def test_a_table_of_crops_may_be_elsewhere(tmp_path: pathlib.Path) -> None:
    """The crops that it selects are compared."""
    fields = toy.get_config("test")
    step = {"path": "a.csv", "keep": True, "clusters": (), "labels": "class"}
    tables = [
        library.override(fields, {"data.select": {"from_csv": step | {"path": x}}})
        for x in ("a.csv", "b.csv")
    ]
    saved.write(tmp_path, build.check(tables[0]))
    saved.check_same(tmp_path, build.check(tables[1]))


def test_a_run_of_an_earlier_version_gets_defaults_for_later_fields(tmp_path: pathlib.Path) -> None:
    written = build.check(toy.get_config("test"))
    fields = saved.to_json(written)
    del fields["system"]["g_step_groups"], fields["submit"]["checkpoint"]
    (tmp_path / saved.NAME).write_text(json.dumps(fields))
    assert build.check(saved.load(tmp_path)) == written
    saved.check_same(tmp_path, written)
    del fields["system"]["batch_size"]
    (tmp_path / saved.NAME).write_text(json.dumps(fields))
    with pytest.raises(errors.ConfigError, match="config.system.batch_size is missing"):
        saved.load(tmp_path)
