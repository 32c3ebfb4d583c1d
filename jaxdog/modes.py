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

from jaxdog import (
    checkpoint,
    cleaning,
    costs,
    evaluate,
    examine,
    factory,
    job,
    label,
    plots,
    program,
    reconstruct,
    report,
    sections,
    submit,
    sweep,
    system,
    train,
    writers,
)
from jaxdog.data import cheats, clean, extras, tables

log = logging.getLogger("jaxdog")

# Mistakes of the user, or of the machine, that end in one paragraph instead of a traceback.
EXPECTED = (
    sections.ConfigError,
    checkpoint.CheckpointError,
    train.TrainingError,
    submit.SubmissionError,
    extras.MissingExtra,
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
    settings: clean.Settings = clean.Settings(),  # noqa: B008
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
    checked = factory.check(config)
    cache_dir = pathlib.Path(checked.data.cache_dir).expanduser()
    jax.config.update("jax_compilation_cache_dir", str(cache_dir / "xla"))
    if jax.process_index() == 0:
        print(config.to_json_best_effort(indent=2))
    if factory.cheat(checked):
        log.warning("%s\n%s\n%s", "!" * 80, cheats.WARNING, "!" * 80)
    if dry_run:
        costs.show(checked)
        return
    if mode == "fit":
        costs.fit(checked)
        return
    if mode in ("clean", "label"):
        _look(mode, checked, folder, cache_dir, settings, port)
        return
    if mode == "train":
        _same_experiment(config, folder)
    made = job.make(checked, folder, cache_dir, training=mode == "train", scoring=mode != "sample")
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
            raise sections.ConfigError(
                f"{folder} holds a run of another experiment: {'; '.join(changed)}. Use another --workdir "
                f"or the old values; what may change on the way: {', '.join(CHANGEABLE)}"
            )
    if jax.process_index() == 0:
        tables.replace(path, config.to_json_best_effort(indent=2) + "\n")  # other processes may be reading it


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """A config's fields, as JSON has them, by their dotted names."""
    if not isinstance(tree, dict):
        return {prefix[:-1]: tree}
    return {name: x for key, sub in tree.items() for name, x in flat(sub, f"{prefix}{key}.").items()}


# ------------------------------------------------------------------ the modes


def _train(made: job.Job) -> None:
    """The whole job: train or go on, then zip and score the best checkpoint's pictures, and report."""
    latest = made.checkpoints.latest() or 0
    with writers.Writer(made.folder, step=latest, enabled=jax.process_index() == 0) as writer:
        outcome = train.train(job.training(made, writer))
    if outcome.reason == "signal":
        log.info("stopped at step %d as asked; the same command goes on from there", outcome.step)
        return
    log.info("trained to step %d in %.2f hours (%s)", outcome.step, outcome.seconds / 3600, outcome.reason)
    _submit(made)


class Best(NamedTuple):
    """The best checkpoint."""

    phase: system.Phase
    state: Any
    step: int


def _best(made: job.Job) -> Best:
    step = made.checkpoints.best()
    if step is None:
        raise FileNotFoundError(
            f"{made.checkpoints.folder} holds no checkpoint: nothing was trained here yet"
        )
    state, _ = program.restore(made.checkpoints, made.phases, step, made.crops.image.shape[1:], made.over)
    log.info("the best checkpoint is step %d", step)
    return Best(made.phases[program.phase_at(made.phases, step)], state, step)


def _swept(made: job.Job, best: Best, measure: bool = True) -> tuple[job.Job, Best]:
    """The way of drawing that config.sample.sweep finds best, or found, and the state to draw from.

    Where nothing was found for this checkpoint yet, and `measure` is False, it is config.sample's own.
    """
    if not made.config.sample.sweep:
        return made, best
    setting = sweep.found(made, best.step)
    if setting is None and not measure:
        return made, best
    number = made.phases.index(best.phase)
    if setting is None:
        setting = sweep.best(made, number, best.state, best.step)
    way = sweep.drawn(made, best.state, setting)
    return way.job, best._replace(phase=way.job.phases[number], state=way.state)


def _pictures(made: job.Job, best: Best, n: int) -> tuple[np.ndarray, np.ndarray]:
    """n pictures of the best checkpoint, [n, h, w, 3] uint8, and their breeds [n]."""
    key = program.key_for(made.config.seed, program.SUBMIT)
    label = job.labels(made, n, program.SUBMIT, best.phase, best.state)
    size = job.batch_size(made)
    return evaluate.generate(best.phase.system, best.state, key, label, made.over, size), label


def _finish(made: job.Job, best: Best, images: np.ndarray, label: np.ndarray) -> None:
    """Scores the very pictures that were written, looks for copies, and writes the report."""
    step = best.step
    evaluator, metrics = made.evaluator(), made.config.eval.final
    fake = evaluator.features_of(images, label)
    found, pairs = evaluator.score(fake, metrics), None
    if "forensics" in metrics:
        training = made.training_photos()
        examined = examine.examine(
            images, training.image, training.photo, made.over, fake, evaluator.comparer.real
        )
        found["forensics"], pairs = examine.facts(examined, training), examine.sheet(examined)
        log.info("forensics: %s", "; ".join([found["forensics"]["verdict"], *found["forensics"]["reasons"]]))
    back = _reconstructed(made, best, len(images))
    found |= back.scores if back is not None else {}
    if jax.process_index() != 0:
        return
    with writers.Writer(made.folder, step=None) as writer:
        job.record(made, writer, step, found, final=True)
        writer.image("final", step, plots.grid(images[:120], columns=12))
        if back is not None:
            writer.image("reconstructions", step, plots.grid(back.pairs, columns=12))
        if pairs is not None:
            writer.image("suspects", step, pairs)
    log.info("report: %s", report.write(made.folder))


def _reconstructed(made: job.Job, best: Best, n: int) -> reconstruct.Reconstruction | None:
    """How well up to n training pictures come back; None where nothing goes from pictures to pictures."""
    drawn = best.phase.system
    if drawn.reconstruct is None:
        return None
    extractor, key = made.evaluator().extractor, program.key_for(made.config.seed, program.RECONSTRUCT)
    found = reconstruct.reconstruct(extractor, drawn, best.state, key, job.resident(made.crops), n)
    for name, x in found.scores.items():
        log.info("%s %.4g", name, x)
    return found


def _submit(made: job.Job) -> None:
    """images.zip of the best checkpoint, drawn as is best, checked, scored and reported."""
    made, best = _swept(made, _best(made))
    images, label = _pictures(made, best, made.config.submit.images)
    if jax.process_index() == 0:
        facts = submit.write_zip(made.folder / "images.zip", [images], len(images), made.config.data.size)
        log.info("images.zip: %d pictures, %.1f MB, sha256 %s", facts.count, facts.bytes / 1e6, facts.sha256)
    _finish(made, best, images, label)


def _evaluate(made: job.Job) -> None:
    """Scores as many pictures of the best checkpoint as a submission has."""
    made, best = _swept(made, _best(made))
    _finish(made, best, *_pictures(made, best, made.config.submit.images))


def _sample(made: job.Job, count: int) -> None:
    """samples.zip and a grid: the first `count` pictures of the best checkpoint."""
    made, best = _swept(made, _best(made), measure=False)
    (images, _), step = _pictures(made, best, count), best.step
    if jax.process_index() != 0:
        return
    submit.write_zip(made.folder / "samples.zip", [images], count, made.config.data.size)
    with writers.Writer(made.folder, step=None) as writer:
        writer.image("samples", step, plots.grid(images[:400], columns=20 if count >= 100 else 10))
    log.info("%s and grids/samples_%08d.png", made.folder / "samples.zip", step)


def _look(
    mode: str,
    config: sections.Checked,
    folder: pathlib.Path,
    cache_dir: pathlib.Path,
    settings: clean.Settings,
    port: int,
) -> None:
    """Mode clean decides which crops to train on, mode label asks a person how near the dogs are."""
    if mode == "clean":
        cleaning.run(config, settings, folder, cache_dir)
        return
    _, crops = cleaning.read(config, cache_dir)
    label.serve(crops, folder / cleaning.LABELS, config.seed, port)
