"""The games a config can name, and the phases that its sections make of them."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdog import augment, diffaugment, ema, optim, parts, penalties, sampling, sections, system
from jaxdog.data import batches
from jaxdog.systems import gan, memorizer, progressive, vae, vqvae


def _played(config: sections.Checked, classes: int, decay: float) -> gan.Game:
    """The two-player game that a config's sections describe."""
    generator, discriminator = parts.networks(config, classes)
    game, steps = config.game, config.train.steps
    optimizers, sample = _optimizers(config, g=steps, d=steps * game.d_steps), config.sample
    played = gan.Game(
        generator=generator,
        discriminator=discriminator,
        latent_dim=game.latent_dim,
        classes=classes,
        loss=sections.named(parts.LOSSES, game.loss, "config.game.loss"),
        g_optimizer=optimizers["g"],
        d_optimizer=optimizers["d"],
        augment=parts.augments(config.augment),
        d_penalties=parts.penalty(penalties.OF_D, game.d_penalties, "config.game.d_penalties"),
        g_penalties=parts.penalty(penalties.OF_G, game.g_penalties, "config.game.g_penalties"),
        changes=parts.diffaugments(game.diffaugment),
        control=sections.named(diffaugment.CONTROLS, game.augment_p, "config.game.augment_p"),
        d_steps=game.d_steps,
        accumulate=game.accumulate,
        judge=game.judge,
        fakes=game.fakes,
        fake_labels=game.fake_labels,
        g_reals=game.g_reals,
        breed_loss=sections.named(parts.BREED_LOSSES, game.breed_loss, "config.game.breed_loss"),
        average=_average(config, decay),
        tracks=config.ema.tracks,
        label_ramp=game.label_ramp,
        steps=steps,
        latent=_latent(config),
        sample_norm=sample.norm,
        refresh=(-(-sample.refresh // max(sample.batch_size, 1)), sample.batch_size),
        finish=parts.finish(sample.finish),
        remat=config.devices.remat,
        axis=system.DEVICES if config.devices.own_statistics else None,
    )
    _check_sizes(config, played.augment, played.finish)
    return played


def _average(config: sections.Checked, decay: float) -> ema.Rule:
    """How the generator's average follows it."""
    section = config.ema
    for name, value in (("rampup", section.rampup), *(("tracks", x) for x in section.tracks)):
        if not 0.0 <= value < 1.0:
            raise sections.ConfigError(f"config.ema.{name} is {value}, and must lie in [0, 1)")
    return ema.Rule(decay, section.start, section.stats, section.rampup)


def _optimizers(config: sections.Checked, **steps: int) -> dict[str, optax.GradientTransformationExtraArgs]:
    """Each player's optimiser, for so many of its updates."""
    _players(config, tuple(steps))
    return {
        player: parts.optimizer(config.optimizer[player], f"config.optimizer.{player}", updates)
        for player, updates in steps.items()
    }


def _players(config: sections.Checked, names: tuple[str, ...]) -> None:
    """config.optimizer has a field for each player and no other."""
    for player in names:
        sections.choose(dict.fromkeys(config.optimizer), player, "config.optimizer")
    extra = sorted(set(config.optimizer) - set(names))
    if extra:
        raise sections.ConfigError(
            f"config.optimizer.{extra[0]} is no field of config.optimizer; fields: {', '.join(sorted(names))}"
        )


def _latent(config: sections.Checked) -> Callable[[system.Array], system.Array]:
    """key [b] -> latents [b, latent_dim] as pictures are drawn from."""
    sample = config.sample
    return partial(
        sampling.latent, dim=config.game.latent_dim, truncation=sample.truncation, method=sample.method
    )


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
    for name, table in (("generator", parts.GENERATORS), ("discriminator", parts.DISCRIMINATORS)):
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
            average=played.average._replace(decay=moment.decay),
            finish=lambda image: played.finish(progressive.enlarged(image, game.size)),
        )
        return gan.gan(grown)

    real = game.batch_size * gan.batches(played)
    return progressive.phases(stages, play, real, config.data.store_size, config.seed)


def _check_sizes(
    config: sections.Checked,
    augments: Sequence[system.Augment],
    finish: Callable[[system.Array], system.Array],
) -> None:
    """What is stored must be augmented to what the networks see, what is drawn finished to data.size."""
    side = config.data.store_size

    def seen() -> system.Array:
        data = batches.resident(jnp.zeros((1, side, side, 3), jnp.uint8), jnp.zeros(1, jnp.int32))
        batch = batches.batch(data, jax.random.key(0), 0, 2)
        return augment.applied(augments, jax.random.key(0), batch).image

    found = jax.eval_shape(seen).shape[1:3]
    if found != (config.game.size, config.game.size):
        raise sections.ConfigError(
            f"crops are kept at config.data.store_size = {side} and come out of config.augment at "
            f"{found[0]}x{found[1]}, but config.game.size is {config.game.size}"
        )
    drawn = jax.ShapeDtypeStruct((2, config.game.size, config.game.size, 3), jnp.float32)
    found = jax.eval_shape(finish, drawn).shape[1:3]
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
    _players(config, names)
    rule = dict(config.optimizer[player])
    adam = sections.build(optim.keras_adam, rule.pop("adam", {}), f"{path}.adam")
    place = {"d": "config.discriminator", "g": "config.generator"}[player]
    return memorizer.Lesson(
        player=player,
        network=sections.named(
            parts.STORES, network, place, classes=classes, size=game.size, dtype=parts.DTYPES[config.dtype]
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
    _unset(config, "a memorizer", "ema.decay", "sample.truncation", "sample.finish")
    sizes = {config.data.size, config.data.store_size, config.game.size}
    if len(sizes) > 1:
        raise sections.ConfigError(
            f"config.data.size, config.data.store_size and config.game.size are {sorted(sizes)}; a memorizer "
            "learns the crops as they are stored, so they must be one"
        )


def _unset(config: sections.Checked, who: str, *paths: str) -> None:
    for path in paths:
        section, field = path.split(".")
        value = getattr(getattr(config, section), field)
        if value:
            raise sections.ConfigError(
                f"config.{path} is {value!r}; {who} has none, so set it to 0, or leave it empty"
            )


def _vae(config: sections.Checked, classes: int) -> tuple[system.Phase, ...]:
    game, steps = config.game, config.train.steps
    _alone(config, "a variational autoencoder", "ema.decay")
    optimizers = _optimizers(config, encoder=steps, g=steps)
    played = vae.Game(
        encoder=parts.encoder(config),
        decoder=parts.generator(config, classes),
        latent_dim=game.latent_dim,
        likelihood=game.likelihood,
        kl_weight=game.kl_weight,
        encoder_optimizer=optimizers["encoder"],
        g_optimizer=optimizers["g"],
        augment=parts.augments(config.augment),
        latent=_latent(config),
        finish=parts.finish(config.sample.finish),
    )
    _check_sizes(config, played.augment, played.finish)
    return (system.Phase("vae", vae.vae(played), steps, game.batch_size),)


def _vqvae(config: sections.Checked, classes: int) -> tuple[system.Phase, ...]:
    """The autoencoder's phase, then the prior's."""
    game, steps, dtype = config.game, config.train.steps, parts.DTYPES[config.dtype]
    _alone(config, "an autoencoder with codes", "ema.decay", "sample.truncation")
    first = game.autoencoder_steps
    if not 0 < first < steps:
        raise sections.ConfigError(
            f"config.game.autoencoder_steps is {first}, and must lie in (0, config.train.steps = {steps})"
        )
    optimizers = _optimizers(config, autoencoder=first, prior=steps - first)
    played = vqvae.Game(
        autoencoder=sections.named(
            parts.AUTOENCODERS, config.generator, "config.generator", code_dim=game.code_dim, dtype=dtype
        ),
        prior=sections.named(
            parts.PRIORS,
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
        optimizer=optimizers["autoencoder"],
        prior_optimizer=optimizers["prior"],
        augment=parts.augments(config.augment),
        finish=parts.finish(config.sample.finish),
    )
    _check_sizes(config, played.augment, played.finish)
    enter = partial(vqvae.enter, played, config.seed)
    return (
        system.Phase("autoencoder", vqvae.autoencoder(played), first, game.batch_size),
        system.Phase("prior", vqvae.prior(played), steps - first, game.batch_size, enter),
    )


def _alone(config: sections.Checked, who: str, *unset: str) -> None:
    """There is no second player, and pictures are drawn from the networks as they are."""
    _empty(config, "discriminator")
    _unset(config, who, *unset)
    if config.sample.norm != "running":
        raise sections.ConfigError(
            f"config.sample.norm is {config.sample.norm!r}; {who} samples with running statistics: 'running'"
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
    "vae": Row(sections.VAE, {"game.likelihood": tuple(vae.LIKELIHOODS)}, _vae),
    "vqvae": Row(sections.VQVAE, {}, _vqvae),
    "memorizer": Row(sections.Memorizer, {}, _memorizer, cheat=True),
    "imitation": Row(sections.Imitation, {}, _imitation, cheat=True),
}
