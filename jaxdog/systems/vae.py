"""Variational autoencoder (Kingma and Welling 2014).

The decoder is a generator of `models`, and its state is named `g` as in a GAN, so that a GAN can start from
its weights (see `training.warm_start`).
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
from jaxdog.utils import errors

Array = types.Array
Key = types.Key
PyTree = types.PyTree

EPSILON = 1e-6  # probabilities are clipped to [EPSILON, 1 - EPSILON] before the logarithm


@struct.dataclass
class State:
    """Training state."""

    step: Array  # [] int32, steps done
    encoder: types.PlayerState
    g: types.PlayerState  # the decoder


class VAESpec(NamedTuple):
    """Networks and hyperparameters."""

    encoder: nn.Module  # (image, train) -> (mean, log variance), both [b, latent_dim]
    decoder: nn.Module  # (z [b, latent_dim], label [b], train, key [b]) -> [b, h, w, c] in [-1, 1]
    latent_dim: int
    likelihood: str  # a key of LIKELIHOODS
    kl_weight: float  # 1: the evidence lower bound
    encoder_optimizer: optax.GradientTransformationExtraArgs
    g_optimizer: optax.GradientTransformationExtraArgs
    augment: Sequence[types.Augment]  # of real images, in order
    latent: Callable[[Array], Array]  # key [b] -> z [b, latent_dim], for sampling
    postprocess: Callable[[Array], Array]  # of sampled images


def vae(spec: VAESpec) -> types.System:
    """The VAE as a system.

    Raises:
      UserError: an unknown likelihood, or a negative KL weight.
    """
    if spec.likelihood not in LIKELIHOODS:
        raise errors.UserError(
            f"system.likelihood is {spec.likelihood!r}; choices: {', '.join(map(repr, LIKELIHOODS))}"
        )
    if not spec.kl_weight >= 0.0:
        raise errors.UserError(f"system.kl_weight is {spec.kl_weight}, and must not be negative")
    return types.System(
        partial(_init, spec),
        partial(_step, spec),
        partial(_sample, spec),
        reconstruct=partial(_reconstruct, spec),
        latent=spec.latent,
        decode=partial(_decode, spec),
    )


# ------------------------------------------------------------------ terms of the evidence lower bound


def squared_error(reconstruction: Array, image: Array) -> Array:
    """Sum of squared errors of reconstructions [b, h, w, c]: [b].

    Up to a constant this is -log p(image) of a normal distribution with variance 1/2 per pixel.
    """
    return jnp.sum(jnp.square(reconstruction - image), (1, 2, 3))


def cross_entropy(reconstruction: Array, image: Array) -> Array:
    """Sum of binary cross-entropies of values [b, h, w, c] in [-1, 1], rescaled to [0, 1]: [b]."""
    p = jnp.clip(0.5 * (reconstruction + 1.0), EPSILON, 1.0 - EPSILON)
    target = 0.5 * (image + 1.0)
    return -jnp.sum(target * jnp.log(p) + (1.0 - target) * jnp.log1p(-p), (1, 2, 3))


LIKELIHOODS = {"squares": squared_error, "cross_entropy": cross_entropy}


def kl_divergence(mean: Array, logvar: Array) -> Array:
    """KL(N(mean, exp(logvar)) || N(0, 1)), summed over coordinates: [b, d] -> [b] (appendix B)."""
    return 0.5 * jnp.sum(jnp.square(mean) + jnp.exp(logvar) - 1.0 - logvar, -1)


# ------------------------------------------------------------------ training


def _init(spec: VAESpec, key: Key, batch: types.Batch) -> State:
    encoder_key, g_key, augment_key, image_key = jax.random.split(key, 4)
    example = transforms.apply_augments(spec.augment, augment_key, jax.tree.map(lambda x: x[:2], batch))
    b = example.label.shape[0]
    z, keys = jnp.zeros((b, spec.latent_dim)), jax.random.split(image_key, b)
    encoder = spec.encoder.init(encoder_key, example.image, train=False)
    g = spec.decoder.init(g_key, z, example.label, train=False, key=keys)
    return State(
        step=jnp.zeros((), jnp.int32),
        encoder=optimizers.init_player(encoder, spec.encoder_optimizer),
        g=optimizers.init_player(g, spec.g_optimizer),
    )


def _step(spec: VAESpec, state: State, batch: types.Batch, key: Key) -> tuple[State, types.Scalars]:
    """One step of both networks on minus the evidence lower bound, with the KL term weighted."""
    augment_key, z_key, noise_key = jax.random.split(jax.random.fold_in(key, state.step), 3)
    batch = transforms.apply_augments(spec.augment, augment_key, batch)
    b = batch.label.shape[0]

    def loss(params: tuple[PyTree, PyTree]) -> tuple[Array, tuple[PyTree, PyTree, types.Scalars]]:
        (mean, logvar), encoder_state = _forward(
            spec.encoder, params[0], state.encoder.model_state, batch.image
        )
        z = mean + jnp.exp(0.5 * logvar) * jax.random.normal(z_key, mean.shape)
        keys = jax.random.split(noise_key, b)
        reconstruction, g_state = _forward(
            spec.decoder, params[1], state.g.model_state, z, batch.label, key=keys
        )
        reconstruction_loss = jnp.mean(LIKELIHOODS[spec.likelihood](reconstruction, batch.image))
        kl = jnp.mean(kl_divergence(mean, logvar))
        total = reconstruction_loss + spec.kl_weight * kl
        scalars = {
            "loss/vae": total,
            "loss/reconstruction": reconstruction_loss,
            "loss/kl": kl,
            "error/squared": jnp.mean(jnp.square(reconstruction - batch.image)),
        }
        return total, (encoder_state, g_state, scalars)

    value_and_grad = jax.value_and_grad(loss, has_aux=True)
    (_, (encoder_state, g_state, scalars)), gradients = value_and_grad((state.encoder.params, state.g.params))
    hours = jnp.max(batch.hours)
    encoder = optimizers.apply_gradients(
        state.encoder, gradients[0], encoder_state, spec.encoder_optimizer, hours
    )
    g = optimizers.apply_gradients(state.g, gradients[1], g_state, spec.g_optimizer, hours)
    norms = {"grad_norm/encoder": optax.tree.norm(gradients[0]), "grad_norm/g": optax.tree.norm(gradients[1])}
    return State(step=state.step + 1, encoder=encoder, g=g), {**scalars, **norms}


def _forward(module: nn.Module, params: PyTree, model_state: PyTree, *inputs: Array, **settings: Any) -> Any:
    """A forward pass in training mode: outputs, new model state."""
    variables = {"params": params, **model_state}
    return module.apply(variables, *inputs, train=True, mutable=list(model_state), **settings)


# ------------------------------------------------------------------ sampling


def _sample(spec: VAESpec, state: State, key: Array, label: Array) -> Array:
    """Images [b, h, w, c] decoded from the prior, for keys [b] and labels [b]."""
    return _decode(spec, state, spec.latent(key), label, key)


def _decode(spec: VAESpec, state: State, z: Array, label: Array, key: Array) -> Array:
    """Images [b, h, w, c] decoded from latents [b, latent_dim], for labels [b] and keys [b]."""
    return spec.postprocess(_apply_decoder(spec, state.g, z, label, key))


def _apply_decoder(spec: VAESpec, g: types.PlayerState, z: Array, label: Array, key: Array) -> Array:
    image: Any = spec.decoder.apply({"params": g.params, **g.model_state}, z, label, train=False, key=key)
    return image


def _reconstruct(spec: VAESpec, state: State, batch: types.Batch, key: Key) -> tuple[Array, Array]:
    """The encoder's inputs and the reconstructions from posterior means, both [b, h, w, c] in [-1, 1]."""
    augment_key, noise_key = jax.random.split(key)
    batch = transforms.apply_augments(spec.augment, augment_key, batch)
    variables = {"params": state.encoder.params, **state.encoder.model_state}
    posterior: Any = spec.encoder.apply(variables, batch.image, train=False)
    keys = jax.random.split(noise_key, batch.label.shape[0])
    return batch.image, _apply_decoder(spec, state.g, posterior[0], batch.label, keys)
