"""The arrays of a training state that sampling reads: of a GAN, those of the generator's EMA.

They are found by tracing: an array is read if an output of the traced functions depends on it. Arrays have
names, their paths in the state: "ema/params/Dense_0/kernel".
"""

import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxdog import types

SEPARATOR = "/"


def names(tree: Any) -> Any:
    """The tree with the name of each leaf in its place."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: jax.tree_util.keystr(path, simple=True, separator=SEPARATOR), tree
    )


def read_names(
    system: types.System, state: Any, reconstruct: tuple[int, ...] | None = None
) -> frozenset[str]:
    """Names of the arrays that `sample`, `prepare`, `decode`, `map_latents` and `synthesize` read.

    Args:
      system: the system.
      state: its state, or the shapes and dtypes of the arrays.
      reconstruct: (h, w, c) of a stored image: adds the arrays that `reconstruct` reads; None: does not.
    """
    leaves, structure = jax.tree.flatten(state)
    shapes = tuple((x.shape, jnp.dtype(x.dtype)) for x in leaves)
    return _read_names(system, structure, shapes, reconstruct)


@functools.cache  # tracing takes seconds for large networks
def _read_names(
    system: types.System, structure: Any, shapes: tuple[Any, ...], reconstruct: tuple[int, ...] | None
) -> frozenset[str]:
    state = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(*x) for x in shapes])
    read = _inputs_read(lambda state: _outputs(system, state, reconstruct), state)
    named = zip(jax.tree.leaves(names(state)), read, strict=True)
    return frozenset(name for name, is_read in named if is_read)


def read_arrays(state: Any, read: Collection[str]) -> dict[str, Any]:
    """The arrays of the state with these names."""
    named = zip(jax.tree.leaves(names(state)), jax.tree.leaves(state), strict=True)
    return {name: x for name, x in named if name in read}


def fill(shapes: Any, arrays: Mapping[str, Any]) -> Any:
    """A state from its shapes and dtypes, and some of its arrays by name; the others are zeros.

    The zeros take no memory: they are views of one element.
    """

    def one(name: str, shape: jax.ShapeDtypeStruct) -> Any:
        return arrays[name] if name in arrays else np.broadcast_to(np.zeros((), shape.dtype), shape.shape)

    return jax.tree.map(one, names(shapes), shapes)


def _outputs(system: types.System, state: Any, reconstruct: tuple[int, ...] | None) -> list[Any]:
    """Everything that may be computed from a state to sample, for two images."""
    keys, label = jax.random.split(jax.random.key(0)), jnp.zeros(2, jnp.int32)
    outputs: list[Any] = []
    states = [state] if system.prepare is None else [state, system.prepare(state, keys[0])]
    for sampled in states:
        outputs.append(system.sample(sampled, keys, label))
        if system.latent is not None and system.decode is not None:
            z = system.latent(keys)
            outputs.append(system.decode(sampled, z, label, keys))
            if system.map_latents is not None and system.synthesize is not None:
                w = system.map_latents(sampled, z, label, keys)
                outputs += [w, system.synthesize(sampled, w, keys)]
    if system.reconstruct is not None and reconstruct is not None:
        image = jnp.zeros((2, *reconstruct))
        batch = types.Batch(image, label, jnp.ones((2, 2), jnp.int32), label, jnp.zeros(2))
        outputs.append(system.reconstruct(state, batch, keys[0]))
    return outputs


def _inputs_read(function: Callable[[Any], Any], argument: Any) -> list[bool]:
    """Whether an output of `function` depends on each leaf of its argument.

    Backward over the traced operations. The operations inside loops and called functions are not traversed,
    so an array that is passed to one and not read there counts as read.
    """
    traced = jax.make_jaxpr(function)(argument).jaxpr
    live = {x for x in traced.outvars if isinstance(x, core.Var)}
    for operation in reversed(traced.eqns):
        if operation.effects or not live.isdisjoint(operation.outvars):
            live.update(x for x in operation.invars if isinstance(x, core.Var))
    return [x in live for x in traced.invars]
