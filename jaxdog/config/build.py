"""Builds typed records from a resolved config, and data and training phases from the records."""

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections

from jaxdog import types
from jaxdog.config import registry, schema, sections, systems
from jaxdog.data import crop_dataset, photos, select, sources, toy
from jaxdog.metrics import fid
from jaxdog.systems import sampling
from jaxdog.utils import errors, integers

Config = ml_collections.ConfigDict
# The least value of each number, by section.
MINIMUMS = {
    "data": {"toy_photos": 1, "classes": 0, "stored_resolution": 0, "workers": 0},
    "generator": {"channels": 1},
    "discriminator": {"channels": 1},
    "system": dict.fromkeys(
        ("batch_size", "latent_dim", "num_d_steps", "grad_accumulation_steps", "g_step_groups")
        + ("codebook_size", "code_dim", "solver_steps"),
        1,
    ),
    "ema": {"start": 0},
    "sample": {"truncation": 0, "exclude_classes": 0, "batch_size": 0, "num_standing_images": 0},
    "train": {"steps": 1, "grid_images": 1, **dict.fromkeys(("max_hours", "memory_gb", "grid_every"), 0)},
    "eval": {"every_kimg": 0, "batch_size": 1, "samples": 2, "eps": 0},  # two have a covariance
    "checkpoint": {"keep_last": 1, "keep_best": 0},  # without a checkpoint, a run could not resume
    "submit": {"images": 2, "resolution": 0},
}
MOST = 2**31 - 1  # of each of these numbers: devices count with 32 bits
UNLIMITED = ("max_hours", "memory_gb")  # may be infinite
SWEEPABLE = ("truncation", "method", "labels", "batch_stats", "postprocess", "ema_index")


def tree(system: systems.SystemType) -> sections.Record:
    """The sections and fields of configs with this type of system."""
    records = {name: row.record for name, row in systems.SYSTEMS.items()}
    nested = {
        "data": sections.Record(schema.Data, {"crop": registry.CROPS, "select": registry.SELECT}),
        "augment": registry.AUGMENTS,
        "generator": system.generator,
        "discriminator": system.discriminator,
        "system": sections.OneOf(records, nested=system.nested),
        "optimizer": system.optimizer,
        "ema": sections.Record(schema.EMA),
        "sample": sections.Record(schema.Sample, {"postprocess": registry.POSTPROCESS}),
        "train": sections.Record(schema.Train),
        "eval": sections.Record(schema.Eval),
        "checkpoint": sections.Record(schema.Checkpoint),
        "parallel": sections.Record(schema.Parallel),
        "submit": sections.Record(schema.Submit),
    }
    return sections.Record(schema.Experiment, nested)


def tree_of(config: Mapping[str, Any]) -> sections.Record:
    """The sections and fields that this config may have, which depend on its `system.name`."""
    section = config.get("system", {"name": "gan"})  # if it is missing, `fill` and `check` report it
    name = section.get("name", "") if isinstance(section, Mapping) else section
    return tree(sections.choose(systems.SYSTEMS, name, "config.system.name"))


def check(config: Config) -> schema.Experiment:
    """The config as typed records; raises ConfigError naming the first wrong field and its choices.

    Resolutions of 0 become config.system.resolution.
    """
    given = config.to_dict()
    tree_of(given).check(given, "config")
    _check_numbers(given)
    _check_seeds(given, "config")
    experiment = _records(given)
    _check_name(experiment.name)
    _check_rollback(experiment.train.rollback_ratio)
    check_steps(experiment.train, phases(experiment, classes(experiment.data)), experiment.checkpoint.every)
    _check_sample(experiment.sample)
    recipe(experiment.data)
    select_crops(experiment.data)
    _check_metrics(experiment)
    _check_sweep(experiment)
    _check_parallel(experiment)
    return experiment


def _records(given: dict[str, Any]) -> schema.Experiment:
    system = systems.SYSTEMS[given["system"]["name"]].record(**given["system"])
    data, submit = schema.Data(**given["data"]), schema.Submit(**given["submit"])
    sections_ = {
        "data": data._replace(stored_resolution=data.stored_resolution or system.resolution),
        "system": system,
        "ema": schema.EMA(**given["ema"]),
        "sample": schema.Sample(**given["sample"]),
        "train": schema.Train(**given["train"]),
        "eval": schema.Eval(**given["eval"]),
        "checkpoint": schema.Checkpoint(**given["checkpoint"]),
        "parallel": schema.Parallel(**given["parallel"]),
        "submit": submit._replace(resolution=submit.resolution or system.resolution),
    }
    return schema.Experiment(**{**given, **sections_})


def _check_numbers(given: Mapping[str, Any]) -> None:
    """Raises ConfigError for a number, such as NaN, that is less than that of MINIMUMS, or more than MOST."""
    for section, fields in MINIMUMS.items():
        for field, least in fields.items():
            value = given.get(section, {}).get(field, least)
            numbers = value if isinstance(value, tuple) else (value,)
            most = math.inf if field in UNLIMITED else MOST
            enough = all(isinstance(x, int | float) and x >= least for x in numbers)
            if not enough or max(numbers, default=least) > most:
                limit = f"at most {most:,}" if enough else f"at least {least}"
                raise errors.ConfigError(f"config.{section}.{field} is {value}, and must be {limit}")


def _check_name(name: str) -> None:
    """Raises ConfigError for a name that is no folder of its own in runs/."""
    if name.strip() in ("", ".", ".."):
        raise errors.ConfigError(
            f"config.name is {name!r}, and must be a name for the experiment, whose run is in runs/NAME"
        )


def _check_sample(sample: schema.Sample) -> None:
    """Raises UserError for batch statistics of no images, and a truncation too small to draw."""
    needed = {"batch": ("batch_size",), "standing": ("batch_size", "num_standing_images")}
    for field in needed.get(sample.batch_stats, ()):
        if getattr(sample, field) < 1:
            raise errors.ConfigError(
                f"config.sample.{field} is {getattr(sample, field)}, and must be at least 1 with "
                f"config.sample.batch_stats = {sample.batch_stats!r}: it is the number of images that "
                f"{'share statistics' if field == 'batch_size' else 'standing statistics are computed of'}"
            )
    sampling.check_truncation(sample.truncation, sample.method, "config.sample.truncation")


def _check_rollback(ratio: float) -> None:
    if ratio != 0.0 and not 1.0 < ratio < math.inf:
        raise errors.ConfigError(
            f"config.train.rollback_ratio is {ratio}, and must be 0 (never), or above 1: a score this many "
            "times the best restores the best checkpoint"
        )


def _check_seeds(section: Mapping[str, Any], path: str) -> None:
    """Raises UserError for a seed that is out of range, at any place of a config."""
    for name, value in section.items():
        if name == "seed":
            integers.check_seed(value, f"{path}.{name}")
        elif isinstance(value, Mapping):
            _check_seeds(value, f"{path}.{name}")


def check_steps(
    train: schema.Train, phases: Sequence[types.Phase], checkpoint_every: int, evaluate_every: int = 0
) -> None:
    """Raises ConfigError unless intervals and phases are multiples of train.steps_per_execution."""
    k = train.steps_per_execution
    if min(k, train.log_every, checkpoint_every) < 1:
        raise errors.ConfigError(
            f"train.steps_per_execution is {k}, train.log_every {train.log_every}, and checkpoint.every "
            f"{checkpoint_every}; each must be at least 1"
        )
    counts = {"train.log_every": train.log_every, "train.grid_every": train.grid_every}
    counts |= {"checkpoint.every": checkpoint_every, "evaluation interval": evaluate_every}
    counts |= {f"steps of phase {phase.name}": phase.steps for phase in phases}
    for name, count in counts.items():
        if count % k:
            raise errors.ConfigError(
                f"{name} is {count} steps, and must be a multiple of train.steps_per_execution = {k}; "
                f"the nearest are {count // k * k} and {(count // k + 1) * k}"
            )


def _check_metrics(config: schema.Experiment) -> None:
    """Raises ConfigError for feature networks without Inception or given twice, and for metrics in eval.final
    for which there are too few images, or no classes."""
    networks = config.eval.networks
    if "inception" not in networks or len(set(networks)) < len(networks):
        raise errors.ConfigError(
            f"config.eval.networks is {', '.join(networks) or 'empty'}; it must hold inception, whose FID "
            "selects the best checkpoint, and each network once"
        )
    if "fid_infinity" in config.eval.final and config.submit.images < fid.INFINITY_IMAGES:
        raise errors.ConfigError(
            f"config.submit.images is {config.submit.images}, and config.eval.final has fid_infinity, which "
            f"needs at least {fid.INFINITY_IMAGES}; leave fid_infinity out or sample more images"
        )
    from_csv, classes = config.data.select.get("from_csv"), ""
    if from_csv is not None:
        sections.choose(
            dict.fromkeys(select.LABELS), from_csv["labels"], "config.data.select.from_csv.labels"
        )
        classes = "from_csv each cluster" if from_csv["labels"] == "cluster" else ""
    if "own_class" in config.data.select:
        classes = "own_class each image"
    if classes and "per_class" in config.eval.final:
        raise errors.ConfigError(
            f"config.eval.final has per_class, but with config.data.select.{classes} is a class; leave "
            "per_class out"
        )


def _check_sweep(config: schema.Experiment) -> None:
    """Raises ConfigError if a value of config.sample.sweep is not valid for its field or system."""
    for name, values in config.sample.sweep.items():
        path = f"config.sample.sweep.{name}"
        sections.choose(dict.fromkeys(SWEEPABLE), name, path)
        if not isinstance(values, tuple) or not values:
            raise errors.ConfigError(f"{path} is {values!r}, and must be a tuple of values to try")
        for value in values:
            _check_swept(config, name, value, path)
    fields = {name: x for name, x in config.sample.sweep.items() if name != "ema_index"}
    for values in itertools.product(*fields.values()):
        setting = dict(zip(fields, values, strict=True))
        try:
            _check_sample(config.sample._replace(**setting))
        except errors.UserError as error:
            raise errors.ConfigError(f"config.sample.sweep has {setting}: {error}") from error


def _check_swept(config: schema.Experiment, name: str, value: Any, path: str) -> None:
    """Raises ConfigError for one value of config.sample.sweep, `path`."""
    averages = 1 + len(config.ema.extra_ema_decays)
    if name == "ema_index":
        if type(value) is not int or value not in range(averages):
            raise errors.ConfigError(
                f"{path} has {value!r}; 0 is the average, and 1 to {averages - 1} "
                f"those of config.ema.extra_ema_decays = {config.ema.extra_ema_decays}"
            )
        return
    sections.check_type(path, value, sections.Record(schema.Sample).fields()[name].type)
    sample = config.sample._replace(**{name: value})
    try:
        _check_numbers({"sample": sample._asdict()})
        phases(config._replace(sample=sample), classes(config.data))
    except errors.UserError as error:
        raise errors.ConfigError(f"{path} has {value!r}: {error}") from error


def _check_parallel(config: schema.Experiment) -> None:
    two_players = isinstance(config.system, schema.TwoPlayer)
    for field, default in (("sync_batch_norm", True), ("remat", False)):
        if getattr(config.parallel, field) != default and not two_players:
            raise errors.ConfigError(
                f"config.parallel.{field} is {not default}, and is for two-player systems; "
                f"config.system.name is {config.system.name!r}"
            )
    fraction = config.parallel.device_memory_fraction
    if not 0.0 <= fraction <= 1.0:
        raise errors.ConfigError(
            f"config.parallel.device_memory_fraction is {fraction}, and must lie in [0, 1]"
        )


# ------------------------------------------------------------------ data

SOURCES: dict[str, Callable[[schema.Data, bool], photos.Source]] = {  # arguments: those of `source`
    "tfds": lambda data, prepare: sources.tfds(data.path or None, data.archives or None, prepare=prepare),
    "kaggle": lambda data, _: sources.kaggle(data.path),
    "folder": lambda data, _: sources.folder(data.path),
    "toy": lambda data, _: toy.dogs(data.toy_photos),
}


def source(data: schema.Data, prepare: bool = True) -> photos.Source:
    """The photos that config.data names; raises ConfigError unless data.classes is their number, or 0.

    prepare: whether to download and prepare the dataset of source "tfds" if it is missing.
    """
    found = SOURCES[data.source](data, prepare)
    count = len(found.class_names)
    if data.classes not in (0, count):
        raise errors.ConfigError(
            f"config.data.classes is {data.classes}, and the photos have {count} classes "
            f"({', '.join(found.class_names[:3])}, ...); say --config.data.classes={count}, or 0 for "
            "as many as there are"
        )
    return found


def recipe(data: schema.Data) -> photos.Recipe:
    """The crop recipe of config.data.crop at config.data.stored_resolution."""
    return registry.CROPS.bind(data.crop, "config.data.crop", size=data.stored_resolution)


def select_crops(data: schema.Data) -> Callable[[crop_dataset.CropDataset], crop_dataset.CropDataset]:
    """The steps of config.data.select, in the order of select.STEPS."""
    steps = registry.SELECT.bind(data.select, "config.data.select").values()
    return lambda crops: functools.reduce(lambda crops, step: step(crops), steps, crops)


def classes(data: schema.Data) -> int:
    """Number of classes of the crops, as far as the config determines it, else 1."""
    own, from_csv = data.select.get("own_class"), data.select.get("from_csv")
    if own is not None:
        return own.get("count", 1)
    if from_csv is not None and from_csv.get("labels") == "cluster":
        return max(len(set(from_csv.get("clusters", ()))), 1)
    return max(data.classes, 1)


def phases(config: schema.Experiment, classes: int) -> tuple[types.Phase, ...]:
    """The phases of an experiment, for crops of `classes` classes."""
    return systems.SYSTEMS[config.system.name].phases(config, classes)


def cheat(config: schema.Experiment) -> bool:
    """Whether an experiment's samples are training images, as those of memorizers are."""
    return systems.SYSTEMS[config.system.name].cheat
