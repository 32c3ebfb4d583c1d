"""The games a config can name, and the phases that its sections make of them."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdog import types
from jaxdog.augment import diffaugment, transforms
from jaxdog.config import registry, schema
from jaxdog.data import batches
from jaxdog.losses import regularizers
from jaxdog.memorizers import system
from jaxdog.optim import ema, optimizers
from jaxdog.systems import gan, progressive, sampling, vae, vqvae


def _played(config: schema.Checked, classes: int, decay: float) -> gan.Game:
    """The two-player game that a config's sections describe."""
    generator, discriminator = registry.networks(config, classes)
    game, steps = config.game, config.train.steps
    by_player, sample = _optimizers(config, g=steps, d=steps * game.d_steps), config.sample
    played = gan.Game(
        generator=generator,
        discriminator=discriminator,
        latent_dim=game.latent_dim,
        classes=classes,
        loss=schema.named(registry.LOSSES, game.loss, "config.game.loss"),
        g_optimizer=by_player["g"],
        d_optimizer=by_player["d"],
        augment=registry.augments(config.augment),
        d_penalties=registry.penalty(regularizers.OF_D, game.d_penalties, "config.game.d_penalties"),
        g_penalties=registry.penalty(regularizers.OF_G, game.g_penalties, "config.game.g_penalties"),
        changes=registry.diffaugments(game.diffaugment),
        control=schema.named(diffaugment.CONTROLS, game.augment_p, "config.game.augment_p"),
        d_steps=game.d_steps,
        accumulate=game.accumulate,
        judge=game.judge,
        fakes=game.fakes,
        fake_labels=game.fake_labels,
        g_reals=game.g_reals,
        breed_loss=schema.named(registry.BREED_LOSSES, game.breed_loss, "config.game.breed_loss"),
        average=_average(config, decay),
        tracks=config.ema.tracks,
        label_ramp=game.label_ramp,
        steps=steps,
        latent=_latent(config),
        sample_norm=sample.norm,
        refresh=(-(-sample.refresh // max(sample.batch_size, 1)), sample.batch_size),
        finish=registry.finish(sample.finish),
        remat=config.devices.remat,
        axis=types.DEVICES if config.devices.own_statistics else None,
    )
    _check_sizes(config, played.augment, played.finish)
    return played


def _average(config: schema.Checked, decay: float) -> ema.Rule:
    """How the generator's average follows it."""
    section = config.ema
    for name, value in (("rampup", section.rampup), *(("tracks", x) for x in section.tracks)):
        if not 0.0 <= value < 1.0:
            raise schema.ConfigError(f"config.ema.{name} is {value}, and must lie in [0, 1)")
    return ema.Rule(decay, section.start, section.stats, section.rampup)


def _optimizers(config: schema.Checked, **steps: int) -> dict[str, optax.GradientTransformationExtraArgs]:
    """Each player's optimiser, for so many of its updates."""
    _players(config, tuple(steps))
    return {
        player: registry.optimizer(config.optimizer[player], f"config.optimizer.{player}", updates)
        for player, updates in steps.items()
    }


def _players(config: schema.Checked, names: tuple[str, ...]) -> None:
    """config.optimizer has a field for each player and no other."""
    for player in names:
        schema.choose(dict.fromkeys(config.optimizer), player, "config.optimizer")
    extra = sorted(set(config.optimizer) - set(names))
    if extra:
        raise schema.ConfigError(
            f"config.optimizer.{extra[0]} is no field of config.optimizer; fields: {', '.join(sorted(names))}"
        )


def _latent(config: schema.Checked) -> Callable[[types.Array], types.Array]:
    """key [b] -> latents [b, latent_dim] as pictures are drawn from."""
    sample = config.sample
    return partial(
        sampling.latent, dim=config.game.latent_dim, truncation=sample.truncation, method=sample.method
    )


def _gan(config: schema.Checked, classes: int) -> tuple[types.Phase, ...]:
    if isinstance(config.ema.decay, tuple):
        raise schema.ConfigError(
            f"config.ema.decay is {config.ema.decay!r}, but this game has one phase: it needs one number"
        )
    played = _played(config, classes, config.ema.decay)
    real = config.game.batch_size * gan.batches(played)
    return (types.Phase("gan", gan.gan(played), config.train.steps, real),)


def _progressive(config: schema.Checked, classes: int) -> tuple[types.Phase, ...]:
    """One phase for each of config.game.sizes: the same game with networks that grow."""
    for name, table in (("generator", registry.GENERATORS), ("discriminator", registry.DISCRIMINATORS)):
        growing = {row: network for row, network in table.items() if hasattr(network, "alpha")}
        schema.choose(growing, getattr(config, name).get("name", ""), f"config.{name}.name")
    game, played = config.game, _played(config, classes, 0.0)  # its decay is the moment's
    stages = progressive.stages(
        game.sizes, game.steps, game.fade, config.ema.decay, game.cuts, game.size, config.train.steps
    )

    def play(stage: progressive.Stage, moment: progressive.Moment) -> types.System:
        seen = partial(progressive.shrink, size=stage.size, alpha=moment.alpha)
        grown = played._replace(
            generator=played.generator.clone(size=stage.size, alpha=moment.alpha),
            discriminator=played.discriminator.clone(size=stage.size, alpha=moment.alpha),
            augment=(*played.augment, seen),
            average=played.average._replace(decay=moment.decay),
            finish=lambda image: played.finish(progressive.enlarged(image, game.size)),
        )
        return gan.gan(grown)

    real = game.batch_size * gan.batches(played)
    return progressive.phases(stages, play, real, config.data.store_size, config.seed)


def _check_sizes(
    config: schema.Checked,
    augments: Sequence[types.Augment],
    finish: Callable[[types.Array], types.Array],
) -> None:
    """What is stored must be augmented to what the networks see, what is drawn finished to data.size."""
    side = config.data.store_size

    def seen() -> types.Array:
        data = batches.resident(jnp.zeros((1, side, side, 3), jnp.uint8), jnp.zeros(1, jnp.int32))
        batch = batches.batch(data, jax.random.key(0), 0, 2)
        return transforms.applied(augments, jax.random.key(0), batch).image

    found = jax.eval_shape(seen).shape[1:3]
    if found != (config.game.size, config.game.size):
        raise schema.ConfigError(
            f"crops are kept at config.data.store_size = {side} and come out of config.augment at "
            f"{found[0]}x{found[1]}, but config.game.size is {config.game.size}"
        )
    drawn = jax.ShapeDtypeStruct((2, config.game.size, config.game.size, 3), jnp.float32)
    found = jax.eval_shape(finish, drawn).shape[1:3]
    if found != (config.data.size, config.data.size):
        raise schema.ConfigError(
            f"pictures of config.game.size = {config.game.size} come out of config.sample.finish at "
            f"{found[0]}x{found[1]}, but config.data.size is {config.data.size}"
        )


def _memorizer(config: schema.Checked, classes: int) -> tuple[types.Phase, ...]:
    """A discriminator's lesson, then a generator's; with game.d_updates = 0 the generator's alone."""
    _plain(config)
    game, steps = config.game, config.train.steps
    if not 0 <= game.d_updates < steps:
        raise schema.ConfigError(
            f"config.game.d_updates is {game.d_updates}, and must lie in [0, config.train.steps = {steps})"
        )
    g_lesson = _lesson(config, "g", config.generator, classes)
    g = system.memorizer(g_lesson)
    if game.d_updates == 0:
        _empty(config, "discriminator")
        return (types.Phase("supervised", g, steps, game.batch_size),)
    d_lesson = _lesson(config, "d", config.discriminator, classes)
    g_lesson = g_lesson._replace(output="linear", teacher=d_lesson.network)
    g, enter = system.memorizer(g_lesson), partial(system.enter, g_lesson, config.seed)
    return (
        types.Phase("discriminator", system.memorizer(d_lesson), game.d_updates, game.batch_size),
        types.Phase("generator", g, steps - game.d_updates, game.batch_size, enter),
    )


def _lesson(config: schema.Checked, player: str, network: Mapping[str, Any], classes: int) -> system.Lesson:
    """What `player` ("d" | "g") learns from the pictures themselves."""
    game, path = config.game, f"config.optimizer.{player}"
    names = ("d", "g") if game.d_updates else ("g",)
    _players(config, names)
    rule = dict(config.optimizer[player])
    adam = schema.build(optimizers.keras_adam, rule.pop("adam", {}), f"{path}.adam")
    place = {"d": "config.discriminator", "g": "config.generator"}[player]
    return system.Lesson(
        player=player,
        network=schema.named(
            registry.STORES,
            network,
            place,
            classes=classes,
            size=game.size,
            dtype=registry.DTYPES[config.dtype],
        ),
        teacher=None,
        output="sigmoid",
        classes=classes,
        batch_size=game.batch_size,
        rates=schema.build(system.Rates, rule, path),
        optimizer=adam,
        share=game.share,
    )


def _imitation(config: schema.Checked, classes: int) -> tuple[types.Phase, ...]:
    _plain(config)
    for section in ("generator", "discriminator", "optimizer"):
        _empty(config, section)
    game = config.game
    played = system.imitation(classes, game.size, game.share)
    return (types.Phase("imitation", played, config.train.steps, game.batch_size),)


def _empty(config: schema.Checked, section: str) -> None:
    given = getattr(config, section)
    if given:
        raise schema.ConfigError(
            f"config.{section}.{sorted(given)[0]} is no field: this game has no {section}, so leave it empty"
        )


def _plain(config: schema.Checked) -> None:
    """Cheats learn and show the pictures as they are stored."""
    _empty(config, "augment")
    _unset(config, "a memorizer", "ema.decay", "sample.truncation", "sample.finish")
    sizes = {config.data.size, config.data.store_size, config.game.size}
    if len(sizes) > 1:
        raise schema.ConfigError(
            f"config.data.size, config.data.store_size and config.game.size are {sorted(sizes)}; a memorizer "
            "learns the crops as they are stored, so they must be one"
        )


def _unset(config: schema.Checked, who: str, *paths: str) -> None:
    for path in paths:
        section, field = path.split(".")
        value = getattr(getattr(config, section), field)
        if value:
            raise schema.ConfigError(
                f"config.{path} is {value!r}; {who} has none, so set it to 0, or leave it empty"
            )


def _vae(config: schema.Checked, classes: int) -> tuple[types.Phase, ...]:
    game, steps = config.game, config.train.steps
    _alone(config, "a variational autoencoder", "ema.decay")
    by_player = _optimizers(config, encoder=steps, g=steps)
    played = vae.Game(
        encoder=registry.encoder(config),
        decoder=registry.generator(config, classes),
        latent_dim=game.latent_dim,
        likelihood=game.likelihood,
        kl_weight=game.kl_weight,
        encoder_optimizer=by_player["encoder"],
        g_optimizer=by_player["g"],
        augment=registry.augments(config.augment),
        latent=_latent(config),
        finish=registry.finish(config.sample.finish),
    )
    _check_sizes(config, played.augment, played.finish)
    return (types.Phase("vae", vae.vae(played), steps, game.batch_size),)


def _vqvae(config: schema.Checked, classes: int) -> tuple[types.Phase, ...]:
    """The autoencoder's phase, then the prior's."""
    game, steps, dtype = config.game, config.train.steps, registry.DTYPES[config.dtype]
    _alone(config, "an autoencoder with codes", "ema.decay", "sample.truncation")
    first = game.autoencoder_steps
    if not 0 < first < steps:
        raise schema.ConfigError(
            f"config.game.autoencoder_steps is {first}, and must lie in (0, config.train.steps = {steps})"
        )
    by_player = _optimizers(config, autoencoder=first, prior=steps - first)
    played = vqvae.Game(
        autoencoder=schema.named(
            registry.AUTOENCODERS, config.generator, "config.generator", code_dim=game.code_dim, dtype=dtype
        ),
        prior=schema.named(
            registry.PRIORS,
            game.prior,
            "config.game.prior",
            lengths=tuple(side**2 for side in vqvae.sides(game.size)),
            codes=game.codes,
            classes=classes,
            dtype=dtype,
        ),
        size=game.size,
        codes=game.codes,
        commitment=game.commitment,
        decay=game.decay,
        restart=game.restart,
        temperature=game.temperature,
        optimizer=by_player["autoencoder"],
        prior_optimizer=by_player["prior"],
        augment=registry.augments(config.augment),
        finish=registry.finish(config.sample.finish),
    )
    _check_sizes(config, played.augment, played.finish)
    enter = partial(vqvae.enter, played, config.seed)
    return (
        types.Phase("autoencoder", vqvae.autoencoder(played), first, game.batch_size),
        types.Phase("prior", vqvae.prior(played), steps - first, game.batch_size, enter),
    )


def _alone(config: schema.Checked, who: str, *unset: str) -> None:
    """There is no second player, and pictures are drawn from the networks as they are."""
    _empty(config, "discriminator")
    _unset(config, who, *unset)
    if config.sample.norm != "running":
        raise schema.ConfigError(
            f"config.sample.norm is {config.sample.norm!r}; {who} samples with running statistics: 'running'"
        )


class Row(NamedTuple):
    """A kind of game: the record that config.game fills, its fields' choices, and its phases."""

    record: Callable[..., Any]
    choices: Mapping[str, tuple[str, ...]]  # "game.field" -> its values
    phases: Callable[[schema.Checked, int], tuple[types.Phase, ...]]  # (config, classes)
    cheat: bool = False  # it shows training pictures


PLAYERS = {f"game.{x}": gan.CHOICES[x] for x in ("judge", "fakes", "fake_labels")}
GAMES = {
    "gan": Row(schema.Game, PLAYERS, _gan),
    "progressive": Row(schema.Progressive, PLAYERS, _progressive),
    "vae": Row(schema.VAE, {"game.likelihood": tuple(vae.LIKELIHOODS)}, _vae),
    "vqvae": Row(schema.VQVAE, {}, _vqvae),
    "memorizer": Row(schema.Memorizer, {}, _memorizer, cheat=True),
    "imitation": Row(schema.Imitation, {}, _imitation, cheat=True),
}
