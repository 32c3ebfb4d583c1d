"""Adversarial losses: pure functions of logits, one value per sample; means are taken by the caller.

`d(real, fake)` is what the discriminator minimises, `g(fake)` what the generator minimises.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdog import system

Array = system.Array


class Loss(NamedTuple):
    """A two-player game over logits [b] float32."""

    d: Callable[[Array, Array], tuple[Array, Array]]  # (real [b], fake [b]) -> real term [b], fake term [b]
    g: Callable[[Array], Array]  # fake [b] -> [b]


def hinge() -> Loss:
    """Hinge loss (Lim and Ye 2017, eq. 14 to 16; Miyato et al. 2018, eq. 16 and 17)."""
    return Loss(d=lambda real, fake: (jax.nn.relu(1.0 - real), jax.nn.relu(1.0 + fake)), g=lambda fake: -fake)


def non_saturating() -> Loss:
    """Logistic loss with the non-saturating generator (Goodfellow et al. 2014, sec. 3)."""
    return Loss(
        d=lambda real, fake: (jax.nn.softplus(-real), jax.nn.softplus(fake)),
        g=lambda fake: jax.nn.softplus(-fake),
    )


def least_squares(real_target: float = 1.0, fake_target: float = 0.0, sigmoid: bool = False) -> Loss:
    """Least squares (Mao et al. 2017, eq. 2 with a = fake, b = c = real target), without its factor 1/2.

    `sigmoid` squashes the logits first, as several entries of 2019 did.
    """
    squash = jax.nn.sigmoid if sigmoid else lambda logit: logit
    return Loss(
        d=lambda real, fake: (
            jnp.square(squash(real) - real_target),
            jnp.square(squash(fake) - fake_target),
        ),
        g=lambda fake: jnp.square(squash(fake) - real_target),
    )
