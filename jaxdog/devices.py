"""Where arrays live: one mesh of all devices of all hosts, and host arrays put on it."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, Sharding
from jax.sharding import PartitionSpec as P


def mesh() -> Mesh:
    """All devices of all hosts along one axis, `data`."""
    return Mesh(np.array(jax.devices()), ("data",))


def everywhere(over: Mesh) -> NamedSharding:
    """Whole arrays on every device."""
    return NamedSharding(over, P())


def by_rows(over: Mesh) -> NamedSharding:
    """Rows dealt out over the devices."""
    return NamedSharding(over, P("data"))


@functools.cache
def compiled(function: Callable[..., Any], over: Mesh, *static: int) -> Callable[..., Any]:
    """`function` jitted, once for all who ask; its result is whole on every device, so each host can read it.

    static: numbers of the arguments that are part of the program.
    """
    return jax.jit(function, static_argnums=static, out_shardings=everywhere(over))


def rounded(batch_size: int, over: Mesh) -> int:
    """`batch_size` rounded up to a multiple of the devices."""
    return -(-batch_size // over.size) * over.size


def put(tree: Any, sharding: Sharding) -> Any:
    """Host arrays, equal on every host, as arrays on the devices; works for devices of other hosts too."""

    def one(x: Any) -> jax.Array:
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(one, tree)
