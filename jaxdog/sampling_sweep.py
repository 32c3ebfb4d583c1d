"""Scores every combination of config.sample.sweep on one checkpoint and selects the best.

Truncation, the choice of labels, batch statistics and the EMA's half-life change the score of a checkpoint.
All combinations are scored on the same latents as the evaluations during training. The submission is sampled
from other latents, so that its score is not biased by the selection.
"""

import hashlib
import itertools
import json
import logging
import time
from collections.abc import Mapping
from typing import Any

import jax

from jaxdog import runs, types
from jaxdog.config import build
from jaxdog.metrics import features
from jaxdog.training import checkpoint, checkpoint_scores, train_step, writers
from jaxdog.utils import errors, files, untrusted

log = logging.getLogger("jaxdog")

EMA_INDEX = "ema_index"  # selects an EMA in a sweep: 0 is state.ema, i is state.extra_emas[i - 1]

Setting = Mapping[str, Any]  # values of fields of config.sample, and of EMA_INDEX


def combinations(sweep: Mapping[str, tuple]) -> list[dict[str, Any]]:
    """Every combination. The EMA varies fastest: settings that differ only in the EMA share a compilation."""
    names = sorted(sweep, key=lambda name: name == EMA_INDEX)
    return [
        dict(zip(names, values, strict=True))
        for values in itertools.product(*(sweep[name] for name in names))
    ]


def select(run: runs.Run, option: runs.SamplingOption, setting: Setting) -> runs.SamplingOption:
    """`option`, the config's own, with the values of `setting`."""
    sample = option.sample._replace(**{name: x for name, x in setting.items() if name != EMA_INDEX})
    phases = build.phases(run.config._replace(sample=sample), runs.classes(run))
    state, index = option.state, setting.get(EMA_INDEX, 0)
    if index:
        state = state.replace(ema=state.extra_emas[index - 1])
    return runs.SamplingOption(sample, phases[run.phases.index(option.phase)], state)


def best_option(run: runs.Run, option: runs.SamplingOption, step: int, start: bool) -> runs.SamplingOption:
    """The best option of config.sample.sweep: read from sweep.json, or found by scoring all.

    Args:
      run: the run.
      option: the config's own option, which is returned if there is no sweep.
      step: the step of the checkpoint.
      start: whether to score them. If False and this checkpoint has no scores, `option` is returned.
    """
    if not run.config.sample.sweep:
        return option
    setting = load_best(run, step)
    if setting is None:
        if not start:
            return option
        setting = find_best(run, option, step)
    return select(run, option, setting)


def load_best(run: runs.Run, step: int) -> dict[str, Any] | None:
    """The result of `find_best` for the checkpoint at `step`; None if it has not run with this sweep.

    Nor is it used for another checkpoint of the same step, for another metric, or if scores are computed in
    another way now.
    """
    path = run.folder / writers.SWEEP
    try:
        table = untrusted.read_json(path, "It is not used")
        scored, settings = [row["setting"] for row in table["options"]], combinations(run.config.sample.sweep)
        same = scored == settings and table["step"] == step
        same &= table.get("checkpoint", "") in ("", _identity(run, step))
        best = run.config.eval.best  # the table has its full name, such as random_fid768
        same &= best in table.get("metric", best)
        same &= not run.protocol or checkpoint_scores.protocol_in(table) in ("", run.protocol)
        return settings[scored.index(table["best"])] if same else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {untrusted.one_line(error)}"
        log.warning("%s is damaged and not used (%s)", path, reason)
        return None


def find_best(run: runs.Run, option: runs.SamplingOption, step: int) -> dict[str, Any]:
    """Scores every combination of config.sample.sweep, writes sweep.json, returns the best setting.

    Args:
      run: the run; its config.eval sets the number of images per setting and the metric.
      option: the config's own option, with the state of a checkpoint.
      step: the step of the checkpoint.
    """
    config, rows, name = run.config, [], ""
    key = train_step.key_for(config.seed, train_step.EVALUATE)
    phases: dict[str, types.Phase] = {}
    for setting in combinations(config.sample.sweep):
        start = time.monotonic()
        candidate = select(run, option, setting)
        # Settings that differ only in the EMA share one system, which is compiled once.
        shared = json.dumps({name: x for name, x in setting.items() if name != EMA_INDEX})
        candidate = candidate._replace(phase=phases.setdefault(shared, candidate.phase))
        label = runs.labels(run, candidate, config.eval.samples, train_step.EVALUATE)
        size = runs.batch_size(run, candidate.sample)
        system = candidate.phase.system
        scores = run.evaluator().score_system(system, candidate.state, key, label, batch_size=size)
        name = features.metric_names(scores["weights_kind"])._asdict()[config.eval.best]
        log.info("%s: %s %s", _describe(setting), name, scores[name])
        rows.append({"setting": setting, **scores, "seconds": time.monotonic() - start})
    best = min(rows, key=lambda row: checkpoint.sort_key(row[name]))["setting"]
    log.info("best of %d sampling options for step %d: %s", len(rows), step, _describe(best))
    if jax.process_index() == 0:
        made = {checkpoint_scores.PROTOCOL: run.protocol, "checkpoint": _identity(run, step)}
        table = {"step": step, "metric": name, **made, "best": best, "options": rows}
        files.write_text(run.folder / writers.SWEEP, json.dumps(writers.to_json(table), indent=1) + "\n")
    return best


def _identity(run: runs.Run, step: int) -> str:
    """A hash of the checkpoint's record, which has digests of its arrays; "" if it cannot be read."""
    try:
        record = files.read_limited(run.checkpoints.path(step) / checkpoint.RECORD, untrusted.MAX_JSON)
        return hashlib.sha256(record).hexdigest()
    except (errors.UserError, OSError):
        return ""


def _describe(setting: Setting) -> str:
    return ", ".join(f"{name} {value}" for name, value in setting.items())
