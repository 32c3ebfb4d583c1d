"""Exponential moving average of a network's parameters and of what its forward passes keep."""

import jax
import jax.numpy as jnp
from flax import struct

from jaxdog import system

PyTree = system.PyTree


@struct.dataclass
class Average:
    """The averaged network that pictures are sampled from."""

    params: PyTree
    stats: PyTree


def start(params: PyTree, stats: PyTree) -> Average:
    """An average that begins at the network itself; copies, since donated buffers must not be shared."""
    return jax.tree.map(jnp.copy, Average(params, stats))


def update(
    average: Average,
    params: PyTree,
    stats: PyTree,
    step: system.Array,
    decay: float | system.Array,
    begin: int,
    keep: str,
) -> Average:
    """One update after the generator's step number `step` (counted from 1).

    Until `begin` steps are done the average is pegged to the network. `keep` says what happens to the
    statistics: "average" averages them too (BigGAN-PyTorch's choice), "copy" takes the network's own.
    """
    if keep not in ("average", "copy"):
        raise ValueError(f"ema.stats is {keep!r}; choices: 'average', 'copy'")
    pegged = step <= begin

    def mix(old: system.Array, new: system.Array) -> system.Array:
        return jnp.where(pegged, new, old + (1.0 - decay) * (new - old))

    new_stats = jax.tree.map(mix, average.stats, stats) if keep == "average" else stats
    return Average(jax.tree.map(mix, average.params, params), new_stats)
