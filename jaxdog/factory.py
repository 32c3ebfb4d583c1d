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

from jaxdog import augment, denoise, losses, optim, sampling, sections, system
from jaxdog import finish as finishing
from jaxdog.data import batches, cheats, crop, curate, dogs, multicrop, photos, recipes, toy
from jaxdog.metrics import features
from jaxdog.models import biggan, biggan_deep, dcgan, progan, style_dcgan
from jaxdog.models import memorizer as stores
from jaxdog.systems import gan, memorizer, progressive

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
    "biggan_deep": biggan_deep.Generator,
    "dcgan": dcgan.Generator,
    "progan": progan.Generator,
    "style_dcgan": style_dcgan.Generator,
}
DISCRIMINATORS = {
    "biggan": biggan.Discriminator,
    "biggan_deep": biggan_deep.Discriminator,
    "dcgan": dcgan.Discriminator,
    "progan": progan.Discriminator,
    "style_dcgan": style_dcgan.Discriminator,
}
STORES = {"rows": stores.Rows, "bottleneck": stores.Bottleneck}  # a memorizer's networks
RECIPES = {**crop.RECIPES, **recipes.RECIPES, **cheats.RECIPES, "multicrop": multicrop.multicrop}
OPTIMIZERS = {"adam": optim.adam, "adam_per_leaf": optim.adam_per_leaf}
SCHEDULES = {
    "constant": optim.constant,
    "linear_end": optim.linear_end,
    "cosine": optim.cosine,
    "exponential": optim.exponential,
    "clock_cosine": optim.clock_cosine,
}
# Steps of these are taken in the order of the tables: a config sorts its names.
FINISHES = {
    "shrink": finishing.shrink,
    "quantise": finishing.quantise,
    "non_local_means": denoise.non_local_means,
}
AUGMENTS = {
    "random_resized_crop": augment.random_resized_crop,
    "shift_scale_rotate": augment.shift_scale_rotate,
    "random_square": augment.random_square,
    "flip": augment.flip,
    "colour_jitter": augment.colour_jitter,
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
    phases(checked, classes(checked.data))
    recipe(checked.data)
    curated(checked.data)
    if "own_class" in checked.data.curate and "per_class" in checked.eval.final:
        raise sections.ConfigError(
            "config.eval.final has per_class, but with config.data.curate.own_class each picture is a class; "
            "leave per_class out"
        )
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


def curated(data: sections.Data) -> Callable[[photos.Crops], photos.Crops]:
    """What becomes of the set of crops, in the order of curate.STEPS."""
    steps = _steps(curate.STEPS, data.curate, "config.data.curate", ("crops",))
    return lambda crops: functools.reduce(lambda crops, step: step(crops), steps, crops)


def classes(data: sections.Data) -> int:
    """How many classes the photos will have, as far as the config tells; 1 where it does not."""
    own = data.curate.get("own_class")
    return max(data.classes, 1) if own is None else own.get("count", 1)


# ------------------------------------------------------------------ networks and games


def networks(config: sections.Checked, classes: int) -> tuple[nn.Module, nn.Module]:
    """Generator and discriminator of a two-player game."""
    shared = {"classes": classes, "size": config.game.size, "dtype": DTYPES[config.dtype]}

    def made(table: Mapping[str, Any], path: str, section: Mapping[str, Any], **given: Any) -> nn.Module:
        if hasattr(table.get(section.get("name", "")), "alpha"):
            given["alpha"] = None  # set by the game whose networks grow
        return sections.named(table, section, path, **given, **shared)

    generator = made(GENERATORS, "config.generator", config.generator, latent_dim=config.game.latent_dim)
    return generator, made(DISCRIMINATORS, "config.discriminator", config.discriminator)


def optimizer(section: Mapping[str, Any], path: str, steps: int) -> optax.GradientTransformationExtraArgs:
    """An optimiser with its schedule over `steps` updates."""
    fields = dict(section)
    schedule = sections.named(SCHEDULES, fields.pop("schedule", {}), f"{path}.schedule", steps=steps)
    return sections.named(OPTIMIZERS, fields, path, schedule=schedule)


def augments(section: Mapping[str, Any]) -> tuple[gan.Augment, ...]:
    """Runtime augmentations in the order of AUGMENTS."""
    return tuple(_steps(AUGMENTS, section, "config.augment", ("key", "batch")))


def finish(section: Mapping[str, Any]) -> Callable[[system.Array], system.Array]:
    """What is done to each generated picture, in the order of FINISHES."""
    steps = _steps(FINISHES, section, "config.sample.finish", ("image",))
    return lambda image: functools.reduce(lambda image, step: step(image), steps, image)


def _steps(
    table: Mapping[str, Callable[..., Any]], section: Mapping[str, Any], path: str, later: tuple[str, ...]
) -> list[Callable[..., Any]]:
    """The functions that a section names, each with its fields, in the order of the table."""
    for name in section:
        sections.choose(table, name, f"{path}.{name}")
    wanted = [name for name in table if name in section]
    return [sections.bind(table[name], section[name], f"{path}.{name}", later) for name in wanted]


def _played(config: sections.Checked, classes: int, decay: float) -> gan.Game:
    """The two-player game that a config's sections describe."""
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
        ema_decay=decay,
        ema_start=config.ema.start,
        ema_stats=config.ema.stats,
        latent=latent,
        sample_norm=sample.norm,
        refresh=(-(-sample.refresh // max(sample.batch_size, 1)), sample.batch_size),
        finish=finish(sample.finish),
    )
    _check_sizes(config, played)
    return played


def _gan(config: sections.Checked, classes: int) -> tuple[system.Phase, ...]:
    if isinstance(config.ema.decay, tuple):
        raise sections.ConfigError(
            f"config.ema.decay is {config.ema.decay!r}, but this game has one phase: it needs one number"
        )
    played = _played(config, classes, config.ema.decay)
    real = config.game.batch_size * gan.batches(played)
    return (system.Phase("gan", gan.gan(played), config.train.steps, real),)


def _progressive(config: sections.Checked, classes: int) -> tuple[system.Phase, ...]:
    """One phase for each of config.game.sizes: the same game with networks that grow."""
    for name, table in (("generator", GENERATORS), ("discriminator", DISCRIMINATORS)):
        growing = {row: network for row, network in table.items() if hasattr(network, "alpha")}
        sections.choose(growing, getattr(config, name).get("name", ""), f"config.{name}.name")
    game, played = config.game, _played(config, classes, 0.0)  # its decay is the moment's
    stages = progressive.stages(
        game.sizes, game.steps, game.fade, config.ema.decay, game.cuts, game.size, config.train.steps
    )

    def play(stage: progressive.Stage, moment: progressive.Moment) -> system.System:
        seen = partial(progressive.shrink, size=stage.size, alpha=moment.alpha)
        grown = played._replace(
            generator=played.generator.clone(size=stage.size, alpha=moment.alpha),
            discriminator=played.discriminator.clone(size=stage.size, alpha=moment.alpha),
            augment=(*played.augment, seen),
            ema_decay=moment.decay,
            finish=lambda image: played.finish(progressive.enlarged(image, game.size)),
        )
        return gan.gan(grown)

    real = game.batch_size * gan.batches(played)
    return progressive.phases(stages, play, real, config.data.store_size, config.seed)


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


def _memorizer(config: sections.Checked, classes: int) -> tuple[system.Phase, ...]:
    """A discriminator's lesson, then a generator's; with game.d_updates = 0 the generator's alone."""
    _plain(config)
    game, steps = config.game, config.train.steps
    if not 0 <= game.d_updates < steps:
        raise sections.ConfigError(
            f"config.game.d_updates is {game.d_updates}, and must lie in [0, config.train.steps = {steps})"
        )
    g_lesson = _lesson(config, "g", config.generator, classes)
    g = memorizer.memorizer(g_lesson)
    if game.d_updates == 0:
        _empty(config, "discriminator")
        return (system.Phase("supervised", g, steps, game.batch_size),)
    d_lesson = _lesson(config, "d", config.discriminator, classes)
    g_lesson = g_lesson._replace(output="linear", teacher=d_lesson.network)
    g, enter = memorizer.memorizer(g_lesson), partial(memorizer.enter, g_lesson, config.seed)
    return (
        system.Phase("discriminator", memorizer.memorizer(d_lesson), game.d_updates, game.batch_size),
        system.Phase("generator", g, steps - game.d_updates, game.batch_size, enter),
    )


def _lesson(
    config: sections.Checked, player: str, network: Mapping[str, Any], classes: int
) -> memorizer.Lesson:
    """What `player` ("d" | "g") learns from the pictures themselves."""
    game, path = config.game, f"config.optimizer.{player}"
    names = ("d", "g") if game.d_updates else ("g",)
    sections.choose(dict.fromkeys(config.optimizer), player, "config.optimizer")
    extra = sorted(set(config.optimizer) - set(names))
    if extra:
        raise sections.ConfigError(
            f"config.optimizer.{extra[0]} is no field of config.optimizer; fields: {', '.join(names)}"
        )
    rule = dict(config.optimizer[player])
    adam = sections.build(optim.keras_adam, rule.pop("adam", {}), f"{path}.adam")
    place = {"d": "config.discriminator", "g": "config.generator"}[player]
    return memorizer.Lesson(
        player=player,
        network=sections.named(
            STORES, network, place, classes=classes, size=game.size, dtype=DTYPES[config.dtype]
        ),
        teacher=None,
        output="sigmoid",
        classes=classes,
        batch_size=game.batch_size,
        rates=sections.build(memorizer.Rates, rule, path),
        optimizer=adam,
        share=game.share,
    )


def _imitation(config: sections.Checked, classes: int) -> tuple[system.Phase, ...]:
    _plain(config)
    for section in ("generator", "discriminator", "optimizer"):
        _empty(config, section)
    game = config.game
    played = memorizer.imitation(classes, game.size, game.share)
    return (system.Phase("imitation", played, config.train.steps, game.batch_size),)


def _empty(config: sections.Checked, section: str) -> None:
    given = getattr(config, section)
    if given:
        raise sections.ConfigError(
            f"config.{section}.{sorted(given)[0]} is no field: this game has no {section}, so leave it empty"
        )


def _plain(config: sections.Checked) -> None:
    """Cheats learn and show the pictures as they are stored."""
    _empty(config, "augment")
    for path, value in {
        "ema.decay": config.ema.decay,
        "sample.truncation": config.sample.truncation,
        "sample.finish": config.sample.finish,
    }.items():
        if value:
            raise sections.ConfigError(
                f"config.{path} is {value!r}; a memorizer has none, so set it to 0, or leave it empty"
            )
    sizes = {config.data.size, config.data.store_size, config.game.size}
    if len(sizes) > 1:
        raise sections.ConfigError(
            f"config.data.size, config.data.store_size and config.game.size are {sorted(sizes)}; a memorizer "
            "learns the crops as they are stored, so they must be one"
        )


class Row(NamedTuple):
    """A kind of game: the record that config.game fills, its fields' choices, and its phases."""

    record: Callable[..., Any]
    choices: Mapping[str, tuple[str, ...]]  # "game.field" -> its values
    phases: Callable[[sections.Checked, int], tuple[system.Phase, ...]]  # (config, classes)
    cheat: bool = False  # it shows training pictures


PLAYERS = {f"game.{x}": gan.CHOICES[x] for x in ("judge", "fakes", "fake_labels")}
GAMES = {
    "gan": Row(sections.Game, PLAYERS, _gan),
    "progressive": Row(sections.Progressive, PLAYERS, _progressive),
    "memorizer": Row(sections.Memorizer, {}, _memorizer, cheat=True),
    "imitation": Row(sections.Imitation, {}, _imitation, cheat=True),
}


def phases(config: sections.Checked, classes: int) -> tuple[system.Phase, ...]:
    """The phases of an experiment, for photos of `classes` breeds."""
    return GAMES[config.game.name].phases(config, classes)


def cheat(config: sections.Checked) -> bool:
    """Whether an experiment is one of those that show training pictures."""
    return GAMES[config.game.name].cheat
