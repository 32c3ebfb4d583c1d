"""Config files state what defines an experiment; the rest of the config follows."""

import json
import pathlib
from typing import Any

import pytest

from jaxdog.config import build, derive, experiment, library, load_sibling, schema, sections, smoke_test
from jaxdog.metrics import metric_table
from jaxdog.systems import gan_spec, sampling, vae
from jaxdog.utils import errors
from tests.subprocesses import ROOT

BIGGAN = ROOT / "configs" / "biggan.py"


def lean(**changes: Any) -> dict[str, Any]:
    """The fields that a small GAN must state."""
    adam = {"name": "adam", "learning_rate": 1e-4, "b1": 0.0, "b2": 0.9}
    return {
        "name": "lean",
        "data": {"crop": {"name": "squash"}},
        "generator": {"name": "biggan", "channels": 4, "shared_dim": 8},
        "discriminator": {"name": "biggan", "channels": 4},
        "system": {
            "name": "gan",
            "resolution": 64,
            "batch_size": 8,
            "latent_dim": 20,
            "loss": {"name": "hinge"},
        },
        "optimizer": {"g": adam, "d": adam},
        "train": {"steps": 10},
        "eval": {"every_kimg": 0},
        **changes,
    }


def test_a_lean_config_becomes_a_whole_one() -> None:
    config = experiment(**lean())
    assert set(config) == set(schema.Experiment._fields)
    assert config.train.log_every == 100 and config.generator.slope == 0.2 and config.system.num_d_steps == 1
    assert config.optimizer.g.schedule.to_dict() == {"name": "constant"}
    assert config.system.augment_p.to_dict() == {"name": "fixed", "p": 1.0}
    assert isinstance(config.eval.every_kimg, float)  # so that a flag may set 0.5
    build.check(config)


def test_what_is_checked_can_be_read_back() -> None:
    """config.json of a run is whole, and making it whole again changes nothing."""
    for name in library.names():
        config = library.load(name)
        assert experiment(**config.to_dict()) == config
        json.loads(config.to_json_best_effort())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trian": {}}, "config.trian is not a field of config; did you mean train. fields: augment"),
        (
            {"train": {"stepz": 3}},
            "config.train.stepz is not a field of config.train; did you mean steps.",
        ),
        ({"train": {}}, "config.train.steps is missing; config.train needs: grid_every"),
        ({"train": {"steps": 2.5}}, r"config.train.steps is 2.5 \(float\), and must be of type int"),
        ({"train": 5}, "config.train is 5, and must be a section"),
        ({"generator": {"name": "biggan"}}, "config.generator.channels is missing; config.generator needs"),
        ({"generator": {}}, "config.generator.name is missing; choices: biggan"),
        ({"system": {}}, "config.system.name is ''; choices: flow, gan"),
        ({"system": {"name": "gan"}}, "config.system.batch_size is missing"),
        ({"optimizer": {}}, "config.optimizer.d is missing; config.optimizer needs: d, g"),
        (
            {"augment": {"spin": {}}},
            "config.augment.spin is not a field of config.augment; fields: color_jitter",
        ),
        (
            {"eval": {"every_kimg": 0.0, "final": ("isc", "fvd")}},
            "config.eval.final is 'fvd'; choices: copies",
        ),
    ],
)
def test_a_wrong_field_is_named_when_the_file_is_read(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.ConfigError, match=message):
        experiment(**lean(**changes))


def test_every_required_field_is_asked_for() -> None:
    for name in lean():
        fields = {field: value for field, value in lean().items() if field != name}
        with pytest.raises(errors.ConfigError, match=f"config.{name}"):
            experiment(**fields)


# ------------------------------------------------------------------ resolutions


def test_resolutions_follow_the_system() -> None:
    config = build.check(experiment(**lean()))
    assert config.system.resolution == config.data.stored_resolution == config.submit.resolution == 64


def test_resolutions_can_be_set() -> None:
    given = lean(
        data={"crop": {"name": "squash"}, "stored_resolution": 80},
        augment={"random_square": {}},
        sample={"postprocess": {"resize": {}}},
        submit={"resolution": 32},
    )
    config = build.check(experiment(**given))
    assert (config.data.stored_resolution, config.system.resolution, config.submit.resolution) == (80, 64, 32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data": {"crop": {"name": "squash"}, "stored_resolution": 80}},
            "config.data.stored_resolution = 80 come out of config.augment at 80x80, but "
            "config.system.resolution is 64",
        ),
        (
            {"submit": {"resolution": 32}},
            "config.system.resolution = 64 come out of config.sample.postprocess at 64x64, but "
            "config.submit.resolution is 32",
        ),
    ],
)
def test_resolutions_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.ConfigError, match=message):
        build.check(experiment(**lean(**changes)))


def test_a_progressive_system_has_its_last_resolution() -> None:
    config = build.check(library.load("progan"))
    assert config.system.resolutions[-1] == config.system.resolution == config.submit.resolution == 64


# ------------------------------------------------------------------ deriving, smoke tests


def test_a_derived_config_differs_in_what_it_states() -> None:
    parent = experiment(**lean())
    child = derive(parent, name="child", system={"loss": {"name": "least_squares"}, "split_d": True})
    assert child.system.loss.to_dict()["real_target"] == 1.0  # a new name replaces the section
    assert child.system.split_d and child.system.latent_dim == 20  # others are merged
    changed = {"name", "system"}
    assert {name for name in parent if parent[name] != child[name]} == changed
    assert parent.name == "lean" and parent.system.loss.name == "hinge"


def test_none_removes_a_row() -> None:
    parent = experiment(**lean(augment={"flip": {}, "uniform_noise": {"scale": 0.1}}))
    assert list(derive(parent, augment={"flip": None}).augment) == ["uniform_noise"]


def test_a_sibling_is_found_from_anywhere(monkeypatch: Any, tmp_path: pathlib.Path) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_sibling(str(BIGGAN), "multi_hinge", "test")
    assert config.name == "multi_hinge" and config.discriminator.class_head == "multi_hinge"


def test_a_smoke_test_shrinks_fields_wherever_they_are() -> None:
    config = experiment(**lean(ema={"decay": 0.9, "start": 500}))
    small = smoke_test(config, "test", channels=2, data={"toy_photos": 7})
    assert small.generator.channels == small.discriminator.channels == 2
    assert small.data.toy_photos == 7 and small.data.source == "toy" and small.data.classes == 0
    assert small.system.resolution == 32 and small.ema.start == 2 and small.train.steps == 8
    assert smoke_test(config, "full", channels=2) is config


def test_a_smoke_test_with_an_unknown_field_is_refused() -> None:
    with pytest.raises(errors.ConfigError, match="smoke_test: chanels is not a field of config.generator"):
        smoke_test(experiment(**lean()), "test", chanels=2)


# ------------------------------------------------------------------ choices


def test_choices_are_those_of_the_library() -> None:
    """schema.py spells them out as Literals."""

    def choices(record: Any, field: str) -> set[str]:
        return set(sections.choices_of(sections.Record(record).fields()[field].type))

    assert choices(schema.Sample, "method") == set(sampling.TRUNCATION_METHODS)
    assert choices(schema.Sample, "labels") == set(sampling.LABEL_POLICIES)
    assert choices(schema.Sample, "batch_stats") == set(gan_spec.CHOICES["sample_batch_stats"])
    assert choices(schema.GAN, "fake_label_source") == set(gan_spec.CHOICES["fake_label_source"])
    assert choices(schema.VAE, "likelihood") == set(vae.LIKELIHOODS)
    assert choices(schema.Data, "source") == set(build.SOURCES)
    assert choices(schema.Eval, "final") == set(metric_table.METRICS)
