"""Auxiliary class losses: functions of a discriminator's output and labels, which return one term per image.

The discriminator learns to classify real images, and with some losses also generated ones. The generator
learns to generate images that are classified as their labels. The losses are the terms' means.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdog import types
from jaxdog.utils import errors

Array = types.Array
Term = Callable[[types.DiscriminatorOutput, Array], Array]  # (output, label [b]) -> [b]


class ClassLoss(NamedTuple):
    """A class loss, and the class head that it needs (see `models.heads`)."""

    weight: Array | float
    real: Term  # minimized by D on real images and by G on generated ones
    fake: Term | None = None  # minimized by D on generated images; None: no such term
    class_head: str = "linear"  # "linear" | "multi_hinge" | "cosine"

    def check(self, output: types.DiscriminatorOutput, classes: int) -> None:
        """Raises UserError unless the discriminator has the class head that this loss needs."""
        logits = None if output.class_logits is None else output.class_logits.shape[-1]
        wanted = classes + (self.class_head == "multi_hinge")
        if logits != wanted or (output.embedding is not None) != (self.class_head == "cosine"):
            raise errors.UserError(
                f"this class loss needs a discriminator with class_head={self.class_head!r} for {classes} "
                f"classes; this one gives {'no' if logits is None else logits} class logits and "
                f"{'no' if output.embedding is None else 'an'} embedding"
            )


def none() -> None:
    """No class loss."""


def cross_entropy(weight: float, apply_to: Literal["real", "both"] = "real") -> ClassLoss:
    """AC-GAN's auxiliary classifier (Odena, Olah, Shlens 2017, eq. 3).

    Args:
      weight: of the loss.
      apply_to: images that D learns to classify; real and generated ones in the paper.

    Raises:
      UserError: an unknown `apply_to`.
    """
    if apply_to not in ("real", "both"):
        raise errors.UserError(f"cross_entropy: apply_to is {apply_to!r}; choices: real, both")

    def entropy(output: types.DiscriminatorOutput, label: Array) -> Array:
        logits: Any = output.class_logits
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, label)

    return ClassLoss(weight, entropy, entropy if apply_to == "both" else None)


def multi_hinge(weight: float) -> ClassLoss:
    """Multi-hinge loss over the classes and "generated" (Kavalerov, Czaja, Chellappa 2021).

    The target's logit should exceed the largest other one by 1. The target is the image's label; for D on
    generated images it is "generated", the last logit. This loss replaces the adversarial loss: combine it
    with `adversarial.none`.
    """

    def hinge(output: types.DiscriminatorOutput, label: Array) -> Array:
        logits: Any = output.class_logits
        is_target = label[:, None] == jnp.arange(logits.shape[1])[None, :]
        target = jnp.sum(jnp.where(is_target, logits, 0.0), 1)
        return jax.nn.relu(1.0 - target + jnp.max(jnp.where(is_target, -jnp.inf, logits), 1))

    def generated(output: types.DiscriminatorOutput, label: Array) -> Array:
        logits: Any = output.class_logits
        return hinge(output, jnp.full_like(label, logits.shape[1] - 1))

    return ClassLoss(weight, hinge, generated, "multi_hinge")


def d2d_ce(
    weight: float, temperature: float = 0.5, positive: float = 0.98, negative: float = 0.02
) -> ClassLoss:
    """Data-to-data cross-entropy, D2D-CE (Kang, Shim, Cho, Park 2021, "Rebooting ACGAN", eq. 7).

    With f_i the embedding of image i, v_i the proxy of its class, and j over the images of other classes:

      -log( e^p / (e^p + sum_j e^n_j) ), p = min(f_i v_i - positive, 0) / temperature,
                                         n_j = max(f_i f_j - negative, 0) / temperature

    The term of an image is 0 if its batch has no image of another class.

    Args:
      weight: of the loss.
      temperature: above 0.
      positive: similarity to the proxy above which there is no attraction.
      negative: similarity to other images below which there is no repulsion.

    Raises:
      UserError: a temperature of 0 or below.
    """
    if temperature <= 0.0:
        raise errors.UserError(f"d2d_ce: temperature is {temperature}, and must be above 0")

    def entropy(output: types.DiscriminatorOutput, label: Array) -> Array:
        cosines: Any = output.class_logits
        to_proxy = jnp.take_along_axis(cosines, label[:, None], 1)
        attraction = jnp.minimum(to_proxy - positive, 0.0) / temperature
        to_images = jnp.einsum("ik,jk->ij", output.embedding, output.embedding)
        repulsion = jnp.maximum(to_images - negative, 0.0) / temperature
        repulsion = jnp.where(label[:, None] == label[None, :], -jnp.inf, repulsion)
        return jax.nn.logsumexp(jnp.concatenate([attraction, repulsion], 1), axis=1) - attraction[:, 0]

    return ClassLoss(weight, entropy, class_head="cosine")
