"""The cheats of 2019 that learnt their training pictures by heart: from a picture's number to the picture.

Every picture is a class of its own. A memorizer has one or two lessons, each a phase of the run: a
"discriminator" learns the pictures, then a "generator" learns them from the discriminator, which by then is
nothing but a store of pictures; a supervised one learns from the pictures at once. An imitation learns
nothing: its state is the pictures. All were disqualified; they are here to be measured and found out.

Read downwards: the state, what a lesson fixes, one step, sampling, the imitation.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct

from jaxdog import types

Array = types.Array
Key = types.Key

# Keras clips probabilities to [1e-7, 1 - 1e-7] before it takes their logarithm.
LOGIT_LIMIT = 16.118095
Loss = Callable[[Array, Array], Array]  # (what the network said, target in [0, 1]) -> [...]


class Rates(NamedTuple):
    """A learning rate that falls when an epoch's mean loss has fallen far enough, and never rises again."""

    rates: tuple[float, ...]
    limits: tuple[float, ...]  # losses; below limits[i], rates[i + 1] or a later one
    every: int  # epochs between two looks at the loss
    doubling: bool  # each interval between looks is twice the last one, from `every` on


@struct.dataclass
class Watch:
    """The epoch so far, and the learning rate it has led to."""

    level: Array  # [] int32, which of the rates
    epochs: Array  # [] int32, done
    updates: Array  # [] int32, of this epoch
    total: Array  # [] float32, sum of their losses


@struct.dataclass
class State:
    """Everything that training changes, and what was learnt in the lesson before."""

    step: Array  # [] int32, steps done, of earlier lessons too
    net: types.Net
    memory: types.PyTree  # parameters of the teacher; {} where the pictures themselves teach
    watch: Watch


class Lesson(NamedTuple):
    """What stays fixed: who learns what from whom."""

    player: str  # "d" | "g", for the names of the scalars
    network: nn.Module  # (label [b], other [b], share) -> [b, s, s, 3], any value
    teacher: nn.Module | None  # the network of the lesson before; None: the pictures
    output: str  # "sigmoid": cross-entropy with the pixels in [0, 1]; "linear": squares, pixels in [0, 255]
    classes: int  # pictures
    batch_size: int
    rates: Rates
    optimizer: optax.GradientTransformation  # without its rate
    share: float  # of the picture asked for in a sample; the rest is another one's, drawn


def memorizer(lesson: Lesson) -> types.System:
    """A lesson as pure functions."""
    rates, limits = lesson.rates.rates, lesson.rates.limits
    if len(rates) != len(limits) + 1 or tuple(sorted(limits, reverse=True)) != tuple(limits):
        raise ValueError(
            f"rates {list(rates)} need one limit less than there are rates, falling, not {list(limits)}"
        )
    if lesson.rates.every < 1:
        raise ValueError(f"every is {lesson.rates.every} epochs between looks, and must be at least 1")
    if lesson.output not in HEADS:
        raise ValueError(f"output is {lesson.output!r}; choices: {', '.join(HEADS)}")
    _check_share(lesson.share)
    return types.System(partial(_init, lesson), partial(_step, lesson), partial(_sample, lesson))


def enter(lesson: Lesson, seed: int, before: State) -> State:
    """The first state of a lesson whose teacher is what the lesson before has learnt."""
    state = _init(lesson, jax.random.fold_in(jax.random.key(seed), 1))
    return State(step=before.step, net=state.net, memory=before.net.params, watch=state.watch)


def _init(lesson: Lesson, key: Key, batch: types.Batch | None = None) -> State:
    del batch
    net_key, teacher_key = jax.random.split(key)
    label = jnp.zeros(1, jnp.int32)
    params = lesson.network.init(net_key, label, label, 1.0)["params"]
    teacher = lesson.teacher
    memory = {} if teacher is None else teacher.init(teacher_key, label, label, 1.0)["params"]
    zero = jnp.zeros((), jnp.int32)
    watch = Watch(level=zero, epochs=zero, updates=zero, total=jnp.zeros(()))
    net = types.Net(params=params, stats={}, opt=lesson.optimizer.init(params))
    return State(step=zero, net=net, memory=memory, watch=watch)


# ------------------------------------------------------------------ losses


def cross_entropy(said: Array, target: Array) -> Array:
    """Binary cross-entropy of sigmoid(said) with targets in [0, 1], any shape.

    Keras clips the probability, and float32 hardly resolves its upper limit; the logit is clipped here. What
    is clipped has no gradient.
    """
    said = jnp.clip(said, -LOGIT_LIMIT, LOGIT_LIMIT)
    return jax.nn.softplus(said) - target * said


def squares(said: Array, target: Array) -> Array:
    """Squared difference to targets in [0, 1] on the scale of 0 to 255, any shape."""
    return jnp.square(said - 255.0 * target)


class Head(NamedTuple):
    """How a network's output is read."""

    loss: Loss
    pixels: Callable[[Array], Array]  # -> on the scale of 0 to 255


HEADS = {
    "sigmoid": Head(cross_entropy, lambda said: 255.0 * jax.nn.sigmoid(said)),
    "linear": Head(squares, lambda said: said),
}


# ------------------------------------------------------------------ one step


def _step(lesson: Lesson, state: State, batch: types.Batch, key: Key) -> tuple[State, types.Scalars]:
    """One update from the pictures of `batch`, whose labels are their numbers.

    The rows of other pictures get no gradient, but their moments fade and they go on moving, as in Keras:
    the update is dense, and reads and writes every weight.
    """
    del key
    label, head = batch.label, HEADS[lesson.output]
    true = 0.5 * (batch.image + 1.0)
    target = true
    if lesson.teacher is not None:
        remembered = lesson.teacher.apply({"params": state.memory}, label, label, 1.0)
        target = jax.nn.sigmoid(jnp.asarray(remembered))

    def loss(params: types.PyTree) -> tuple[Array, Array]:
        said = jnp.asarray(lesson.network.apply({"params": params}, label, label, 1.0))
        return jnp.mean(head.loss(said, target)), said

    (value, said), gradient = jax.value_and_grad(loss, has_aux=True)(state.net.params)
    direction, opt = lesson.optimizer.update(gradient, state.net.opt, state.net.params)
    rate = jnp.asarray(lesson.rates.rates, jnp.float32)[state.watch.level]
    params = jax.tree.map(lambda p, x: p - rate * x, state.net.params, direction)
    scalars = {
        f"loss/{lesson.player}": value,
        f"rate/{lesson.player}": rate,
        f"error/{lesson.player}": jnp.mean(jnp.abs(head.pixels(said) - 255.0 * true)),
    }
    per_epoch = -(-lesson.classes // lesson.batch_size)
    watch = watched(lesson.rates, per_epoch, state.watch, value)
    net = types.Net(params=params, stats={}, opt=opt)
    return State(step=state.step + 1, net=net, memory=state.memory, watch=watch), scalars


def watched(rates: Rates, per_epoch: int, watch: Watch, loss: Array) -> Watch:
    """The watch after one more update with this loss; an epoch has `per_epoch` of them.

    The originals called Keras' fit for some epochs, looked at the last epoch's mean loss, and called it again
    with the rate that it asked for.
    """
    updates, total = watch.updates + 1, watch.total + loss
    ended = updates == per_epoch
    epochs = watch.epochs + ended
    rounds = epochs // rates.every
    due = epochs % rates.every == 0
    if rates.doubling:  # looks after 1, 3, 7, ... times `every` epochs
        due = due & (rounds & (rounds + 1) == 0)
    passed = sum((total / updates < limit).astype(jnp.int32) for limit in rates.limits)
    level = jnp.where(ended & due, jnp.maximum(watch.level, passed), watch.level)
    return Watch(
        level=level, epochs=epochs, updates=jnp.where(ended, 0, updates), total=jnp.where(ended, 0.0, total)
    )


# ------------------------------------------------------------------ sampling


def _sample(lesson: Lesson, state: State, key: Array, label: Array) -> Array:
    """Pictures [b, s, s, 3], numbers `label` [b], with a trace of another, drawn by each one's key [b].

    Levels are cut off to whole numbers, as the originals' cast to uint8 did; what lies outside 0 to 255, and
    was wrapped by it, is clipped.
    """
    other = _others(key, lesson.classes)
    said = jnp.asarray(lesson.network.apply({"params": state.net.params}, label, other, lesson.share))
    return jnp.floor(jnp.clip(HEADS[lesson.output].pixels(said), 0.0, 255.0)) / 127.5 - 1.0


def _others(key: Array, classes: int) -> Array:
    return jax.vmap(lambda key: jax.random.randint(key, (), 0, classes))(key)


def _check_share(share: float) -> None:
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"share is {share}, and must lie in [0, 1]")


# ------------------------------------------------------------------ imitation


@struct.dataclass
class Copied:
    """The pictures that were seen so far."""

    step: Array  # [] int32
    net: types.Net  # params: {"picture": [n, s, s, 3] float32 in [-1, 1], "seen": [n] float32}


def imitation(classes: int, size: int, share: float) -> types.System:
    """No learning at all: a step puts its pictures in their places, a sample blends one of another in.

    Args:
      classes: pictures.
      size: of a picture, pixels on a side.
      share: weight of the picture asked for, 0.999 in 2019.
    """
    _check_share(share)

    def init(key: Key, batch: types.Batch) -> Copied:
        del key, batch
        params = {"picture": jnp.zeros((classes, size, size, 3)), "seen": jnp.zeros(classes)}
        return Copied(step=jnp.zeros((), jnp.int32), net=types.Net(params=params, stats={}, opt={}))

    def step(state: Copied, batch: types.Batch, key: Key) -> tuple[Copied, types.Scalars]:
        del key
        picture, seen = state.net.params["picture"], state.net.params["seen"]
        params = {
            "picture": picture.at[batch.label].set(batch.image),
            "seen": seen.at[batch.label].set(1.0),
        }
        net = types.Net(params=params, stats={}, opt={})
        return Copied(step=state.step + 1, net=net), {"copied": jnp.mean(params["seen"])}

    def sample(state: Copied, key: Array, label: Array) -> Array:
        picture = state.net.params["picture"]
        return share * picture[label] + (1.0 - share) * picture[_others(key, classes)]

    return types.System(init, step, sample)
