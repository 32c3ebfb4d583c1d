"""Sampling from the EMA of a GAN's generator."""

import dataclasses
from typing import Any

import jax

from jaxdog import types
from jaxdog.optim import ema
from jaxdog.systems import gan_spec, sampling

Array = types.Array
Key = types.Key
PyTree = types.PyTree


def sample(spec: gan_spec.GANSpec, state: gan_spec.State, key: Array, label: Array) -> Array:
    """Images [b, h, w, c] in [-1, 1], for keys [b] and labels [b].

    With `sample_batch_stats` "batch", an image depends on the other images of its batch.
    """
    spec, variables = (
        gan_spec.at_step(spec, state.step),
        {"params": state.ema.params, **state.ema.model_state},
    )
    train = spec.sample_batch_stats == "batch"
    return spec.postprocess(_generate(spec, variables, key, label, train=train))


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
        _, updated = _generate(spec, variables, keys, label, train=True, mutable=list(model_state))
        return updated, None

    keys = jax.random.split(key, spec.num_standing_batches)
    model_state, _ = jax.lax.scan(update, state.ema.model_state, keys)
    return dataclasses.replace(state, ema=ema.EMA(state.ema.params, model_state))


def _generate(spec: gan_spec.GANSpec, variables: PyTree, key: Array, label: Array, **options: Any) -> Any:
    return spec.generator.apply(variables, spec.latent(key), label, key=key, **options)
