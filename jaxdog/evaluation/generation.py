"""Sampling of images from a trained system: state, key and labels -> uint8 arrays."""

import functools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, Sharding

from jaxdog import sharding, types
from jaxdog.evaluation import batching
from jaxdog.systems import sampling


def generate(
    system: types.System, state: Any, key: types.Key, label: np.ndarray, mesh: Mesh, batch_size: int
) -> np.ndarray:
    """Images [n, h, w, 3] uint8 of the classes `label` [n]; image i is a function of (key, i).

    If a system samples with batch statistics, images also depend on `batch_size`.
    """
    state = prepare_state(system, state, key)
    sample = make_sampler(system, sharding.replicated(mesh))
    parts = (sample(state, key, *batch) for batch in sample_batches(label, batch_size, mesh))
    return batching.collect(parts, len(label), "images")


@functools.cache
def make_sampler(system: types.System, out_sharding: Sharding) -> Callable[..., jax.Array]:
    """(state, key, index [n], label [n]) -> [n, h, w, 3] uint8, jitted once per system."""

    @partial(jax.jit, out_shardings=out_sharding)
    def sample(state: Any, key: types.Key, index: jax.Array, label: jax.Array) -> jax.Array:
        return sampling.to_uint8(system.sample(state, sampling.image_keys(key, index), label))

    return sample


def prepare_state(system: types.System, state: Any, key: types.Key) -> Any:
    """The state to sample from: after `system.prepare`, if the system has it (standing statistics)."""
    return state if system.prepare is None else jax.jit(system.prepare)(state, key)


def sample_batches(label: np.ndarray, batch_size: int, mesh: Mesh) -> Iterator[tuple[jax.Array, jax.Array]]:
    """(index, label), [batch_size] int32 each, on the devices, of images 0 .. n-1 and padding.

    The last batch is padded with new images, whose labels start over. Repeated images would change the batch
    statistics, which some systems sample with.
    """
    where = sample_sharding(batch_size, mesh)
    for start in range(0, len(label), batch_size):
        index = np.arange(start, start + batch_size, dtype=np.int32)
        yield sharding.put((index, label[index % len(label)]), where)


def sample_sharding(batch_size: int, mesh: Mesh) -> Sharding:
    """Sharded by rows; replicated if the batch size is not a multiple of the number of devices."""
    return sharding.replicated(mesh) if batch_size % mesh.size else sharding.batch_sharding(mesh)


# --- collapsed classes -----------------------------------------------------------------------------------


def collapsed_classes(
    system: types.System, state: Any, key: types.Key, classes: int, mesh: Mesh
) -> tuple[int, ...]:
    """The classes whose diversity is below sampling.MIN_DIVERSITY; () if that is true of all classes."""
    diversity = np.asarray(_diversity(system, classes, mesh, prepare_state(system, state, key), key))
    collapsed = np.flatnonzero(diversity < sampling.MIN_DIVERSITY)
    return tuple(collapsed.tolist()) if len(collapsed) < classes else ()


@partial(jax.jit, static_argnums=(0, 1, 2))  # compiled once per system
def _diversity(system: types.System, classes: int, mesh: Mesh, state: Any, key: types.Key) -> jax.Array:
    """[classes] float32: `sampling.diversity` of a few images per class, sampled in batches of one."""
    count = sampling.IMAGES_PER_CLASS
    keys = sampling.image_keys(key, classes * count).reshape(classes, count)

    def sample_one(key: types.Key, label: jax.Array) -> jax.Array:
        return system.sample(state, key[None], label[None])[0]

    def of_class(class_keys_and_label: tuple[jax.Array, jax.Array]) -> jax.Array:
        images = jax.vmap(sample_one, in_axes=(0, None))(*class_keys_and_label)
        return sampling.diversity(images[None])[0]

    diversity = jax.lax.map(of_class, (keys, jnp.arange(classes, dtype=jnp.int32)))
    return jax.lax.with_sharding_constraint(diversity, sharding.replicated(mesh))
