"""Latents to images in batches of a fixed size.

Each function is compiled once per system. An image is a function of its own latent, label and key, however
many there are, unless the system samples with batch statistics; `fixed_statistics` replaces those.
"""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdog import types
from jaxdog.config import schema
from jaxdog.evaluation import batching
from jaxdog.systems import sampling
from jaxdog.utils import errors

BATCH_SIZE = 16  # images per call; the last batch is padded
CACHED = 64  # compiled functions that are kept
STANDING_IMAGES = 1000  # over which `fixed_statistics` computes the statistics


class NoLatentsError(errors.UserError):
    """The system has no latent vector."""


def require_latents(system: types.System, work: str) -> None:
    """Raises NoLatentsError, which names the work, if the system has no latent vector."""
    if system.latent is None or system.decode is None:
        raise NoLatentsError(
            f"{work} needs a latent vector, which this system does not have; GANs and VAEs have one, VQ-VAEs "
            "and memorizers do not"
        )


def fixed_statistics(sample: schema.Sample) -> schema.Sample:
    """config.sample with standing statistics in place of batch statistics; others are unchanged.

    With batch statistics an image depends on the others of its batch, and similar images, such as the frames
    of an interpolation, lose what they have in common. A system built with the result needs `prepare`.
    """
    if sample.batch_stats != "batch":
        return sample
    batches = -(-STANDING_IMAGES // sample.batch_size)
    return sample._replace(batch_stats="standing", num_standing_images=batches * sample.batch_size)


def latent_dim(system: types.System) -> int:
    """Size of the latent vector of a system that has one."""
    assert system.latent is not None
    return jax.eval_shape(system.latent, jax.random.split(jax.random.key(0), 1)).shape[1]


def image_shape(system: types.System, state: Any) -> tuple[int, ...]:
    """Height, width and channels of the images of a system that has a latent vector."""
    assert system.decode is not None
    label = jax.ShapeDtypeStruct((1,), jnp.int32)
    z = jax.ShapeDtypeStruct((1, latent_dim(system)), jnp.float32)
    return jax.eval_shape(system.decode, state, z, label, jax.random.split(jax.random.key(0), 1)).shape[1:]


def latents(system: types.System, key: types.Key) -> np.ndarray:
    """The latents [n, latent_dim] float32 that `system.sample` uses for keys [n]."""
    require_latents(system, "a latent")
    assert system.latent is not None
    return np.asarray(_jit(system.latent)(key))


def repeat_key(key: types.Key, n: int) -> types.Key:
    """The same key n times, [n]."""
    return jax.random.wrap_key_data(
        jnp.broadcast_to(jax.random.key_data(key)[None], (n, *jax.random.key_data(key).shape)),
        impl=jax.random.key_impl(key),
    )


def sample(system: types.System, state: Any, key: types.Key, label: np.ndarray) -> np.ndarray:
    """Images [n, h, w, 3] uint8 for keys [n] and labels [n] int32, of any system."""
    if system.decode is not None:  # which other functions of this room compile, too
        return decode(system, state, latents(system, key), label, key)
    return _map(_to_uint8(system.sample), state, key, label)


def decode(system: types.System, state: Any, z: np.ndarray, label: np.ndarray, key: types.Key) -> np.ndarray:
    """Images [n, h, w, 3] uint8 for latents z [n, latent_dim], labels [n] int32 and keys [n]."""
    require_latents(system, "decoding")
    assert system.decode is not None
    return _map(_to_uint8(system.decode), state, z, label, key)


def map_latents(
    system: types.System, state: Any, z: np.ndarray, label: np.ndarray, key: types.Key
) -> np.ndarray:
    """The w [n, layers, k] float32 of latents z [n, latent_dim], for a system that has `map_latents`."""
    assert system.map_latents is not None
    return _map(_jit(system.map_latents), state, z, label, key)


def synthesize(system: types.System, state: Any, w: np.ndarray, key: types.Key) -> np.ndarray:
    """Images [n, h, w, 3] uint8 for w [n, layers, k] and keys [n], for a system that has `synthesize`."""
    assert system.synthesize is not None
    return _map(_to_uint8(system.synthesize), state, w, key)


@functools.lru_cache(CACHED)
def _jit(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    return jax.jit(function)


@functools.lru_cache(CACHED)
def _to_uint8(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    return jax.jit(lambda *args: sampling.to_uint8(function(*args)))


def _map(function: Callable[..., jax.Array], state: Any, *arrays: Any) -> np.ndarray:
    return batching.map_batches(partial(function, state), arrays, BATCH_SIZE)
