"""Configs: every wrong field is named with its choices, every config file builds."""

import importlib
import math
from typing import Any, get_args

import jax
import ml_collections
import pytest

from configs import toy
from jaxdog.config import build, library, registry
from jaxdog.metrics import features, metric_table
from jaxdog.utils import errors


def changed(path: str, value: Any) -> ml_collections.ConfigDict:
    """The biggan test config with one field set; None takes it away."""
    config = library.load("biggan:test")
    with config.unlocked():
        *sections, field = path.split(".")
        section = config
        for name in sections:
            section = section[name]
        if field in section:
            del section[field]  # a config refuses another type by itself, but a file can be written anyhow
        if value is not None:
            section[field] = value
    return config


@pytest.mark.parametrize("name", library.names())
@pytest.mark.parametrize("variant", ["full", "test"])
def test_every_config_builds(name: str, variant: str) -> None:
    checked = build.check(importlib.import_module(f"configs.{name}").get_config(variant))
    assert checked.name == name
    assert sum(phase.steps for phase in build.phases(checked, 3)) == checked.train.steps


@pytest.mark.parametrize("name", library.names())
def test_every_config_says_what_it_is_and_refuses_unknown_variants(name: str) -> None:
    module = importlib.import_module(f"configs.{name}")
    assert module.__doc__ and f"jaxdog train {name}" in module.__doc__
    with pytest.raises(ValueError, match="'fast'; choices: 'full', 'test'"):
        module.get_config("fast")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("system.batch_size", 0, "config.system.batch_size is 0, and must be at least 1"),
        ("generator.channels", -3, "config.generator.channels is -3, and must be at least 1"),
        ("submit.images", 1, "config.submit.images is 1, and must be at least 2"),
        ("eval.samples", 1, "config.eval.samples is 1, and must be at least 2"),
        ("train.max_hours", -1.0, "config.train.max_hours is -1.0, and must be at least 0"),
        ("train.max_hours", math.nan, "config.train.max_hours is nan, and must be at least 0"),
        ("checkpoint.keep_last", 0, "config.checkpoint.keep_last is 0, and must be at least 1"),
        ("checkpoint.keep_best", -1, "config.checkpoint.keep_best is -1, and must be at least 0"),
        ("data.workers", -1, "config.data.workers is -1, and must be at least 0"),
        ("sample.exclude_classes", (0, -1), r"exclude_classes is \(0, -1\), and must be at least 0"),
        ("ema.decay", 1.0, r"config.ema.decay is 1.0, and must lie in \[0, 1\)"),
        (
            "trian",
            {},
            "config.trian is not a field of config; did you mean train. fields: augment, check",
        ),
        (
            "train.stepz",
            4,
            "config.train.stepz is not a field of config.train; did you mean steps. fields: grid_every",
        ),
        ("generator.chanels", 4, "config.generator.chanels is not a field .*channels"),
        (
            "optimizer.g.schedule.warmup",
            4,
            "config.optimizer.g.schedule.warmup is not a field .*; fields: none",
        ),
        ("optimizer.g.warmup", 4, "config.optimizer.g.warmup is not a field .*learning_rate"),
        (
            "optimizer.g.learning_rate",
            None,
            "config.optimizer.g.learning_rate is missing; config.optimizer.g needs: b1",
        ),
        ("train", 4, "config.train is 4, and must be a section"),
        ("optimizer.e", {}, "config.optimizer.e is not a field of config.optimizer; fields: d, g"),
        ("augment.flip.q", 0.5, "config.augment.flip.q is not a field of config.augment.flip; fields: p"),
        ("data.crop.color", "red", "config.data.crop.color is not a field .*margin"),
        ("ema", None, "config.ema is missing; config needs"),
        (
            "ema.decay",
            None,
            "config.ema.decay is missing; config.ema needs: batch_stats, decay, extra_ema_decays",
        ),
        ("discriminator.name", None, "config.discriminator.name is missing; choices: biggan"),
        ("discriminator.name", "vgg", "config.discriminator.name is 'vgg'; choices: biggan"),
        ("system.name", "chess", "config.system.name is 'chess'; choices: flow, gan"),
        ("system.loss.name", "hing", "'hing'; choices: cross_entropy, hinge, least_squares, non_saturating"),
        (
            "augment.spin",
            {"degrees": 3},
            "config.augment.spin is not a field of config.augment; .*flip, .*_noise",
        ),
        ("data.source", "web", "config.data.source is 'web'; choices: folder, kaggle, tfds, toy"),
        ("data.crop.name", "oval", "config.data.crop.name is 'oval'; choices: .*box_square"),
        ("sample.method", "clip", "config.sample.method is 'clip'; choices: resample, threshold, truncnorm"),
        ("dtype", "float16", "config.dtype is 'float16'; choices: bfloat16, float32"),
        ("train.steps", "many", r"config.train.steps is 'many' \(str\), and must be of type int"),
        ("train.steps", 2.5, r"config.train.steps is 2.5 \(float\), and must be of type int"),
        ("generator.final_norm", 1, "config.generator.final_norm is 1 .* must be of type bool"),
        ("generator.attention", 16, "config.generator.attention is 16 .* must be of type tuple"),
        ("ema.decay", True, "config.ema.decay is True .* must be of type float"),
        ("ema.batch_stats", "mean", "config.ema.batch_stats is 'mean'; choices: average, copy"),
        ("sample.labels", "all", "config.sample.labels is 'all'; choices: balanced, skip_collapsed, uniform"),
        ("eval.best", "isc", "config.eval.best is 'isc'; choices"),
        ("eval.resampler", "cubic", "config.eval.resampler is 'cubic'; choices"),
        ("eval.every_kimg", math.inf, "config.eval.every_kimg is inf, and must be at most 2,147,483,647"),
        ("eval.eps", math.inf, "config.eval.eps is inf, and must be at most"),
        ("train.steps", 2**31, "config.train.steps is 2147483648, and must be at most 2,147,483,647"),
        ("train.rollback_ratio", 0.5, r"rollback_ratio is 0.5, and must be 0 \(never\), or above 1"),
        ("train.rollback_ratio", -2.0, "rollback_ratio is -2.0, and must be 0"),
        ("train.rollback_ratio", math.nan, "rollback_ratio is nan, and must be 0"),
        ("name", " ", "config.name is ' ', and must be a name for the experiment"),
        (
            "sample.batch_stats",
            "batch",
            "config.sample.batch_size is 0, and must be at least 1 with .*'batch'",
        ),
        ("sample.batch_stats", "standing", "config.sample.batch_size is 0, and must be at least 1"),
        ("sample.truncation", 1e-9, "sample.truncation is 1e-09, and must be 0 .* or at least 0.01"),
        (
            "ema.extra_ema_decays",
            ("abc",),
            r"extra_ema_decays\[0\] is 'abc' \(str\), and must be of type float",
        ),
        ("generator.attention", (16, 8.0), r"generator.attention\[1\] is 8.0 .* must be of type int"),
        ("data.select.drop", {"names": (7,)}, r"data.select.drop.names\[0\] is 7 .* must be of type str"),
        ("system.class_transition", (0.0, True), r"class_transition\[1\] is True .* must be of type float"),
    ],
)
def test_a_wrong_field_is_named_with_its_choices(path: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build.check(changed(path, value))


def test_metrics_need_images() -> None:
    fields = changed("eval.final", ("mifid", "fid_infinity"))
    fields.submit.images = 19
    with pytest.raises(
        errors.ConfigError, match="config.submit.images is 19, .* fid_infinity, which needs at least 20"
    ):
        build.check(fields)
    fields.submit.images = 20
    build.check(fields)


def test_standing_statistics_need_images() -> None:
    config = changed("sample.batch_stats", "standing")
    config.sample.batch_size = 4
    with pytest.raises(
        errors.ConfigError, match="config.sample.num_standing_images is 0, and must be at lea"
    ):
        build.check(config)
    config.sample.num_standing_images = 8
    build.check(config)


@pytest.mark.parametrize(
    ("name", "sweep", "message"),
    [
        ("biggan", {"truncation": (0.5, -1.0)}, "sweep.truncation has -1.0: .*must be at least 0"),
        ("biggan", {"truncation": (math.nan,)}, "sweep.truncation has nan: .*must be at least 0"),
        (
            "biggan",
            {"batch_stats": ("running", "batch")},
            "sweep has .*'batch'}: config.sample.batch_size is 0",
        ),
        ("biggan", {"batch_stats": ("standing",)}, "sweep has .*'standing'}: config.sample.batch_size is 0"),
        ("biggan", {"ema_index": (0.0,)}, "sweep.ema_index has 0.0; 0 is the average"),
        ("biggan", {"ema_index": (False,)}, "sweep.ema_index has False; 0 is the average"),
        (
            "biggan",
            {"truncation": (0.001,), "method": ("truncnorm", "resample")},
            "sweep has .*at least 0.01",
        ),
        ("vqvae2", {"truncation": (0.0, 0.5)}, "sweep.truncation has 0.5: .* an autoencoder .* has none"),
        ("memorizer", {"truncation": (0.5,)}, "sweep.truncation has 0.5: .* a memorizer has none"),
        (
            "vae",
            {"batch_stats": ("batch",)},
            "sweep.batch_stats has 'batch': .*samples with running statistics",
        ),
        ("flow", {"batch_stats": ("standing",)}, "sweep.batch_stats has 'standing': .*running statistics"),
    ],
)
def test_a_sweep_that_could_not_be_sampled_is_refused(name: str, sweep: dict, message: str) -> None:
    """Otherwise its run would train to the end, and fail then."""
    config = library.load(f"{name}:test", overrides={"sample.sweep": sweep})
    with pytest.raises(errors.ConfigError, match=message):
        build.check(config)


def test_a_sweep_may_try_what_the_config_does_not_do() -> None:
    sweep = {"truncation": (0.001, 2.0), "method": ("truncnorm",), "batch_stats": ("running", "standing")}
    given = {"sample.sweep": sweep, "sample.batch_size": 4, "sample.num_standing_images": 8}
    assert build.check(library.load("biggan:test", overrides=given)).sample.sweep == sweep


@pytest.mark.parametrize("networks", [(), ("dinov2",), ("inception", "nasnet", "nasnet")])
def test_networks_hold_inception_and_each_once(networks: tuple[str, ...]) -> None:
    with pytest.raises(errors.ConfigError, match="config.eval.networks is .*; it must hold inception, whose"):
        build.check(changed("eval.networks", networks))
    assert build.check(changed("eval.networks", ("inception", "dinov2"))).eval.networks[1] == "dinov2"


def test_the_names_of_networks_are_those_of_their_table() -> None:
    assert get_args(metric_table.Network) == tuple(features.NETWORKS)


def test_an_int_is_good_where_a_float_is_asked() -> None:
    assert build.check(changed("ema.decay", 0)).ema.decay == 0


def test_classes_must_be_those_of_the_photos() -> None:
    data = build.check(changed("data.classes", 7)).data
    with pytest.raises(errors.ConfigError, match="is 7, .* have 10 classes .*--config.data.classes=10"):
        build.source(data)


def test_sample_counts_multiply_into_the_batch() -> None:
    config = changed("system.num_d_steps", 3)
    config.system.grad_accumulation_steps = 2
    assert build.phases(build.check(config), 3)[0].batch_size == 8 * 3 * 2


def test_schedules_see_the_updates_of_their_own_optimiser() -> None:
    """Two discriminator steps per generator step: its schedule is twice as long."""
    section = {
        "name": "adam", "b1": 0.0, "b2": 0.9, "eps": 1e-8, "weight_decay": 0.0, "learning_rate": 1.0,
        "schedule": {"name": "constant_then_linear", "fraction": 1.0},
    }  # fmt: skip
    optimizer = registry.optimizer(section, "config.optimizer.g", steps=2)
    params = jax.numpy.ones(1)
    state = optimizer.init(params)
    sizes = []
    for _ in range(3):
        updates, state = optimizer.update(jax.numpy.ones(1), state, params)
        sizes.append(round(float(-updates[0]), 4))
    assert sizes == [1.0, 0.5, 0.0]


def test_finishing_goes_in_the_order_of_its_table_because_configs_sort_names() -> None:
    """White is black after `quantize` and stays black; denoised first it would be 254 of 255."""
    section = ml_collections.ConfigDict(
        {
            "quantize": {"levels_256": True, "wrap": True},
            "non_local_means": {"luminance": 2.65, "color": 1.0, "template": 7, "search": 11},
        }
    )
    assert list(section) == ["non_local_means", "quantize"]
    image = jax.jit(registry.postprocessing(section.to_dict(), 8))(jax.numpy.ones((1, 8, 8, 3)))
    assert float(image.max()) < -0.9


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_have_32_bits(seed: int) -> None:
    """JAX would keep only these bits, so that two seeds would be one."""
    config = toy.get_config("test")
    config.seed = seed
    with pytest.raises(errors.UserError, match=f"config.seed is {seed}, and must be an integer from 0"):
        build.check(config)
    step = {"own_class": {"count": 3, "seed": seed, "crop_types": (0,)}}
    config = library.override(toy.get_config("test"), {"data.select": step})
    with pytest.raises(errors.UserError, match=f"config.data.select.own_class.seed is {seed}"):
        build.check(config)
