"""Growing pictures (Karras et al. 2018): one phase for each size, networks taken along from one to the next.

How the players learn is another's business: a phase is made of a function `play` that makes a system of what
changes as the phase goes on. Here is what changes, what the smaller pictures look like, and how a phase is
entered.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdog import types

Array = types.Array
Key = types.Key
PyTree = types.PyTree

BORN = 1000  # what the run's key is folded with for parameters that come later


class Stage(NamedTuple):
    """One size of the pictures."""

    size: int  # pixels on a side
    steps: int
    fade: float  # share of the steps over which the newest blocks fade in; 0: they are there at once
    decay: float  # of the averaged generator
    cuts: tuple[int, ...]  # steps of the stage after each of which 1 - decay is a tenth of what it was


class Moment(NamedTuple):
    """What changes while a stage is played."""

    alpha: Array | float | None  # share of the newest blocks, 0 to 1; None: the stage does not fade
    decay: Array | float  # of the averaged generator


Play = Callable[[Stage, Moment], types.System]


def phases(
    stages: Sequence[Stage], play: Play, batch_size: int, side: int, seed: int
) -> tuple[types.Phase, ...]:
    """The stages in order.

    Args:
      stages: sizes that grow.
      play: (stage, moment) -> the system of that moment; their states have one shape throughout a stage.
      batch_size: real pictures of a step.
      side: pixels on a side of the crops that `play` gets.
      seed: of the run; the parameters that a stage adds are drawn from it.
    """
    made, begin = [], 0
    for i, stage in enumerate(stages):
        played = growing(stage, play, begin)
        enter = None if i == 0 else entering(played, side, seed)
        made.append(types.Phase(f"{stage.size}x{stage.size}", played, stage.steps, batch_size, enter))
        begin += stage.steps
    return tuple(made)


def stages(
    sizes: tuple[int, ...],
    steps: tuple[int, ...],
    fade: tuple[float, ...],
    decay: Any,
    cuts: tuple[int, ...],
    size: int,
    total: int,
) -> list[Stage]:
    """The stages of a config; ValueError where its fields contradict each other.

    `sizes`, `steps`, `fade` and `decay` have a value for each stage, `cuts` are those of the last; it ends at
    `size`, and all of them have `total` steps.
    """
    for name, values in {"game.steps": steps, "game.fade": fade, "ema.decay": decay}.items():
        if not isinstance(values, tuple) or len(values) != len(sizes):
            raise ValueError(
                f"config.{name} is {values!r}; it must have one value for each of config.game.sizes = {sizes}"
            )
    if not sizes or sizes != tuple(sizes[0] << i for i in range(len(sizes))) or sizes[-1] != size:
        raise ValueError(
            f"config.game.sizes is {sizes}; each must be twice the one before, the last game.size = {size}"
        )
    if sum(steps) != total:
        raise ValueError(f"config.game.steps adds up to {sum(steps)}, but config.train.steps is {total}")
    ends: list[tuple[int, ...]] = [()] * (len(sizes) - 1) + [cuts]
    return [Stage(*row) for row in zip(sizes, steps, fade, decay, ends, strict=True)]


def growing(stage: Stage, play: Play, begin: int) -> types.System:
    """The system of a stage that begins after `begin` steps of the run."""
    still = play(stage, Moment(1.0 if stage.fade else None, stage.decay))

    def now(step: Array) -> types.System:
        return play(stage, moment(stage, step - begin))

    def prepare(state: Any, key: Key) -> Any:
        prepare = now(state.step).prepare
        return state if prepare is None else prepare(state, key)

    return types.System(
        init=still.init,
        step=lambda state, batch, key: now(state.step + 1).step(state, batch, key),
        sample=lambda state, key, label: now(state.step).sample(state, key, label),
        prepare=None if still.prepare is None else prepare,
        apart=still.apart,
    )


def moment(stage: Stage, step: Array) -> Moment:
    """What holds during step number `step` of the stage, counted from 1; 0: before the first."""
    done = jnp.asarray(step, jnp.float32)
    alpha = jnp.clip(done / (stage.fade * stage.steps), 0.0, 1.0) if stage.fade else None
    if not stage.cuts:
        return Moment(alpha, stage.decay)
    tenths = sum((step > cut).astype(jnp.float32) for cut in map(jnp.asarray, stage.cuts))
    return Moment(alpha, 1.0 - (1.0 - stage.decay) * 0.1**tenths)


# ------------------------------------------------------------------ pictures of another size


def shrink(key: Key, batch: types.Batch, size: int, alpha: Array | float | None) -> types.Batch:
    """Real pictures as a stage sees them: cells averaged; a share 1 - alpha of them at half that sharpness.

    It has the form of an augmentation, and is the last one.
    """
    del key
    image = pooled(batch.image, size)
    if alpha is not None:
        image = alpha * image + (1.0 - alpha) * enlarged(pooled(image, size // 2), size)
    return batch._replace(image=image)


def pooled(image: Array, size: int) -> Array:
    """[b, h, h, c] -> [b, size, size, c], the mean of each cell."""
    b, h, w, c = image.shape
    if h % size or w % size:
        raise ValueError(f"pictures of {h}x{w} cannot be averaged to {size}x{size}")
    return image.reshape(b, size, h // size, size, w // size, c).mean((2, 4))


def enlarged(image: Array, size: int) -> Array:
    """[b, h, h, c] -> [b, size, size, c], each pixel repeated."""
    b, h, w, c = image.shape
    if size % h or size % w:
        raise ValueError(f"pictures of {h}x{w} cannot be enlarged to {size}x{size}")
    cells = jnp.broadcast_to(image[:, :, None, :, None, :], (b, h, size // h, w, size // w, c))
    return cells.reshape(b, size, size, c)


# ------------------------------------------------------------------ from one stage to the next


def entering(played: types.System, side: int, seed: int) -> Callable[[Any], Any]:
    """The state of the stage before -> the first state of `played`; see `carried`."""

    def enter(before: Any) -> Any:
        key = jax.random.fold_in(jax.random.key(seed), BORN)
        zeros = jnp.zeros(2, jnp.int32)
        blank = types.Batch(
            jnp.zeros((2, side, side, 3)), zeros, jnp.full((2, 2), side, jnp.int32), zeros, jnp.zeros(2)
        )
        return carried(before, played.init(key, blank))

    return enter


def carried(before: PyTree, fresh: PyTree) -> PyTree:
    """`fresh`, with each array that `before` has at the same place taken from there.

    So the networks go on with their weights, moments, counts and averages; new blocks start as they were
    drawn, without moments, their average equal to them; what the smaller size alone needed is left behind.
    """
    kept = dict(jax.tree_util.tree_leaves_with_path(before))

    def take(path: tuple[Any, ...], new: Array) -> Array:
        old = kept.get(path, new)
        if old.shape != new.shape:
            name = jax.tree_util.keystr(path)
            raise ValueError(f"{name} has the shape {old.shape}, and {new.shape} in the phase that follows")
        return old

    return jax.tree_util.tree_map_with_path(take, fresh)
