"""Adversarial losses: functions of the logits of real and of generated images, both [b].

`d` returns a pair of arrays [b], the terms of the real and of the generated images; D minimizes the sum of
their means. `g` returns one array [b], whose mean G minimizes. Both get the same key within one step, so that
randomly drawn targets are the same for both.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxdog import types
from jaxdog.utils import errors

Array = types.Array
Key = types.Key


class Loss(NamedTuple):
    """The losses of both players."""

    d: Callable[[Key, Array, Array], tuple[Array, Array]]  # (key, real, fake) -> terms of both, [b]
    g: Callable[[Key, Array, Array], Array]  # (key, real, fake) -> terms [b]
    needs_real_logits: bool = False  # whether g uses real logits; if not, it gets the fake ones twice


def hinge() -> Loss:
    """Hinge loss (Lim and Ye 2017, eq. 14 to 16; Miyato et al. 2018, eq. 16 and 17)."""
    return Loss(
        d=lambda key, real, fake: (jax.nn.relu(1.0 - real), jax.nn.relu(1.0 + fake)),
        g=lambda key, real, fake: -fake,
    )


def non_saturating() -> Loss:
    """Logistic loss with the non-saturating generator (Goodfellow et al. 2014, sec. 3)."""
    return Loss(
        d=lambda key, real, fake: (jax.nn.softplus(-real), jax.nn.softplus(fake)),
        g=lambda key, real, fake: jax.nn.softplus(-fake),
    )


def least_squares(real_target: float = 1.0, fake_target: float = 0.0, sigmoid: bool = False) -> Loss:
    """LSGAN (Mao et al. 2017, eq. 2 with a = fake_target, b = c = real_target), without the factor 1/2.

    `sigmoid` applies a sigmoid to the logits first, as several competition entries did.
    """
    activation = jax.nn.sigmoid if sigmoid else lambda logit: logit
    return Loss(
        d=lambda key, real, fake: (
            jnp.square(activation(real) - real_target),
            jnp.square(activation(fake) - fake_target),
        ),
        g=lambda key, real, fake: jnp.square(activation(fake) - real_target),
    )


def cross_entropy(
    real_low: float = 1.0,
    real_high: float = 1.0,
    fake_low: float = 0.0,
    fake_high: float = 0.0,
    label_flip_prob: float = 0.0,
    margin: float = 1.0,
    g_margin: bool = False,
) -> Loss:
    """Cross-entropy with smoothed, noisy and flipped targets (Salimans et al. 2016, sec. 3.4, and variants).

    Args:
      real_low, real_high: the target of each real image is drawn uniformly between them.
      fake_low, fake_high: the same for generated images.
      label_flip_prob: probability that real and fake targets are exchanged for a whole step. G's target is
        that of real images, exchanged or not.
      margin: -log D of a real image is bounded below by -log(margin), so that this term has no gradient
        where D >= margin. 1: no bound.
      g_margin: whether the bound applies to generated images in G's loss, too.

    Raises:
      UserError: a margin outside (0, 1].
    """

    def targets(key: Key, b: int) -> tuple[Array, Array]:
        real_key, fake_key, flip_key = jax.random.split(key, 3)
        real = jax.random.uniform(real_key, (b,), minval=real_low, maxval=real_high)
        fake = jax.random.uniform(fake_key, (b,), minval=fake_low, maxval=fake_high)
        flipped = jax.random.bernoulli(flip_key, label_flip_prob)
        return jnp.where(flipped, fake, real), jnp.where(flipped, real, fake)

    if not 0.0 < margin <= 1.0:
        raise errors.UserError(f"cross_entropy: margin is {margin}, and must lie in (0, 1]")

    def entropy(logit: Array, target: Array, floor: float = 0.0) -> Array:
        return target * jnp.maximum(jax.nn.softplus(-logit), floor) + (1.0 - target) * jax.nn.softplus(logit)

    floor = -math.log(margin)

    def d(key: Key, real: Array, fake: Array) -> tuple[Array, Array]:
        real_target, fake_target = targets(key, real.shape[0])
        return entropy(real, real_target, floor), entropy(fake, fake_target)

    def g(key: Key, real: Array, fake: Array) -> Array:
        return entropy(fake, targets(key, fake.shape[0])[0], floor if g_margin else 0.0)

    return Loss(d=d, g=g)


def none() -> Loss:
    """No adversarial loss: for use with a class loss that replaces it, `class_loss.multi_hinge`."""
    return Loss(
        d=lambda key, real, fake: (jnp.zeros_like(real), jnp.zeros_like(fake)),
        g=lambda key, real, fake: jnp.zeros_like(fake),
    )


def wasserstein() -> Loss:
    """WGAN (Arjovsky et al. 2017, eq. 2 and alg. 1); combine it with a gradient penalty."""
    return Loss(d=lambda key, real, fake: (-real, fake), g=lambda key, real, fake: -fake)


# Losses of the difference of two logits, of which the first should be larger.
Base = Literal["cross_entropy", "least_squares", "hinge"]
BASES: dict[str, Callable[[Array], Array]] = {
    "cross_entropy": lambda x: jax.nn.softplus(-x),
    "least_squares": lambda x: jnp.square(x - 1.0),
    "hinge": lambda x: jax.nn.relu(1.0 - x),
}


def _base(loss: str, name: str) -> Callable[[Array], Array]:
    if name not in BASES:
        raise errors.UserError(f"{loss}: base is {name!r}; choices: {', '.join(sorted(BASES))}")
    return BASES[name]


def relativistic(base: Base = "cross_entropy") -> Loss:
    """Relativistic GAN: pairs of a real and a generated image (Jolicoeur-Martineau 2018, sec. 3.3).

    "cross_entropy" is RSGAN, eq. 4 and 5; "least_squares" and "hinge" are its analogues. With fake labels
    taken from the real images, both images of a pair are of one class.

    Raises:
      UserError: an unknown base.
    """
    base_loss = _base("relativistic", base)
    return Loss(
        d=lambda key, real, fake: (base_loss(real - fake), jnp.zeros_like(fake)),
        g=lambda key, real, fake: base_loss(fake - real),
        needs_real_logits=True,
    )


def relativistic_average(base: Base = "least_squares") -> Loss:
    """Relativistic average GAN: logits against the other kind's mean (Jolicoeur-Martineau 2018, sec. 4).

    base:
      cross_entropy  RaSGAN, eq. 8 and 9, non-saturating
      least_squares  RaLSGAN with margins 1 and -1
      hinge          RaHingeGAN

    Both terms are halved, so that their sum is on the scale of the other losses. Means are over the batch.

    Raises:
      UserError: an unknown base.
    """
    base_loss = _base("relativistic_average", base)

    def d(key: Key, real: Array, fake: Array) -> tuple[Array, Array]:
        return 0.5 * base_loss(real - jnp.mean(fake)), 0.5 * base_loss(jnp.mean(real) - fake)

    def g(key: Key, real: Array, fake: Array) -> Array:
        return jnp.add(*d(key, fake, real))

    return Loss(d=d, g=g, needs_real_logits=True)


def relativistic_soft(
    low: float = 1.0,
    high: float = 1.0,
    flipped_low: float = 0.0,
    flipped_high: float = 0.0,
    max_flipped: int = 0,
) -> Loss:
    """`relativistic_average` of least squares with random margins instead of 1, as in a competition entry.

    Args:
      low, high: the margin of each pair of a real and a generated image is drawn uniformly between them.
      flipped_low, flipped_high: the same for pairs with flipped labels.
      max_flipped: the number of these pairs in a batch is drawn uniformly from 0 to `max_flipped`.
    """

    def margins(key: Key, b: int) -> Array:
        margin_key, flipped_key, count_key, order_key = jax.random.split(key, 4)
        margin = jax.random.uniform(margin_key, (b,), minval=low, maxval=high)
        flipped = jax.random.uniform(flipped_key, (b,), minval=flipped_low, maxval=flipped_high)
        count = jax.random.randint(count_key, (), 0, max_flipped + 1)
        return jnp.where(jax.random.permutation(order_key, b) < count, flipped, margin)

    def d(key: Key, real: Array, fake: Array) -> tuple[Array, Array]:
        margin = margins(key, real.shape[0])
        return (
            0.5 * jnp.square(real - jnp.mean(fake) - margin),
            0.5 * jnp.square(jnp.mean(real) - fake - margin),
        )

    def g(key: Key, real: Array, fake: Array) -> Array:
        return jnp.add(*d(key, fake, real))

    return Loss(d=d, g=g, needs_real_logits=True)
