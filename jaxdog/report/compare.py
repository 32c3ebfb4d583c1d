"""Many runs on one self-contained page and in one table: curves, final scores, grids, config differences.

Scores are compared only where they are comparable: with the same number of samples, real images, feature
network, weights, resampler and resolution. Every table and figure is of one such `Setting`.
The template is `templates/compare.html.j2`.
"""

import json
import os
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxdog.config import saved
from jaxdog.data import dataset_info, listing
from jaxdog.metrics import features
from jaxdog.report import report, strangers
from jaxdog.training import writers
from jaxdog.utils import errors, files, plots

NAME = "compare.html"
# Fields that may differ between runs of one experiment; the seed is one of them.
NOT_THE_EXPERIMENT = (
    *("seed", "name", "init_from"),
    *(f"data.{name}" for name in saved.PLACES),
    *(f"eval.{name}" for name in saved.WEIGHTS),
)
INCOMPARABLE = (
    "Scores of different groups are not comparable: they depend on the number of samples, on the real images "
    "and their size, and on the weights of the feature network."
)

Record = dict[str, Any]


class Setting(NamedTuple):
    """What a score depends on besides the generated images; None: unknown."""

    samples: int | None
    real: int | None
    source: str | None  # key of the real images
    network: str | None
    weights_kind: str | None
    weights_sha256: str | None
    resampler: str | None
    resolution: int | None

    def __str__(self) -> str:
        weights = (
            f"{self.network or 'inception'} {self.weights_kind} {(self.weights_sha256 or '')[:8]}".strip()
        )
        source = f" ({self.source})" if self.source else ""
        real = f"{report.format_number(self.real)} real images{source}"
        size = f"{self.resolution} px, " if self.resolution else ""
        return f"{report.format_number(self.samples)} samples, {real}, {weights}, {size}{self.resampler}"


class RunFiles(NamedTuple):
    """What the folder of a run says about it."""

    name: str  # the shortest end of the path that no other compared run has
    folder: pathlib.Path
    config: dict[str, Any]  # the fields by dotted name; {} without config.json
    source: str | None  # key of the photos; None without dataset.json
    log: list[Record]
    scores: list[Record]  # in order of step, with "hours"


class Result(NamedTuple):
    """A run's scores to compare: the final ones, or else its best evaluation so far."""

    run: RunFiles
    index: int  # position among the compared runs, which sets color and dashes
    record: Record

    @property
    def setting(self) -> Setting:
        return setting_of(self.run, self.record)

    @property
    def label(self) -> str:
        """The run's name and what restricts its scores."""
        notes = [] if self.record.get("final") else ["not final"]
        notes += ["reproduces training images"] if self.record.get("cheat") else []
        return f"{self.run.name} ({', '.join(notes)})" if notes else self.run.name


def write(folders: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str] = NAME) -> pathlib.Path:
    """Writes the page about the runs in `folders` to the file `out`, and returns its path.

    Folders that are no runs are listed on the page. Raises UserError if none is a run, or MissingFileError if
    one does not exist.
    """
    out = pathlib.Path(out)
    with strangers.named(f"one of {', '.join(map(str, folders))}"):
        files.write_text(out, report.render("compare.html.j2", gather(*load(folders))))
    return out


def table(folders: Sequence[str | os.PathLike[str]]) -> str:
    """The final scores of the runs in `folders` as text, one table per setting; errors as for `write`."""
    with strangers.named(f"one of {', '.join(map(str, folders))}"):
        return _table(*load(folders)).encode("utf-8", "backslashreplace").decode("utf-8")


def _table(runs: Sequence[RunFiles], notes: list[str]) -> str:
    groups = group(results(runs))
    blocks = []
    for setting, found in groups.items():
        names = [name for name in metrics(found) if plots.is_metric(name)]
        rows = [["run", "step", "kimg", "hours", *names]]
        for x in found:
            facts = [x.record.get(name) for name in ("step", "kimg", "hours", *names)]
            rows.append([x.label, *map(report.format_number, facts)])
        for seeds in seed_groups(found):
            cells = {row["name"]: row for row in spread(seeds, names)}
            values = [f"{cells[n]['mean']} ± {cells[n]['std']}" if n in cells else "–" for n in names]
            rows.append(
                [f"mean of {len(seeds)} seeds: {', '.join(x.run.name for x in seeds)}", "", "", "", *values]
            )
        blocks.append("\n".join([str(setting), *aligned(rows)]))
    unscored = [run.name for run in runs if not run.scores]
    notes += [f"without scores: {', '.join(unscored)}"] if unscored else []
    notes += [INCOMPARABLE] if len(groups) > 1 else []
    return "\n\n".join([*blocks, *(["\n".join(f"note: {note}" for note in notes)] if notes else [])])


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([f"{first:<{widths[0]}}", *cells]).rstrip())
    return lines


# ------------------------------------------------------------------ the runs


def load(folders: Sequence[str | os.PathLike[str]]) -> tuple[list[RunFiles], list[str]]:
    """The runs, in the order given and each once, and a note on each folder that is no run."""
    paths = list({path.resolve(): path for path in map(pathlib.Path, folders)}.values())
    runs, notes = [], []
    for path, name in zip(paths, unique_names(paths), strict=True):
        if not path.is_dir():
            raise errors.MissingFileError(f"{path} does not exist; compare needs the folders of runs")
        try:
            runs.append(read(path, name))
        except (ValueError, OSError) as error:
            notes.append(f"{path} is left out: {error}")
    if not runs:
        raise errors.UserError("; ".join(notes) or "give the folders of the runs to compare")
    return runs, notes


def read(folder: pathlib.Path, name: str) -> RunFiles:
    """The files of one run; raises UserError if the folder is no run, or a file is damaged."""
    if not any(files.own_file(folder, file) for file in (saved.NAME, writers.LOG, writers.SCORES)):
        raise errors.UserError("it is not the folder of a run")
    log = report.records(folder, writers.LOG)
    scores = report.drop_repeated(report.records(folder, writers.SCORES))
    times = [(x["step"], x["seconds"]) for x in log if x.get("seconds") is not None and "step" in x]
    if times:
        steps, seconds = np.array(sorted(times), float).T
        scores = [{**x, "hours": float(np.interp(x.get("step", 0), steps, seconds)) / 3600} for x in scores]
    config = report.read_json(folder, saved.NAME, saved.REMEDY) or {}
    if "format_version" in config:  # of an exported generator
        config = config.get("config") or {}
    data = dataset_info.read(folder) if files.own_file(folder, dataset_info.NAME) else None
    return RunFiles(
        name,
        folder,
        saved.flatten(config),
        None if data is None else data.source,
        log,
        scores,
    )


def unique_names(paths: Sequence[pathlib.Path]) -> list[str]:
    """For each path, the fewest of its last parts that tell it from the others."""
    parts = [path.resolve().parts for path in paths]
    names = []
    for own in parts:
        depth = 1
        while sum(other[-depth:] == own[-depth:] for other in parts) > 1 and depth < len(own):
            depth += 1
        names.append(listing.printable(str(pathlib.PurePath(*own[-depth:]))))
    return names


# ------------------------------------------------------------------ scores


def results(runs: Sequence[RunFiles]) -> list[Result]:
    """The result of each run that has scores."""
    return [Result(run, i, record) for i, run in enumerate(runs) if (record := best_record(run))]


def best_record(run: RunFiles) -> Record:
    """The last final scores; without, the best evaluation by config.eval.best; {} if there are no scores."""
    final = [record for record in run.scores if record.get("final")]
    if final or not run.scores:
        return final[-1] if final else {}
    names = features.metric_names(run.scores[-1].get("weights_kind") or "published")._asdict()
    named = names.get(run.config.get("eval.best", "fid768"), names["fid768"])
    others = sorted({key for record in run.scores for key in record if plots.is_metric(key)})
    scored = [key for key in (named, *others) if any(is_number(x.get(key)) for x in run.scores)]
    name = scored[0] if scored else named
    return min(run.scores, key=lambda record: record[name] if is_number(record.get(name)) else float("inf"))


def setting_of(run: RunFiles, record: Record) -> Setting:
    """What the scores of a record depend on."""
    known = {name: record.get(name) for name in Setting._fields}
    size = run.config.get("submit.resolution") or run.config.get("system.resolution")
    return Setting(**{**known, "source": run.source, "resolution": size})


def group(found: Sequence[Result]) -> dict[Setting, list[Result]]:
    """The results by setting, the largest group first."""
    groups: dict[Setting, list[Result]] = {}
    for result in found:
        groups.setdefault(result.setting, []).append(result)
    return dict(sorted(groups.items(), key=lambda item: -len(item[1])))


def metrics(found: Sequence[Result]) -> list[str]:
    """Names of the scores that any of the results has, Frechet distances first."""
    names = {name for x in found for name, value in x.record.items() if isinstance(value, float)}
    return sorted(names - {*report.NOT_SCORES, "hours"}, key=lambda name: (not plots.is_metric(name), name))


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def seed_groups(found: Sequence[Result]) -> list[list[Result]]:
    """Results of one setting with final scores, of experiments that ran with several seeds."""
    groups: dict[str, list[Result]] = {}
    for x in found:
        if x.run.config and x.record.get("final"):
            config = {name: v for name, v in x.run.config.items() if name not in NOT_THE_EXPERIMENT}
            groups.setdefault(json.dumps(config, sort_keys=True), []).append(x)
    return [seeds for seeds in groups.values() if len({x.run.config.get("seed") for x in seeds}) > 1]


def spread(seeds: Sequence[Result], names: Sequence[str]) -> list[Record]:
    """Mean, sample standard deviation, minimum and maximum of each score that all runs have."""
    rows = []
    for name in names:
        values = [x.record[name] for x in seeds if is_number(x.record.get(name))]
        if len(values) == len(seeds):
            row = {"mean": statistics.mean(values), "std": statistics.stdev(values)}
            row |= {"min": min(values), "max": max(values)}
            rows.append({"name": name, **{key: report.format_number(float(x)) for key, x in row.items()}})
    return rows


# ------------------------------------------------------------------ the page


def gather(runs: Sequence[RunFiles], notes: Sequence[str]) -> Record:
    """The variables of the template."""
    groups, notes = group(results(runs)), list(notes)
    notes += report.notes(sorted({name for run in runs for record in run.scores for name in record}))
    without = [run.name for run in runs if not run.config]
    notes += [f"without config.json, so without config differences: {', '.join(without)}"] if without else []
    grids = []
    for run in runs:
        try:
            grids += [grid] if (grid := newest_grid(run)) else []
        except strangers.BROKEN_IMAGE as error:
            notes.append(f"the grid of {run.name} cannot be read: {error}")
    return {
        "title": f"{len(runs)} {'run' if len(runs) == 1 else 'runs'}",
        "notes": notes,
        "runs": [summary(run, i) for i, run in enumerate(runs)],
        "groups": [score_table(setting, found) for setting, found in groups.items()],
        "incomparable": INCOMPARABLE if len(groups) > 1 else None,
        "figures": figures(runs),
        "grids": grids,
        "names": [run.name for run in runs if run.config],
        "differences": differences([run for run in runs if run.config]),
    }


def summary(run: RunFiles, index: int) -> Record:
    """A row of the table of runs; its color and dashes are those of the run's curves."""
    last = run.log[-1] if run.log else {}
    speeds = [x["images_per_second"] for x in run.log if is_number(x.get("images_per_second"))]
    color, dashes = plots.line_style(index)
    return {
        "name": run.name,
        "config": run.config.get("name"),
        "seed": run.config.get("seed"),
        "step": last.get("step"),
        "kimg": last.get("kimg"),
        "hours": last["seconds"] / 3600 if is_number(last.get("seconds")) else None,
        "images_per_second": statistics.median(speeds) if speeds else None,
        "color": color,
        "dashes": " ".join(f"{1.6 * x:g}" for x in dashes),
    }


def score_table(setting: Setting, found: Sequence[Result]) -> Record:
    """The scores of one setting; the best Frechet distance of several honest runs is marked."""
    names = metrics(found)
    best = {}
    for name in names:
        values = [
            x.record[name] for x in found if is_number(x.record.get(name)) and not x.record.get("cheat")
        ]
        if plots.is_metric(name) and len(values) > 1:
            best[name] = min(values)
    rows = []
    for x in found:
        values = {name: x.record.get(name) for name in names}
        cells = [{"value": v, "best": name in best and v == best[name]} for name, v in values.items()]
        facts = {name: x.record.get(name) for name in ("step", "kimg", "hours")}
        rows.append({"label": x.label, "sampling": sampling(x, found), **facts, "cells": cells})
    seeds = [
        {"runs": ", ".join(x.run.name for x in same), "count": len(same), "rows": spread(same, names)}
        for same in seed_groups(found)
    ]
    return {"setting": str(setting), "names": names, "rows": rows, "seeds": seeds}


def sampling(result: Result, found: Sequence[Result]) -> str:
    """The sampling options of a result in which the results differ."""
    options = [x.record.get("sampling") or {} for x in found]
    own = result.record.get("sampling") or {}
    differing = [name for name in own if any(x.get(name) != own[name] for x in options)]
    return ", ".join(f"{name} {own[name]}" for name in differing)


def figures(runs: Sequence[RunFiles]) -> list[Record]:
    """Each Frechet distance of the evaluations during training, over images and hours, for each setting."""
    curves: dict[tuple[str, Setting], dict[int, list[Record]]] = {}
    for i, run in enumerate(runs):
        for record in run.scores:
            for name in record if not record.get("final") else ():
                if plots.is_metric(name) and is_number(record[name]):
                    of_runs = curves.setdefault((name, setting_of(run, record)), {})
                    of_runs.setdefault(i, []).append(record)
    drawn = []
    for k, ((name, setting), of_runs) in enumerate(sorted(curves.items(), key=lambda item: item[0][0])):
        for axis in ("kimg", "hours"):
            lines = []
            for i, records in of_runs.items():
                points = [(x[axis], x[name]) for x in records if is_number(x.get(axis))]
                lines.append((runs[i].name, [x for x, _ in points], [y for _, y in points]))
            svg = plots.draw(lines, name, salt=f"{name} {k} {axis}", x_label=axis, styles=list(of_runs))
            drawn += [{"name": name, "setting": str(setting), "svg": svg}] if svg else []
    return drawn


def newest_grid(run: RunFiles) -> Record | None:
    """The final grid, or else the newest; None if there is none."""
    found = report.find_grids(run.folder, [*run.log, *run.scores])
    grid, _ = report.select_grids([x for x in found if x.name not in ("copies", "reconstructions")])
    return grid and {"source": report.jpeg_uri(grid.path), "caption": f"{run.name}: {grid.caption}"}


def differences(runs: Sequence[RunFiles]) -> list[Record]:
    """The fields of the configs that differ, with the value of each run; a dash where a run has none."""
    names = sorted({name for run in runs for name in run.config})
    rows = []
    for name in names:
        values = [json.dumps(run.config[name]) if name in run.config else "–" for run in runs]
        if len(set(values)) > 1:
            rows.append({"name": name, "values": [value.strip('"') for value in values]})
    return rows
