"""The definition of a GAN (networks, losses, optimizers, hyperparameters) and its training state."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import optax
from flax import linen as nn
from flax import struct

from jaxdog import types
from jaxdog.augment import diffaugment as augmentations
from jaxdog.losses import adversarial, regularizers
from jaxdog.losses import class_loss as class_losses
from jaxdog.ops import ramps
from jaxdog.optim import ema
from jaxdog.utils import errors

Array = types.Array
Key = types.Key
EMA = ema.EMA

DiffAugment = Callable[[Key, Array, Array], Array]  # (key, image [b, h, w, c], p []) -> image
CHOICES = {
    "fake_label_source": ("uniform", "real"),
    "sample_batch_stats": ("running", "batch", "standing"),
}


class GANSpec(NamedTuple):
    """Everything about a GAN that stays fixed during training."""

    # Networks.
    # (z [b, latent_dim], label [b], train, key [b]) -> image [b, h, w, c] in [-1, 1]
    generator: nn.Module
    # (image, label [b], train) -> `types.DiscriminatorOutput`; may use the rng "dropout".
    discriminator: nn.Module
    latent_dim: int
    classes: int
    # `class_scale` of both networks and the class loss's weight rise from 0 between these fractions of
    # training; (0, 0): they are constant.
    class_transition: tuple[float, float]

    # Losses.
    loss: adversarial.Loss
    class_loss: class_losses.ClassLoss | None
    d_regularizers: regularizers.Regularizers
    g_regularizers: regularizers.Regularizers

    # Augmentations, applied in order.
    augment: Sequence[types.Augment]  # of real images
    diffaugment: Sequence[DiffAugment]  # of all inputs of the discriminator
    augment_p_controller: augmentations.AugmentPController  # of the probability of `diffaugment`

    # Updates.
    g_optimizer: optax.GradientTransformationExtraArgs
    d_optimizer: optax.GradientTransformationExtraArgs
    num_steps: int  # total training steps, for values that change over training
    num_d_steps: int  # discriminator updates per generator update
    grad_accumulation_steps: int  # microbatches whose gradients are averaged for one update
    split_d: bool  # D's forward pass runs on real and on generated images separately
    reuse_latents: bool  # the G step uses the latents of the last D step
    g_step_groups: int  # groups of the G step's batch that pass D separately
    fake_label_source: str  # of generated images: "uniform" | "real" (the labels of the real batch)
    g_fresh_reals: bool  # a G step that needs real logits gets a real batch of its own
    ema_rule: ema.EMARule  # of the generator
    extra_ema_decays: tuple[float, ...]  # of further EMAs with the same rule otherwise

    # Sampling.
    latent: Callable[[Array], Array]  # key [b] -> z [b, latent_dim]
    sample_batch_stats: str  # batch norm uses "running" | "batch" | "standing" statistics
    num_standing_batches: int  # "standing": batches over which the statistics are recomputed
    standing_batch_size: int
    postprocess: Callable[[Array], Array]  # of generated images [b, h, w, c]

    # Execution.
    remat: bool  # rematerialization: backward passes recompute the inside of each block
    axis: str | None  # mesh axis if each device steps on its own rows; None: one step on all rows


@struct.dataclass
class State:
    """Everything that training changes."""

    step: Array  # [] int32, steps done
    g: types.PlayerState
    d: types.PlayerState
    ema: EMA  # of the generator
    extra_emas: tuple[EMA, ...]


def check(spec: GANSpec) -> None:
    """Raises UserError if values contradict each other or are out of range."""
    for name, choices in CHOICES.items():
        if getattr(spec, name) not in choices:
            raise errors.UserError(
                f"{name} is {getattr(spec, name)!r}; choices: {', '.join(map(repr, choices))}"
            )
    for name in ("num_d_steps", "grad_accumulation_steps"):
        if getattr(spec, name) < 1:
            raise errors.UserError(f"system.{name} is {getattr(spec, name)}, and must be at least 1")
    if spec.sample_batch_stats != "running" and isinstance(spec.generator, types.StyleBased):
        raise errors.UserError(
            f"sample.batch_stats is {spec.sample_batch_stats!r}; a style-based generator has no batch norm: "
            "'running'"
        )
    fresh = spec.g_fresh_reals and spec.loss.needs_real_logits
    if fresh and spec.reuse_latents and spec.fake_label_source == "real":
        raise errors.UserError(
            "system.reuse_latents and system.g_fresh_reals are True, and system.fake_label_source is 'real': "
            "the G step would have images with the labels of D's real images, and other real images; change "
            "one of them"
        )
    transition = spec.class_transition
    if transition == (0.0, 0.0):
        return
    if len(transition) != 2 or not 0.0 <= transition[0] < transition[1] <= 1.0:
        raise errors.UserError(
            f"system.class_transition is {transition}, and must be (0, 0) or two fractions that increase "
            "within [0, 1]"
        )
    if getattr(spec.discriminator, "class_head", "none") == "multi_hinge":
        raise errors.UserError(
            f"system.class_transition is {transition}, but discriminator.class_head 'multi_hinge' judges "
            "images by their class from the start; set class_transition to (0, 0), or class_head to another"
        )
    for network in (spec.generator, spec.discriminator):
        if not isinstance(network, types.ClassScaled):
            name = f"{type(network).__module__}.{type(network).__name__}"
            raise errors.UserError(f"system.class_transition is {transition}, but {name} has no class_scale")


def num_real_microbatches(spec: GANSpec) -> int:
    """Number of real microbatches that one training step consumes."""
    g_batches = spec.loss.needs_real_logits and spec.g_fresh_reals
    return (spec.num_d_steps + g_batches) * spec.grad_accumulation_steps


def at_step(spec: GANSpec, step: Array) -> GANSpec:
    """The spec with the `class_scale` of this step in both networks, which also scales the class loss.

    Transitional training (Shahbazi et al. 2022): with few images per class, class-conditional GANs tend to
    collapse, which starting with unconditional training avoids.
    """
    begin, end = spec.class_transition
    if end == 0.0:
        return spec
    scale = ramps.linear_ramp(begin, end, step / spec.num_steps)
    loss = spec.class_loss
    return spec._replace(
        class_loss=None if loss is None else loss._replace(weight=scale * loss.weight),
        generator=spec.generator.clone(class_scale=scale),
        discriminator=spec.discriminator.clone(class_scale=scale),
    )
