"""The names that a config may use: networks, losses, optimizers, augmentations, crop recipes.

A new option is a function or a class in its package and a row of a table: its parameters are the fields.
Some tables are kept next to their functions, and this module refers to them: crops, selection steps,
regularizers, DiffAugment. Metrics are in `metrics/metric_table.py`.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import optax
from flax import linen as nn

from jaxdog import types
from jaxdog.augment import diffaugment, transforms
from jaxdog.config import schema, sections
from jaxdog.data import crop_recipes, select
from jaxdog.losses import adversarial, class_loss, regularizers
from jaxdog.memorizers import models
from jaxdog.memorizers import system as memorizer
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
    unet,
    vqvae,
)
from jaxdog.ops import non_local_means, postprocess
from jaxdog.optim import optimizers, schedules

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}

# ------------------------------------------------------------------ networks

# Arguments that are passed to a network if it has parameters of these names.
NETWORK_ARGS = (
    "size",
    "classes",
    "latent_dim",
    "dtype",
    "alpha",
    "class_scale",
    "code_dim",
    "lengths",
    "codebook_size",
)

GENERATORS = sections.OneOf(
    {
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
    },
    given=NETWORK_ARGS,
)
DISCRIMINATORS = sections.OneOf(
    {
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
    },
    given=NETWORK_ARGS,
)
# Networks that grow: their field `alpha` fades in the newest blocks.
GROWING_GENERATORS = sections.OneOf(
    {"progan": progan.Generator, "stylegan": stylegan.Generator}, given=NETWORK_ARGS
)
GROWING_DISCRIMINATORS = sections.OneOf(
    {"progan": progan.Discriminator, "stylegan": stylegan.Discriminator}, given=NETWORK_ARGS
)
ENCODERS = sections.OneOf({"dcgan": dcgan.Encoder}, given=NETWORK_ARGS)  # images to latents
AUTOENCODERS = sections.OneOf({"vqvae": vqvae.Autoencoder}, given=NETWORK_ARGS)  # images to codes and back
VELOCITIES = sections.OneOf({"unet": unet.UNet}, given=NETWORK_ARGS)  # noisy images to velocities
PRIORS = sections.OneOf(
    {"pixelcnn": pixelcnn.PixelCNN, "transformer": transformer_prior.Transformer}, given=NETWORK_ARGS
)
MEMORIZERS = sections.OneOf({"table": models.Table, "bottleneck": models.Bottleneck}, given=NETWORK_ARGS)

# ------------------------------------------------------------------ losses

LOSSES = sections.OneOf(
    {
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
)
CLASS_LOSSES = sections.OneOf(
    {
        "none": class_loss.none,
        "cross_entropy": class_loss.cross_entropy,
        "multi_hinge": class_loss.multi_hinge,
        "d2d_ce": class_loss.d2d_ce,
    },
    default={"name": "none"},
)
D_REGULARIZERS = sections.AllOf(regularizers.D_REGULARIZERS)
G_REGULARIZERS = sections.AllOf(regularizers.G_REGULARIZERS)

# ------------------------------------------------------------------ optimizers

SCHEDULES = sections.OneOf(
    {
        "constant": schedules.constant,
        "constant_then_linear": schedules.constant_then_linear,
        "cosine": schedules.cosine,
        "cosine_restarts": schedules.cosine_restarts,
        "exponential": schedules.exponential,
        "wallclock_cosine": schedules.wallclock_cosine,
    },
    given=("steps", "learning_rate"),
    default={"name": "constant"},
)
OPTIMIZERS = sections.OneOf(
    {"adam": optimizers.adam, "adam_per_leaf": optimizers.adam_per_leaf},
    given=("schedule", "steps"),
    beside=sections.Record(schema.LearningRate, {"schedule": SCHEDULES}),
)
MEMORIZER_OPTIMIZER = sections.Record(
    memorizer.LossSchedule,
    beside=sections.Record(schema.KerasAdam, {"adam": sections.Record(optimizers.scale_by_keras_adam)}),
)

# ------------------------------------------------------------------ images

CROPS = sections.OneOf(crop_recipes.RECIPES, given=("photo", "boxes", "size"))
SELECT = sections.AllOf(select.STEPS, given=("crops",))
AUGMENTS = sections.AllOf(
    {
        "random_resized_crop": transforms.random_resized_crop,
        "shift_scale_rotate": transforms.shift_scale_rotate,
        "random_square": transforms.random_square,
        "jittered_square": transforms.jittered_square,
        "flip": transforms.flip,
        "rotate": transforms.rotate,
        "color_jitter": transforms.color_jitter,
        "uniform_noise": transforms.uniform_noise,
        "normal_noise": transforms.normal_noise,
    },
    given=("key", "batch", "size"),
)
DIFFAUGMENTS = sections.AllOf(diffaugment.TRANSFORMS, given=("key", "image", "p"))
AUGMENT_P = sections.OneOf(diffaugment.CONTROLLERS, default={"name": "fixed", "p": 1.0})
POSTPROCESS = sections.AllOf(
    {
        "resize": postprocess.resize,
        "quantize": postprocess.quantize,
        "non_local_means": non_local_means.non_local_means,
    },
    given=("image", "size"),
)


def generator(config: schema.Experiment, classes: int) -> nn.Module:
    """The network from latents to images."""
    return _network(GENERATORS, config.generator, "config.generator", config, classes)


def discriminator(config: schema.Experiment, classes: int) -> nn.Module:
    """The network from images to logits."""
    return _network(DISCRIMINATORS, config.discriminator, "config.discriminator", config, classes)


def encoder(config: schema.Experiment) -> nn.Module:
    """The network from images to latents."""
    return _network(ENCODERS, config.system.encoder, "config.system.encoder", config, 1)


def _network(
    table: sections.OneOf, section: Mapping[str, Any], path: str, config: schema.Experiment, classes: int
) -> nn.Module:
    return table.instantiate(
        section,
        path,
        size=config.system.resolution,
        latent_dim=config.system.latent_dim,
        classes=classes,
        dtype=DTYPES[config.dtype],
        alpha=None,  # set by a progressive system
        class_scale=1.0,  # set by a system with class_transition
    )


def optimizer(section: Mapping[str, Any], path: str, steps: int) -> optax.GradientTransformationExtraArgs:
    """An optimizer with its schedule over `steps` updates."""
    OPTIMIZERS.check(section, path)
    schedule = SCHEDULES.instantiate(
        section["schedule"], f"{path}.schedule", learning_rate=section["learning_rate"], steps=steps
    )
    fields = {name: x for name, x in section.items() if name not in ("name", *schema.LearningRate._fields)}
    return OPTIMIZERS.table[section["name"]](**fields, schedule=schedule, steps=steps)


def memorizer_optimizer(
    section: Mapping[str, Any], path: str
) -> tuple[optax.GradientTransformation, memorizer.LossSchedule]:
    """A memorizer's optimizer without its learning rate, and the schedule of that."""
    MEMORIZER_OPTIMIZER.check(section, path)
    fields = {name: x for name, x in section.items() if name != "adam"}
    return optimizers.scale_by_keras_adam(**section["adam"]), memorizer.LossSchedule(**fields)


def augments(section: Mapping[str, Any], size: int) -> tuple[types.Augment, ...]:
    """Augmentations of real images in the order of AUGMENTS; crops are of `size` x `size` pixels."""
    return tuple(AUGMENTS.bind(section, "config.augment", size=size).values())


def diffaugments(section: Mapping[str, Any]) -> tuple[Callable[..., types.Array], ...]:
    """Differentiable augmentations in the order of `diffaugment.TRANSFORMS`."""
    return tuple(DIFFAUGMENTS.bind(section, "config.system.diffaugment").values())


def postprocessing(section: Mapping[str, Any], size: int) -> Callable[[types.Array], types.Array]:
    """The steps applied to generated images, in the order of POSTPROCESS; `resize` is to `size` pixels."""
    steps = POSTPROCESS.bind(section, "config.sample.postprocess", size=size).values()
    return lambda image: functools.reduce(lambda image, step: step(image), steps, image)
