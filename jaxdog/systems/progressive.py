"""Progressive growing (Karras et al. 2018): one phase per resolution, with networks that grow between phases.

The module is independent of how the players are trained: `make_system` makes the system of a stage. Defined
here are the values that change within a stage, the resizing of images, and the transition between stages.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdog import types
from jaxdog.utils import errors

Array = types.Array
Key = types.Key
PyTree = types.PyTree

NEW_PARAMS_STREAM = 1000  # folded into the run's key for the parameters that a stage adds


class Stage(NamedTuple):
    """Training at one resolution."""

    resolution: int
    steps: int
    fade: float  # fraction of the steps over which the newest blocks fade in; 0: no fading
    ema_decay: float
    ema_milestones: tuple[int, ...]  # steps of the stage after each of which 1 - ema_decay is divided by 10


class Progress(NamedTuple):
    """Values that change within a stage."""

    alpha: Array | float | None  # weight of the newest blocks in [0, 1]; None: no fading
    ema_decay: Array | float


MakeSystem = Callable[[Stage, Progress], types.System]


def phases(
    stages: Sequence[Stage], make_system: MakeSystem, batch_size: int, stored_resolution: int, seed: int
) -> tuple[types.Phase, ...]:
    """The phases of a run, one per stage.

    Args:
      stages: in order of training.
      make_system: (stage, progress) -> system; states have the same shapes throughout a stage.
      batch_size: real images per step.
      stored_resolution: of the images of a batch, before augmentation.
      seed: of the run, from which the parameters that a stage adds are initialized.
    """
    result, begin = [], 0
    for i, stage in enumerate(stages):
        system = stage_system(stage, make_system, begin)
        transition = None if i == 0 else transition_to(system, stored_resolution, seed)
        name = f"{stage.resolution}x{stage.resolution}"
        result.append(types.Phase(name, system, stage.steps, batch_size, transition))
        begin += stage.steps
    return tuple(result)


def stages(
    resolutions: tuple[int, ...],
    steps: tuple[int, ...],
    fade: tuple[float, ...],
    ema_decay: Any,
    ema_milestones: tuple[int, ...],
    total_steps: int,
) -> list[Stage]:
    """The stages that a config describes.

    Args:
      resolutions: of the stages, each twice the one before.
      steps, fade, ema_decay: one value per stage.
      ema_milestones: of the last stage.
      total_steps: of all stages.

    Raises:
      UserError: the values contradict each other.
    """
    for name, values in {"system.steps": steps, "system.fade": fade, "ema.decay": ema_decay}.items():
        if not isinstance(values, tuple) or len(values) != len(resolutions):
            raise errors.UserError(
                f"config.{name} is {values!r}; it must have one value for each of "
                f"config.system.resolutions = {resolutions}"
            )
    ranges = {"system.fade": (fade, 1.0), "ema.decay": (ema_decay, math.nextafter(1.0, 0.0))}
    for name, (values, most) in ranges.items():
        if not all(0.0 <= value <= most for value in values):
            end = "1]" if most == 1.0 else "1)"
            raise errors.UserError(f"config.{name} is {values!r}; each value must lie in [0, {end}")
    if not resolutions or resolutions != tuple(resolutions[0] << i for i in range(len(resolutions))):
        raise errors.UserError(
            f"config.system.resolutions is {resolutions}; each must be twice the one before"
        )
    if sum(steps) != total_steps:
        raise errors.UserError(
            f"config.system.steps adds up to {sum(steps)}, but config.train.steps is {total_steps}"
        )
    milestones: list[tuple[int, ...]] = [()] * (len(resolutions) - 1) + [ema_milestones]
    return [Stage(*row) for row in zip(resolutions, steps, fade, ema_decay, milestones, strict=True)]


def stage_system(stage: Stage, make_system: MakeSystem, begin: int) -> types.System:
    """The system of a stage that begins after `begin` steps of the run."""
    fixed = make_system(stage, Progress(1.0 if stage.fade else None, stage.ema_decay))

    def at(step: Array) -> types.System:
        return make_system(stage, progress_at(stage, step - begin))

    def at_step_of(name: str) -> Callable[..., Any] | None:
        """The function `name` of the system at the state's step; None if the system does not have it."""
        if getattr(fixed, name) is None:
            return None
        return lambda state, *args: getattr(at(state.step), name)(state, *args)

    return types.System(
        init=fixed.init,
        step=lambda state, batch, key: at(state.step + 1).step(state, batch, key),
        sample=lambda state, key, label: at(state.step).sample(state, key, label),
        prepare=at_step_of("prepare"),
        latent=fixed.latent,
        decode=at_step_of("decode"),
        map_latents=at_step_of("map_latents"),
        synthesize=at_step_of("synthesize"),
        per_device=fixed.per_device,
    )


def progress_at(stage: Stage, step: Array) -> Progress:
    """The values at step `step` of the stage, counted from 1; 0: before the first step."""
    done = jnp.asarray(step, jnp.float32)
    alpha = jnp.clip(done / (stage.fade * stage.steps), 0.0, 1.0) if stage.fade else None
    if not stage.ema_milestones:
        return Progress(alpha, stage.ema_decay)
    passed = sum(
        (step > milestone).astype(jnp.float32) for milestone in map(jnp.asarray, stage.ema_milestones)
    )
    return Progress(alpha, 1.0 - (1.0 - stage.ema_decay) * 0.1**passed)


# ------------------------------------------------------------------ resizing images


def downscale_reals(key: Key, batch: types.Batch, size: int, alpha: Array | float | None) -> types.Batch:
    """Real images at a stage's resolution: alpha * image + (1 - alpha) * the image at half of it.

    See Karras et al. 2018, fig. 2. Applied as the last augmentation.
    """
    del key
    image = downscale(batch.image, size)
    if alpha is not None:
        image = alpha * image + (1.0 - alpha) * upscale(downscale(image, size // 2), size)
    return batch._replace(image=image)


def downscale(image: Array, size: int) -> Array:
    """[b, h, h, c] -> [b, size, size, c] by averaging cells of equal size."""
    b, h, w, c = image.shape
    if h % size or w % size:
        raise errors.UserError(f"images of {h}x{w} cannot be downscaled to {size}x{size} by averaging")
    return image.reshape(b, size, h // size, size, w // size, c).mean((2, 4))


def upscale(image: Array, size: int) -> Array:
    """[b, h, h, c] -> [b, size, size, c] by repeating pixels."""
    b, h, w, c = image.shape
    if size % h or size % w:
        raise errors.UserError(f"images of {h}x{w} cannot be upscaled to {size}x{size} by repeating pixels")
    cells = jnp.broadcast_to(image[:, :, None, :, None, :], (b, h, size // h, w, size // w, c))
    return cells.reshape(b, size, size, c)


# ------------------------------------------------------------------ from one stage to the next


def transition_to(system: types.System, stored_resolution: int, seed: int) -> Callable[[Any], Any]:
    """Last state of the previous stage -> first state of `system`; see `merge`."""

    def transition(previous: Any) -> Any:
        key = jax.random.fold_in(jax.random.key(seed), NEW_PARAMS_STREAM)
        zeros = jnp.zeros(2, jnp.int32)
        size = stored_resolution
        batch = types.Batch(
            jnp.zeros((2, size, size, 3)), zeros, jnp.full((2, 2), size, jnp.int32), zeros, jnp.zeros(2)
        )
        return merge(previous, system.init(key, batch))

    return transition


def merge(previous: PyTree, fresh: PyTree) -> PyTree:
    """`fresh`, with each array replaced by the one at the same path of `previous`, if there is one.

    Networks keep their weights, optimizer states, step counts and EMAs. New blocks keep their initialization,
    with moments of zero and an EMA equal to them. Arrays that only the previous stage had are dropped.

    Raises:
      UserError: an array has different shapes in the two.
    """
    kept = dict(jax.tree_util.tree_leaves_with_path(previous))

    def select(path: tuple[Any, ...], new: Array) -> Array:
        old = kept.get(path, new)
        if old.shape != new.shape:
            name = jax.tree_util.keystr(path)
            raise errors.UserError(f"{name} has shape {old.shape}, and {new.shape} in the next phase")
        return old

    return jax.tree_util.tree_map_with_path(select, fresh)
