"""Sampling from the EMA of a GAN's generator."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxdog import types
from jaxdog.optim import ema
from jaxdog.systems import gan_spec, sampling

Array = types.Array
Key = types.Key
PyTree = types.PyTree


def sample(spec: gan_spec.GANSpec, state: gan_spec.State, key: Array, label: Array) -> Array:
    """Images [b, h, w, c] in [-1, 1], for keys [b] and labels [b]."""
    return decode(spec, state, spec.latent(key), label, key)


def decode(spec: gan_spec.GANSpec, state: gan_spec.State, z: Array, label: Array, key: Array) -> Array:
    """Images [b, h, w, c] in [-1, 1], for latents z [b, latent_dim], labels [b] and keys [b].

    With `sample_batch_stats` "batch", an image depends on the other images of its batch.
    """
    spec = gan_spec.at_step(spec, state.step)
    train = spec.sample_batch_stats == "batch"
    image: Any = spec.generator.apply(_variables(state), z, label, train=train, key=key)
    return spec.postprocess(image)


def map_latents(spec: gan_spec.GANSpec, state: gan_spec.State, z: Array, label: Array, key: Array) -> Array:
    """w [b, layers, k], truncated, of latents z [b, latent_dim]; for StyleBased generators."""
    spec = gan_spec.at_step(spec, state.step)
    w: Any = spec.generator.apply(_variables(state), z, label, train=False, key=key, method="map_latents")
    return w


def synthesize(spec: gan_spec.GANSpec, state: gan_spec.State, w: Array, key: Array) -> Array:
    """Images [b, h, w, c] in [-1, 1], for w [b, layers, k]; for StyleBased generators."""
    spec = gan_spec.at_step(spec, state.step)
    image: Any = spec.generator.apply(_variables(state), w, train=False, key=key, method="synthesize")
    return spec.postprocess(jnp.clip(image, -1.0, 1.0))


def _variables(state: gan_spec.State) -> PyTree:
    return {"params": state.ema.params, **state.ema.model_state}


def compute_standing_stats(spec: gan_spec.GANSpec, state: gan_spec.State, key: Key) -> gan_spec.State:
    """The state, with standing statistics (Brock et al. 2018) in the EMA.

    Forward passes in training mode on `num_standing_batches` batches of latents update the model state;
    labels are drawn uniformly.
    """
    spec = gan_spec.at_step(spec, state.step)

    def update(model_state: PyTree, key: Key) -> tuple[PyTree, None]:
        label_key, image_key = jax.random.split(key)
        label = jax.random.randint(label_key, (spec.standing_batch_size,), 0, spec.classes)
        keys = sampling.image_keys(image_key, spec.standing_batch_size)
        variables = {"params": state.ema.params, **model_state}
        _, updated = spec.generator.apply(
            variables, spec.latent(keys), label, key=keys, train=True, mutable=list(model_state)
        )
        return updated, None

    keys = jax.random.split(key, spec.num_standing_batches)
    model_state, _ = jax.lax.scan(update, state.ema.model_state, keys)
    return dataclasses.replace(state, ema=ema.EMA(state.ema.params, model_state))
