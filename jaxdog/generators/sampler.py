"""The compiled functions of a generator: seeds, labels and latents to images."""

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdog import sharding, types
from jaxdog.config import build, schema
from jaxdog.evaluation import generation, sampling_state
from jaxdog.systems import sampling
from jaxdog.utils import errors, integers

Array = jax.Array


def seed_key(seed: int) -> types.Key:
    """The key of a seed, 0 to 2^64 - 1; raises UserError for another one."""
    number = integers.check_seed(seed, "seed", integers.MAX_IMAGE_SEED)
    # Without 64-bit integers JAX keeps only the lower half of a seed.
    return jax.random.fold_in(jax.random.key(number % 2**32), np.uint32(number >> 32))


def _number(truncation: Any) -> float:
    if not isinstance(truncation, str | bool) and np.ndim(truncation) == 0:
        with contextlib.suppress(TypeError, ValueError):
            return float(truncation)
    raise errors.UserError(f"truncation is {truncation!r}, and must be a number of at least 0")


class Sampler:
    """Samples from fixed weights on all devices.

    Args:
      system: the system.
      state: its state; only the arrays that sampling reads are kept.
      config: the experiment, for other truncations.
      classes: number of classes.
      phase: index of the phase that `system` is of.
    """

    def __init__(self, system: types.System, state: Any, config: schema.Experiment, classes: int, phase: int):
        self.system, self.mesh = system, sharding.make_mesh()
        self._config, self._classes, self.phase = config, classes, phase
        self.shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
        arrays = sampling_state.read_arrays(state, sampling_state.read_names(system, self.shapes))
        self.arrays = sharding.put(arrays, sharding.replicated(self.mesh))
        # Caches of this object, so that they are freed with it.
        self._jit = functools.cache(self._compile)
        self._with_truncation = functools.cache(self._truncated)
        self.differentiable = functools.cache(self._differentiable)

    def with_arrays(self, arrays: dict[str, np.ndarray]) -> "Sampler":
        """The same compiled functions with other arrays of the same names and shapes."""
        other = copy.copy(self)
        other.arrays = sharding.put(arrays, sharding.replicated(self.mesh))
        return other

    def state(self) -> Any:
        """The state, with zeros for the arrays that sampling does not read."""
        return sampling_state.fill(self.shapes, self.arrays)

    def truncated(self, truncation: Any) -> types.System:
        """The system with another truncation, see `Generator.sample`; None: the config's.

        Raises UserError unless the truncation is a number, which may be one of NumPy or JAX, in its range.
        """
        return self._with_truncation(None if truncation is None else _number(truncation))

    def latents(self, n: int, key: types.Key, truncation: float | None, batch_size: int) -> Array:
        """The latents [n, latent_dim] of images 0 to n - 1 of a key."""
        system, size = self.truncated(truncation), sharding.round_up(batch_size, self.mesh)
        batches = generation.sample_batches(np.zeros(n, np.int32), size, self.mesh)
        return jnp.concatenate([self._jit("latent", system)(key, index) for index, _ in batches])[:n]

    def images(
        self, z: Array, label: Array, key: types.Key, index: Array, truncation: float | None = None
    ) -> Array:
        """Images float32 [b, h, w, 3] of latents [b, latent_dim], labels [b] and indices [b].

        Truncation in z is up to the latents. For another truncation in w only the mapping is compiled again.
        """
        if self.system.map_latents is None:
            return self._jit("decode", self.system)(self.arrays, z, label, key, index)
        w = self._jit("map_latents", self.truncated(truncation))(self.arrays, z, label, key, index)
        return self._jit("synthesize", self.system)(self.arrays, w, key, index)

    def batches(
        self, label: np.ndarray, key: types.Key, truncation: float | None, batch_size: int
    ) -> Iterator[Array]:
        """Images float32 [batch_size, h, w, 3] of labels [n]; the last batch has further images."""
        system, size = self.truncated(truncation), sharding.round_up(batch_size, self.mesh)
        for index, labels in generation.sample_batches(label, size, self.mesh):
            if system.latent is None:
                yield self._jit("sample", system)(self.arrays, key, index, labels)
            else:
                z = self._jit("latent", system)(key, index)
                yield self.images(z, labels, key, index, truncation)

    def _truncated(self, truncation: float | None) -> types.System:
        if truncation is None:
            return self.system
        in_w, config = self.system.map_latents is not None, self._config
        if self.system.latent is None or (in_w and "truncation_psi" not in config.generator):
            raise errors.UserError(f"truncation is {truncation}, but this model has none: leave it out")
        if not 0.0 <= truncation < float("inf"):
            raise errors.UserError(f"truncation is {truncation}, and must be at least 0")
        if not in_w:
            sampling.check_truncation(truncation, config.sample.method)
        if in_w:
            config = config._replace(generator={**config.generator, "truncation_psi": truncation})
        else:
            config = config._replace(sample=config.sample._replace(truncation=truncation))
        return build.phases(config, self._classes)[self.phase].system

    def _differentiable(self) -> types.System:
        """The system without the steps of `sample.postprocess`, which round and may resize."""
        config = self._config
        if not config.sample.postprocess:
            return self.system
        config = config._replace(
            sample=config.sample._replace(postprocess={}),
            submit=config.submit._replace(resolution=config.system.resolution),
        )
        return build.phases(config, self._classes)[self.phase].system

    def _compile(self, name: str, system: types.System) -> Callable[..., Array]:
        """A function of the system, jitted: of a key and the indices of images in place of their keys."""
        function: Any = getattr(system, name)
        fill, keys = partial(sampling_state.fill, self.shapes), sampling.image_keys

        def of_latent(arrays: Any, x: Array, label: Array, key: types.Key, index: Array) -> Array:
            return function(fill(arrays), x, label, keys(key, index))

        bodies = {
            "latent": lambda key, index: function(keys(key, index)),
            "sample": lambda arrays, key, index, label: function(fill(arrays), keys(key, index), label),
            "decode": of_latent,
            "map_latents": of_latent,
            "synthesize": lambda arrays, w, key, index: function(fill(arrays), w, keys(key, index)),
        }
        return jax.jit(bodies[name], out_shardings=sharding.replicated(self.mesh))
