"""Where names become functions: a config's sections checked against the signatures they fill.

A section either fills a record below (`config.train` fills `Loop`) or has a `name` that picks a function from
a table here. The function's own parameters are the section's fields: a new option is a new parameter.
"""

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import ml_collections
import optax
from flax import linen as nn

from jaxdog import augment, losses, optim, sampling, system
from jaxdog.data import crop, dogs, photos, toy
from jaxdog.metrics import features
from jaxdog.models import biggan
from jaxdog.systems import gan

Config = ml_collections.ConfigDict

LOSSES = {
    "hinge": losses.hinge,
    "non_saturating": losses.non_saturating,
    "least_squares": losses.least_squares,
}
GENERATORS = {"biggan": biggan.Generator}
DISCRIMINATORS = {"biggan": biggan.Discriminator}
OPTIMIZERS = {"adam": optim.adam}
SCHEDULES = {"constant": optim.constant, "linear_end": optim.linear_end, "cosine": optim.cosine}
AUGMENTS = {"flip": augment.flip, "uniform_noise": augment.uniform_noise}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


class ConfigError(ValueError):
    """A config's field is unknown, missing, of the wrong type, or out of its choices."""


# ------------------------------------------------------------------ sections and signatures


def build(function: Callable[..., Any], section: Mapping[str, Any], path: str, **given: Any) -> Any:
    """Calls `function` with a section's fields and what is `given`, checking names and types first."""
    return bind(function, section, path, (), **given)()


def bind(
    function: Callable[..., Any], section: Mapping[str, Any], path: str, later: tuple[str, ...], **given: Any
) -> Callable[..., Any]:
    """`function` with a section's fields and what is `given` filled in; the `later` arguments stay open."""
    fields = {name: value for name, value in section.items() if name != "name"}
    known = sorted(set(inspect.signature(function).parameters) - {"parent", "name", *later, *given})
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise ConfigError(f"{path}.{unknown[0]} is no field of {path}; fields: {', '.join(known)}")
    missing = sorted(set(known) - set(fields))
    if missing:
        raise ConfigError(f"{path}.{missing[0]} is missing; {path} needs: {', '.join(known)}")
    hints = inspect.get_annotations(function)
    for name, value in fields.items():
        _check_type(f"{path}.{name}", value, hints.get(name, Any))
    return partial(function, **fields, **given)


def _check_type(path: str, value: Any, hint: Any) -> None:
    """Raises ConfigError unless `value` fits a plain annotation; an int fits a float."""
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    plain = tuple(typing.get_origin(kind) or kind for kind in allowed)
    if not all(kind in (int, float, str, bool, tuple) for kind in plain):
        return
    fits = isinstance(value, plain) or (float in plain and isinstance(value, int))
    if not fits or (isinstance(value, bool) and bool not in plain):
        names = " or ".join(kind.__name__ for kind in plain)
        raise ConfigError(f"{path} is {value!r} ({type(value).__name__}), and must be of type {names}")


def choose(table: Mapping[str, Any], name: str, path: str) -> Any:
    """The row of a table, or a ConfigError that names the rows."""
    if name not in table:
        raise ConfigError(f"{path} is {name!r}; choices: {', '.join(sorted(table))}")
    return table[name]


def _named(
    table: Mapping[str, Callable[..., Any]], section: Mapping[str, Any], path: str, **given: Any
) -> Any:
    if "name" not in section:
        raise ConfigError(f"{path}.name is missing; choices: {', '.join(sorted(table))}")
    return build(choose(table, section["name"], f"{path}.name"), section, path, **given)


# ------------------------------------------------------------------ the sections that stand for themselves


class Data(NamedTuple):
    """config.data: which photos, and which crops of them."""

    source: str  # "tfds" | "kaggle" | "folder" | "toy"
    path: str  # tfds: where the prepared set is or goes ("": its default place); kaggle, folder: the folder
    archives: str  # tfds: a folder with the official images.tar, annotation.tar, lists.tar; "": download
    toy_photos: int  # toy: how many are drawn
    classes: int  # breeds; 0: as many as the source has
    size: int  # of the crops, pixels on a side
    crop: Mapping[str, Any]
    cache_dir: str
    workers: int  # threads that decode; 0: one per core


class Game(NamedTuple):
    """config.game: how the two players meet."""

    name: str
    batch_size: int  # real pictures of one discriminator step
    latent_dim: int
    loss: Mapping[str, Any]
    d_steps: int
    accumulate: int


class Average(NamedTuple):
    """config.ema: the averaged generator."""

    decay: float
    start: int  # steps
    stats: str  # "average" | "copy"


class Sample(NamedTuple):
    """config.sample: how pictures are drawn for evaluation and submission."""

    truncation: float  # 0: none
    method: str  # "threshold" | "resample" | "truncnorm"
    labels: str  # "uniform" | "balanced"
    norm: str  # "running" | "batch": batch statistics at sampling


class Checkpoint(NamedTuple):
    """config.checkpoint: what is kept."""

    every: int  # steps
    keep_last: int
    keep_best: int


class Loop(NamedTuple):
    """config.train: how long, and how often what. Counts are in steps."""

    steps: int
    max_hours: float
    steps_per_dispatch: int
    log_every: int
    grid_every: int
    grid_images: int


class Evaluation(NamedTuple):
    """config.eval: what is measured, when and against what."""

    every_kimg: float  # thousand real pictures between evaluations; 0: only at the end
    samples: int  # pictures of an evaluation during training
    batch_size: int
    weights: str  # "published" | "random" | a file or folder
    resampler: str  # of the real side: "lanczos" | "tf1-bilinear"
    eps: float  # of MiFID
    best: str  # the metric that picks the best checkpoint: "fid768" | "fid2048"
    final: tuple  # what is measured of the pictures of images.zip: rows of features.METRICS


class Submission(NamedTuple):
    """config.submit: the pictures of images.zip."""

    images: int


SECTIONS = {
    "data": Data,
    "game": Game,
    "ema": Average,
    "sample": Sample,
    "checkpoint": Checkpoint,
    "train": Loop,
    "eval": Evaluation,
    "submit": Submission,
}
FREE = ("generator", "discriminator", "optimizer", "augment")  # checked when they are built
CHOICES = {
    "data.source": ("tfds", "kaggle", "folder", "toy"),
    "ema.stats": ("average", "copy"),
    "sample.method": tuple(sampling.METHODS),
    "sample.labels": sampling.POLICIES,
    "sample.norm": ("running", "batch"),
    "eval.resampler": ("lanczos", "tf1-bilinear"),
    "eval.best": ("fid768", "fid2048"),
    "eval.final": features.METRICS,
}
PLAIN = {"name": str, "seed": int, "dtype": str}


class Checked(NamedTuple):
    """A whole config, every section of it checked."""

    name: str
    seed: int
    dtype: str
    data: Data
    game: Game
    ema: Average
    sample: Sample
    checkpoint: Checkpoint
    train: Loop
    eval: Evaluation
    submit: Submission
    generator: Mapping[str, Any]
    discriminator: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    augment: Mapping[str, Any]


def check(config: Config) -> Checked:
    """The config as typed records; raises ConfigError naming the first wrong field and its choices."""
    sections = config.to_dict()
    unknown = sorted(set(sections) - set(Checked._fields))
    if unknown:
        raise ConfigError(f"config.{unknown[0]} is no field of config; fields: {', '.join(Checked._fields)}")
    missing = [name for name in Checked._fields if name not in sections]
    if missing:
        raise ConfigError(f"config.{missing[0]} is missing; config needs: {', '.join(Checked._fields)}")
    for name, kind in PLAIN.items():
        _check_type(f"config.{name}", sections[name], kind)
    choose(DTYPES, sections["dtype"], "config.dtype")
    choose(GAMES, sections["game"].get("name", ""), "config.game.name")
    built = {}
    for name, kind in SECTIONS.items():
        given = {"name": sections[name]["name"]} if "name" in kind._fields else {}
        built[name] = build(kind, sections[name], f"config.{name}", **given)
    checked = Checked(**{**sections, **built})
    for path, choices in CHOICES.items():
        section, field = path.split(".")
        given = getattr(built[section], field)
        for value in given if isinstance(given, tuple) else (given,):
            choose(dict.fromkeys(choices), value, f"config.{path}")
    phases(checked, classes=max(checked.data.classes, 1))
    recipe(checked.data)
    return checked


# ------------------------------------------------------------------ data


def _tfds(data: Data) -> photos.Source:
    return dogs.tfds(data.path or None, archives=data.archives or None)


SOURCES: dict[str, Callable[[Data], photos.Source]] = {
    "tfds": _tfds,
    "kaggle": lambda data: dogs.kaggle(data.path),
    "folder": lambda data: dogs.folder(data.path),
    "toy": lambda data: toy.dogs(data.toy_photos),
}


def source(data: Data) -> photos.Source:
    """The photos that config.data names; data.classes must be the number of their breeds, or 0."""
    found = SOURCES[data.source](data)
    if data.classes not in (0, len(found.breeds)):
        raise ConfigError(
            f"config.data.classes is {data.classes}, and the photos have {len(found.breeds)} classes "
            f"({', '.join(found.breeds[:3])}, ...); say --config.data.classes={len(found.breeds)}, or 0 for "
            "as many as there are"
        )
    return found


def recipe(data: Data) -> photos.Recipe:
    """The crop recipe of config.data.crop at config.data.size."""

    section = dict(data.crop)
    function = choose(crop.RECIPES, section.get("name", ""), "config.data.crop.name")
    return bind(function, section, "config.data.crop", ("photo", "boxes"), size=data.size)


# ------------------------------------------------------------------ networks and games


def networks(config: Checked, classes: int) -> tuple[nn.Module, nn.Module]:
    """Generator and discriminator of a two-player game."""
    shared = {"classes": classes, "size": config.data.size, "dtype": DTYPES[config.dtype]}
    generator = _named(
        GENERATORS, config.generator, "config.generator", latent_dim=config.game.latent_dim, **shared
    )
    return generator, _named(DISCRIMINATORS, config.discriminator, "config.discriminator", **shared)


def optimizer(section: Mapping[str, Any], path: str, steps: int) -> optax.GradientTransformation:
    """An optimiser with its schedule over `steps` updates."""
    fields = dict(section)
    schedule = _named(SCHEDULES, fields.pop("schedule", {}), f"{path}.schedule", steps=steps)
    return _named(OPTIMIZERS, fields, path, schedule=schedule)


def augments(section: Mapping[str, Any]) -> tuple[gan.Augment, ...]:
    """Runtime augmentations in the order of their names in the config."""
    built = []
    for name, fields in section.items():
        path = f"config.augment.{name}"
        built.append(bind(choose(AUGMENTS, name, path), fields, path, ("key", "image")))
    return tuple(built)


def _gan(config: Checked, classes: int) -> tuple[system.Phase, ...]:
    generator, discriminator = networks(config, classes)
    game, steps = config.game, config.train.steps
    extra = sorted(set(config.optimizer) - {"g", "d"})
    if extra:
        raise ConfigError(f"config.optimizer.{extra[0]} is no field of config.optimizer; fields: d, g")
    sample = config.sample
    latent = partial(sampling.latent, dim=game.latent_dim, truncation=sample.truncation, method=sample.method)
    played = gan.Game(
        generator=generator,
        discriminator=discriminator,
        latent_dim=game.latent_dim,
        classes=classes,
        loss=_named(LOSSES, game.loss, "config.game.loss"),
        g_optimizer=optimizer(config.optimizer["g"], "config.optimizer.g", steps),
        d_optimizer=optimizer(config.optimizer["d"], "config.optimizer.d", steps * game.d_steps),
        augment=augments(config.augment),
        d_steps=game.d_steps,
        accumulate=game.accumulate,
        ema_decay=config.ema.decay,
        ema_start=config.ema.start,
        ema_stats=config.ema.stats,
        latent=latent,
        sample_norm=sample.norm,
    )
    batch = game.batch_size * game.d_steps * game.accumulate
    return (system.Phase("gan", gan.gan(played), steps, batch),)


GAMES: dict[str, Callable[[Checked, int], tuple[system.Phase, ...]]] = {"gan": _gan}


def phases(config: Checked, classes: int) -> tuple[system.Phase, ...]:
    """The phases of an experiment, for photos of `classes` breeds."""
    return choose(GAMES, config.game.name, "config.game.name")(config, classes)
