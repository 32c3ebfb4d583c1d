"""What the commands do: train, evaluate, submit, sample, report, clean, label and find the batch size."""

import contextlib
import json
import logging
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import ml_collections
import numpy as np

from jaxdog import cost, runs, sampling_sweep, sharding
from jaxdog.cleaning import filters, label_page, pipeline
from jaxdog.config import build, saved, schema
from jaxdog.data import crop_dataset, listing
from jaxdog.evaluation import copies, evaluate, generation, reconstruction, submission
from jaxdog.memorizers import baselines
from jaxdog.metrics import leaderboard
from jaxdog.render import decoding, media, sheets
from jaxdog.report import report
from jaxdog.training import callbacks, loop, train_step, warm_start, writers
from jaxdog.utils import errors, lock, logs, outputs, plots, png, untrusted

log = logging.getLogger("jaxdog")

EARLIER = "the verdict on copies is that of an earlier evaluation of the same images"
# What a run appends to, and the folders that it adds files to.
APPENDED = (writers.LOG, writers.SCORES, writers.GRIDS, writers.BOARD, report.MEDIA, pipeline.LABELS)


def init_distributed(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Connects the processes of a run on several hosts; does nothing on a single host.

    coordinator: "host:port" of process 0; "auto": found by JAX on a cluster that it knows (SLURM, TPU pods,
      MPI); None: as "auto" if such a cluster is detected.
    num_processes, process_id: with "host:port" the number of processes, and this one, from 0; None: those of
      a cluster that JAX knows.
    """
    fit = num_processes is None and process_id is None
    if coordinator not in (None, "auto"):
        fit |= process_id is not None and 0 <= process_id < (num_processes or 0)
        fit &= ":" in coordinator
    if not fit:
        raise errors.UserError(
            f"--coordinator is {coordinator}, --num-processes {num_processes} and --process-id {process_id}; "
            "a run on several hosts needs HOST:PORT of process 0, the number of processes, and that of this "
            "one, from 0; or, on a cluster, HOST:PORT or auto alone"
        )
    if coordinator not in (None, "auto"):
        try:
            jax.distributed.initialize(coordinator, num_processes, process_id)
        except ValueError as error:  # JAX knows no cluster here that could tell the numbers
            numbers = "--num-processes and --process-id"
            raise errors.UserError(f"JAX cannot find out {numbers} for {coordinator}: {error}") from error
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
    """Runs one mode of `cli.flags.MODES`.

    Args:
      mode: its name.
      config: the experiment; None: the one saved in `workdir`.
      workdir: the work folder; None: runs/<name of the config>.
      dry_run: only print the config and what it costs.
      num_samples: number of images, for sample.
      settings: the filters of clean.
      port: of label's page; 0: any free port.
    """
    logs.show()
    folder = pathlib.Path(workdir or f"runs/{config.name if config is not None else ''}").expanduser()
    listing.check_path(folder)
    if mode in ("report", "clean", "label", "sample"):  # other modes lock the folder first
        outputs.check(folder, "the work folder", folder=True)
    if mode == "report":
        saved.find(folder)
        log.info("report: %s", report.write(folder))
        return
    if config is None:
        config = saved.load(folder)
    experiment, cache_dir = _prepare(config)
    if dry_run:
        if jax.process_index() == 0:
            print(json.dumps(saved.to_json(experiment), indent=2))
        cost.print_costs(_with_classes(experiment))
    elif mode == "train":
        _train(experiment, cache_dir, folder, ())
    elif mode == "find_batch_size":
        cost.find_batch_size(_with_classes(experiment))
    elif mode == "sample":  # without the lock, and so without a log
        outputs.check_links(folder, APPENDED)
        _sample(runs.make(experiment, folder, cache_dir, training=False, scoring=False), num_samples)
    elif mode == "clean":
        pipeline.run(experiment, settings, folder, cache_dir)
    elif mode == "label":
        _, crops = pipeline.load_crops(experiment, cache_dir)
        with _locked(folder, mode):
            label_page.serve(crops, folder / pipeline.LABELS, experiment.seed, port)
    else:
        with _locked(folder, mode):
            run = runs.make(experiment, folder, cache_dir, training=False, scoring=True)
            runs.find_step(run)  # before the writer creates files
            with writers.Writer(folder, step=None, enabled=jax.process_index() == 0) as writer:
                {"evaluate": _evaluate, "submit": _submit}[mode](run, writer)


def _prepare(config: ml_collections.ConfigDict) -> tuple[schema.Experiment, pathlib.Path]:
    """The checked config and its cache folder; compiled programs are cached in the user's own folder.

    Compiled programs are native code, and configs are also read from the folders of runs that others made.
    So no config names their place: JAX_COMPILATION_CACHE_DIR does, or it is the user's cache folder.
    """
    experiment = build.check(config)
    if build.cheat(experiment):
        log.warning("%s\n%s\n%s", "!" * 80, baselines.WARNING, "!" * 80)
    if not jax.config.values["jax_compilation_cache_dir"]:
        own = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        jax.config.update("jax_compilation_cache_dir", str(own.absolute() / "jaxdog" / "xla"))
    return experiment, pathlib.Path(experiment.data.cache_dir).expanduser()


def _with_classes(experiment: schema.Experiment) -> schema.Experiment:
    """The config with the number of classes of its photos, on which the sizes of networks depend."""
    if experiment.data.classes:
        return experiment
    try:
        count = len(build.source(experiment.data, prepare=False).class_names)
    except (errors.UserError, OSError) as error:
        log.warning("the photos cannot be read (%s): the costs are those for one class", error)
        return experiment
    log.info("costs for the %d classes of the photos", count)
    return experiment._replace(data=experiment.data._replace(classes=count))


@contextlib.contextmanager
def _locked(folder: pathlib.Path, command: str) -> Iterator[None]:
    """Holds the lock of a run in process 0; raises UserError in all processes if another run holds it."""
    failure = None
    with contextlib.ExitStack() as stack:
        if jax.process_index() == 0:
            try:
                outputs.check_links(folder, APPENDED)
                stack.enter_context(lock.hold(folder, command))
            except errors.UserError as error:
                failure = error
        if not sharding.all_processes_agree(failure is None):
            raise failure or errors.UserError(f"process 0 cannot write to {folder}, and says why")
        yield


# ------------------------------------------------------------------ modes


def train(
    config: ml_collections.ConfigDict, folder: pathlib.Path, listeners: Iterable[object] = ()
) -> tuple[loop.TrainResult, dict[str, Any]]:
    """Trains or resumes; at the end writes, scores and reports a submission.

    Args:
      config: the experiment.
      folder: the work folder, created if missing.
      listeners: callbacks, see `training.callbacks`.

    Returns how training ended, and the scores of the submission; {} if training was stopped.
    """
    listeners = callbacks.check(listeners)
    return _train(*_prepare(config), folder, listeners)


def _train(
    experiment: schema.Experiment,
    cache_dir: pathlib.Path,
    folder: pathlib.Path,
    listeners: Iterable[object],
) -> tuple[loop.TrainResult, dict[str, Any]]:
    """`train` with a config that has been checked."""
    listing.check_path(folder)
    if folder.exists() and not folder.is_dir():
        raise errors.UserError(f"{folder} is a file; a work folder is a folder, which may not exist yet")
    with contextlib.ExitStack() as stack:
        stack.enter_context(_locked(folder, "train"))
        run = runs.make(experiment, folder, cache_dir, training=True, scoring=True)
        if run.config.init_from and not run.checkpoints.steps():
            warm_start.check(pathlib.Path(run.config.init_from).expanduser())
        data = runs.place_data(run)
        loop.check(runs.train_setup(run, data, writers.Writer(folder, enabled=False)))
        run = runs.start(run)  # the first to write anything
        stack.enter_context(contextlib.closing(run.checkpoints))
        latest, fields = run.checkpoints.latest() or 0, saved.to_json(run.config)
        writer = writers.Writer(folder, latest, jax.process_index() == 0, listeners, fields)
        stack.enter_context(writer)
        result = loop.train(runs.train_setup(run, data, writer))
        if result.reason in ("signal", "callback"):
            log.info("stopped at step %d. Rerun the command to resume.", result.step)
            return result, {}
        log.info("trained to step %d in %.2f hours (%s)", result.step, result.seconds / 3600, result.reason)
        return result, _submit(run, writer)


def _submit(run: runs.Run, writer: writers.Writer) -> dict[str, Any]:
    """Writes images.zip from the checkpoint of config.submit, with the best sampling, and scores it."""
    step, option = _best_option(run)
    images, label = _generate(run, option, run.config.submit.images)
    if jax.process_index() == 0:
        info = submission.write_zip(
            run.folder / "images.zip", [images], len(images), run.config.submit.resolution
        )
        log.info("images.zip: %d images, %.1f MB, sha256 %s", info.count, info.bytes / 1e6, info.sha256)
        _write_media(run, option)
    return _score(run, writer, step, option, images, label)


def _evaluate(run: runs.Run, writer: writers.Writer) -> None:
    """Scores the images that `_submit` would write."""
    step, option = _best_option(run)
    _score(run, writer, step, option, *_generate(run, option, run.config.submit.images))


def _sample(run: runs.Run, num_samples: int) -> None:
    """Writes samples.zip and a grid, as `_submit` would sample them; does not start a sweep."""
    step, option = _best_option(run, start=False)
    images, _ = _generate(run, option, num_samples)
    if jax.process_index() != 0:
        return
    submission.write_zip(run.folder / "samples.zip", [images], num_samples, run.config.submit.resolution)
    grid = run.folder / writers.GRIDS / f"samples_{step:08d}.png"
    png.write(grid, plots.grid(images[:400], columns=20 if num_samples >= 100 else 10))
    log.info("%s and %s", run.folder / "samples.zip", grid)


# ------------------------------------------------------------------ the submitted images


def _best_option(run: runs.Run, start: bool = True) -> tuple[int, runs.SamplingOption]:
    """Step of config.submit.checkpoint, with the best sampling option; `start`: see `sampling_sweep`."""
    which = run.config.submit.checkpoint
    step = runs.find_step(run, which)
    log.info("the %s checkpoint is step %d", which, step)
    return step, sampling_sweep.best_option(run, runs.restore(run, step), step, start)


def _generate(run: runs.Run, option: runs.SamplingOption, n: int) -> tuple[np.ndarray, np.ndarray]:
    """n images, [n, h, w, 3] uint8, and their labels [n]."""
    key = train_step.key_for(run.config.seed, train_step.SUBMIT)
    label = runs.labels(run, option, n, train_step.SUBMIT)
    size = runs.batch_size(run, option.sample)
    return generation.generate(option.phase.system, option.state, key, label, run.mesh, size), label


def _score(
    run: runs.Run,
    writer: writers.Writer,
    step: int,
    option: runs.SamplingOption,
    images: np.ndarray,
    label: np.ndarray,
) -> dict[str, Any]:
    """Scores images with the metrics of config.eval.final, writes the report, and returns the scores."""
    evaluator, metrics = run.evaluator(), run.config.eval.final
    log.info("scoring %d images", len(images))
    fake = evaluator.features_of(images, label)
    scores, pairs, nearest = evaluator.score(fake, metrics, images), None, None
    for network in runs.other_networks(run):
        scores = evaluate.merge(scores, _score_with(run, network, images, label))
    photos = _photos(run.training_photos, "copies", scores) if "copies" in metrics else None
    if photos is not None:
        with _unless_out_of_memory("search for copies", scores):
            found = copies.find_copies(images, photos.image, photos.photo, run.mesh, fake, evaluator.real)
            scores["copies"], pairs = copies.summary(found, photos), copies.pair_grid(found)
            log.info("copies: %s", "; ".join([scores["copies"]["verdict"], *scores["copies"]["reasons"]]))
        with _unless_out_of_memory("sheet of the nearest photos", scores):
            nearest = sheets.nearest_photos(images, photos.image, photos.photo, run.mesh, media.PAIRS)
    if "copies" in metrics and "copies" not in scores:
        same = {"step": step, "samples": len(images), "final": True, "sampling": option.sample._asdict()}
        known = copies.earlier(writers.read_jsonl(run.folder / writers.SCORES), writers.to_json(same))
        if known is not None:
            scores["copies"] = known
            scores["warnings"] = (*scores["warnings"], EARLIER)
            log.info("copies: %s (%s)", known["verdict"], EARLIER)
    reconstructed = _reconstruct(run, option, len(images), scores)
    if reconstructed is not None:
        scores |= reconstructed.scores
        scores["warnings"] = (*scores["warnings"], *reconstructed.warnings)
    scores |= leaderboard.standing(scores, evaluator.real.class_names, run.config.eval.eps)
    if "leaderboard" in scores:
        log.info("%s", scores["leaderboard"]["text"])
    if jax.process_index() != 0:
        return scores
    runs.record_scores(run, writer, step, scores, option.sample, final=True)
    writer.image("final", step, plots.grid(images[:120], columns=12))
    if reconstructed is not None:
        writer.image("reconstructions", step, plots.grid(reconstructed.pairs, columns=12))
    if pairs is not None:
        writer.image("copies", step, pairs)
    if nearest is not None:
        png.write(run.folder / report.MEDIA / report.NEAREST, sheets.pair_sheet(nearest))
    log.info("report: %s", report.write(run.folder))
    return scores


def _score_with(run: runs.Run, network: str, images: np.ndarray, label: np.ndarray) -> dict[str, Any]:
    """Scores of another network than Inception; "copies" are its memorization distances."""
    evaluator, metrics = run.evaluator(network), run.config.eval.final
    fake = evaluator.features_of(images, label)
    scores = evaluator.score(fake, evaluate.metrics_of(network, metrics))
    distances = copies.distances_of(fake, evaluator.real, run.mesh)[0] if "copies" in metrics else {}
    return scores | distances


def _photos(
    read: Callable[[], crop_dataset.CropDataset], name: str, scores: dict[str, Any]
) -> crop_dataset.CropDataset | None:
    """Crops of the training photos; None if they are gone, with a warning in the log and among the scores."""
    photos = None
    try:
        photos = read()
    except (errors.UserError, OSError) as error:
        _warn(f"no {name}: the training photos cannot be read ({error})", scores)
    return photos if sharding.all_processes_agree(photos is not None) else None


@contextlib.contextmanager
def _unless_out_of_memory(name: str, scores: dict[str, Any]) -> Iterator[None]:
    """Work that is given up for lack of memory, with a warning in the log and among the scores.

    One of several processes ends: the others would wait for it.
    """
    try:
        yield
    except Exception as error:
        lacks_memory = isinstance(error, MemoryError) or errors.out_of_memory(error)
        if not lacks_memory or jax.process_count() > 1:
            raise
        _warn(f"no {name}: too little memory ({untrusted.one_line(error)})", scores)


def _warn(warning: str, scores: dict[str, Any]) -> None:
    log.warning("%s", warning)
    scores["warnings"] = (*scores["warnings"], warning)


def _write_media(run: runs.Run, option: runs.SamplingOption) -> None:
    """Writes the images of `render.media`, in one process."""
    sample = decoding.fixed_statistics(option.sample)
    phases = build.phases(run.config._replace(sample=sample), runs.classes(run))
    index = [phase.name for phase in run.phases].index(option.phase.name)
    media.write(
        run.folder,
        phases[index].system,
        jax.device_get(option.state),
        run.dataset.class_names,
        train_step.key_for(run.config.seed, train_step.SUBMIT),
        sample.method,
        sample.exclude_classes,
    )


def _reconstruct(
    run: runs.Run, option: runs.SamplingOption, n: int, scores: dict[str, Any]
) -> reconstruction.Reconstruction | None:
    """Reconstructions of up to n training images; None if the system is not an autoencoder."""
    system = option.phase.system
    if system.reconstruct is None:
        return None
    crops = _photos(run.crops, "reconstructions", scores)
    if crops is None:
        return None
    extractor, key = run.evaluator().extractor, train_step.key_for(run.config.seed, train_step.RECONSTRUCT)
    data = runs.host_data(crops)
    reconstructed = None
    with _unless_out_of_memory("reconstructions", scores):
        reconstructed = reconstruction.reconstruct(extractor, system, option.state, key, data, n)
        for name, x in reconstructed.scores.items():
            log.info("%s %.4g", name, x)
    return reconstructed
