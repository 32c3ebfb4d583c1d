"""A run: the objects that a config describes.

The folder of a run stands alone: `dataset.json` and `real_features.npz` keep what sampling and scoring need
of the photos. Photos are read for training, to search for copies, and if these files are missing.
"""

import functools
import logging
import math
import pathlib
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jaxdog import sharding, types
from jaxdog.config import build, photo_reader, saved, schema, sections
from jaxdog.data import batches, crop_dataset, crop_recipes, dataset_info, select
from jaxdog.evaluation import evaluate, feature_extractor, generation, sampling_state, saved_features
from jaxdog.metrics import features
from jaxdog.metrics.backbones import inception_weights, networks
from jaxdog.systems import sampling
from jaxdog.training import checkpoint, loop, train_step, warm_start, writers
from jaxdog.utils import errors, version

log = logging.getLogger("jaxdog")

ReadCrops = Callable[[], crop_dataset.CropDataset]


class Run(NamedTuple):
    """A config and the objects that it describes."""

    config: schema.Experiment
    folder: pathlib.Path
    mesh: Mesh
    dataset: dataset_info.DatasetInfo  # the training set without its images
    phases: tuple[types.Phase, ...]
    # Of Inception, or of another row of config.eval.networks; built by the first call, which computes the
    # real features.
    evaluator: Callable[..., evaluate.Evaluator]
    crops: ReadCrops  # the training set, on the host; read by the first call
    training_photos: ReadCrops  # whole photos and crops to boxes, to search for copies
    checkpoints: checkpoint.Checkpoints
    protocol: str = ""  # of scores that select checkpoints, see `evaluate.protocol`


class SamplingOption(NamedTuple):
    """How images are sampled from a trained model."""

    sample: schema.Sample  # config.sample, or one setting of its sweep
    phase: types.Phase  # whose system samples this way
    state: Any  # the training state; its EMA is sampled from


def make(
    config: schema.Experiment, folder: pathlib.Path, cache_dir: pathlib.Path, training: bool, scoring: bool
) -> Run:
    """Builds everything, and reads or prepares the photos if they are needed.

    Args:
      config: a checked config.
      folder: the work folder.
      cache_dir: the cache of crops, real features and downloaded weights.
      training: reads the photos, to train on them once `start` was called.
      scoring: loads the feature networks now, so that invalid weights fail before training.

    Nothing is written to the folder. Raises ConfigError if it has checkpoints of another config, or, if
    training, of other photos; without a checkpoint, nothing binds a folder.
    """
    mesh, checkpoints = sharding.make_mesh(), _checkpoints(config, folder, read_only=True)
    resumes = bool(checkpoints.steps())
    if resumes:
        saved.check_same(folder, config)
    load_weights = functools.cache(partial(_load_weights, config.eval, cache_dir))
    weights = [load_weights(network) for network in (config.eval.networks if scoring else ())]
    known = load_dataset(folder) if resumes or not training else None
    reader = photo_reader.PhotoReader(config, cache_dir, None if training else known, training)
    if known is None or training:
        dataset = reader.describe()
        dataset = dataset if known is None else dataset_info.resumed(folder, known, dataset)
        config = config._replace(data=config.data._replace(classes=len(reader.source().class_names)))
    else:
        dataset = known
    return Run(
        config,
        folder,
        mesh,
        dataset,
        phases=build.phases(config, len(dataset.class_names)),
        evaluator=functools.cache(partial(_evaluator, config, folder, dataset, reader, mesh, load_weights)),
        crops=reader.training_set,
        training_photos=reader.whole_and_boxes,
        checkpoints=checkpoints,
        protocol=_protocol(config, weights[config.eval.networks.index("inception")]) if scoring else "",
    )


def start(run: Run) -> Run:
    """The run, which may now write and delete checkpoints; writes config.json and dataset.json."""
    checkpoints = _checkpoints(run.config, run.folder, False, run.protocol)  # an error comes before the files
    if jax.process_index() == 0:
        saved.write(run.folder, saved.absolute(run.config))
        dataset_info.write(run.folder, run.dataset, version.version())
        log.info("config: %s", run.folder / saved.NAME)
    return run._replace(checkpoints=checkpoints)


def _checkpoints(
    config: schema.Experiment, folder: pathlib.Path, read_only: bool, protocol: str = ""
) -> checkpoint.Checkpoints:
    kept, path = config.checkpoint, folder / "checkpoints"
    return checkpoint.Checkpoints(path, kept.keep_last, kept.keep_best, config.eval.best, read_only, protocol)


def _protocol(config: schema.Experiment, weights: inception_weights.Weights) -> str:
    sampling = config.sample._replace(sweep={})._asdict()
    samples, size = config.eval.samples, config.submit.resolution
    return evaluate.protocol(weights, samples, size, config.eval.resampler, sampling)


# ------------------------------------------------------------------ what the folder keeps of the photos


def load_dataset(folder: pathlib.Path) -> dataset_info.DatasetInfo | None:
    """The training set of a run without its images; None if dataset.json is missing, or damaged (logged)."""
    try:
        return dataset_info.read(folder)
    except errors.UserError as error:
        log.warning("%s: the photos are read instead, and training writes it again", error)
        return None


def _evaluator(
    config: schema.Experiment,
    folder: pathlib.Path,
    dataset: dataset_info.DatasetInfo,
    reader: photo_reader.PhotoReader,
    mesh: Mesh,
    load_weights: Callable[[str], inception_weights.Weights],
    network: str = "inception",
) -> evaluate.Evaluator:
    """An evaluator with one network against all photos, squashed to the evaluated size."""
    size, resampler = config.submit.resolution, config.eval.resampler
    batch_size = config.eval.batch_size
    extractor = feature_extractor.FeatureExtractor(network, load_weights(network), mesh, batch_size)
    spec = extractor.spec(f"{size}x{size}", resampler, dataset.source)
    data_key = f"{dataset.source} {crop_recipes.cache_key(reader.squash)}"
    path = features.cache_path(reader.cache_dir / "features", data_key, spec)
    real = saved_features.load(folder, spec)
    if sharding.all_processes_agree(real is not None):
        assert real is not None
        real = real._replace(file=path)
    else:
        real = feature_extractor.cached(path, partial(_real_features, reader, folder, extractor, spec))
        if jax.process_index() == 0 and load_dataset(folder) is not None:
            saved_features.keep(folder, real)
    held_out = _held_out(config, folder, dataset, reader, real.count)
    eps = config.eval.eps if network == "inception" else None
    return evaluate.Evaluator(extractor, real, mesh, eps, held_out, partial(reader.whole_batches, batch_size))


def _load_weights(settings: schema.Eval, cache_dir: pathlib.Path, network: str) -> inception_weights.Weights:
    family = network.partition("_")[0]
    field = "weights" if family == "inception" else f"{family}_weights"
    return networks.load(network, getattr(settings, field), cache_dir)


def other_networks(run: Run) -> tuple[str, ...]:
    """The networks of config.eval.networks besides Inception."""
    return tuple(network for network in run.config.eval.networks if network != "inception")


def _real_features(
    reader: photo_reader.PhotoReader,
    folder: pathlib.Path,
    extractor: feature_extractor.FeatureExtractor,
    spec: features.FeatureSpec,
) -> features.Features:
    """Features of the photos; if they are gone, the error says why they are needed."""
    try:
        data = reader.whole()
    except (errors.UserError, OSError) as error:
        if load_dataset(folder) is None:
            raise
        raise errors.MissingFileError(
            "the features of the real photos must be computed, since "
            f"{saved_features.describe(folder, spec.network)}, but the photos cannot be read: {error}"
        ) from error
    layers = extractor.extract(data.image, "real features")
    return features.Features(layers, spec, data.label, data.class_names)


def _held_out(
    config: schema.Experiment,
    folder: pathlib.Path,
    dataset: dataset_info.DatasetInfo,
    reader: photo_reader.PhotoReader,
    n: int,
) -> np.ndarray | None:
    """[n] bool, the photos that are not trained on; None without config.data.select.hold_out.

    They are read from the folder, or computed and added to dataset.json if that exists.
    """
    every = config.data.select.get("hold_out", {}).get("every")
    if every is None:
        return None
    known = load_dataset(folder)
    if known is not None and known.source == dataset.source and known.held_out is not None:
        held_out = np.isin(np.arange(n), known.held_out)
        if held_out.sum() == len(known.held_out):
            return held_out
    held_out = select.is_held_out(reader.whole().photo, every)
    if known is not None and jax.process_index() == 0:
        known = known._replace(held_out=tuple(np.flatnonzero(held_out).tolist()))
        dataset_info.write(folder, known, version.version())
    return held_out


def classes(run: Run) -> int:
    """Number of classes."""
    return len(run.dataset.class_names)


def host_data(crops: crop_dataset.CropDataset) -> batches.Data:
    """The training set as host arrays."""
    return batches.Data(crops.image, crops.label, crops.original_size, crops.crop_type)


# ------------------------------------------------------------------ checkpoints to sample from

Which = Literal["best", "latest"] | int  # a checkpoint: by score, by age, or by its step


def find_step(run: Run, which: Which = "best") -> int:
    """The step of a checkpoint; raises MissingFileError if the run does not have it."""
    steps = run.checkpoints.steps()
    if not steps:
        raise errors.MissingFileError(
            f"{run.checkpoints.folder} holds no checkpoint: nothing has been trained here yet"
        )
    if which in ("best", "latest"):
        step = run.checkpoints.best() if which == "best" else run.checkpoints.latest()
        assert step is not None
        return step
    if which not in steps or isinstance(which, bool):
        raise errors.MissingFileError(
            f"{run.checkpoints.folder} has no checkpoint of step {which!r}; it has 'best', 'latest' and "
            f"{', '.join(map(str, steps))}"
        )
    return int(which)


def restore(run: Run, step: int) -> SamplingOption:
    """The checkpoint of `step` with the config's sampling options.

    Only arrays that sampling or reconstruction reads are read from disk, for any setting of
    config.sample.sweep; the others are zeros.
    """
    index, shape = train_step.phase_at(run.phases, step), run.dataset.image_shape

    def read(state: Any) -> set[str]:
        systems = [run.phases[index].system, *_with_other_batch_stats(run, index)]
        names = {name for system in systems for name in sampling_state.read_names(system, state, shape)}
        emas = range(max(run.config.sample.sweep.get("ema_index", (0,))))
        average = [name.removeprefix("ema/") for name in names if name.startswith("ema/")]
        return names | {f"extra_emas/{i}/{name}" for i in emas for name in average}

    state = train_step.restore_sampled(run.checkpoints, run.phases, step, shape, run.mesh, read)
    return SamplingOption(run.config.sample, run.phases[index], state)


def _with_other_batch_stats(run: Run, index: int) -> list[types.System]:
    """The system of a phase with the other batch statistics that a sweep or a `Generator` may use."""
    sample = run.config.sample
    modes = {sample.batch_stats, *sample.sweep.get("batch_stats", ())}
    modes |= {"standing"} if "batch" in modes else set()
    samples = [sample._replace(batch_stats=mode) for mode in sorted(modes - {sample.batch_stats})]
    configs = [run.config._replace(sample=changed) for changed in samples]
    return [build.phases(config, classes(run))[index].system for config in configs]


# ------------------------------------------------------------------ sampling


def labels(run: Run, option: SamplingOption, n: int, purpose: int) -> np.ndarray:
    """Labels [n] int32 of the images sampled for a purpose (train_step.EVALUATE, train_step.SUBMIT)."""
    key, exclude = _labels_key(run, purpose), excluded_classes(run, option, purpose)
    return np.asarray(sampling.labels(n, classes(run), option.sample.labels, key, exclude))


def excluded_classes(run: Run, option: SamplingOption, purpose: int) -> tuple[int, ...]:
    """The classes that are not sampled for a purpose: those of the config, and collapsed ones."""
    sample, total, key = option.sample, classes(run), _labels_key(run, purpose)
    exclude = sample.exclude_classes
    if sample.labels == "skip_collapsed":
        collapsed = generation.collapsed_classes(option.phase.system, option.state, key, total, run.mesh)
        left = len(set(range(total)) - {*exclude, *collapsed})
        log.info("%d of %d classes have collapsed and are skipped", len(collapsed) if left else 0, total)
        exclude = (*exclude, *collapsed) if left else exclude
    return tuple(exclude)


def _labels_key(run: Run, purpose: int) -> types.Key:
    return jax.random.fold_in(train_step.key_for(run.config.seed, train_step.LABELS), purpose)


def batch_size(run: Run, sample: schema.Sample) -> int:
    """Images sampled at once: those that share batch statistics, or the feature network's batch size."""
    if sample.batch_stats == "batch":
        return sample.batch_size
    return sharding.round_up(run.config.eval.batch_size, run.mesh)


def record_scores(
    run: Run, writer: writers.Writer, step: int, scores: dict[str, Any], sample: schema.Sample, final: bool
) -> None:
    """Writes a line of scores.jsonl and logs the main metrics, if they were computed."""
    row = {"kimg": train_step.images_at(run.phases, step) / 1000.0, **scores}
    row |= {"sampling": sample._asdict(), "final": final}
    row |= {"cheat": True} if build.cheat(run.config) else {}
    names = (*features.metric_names(scores["weights_kind"]), *features.other_distances(scores))
    main = ", ".join(f"{name} {scores[name]:.3f}" for name in names if scores.get(name) is not None)
    log.info("step %d, %d samples: %s", step, scores["samples"], main or "no distances requested")
    for warning in scores["warnings"] if final else ():
        log.info("  note: %s", warning)
    writer.scores(step, row)


# ------------------------------------------------------------------ training


def train_setup(run: Run, data: batches.Data, writer: writers.Writer) -> loop.TrainSetup:
    """The input of the training loop; `data` is from `place_data`."""
    config, interval = run.config, eval_interval(run)
    return loop.TrainSetup(
        phases=run.phases,
        settings=config.train,
        checkpoint_every=config.checkpoint.every,
        seed=config.seed,
        classes=classes(run),
        data=data,
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
    """The score that selects the best checkpoint, NaN if undefined; also writes a line of scores.jsonl."""
    config = run.config
    option = SamplingOption(config.sample, phase, state)
    key = train_step.key_for(config.seed, train_step.EVALUATE)
    label = labels(run, option, config.eval.samples, train_step.EVALUATE)
    size = batch_size(run, config.sample)
    arguments = (phase.system, state, key, label)
    scores = run.evaluator().score_system(*arguments, batch_size=size)
    for network in other_networks(run):
        other = run.evaluator(network).score_system(*arguments, batch_size=size)
        scores = evaluate.merge(scores, other)
    record_scores(run, writer, step, scores, config.sample, final=False)
    names = features.metric_names(scores["weights_kind"])._asdict()
    score = scores[sections.choose(names, config.eval.best, "config.eval.best")]
    return math.nan if score is None else score


def place_data(run: Run) -> batches.Data:
    """The training set on every device, or on the host if it does not fit in device_memory_fraction."""
    data, fraction = host_data(run.crops()), run.config.parallel.device_memory_fraction
    size = sum(x.nbytes for x in data)
    if size <= fraction * sharding.device_memory():
        return sharding.put(data, sharding.replicated(run.mesh))
    log.info("the crops (%.2f GB) stay on the host: device_memory_fraction is %g", size / 1e9, fraction)
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
