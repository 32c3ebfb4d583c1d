"""Exponential moving average (EMA) of a network's parameters and model state."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxdog import types
from jaxdog.utils import errors

PyTree = types.PyTree


@struct.dataclass
class EMA:
    """The averaged network, from which images are sampled."""

    params: PyTree
    model_state: PyTree  # {collection: ...}, as in `types.PlayerState`


class EMARule(NamedTuple):
    """Hyperparameters of an EMA."""

    decay: float | types.Array  # 0: the EMA equals the network
    start: int = 0  # the EMA equals the network up to and including this step
    batch_stats: str = "average"  # how the model state is updated, see `update`
    rampup: float = 0.0  # upper bound of the half-life as a fraction of the steps done; 0: no bound

    def decay_at(self, step: types.Array) -> float | types.Array:
        """Decay of the update after step `step`, counted from 1 (the EMA ramp-up of Karras et al. 2020)."""
        if not self.rampup:
            return self.decay
        half_life = jnp.log(0.5) / jnp.log(jnp.asarray(self.decay, jnp.float32))
        return 0.5 ** (1.0 / jnp.minimum(half_life, self.rampup * step.astype(jnp.float32)))


def rules(first: EMARule, extra_decays: Sequence[float]) -> list[EMARule]:
    """The rules of a system's averages: the first one, and the same with other decays."""
    return [first, *(first._replace(decay=decay) for decay in extra_decays)]


def init(params: PyTree, model_state: PyTree) -> EMA:
    """An EMA equal to the network. Arrays are copied, because donated buffers must not be aliased."""
    return jax.tree.map(jnp.copy, EMA(params, model_state))


def update(average: EMA, params: PyTree, model_state: PyTree, step: types.Array, rule: EMARule) -> EMA:
    """The EMA after step `step` of the network, counted from 1.

    With `rule.batch_stats` "average" the model state is averaged like the parameters (as in BigGAN-PyTorch);
    with "copy" it is that of the network.

    Raises:
      UserError: `rule.batch_stats` is neither of them.
    """
    if rule.batch_stats not in ("average", "copy"):
        raise errors.UserError(f"ema.batch_stats is {rule.batch_stats!r}; choices: 'average', 'copy'")
    before_start, decay = step <= rule.start, rule.decay_at(step)

    def mix(old: types.Array, new: types.Array) -> types.Array:
        return jnp.where(before_start, new, old + (1.0 - decay) * (new - old))

    averaged = jax.tree.map(mix, average.params, params)
    if rule.batch_stats == "average":
        model_state = jax.tree.map(mix, average.model_state, model_state)
    return EMA(averaged, model_state)


def update_all(
    averages: Sequence[EMA], params: PyTree, model_state: PyTree, step: types.Array, rules: Sequence[EMARule]
) -> tuple[EMA, ...]:
    """Each average after step `step`, by its rule; see `update`."""
    return tuple(
        update(average, params, model_state, step, rule)
        for average, rule in zip(averages, rules, strict=True)
    )
