"""What a config's names stand for: networks, losses, optimisers, augmentations, what finishes a picture.

A section has a `name` that picks a function from a table here, or names several of a table's functions.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import optax
from flax import linen as nn

from jaxdog import augment, breeds, denoise, diffaugment, losses, optim, penalties, sections, system
from jaxdog import finish as finishing
from jaxdog.models import (
    biggan,
    biggan_deep,
    csagan,
    dcgan,
    memorizer,
    pixelcnn,
    priors,
    progan,
    r3gan,
    resnet,
    sagan,
    style_dcgan,
    stylegan,
    vqvae,
)

LOSSES = {
    "hinge": losses.hinge,
    "non_saturating": losses.non_saturating,
    "least_squares": losses.least_squares,
    "cross_entropy": losses.cross_entropy,
    "none": losses.none,
    "wasserstein": losses.wasserstein,
    "relativistic": losses.relativistic,
    "relativistic_average": losses.relativistic_average,
    "relativistic_soft": losses.relativistic_soft,
}
BREED_LOSSES = {
    "none": breeds.none,
    "cross_entropy": breeds.cross_entropy,
    "multi_hinge": breeds.multi_hinge,
    "data_to_data": breeds.data_to_data,
}
GENERATORS = {
    "biggan": biggan.Generator,
    "biggan_deep": biggan_deep.Generator,
    "csagan": csagan.Generator,
    "dcgan": dcgan.Generator,
    "progan": progan.Generator,
    "r3gan": r3gan.Generator,
    "resnet": resnet.Generator,
    "sagan": sagan.Generator,
    "style_dcgan": style_dcgan.Generator,
    "stylegan": stylegan.Generator,
}
DISCRIMINATORS = {
    "biggan": biggan.Discriminator,
    "biggan_deep": biggan_deep.Discriminator,
    "csagan": csagan.Discriminator,
    "dcgan": dcgan.Discriminator,
    "progan": progan.Discriminator,
    "r3gan": r3gan.Discriminator,
    "resnet": resnet.Discriminator,
    "sagan": sagan.Discriminator,
    "style_dcgan": style_dcgan.Discriminator,
    "stylegan": stylegan.Discriminator,
}
ENCODERS = {"dcgan": dcgan.Encoder}  # of pictures to latents
AUTOENCODERS = {"vqvae": vqvae.Autoencoder}  # of pictures to codes and back
PRIORS = {"pixelcnn": pixelcnn.PixelCNN, "transformer": priors.Transformer}
STORES = {"rows": memorizer.Rows, "bottleneck": memorizer.Bottleneck}  # a memorizer's networks
OPTIMIZERS = {"adam": optim.adam, "adam_per_leaf": optim.adam_per_leaf}
SCHEDULES = {
    "constant": optim.constant,
    "linear_end": optim.linear_end,
    "cosine": optim.cosine,
    "cosine_restarts": optim.cosine_restarts,
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
    "jittered_square": augment.jittered_square,
    "flip": augment.flip,
    "rotate": augment.rotate,
    "colour_jitter": augment.colour_jitter,
    "uniform_noise": augment.uniform_noise,
    "normal_noise": augment.normal_noise,
}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def networks(config: sections.Checked, classes: int) -> tuple[nn.Module, nn.Module]:
    """Generator and discriminator of a two-player game."""
    section = config.discriminator
    return generator(config, classes), _network(
        DISCRIMINATORS, section, "config.discriminator", config, classes=classes
    )


def generator(config: sections.Checked, classes: int) -> nn.Module:
    """The network that makes pictures of latents."""
    given = {"classes": classes, "latent_dim": config.game.latent_dim}
    return _network(GENERATORS, config.generator, "config.generator", config, **given)


def encoder(config: sections.Checked) -> nn.Module:
    """The network that makes latents of pictures."""
    section = config.game.encoder
    return _network(ENCODERS, section, "config.game.encoder", config, latent_dim=config.game.latent_dim)


def _network(
    table: Mapping[str, Any], section: Mapping[str, Any], path: str, config: sections.Checked, **given: Any
) -> nn.Module:
    if hasattr(table.get(section.get("name", "")), "alpha"):
        given["alpha"] = None  # set by the game whose networks grow
    if hasattr(table.get(section.get("name", "")), "told"):
        given["told"] = 1.0  # set by the game whose breeds come in on the way
    return sections.named(table, section, path, size=config.game.size, dtype=DTYPES[config.dtype], **given)


def optimizer(section: Mapping[str, Any], path: str, steps: int) -> optax.GradientTransformationExtraArgs:
    """An optimiser with its schedule over `steps` updates."""
    fields = dict(section)
    schedule = sections.named(SCHEDULES, fields.pop("schedule", {}), f"{path}.schedule", steps=steps)
    return sections.named(OPTIMIZERS, fields, path, schedule=schedule, steps=steps)


def augments(section: Mapping[str, Any]) -> tuple[system.Augment, ...]:
    """Runtime augmentations in the order of AUGMENTS."""
    return tuple(sections.steps(AUGMENTS, section, "config.augment", ("key", "batch")))


def penalty(
    table: Mapping[str, Callable[..., penalties.Penalty]], section: Mapping[str, Any], path: str
) -> penalties.Penalties:
    """A player's penalties, by name."""
    made = sections.steps(table, section, path, ())
    return {name: make() for name, make in zip((x for x in table if x in section), made, strict=True)}


def diffaugments(section: Mapping[str, Any]) -> tuple[Callable[..., system.Array], ...]:
    """Changes of real and generated pictures alike, in the order of diffaugment.STEPS."""
    return tuple(sections.steps(diffaugment.STEPS, section, "config.game.diffaugment", ("key", "image", "p")))


def finish(section: Mapping[str, Any]) -> Callable[[system.Array], system.Array]:
    """What is done to each generated picture, in the order of FINISHES."""
    steps = sections.steps(FINISHES, section, "config.sample.finish", ("image",))
    return lambda image: functools.reduce(lambda image, step: step(image), steps, image)
