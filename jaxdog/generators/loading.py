"""Where generators come from: a run's checkpoint, or an exported folder."""

import contextlib
import logging
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from jaxdog import runs, sampling_sweep, types
from jaxdog.config import build, saved, schema
from jaxdog.evaluation import generation, sampling_state
from jaxdog.generators import hub, model_card, pretrained
from jaxdog.render import decoding
from jaxdog.training import train_step, writers
from jaxdog.utils import errors

SHIPPED = pathlib.Path(__file__).resolve().parent.parent / "pretrained"  # folders that come with the package


class Loaded(NamedTuple):
    """The arguments of `Generator`."""

    system: types.System
    state: Any
    class_names: tuple[str, ...]
    config: schema.Experiment
    resolution: int
    step: int
    phase: int
    scores: dict[str, Any]
    notes: tuple[str, ...]


def from_run(folder: pathlib.Path, which: runs.Which) -> Loaded:
    """A checkpoint of a run with the best option of its sweep; see `Generator.from_run`."""
    config = saved.check(saved.load(folder), folder)
    cache_dir = pathlib.Path(config.data.cache_dir).expanduser()
    with _without_warnings_of_orbax():
        run = runs.make(config, folder, cache_dir, training=False, scoring=False)
        step = runs.find_step(run, which)
        option = runs.restore(run, step)
    return _with_fixed_statistics(run, sampling_sweep.best_option(run, option, step, start=False), step)


@contextlib.contextmanager
def _without_warnings_of_orbax() -> Iterator[None]:
    """Orbax warns of its own settings when it reads a checkpoint."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _with_fixed_statistics(run: runs.Run, option: runs.SamplingOption, step: int) -> Loaded:
    """The option, with statistics and collapsed classes computed now and written into its config."""
    index, total = train_step.phase_at(run.phases, step), runs.classes(run)
    exclude = runs.excluded_classes(run, option, train_step.SUBMIT)
    sample = decoding.fixed_statistics(option.sample)
    notes = ()
    if sample.batch_stats != option.sample.batch_stats:
        notes = (
            f"The scores are of images that were sampled with the batch statistics of {sample.batch_size} "
            f"images. Here the statistics are those of {sample.num_standing_images:,} images, so that an "
            "image does not depend on the others of its batch.",
        )
    system = build.phases(run.config._replace(sample=sample), total)[index].system
    state = generation.prepare_state(
        system, option.state, train_step.key_for(run.config.seed, train_step.SUBMIT)
    )
    labels = "uniform" if sample.labels == "skip_collapsed" else sample.labels
    sample = sample._replace(
        labels=labels,
        exclude_classes=exclude,
        sweep={},
        batch_stats="running",
        num_standing_images=0,
        batch_size=0,
    )
    config = run.config._replace(sample=sample)
    return Loaded(
        build.phases(config, total)[index].system,
        state,
        run.dataset.class_names,
        config,
        config.submit.resolution,
        step,
        index,
        _scores(run.folder, step),
        notes,
    )


def _scores(folder: pathlib.Path, step: int) -> dict[str, Any]:
    """The scores of a checkpoint: of its final images, else of the evaluation during training, else {}."""
    records = [x for x in writers.read_jsonl(folder / writers.SCORES) if x.get("step") == step]
    final = [x for x in records if x.get("final")]
    return model_card.summary([*records, *final][-1]) if records else {}


def from_pretrained(name: str) -> Loaded:
    """An exported generator; see `Generator.from_pretrained`."""
    model = pretrained.load(_find(name))
    config = model.config
    system = build.phases(config, len(model.class_names))[model.phase].system
    return Loaded(
        system,
        sampling_state.fill(model.shapes, model.arrays),
        model.class_names,
        config,
        config.submit.resolution,
        model.step,
        model.phase,
        model.scores,
        model.notes,
    )


def shipped() -> tuple[str, ...]:
    """The names of the generators that come with the package."""
    return tuple(sorted(path.parent.name for path in SHIPPED.glob(f"*/{pretrained.CONFIG}")))


def _find(name: str) -> pathlib.Path:
    """The folder of an exported generator, downloaded if it is on the hub."""
    if name.startswith(hub.SCHEME):
        return hub.download(name)
    folder = pathlib.Path(name).expanduser()
    if folder.is_dir():
        return folder
    if name in shipped():
        return SHIPPED / name
    known = ", ".join(shipped()) or "this version has none"
    raise errors.MissingFileError(
        f"{name} is neither a folder nor a generator that comes with jaxdog ({known}); one on the Hugging "
        "Face Hub is called hf://user/name"
    )
