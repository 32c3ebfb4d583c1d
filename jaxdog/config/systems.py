"""The types of systems that a config may name: their sections, and their training phases."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from jaxdog import types
from jaxdog.config import phase_parts, registry, schema, sections
from jaxdog.memorizers import system as memorizer
from jaxdog.systems import flow, gan, gan_spec, progressive, vae, vqvae
from jaxdog.utils import errors

Phases = tuple[types.Phase, ...]
NO_GENERATOR, NO_DISCRIMINATOR, NO_OPTIMIZER = (
    sections.Empty(f"this system has no {name}, so leave it empty")
    for name in ("generator", "discriminator", "optimizer")
)


@dataclasses.dataclass(frozen=True)
class SystemType:
    """A type of system: its record, the choices of its sections, and its phases."""

    record: Callable[..., Any]  # of config.system; `nested` holds its fields that are sections
    phases: Callable[[schema.Experiment, int], Phases]  # (config, number of classes) -> phases
    nested: Mapping[str, sections.Section] = dataclasses.field(default_factory=dict)
    generator: sections.Section = NO_GENERATOR
    discriminator: sections.Section = NO_DISCRIMINATOR
    optimizer: sections.Section = NO_OPTIMIZER
    cheat: bool = False  # its samples are training images


# ------------------------------------------------------------------ GANs


def _gan(config: schema.Experiment, classes: int) -> Phases:
    spec = _gan_spec(config, classes, phase_parts.single_decay(config))
    real = config.system.batch_size * gan_spec.num_real_microbatches(spec)
    return (types.Phase("gan", gan.gan(spec), config.train.steps, real),)


def _progressive(config: schema.Experiment, classes: int) -> Phases:
    """One phase for each of config.system.resolutions."""
    system, spec = config.system, _gan_spec(config, classes, 0.0)  # each stage sets its own EMA decay
    stages = progressive.stages(
        system.resolutions,
        system.steps,
        system.fade,
        config.ema.decay,
        system.ema_milestones,
        config.train.steps,
    )

    def make_system(stage: progressive.Stage, progress: progressive.Progress) -> types.System:
        downscale = partial(progressive.downscale_reals, size=stage.resolution, alpha=progress.alpha)
        grown = spec._replace(
            generator=spec.generator.clone(size=stage.resolution, alpha=progress.alpha),
            discriminator=spec.discriminator.clone(size=stage.resolution, alpha=progress.alpha),
            augment=(*spec.augment, downscale),
            ema_rule=spec.ema_rule._replace(decay=progress.ema_decay),
            postprocess=lambda image: spec.postprocess(progressive.upscale(image, system.resolution)),
        )
        return gan.gan(grown)

    real = system.batch_size * gan_spec.num_real_microbatches(spec)
    return progressive.phases(stages, make_system, real, config.data.stored_resolution, config.seed)


def _gan_spec(config: schema.Experiment, classes: int, ema_decay: float) -> gan_spec.GANSpec:
    """The hyperparameters of a GAN."""
    system, sample, steps = config.system, config.sample, config.train.steps
    optimizers = phase_parts.optimizers(config, g=steps, d=steps * system.num_d_steps)
    spec = gan_spec.GANSpec(
        generator=registry.generator(config, classes),
        discriminator=registry.discriminator(config, classes),
        latent_dim=system.latent_dim,
        classes=classes,
        loss=registry.LOSSES.instantiate(system.loss, "config.system.loss"),
        g_optimizer=optimizers["g"],
        d_optimizer=optimizers["d"],
        augment=registry.augments(config.augment, system.resolution),
        d_regularizers=_regularizers(registry.D_REGULARIZERS, system.d_regularizers, "d_regularizers"),
        g_regularizers=_regularizers(registry.G_REGULARIZERS, system.g_regularizers, "g_regularizers"),
        diffaugment=registry.diffaugments(system.diffaugment),
        augment_p_controller=registry.AUGMENT_P.instantiate(system.augment_p, "config.system.augment_p"),
        num_d_steps=system.num_d_steps,
        grad_accumulation_steps=system.grad_accumulation_steps,
        split_d=system.split_d,
        reuse_latents=system.reuse_latents,
        g_step_groups=system.g_step_groups,
        fake_label_source=system.fake_label_source,
        g_fresh_reals=system.g_fresh_reals,
        class_loss=registry.CLASS_LOSSES.instantiate(system.class_loss, "config.system.class_loss"),
        ema_rule=phase_parts.ema_rule(config, ema_decay),
        extra_ema_decays=config.ema.extra_ema_decays,
        class_transition=system.class_transition,
        num_steps=steps,
        latent=phase_parts.latent(config, config.system.latent_dim),
        sample_batch_stats=sample.batch_stats,
        num_standing_batches=-(-sample.num_standing_images // max(sample.batch_size, 1)),
        standing_batch_size=sample.batch_size,
        postprocess=registry.postprocessing(sample.postprocess, config.submit.resolution),
        remat=config.parallel.remat,
        axis=None if config.parallel.sync_batch_norm else types.DATA_AXIS,
    )
    phase_parts.check_resolutions(config, spec.augment, spec.postprocess)
    return spec


def _regularizers(table: sections.AllOf, section: Mapping[str, Any], name: str) -> dict[str, Any]:
    bound = table.bind(section, f"config.system.{name}")
    return {row: regularizer() for row, regularizer in bound.items()}


# ------------------------------------------------------------------ autoencoders


def _vae(config: schema.Experiment, classes: int) -> Phases:
    system, steps = config.system, config.train.steps
    phase_parts.check_running_statistics(config, "a variational autoencoder")
    phase_parts.check_no_ema(config, "a variational autoencoder")
    optimizers = phase_parts.optimizers(config, encoder=steps, g=steps)
    spec = vae.VAESpec(
        encoder=registry.encoder(config),
        decoder=registry.generator(config, classes),
        latent_dim=system.latent_dim,
        likelihood=system.likelihood,
        kl_weight=system.kl_weight,
        encoder_optimizer=optimizers["encoder"],
        g_optimizer=optimizers["g"],
        augment=registry.augments(config.augment, system.resolution),
        latent=phase_parts.latent(config, config.system.latent_dim),
        postprocess=registry.postprocessing(config.sample.postprocess, config.submit.resolution),
    )
    phase_parts.check_resolutions(config, spec.augment, spec.postprocess)
    return (types.Phase("vae", vae.vae(spec), steps, system.batch_size),)


def _vqvae(config: schema.Experiment, classes: int) -> Phases:
    """The autoencoder's phase, then the prior's."""
    system, steps, dtype = config.system, config.train.steps, registry.DTYPES[config.dtype]
    phase_parts.check_running_statistics(config, "an autoencoder with codes")
    phase_parts.check_no_ema(config, "an autoencoder with codes")
    phase_parts.check_unset(config, "an autoencoder with codes", "sample.truncation")
    first = system.autoencoder_steps
    if not 0 < first < steps:
        raise errors.ConfigError(
            f"config.system.autoencoder_steps is {first}, and must lie in (0, config.train.steps = {steps})"
        )
    optimizers = phase_parts.optimizers(config, autoencoder=first, prior=steps - first)
    spec = vqvae.VQVAESpec(
        autoencoder=registry.AUTOENCODERS.instantiate(
            config.generator, "config.generator", code_dim=system.code_dim, dtype=dtype
        ),
        prior=registry.PRIORS.instantiate(
            system.prior,
            "config.system.prior",
            lengths=tuple(side**2 for side in vqvae.map_sides(system.resolution)),
            codebook_size=system.codebook_size,
            classes=classes,
            dtype=dtype,
        ),
        size=system.resolution,
        codebook_size=system.codebook_size,
        commitment=system.commitment,
        decay=system.decay,
        dead_code_threshold=system.dead_code_threshold,
        temperature=system.temperature,
        optimizer=optimizers["autoencoder"],
        prior_optimizer=optimizers["prior"],
        augment=registry.augments(config.augment, system.resolution),
        postprocess=registry.postprocessing(config.sample.postprocess, config.submit.resolution),
    )
    phase_parts.check_resolutions(config, spec.augment, spec.postprocess)
    transition = partial(vqvae.transition, spec, config.seed)
    return (
        types.Phase("autoencoder", vqvae.autoencoder(spec), first, system.batch_size),
        types.Phase("prior", vqvae.prior(spec), steps - first, system.batch_size, transition),
    )


# ------------------------------------------------------------------ flow matching


def _flow(config: schema.Experiment, classes: int) -> Phases:
    phase_parts.check_running_statistics(config, "flow matching")
    system, shape = config.system, (config.system.resolution, config.system.resolution, 3)
    spec = flow.FlowSpec(
        network=registry.VELOCITIES.instantiate(
            config.generator,
            "config.generator",
            size=system.resolution,
            classes=classes,
            dtype=registry.DTYPES[config.dtype],
        ),
        shape=shape,
        classes=classes,
        time=system.time,
        label_dropout=system.label_dropout,
        guidance=system.guidance,
        solver=system.solver,
        solver_steps=system.solver_steps,
        optimizer=phase_parts.optimizers(config, g=config.train.steps)["g"],
        augment=registry.augments(config.augment, system.resolution),
        ema_rule=phase_parts.ema_rule(config, phase_parts.single_decay(config)),
        extra_ema_decays=config.ema.extra_ema_decays,
        latent=phase_parts.latent(config, math.prod(shape)),
        postprocess=registry.postprocessing(config.sample.postprocess, config.submit.resolution),
    )
    phase_parts.check_resolutions(config, spec.augment, spec.postprocess)
    return (types.Phase("flow", flow.flow(spec), config.train.steps, system.batch_size),)


# ------------------------------------------------------------------ memorizers


def _memorizer(config: schema.Experiment, classes: int) -> Phases:
    """The discriminator's phase, then the generator's; with discriminator_steps = 0 the generator's alone."""
    phase_parts.check_memorizer(config)
    system, steps = config.system, config.train.steps
    first = system.discriminator_steps
    if not 0 <= first < steps:
        raise errors.ConfigError(
            f"config.system.discriminator_steps is {first}, and must lie in [0, config.train.steps = {steps})"
        )
    players = ("d", "g") if first else ("g",)
    sections.Each(registry.MEMORIZER_OPTIMIZER, players).check(config.optimizer, "config.optimizer")
    g_spec = _memorizer_spec(config, "g", config.generator, classes)
    if first == 0:
        NO_DISCRIMINATOR.check(config.discriminator, "config.discriminator")
        return (types.Phase("supervised", memorizer.memorizer(g_spec), steps, system.batch_size),)
    d_spec = _memorizer_spec(config, "d", config.discriminator, classes)
    g_spec = g_spec._replace(output="linear", teacher=d_spec.network)
    transition = partial(memorizer.transition, g_spec, config.seed)
    return (
        types.Phase("discriminator", memorizer.memorizer(d_spec), first, system.batch_size),
        types.Phase("generator", memorizer.memorizer(g_spec), steps - first, system.batch_size, transition),
    )


def _memorizer_spec(
    config: schema.Experiment, player: str, network: Mapping[str, Any], classes: int
) -> memorizer.MemorizerSpec:
    """The spec of the training of `player` ("d" | "g")."""
    system, path = config.system, f"config.optimizer.{player}"
    optimizer, schedule = registry.memorizer_optimizer(config.optimizer[player], path)
    return memorizer.MemorizerSpec(
        player=player,
        network=registry.MEMORIZERS.instantiate(
            network,
            {"d": "config.discriminator", "g": "config.generator"}[player],
            classes=classes,
            size=system.resolution,
            dtype=registry.DTYPES[config.dtype],
        ),
        teacher=None,
        output="sigmoid",
        classes=classes,
        batch_size=system.batch_size,
        schedule=schedule,
        optimizer=optimizer,
        blend_weight=system.blend_weight,
    )


def _imitation(config: schema.Experiment, classes: int) -> Phases:
    phase_parts.check_memorizer(config)
    system = config.system
    imitation = memorizer.imitation(classes, system.resolution, system.blend_weight)
    return (types.Phase("imitation", imitation, config.train.steps, system.batch_size),)


# ------------------------------------------------------------------ the table

_TWO_PLAYERS = {
    "loss": registry.LOSSES,
    "class_loss": registry.CLASS_LOSSES,
    "d_regularizers": registry.D_REGULARIZERS,
    "g_regularizers": registry.G_REGULARIZERS,
    "diffaugment": registry.DIFFAUGMENTS,
    "augment_p": registry.AUGMENT_P,
}
_PLAYERS = sections.Each(registry.OPTIMIZERS, ("g", "d"))

SYSTEMS = {
    "gan": SystemType(schema.GAN, _gan, _TWO_PLAYERS, registry.GENERATORS, registry.DISCRIMINATORS, _PLAYERS),
    "progressive": SystemType(
        schema.Progressive,
        _progressive,
        _TWO_PLAYERS,
        registry.GROWING_GENERATORS,
        registry.GROWING_DISCRIMINATORS,
        _PLAYERS,
    ),
    "vae": SystemType(
        schema.VAE,
        _vae,
        {"encoder": registry.ENCODERS},
        registry.GENERATORS,
        optimizer=sections.Each(registry.OPTIMIZERS, ("encoder", "g")),
    ),
    "vqvae": SystemType(
        schema.VQVAE,
        _vqvae,
        {"prior": registry.PRIORS},
        registry.AUTOENCODERS,
        optimizer=sections.Each(registry.OPTIMIZERS, ("autoencoder", "prior")),
    ),
    "flow": SystemType(
        schema.Flow,
        _flow,
        generator=registry.VELOCITIES,
        optimizer=sections.Each(registry.OPTIMIZERS, ("g",)),
    ),
    "memorizer": SystemType(
        schema.Memorizer,
        _memorizer,
        generator=registry.MEMORIZERS,
        discriminator=dataclasses.replace(registry.MEMORIZERS, default={}, optional=True),
        optimizer=sections.Each(registry.MEMORIZER_OPTIMIZER),
        cheat=True,
    ),
    "imitation": SystemType(schema.Imitation, _imitation, cheat=True),
}
