"""The best way to draw pictures from a trained generator, found by trying all of them.

Truncation, policies of breeds, batch statistics and averages of other half-lives change the score of one
checkpoint. Each combination is scored on the same latents, those of the evaluations during training; what is
handed in then is drawn from others, so that its score is no lucky draw.
"""

import itertools
import json
import logging
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from jaxdog import runs
from jaxdog.config import build
from jaxdog.metrics import features
from jaxdog.training import train_step, writers
from jaxdog.utils import files

log = logging.getLogger("jaxdog")


class Way(NamedTuple):
    """One way to draw."""

    setting: Mapping[str, Any]  # fields of config.sample, and "track"
    job: runs.Job  # with these settings
    state: Any  # whose average is the one to draw from


def ways(settings: Mapping[str, tuple]) -> list[dict[str, Any]]:
    """Every combination; the averages of one system come one after the other: they share its compilation."""
    names = sorted(settings, key=lambda name: name == "track")
    return [
        dict(zip(names, values, strict=True))
        for values in itertools.product(*(settings[name] for name in names))
    ]


def drawn(made: runs.Job, state: Any, setting: Mapping[str, Any]) -> Way:
    """The job and the state that draw in this way."""
    fields = {name: value for name, value in setting.items() if name != "track"}
    sample = made.config.sample._replace(**fields)
    config = made.config._replace(sample=sample)
    phases = build.phases(config, runs.classes(made))
    if track := setting.get("track", 0):
        state = state.replace(ema=state.tracks[track - 1])
    return Way(setting, made._replace(config=config, phases=phases), state)


def found(made: runs.Job, step: int) -> dict[str, Any] | None:
    """What `best` has returned for the checkpoint at `step`; None if it was not asked, or of other ways."""
    path = made.folder / writers.SWEEP
    table: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"step": None}
    if table["step"] != step or [x["setting"] for x in table["ways"]] != ways(made.config.sample.sweep):
        return None
    return table["best"]


def best(made: runs.Job, number: int, state: Any, step: int) -> dict[str, Any]:
    """Scores every way that config.sample.sweep names, writes sweep.json, returns the best one's setting.

    Args:
      made: the job; config.eval says how many pictures each way is judged by, and by which metric.
      number: of the phase that the state belongs to.
      state: of a checkpoint.
      step: its.
    """
    config, rows = made.config, []
    key = train_step.key_for(config.seed, train_step.EVALUATE)
    name = ""
    shared: dict[str, Way] = {}
    for setting in ways(config.sample.sweep):
        begun = time.monotonic()
        way = drawn(made, state, setting)
        # Ways that differ in their average only use one system, which is compiled once.
        same = json.dumps({k: v for k, v in setting.items() if k != "track"})
        way = way._replace(job=shared.setdefault(same, way).job)
        phase = way.job.phases[number]
        label = runs.labels(way.job, config.eval.samples, train_step.EVALUATE, phase, way.state)
        size = runs.batch_size(way.job)
        scores = made.evaluator().score_system(phase.system, way.state, key, label, batch_size=size)
        name = features.names(scores["weights_kind"])._asdict()[config.eval.best]
        log.info("%s: %s %.3f", _said(setting), name, scores[name])
        rows.append({"setting": setting, **scores, "seconds": time.monotonic() - begun})
    row = min(rows, key=lambda row: row[name])
    log.info("best of %d ways to draw from step %d: %s", len(rows), step, _said(row["setting"]))
    if jax.process_index() == 0:
        table = {"step": step, "metric": name, "best": row["setting"], "ways": rows}
        files.replace(made.folder / writers.SWEEP, json.dumps(table, indent=1) + "\n")
    return row["setting"]


def _said(setting: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in setting.items())
