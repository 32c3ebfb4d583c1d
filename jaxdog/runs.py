"""The parts that a config names, made: crops, phases, scorer, checkpoints; every mode starts from it."""

import logging
import pathlib
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jaxdog import sharding, types
from jaxdog.config import build, schema
from jaxdog.data import batches, cropping, image_files, photos, select
from jaxdog.evaluation import evaluate
from jaxdog.metrics import features
from jaxdog.metrics.backbones import networks
from jaxdog.systems import sampling
from jaxdog.training import checkpoint, loop, train_step, warm_start, writers

log = logging.getLogger("jaxdog")


class Job(NamedTuple):
    """A config's parts, made."""

    config: schema.Checked
    folder: pathlib.Path
    over: Mesh
    crops: photos.Crops
    phases: tuple[types.Phase, ...]
    evaluator: Callable[[], evaluate.Evaluator]  # made at first use: the real side may take long
    training_photos: Callable[[], photos.Crops]  # whole photos and boxes, in which copies are looked for
    checkpoints: checkpoint.Checkpoints


def make(
    config: schema.Checked, folder: pathlib.Path, cache_dir: pathlib.Path, training: bool, scoring: bool
) -> Job:
    """Reads or prepares the photos and makes the rest.

    Only a `training` job may clean up its checkpoints; a `scoring` one needs the feature network, and says so
    now if its weights are wrong, not hours later.
    """
    over = sharding.mesh()
    scorer = cache(partial(networks.load, "inception", config.eval.weights, cache_dir))
    if scoring:
        scorer()
    source = build.source(config.data)
    recipe = build.recipe(config.data)
    workers = config.data.workers or None
    crops = photos.crops(source, recipe, cropping.key(recipe), cache_dir / "crops", workers)
    crops = build.curated(config.data)(crops)
    for note in (*source.notes, *(f"broken photo left out: {name}" for name in crops.broken)):
        log.info("%s", note)
    log.info("%d crops of %d photos, %d classes", len(crops.image), len(source.photos), len(crops.breeds))

    @cache
    def evaluator() -> evaluate.Evaluator:
        squash = partial(cropping.squash, size=config.data.size, resampler=config.eval.resampler)
        key = cropping.key(squash)
        extractor = evaluate.Extractor("inception", scorer(), over, config.eval.batch_size)
        whole = partial(photos.crops, source, squash, key, cache_dir / "crops", workers)
        real = evaluate.real_side(
            extractor,
            whole,
            extractor.about(f"{config.data.size}x{config.data.size}", config.eval.resampler, source.key),
            f"{source.key} {key}",
            cache_dir / "features",
        )
        held_out, every = None, config.data.curate.get("hold_out", {}).get("every")
        if every is not None:
            held_out = select.held_out(whole().photo, every)
        return evaluate.Evaluator(extractor, real, over, config.eval.eps, held_out)

    views = partial(image_files.whole_and_boxes, size=config.data.size, resampler=config.eval.resampler)
    training_photos = partial(photos.crops, source, views, cropping.key(views), cache_dir / "crops", workers)
    keep = config.checkpoint
    checkpoints = checkpoint.Checkpoints(
        folder / "checkpoints", keep.keep_last, keep.keep_best, config.eval.best, read_only=not training
    )
    phases = build.phases(config, len(crops.breeds))
    return Job(config, folder, over, crops, phases, evaluator, training_photos, checkpoints)


def classes(job: Job) -> int:
    """How many breeds the photos have."""
    return len(job.crops.breeds)


def labels(job: Job, n: int, use: int, phase: types.Phase, state: Any) -> np.ndarray:
    """Breeds [n] int32 of the pictures drawn from `state` for one use (program.EVALUATE, program.SUBMIT)."""
    sample, without = job.config.sample, job.config.sample.without
    key = jax.random.fold_in(train_step.key_for(job.config.seed, train_step.LABELS), use)
    if sample.labels == "varied":
        alike = evaluate.alike(phase.system, state, key, classes(job), job.over)
        left = len(set(range(classes(job))) - {*without, *alike})
        log.info("%d of %d breeds look alike and are not drawn", len(alike) if left else 0, classes(job))
        without = (*without, *alike) if left else without
    return np.asarray(sampling.labels(n, classes(job), sample.labels, key, without))


def resident(crops: photos.Crops) -> batches.Data:
    """The training pictures, still on the host."""
    return batches.Data(crops.image, crops.label, crops.extent, crops.kind)


def batch_size(job: Job) -> int:
    """Pictures that are drawn at once: those that share statistics, or as many as the metric likes."""
    sample = job.config.sample
    return (
        sample.batch_size
        if sample.norm == "batch"
        else sharding.rounded(job.config.eval.batch_size, job.over)
    )


def evaluation_steps(job: Job) -> int:
    """config.eval.every_kimg in steps: the nearest multiple of a dispatch; 0: never."""
    k = job.config.train.steps_per_dispatch
    steps = job.config.eval.every_kimg * 1000.0 / job.phases[-1].batch_size
    return max(k, round(steps / k) * k) if steps > 0 else 0


def record(job: Job, writer: writers.Writer, step: int, found: dict[str, Any], final: bool) -> None:
    """Writes one line of scores.jsonl, and what is most looked at of it, if asked for, to the log."""
    config = job.config
    row = {"kimg": train_step.images_at(job.phases, step) / 1000.0, **found}
    row |= {"sampling": config.sample._asdict(), "final": final}
    row |= {"cheat": True} if build.cheat(config) else {}
    writer.scores(step, row)
    names = features.names(found["weights_kind"])
    numbers = ", ".join(f"{name} {found[name]:.3f}" for name in names if name in found)
    log.info("step %d, %d samples: %s", step, found["samples"], numbers or "no distances asked for")
    for warning in found["warnings"] if final else ():
        log.info("  note: %s", warning)


def _begun(job: Job, state: Any) -> Any:
    """The first state with the networks of the run that config.init_from names."""
    source = warm_start.load(pathlib.Path(job.config.init_from).expanduser())
    begun = warm_start.begin(jax.device_get(sharding.whole(state, job.over)), source)
    log.info("begins with networks of %s", job.config.init_from)
    for line in begun.report:
        log.info("  %s", line)
    where = sharding.placed(begun.state, job.over, job.config.devices.deal_state)
    return jax.tree.map(sharding.put, begun.state, where)


def _placed(job: Job) -> batches.Data:
    """The training pictures on every device; with the host where they would take too much of a device."""
    data, share = resident(job.crops), job.config.devices.data_share
    held = sum(x.nbytes for x in data)
    if held <= share * sharding.memory():
        return sharding.put(data, sharding.everywhere(job.over))
    log.info("the crops, %.2f GB, stay with the host: devices.data_share is %g", held / 1e9, share)
    return data


def training(job: Job, writer: writers.Writer) -> loop.Run:
    """The run that the loop trains, scored as the config says."""
    config = job.config
    every = evaluation_steps(job)
    key = train_step.key_for(config.seed, train_step.EVALUATE)

    def score(phase: types.Phase, state: Any, step: int) -> float:
        label = labels(job, config.eval.samples, train_step.EVALUATE, phase, state)
        found = job.evaluator().score_system(phase.system, state, key, label, batch_size=batch_size(job))
        record(job, writer, step, found, final=False)
        names = features.names(found["weights_kind"])._asdict()
        return found[schema.choose(names, config.eval.best, "config.eval.best")]

    return loop.Run(
        phases=job.phases,
        settings=config.train,
        checkpoint_every=config.checkpoint.every,
        seed=config.seed,
        classes=classes(job),
        data=_placed(job),
        over=job.over,
        writer=writer,
        checkpoints=job.checkpoints,
        evaluate=score if every else None,
        evaluate_every=every,
        begin=partial(_begun, job) if config.init_from else None,
        deal_state=config.devices.deal_state,
    )
