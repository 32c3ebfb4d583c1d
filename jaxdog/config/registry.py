"""What a config's names stand for: networks, losses, optimisers, augmentations, what finishes a picture.

A section has a `name` that picks a function from a table here, or names several of a table's functions.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import optax
from flax import linen as nn

from jaxdog import types
from jaxdog.augment import diffaugment, transforms
from jaxdog.config import schema
from jaxdog.losses import adversarial, class_loss, regularizers
from jaxdog.memorizers import models
from jaxdog.models import (
    biggan,
    biggan_deep,
    csagan,
    dcgan,
    pixelcnn,
    progan,
    r3gan,
    resnet,
    sagan,
    style_dcgan,
    stylegan,
    transformer_prior,
    vqvae,
)
from jaxdog.ops import non_local_means
from jaxdog.ops import postprocess as finishing
from jaxdog.optim import optimizers

LOSSES = {
    "hinge": adversarial.hinge,
    "non_saturating": adversarial.non_saturating,
    "least_squares": adversarial.least_squares,
    "cross_entropy": adversarial.cross_entropy,
    "none": adversarial.none,
    "wasserstein": adversarial.wasserstein,
    "relativistic": adversarial.relativistic,
    "relativistic_average": adversarial.relativistic_average,
    "relativistic_soft": adversarial.relativistic_soft,
}
BREED_LOSSES = {
    "none": class_loss.none,
    "cross_entropy": class_loss.cross_entropy,
    "multi_hinge": class_loss.multi_hinge,
    "data_to_data": class_loss.data_to_data,
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
PRIORS = {"pixelcnn": pixelcnn.PixelCNN, "transformer": transformer_prior.Transformer}
STORES = {"rows": models.Rows, "bottleneck": models.Bottleneck}  # a memorizer's networks
OPTIMIZERS = {"adam": optimizers.adam, "adam_per_leaf": optimizers.adam_per_leaf}
SCHEDULES = {
    "constant": optimizers.constant,
    "linear_end": optimizers.linear_end,
    "cosine": optimizers.cosine,
    "cosine_restarts": optimizers.cosine_restarts,
    "exponential": optimizers.exponential,
    "clock_cosine": optimizers.clock_cosine,
}
# Steps of these are taken in the order of the tables: a config sorts its names.
FINISHES = {
    "shrink": finishing.shrink,
    "quantise": finishing.quantise,
    "non_local_means": non_local_means.non_local_means,
}
AUGMENTS = {
    "random_resized_crop": transforms.random_resized_crop,
    "shift_scale_rotate": transforms.shift_scale_rotate,
    "random_square": transforms.random_square,
    "jittered_square": transforms.jittered_square,
    "flip": transforms.flip,
    "rotate": transforms.rotate,
    "colour_jitter": transforms.colour_jitter,
    "uniform_noise": transforms.uniform_noise,
    "normal_noise": transforms.normal_noise,
}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def networks(config: schema.Checked, classes: int) -> tuple[nn.Module, nn.Module]:
    """Generator and discriminator of a two-player game."""
    section = config.discriminator
    return generator(config, classes), _network(
        DISCRIMINATORS, section, "config.discriminator", config, classes=classes
    )


def generator(config: schema.Checked, classes: int) -> nn.Module:
    """The network that makes pictures of latents."""
    given = {"classes": classes, "latent_dim": config.game.latent_dim}
    return _network(GENERATORS, config.generator, "config.generator", config, **given)


def encoder(config: schema.Checked) -> nn.Module:
    """The network that makes latents of pictures."""
    section = config.game.encoder
    return _network(ENCODERS, section, "config.game.encoder", config, latent_dim=config.game.latent_dim)


def _network(
    table: Mapping[str, Any], section: Mapping[str, Any], path: str, config: schema.Checked, **given: Any
) -> nn.Module:
    if hasattr(table.get(section.get("name", "")), "alpha"):
        given["alpha"] = None  # set by the game whose networks grow
    if hasattr(table.get(section.get("name", "")), "told"):
        given["told"] = 1.0  # set by the game whose breeds come in on the way
    return schema.named(table, section, path, size=config.game.size, dtype=DTYPES[config.dtype], **given)


def optimizer(section: Mapping[str, Any], path: str, steps: int) -> optax.GradientTransformationExtraArgs:
    """An optimiser with its schedule over `steps` updates."""
    fields = dict(section)
    schedule = schema.named(SCHEDULES, fields.pop("schedule", {}), f"{path}.schedule", steps=steps)
    return schema.named(OPTIMIZERS, fields, path, schedule=schedule, steps=steps)


def augments(section: Mapping[str, Any]) -> tuple[types.Augment, ...]:
    """Runtime augmentations in the order of AUGMENTS."""
    return tuple(schema.steps(AUGMENTS, section, "config.augment", ("key", "batch")))


def penalty(
    table: Mapping[str, Callable[..., regularizers.Penalty]], section: Mapping[str, Any], path: str
) -> regularizers.Penalties:
    """A player's penalties, by name."""
    made = schema.steps(table, section, path, ())
    return {name: make() for name, make in zip((x for x in table if x in section), made, strict=True)}


def diffaugments(section: Mapping[str, Any]) -> tuple[Callable[..., types.Array], ...]:
    """Changes of real and generated pictures alike, in the order of diffaugment.STEPS."""
    return tuple(schema.steps(diffaugment.STEPS, section, "config.game.diffaugment", ("key", "image", "p")))


def finish(section: Mapping[str, Any]) -> Callable[[types.Array], types.Array]:
    """What is done to each generated picture, in the order of FINISHES."""
    steps = schema.steps(FINISHES, section, "config.sample.finish", ("image",))
    return lambda image: functools.reduce(lambda image, step: step(image), steps, image)
