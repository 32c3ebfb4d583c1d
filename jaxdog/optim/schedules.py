"""Learning-rate schedules: functions of the number of updates and of the training time.

optax's schedules are functions of the update count alone. These also receive the hours trained so far, which
`wallclock_cosine` needs; optimizers get them as an extra argument, `update(..., hours=...)`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdog.utils import errors

Array = jax.Array
# (number of updates done [] int32, hours trained [] float32) -> learning rate [] float32
Schedule = Callable[[Array, Array], Array]


def constant(steps: int, learning_rate: float) -> Schedule:
    """`learning_rate` at every update."""
    del steps
    return _of_count(optax.constant_schedule(learning_rate))


def constant_then_linear(steps: int, learning_rate: float, fraction: float) -> Schedule:
    """Constant, then linear decay to zero over the last `fraction` of `steps`.

    Raises:
      UserError: `fraction` is outside (0, 1].
    """
    if not 0.0 < fraction <= 1.0:
        raise errors.UserError(f"constant_then_linear: fraction is {fraction}, and must lie in (0, 1]")
    length = max(1, round(steps * fraction))
    return _of_count(optax.linear_schedule(learning_rate, 0.0, length, transition_begin=steps - length))


def cosine(steps: int, learning_rate: float, final: float) -> Schedule:
    """Cosine decay from `learning_rate` to `final * learning_rate` over `steps` (no restarts)."""
    return _of_count(optax.cosine_decay_schedule(learning_rate, max(1, steps), alpha=final))


def cosine_restarts(steps: int, learning_rate: float, final: float, period: int, interval: int) -> Schedule:
    """Cosine decay with warm restarts (SGDR: Loshchilov and Hutter 2017, eq. 5).

    Equals torch's CosineAnnealingWarmRestarts with `T_mult` = 1, stepped once per epoch.

    Args:
      steps: unused.
      learning_rate: at the start of each period.
      final: the learning rate at the end of a period, as a fraction of `learning_rate`.
      period: updates from one restart to the next, a multiple of `interval`.
      interval: the learning rate changes only every `interval` updates.

    Raises:
      UserError: `period` is not a multiple of `interval`, or one of them is below 1.
    """
    del steps
    if interval < 1 or period < 1 or period % interval:
        raise errors.UserError(
            f"cosine_restarts: period is {period} updates, and must be a multiple of interval = {interval}"
        )
    decay = optax.cosine_decay_schedule(learning_rate, period, alpha=final)

    def schedule(count: Array, hours: Array) -> Array:
        return jnp.asarray(decay(count // interval * interval % period), jnp.float32)

    return schedule


def exponential(steps: int, learning_rate: float, decay: float, interval: int) -> Schedule:
    """Staircase decay: multiplied by `decay` every `interval` updates (torch's ExponentialLR).

    Args:
      steps: updates of the run; not used.
      learning_rate: the first one.
      decay: factor.
      interval: updates from one decay to the next.

    Raises:
      UserError: `interval` is below 1.
    """
    del steps
    if interval < 1:
        raise errors.UserError(f"exponential: interval is {interval} updates, and must be at least 1")
    return _of_count(optax.exponential_decay(learning_rate, interval, decay, staircase=True))


def wallclock_cosine(
    steps: int, learning_rate: float, hours: float, first_rate: float, first_updates: int
) -> Schedule:
    """Cosine decay from `learning_rate` to 0 over `hours` of training time, whatever the number of steps.

    The first `first_updates` updates use `first_rate`. The result of a run depends on the speed of the
    machine: runs with this schedule are not reproducible bit for bit.

    Raises:
      UserError: `hours` is not positive.
    """
    del steps
    if hours <= 0:
        raise errors.UserError(f"wallclock_cosine: hours is {hours}, and must be positive")

    def schedule(count: Array, now: Array) -> Array:
        decayed = 0.5 * learning_rate * (1.0 + jnp.cos(jnp.pi * jnp.minimum(now / hours, 1.0)))
        return jnp.where(count < first_updates, first_rate, decayed)

    return schedule


def _of_count(schedule: optax.Schedule) -> Schedule:
    return lambda count, hours: jnp.asarray(schedule(count), jnp.float32)


class LearningRateState(NamedTuple):
    """State of `scale_by_learning_rate`."""

    count: Array  # [] int32, number of updates done
    factor: Array  # [] float32, multiplies the schedule; initially 1, lowered by `optimizers.rollback_state`


def scale_by_learning_rate(schedule: Schedule) -> optax.GradientTransformationExtraArgs:
    """Multiplies updates by the negative learning rate. Its `update` takes the extra argument `hours`."""

    def init(params: Any) -> LearningRateState:
        del params
        return LearningRateState(jnp.zeros((), jnp.int32), jnp.ones(()))

    def update(
        updates: Any, state: Any, params: Any = None, *, hours: Array | float = 0.0, **extra: Any
    ) -> tuple[Any, LearningRateState]:
        del params, extra
        factor = -state.factor * schedule(state.count, jnp.asarray(hours, jnp.float32))
        return jax.tree.map(lambda x: factor * x, updates), state._replace(count=state.count + 1)

    return optax.GradientTransformationExtraArgs(init, update)
