"""Variables of networks, and networks applied, each in one compiled program.

Outside jit every operation is compiled on its own, which takes several times as long.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


def init(net: nn.Module, *arguments: Any, seed: int = 0, **named: Any) -> Any:
    """`net.init`, with the key of a seed."""
    return jax.jit(lambda key: net.init(key, *arguments, **named))(jax.random.key(seed))


def apply(net: nn.Module, variables: Any, *arguments: Any, **named: Any) -> Any:
    """`net.apply`."""
    return jax.jit(lambda variables: net.apply(variables, *arguments, **named))(variables)


def stirred(tree: Any, by: float, seed: int = 3) -> Any:
    """Every number off its start: each array plus `by` times a normal one."""

    @jax.jit
    def move(leaves: list[jax.Array]) -> list[jax.Array]:
        keys = jax.random.split(jax.random.key(seed), len(leaves))
        return [x + by * jax.random.normal(key, x.shape) for x, key in zip(leaves, keys, strict=True)]

    leaves, structure = jax.tree.flatten(tree)
    return structure.unflatten(move(leaves))


def drawn(net: nn.Module, *arguments: Any) -> Any:
    """Random variables: the nets' own starts take long to compile, and have gains of 0 and biases of 0."""
    rng = np.random.default_rng(0)

    def leaf(path: Any, x: Any) -> jax.Array:
        name, noise = path[-1].key, rng.normal(size=x.shape).astype(np.float32)
        if name in ("u", "v"):
            return jnp.asarray(noise / np.linalg.norm(noise))
        if name in ("mean", "var"):
            return jnp.full(x.shape, float(name == "var"))
        if name == "sign":
            return jnp.sign(jnp.asarray(noise))
        fan = math.sqrt(math.prod(x.shape[:-1])) if name == "kernel" else 10.0
        return jnp.asarray(noise / fan + float(name.endswith(("gain", "scale"))))

    shapes = jax.eval_shape(lambda key: net.init(key, *arguments, False), jax.random.key(0))
    return jax.tree_util.tree_map_with_path(leaf, shapes)
