"""The config that `jaxdog train --data photos/` chooses, and about how long it takes."""

import logging
import os
import statistics
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxdog import cost, sharding
from jaxdog.advice import rules
from jaxdog.config import build, library, resizing, schema
from jaxdog.data import sources

log = logging.getLogger("jaxdog")

MEASURED_PHOTOS = 200  # whose sizes are read
# Training steps reach 9 to 59 % of the FLOP/s of large matrix products (experiments/gpu), 30 % on CPUs.
EFFICIENCY = 0.3


def choose(
    data: str | os.PathLike[str], resolution: int | None = None, overrides: library.Overrides = ()
) -> tuple[library.Config, str]:
    """The config for a folder of photos, and what was chosen and why, as text.

    Args:
      data: a folder of photos, or of one folder per class.
      resolution: side of the generated images in pixels; None: chosen, too.
      overrides: changed fields as for `library.load`, which come last.

    Raises errors.UserError if there are no photos, or no config generates images of this resolution.
    """
    data = os.fspath(data)
    resizing.check_resolution(resolution)
    situation = examine(data, resolution)
    chosen = rules.choose(situation)
    config = library.load(
        chosen.config, overrides=chosen.overrides(), data=data, resolution=chosen.resolution
    )
    config = library.override(config, overrides)
    checked = build.check(config)
    chosen = chosen._replace(changes={**chosen.changes, **_fields(overrides)})
    seconds = estimate(checked, situation.classes)
    return config, describe(situation, chosen, data, seconds, checked.train.max_hours)


def _fields(overrides: library.Overrides) -> dict[str, Any]:
    """Overrides as {field: value}, for a command line."""
    if isinstance(overrides, Mapping):
        return dict(overrides)
    return dict(library.split_word(word) for word in overrides)


def examine(data: str, resolution: int | None) -> rules.Situation:
    """Counts the photos and classes, and reads the sizes of some photos."""
    source = sources.folder(data)
    count = len(source.photos)
    sides, gray = [], True
    for i in range(0, count, -(-count // MEASURED_PHOTOS)):
        try:
            image = source.photos[i].read()
        except OSError as error:
            log.debug("%s", error)  # training reports it
            continue
        sides.append(min(image.shape[:2]))
        gray = gray and bool((image == image[..., :1]).all())
    side = int(statistics.median(sides)) if sides else 0
    memory, accelerator = sharding.device_memory() / 1e9, jax.default_backend() != "cpu"
    return rules.Situation(
        count,
        len(source.class_names),
        side,
        memory,
        accelerator,
        resolution,
        gray=bool(sides) and gray,
    )


def describe(
    situation: rules.Situation, chosen: rules.Advice, data: str, seconds: float, max_hours: float = 0.0
) -> str:
    """The choice as text."""
    count = f"{situation.classes} class{'es' if situation.classes > 1 else ''}"
    limit = f"\nIt stops after {max_hours:g} hours (config.train.max_hours)." if max_hours else ""
    memory = f"{situation.memory_gb:.1f} GB {'' if situation.accelerator else 'of memory'}"
    device = f"{jax.device_count()} x {jax.devices()[0].device_kind}, {memory}"
    lines = [
        f"\n{data}: {situation.photos:,} photos of {count}, short side {situation.photo_side} px",
        f"device: {device.strip()}",
        f"\nconfig: {chosen.config} at {chosen.resolution} px",
        *(f"  - {reason}" for reason in chosen.reasons),
        f"\nTraining takes about {duration(seconds)}, estimated from the FLOPs of a step and the speed of "
        "matrix products here.\nIt may be half or twice that. Compilation, evaluations and the final scores "
        f"come on top.{limit}\nStop with Ctrl-C; the same command resumes.",
        f"\nThe same config:\n  {chosen.command(data)}\n",
    ]
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """A rough duration: 40 minutes, 3 hours, 2 days."""
    for unit, size, least in (("days", 86_400, 1.5), ("hours", 3_600, 1.5), ("minutes", 60, 1.5)):
        if seconds >= least * size:
            count = float(f"{seconds / size:.2g}")
            return f"{count:,.0f} {unit}" if count >= 10 else f"{count:g} {unit}"
    return "a minute"


def estimate(config: schema.Experiment, classes: int) -> float:
    """Seconds of training: FLOPs of all steps / (devices * FLOP/s of matrix products * EFFICIENCY)."""
    flops = sum(
        phase.steps * cost.count_flops(phase, config.data.stored_resolution)
        for phase in build.phases(config, classes)
    )
    return flops / (jax.device_count() * product_flops_per_second(config.dtype) * EFFICIENCY)


def product_flops_per_second(dtype: str) -> float:
    """FLOP/s of large matrix products on the first device; takes less than a second."""
    n = 1_024 if jax.default_backend() == "cpu" else 8_192
    product = jax.jit(lambda a: a @ a)
    a = jnp.ones((n, n), dtype)
    product(a).block_until_ready()  # compiles
    times = []
    for _ in range(3):
        start = time.perf_counter()
        product(a).block_until_ready()
        times.append(time.perf_counter() - start)
    return 2.0 * n**3 / min(times)
