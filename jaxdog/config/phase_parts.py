"""Parts that the phases of several types of systems share, and checks of their configs."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import optax

from jaxdog import types
from jaxdog.augment import transforms
from jaxdog.config import registry, schema
from jaxdog.data import batches
from jaxdog.optim import ema
from jaxdog.systems import sampling
from jaxdog.utils import errors


def single_decay(config: schema.Experiment) -> float:
    """config.ema.decay of a system with one phase; raises ConfigError if there are several."""
    if isinstance(config.ema.decay, tuple):
        raise errors.ConfigError(
            f"config.ema.decay is {config.ema.decay!r}, but this system has one phase: it needs one number"
        )
    return config.ema.decay


def ema_rule(config: schema.Experiment, decay: float) -> ema.EMARule:
    """The update rule of the generator's EMA."""
    section = config.ema
    fractions = [("decay", decay), ("rampup", section.rampup)]
    fractions += [("extra_ema_decays", x) for x in section.extra_ema_decays]
    for name, value in fractions:
        if not 0.0 <= value < 1.0:
            raise errors.ConfigError(f"config.ema.{name} is {value}, and must lie in [0, 1)")
    return ema.EMARule(decay, section.start, section.batch_stats, section.rampup)


def optimizers(config: schema.Experiment, **steps: int) -> dict[str, optax.GradientTransformationExtraArgs]:
    """The optimizer of each player; `steps` is its number of updates."""
    return {
        player: registry.optimizer(config.optimizer[player], f"config.optimizer.{player}", updates)
        for player, updates in steps.items()
    }


def latent(config: schema.Experiment, dim: int) -> Callable[[types.Array], types.Array]:
    """The function from keys [b] to the latents [b, dim] of sampled images."""
    sample = config.sample
    return partial(sampling.latent, dim=dim, truncation=sample.truncation, method=sample.method)


def check_resolutions(
    config: schema.Experiment,
    augments: Sequence[types.Augment],
    postprocess: Callable[[types.Array], types.Array],
) -> None:
    """Augmented crops must have system.resolution, postprocessed images submit.resolution."""
    stored, seen, submitted = (
        config.data.stored_resolution,
        config.system.resolution,
        config.submit.resolution,
    )

    def augmented(image: types.Array) -> types.Array:
        batch = batches.to_batch(batches.make_data(image, jnp.zeros(2, jnp.int32)))
        return transforms.apply_augments(augments, jax.random.key(0), batch).image

    shape = jax.eval_shape(augmented, jax.ShapeDtypeStruct((2, stored, stored, 3), jnp.uint8)).shape[1:3]
    if shape != (seen, seen):
        raise errors.ConfigError(
            f"crops of config.data.stored_resolution = {stored} come out of config.augment at "
            f"{shape[0]}x{shape[1]}, but config.system.resolution is {seen}"
        )
    shape = jax.eval_shape(postprocess, jax.ShapeDtypeStruct((2, seen, seen, 3), jnp.float32)).shape[1:3]
    if shape != (submitted, submitted):
        raise errors.ConfigError(
            f"images of config.system.resolution = {seen} come out of config.sample.postprocess at "
            f"{shape[0]}x{shape[1]}, but config.submit.resolution is {submitted}"
        )


def check_running_statistics(config: schema.Experiment, who: str) -> None:
    """Raises ConfigError if a system without other batch statistics is to sample with them."""
    if config.sample.batch_stats != "running":
        raise errors.ConfigError(
            f"config.sample.batch_stats is {config.sample.batch_stats!r}; {who} samples with running "
            "statistics: 'running'"
        )


def check_no_ema(config: schema.Experiment, who: str) -> None:
    """Raises ConfigError if a system without EMA has one."""
    check_unset(config, who, "ema.decay", "ema.start", "ema.rampup", "ema.extra_ema_decays")


def check_memorizer(config: schema.Experiment) -> None:
    """Raises ConfigError for what a memorizer has not; it reproduces the crops as they are stored."""
    if config.augment:
        name = sorted(config.augment)[0]
        raise errors.ConfigError(
            f"config.augment.{name} is not a field: this system has no augment, so leave it empty"
        )
    check_no_ema(config, "a memorizer")
    check_unset(config, "a memorizer", "sample.truncation", "sample.postprocess")
    sizes = {config.system.resolution, config.data.stored_resolution, config.submit.resolution}
    if len(sizes) > 1:
        raise errors.ConfigError(
            "config.system.resolution, config.data.stored_resolution and config.submit.resolution are "
            f"{sorted(sizes)}; a memorizer learns the crops as they are stored, so they must be one"
        )


def check_unset(config: schema.Experiment, who: str, *paths: str) -> None:
    """Raises ConfigError if one of the fields `paths` is neither 0 nor empty."""
    for path in paths:
        section, field = path.split(".")
        value = getattr(getattr(config, section), field)
        if value:
            raise errors.ConfigError(
                f"config.{path} is {value!r}; {who} has none, so set it to 0, or leave it empty"
            )
