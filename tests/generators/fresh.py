"""Generators with random weights, which are made in seconds."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from jaxdog.config import build, library
from jaxdog.generators import generator as generators
from jaxdog.training import train_step


def generator(
    name: str, class_names: Sequence[str], changes: Mapping[str, Any] | None = None
) -> generators.Generator:
    """An untrained generator of the last phase of the smoke test of configs/<name>.py."""
    given = library.load(name, "test")
    given.update_from_flattened_dict(dict(changes or {}))
    config = build.check(given)
    phases, side = build.phases(config, len(class_names)), config.data.stored_resolution
    shapes = train_step.init_shapes(phases[-1], (side, side, 3))
    leaves, structure = jax.tree.flatten(shapes)
    state = structure.unflatten([_values(i, x) for i, x in enumerate(leaves)])
    resolution = config.submit.resolution
    return generators.Generator(
        phases[-1].system, state, class_names, config, resolution, step=8, phase=len(phases) - 1
    )


def _values(i: int, x: Any) -> jax.Array:
    """Random values of the scale of initial weights; positive, as variances must be."""
    import jax.numpy as jnp
    import numpy as np

    if not jnp.issubdtype(x.dtype, jnp.floating):
        return jnp.ones(x.shape, x.dtype)
    fan_in = max(int(np.prod(x.shape[:-1])), 1)
    noise = np.random.RandomState(i).standard_normal(x.shape) / np.sqrt(fan_in)
    return jnp.asarray(noise if len(x.shape) > 1 else 1.0 + 0.1 * noise, x.dtype)
