"""Training of the disqualified memorizers of 2019: networks that overfit the training images on purpose.

Every training image is a class of its own, and the label is its index. A run has one or two phases. With
two, a "discriminator" first learns the images, then a "generator" is distilled from the discriminator, which
has become a table of images. With one, the generator learns the images directly. An imitation does not learn
at all: its state holds the images.

The file goes from the specification over losses, training step and learning-rate schedule to sampling.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct

from jaxdog import types
from jaxdog.utils import errors

Array = types.Array
Key = types.Key

# Keras clips probabilities to [1e-7, 1 - 1e-7] in its cross-entropy; this is the logit of the upper limit.
LOGIT_LIMIT = 16.118095
Loss = Callable[[Array, Array], Array]  # (output of the network, target in [0, 1]) -> loss of each value


class LossSchedule(NamedTuple):
    """Learning rates that are lowered when the mean loss of an epoch falls below thresholds."""

    rates: tuple[float, ...]
    thresholds: tuple[float, ...]  # decreasing; below thresholds[i] the learning rate is at most rates[i + 1]
    interval: int  # epochs between two comparisons with the thresholds
    doubling: bool  # each interval is twice the one before, starting with `interval`


@struct.dataclass
class ScheduleState:
    """State of a `LossSchedule`."""

    level: Array  # [] int32, index into `rates`; never decreases
    epochs: Array  # [] int32, completed
    updates: Array  # [] int32, of the current epoch
    loss_sum: Array  # [] float32, over the updates of the current epoch


@struct.dataclass
class State:
    """Training state of one phase."""

    step: Array  # [] int32, steps done, including those of the phase before
    net: types.PlayerState
    teacher_params: types.PyTree  # {} without a teacher
    schedule: ScheduleState


class MemorizerSpec(NamedTuple):
    """Hyperparameters of one phase."""

    player: str  # "d" | "g", for the names of the scalars
    network: nn.Module  # (label [b], other [b], weight) -> [b, s, s, 3], unbounded
    teacher: nn.Module | None  # the network of the phase before; None: the targets are the images
    output: str  # a key of HEADS
    classes: int  # number of training images
    batch_size: int
    schedule: LossSchedule
    optimizer: optax.GradientTransformation  # without its learning rate
    blend_weight: float  # in [0, 1], of the requested image in a sample; the rest is a random other image


def memorizer(spec: MemorizerSpec) -> types.System:
    """One phase of a memorizer.

    Raises:
      UserError: an invalid schedule, output or blend weight.
    """
    rates, thresholds = spec.schedule.rates, spec.schedule.thresholds
    if len(rates) != len(thresholds) + 1 or tuple(sorted(thresholds, reverse=True)) != tuple(thresholds):
        raise errors.UserError(
            f"thresholds are {list(thresholds)}, and must be decreasing and one fewer than rates "
            f"{list(rates)}"
        )
    if spec.schedule.interval < 1:
        raise errors.UserError(f"interval is {spec.schedule.interval} epochs, and must be at least 1")
    if spec.output not in HEADS:
        raise errors.UserError(f"output is {spec.output!r}; choices: {', '.join(HEADS)}")
    _check_blend_weight(spec.blend_weight)
    return types.System(partial(_init, spec), partial(_step, spec), partial(_sample, spec))


def transition(spec: MemorizerSpec, seed: int, before: State) -> State:
    """Initial state of a phase whose teacher is the network of the phase before."""
    state = _init(spec, jax.random.fold_in(jax.random.key(seed), 1))
    return dataclasses.replace(state, step=before.step, teacher_params=before.net.params)


def _init(spec: MemorizerSpec, key: Key, batch: types.Batch | None = None) -> State:
    del batch
    net_key, teacher_key = jax.random.split(key)
    label = jnp.zeros(1, jnp.int32)
    params = spec.network.init(net_key, label, label, 1.0)["params"]
    teacher = spec.teacher
    teacher_params = {} if teacher is None else teacher.init(teacher_key, label, label, 1.0)["params"]
    zero = jnp.zeros((), jnp.int32)
    return State(
        step=zero,
        net=types.PlayerState(params=params, model_state={}, opt_state=spec.optimizer.init(params)),
        teacher_params=teacher_params,
        schedule=ScheduleState(level=zero, epochs=zero, updates=zero, loss_sum=jnp.zeros(())),
    )


# ------------------------------------------------------------------ losses


def cross_entropy(logit: Array, target: Array) -> Array:
    """Binary cross-entropy of sigmoid(logit) with targets in [0, 1], elementwise.

    Keras clips the probability; float32 barely resolves its upper limit, so the logit is clipped here. The
    gradient is zero where it is clipped.
    """
    logit = jnp.clip(logit, -LOGIT_LIMIT, LOGIT_LIMIT)
    return jax.nn.softplus(logit) - target * logit


def squared_error(output: Array, target: Array) -> Array:
    """Squared error, elementwise; the output is in [0, 255], the target in [0, 1]."""
    return jnp.square(output - 255.0 * target)


class Head(NamedTuple):
    """How the output of a network is interpreted."""

    loss: Loss
    pixels: Callable[[Array], Array]  # output -> values in the range 0 to 255


HEADS = {
    "sigmoid": Head(cross_entropy, lambda output: 255.0 * jax.nn.sigmoid(output)),
    "linear": Head(squared_error, lambda output: output),
}


# ------------------------------------------------------------------ training


def _step(spec: MemorizerSpec, state: State, batch: types.Batch, key: Key) -> tuple[State, types.Scalars]:
    """One update on the images of `batch`, whose labels are their indices.

    As in Keras the update is dense: rows of images outside the batch have no gradient, but their moments
    still move them.
    """
    del key
    label, head = batch.label, HEADS[spec.output]
    image = 0.5 * (batch.image + 1.0)
    target = image
    if spec.teacher is not None:
        logit = spec.teacher.apply({"params": state.teacher_params}, label, label, 1.0)
        target = jax.nn.sigmoid(jnp.asarray(logit))

    def loss(params: types.PyTree) -> tuple[Array, Array]:
        output = jnp.asarray(spec.network.apply({"params": params}, label, label, 1.0))
        return jnp.mean(head.loss(output, target)), output

    (value, output), gradient = jax.value_and_grad(loss, has_aux=True)(state.net.params)
    direction, opt_state = spec.optimizer.update(gradient, state.net.opt_state, state.net.params)
    rate = jnp.asarray(spec.schedule.rates, jnp.float32)[state.schedule.level]
    params = jax.tree.map(lambda p, x: p - rate * x, state.net.params, direction)
    scalars = {
        f"loss/{spec.player}": value,
        f"rate/{spec.player}": rate,
        f"error/{spec.player}": jnp.mean(jnp.abs(head.pixels(output) - 255.0 * image)),
    }
    updates_per_epoch = -(-spec.classes // spec.batch_size)
    new_state = State(
        step=state.step + 1,
        net=types.PlayerState(params=params, model_state={}, opt_state=opt_state),
        teacher_params=state.teacher_params,
        schedule=advance_schedule(spec.schedule, updates_per_epoch, state.schedule, value),
    )
    return new_state, scalars


def advance_schedule(
    schedule: LossSchedule, updates_per_epoch: int, state: ScheduleState, loss: Array
) -> ScheduleState:
    """The schedule's state after one more update with this loss.

    The originals called Keras' `fit` for `interval` epochs, compared the last epoch's mean loss with the
    thresholds, and called it again with the resulting learning rate.
    """
    updates, loss_sum = state.updates + 1, state.loss_sum + loss
    epoch_ends = updates == updates_per_epoch
    epochs = state.epochs + epoch_ends
    intervals = epochs // schedule.interval
    compare = epochs % schedule.interval == 0
    if schedule.doubling:  # compare after 1, 3, 7, ... times `interval` epochs
        compare = compare & (intervals & (intervals + 1) == 0)
    passed = sum((loss_sum / updates < limit).astype(jnp.int32) for limit in schedule.thresholds)
    return ScheduleState(
        level=jnp.where(epoch_ends & compare, jnp.maximum(state.level, passed), state.level),
        epochs=epochs,
        updates=jnp.where(epoch_ends, 0, updates),
        loss_sum=jnp.where(epoch_ends, 0.0, loss_sum),
    )


# ------------------------------------------------------------------ sampling


def _sample(spec: MemorizerSpec, state: State, key: Array, label: Array) -> Array:
    """The images with indices `label` [b], each blended with a random other one -> [b, s, s, 3] in [-1, 1].

    Values are truncated to integers, as by the originals' cast to uint8. Values outside 0 to 255, which the
    cast wrapped around, are clipped.
    """
    other = _random_labels(key, spec.classes)
    output = jnp.asarray(spec.network.apply({"params": state.net.params}, label, other, spec.blend_weight))
    return jnp.floor(jnp.clip(HEADS[spec.output].pixels(output), 0.0, 255.0)) / 127.5 - 1.0


def _random_labels(key: Array, classes: int) -> Array:
    return jax.vmap(lambda key: jax.random.randint(key, (), 0, classes))(key)


def _check_blend_weight(weight: float) -> None:
    if not 0.0 <= weight <= 1.0:
        raise errors.UserError(f"blend_weight is {weight}, and must lie in [0, 1]")


# ------------------------------------------------------------------ imitation


@struct.dataclass
class ImitationState:
    """The training images seen so far."""

    step: Array  # [] int32
    net: types.PlayerState  # params: {"image": [n, s, s, 3] float32 in [-1, 1], "seen": [n] float32, 0 or 1}


def imitation(classes: int, size: int, blend_weight: float) -> types.System:
    """The "Imitation Game" entries: a step stores its images, a sample blends two stored images.

    Args:
      classes: number of training images.
      size: height and width of the images.
      blend_weight: in [0, 1], of the requested image; it was 0.999 in 2019.

    Raises:
      UserError: `blend_weight` is outside [0, 1].
    """
    _check_blend_weight(blend_weight)

    def player(params: types.PyTree) -> types.PlayerState:
        return types.PlayerState(params=params, model_state={}, opt_state={})

    def init(key: Key, batch: types.Batch) -> ImitationState:
        del key, batch
        params = {"image": jnp.zeros((classes, size, size, 3)), "seen": jnp.zeros(classes)}
        return ImitationState(step=jnp.zeros((), jnp.int32), net=player(params))

    def step(state: ImitationState, batch: types.Batch, key: Key) -> tuple[ImitationState, types.Scalars]:
        del key
        params = {
            "image": state.net.params["image"].at[batch.label].set(batch.image),
            "seen": state.net.params["seen"].at[batch.label].set(1.0),
        }
        new_state = ImitationState(step=state.step + 1, net=player(params))
        return new_state, {"copied": jnp.mean(params["seen"])}

    def sample(state: ImitationState, key: Array, label: Array) -> Array:
        image = state.net.params["image"]
        return blend_weight * image[label] + (1.0 - blend_weight) * image[_random_labels(key, classes)]

    return types.System(init, step, sample)
