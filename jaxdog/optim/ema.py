"""Exponential moving average of a network's parameters and of what its forward passes keep."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxdog import types

PyTree = types.PyTree


@struct.dataclass
class Average:
    """The averaged network that pictures are sampled from."""

    params: PyTree
    stats: PyTree


def start(params: PyTree, stats: PyTree) -> Average:
    """An average that begins at the network itself; copies, since donated buffers must not be shared."""
    return jax.tree.map(jnp.copy, Average(params, stats))


class Rule(NamedTuple):
    """How an average follows its network."""

    decay: float | types.Array  # 0: it is the network
    start: int = 0  # steps before which it is pegged to the network
    stats: str = "average"  # what becomes of the statistics: see `update`
    rampup: float = 0.0  # its half-life is at most this share of the steps done; 0: as the decay has it

    def at(self, step: types.Array) -> float | types.Array:
        """The decay of the update after step number `step`, counted from 1 (Karras et al. 2020's ramp)."""
        if not self.rampup:
            return self.decay
        half_life = jnp.log(0.5) / jnp.log(jnp.asarray(self.decay, jnp.float32))
        return 0.5 ** (1.0 / jnp.minimum(half_life, self.rampup * step.astype(jnp.float32)))


def update(average: Average, params: PyTree, stats: PyTree, step: types.Array, rule: Rule) -> Average:
    """One update after the generator's step number `step` (counted from 1).

    `rule.stats`: "average" averages the statistics too (BigGAN-PyTorch's choice), "copy" takes the network's.
    """
    if rule.stats not in ("average", "copy"):
        raise ValueError(f"ema.stats is {rule.stats!r}; choices: 'average', 'copy'")
    pegged, decay = step <= rule.start, rule.at(step)

    def mix(old: types.Array, new: types.Array) -> types.Array:
        return jnp.where(pegged, new, old + (1.0 - decay) * (new - old))

    new_stats = jax.tree.map(mix, average.stats, stats) if rule.stats == "average" else stats
    return Average(jax.tree.map(mix, average.params, params), new_stats)
