"""Adversarial losses: pure functions of logits, one value per sample; means are taken by the caller.

`d(key, real, fake)` is what the discriminator minimises, `g(key, real, fake)` what the generator minimises.
Both get the same key within one step, so that targets which are drawn are the same for both.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdog import types

Array = types.Array
Key = types.Key


class Loss(NamedTuple):
    """A two-player game over logits [b] float32."""

    d: Callable[[Key, Array, Array], tuple[Array, Array]]  # (key, real [b], fake [b]) -> their terms [b], [b]
    g: Callable[[Key, Array, Array], Array]  # (key, real [b], fake [b]) -> [b]
    relative: bool = False  # whether g looks at the logits of real pictures; else it is given the fake ones'


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
    """Least squares (Mao et al. 2017, eq. 2 with a = fake, b = c = real target), without its factor 1/2.

    `sigmoid` squashes the logits first, as several entries of 2019 did.
    """
    squash = jax.nn.sigmoid if sigmoid else lambda logit: logit
    return Loss(
        d=lambda key, real, fake: (
            jnp.square(squash(real) - real_target),
            jnp.square(squash(fake) - fake_target),
        ),
        g=lambda key, real, fake: jnp.square(squash(fake) - real_target),
    )


def cross_entropy(
    real_low: float = 1.0,
    real_high: float = 1.0,
    fake_low: float = 0.0,
    fake_high: float = 0.0,
    swap: float = 0.0,
    margin: float = 1.0,
) -> Loss:
    """Cross-entropy with smoothed, noisy and swapped targets (Salimans et al. 2016, sec. 3.4, and its kin).

    Args:
      real_low, real_high: each real picture's target is drawn uniformly between them.
      fake_low, fake_high: each generated picture's.
      swap: probability that all targets of a step change sides. The generator aims at what the real
        pictures' targets have become.
      margin: a real picture that is held for real with this probability or more teaches no further: its
        -log D is bounded by -log(margin) from below. 1: no bound.
    """

    def targets(key: Key, b: int) -> tuple[Array, Array]:
        real_key, fake_key, swap_key = jax.random.split(key, 3)
        real = jax.random.uniform(real_key, (b,), minval=real_low, maxval=real_high)
        fake = jax.random.uniform(fake_key, (b,), minval=fake_low, maxval=fake_high)
        swapped = jax.random.bernoulli(swap_key, swap)
        return jnp.where(swapped, fake, real), jnp.where(swapped, real, fake)

    if not 0.0 < margin <= 1.0:
        raise ValueError(f"cross_entropy: margin is {margin}, and must lie in (0, 1]")

    def entropy(logit: Array, target: Array, floor: float = 0.0) -> Array:
        return target * jnp.maximum(jax.nn.softplus(-logit), floor) + (1.0 - target) * jax.nn.softplus(logit)

    def d(key: Key, real: Array, fake: Array) -> tuple[Array, Array]:
        real_target, fake_target = targets(key, real.shape[0])
        return entropy(real, real_target, -math.log(margin)), entropy(fake, fake_target)

    return Loss(d=d, g=lambda key, real, fake: entropy(fake, targets(key, fake.shape[0])[0]))


def none() -> Loss:
    """Nothing: what breeds teach is the whole game."""
    return Loss(
        d=lambda key, real, fake: (jnp.zeros_like(real), jnp.zeros_like(fake)),
        g=lambda key, real, fake: jnp.zeros_like(fake),
    )


def wasserstein() -> Loss:
    """The critic's difference of means (Arjovsky et al. 2017, eq. 2 and alg. 1); it needs a penalty."""
    return Loss(d=lambda key, real, fake: (-real, fake), g=lambda key, real, fake: -fake)


BASES: dict[str, Callable[[Array], Array]] = {  # of how much more real one logit is than another
    "cross_entropy": lambda x: jax.nn.softplus(-x),
    "least_squares": lambda x: jnp.square(x - 1.0),
    "hinge": lambda x: jax.nn.relu(1.0 - x),
}


def _base(loss: str, name: str) -> Callable[[Array], Array]:
    if name not in BASES:
        raise ValueError(f"{loss}: base is {name!r}; choices: {', '.join(sorted(BASES))}")
    return BASES[name]


def relativistic(base: str = "cross_entropy") -> Loss:
    """How much more real than the fake beside it, and the other way round (Jolicoeur-Martineau 2018, 3.3).

    base: "cross_entropy" is RSGAN, eq. 4 and 5, "least_squares" and "hinge" are its kin. Where real and
    generated pictures are of the same breeds in the same order, neighbours are of one breed.
    """
    cost = _base("relativistic", base)
    nothing = jnp.zeros_like
    return Loss(
        d=lambda key, real, fake: (cost(real - fake), nothing(fake)),
        g=lambda key, real, fake: cost(fake - real),
        relative=True,
    )


def relativistic_average(base: str = "least_squares") -> Loss:
    """How much more real than the average fake, and the other way round (Jolicoeur-Martineau 2018, sec. 4).

    base:
      cross_entropy  RaSGAN, eq. 8 and 9, non-saturating
      least_squares  RaLSGAN with margins 1 and -1
      hinge          RaHingeGAN

    The two terms are halved, so that they weigh as much as one. They are means over the batch at hand.
    """
    cost = _base("relativistic_average", base)

    def d(key: Key, real: Array, fake: Array) -> tuple[Array, Array]:
        return 0.5 * cost(real - jnp.mean(fake)), 0.5 * cost(jnp.mean(real) - fake)

    def g(key: Key, real: Array, fake: Array) -> Array:
        return jnp.add(*d(key, fake, real))

    return Loss(d=d, g=g, relative=True)


def relativistic_soft(
    low: float = 1.0, high: float = 1.0, swapped_low: float = 0.0, swapped_high: float = 0.0, swaps: int = 0
) -> Loss:
    """`relativistic_average` of least squares with drawn margins in place of 1, as an entry of 2019 had it.

    Args:
      low, high: the margin of each pair, a real and a generated picture, is drawn uniformly between them.
      swapped_low, swapped_high: that of the few pairs whose targets had changed sides.
      swaps: up to so many pairs of a batch, 0 to `swaps` with equal probability.
    """

    def margins(key: Key, b: int) -> Array:
        margin_key, swapped_key, count_key, order_key = jax.random.split(key, 4)
        margin = jax.random.uniform(margin_key, (b,), minval=low, maxval=high)
        swapped = jax.random.uniform(swapped_key, (b,), minval=swapped_low, maxval=swapped_high)
        count = jax.random.randint(count_key, (), 0, swaps + 1)
        return jnp.where(jax.random.permutation(order_key, b) < count, swapped, margin)

    def d(key: Key, real: Array, fake: Array) -> tuple[Array, Array]:
        margin = margins(key, real.shape[0])
        return (
            0.5 * jnp.square(real - jnp.mean(fake) - margin),
            0.5 * jnp.square(jnp.mean(real) - fake - margin),
        )

    def g(key: Key, real: Array, fake: Array) -> Array:
        return jnp.add(*d(key, fake, real))

    return Loss(d=d, g=g, relative=True)
