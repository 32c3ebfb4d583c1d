"""The memorizers' configs: what they show after training, their warnings, their errors."""

import logging
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxdog import commands, runs, sharding
from jaxdog.config import build, library, saved, schema
from jaxdog.data import batches, crop_dataset, crop_recipes_2019
from jaxdog.memorizers import baselines
from jaxdog.report import report
from jaxdog.systems import sampling
from jaxdog.training import train_step

KEY = jax.random.key(0)


def config(name: str, fields: Mapping[str, Any] | None = None) -> ConfigDict:
    """The test variant of a config with some fields ("section.field") changed."""
    given = library.load(name, "test")
    given.update_from_flattened_dict(fields or {})
    return given


def train(checked: schema.Experiment) -> tuple[crop_dataset.CropDataset, np.ndarray]:
    """The images that an experiment memorizes, and its samples after training."""
    crops = crop_dataset.load(build.source(checked.data), build.recipe(checked.data), "", None)
    crops = build.select_crops(checked.data)(crops)
    mesh, n, state, shown = sharding.make_mesh(), len(crops.image), None, np.zeros(0)
    data = sharding.put(batches.make_data(crops.image, crops.label), sharding.replicated(mesh))
    for phase in build.phases(checked, n):
        functions = train_step.CompiledPhase(phase, checked.seed, 10, mesh)
        state = functions.init(data) if state is None else train_step.transition(phase, state, mesh)
        for _ in range(phase.steps // 10):
            state, _ = functions.train_steps(state, data, 0.0)
        shown = np.asarray(functions.sample_grid(state, sampling.labels(n, n, checked.sample.labels, KEY)))
    return crops, shown


@pytest.mark.long
def test_samples_after_training_are_the_training_images():
    fields = {
        "data.toy_photos": 70,
        "submit.resolution": 16,
        "data.stored_resolution": 16,
        "data.select.own_class.count": 64,
        "system.resolution": 16,
        "system.batch_size": 16,
        "system.discriminator_steps": 200,
        "optimizer.d.interval": 20,
        "optimizer.g.interval": 20,
        "train.steps": 400,
    }
    checked = build.check(config("memorizer", fields))
    crops, shown = train(checked)
    # The config draws photos as `baselines` does: with seed 57, over sorted file names.
    expected = baselines.memorizer(build.source(checked.data), "corner", 64, 16).image
    np.testing.assert_array_equal(crops.image, expected)
    error = np.abs(shown.astype(int) - expected)
    assert error.mean() < 1.5, error.mean()
    others = np.abs(shown[:, None].astype(int) - expected[None]).mean((2, 3, 4))
    assert np.array_equal(others.argmin(1), np.arange(64))


def test_samples_of_an_imitation_are_the_photos():
    fields = {"data.select.own_class.count": 20, "train.steps": 10}
    checked = build.check(config("imitation", fields))
    crops, shown = train(checked)
    assert len(set(crops.photo.tolist())) == 20
    assert np.abs(shown.astype(int) - crops.image).max() <= 1


def test_crops_of_the_supervised_network_are_those_of_its_recipes():
    source = build.source(build.check(config("supervised")).data)
    photo = source.photos[0].read()
    both = crop_recipes_2019.upper_middle_and_center(photo, size=32)
    for kept, recipe, crop_type in zip(both, baselines.MEMORIZERS["upper-middle"][1:], (0, 1), strict=True):
        np.testing.assert_array_equal(kept.image, recipe(photo, size=32)[0].image)
        assert kept.crop_type == crop_type and kept.original_size == (32, 32)


# Warnings ---------------------------------------------------------------------------------------------------


@pytest.fixture
def log_lines():
    """Messages logged by jaxdog."""
    lines: list[str] = []
    log = logging.getLogger("jaxdog")
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    log.addHandler(handler)
    yield lines
    log.removeHandler(handler)


@pytest.mark.parametrize(
    ("name", "cheat"),
    [
        ("memorizer", True),
        ("dog_memorizer", True),
        ("supervised", True),
        ("imitation", True),
        ("biggan", False),
    ],
)
def test_a_warning_is_logged_at_the_start(name, cheat, log_lines, tmp_path, monkeypatch):
    monkeypatch.setattr(commands.cost, "print_costs", lambda experiment: None)
    commands.run_mode(
        "train", config(name, {"data.cache_dir": str(tmp_path)}), str(tmp_path / "run"), dry_run=True
    )
    assert any(baselines.WARNING in line for line in log_lines) == cheat


def test_a_dry_run_knows_the_number_of_images(tmp_path, capsys):
    commands.run_mode(
        "train", config("memorizer", {"data.cache_dir": str(tmp_path)}), str(tmp_path / "run"), dry_run=True
    )
    count = 24 * 3 * 32**2 + 3 * 32**2
    assert capsys.readouterr().out.count(f"net: {count:,} parameters") == 2


class Lines:
    """Stands in for a Writer."""

    def __init__(self):
        self.rows: list[dict] = []

    def scores(self, step: int, row: dict) -> None:
        self.rows.append(row)


@pytest.mark.parametrize(("name", "cheat"), [("imitation", True), ("biggan", False)])
def test_scores_and_report_have_a_warning(name, cheat, tmp_path):
    checked = build.check(config(name))
    scored = {
        "weights_kind": "random",
        "samples": 4,
        "warnings": (),
        "random_fid768": 1.0,
        "random_fid2048": 2.0,
    }
    scored |= {"random_mifid": 3.0, "copies": {
        "verdict": "copies", "reasons": [], "copied_share": 1.0, "copied_share_of_real": 0.0,
    }}  # fmt: skip
    nothing: Any = None
    run = runs.Run(checked, tmp_path, sharding.make_mesh(), nothing, build.phases(checked, 4), *4 * [nothing])
    writer = Lines()
    runs.record_scores(run, writer, 2, scored, checked.sample, final=True)  # pyright: ignore[reportArgumentType]
    assert writer.rows[0].get("cheat", False) == cheat
    saved.write(tmp_path, build.check(config(name)))
    with commands.writers.Writer(tmp_path, step=None) as files:
        runs.record_scores(run, files, 2, scored, checked.sample, final=True)
    page = report.write(tmp_path).read_text()
    assert page.count(baselines.WARNING) == (2 if cheat else 0)
    assert f"Copies.</b>{' ' + baselines.WARNING if cheat else ''}" in page


# Errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "path", "value", "message"),
    [
        (
            "memorizer",
            "system.discriminator_steps",
            180,
            r"config.system.discriminator_steps is 180, and must lie in \[0, .* = 180\)",
        ),
        ("memorizer", "system.blend_weight", 1.5, r"blend_weight is 1.5, and must lie in \[0, 1\]"),
        ("imitation", "system.blend_weight", -1.0, r"blend_weight is -1.0, and must lie in \[0, 1\]"),
        ("memorizer", "ema.decay", 0.9, "config.ema.decay is 0.9; a memorizer has none"),
        ("memorizer", "sample.truncation", 0.5, "config.sample.truncation is 0.5; a memorizer has none"),
        (
            "memorizer",
            "data.stored_resolution",
            64,
            r"config.submit.resolution are \[32, 64\]; a memorizer learns the crops",
        ),
        (
            "memorizer",
            "generator.name",
            "biggan",
            "config.generator.name is 'biggan'; choices: bottleneck, table",
        ),
        (
            "memorizer",
            "optimizer.d.thresholds",
            (),
            r"thresholds are \[\], and must be decreasing and one fewer than rates \[0.5, 0.1\]",
        ),
        (
            "memorizer",
            "optimizer.g.thresholds",
            (1.0, 2.0),
            r"thresholds are \[1.0, 2.0\], and must be decreasing",
        ),
        ("memorizer", "optimizer.g.interval", 0, "interval is 0 epochs, and must be at least 1"),
        ("memorizer", "data.select.own_class.seeds", 0, "config.data.select.own_class.seeds is not a field"),
        (
            "memorizer",
            "data.select.cluster",
            {},
            "config.data.select.cluster is not a field of .*; fields: drop, from_csv, hold_out, own_class",
        ),
        ("memorizer", "eval.final", ("per_class",), "eval.final has per_class, .* each image is a class"),
        (
            "memorizer",
            "augment.flip",
            {"p": 0.5},
            "config.augment.flip is not a field: this system has no augment",
        ),
        (
            "supervised",
            "discriminator.name",
            "table",
            "config.discriminator.name is not a field: this system has no",
        ),
        (
            "supervised",
            "optimizer.d",
            dict(
                adam=dict(b1=0.9, b2=0.999, eps=1e-7), rates=(0.5,), thresholds=(), interval=1, doubling=False
            ),
            "config.optimizer.d is not a field of config.optimizer; fields: g",
        ),
        (
            "imitation",
            "generator.name",
            "table",
            "config.generator.name is not a field: this system has no generator",
        ),
    ],
)
def test_errors_name_the_wrong_field(name, path, value, message):
    wrong = config(name)
    with wrong.unlocked():
        *names, field = path.split(".")
        section: Any = wrong
        for part in names:
            section = section[part]
        if field in section:
            del section[field]
        section[field] = value
    with pytest.raises(ValueError, match=message):
        build.check(wrong)
