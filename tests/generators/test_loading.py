"""Checkpoints as generators: statistics and collapsed classes are fixed, and exported with the rest."""

import pathlib
from typing import Any

import jax
import numpy as np
import pytest

from jaxdog import runs, sharding
from jaxdog.config import build
from jaxdog.data import dataset_info
from jaxdog.generators import generator, loading
from jaxdog.systems import sampling
from jaxdog.training import writers
from tests.generators import fresh

NAMES = ("x", "y", "z")
FIXED = {
    "batch_stats": "running",
    "labels": "uniform",
    "sweep": {},
    "batch_size": 0,
    "num_standing_images": 0,
}


@pytest.fixture(scope="module")
def made() -> generator.Generator:
    """Of a config that samples with the statistics of 4 images and skips collapsed classes."""
    changes = {"sample.batch_stats": "batch", "sample.batch_size": 4, "sample.labels": "skip_collapsed"}
    return fresh.generator("dragan", NAMES, {**changes, "sample.exclude_classes": (2,)})


def load(folder: pathlib.Path, made: generator.Generator) -> generator.Generator:
    """The checkpoint of step 8 of a run in `folder`."""
    info = dataset_info.DatasetInfo(NAMES, (1, 1, 1), 3, 3, "source", "recipe", (32, 32, 3))
    phases = build.phases(made.config, len(NAMES))
    fields: dict[str, Any] = {"config": made.config, "folder": folder, "mesh": sharding.make_mesh()}
    fields |= {"dataset": info, "phases": phases}
    run = runs.Run(**{**dict.fromkeys(runs.Run._fields, None), **fields})  # pyright: ignore
    option = runs.SamplingOption(made.config.sample, phases[0], made.state)
    return generator.Generator(*loading._with_fixed_statistics(run, option, 8))


@pytest.mark.long
def test_batch_statistics_become_fixed_ones(
    made: generator.Generator, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With them an image would depend on the others of its batch."""
    monkeypatch.setattr(sampling, "diversity", lambda image: jax.numpy.zeros(len(image)) + 10.0)
    g = load(tmp_path, made)
    assert {name: getattr(g.config.sample, name) for name in FIXED} == FIXED
    assert g.config.sample.exclude_classes == (2,) and g.system.prepare is None
    assert "statistics of 4 images" in g.notes[0] and "those of 1,000 images" in g.notes[0]
    images = g.sample(6, seed=1)
    np.testing.assert_array_equal(images[:2], g.sample(2, seed=1))
    assert set(g._labels(50, None, 1).tolist()) == {0, 1}
    again = generator.Generator.from_pretrained(g.save_pretrained(tmp_path / "export"))
    np.testing.assert_array_equal(again.sample(6, seed=1), images)
    assert again.notes == g.notes and g.notes[0] in (tmp_path / "export" / "README.md").read_text()


def test_collapsed_classes_are_left_out(
    made: generator.Generator, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading.runs.generation, "collapsed_classes", lambda *_: (0,))
    assert load(tmp_path, made).config.sample.exclude_classes == (2, 0)


def test_scores_are_the_final_ones_of_the_checkpoint(tmp_path: pathlib.Path) -> None:
    assert loading._scores(tmp_path, 8) == {}
    with writers.Writer(tmp_path, step=None) as writer:
        for step, value, final in ((4, 9.0, True), (8, 7.0, False), (8, 6.0, True), (8, 5.0, False)):
            writer.scores(step, {"fid2048": value, "final": final, "sampling": {}, "per_class": {}})
    assert loading._scores(tmp_path, 8) == {"step": 8, "fid2048": 6.0, "final": True}
    assert loading._scores(tmp_path, 12) == {}
