"""Optimisers and learning-rate schedules: thin names over optax.

A rate is a function of (updates done, hours trained) -> learning rate; few look at the clock. The hours come
through `update(..., hours=...)`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdog import types
from jaxdog.ops import ramps

Array = jax.Array
Aux = tuple[Any, Any, types.Scalars]  # a net's statistics and memory after a pass, what to report
Loss = Callable[[Any, Any], tuple[Array, Aux]]  # (params, batch) -> (loss [], the rest)
Rate = Callable[[Array, Array], Array]  # (updates done [] int32, hours trained [] float32) -> [] float32


def constant(steps: int, learning_rate: float) -> Rate:
    """The same rate for the whole run of `steps` optimiser updates."""
    del steps
    return _by_count(optax.constant_schedule(learning_rate))


def linear_end(steps: int, learning_rate: float, fraction: float) -> Rate:
    """Constant, then linear to zero over the last `fraction` (0 to 1) of `steps`."""
    if not 0.0 < fraction <= 1.0:
        raise ValueError(f"linear_end: fraction is {fraction}, and must lie in (0, 1]")
    length = max(1, round(steps * fraction))
    return _by_count(optax.linear_schedule(learning_rate, 0.0, length, transition_begin=steps - length))


def cosine(steps: int, learning_rate: float, final: float) -> Rate:
    """Half a cosine from `learning_rate` to `final` times it over `steps`."""
    return _by_count(optax.cosine_decay_schedule(learning_rate, max(1, steps), alpha=final))


def cosine_restarts(steps: int, learning_rate: float, final: float, period: int, every: int) -> Rate:
    """Half a cosine from `learning_rate` to `final` times it, begun again after each `period` updates.

    In stairs of `every` updates: torch's CosineAnnealingWarmRestarts with `T_mult` 1 that is told the epoch
    (Loshchilov and Hutter 2017, eq. 5).
    """
    del steps
    if every < 1 or period < 1 or period % every:
        raise ValueError(
            f"cosine_restarts: period is {period} updates, and must be a multiple of every = {every}"
        )
    curve = optax.cosine_decay_schedule(learning_rate, period, alpha=final)

    def rate(count: Array, hours: Array) -> Array:
        return jnp.asarray(curve(count // every * every % period), jnp.float32)

    return rate


def exponential(steps: int, learning_rate: float, decay: float, every: int) -> Rate:
    """`learning_rate` times `decay` after each `every` updates, in stairs, as torch's ExponentialLR."""
    del steps
    if every < 1:
        raise ValueError(f"exponential: every is {every} updates, and must be at least 1")
    return _by_count(optax.exponential_decay(learning_rate, every, decay, staircase=True))


def clock_cosine(
    steps: int, learning_rate: float, hours: float, first_rate: float, first_updates: int
) -> Rate:
    """Half a cosine from `learning_rate` to 0 over `hours` of training, whatever the number of steps.

    The first `first_updates` updates are made at `first_rate`. What such a run ends with depends on the
    machine's speed, so two runs of it are not equal bit for bit.
    """
    del steps
    if hours <= 0:
        raise ValueError(f"clock_cosine: hours is {hours}, and must be positive")

    def rate(count: Array, now: Array) -> Array:
        curve = 0.5 * learning_rate * (1.0 + jnp.cos(jnp.pi * jnp.minimum(now / hours, 1.0)))
        return jnp.where(count < first_updates, first_rate, curve)

    return rate


def _by_count(schedule: optax.Schedule) -> Rate:
    return lambda count, hours: jnp.asarray(schedule(count), jnp.float32)


class RateState(NamedTuple):
    """How many updates were made, and what a run that went back to its best multiplies rates with."""

    count: Array  # [] int32
    factor: Array  # [] float32, 1 at first


def scale_by_rate(rate: Rate) -> optax.GradientTransformationExtraArgs:
    """Updates times minus the rate."""

    def init(params: Any) -> RateState:
        del params
        return RateState(jnp.zeros((), jnp.int32), jnp.ones(()))

    def update(
        updates: Any, state: Any, params: Any = None, *, hours: Array | float = 0.0, **extra: Any
    ) -> tuple[Any, RateState]:
        del params, extra
        factor = -state.factor * rate(state.count, jnp.asarray(hours, jnp.float32))
        return jax.tree.map(lambda x: factor * x, updates), state._replace(count=state.count + 1)

    return optax.GradientTransformationExtraArgs(init, update)


def calmed(best: types.PyTree, now: types.PyTree, by: float) -> types.PyTree:
    """A better state of earlier, with the clocks of `now` and its learning rates times `by`.

    So a run whose pictures got worse goes back, and its schedules go on. Both states have a `step`.
    """

    def take(old: Any, new: Any) -> Any:
        return new._replace(factor=by * new.factor) if isinstance(new, RateState) else old

    taken = jax.tree.map(take, best, now, is_leaf=lambda x: isinstance(x, RateState))
    return taken.replace(step=now.step)


def moved(
    net: types.Net,
    gradient: types.PyTree,
    stats: types.PyTree,
    optimizer: optax.GradientTransformationExtraArgs,
    hours: Array | float,
    memory: types.PyTree = None,
) -> types.Net:
    """The player after one step against its gradient.

    `stats` is what its forward passes have left, `memory` what is kept besides (None: as it was).
    """
    updates, opt = optimizer.update(gradient, net.opt, net.params, hours=hours)
    params, memory = optax.apply_updates(net.params, updates), net.memory if memory is None else memory
    return types.Net(params, stats, opt, memory)


def learn(
    net: types.Net,
    optimizer: optax.GradientTransformationExtraArgs,
    loss: Loss,
    batches: Any,
    accumulate: int,
    hours: Array | float = 0.0,
    axis: str | None = None,
) -> tuple[types.Net, types.Scalars]:
    """One optimiser step on the mean loss over `accumulate` batches (leading axis of `batches`).

    Each batch starts from the same statistics and memory and what they become is averaged, so that spectral
    norm iterates once and its sigma is one number for the whole step: the result is that of one large batch.
    With `axis` the average is also that of the devices along it, each of which has batches of its own.
    """
    grad = jax.value_and_grad(loss, has_aux=True)

    def one(batch: Any) -> tuple[types.PyTree, Aux]:
        (_, aux), gradient = grad(net.params, batch)
        return gradient, aux

    if accumulate == 1:
        gradient, aux = one(jax.tree.map(lambda x: x[0], batches))
    else:
        first = jax.tree.map(lambda x: x[0], batches)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(one, first))

        def add(total: types.PyTree, batch: Any) -> tuple[types.PyTree, None]:
            return jax.tree.map(jnp.add, total, one(batch)), None

        total, _ = jax.lax.scan(add, zeros, batches)
        gradient, aux = jax.tree.map(lambda x: x / accumulate, total)
    if axis is not None:
        gradient, aux = jax.lax.pmean((gradient, aux), axis)
    stats, memory, scalars = aux
    scalars = {**scalars, "grad_norm": optax.tree.norm(gradient)}
    return moved(net, gradient, stats, optimizer, hours, memory), scalars


def adam(
    schedule: Rate, b1: float, b2: float | tuple, eps: float, weight_decay: float, steps: int
) -> optax.GradientTransformationExtraArgs:
    """Adam (Kingma and Ba 2015); `weight_decay` is L2 added to the gradient, as in torch's Adam.

    `b2` may be a pair, and then goes from one to the other over `steps` updates, as in `curves.at`.
    """
    parts = [optax.add_decayed_weights(weight_decay)] if weight_decay else []
    return optax.chain(*parts, scale_by_adam(b1, b2, eps, steps), scale_by_rate(schedule))


def scale_by_adam(b1: float, b2: float | tuple, eps: float, steps: int) -> optax.GradientTransformation:
    """optax's, with a `b2` that may change; each update corrects its bias by the b2 of its own."""
    if not isinstance(b2, tuple):
        return optax.scale_by_adam(b1=b1, b2=b2, eps=eps)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        now: Any = ramps.at(b2, state.count / max(steps, 1))
        return optax.scale_by_adam(b1=b1, b2=now, eps=eps).update(updates, state, params)

    return optax.GradientTransformation(optax.scale_by_adam(b1=b1, eps=eps).init, update)


def per_leaf(transform: optax.GradientTransformation) -> optax.GradientTransformation:
    """`transform` with a state of its own for every array: what joins later starts from its own step 0."""

    def init(params: Any) -> Any:
        return jax.tree.map(transform.init, params)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        leaves, tree = jax.tree.flatten(updates)
        done = [transform.update(x, s) for x, s in zip(leaves, tree.flatten_up_to(state), strict=True)]
        return tree.unflatten([x for x, _ in done]), tree.unflatten([s for _, s in done])

    return optax.GradientTransformation(init, update)


def shorten_rows(longest: Mapping[str, float]) -> optax.GradientTransformation:
    """Updates after which no row is too long: parameters under a name of `longest` are cut to that length.

    Rows are along the last axis. torch's `Embedding(max_norm=...)` does so to the rows it looks up, before
    each use.
    """

    def init(params: Any) -> optax.EmptyState:
        paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
        found = {name for path in paths for name in _names(path)}
        if missing := sorted(set(longest) - found):
            raise ValueError(f"longest_rows names {missing[0]!r}; there are {', '.join(sorted(found))}")
        return optax.EmptyState()

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        def cut(path: tuple[Any, ...], u: Array, p: Array) -> Array:
            limits = [longest[name] for name in _names(path) if name in longest]
            if not limits:
                return u
            length = jnp.linalg.norm(p + u, axis=-1, keepdims=True)
            return (p + u) * jnp.where(length > limits[0], limits[0] / (length + 1e-7), 1.0) - p

        return jax.tree_util.tree_map_with_path(cut, updates, params), state

    return optax.GradientTransformation(init, update)


def _names(path: tuple[Any, ...]) -> list[str]:
    return [jax.tree_util.keystr((key,), simple=True) for key in path]


def adam_per_leaf(
    schedule: Rate,
    b1: float,
    b2: float | tuple,
    eps: float,
    weight_decay: float,
    steps: int,
    longest_rows: Mapping[str, float],
) -> optax.GradientTransformationExtraArgs:
    """As `adam`, for networks that grow: as torch does, it counts the steps of each parameter on its own.

    `longest_rows`: see `shorten_rows`; {} for none.
    """
    parts = [optax.add_decayed_weights(weight_decay)] if weight_decay else []
    scaled = per_leaf(scale_by_adam(b1, b2, eps, steps))
    return optax.chain(*parts, scaled, scale_by_rate(schedule), shorten_rows(longest_rows))


def keras_adam(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Adam as Keras 2 computes it, without its rate: eps beside the root of the uncorrected second moment.

    The form at the end of section 2 in Kingma and Ba 2015. It is another optimiser where gradients are as
    small as eps: early steps are far shorter than those of `adam`.
    """

    def init(params: Any) -> optax.ScaleByAdamState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return optax.ScaleByAdamState(jnp.zeros((), jnp.int32), zeros, jax.tree.map(jnp.copy, zeros))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, optax.ScaleByAdamState]:
        del params
        count = state.count + 1
        mu = jax.tree.map(lambda m, g: b1 * m + (1.0 - b1) * g, state.mu, updates)
        nu = jax.tree.map(lambda v, g: b2 * v + (1.0 - b2) * jnp.square(g), state.nu, updates)
        scale = jnp.sqrt(1.0 - b2**count) / (1.0 - b1**count)
        steps = jax.tree.map(lambda m, v: scale * m / (jnp.sqrt(v) + eps), mu, nu)
        return steps, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)
