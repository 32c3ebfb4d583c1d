"""What each mode of the command line does: the parts that a config names, used on a work folder."""

import json
import logging
import os
import pathlib
from functools import partial
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from jaxdog import cost, runs, sampling_sweep, types
from jaxdog.cleaning import filters, label_page, pipeline
from jaxdog.config import build, schema
from jaxdog.evaluation import copies, evaluate, reconstruction, submission
from jaxdog.memorizers import baselines
from jaxdog.report import report
from jaxdog.training import checkpoint, loop, train_step, writers
from jaxdog.utils import files, optional, plots

log = logging.getLogger("jaxdog")

# Mistakes of the user, or of the machine, that end in one paragraph instead of a traceback.
EXPECTED = (
    schema.ConfigError,
    checkpoint.CheckpointError,
    loop.TrainingError,
    submission.SubmissionError,
    optional.MissingExtra,
    FileNotFoundError,
    ValueError,
)
# Sections that may change between two sessions of one run: they do not change what a step computes.
CHANGEABLE = ("devices", "train", "checkpoint", "eval", "sample", "submit", "name")


def distributed(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Joins the other hosts: as the flags say, or as a cluster that JAX knows (SLURM, TPU pods, MPI) says."""
    if coordinator not in (None, "auto"):
        jax.distributed.initialize(coordinator, processes, process)
        return
    several = int(os.environ.get("SLURM_NTASKS", 1)) > 1 or int(os.environ.get("OMPI_COMM_WORLD_SIZE", 1)) > 1
    if coordinator == "auto" or several or "," in os.environ.get("TPU_WORKER_HOSTNAMES", ""):
        jax.distributed.initialize()


def run(
    mode: str,
    config: ml_collections.ConfigDict | None,
    workdir: str | None,
    dry_run: bool = False,
    count: int = 100,
    settings: filters.Settings = filters.Settings(),  # noqa: B008
    port: int = 0,
) -> None:
    """Runs one mode of `main.MODES`."""
    _speak_plainly()
    folder = pathlib.Path(workdir or f"runs/{config.name if config is not None else ''}")
    if mode == "report":
        log.info("report: %s", report.write(folder))
        return
    if config is None:
        config = saved(folder)
    checked = build.check(config)
    cache_dir = pathlib.Path(checked.data.cache_dir).expanduser()
    jax.config.update("jax_compilation_cache_dir", str(cache_dir / "xla"))
    if jax.process_index() == 0:
        print(config.to_json_best_effort(indent=2))
    if build.cheat(checked):
        log.warning("%s\n%s\n%s", "!" * 80, baselines.WARNING, "!" * 80)
    if dry_run:
        cost.show(checked)
        return
    if mode == "fit":
        cost.fit(checked)
        return
    if mode in ("clean", "label"):
        _look(mode, checked, folder, cache_dir, settings, port)
        return
    if mode == "train":
        _same_experiment(config, folder)
    made = runs.make(checked, folder, cache_dir, training=mode == "train", scoring=mode != "sample")
    {"train": _train, "evaluate": _evaluate, "sample": partial(_sample, count=count), "submit": _submit}[
        mode
    ](made)


def _speak_plainly() -> None:
    """Our own lines go to the terminal as they are; orbax speaks only of what goes wrong."""
    logging.getLogger("absl").setLevel(logging.ERROR)
    if not log.handlers:
        log.addHandler(logging.StreamHandler())
        log.setLevel(logging.INFO)
        log.propagate = False


def saved(folder: pathlib.Path) -> ml_collections.ConfigDict:
    """The config that a run has left in its folder; FileNotFoundError where there is none."""
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: {folder} is not the folder of a run. Give --config.")
    return ml_collections.ConfigDict(tuples(json.loads(path.read_text())))


def tuples(value: Any) -> Any:
    """JSON's lists back to the tuples that configs hold."""
    if isinstance(value, dict):
        return {name: tuples(x) for name, x in value.items()}
    return tuple(tuples(x) for x in value) if isinstance(value, list) else value


def _same_experiment(config: ml_collections.ConfigDict, folder: pathlib.Path) -> None:
    """Writes config.json; a folder that holds a different experiment is refused, field by field."""
    path = folder / "config.json"
    if path.is_file():
        old, new = flat(json.loads(path.read_text())), flat(json.loads(config.to_json_best_effort()))
        changed = [
            f"{name} is {new.get(name)!r}, was {old.get(name)!r}"
            for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name) and name.split(".")[0] not in CHANGEABLE
        ]
        if changed:
            raise schema.ConfigError(
                f"{folder} holds a run of another experiment: {'; '.join(changed)}. Use another --workdir "
                f"or the old values; what may change on the way: {', '.join(CHANGEABLE)}"
            )
    if jax.process_index() == 0:
        files.replace(path, config.to_json_best_effort(indent=2) + "\n")  # other processes may be reading it


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """A config's fields, as JSON has them, by their dotted names."""
    if not isinstance(tree, dict):
        return {prefix[:-1]: tree}
    return {name: x for key, sub in tree.items() for name, x in flat(sub, f"{prefix}{key}.").items()}


# ------------------------------------------------------------------ the modes


def _train(made: runs.Job) -> None:
    """The whole job: train or go on, then zip and score the best checkpoint's pictures, and report."""
    latest = made.checkpoints.latest() or 0
    with writers.Writer(made.folder, step=latest, enabled=jax.process_index() == 0) as writer:
        outcome = loop.train(runs.training(made, writer))
    if outcome.reason == "signal":
        log.info("stopped at step %d as asked; the same command goes on from there", outcome.step)
        return
    log.info("trained to step %d in %.2f hours (%s)", outcome.step, outcome.seconds / 3600, outcome.reason)
    _submit(made)


class Best(NamedTuple):
    """The best checkpoint."""

    phase: types.Phase
    state: Any
    step: int


def _best(made: runs.Job) -> Best:
    step = made.checkpoints.best()
    if step is None:
        raise FileNotFoundError(
            f"{made.checkpoints.folder} holds no checkpoint: nothing was trained here yet"
        )
    state, _ = train_step.restore(made.checkpoints, made.phases, step, made.crops.image.shape[1:], made.over)
    log.info("the best checkpoint is step %d", step)
    return Best(made.phases[train_step.phase_at(made.phases, step)], state, step)


def _swept(made: runs.Job, best: Best, measure: bool = True) -> tuple[runs.Job, Best]:
    """The way of drawing that config.sample.sweep finds best, or found, and the state to draw from.

    Where nothing was found for this checkpoint yet, and `measure` is False, it is config.sample's own.
    """
    if not made.config.sample.sweep:
        return made, best
    setting = sampling_sweep.found(made, best.step)
    if setting is None and not measure:
        return made, best
    number = made.phases.index(best.phase)
    if setting is None:
        setting = sampling_sweep.best(made, number, best.state, best.step)
    way = sampling_sweep.drawn(made, best.state, setting)
    return way.job, best._replace(phase=way.job.phases[number], state=way.state)


def _pictures(made: runs.Job, best: Best, n: int) -> tuple[np.ndarray, np.ndarray]:
    """n pictures of the best checkpoint, [n, h, w, 3] uint8, and their breeds [n]."""
    key = train_step.key_for(made.config.seed, train_step.SUBMIT)
    label = runs.labels(made, n, train_step.SUBMIT, best.phase, best.state)
    size = runs.batch_size(made)
    return evaluate.generate(best.phase.system, best.state, key, label_page, made.over, size), label


def _finish(made: runs.Job, best: Best, images: np.ndarray, label: np.ndarray) -> None:
    """Scores the very pictures that were written, looks for copies, and writes the report."""
    step = best.step
    evaluator, metrics = made.evaluator(), made.config.eval.final
    fake = evaluator.features_of(images, label_page)
    found, pairs = evaluator.score(fake, metrics), None
    if "forensics" in metrics:
        training = made.training_photos()
        examined = copies.examine(
            images, training.image, training.photo, made.over, fake, evaluator.comparer.real
        )
        found["forensics"], pairs = copies.facts(examined, training), copies.sheet(examined)
        log.info("forensics: %s", "; ".join([found["forensics"]["verdict"], *found["forensics"]["reasons"]]))
    back = _reconstructed(made, best, len(images))
    found |= back.scores if back is not None else {}
    if jax.process_index() != 0:
        return
    with writers.Writer(made.folder, step=None) as writer:
        runs.record(made, writer, step, found, final=True)
        writer.image("final", step, plots.grid(images[:120], columns=12))
        if back is not None:
            writer.image("reconstructions", step, plots.grid(back.pairs, columns=12))
        if pairs is not None:
            writer.image("suspects", step, pairs)
    log.info("report: %s", report.write(made.folder))


def _reconstructed(made: runs.Job, best: Best, n: int) -> reconstruction.Reconstruction | None:
    """How well up to n training pictures come back; None where nothing goes from pictures to pictures."""
    drawn = best.phase.system
    if drawn.reconstruct is None:
        return None
    extractor, key = made.evaluator().extractor, train_step.key_for(made.config.seed, train_step.RECONSTRUCT)
    found = reconstruction.reconstruct(extractor, drawn, best.state, key, runs.resident(made.crops), n)
    for name, x in found.scores.items():
        log.info("%s %.4g", name, x)
    return found


def _submit(made: runs.Job) -> None:
    """images.zip of the best checkpoint, drawn as is best, checked, scored and reported."""
    made, best = _swept(made, _best(made))
    images, label = _pictures(made, best, made.config.submit.images)
    if jax.process_index() == 0:
        facts = submission.write_zip(made.folder / "images.zip", [images], len(images), made.config.data.size)
        log.info("images.zip: %d pictures, %.1f MB, sha256 %s", facts.count, facts.bytes / 1e6, facts.sha256)
    _finish(made, best, images, label_page)


def _evaluate(made: runs.Job) -> None:
    """Scores as many pictures of the best checkpoint as a submission has."""
    made, best = _swept(made, _best(made))
    _finish(made, best, *_pictures(made, best, made.config.submit.images))


def _sample(made: runs.Job, count: int) -> None:
    """samples.zip and a grid: the first `count` pictures of the best checkpoint."""
    made, best = _swept(made, _best(made), measure=False)
    (images, _), step = _pictures(made, best, count), best.step
    if jax.process_index() != 0:
        return
    submission.write_zip(made.folder / "samples.zip", [images], count, made.config.data.size)
    with writers.Writer(made.folder, step=None) as writer:
        writer.image("samples", step, plots.grid(images[:400], columns=20 if count >= 100 else 10))
    log.info("%s and grids/samples_%08d.png", made.folder / "samples.zip", step)


def _look(
    mode: str,
    config: schema.Checked,
    folder: pathlib.Path,
    cache_dir: pathlib.Path,
    settings: filters.Settings,
    port: int,
) -> None:
    """Mode clean decides which crops to train on, mode label asks a person how near the dogs are."""
    if mode == "clean":
        pipeline.run(config, settings, folder, cache_dir)
        return
    _, crops = pipeline.read(config, cache_dir)
    label_page.serve(crops, folder / pipeline.LABELS, config.seed, port)
