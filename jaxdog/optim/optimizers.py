"""Optimizers as optax transformations, and the update of one player.

A player is a network with its optimizer state, `types.PlayerState`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdog import types
from jaxdog.ops import ramps
from jaxdog.optim import schedules
from jaxdog.utils import errors

Array = jax.Array
Aux = tuple[Any, Any, types.Scalars]  # new model state, new regularizer state, scalars to log
Loss = Callable[[Any, Any], tuple[Array, Aux]]  # (params, batch) -> (loss [], aux)


# ------------------------------------------------------------------ one step of a player


def init_player(
    variables: Any, optimizer: optax.GradientTransformation, regularizer_state: types.PyTree = None
) -> types.PlayerState:
    """A network with its optimizer before the first step; `variables` are those of the module's `init`."""
    params = variables["params"]
    model_state = {name: tree for name, tree in variables.items() if name != "params"}
    state = {} if regularizer_state is None else regularizer_state
    return types.PlayerState(params, model_state, optimizer.init(params), state)


def apply_gradients(
    player: types.PlayerState,
    gradient: types.PyTree,
    model_state: types.PyTree,
    optimizer: optax.GradientTransformationExtraArgs,
    hours: Array | float,
    regularizer_state: types.PyTree = None,
) -> types.PlayerState:
    """One optimizer step: the player with new parameters, optimizer state, model state and regularizer state.

    Args:
      player: the player.
      gradient: of the loss with respect to its parameters.
      model_state: the new one, after the forward pass.
      optimizer: the player's.
      hours: trained so far, for the learning-rate schedule.
      regularizer_state: the new one; None keeps the player's.
    """
    updates, opt_state = optimizer.update(gradient, player.opt_state, player.params, hours=hours)
    params = optax.apply_updates(player.params, updates)
    kept = player.regularizer_state if regularizer_state is None else regularizer_state
    return types.PlayerState(params, model_state, opt_state, kept)


def accumulate_and_apply(
    player: types.PlayerState,
    optimizer: optax.GradientTransformationExtraArgs,
    loss: Loss,
    batches: Any,
    grad_accumulation_steps: int,
    hours: Array | float = 0.0,
    axis: str | None = None,
) -> tuple[types.PlayerState, types.Scalars]:
    """One optimizer step on the mean loss over `grad_accumulation_steps` microbatches.

    Updates the parameters, optimizer state, model state and regularizer state of a player. Every microbatch
    starts from the same model state and regularizer state, and the resulting states are averaged. Spectral
    norm therefore does one power iteration per step, with one sigma for all microbatches. The result equals
    that of one large batch, except for layers and losses that use batch statistics.

    Args:
      player: the player.
      optimizer: the player's.
      loss: function of the player's parameters and one microbatch.
      batches: pytree of microbatches, stacked along the leading axis.
      grad_accumulation_steps: length of that axis.
      hours: trained so far, for the learning-rate schedule.
      axis: name of the mapped axis over which gradients, states and scalars are also averaged; None: none.

    Returns:
      The updated player, and the scalars of `loss` with "grad_norm" added.
    """
    grad = jax.value_and_grad(loss, has_aux=True)

    def grad_and_aux(batch: Any) -> tuple[types.PyTree, Aux]:
        (_, aux), gradient = grad(player.params, batch)
        return gradient, aux

    first = jax.tree.map(lambda x: x[0], batches)
    if grad_accumulation_steps == 1:
        gradient, aux = grad_and_aux(first)
    else:
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(grad_and_aux, first))

        def add(total: types.PyTree, batch: Any) -> tuple[types.PyTree, None]:
            return jax.tree.map(jnp.add, total, grad_and_aux(batch)), None

        total, _ = jax.lax.scan(add, zeros, batches)
        gradient, aux = jax.tree.map(lambda x: x / grad_accumulation_steps, total)
    if axis is not None:
        gradient, aux = jax.lax.pmean((gradient, aux), axis)
    model_state, regularizer_state, scalars = aux
    scalars = {**scalars, "grad_norm": optax.tree.norm(gradient)}
    return apply_gradients(player, gradient, model_state, optimizer, hours, regularizer_state), scalars


def rollback_state(best: types.PyTree, current: types.PyTree, factor: float) -> types.PyTree:
    """The state to resume from after training has diverged.

    All arrays are those of `best`, except the step and the counts of learning-rate schedules: these stay
    those of `current`, so that schedules continue. Learning rates are multiplied by `factor`. Both states
    have a `step`.
    """

    def select(old: Any, new: Any) -> Any:
        is_rate = isinstance(new, schedules.LearningRateState)
        return new._replace(factor=factor * new.factor) if is_rate else old

    restored = jax.tree.map(
        select, best, current, is_leaf=lambda x: isinstance(x, schedules.LearningRateState)
    )
    return restored.replace(step=current.step)


# ------------------------------------------------------------------ the optimizers of a config


def adam(
    schedule: schedules.Schedule,
    b1: float,
    b2: float | tuple,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    steps: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Adam (Kingma and Ba 2015).

    Args:
      schedule: of the learning rate.
      b1: decay of the first moment.
      b2: decay of the second moment; a pair (first, last) changes along half a cosine, see
        `ramps.cosine_ramp`.
      eps: added to the square root of the second moment.
      weight_decay: L2 term added to the gradient, as in torch's Adam (not AdamW).
      steps: number of updates over which `b2` changes.
    """
    l2 = [optax.add_decayed_weights(weight_decay)] if weight_decay else []
    return _chain(*l2, scale_by_adam(b1, b2, eps, steps), schedules.scale_by_learning_rate(schedule))


def adam_per_leaf(
    schedule: schedules.Schedule,
    b1: float,
    b2: float | tuple,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    steps: int = 0,
    max_row_norms: Mapping[str, float] = {},  # noqa: B006
) -> optax.GradientTransformationExtraArgs:
    """Adam with one step count per parameter array, as in torch, for networks that grow during training.

    Arguments are those of `adam`, and `max_row_norms`, see `clip_row_norms`; {}: no clipping.
    """
    l2 = [optax.add_decayed_weights(weight_decay)] if weight_decay else []
    scaled = per_leaf(scale_by_adam(b1, b2, eps, steps))
    return _chain(*l2, scaled, schedules.scale_by_learning_rate(schedule), clip_row_norms(max_row_norms))


def _chain(*parts: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """`optax.chain` whose parts get the schedule's `num_updates`, which a rollback does not set back."""
    chained = optax.chain(*parts)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        (rate,) = (part for part in state if isinstance(part, schedules.LearningRateState))
        return chained.update(updates, state, params, num_updates=rate.count, **extra)

    return optax.GradientTransformationExtraArgs(chained.init, update)


# ------------------------------------------------------------------ transformations


def scale_by_adam(
    b1: float, b2: float | tuple, eps: float, steps: int
) -> optax.GradientTransformationExtraArgs:
    """`optax.scale_by_adam` with a `b2` that may change with the extra argument `num_updates` of `update`.

    Bias correction uses the current `b2`, and a count of its own, which belongs to the moments.
    """
    if not isinstance(b2, tuple):
        return optax.with_extra_args_support(optax.scale_by_adam(b1=b1, b2=b2, eps=eps))

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        current: Any = ramps.cosine_ramp(b2, extra["num_updates"] / max(steps, 1))
        return optax.scale_by_adam(b1=b1, b2=current, eps=eps).update(updates, state, params)

    return optax.GradientTransformationExtraArgs(optax.scale_by_adam(b1=b1, eps=eps).init, update)


def scale_by_keras_adam(
    b1: float = 0.9, b2: float = 0.999, eps: float = 1e-7
) -> optax.GradientTransformation:
    """Adam as in Keras 2: `eps` is added to the square root of the second moment before bias correction.

    This is the reordered form at the end of section 2 of Kingma and Ba 2015. It differs from `adam` where
    gradients are as small as `eps`: the first steps are far shorter.
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
        scaled = jax.tree.map(lambda m, v: scale * m / (jnp.sqrt(v) + eps), mu, nu)
        return scaled, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def per_leaf(transform: optax.GradientTransformationExtraArgs) -> optax.GradientTransformationExtraArgs:
    """`transform` with a separate state for every array, so that an array added later starts at count 0."""

    def init(params: Any) -> Any:
        return jax.tree.map(transform.init, params)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        del params
        leaves, tree = jax.tree.flatten(updates)
        states = tree.flatten_up_to(state)
        results = [transform.update(x, s, **extra) for x, s in zip(leaves, states, strict=True)]
        return tree.unflatten([x for x, _ in results]), tree.unflatten([s for _, s in results])

    return optax.GradientTransformationExtraArgs(init, update)


def clip_row_norms(max_norms: Mapping[str, float]) -> optax.GradientTransformation:
    """Changes updates such that no row of the named parameters exceeds its maximum norm.

    Args:
      max_norms: name of a parameter or of a module -> largest L2 norm of a row (along the last axis).
        torch's `Embedding(max_norm=...)` rescales rows in the same way before each lookup.

    Raises:
      UserError: in `init`, if no parameter or module has one of the names.
    """

    def init(params: Any) -> optax.EmptyState:
        paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
        known = {name for path in paths for name in _path_names(path)}
        if missing := sorted(set(max_norms) - known):
            raise errors.UserError(
                f"max_row_norms names {missing[0]!r}; there are {', '.join(sorted(known))}"
            )
        return optax.EmptyState()

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        def clip(path: tuple[Any, ...], update: Array, param: Array) -> Array:
            limits = [max_norms[name] for name in _path_names(path) if name in max_norms]
            if not limits:
                return update
            norm = jnp.linalg.norm(param + update, axis=-1, keepdims=True)
            return (param + update) * jnp.where(norm > limits[0], limits[0] / (norm + 1e-7), 1.0) - param

        return jax.tree_util.tree_map_with_path(clip, updates, params), state

    return optax.GradientTransformation(init, update)


def _path_names(path: tuple[Any, ...]) -> list[str]:
    return [jax.tree_util.keystr((key,), simple=True) for key in path]
