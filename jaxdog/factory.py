"""Where names become functions: a config's sections checked against the signatures they fill.

A section either fills a record of `sections.py` (`config.train` fills `Loop`) or has a `name` that picks a
function from a table here.
"""

import functools
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import optax
from flax import linen as nn

from jaxdog import augment, losses, optim, sampling, sections, system
from jaxdog.data import batches, crop, dogs, photos, recipes, toy
from jaxdog.metrics import features
from jaxdog.models import biggan, dcgan, style_dcgan
from jaxdog.systems import gan

Config = ml_collections.ConfigDict

LOSSES = {
    "hinge": losses.hinge,
    "non_saturating": losses.non_saturating,
    "least_squares": losses.least_squares,
    "cross_entropy": losses.cross_entropy,
    "relativistic_average": losses.relativistic_average,
}
GENERATORS = {
    "biggan": biggan.Generator,
    "dcgan": dcgan.Generator,
    "style_dcgan": style_dcgan.Generator,
}
DISCRIMINATORS = {
    "biggan": biggan.Discriminator,
    "dcgan": dcgan.Discriminator,
    "style_dcgan": style_dcgan.Discriminator,
}
RECIPES = {**crop.RECIPES, **recipes.RECIPES}
OPTIMIZERS = {"adam": optim.adam}
SCHEDULES = {
    "constant": optim.constant,
    "linear_end": optim.linear_end,
    "cosine": optim.cosine,
    "exponential": optim.exponential,
    "clock_cosine": optim.clock_cosine,
}
FINISHES: dict[str, Callable[..., Any]] = {}
AUGMENTS = {
    "random_resized_crop": augment.random_resized_crop,
    "flip": augment.flip,
    "uniform_noise": augment.uniform_noise,
    "normal_noise": augment.normal_noise,
}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}

CHOICES = {
    "data.source": ("tfds", "kaggle", "folder", "toy"),
    "ema.stats": ("average", "copy"),
    "sample.method": tuple(sampling.METHODS),
    "sample.labels": sampling.POLICIES,
    "sample.norm": gan.CHOICES["sample_norm"],
    "eval.resampler": ("lanczos", "tf1-bilinear"),
    "eval.best": ("fid768", "fid2048"),
    "eval.final": features.METRICS,
}
PLAIN = {"name": str, "seed": int, "dtype": str}


def check(config: Config) -> sections.Checked:
    """The config as typed records; raises ConfigError naming the first wrong field and its choices."""
    given = config.to_dict()
    fields = sections.Checked._fields
    unknown = sorted(set(given) - set(fields))
    if unknown:
        raise sections.ConfigError(f"config.{unknown[0]} is no field of config; fields: {', '.join(fields)}")
    missing = [name for name in fields if name not in given]
    if missing:
        raise sections.ConfigError(f"config.{missing[0]} is missing; config needs: {', '.join(fields)}")
    for name, kind in PLAIN.items():
        sections.check_type(f"config.{name}", given[name], kind)
    sections.choose(DTYPES, given["dtype"], "config.dtype")
    game = sections.choose(GAMES, given["game"].get("name", ""), "config.game.name")
    built = {
        name: sections.build(kind, given[name], f"config.{name}") for name, kind in sections.SECTIONS.items()
    }
    built["game"] = sections.build(game.record, given["game"], "config.game", name=given["game"]["name"])
    checked = sections.Checked(**{**given, **built})
    for path, choices in {**CHOICES, **game.choices}.items():
        section, field = path.split(".")
        value = getattr(built[section], field)
        for one in value if isinstance(value, tuple) else (value,):
            sections.choose(dict.fromkeys(choices), one, f"config.{path}")
    phases(checked, classes=max(checked.data.classes, 1))
    recipe(checked.data)
    return checked


# ------------------------------------------------------------------ data


def _tfds(data: sections.Data) -> photos.Source:
    return dogs.tfds(data.path or None, archives=data.archives or None)


SOURCES: dict[str, Callable[[sections.Data], photos.Source]] = {
    "tfds": _tfds,
    "kaggle": lambda data: dogs.kaggle(data.path),
    "folder": lambda data: dogs.folder(data.path),
    "toy": lambda data: toy.dogs(data.toy_photos),
}


def source(data: sections.Data) -> photos.Source:
    """The photos that config.data names; data.classes must be the number of their breeds, or 0."""
    found = SOURCES[data.source](data)
    if data.classes not in (0, len(found.breeds)):
        raise sections.ConfigError(
            f"config.data.classes is {data.classes}, and the photos have {len(found.breeds)} classes "
            f"({', '.join(found.breeds[:3])}, ...); say --config.data.classes={len(found.breeds)}, or 0 for "
            "as many as there are"
        )
    return found


def recipe(data: sections.Data) -> photos.Recipe:
    """The crop recipe of config.data.crop at config.data.size."""

    section = dict(data.crop)
    function = sections.choose(RECIPES, section.get("name", ""), "config.data.crop.name")
    return sections.bind(function, section, "config.data.crop", ("photo", "boxes"), size=data.store_size)


# ------------------------------------------------------------------ networks and games


def networks(config: sections.Checked, classes: int) -> tuple[nn.Module, nn.Module]:
    """Generator and discriminator of a two-player game."""
    shared = {"classes": classes, "size": config.game.size, "dtype": DTYPES[config.dtype]}
    generator = sections.named(
        GENERATORS, config.generator, "config.generator", latent_dim=config.game.latent_dim, **shared
    )
    return generator, sections.named(DISCRIMINATORS, config.discriminator, "config.discriminator", **shared)


def optimizer(section: Mapping[str, Any], path: str, steps: int) -> optax.GradientTransformationExtraArgs:
    """An optimiser with its schedule over `steps` updates."""
    fields = dict(section)
    schedule = sections.named(SCHEDULES, fields.pop("schedule", {}), f"{path}.schedule", steps=steps)
    return sections.named(OPTIMIZERS, fields, path, schedule=schedule)


def augments(section: Mapping[str, Any]) -> tuple[gan.Augment, ...]:
    """Runtime augmentations in the order of their names in the config."""
    built = []
    for name, fields in section.items():
        path = f"config.augment.{name}"
        built.append(sections.bind(sections.choose(AUGMENTS, name, path), fields, path, ("key", "batch")))
    return tuple(built)


def finish(section: Mapping[str, Any]) -> Callable[[system.Array], system.Array]:
    """What is done to each generated picture, in the order of the names in the config."""
    path = "config.sample.finish"
    steps = [
        sections.bind(sections.choose(FINISHES, name, f"{path}.{name}"), fields, f"{path}.{name}", ("image",))
        for name, fields in section.items()
    ]
    return lambda image: functools.reduce(lambda image, step: step(image), steps, image)


def _gan(config: sections.Checked, classes: int) -> tuple[system.Phase, ...]:
    generator, discriminator = networks(config, classes)
    game, steps = config.game, config.train.steps
    extra = sorted(set(config.optimizer) - {"g", "d"})
    if extra:
        raise sections.ConfigError(
            f"config.optimizer.{extra[0]} is no field of config.optimizer; fields: d, g"
        )
    sample = config.sample
    latent = partial(sampling.latent, dim=game.latent_dim, truncation=sample.truncation, method=sample.method)
    played = gan.Game(
        generator=generator,
        discriminator=discriminator,
        latent_dim=game.latent_dim,
        classes=classes,
        loss=sections.named(LOSSES, game.loss, "config.game.loss"),
        g_optimizer=optimizer(config.optimizer["g"], "config.optimizer.g", steps),
        d_optimizer=optimizer(config.optimizer["d"], "config.optimizer.d", steps * game.d_steps),
        augment=augments(config.augment),
        d_steps=game.d_steps,
        accumulate=game.accumulate,
        judge=game.judge,
        fakes=game.fakes,
        fake_labels=game.fake_labels,
        g_reals=game.g_reals,
        breeds=game.breeds,
        ema_decay=config.ema.decay,
        ema_start=config.ema.start,
        ema_stats=config.ema.stats,
        latent=latent,
        sample_norm=sample.norm,
        refresh=(-(-sample.refresh // max(sample.batch_size, 1)), sample.batch_size),
        finish=finish(sample.finish),
    )
    _check_sizes(config, played)
    return (system.Phase("gan", gan.gan(played), steps, game.batch_size * gan.batches(played)),)


def _check_sizes(config: sections.Checked, game: gan.Game) -> None:
    """What is stored must be augmented to what the networks see, what is drawn finished to data.size."""
    side = config.data.store_size

    def seen() -> system.Array:
        data = batches.resident(jnp.zeros((1, side, side, 3), jnp.uint8), jnp.zeros(1, jnp.int32))
        batch = batches.batch(data, jax.random.key(0), 0, 2)
        for augmentation in game.augment:
            batch = augmentation(jax.random.key(0), batch)
        return batch.image

    found = jax.eval_shape(seen).shape[1:3]
    if found != (config.game.size, config.game.size):
        raise sections.ConfigError(
            f"crops are kept at config.data.store_size = {side} and come out of config.augment at "
            f"{found[0]}x{found[1]}, but config.game.size is {config.game.size}"
        )
    drawn = jax.ShapeDtypeStruct((2, config.game.size, config.game.size, 3), jnp.float32)
    found = jax.eval_shape(game.finish, drawn).shape[1:3]
    if found != (config.data.size, config.data.size):
        raise sections.ConfigError(
            f"pictures of config.game.size = {config.game.size} come out of config.sample.finish at "
            f"{found[0]}x{found[1]}, but config.data.size is {config.data.size}"
        )


class Row(NamedTuple):
    """A kind of game: the record that config.game fills, its fields' choices, and its phases."""

    record: Callable[..., Any]
    choices: Mapping[str, tuple[str, ...]]  # "game.field" -> its values
    phases: Callable[[sections.Checked, int], tuple[system.Phase, ...]]  # (config, classes)


GAMES = {
    "gan": Row(sections.Game, {f"game.{x}": gan.CHOICES[x] for x in ("judge", "fakes", "fake_labels")}, _gan),
}


def phases(config: sections.Checked, classes: int) -> tuple[system.Phase, ...]:
    """The phases of an experiment, for photos of `classes` breeds."""
    return GAMES[config.game.name].phases(config, classes)
