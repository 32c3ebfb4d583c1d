"""The modes of the command line."""

import json
import logging
import os
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np

from jaxdog import cost, runs, sampling_sweep
from jaxdog.cleaning import filters, label_page, pipeline
from jaxdog.config import build
from jaxdog.evaluation import copies, generation, reconstruction, submission
from jaxdog.memorizers import baselines
from jaxdog.report import report
from jaxdog.training import loop, train_step, writers
from jaxdog.utils import errors, files, plots

log = logging.getLogger("jaxdog")

# Sections of the config that may change when a run resumes.
CHANGEABLE = ("parallel", "train", "checkpoint", "eval", "sample", "submit", "name")


def init_distributed(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Connects the processes of a run on several hosts; does nothing on a single host.

    coordinator: "host:port" of process 0; "auto": found by JAX on a cluster that it knows (SLURM, TPU pods,
      MPI); None: as "auto" if such a cluster is detected.
    """
    if coordinator not in (None, "auto"):
        jax.distributed.initialize(coordinator, num_processes, process_id)
        return
    several = int(os.environ.get("SLURM_NTASKS", 1)) > 1 or int(os.environ.get("OMPI_COMM_WORLD_SIZE", 1)) > 1
    if coordinator == "auto" or several or "," in os.environ.get("TPU_WORKER_HOSTNAMES", ""):
        jax.distributed.initialize()


def run_mode(
    mode: str,
    config: ml_collections.ConfigDict | None,
    workdir: str | None,
    dry_run: bool = False,
    num_samples: int = 100,
    settings: filters.Settings = filters.Settings(),  # noqa: B008
    port: int = 0,
) -> None:
    """Runs one mode of `main.MODES`.

    Args:
      mode: its name.
      config: the experiment; None: the one saved in `workdir`.
      workdir: the work folder; None: runs/<name of the config>.
      dry_run: only print the config and what it costs.
      num_samples: number of images of mode sample.
      settings: filters of mode clean.
      port: port of mode label's page; 0: any free port.
    """
    _set_up_logging()
    folder = pathlib.Path(workdir or f"runs/{config.name if config is not None else ''}")
    if mode == "report":
        log.info("report: %s", report.write(folder))
        return
    if config is None:
        config = load_config(folder)
    experiment = build.check(config)
    cache_dir = pathlib.Path(experiment.data.cache_dir).expanduser()
    jax.config.update("jax_compilation_cache_dir", str(cache_dir / "xla"))
    if jax.process_index() == 0:
        print(config.to_json_best_effort(indent=2))
    if build.cheat(experiment):
        log.warning("%s\n%s\n%s", "!" * 80, baselines.WARNING, "!" * 80)
    if dry_run:
        cost.print_costs(experiment)
    elif mode == "find_batch_size":
        cost.find_batch_size(experiment)
    elif mode == "clean":
        pipeline.run(experiment, settings, folder, cache_dir)
    elif mode == "label":
        _, crops = pipeline.load_crops(experiment, cache_dir)
        label_page.serve(crops, folder / pipeline.LABELS, experiment.seed, port)
    else:
        if mode == "train":
            _save_config(config, folder)
        run = runs.make(experiment, folder, cache_dir, training=mode == "train", scoring=mode != "sample")
        if mode == "sample":
            _sample(run, num_samples)
        else:
            {"train": _train, "evaluate": _evaluate, "submit": _submit}[mode](run)


def _set_up_logging() -> None:
    """Prints log lines unchanged to the terminal; Orbax only logs errors."""
    logging.getLogger("absl").setLevel(logging.ERROR)
    if not log.handlers:
        log.addHandler(logging.StreamHandler())
        log.setLevel(logging.INFO)
        log.propagate = False


# ------------------------------------------------------------------ config.json


def load_config(folder: pathlib.Path) -> ml_collections.ConfigDict:
    """The config that a run saved in its work folder; raises MissingFileError if there is none."""
    path = folder / "config.json"
    if not path.is_file():
        raise errors.MissingFileError(
            f"{path} does not exist: {folder} is not the work folder of a run. Give --config."
        )
    return ml_collections.ConfigDict(lists_to_tuples(json.loads(path.read_text())))


def lists_to_tuples(value: Any) -> Any:
    """A JSON value with tuples, which configs hold, in place of lists."""
    if isinstance(value, dict):
        return {name: lists_to_tuples(x) for name, x in value.items()}
    return tuple(lists_to_tuples(x) for x in value) if isinstance(value, list) else value


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """The fields of a config, read from JSON, by their dotted names."""
    if not isinstance(tree, dict):
        return {prefix[:-1]: tree}
    return {name: x for key, sub in tree.items() for name, x in flatten(sub, f"{prefix}{key}.").items()}


def _save_config(config: ml_collections.ConfigDict, folder: pathlib.Path) -> None:
    """Writes config.json; raises ConfigError if the folder holds another experiment."""
    path = folder / "config.json"
    if path.is_file():
        old, new = flatten(json.loads(path.read_text())), flatten(json.loads(config.to_json_best_effort()))
        changed = [
            f"{name} is {new.get(name)!r}, was {old.get(name)!r}"
            for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name) and name.split(".")[0] not in CHANGEABLE
        ]
        if changed:
            raise errors.ConfigError(
                f"{folder} holds a run with another config: {'; '.join(changed)}. Use another --workdir "
                f"or the old values; sections that may change: {', '.join(CHANGEABLE)}"
            )
    if jax.process_index() == 0:
        # Written atomically, as other processes may be reading it.
        files.write_text(path, config.to_json_best_effort(indent=2) + "\n")


# ------------------------------------------------------------------ modes


def _train(run: runs.Run) -> None:
    """Trains or resumes; at the end writes, scores and reports a submission."""
    latest = run.checkpoints.latest() or 0
    with writers.Writer(run.folder, step=latest, enabled=jax.process_index() == 0) as writer:
        result = loop.train(runs.train_setup(run, writer))
    if result.reason == "signal":
        log.info("stopped at step %d. Rerun the command to resume.", result.step)
        return
    log.info("trained to step %d in %.2f hours (%s)", result.step, result.seconds / 3600, result.reason)
    _submit(run)


def _submit(run: runs.Run) -> None:
    """Writes images.zip from the best checkpoint with the best sampling options, and scores it."""
    step, option = _best_checkpoint(run)
    option = _swept(run, option, step)
    images, label = _generate(run, option, run.config.submit.images)
    if jax.process_index() == 0:
        info = submission.write_zip(
            run.folder / "images.zip", [images], len(images), run.config.submit.resolution
        )
        log.info("images.zip: %d images, %.1f MB, sha256 %s", info.count, info.bytes / 1e6, info.sha256)
    _score(run, step, option, images, label)


def _evaluate(run: runs.Run) -> None:
    """Scores the images that `_submit` would write."""
    step, option = _best_checkpoint(run)
    option = _swept(run, option, step)
    _score(run, step, option, *_generate(run, option, run.config.submit.images))


def _sample(run: runs.Run, num_samples: int) -> None:
    """Writes samples.zip and a grid, from the best checkpoint; does not start a sweep."""
    step, option = _best_checkpoint(run)
    option = _swept(run, option, step, start=False)
    images, _ = _generate(run, option, num_samples)
    if jax.process_index() != 0:
        return
    submission.write_zip(run.folder / "samples.zip", [images], num_samples, run.config.submit.resolution)
    with writers.Writer(run.folder, step=None) as writer:
        writer.image("samples", step, plots.grid(images[:400], columns=20 if num_samples >= 100 else 10))
    log.info("%s and grids/samples_%08d.png", run.folder / "samples.zip", step)


# ------------------------------------------------------------------ the best checkpoint's images


def _best_checkpoint(run: runs.Run) -> tuple[int, runs.SamplingOption]:
    """Step of the best checkpoint, and its state with the config's sampling options."""
    step = run.checkpoints.best()
    if step is None:
        raise errors.MissingFileError(
            f"{run.checkpoints.folder} holds no checkpoint: nothing has been trained here yet"
        )
    state, _ = train_step.restore(run.checkpoints, run.phases, step, run.crops.image.shape[1:], run.mesh)
    log.info("the best checkpoint is step %d", step)
    phase = run.phases[train_step.phase_at(run.phases, step)]
    return step, runs.SamplingOption(run.config.sample, phase, state)


def _swept(run: runs.Run, option: runs.SamplingOption, step: int, start: bool = True) -> runs.SamplingOption:
    """The best option of config.sample.sweep, if it is set: read from sweep.json, or found by scoring all.

    start: whether to score them. If False and this checkpoint has no scores, `option` is returned.
    """
    if not run.config.sample.sweep:
        return option
    setting = sampling_sweep.load_best(run, step)
    if setting is None:
        if not start:
            return option
        setting = sampling_sweep.find_best(run, option, step)
    return sampling_sweep.select(run, option, setting)


def _generate(run: runs.Run, option: runs.SamplingOption, n: int) -> tuple[np.ndarray, np.ndarray]:
    """n images, [n, h, w, 3] uint8, and their labels [n]."""
    key = train_step.key_for(run.config.seed, train_step.SUBMIT)
    label = runs.labels(run, option, n, train_step.SUBMIT)
    size = runs.batch_size(run, option.sample)
    return generation.generate(option.phase.system, option.state, key, label, run.mesh, size), label


def _score(
    run: runs.Run, step: int, option: runs.SamplingOption, images: np.ndarray, label: np.ndarray
) -> None:
    """Scores images with the metrics of config.eval.final and writes the report."""
    evaluator, metrics = run.evaluator(), run.config.eval.final
    fake = evaluator.features_of(images, label)
    scores, pairs = evaluator.score(fake, metrics), None
    if "copies" in metrics:
        photos = run.training_photos()
        found = copies.find_copies(images, photos.image, photos.photo, run.mesh, fake, evaluator.real)
        scores["copies"], pairs = copies.summary(found, photos), copies.pair_grid(found)
        log.info("copies: %s", "; ".join([scores["copies"]["verdict"], *scores["copies"]["reasons"]]))
    reconstructed = _reconstruct(run, option, len(images))
    if reconstructed is not None:
        scores |= reconstructed.scores
    if jax.process_index() != 0:
        return
    with writers.Writer(run.folder, step=None) as writer:
        runs.record_scores(run, writer, step, scores, option.sample, final=True)
        writer.image("final", step, plots.grid(images[:120], columns=12))
        if reconstructed is not None:
            writer.image("reconstructions", step, plots.grid(reconstructed.pairs, columns=12))
        if pairs is not None:
            writer.image("copies", step, pairs)
    log.info("report: %s", report.write(run.folder))


def _reconstruct(run: runs.Run, option: runs.SamplingOption, n: int) -> reconstruction.Reconstruction | None:
    """Reconstructions of up to n training images; None if the system is not an autoencoder."""
    system = option.phase.system
    if system.reconstruct is None:
        return None
    extractor, key = run.evaluator().extractor, train_step.key_for(run.config.seed, train_step.RECONSTRUCT)
    data = runs.host_data(run.crops)
    reconstructed = reconstruction.reconstruct(extractor, system, option.state, key, data, n)
    for name, x in reconstructed.scores.items():
        log.info("%s %.4g", name, x)
    return reconstructed
