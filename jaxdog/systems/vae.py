"""Variational autoencoder (Kingma and Welling 2014): pictures to normal distributions and back.

The decoder is a generator of the two-player game: as a player it is called `g` here too, so that what it has
learnt can begin such a game. Read downwards: the state, the settings, the bound's parts, one step, sampling.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct

from jaxdog import types
from jaxdog.augment import transforms
from jaxdog.optim import optimizers

Array = types.Array
Key = types.Key
PyTree = types.PyTree

EPS = 1e-6  # probabilities are kept so far from 0 and 1 before their logarithm is taken


@struct.dataclass
class State:
    """Everything that training changes."""

    step: Array  # [] int32, steps done
    encoder: types.Net
    g: types.Net  # the decoder


class Game(NamedTuple):
    """What stays fixed."""

    encoder: nn.Module  # (image, train) -> (mean, log variance), [b, latent_dim] both
    decoder: nn.Module  # (z [b, latent_dim], label [b], train, key [b]) -> [b, h, w, c] in [-1, 1]
    latent_dim: int
    likelihood: str  # "squares" | "cross_entropy"
    kl_weight: float
    encoder_optimizer: optax.GradientTransformationExtraArgs
    g_optimizer: optax.GradientTransformationExtraArgs
    augment: Sequence[types.Augment]  # applied to the real pictures, in order
    latent: Callable[[Array], Array]  # key [b] -> z [b, latent_dim], for sampling
    finish: Callable[[Array], Array]  # what happens to a generated picture when it is sampled


def vae(game: Game) -> types.System:
    """The game as pure functions."""
    if game.likelihood not in LIKELIHOODS:
        raise ValueError(
            f"game.likelihood is {game.likelihood!r}; choices: {', '.join(map(repr, LIKELIHOODS))}"
        )
    if not game.kl_weight >= 0.0:
        raise ValueError(f"game.kl_weight is {game.kl_weight}, and must not be negative")
    return types.System(
        partial(_init, game),
        partial(_step, game),
        partial(_sample, game),
        reconstruct=partial(_reconstruct, game),
    )


# ------------------------------------------------------------------ the parts of the bound


def squares(picture: Array, image: Array) -> Array:
    """Sum of squared differences, [b, h, w, c] twice -> [b].

    Up to a constant -log p(image) of normal pixels with variance 1/2 about `picture`.
    """
    return jnp.sum(jnp.square(picture - image), (1, 2, 3))


def cross_entropy(picture: Array, image: Array) -> Array:
    """Sum of the binary cross-entropies of levels brought to [0, 1], [b, h, w, c] in [-1, 1] twice -> [b]."""
    p = jnp.clip(0.5 * (picture + 1.0), EPS, 1.0 - EPS)
    target = 0.5 * (image + 1.0)
    return -jnp.sum(target * jnp.log(p) + (1.0 - target) * jnp.log1p(-p), (1, 2, 3))


LIKELIHOODS = {"squares": squares, "cross_entropy": cross_entropy}


def divergence(mean: Array, logvar: Array) -> Array:
    """KL(N(mean, exp(logvar)) || N(0, 1)) of independent coordinates, [b, d] -> [b]. Eq. 10 of the paper."""
    return 0.5 * jnp.sum(jnp.square(mean) + jnp.exp(logvar) - 1.0 - logvar, -1)


# ------------------------------------------------------------------ one step


def _init(game: Game, key: Key, batch: types.Batch) -> State:
    encoder_key, g_key, augment_key = jax.random.split(key, 3)
    few = transforms.applied(game.augment, augment_key, jax.tree.map(lambda x: x[:2], batch))
    z, keys = jnp.zeros((few.label.shape[0], game.latent_dim)), jax.random.split(key, few.label.shape[0])
    encoder = game.encoder.init(encoder_key, few.image, train=False)
    g = game.decoder.init(g_key, z, few.label, train=False, key=keys)
    return State(
        step=jnp.zeros((), jnp.int32),
        encoder=_net(encoder, game.encoder_optimizer),
        g=_net(g, game.g_optimizer),
    )


def _net(variables: PyTree, optimizer: optax.GradientTransformation) -> types.Net:
    stats = {name: tree for name, tree in variables.items() if name != "params"}
    return types.Net(params=variables["params"], stats=stats, opt=optimizer.init(variables["params"]))


def _step(game: Game, state: State, batch: types.Batch, key: Key) -> tuple[State, types.Scalars]:
    """Both players go down the same loss, which is minus the evidence's lower bound if kl_weight is 1."""
    augment_key, z_key, noise_key = jax.random.split(jax.random.fold_in(key, state.step), 3)
    batch = transforms.applied(game.augment, augment_key, batch)
    b = batch.label.shape[0]

    def loss(params: tuple[PyTree, PyTree]) -> tuple[Array, tuple[PyTree, PyTree, types.Scalars]]:
        (mean, logvar), encoder_stats = _forward(game.encoder, params[0], state.encoder.stats, batch.image)
        z = mean + jnp.exp(0.5 * logvar) * jax.random.normal(z_key, mean.shape)
        keys = jax.random.split(noise_key, b)
        picture, g_stats = _forward(game.decoder, params[1], state.g.stats, z, batch.label, key=keys)
        far = jnp.mean(LIKELIHOODS[game.likelihood](picture, batch.image))
        kl = jnp.mean(divergence(mean, logvar))
        total = far + game.kl_weight * kl
        scalars = {
            "loss/vae": total,
            "loss/reconstruction": far,
            "loss/kl": kl,
            "error/squared": jnp.mean(jnp.square(picture - batch.image)),
        }
        return total, (encoder_stats, g_stats, scalars)

    grad = jax.value_and_grad(loss, has_aux=True)
    (_, (encoder_stats, g_stats, scalars)), pull = grad((state.encoder.params, state.g.params))
    hours = jnp.max(batch.hours)
    encoder = optimizers.moved(state.encoder, pull[0], encoder_stats, game.encoder_optimizer, hours)
    g = optimizers.moved(state.g, pull[1], g_stats, game.g_optimizer, hours)
    norms = {"grad_norm/encoder": optax.tree.norm(pull[0]), "grad_norm/g": optax.tree.norm(pull[1])}
    return State(step=state.step + 1, encoder=encoder, g=g), {**scalars, **norms}


def _forward(module: nn.Module, params: PyTree, stats: PyTree, *inputs: Array, **named: Any) -> Any:
    """A training pass, and the statistics after it."""
    return module.apply({"params": params, **stats}, *inputs, train=True, mutable=list(stats), **named)


# ------------------------------------------------------------------ sampling


def _sample(game: Game, state: State, key: Array, label: Array) -> Array:
    """Pictures [b, h, w, c] of latents from the prior, one key [b] and one breed [b] each."""
    return game.finish(_picture(game, state.g, game.latent(key), label, key))


def _picture(game: Game, g: types.Net, z: Array, label: Array, key: Array) -> Array:
    picture: Any = game.decoder.apply({"params": g.params, **g.stats}, z, label, train=False, key=key)
    return picture


def _reconstruct(game: Game, state: State, batch: types.Batch, key: Key) -> tuple[Array, Array]:
    """Pictures as the encoder sees them, and those of the means it says, both [b, h, w, c] in [-1, 1]."""
    augment_key, noise_key = jax.random.split(key)
    batch = transforms.applied(game.augment, augment_key, batch)
    net = state.encoder
    said: Any = game.encoder.apply({"params": net.params, **net.stats}, batch.image, train=False)
    keys = jax.random.split(noise_key, batch.label.shape[0])
    return batch.image, _picture(game, state.g, said[0], batch.label, keys)
