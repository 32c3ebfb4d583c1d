"""A run: the objects that a config describes. All modes that need the photos start here."""

import functools
import logging
import pathlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jaxdog import sharding, types
from jaxdog.config import build, schema, sections
from jaxdog.data import batches, crop_dataset, crop_recipes, photos, select
from jaxdog.evaluation import evaluate, feature_extractor, generation
from jaxdog.metrics import features
from jaxdog.metrics.backbones import inception_weights, networks
from jaxdog.systems import sampling
from jaxdog.training import checkpoint, loop, train_step, warm_start, writers

log = logging.getLogger("jaxdog")


class Run(NamedTuple):
    """A config and the objects that it describes."""

    config: schema.Experiment
    folder: pathlib.Path
    mesh: Mesh
    crops: crop_dataset.CropDataset  # the training set, on the host
    phases: tuple[types.Phase, ...]
    evaluator: Callable[[], evaluate.Evaluator]  # built by the first call, which computes the real features
    training_photos: Callable[
        [], crop_dataset.CropDataset
    ]  # whole photos and crops to boxes, to search for copies
    checkpoints: checkpoint.Checkpoints


class SamplingOption(NamedTuple):
    """How images are sampled from a trained model."""

    sample: schema.Sample  # config.sample, or one setting of its sweep
    phase: types.Phase  # whose system samples this way
    state: Any  # the training state; its EMA is sampled from


def make(
    config: schema.Experiment, folder: pathlib.Path, cache_dir: pathlib.Path, training: bool, scoring: bool
) -> Run:
    """Reads or prepares the photos and builds the rest.

    Args:
      config: a checked config.
      folder: the work folder.
      cache_dir: the cache of crops, real features and downloaded weights.
      training: allows the run to write and delete checkpoints.
      scoring: loads the feature network now, so that invalid weights fail before training.
    """
    mesh = sharding.make_mesh()
    load_weights = functools.cache(partial(networks.load, "inception", config.eval.weights, cache_dir))
    if scoring:
        load_weights()
    source = build.source(config.data)
    load_crops = partial(_load_crops, config.data, source, cache_dir)
    crops = build.select_crops(config.data)(load_crops(build.recipe(config.data)))
    for note in (*source.notes, *(f"broken photo left out: {name}" for name in crops.broken)):
        log.info("%s", note)
    log.info(
        "%d crops of %d photos, %d classes", len(crops.image), len(source.photos), len(crops.class_names)
    )
    views = partial(
        crop_recipes.whole_and_boxes, size=config.submit.resolution, resampler=config.eval.resampler
    )
    return Run(
        config,
        folder,
        mesh,
        crops,
        phases=build.phases(config, len(crops.class_names)),
        evaluator=functools.cache(partial(_evaluator, config, source, cache_dir, mesh, load_weights)),
        training_photos=partial(load_crops, views),
        checkpoints=checkpoint.Checkpoints(
            folder / "checkpoints",
            config.checkpoint.keep_last,
            config.checkpoint.keep_best,
            config.eval.best,
            read_only=not training,
        ),
    )


def _load_crops(
    data: schema.Data, source: photos.Source, cache_dir: pathlib.Path, recipe: photos.Recipe
) -> crop_dataset.CropDataset:
    """All crops of a recipe, from the cache if they are there."""
    key, workers = crop_recipes.cache_key(recipe), data.workers or None
    return crop_dataset.load(source, recipe, key, cache_dir / "crops", workers)


def _evaluator(
    config: schema.Experiment,
    source: photos.Source,
    cache_dir: pathlib.Path,
    mesh: Mesh,
    load_weights: Callable[[], inception_weights.Weights],
) -> evaluate.Evaluator:
    """An evaluator against all photos, squashed to the evaluated size."""
    size, resampler = config.submit.resolution, config.eval.resampler
    recipe = partial(crop_recipes.squash, size=size, resampler=resampler)
    read_images = partial(_load_crops, config.data, source, cache_dir, recipe)
    extractor = feature_extractor.FeatureExtractor("inception", load_weights(), mesh, config.eval.batch_size)
    real = feature_extractor.real_features(
        extractor,
        read_images,
        extractor.spec(f"{size}x{size}", resampler, source.key),
        f"{source.key} {crop_recipes.cache_key(recipe)}",
        cache_dir / "features",
    )
    every = config.data.select.get("hold_out", {}).get("every")
    held_out = None if every is None else select.is_held_out(read_images().photo, every)
    return evaluate.Evaluator(extractor, real, mesh, config.eval.eps, held_out)


def classes(run: Run) -> int:
    """Number of classes."""
    return len(run.crops.class_names)


def host_data(crops: crop_dataset.CropDataset) -> batches.Data:
    """The training set as host arrays."""
    return batches.Data(crops.image, crops.label, crops.original_size, crops.crop_type)


# ------------------------------------------------------------------ sampling


def labels(run: Run, option: SamplingOption, n: int, purpose: int) -> np.ndarray:
    """Labels [n] int32 of the images sampled for a purpose (train_step.EVALUATE, train_step.SUBMIT)."""
    sample, total = option.sample, classes(run)
    key = jax.random.fold_in(train_step.key_for(run.config.seed, train_step.LABELS), purpose)
    exclude = sample.exclude_classes
    if sample.labels == "skip_collapsed":
        collapsed = generation.collapsed_classes(option.phase.system, option.state, key, total, run.mesh)
        left = len(set(range(total)) - {*exclude, *collapsed})
        log.info("%d of %d classes have collapsed and are skipped", len(collapsed) if left else 0, total)
        exclude = (*exclude, *collapsed) if left else exclude
    return np.asarray(sampling.labels(n, total, sample.labels, key, exclude))


def batch_size(run: Run, sample: schema.Sample) -> int:
    """Images sampled at once: those that share batch statistics, or the feature network's batch size."""
    if sample.batch_stats == "batch":
        return sample.batch_size
    return sharding.round_up(run.config.eval.batch_size, run.mesh)


def record_scores(
    run: Run,
    writer: writers.Writer,
    step: int,
    scores: dict[str, Any],
    sample: schema.Sample,
    final: bool,
) -> None:
    """Writes a line of scores.jsonl and logs the main metrics, if they were computed."""
    row = {"kimg": train_step.images_at(run.phases, step) / 1000.0, **scores}
    row |= {"sampling": sample._asdict(), "final": final}
    row |= {"cheat": True} if build.cheat(run.config) else {}
    writer.scores(step, row)
    names = features.metric_names(scores["weights_kind"])
    main = ", ".join(f"{name} {scores[name]:.3f}" for name in names if name in scores)
    log.info("step %d, %d samples: %s", step, scores["samples"], main or "no distances requested")
    for warning in scores["warnings"] if final else ():
        log.info("  note: %s", warning)


# ------------------------------------------------------------------ training


def train_setup(run: Run, writer: writers.Writer) -> loop.TrainSetup:
    """The input of the training loop."""
    config = run.config
    interval = eval_interval(run)
    return loop.TrainSetup(
        phases=run.phases,
        settings=config.train,
        checkpoint_every=config.checkpoint.every,
        seed=config.seed,
        classes=classes(run),
        data=_place_data(run),
        mesh=run.mesh,
        writer=writer,
        checkpoints=run.checkpoints,
        evaluate=partial(_evaluate, run, writer) if interval else None,
        evaluate_every=interval,
        warm_start=partial(_warm_start, run) if config.init_from else None,
        fsdp=config.parallel.fsdp,
    )


def eval_interval(run: Run) -> int:
    """config.eval.every_kimg as the nearest multiple of train.steps_per_execution; 0: never."""
    k = run.config.train.steps_per_execution
    steps = run.config.eval.every_kimg * 1000.0 / run.phases[-1].batch_size
    return max(k, round(steps / k) * k) if steps > 0 else 0


def _evaluate(run: Run, writer: writers.Writer, phase: types.Phase, state: Any, step: int) -> float:
    """The score that selects the best checkpoint; also writes a line of scores.jsonl."""
    config = run.config
    option = SamplingOption(config.sample, phase, state)
    key = train_step.key_for(config.seed, train_step.EVALUATE)
    label = labels(run, option, config.eval.samples, train_step.EVALUATE)
    size = batch_size(run, config.sample)
    scores = run.evaluator().score_system(phase.system, state, key, label, batch_size=size)
    record_scores(run, writer, step, scores, config.sample, final=False)
    names = features.metric_names(scores["weights_kind"])._asdict()
    return scores[sections.choose(names, config.eval.best, "config.eval.best")]


def _place_data(run: Run) -> batches.Data:
    """The training set on every device, or on the host if it does not fit in device_memory_fraction."""
    data, fraction = host_data(run.crops), run.config.parallel.device_memory_fraction
    size = sum(x.nbytes for x in data)
    if size <= fraction * sharding.device_memory():
        return sharding.put(data, sharding.replicated(run.mesh))
    log.info(
        "the crops (%.2f GB) stay on the host: parallel.device_memory_fraction is %g", size / 1e9, fraction
    )
    return data


def _warm_start(run: Run, state: Any) -> Any:
    """The initial state with weights from the run in config.init_from."""
    source = warm_start.load(pathlib.Path(run.config.init_from).expanduser())
    state, report = warm_start.transfer(jax.device_get(sharding.all_gather(state, run.mesh)), source)
    log.info("initial weights from %s", run.config.init_from)
    for line in report:
        log.info("  %s", line)
    shardings = sharding.state_shardings(state, run.mesh, run.config.parallel.fsdp)
    return jax.tree.map(sharding.put, state, shardings)
