"""`report.html`: the results of a run on a self-contained page, made from the files in its workdir.

The report of an unfinished run shows the results so far. The template is `templates/report.html.j2`.
"""

import base64
import hashlib
import io
import json
import os
import pathlib
import re
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jinja2
import numpy as np
import PIL.Image

from jaxdog.config import saved, systems
from jaxdog.data import listing, photos
from jaxdog.memorizers import baselines
from jaxdog.report import strangers
from jaxdog.training import checkpoint, writers
from jaxdog.utils import archives, errors, files, integers, plots, untrusted

NAME = "report.html"
MAX_GRIDS = 6  # maximum number of grids per series, including the first and the last
MAX_SERIES = 20  # maximum number of series
NUM_SUBMITTED = 100  # maximum number of images of images.zip to show
MAX_SHOWN_PIXELS = 2048 * 2048  # of each
MAX_SHEET_PIXELS = NUM_SUBMITTED * 1024 * 1024  # of all
MAX_SHOWN_BYTES = 32 << 20  # of the file of each

MEDIA = "media"  # folder of a run with the images of `render.media`
INTERPOLATION, TIMELAPSE = "interpolation.gif", "timelapse.gif"
TRUNCATION, CLASSES, NEAREST = "truncation.png", "classes.png", "nearest.png"
MEDIA_SECTIONS = {  # file name -> heading, caption
    CLASSES: ("Classes", "Images of some classes. A column has the same latent in every row."),
    INTERPOLATION: ("Interpolation", "Loops through three latents each; the class stays the same."),
    TRUNCATION: (
        "Truncation",
        "A column has the same latent in every row. In z, the number is the largest coordinate; in w, the "
        "factor of the distance to the mean.",
    ),
    NEAREST: ("Nearest photos", "Generated images, each beside the most similar part of a training photo."),
    TIMELAPSE: ("Timelapse", "The same latents during training."),
}

SWEEP_REMEDY = "Delete it; jaxdog submit makes it again"
NO_LOG = (
    "No losses and no speed: the run was stopped before its first log line, which it writes after "
    "config.train.log_every steps."
)
NOT_SCORES = ("step", "kimg", "evaluation_seconds")  # fields of a record that are not scores

Record = dict[str, Any]


class Grid(NamedTuple):
    """A grid of images written during the run: grids/<name>_<step>.png."""

    name: str
    step: int
    path: pathlib.Path
    caption: str


def write(workdir: str | os.PathLike[str]) -> pathlib.Path:
    """Writes <workdir>/report.html and returns its path.

    Raises MissingFileError if there is no workdir, or UserError if files in it are not those of a run.
    """
    workdir = pathlib.Path(workdir)
    if not workdir.is_dir():
        raise errors.MissingFileError(f"{workdir} does not exist; the report needs the workdir of a run")
    with strangers.named(str(workdir)):
        files.write_text(workdir / NAME, render("report.html.j2", gather(workdir)))
    return workdir / NAME


def render(template: str, variables: Record) -> str:
    """A page from a file of `templates/`; every value that is not marked as safe is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxdog.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = format_number
    page = environment.get_template(template).render(**variables)
    return page.encode("utf-8", "backslashreplace").decode("utf-8")  # names need not be UTF-8


def gather(workdir: pathlib.Path) -> Record:
    """The variables of the template."""
    log, scores = records(workdir, writers.LOG), drop_repeated(records(workdir, writers.SCORES))
    metrics = sorted({key for record in scores for key in record if plots.is_metric(key)})
    grids = find_grids(workdir, [*log, *scores])
    copies = [grid for grid in grids if grid.name == "copies"]
    final, series = select_grids([grid for grid in grids if grid not in copies])
    config = read_json(workdir, saved.NAME, saved.REMEDY)
    lines = notes(metrics)
    if len(series) > MAX_SERIES:
        lines.append(f"Grids of {len(series):,} names were found; those of the first {MAX_SERIES} are shown.")
    images = {
        "copies": next(iter(readable(copies[-1:], file_uri, lines)), None),
        "final": next(iter(readable([final] if final else [], file_uri, lines)), None),
        "media": media(workdir, lines),
        "series": [
            {"name": name, "grids": found}
            for name in [*series][:MAX_SERIES]
            if (found := readable(series[name], jpeg_uri, lines))
        ],
    }
    return {
        "title": listing.printable(workdir.resolve().name),
        "cards": score_cards(scores, metrics) + progress_cards(log, scores),
        "warning": warning(config),
        "notes": lines,
        "no_log": None if log or config is None else NO_LOG,
        "scores": [score_row(record) for record in scores],
        "metrics": metrics,
        "submitted": submitted_scores(scores),
        "sweep": sampling_sweep(read_json(workdir, writers.SWEEP, SWEEP_REMEDY)),
        "figures": figures(log, scores),
        **images,
        "submission": submission(files.own_file(workdir, "images.zip")),
        "config": None if config is None else json.dumps(config, indent=2),
    }


def readable(grids: Sequence[Grid], encode: Callable[[pathlib.Path], str], lines: list[str]) -> list[Record]:
    """The grids with their sources; one that cannot be read is left out, and why is added to `lines`."""
    shown = []
    for grid in grids:
        try:
            shown.append({"source": encode(grid.path), "caption": grid.caption})
        except strangers.BROKEN_IMAGE as error:
            lines.append(f"{grid.path.name} is left out: {error}")
    return shown


def records(workdir: pathlib.Path, name: str) -> list[Record]:
    """The records of a JSON-lines file of a run; [] if there is none."""
    path = files.own_file(workdir, name)
    return [] if path is None else writers.read_jsonl(path)


def read_json(workdir: pathlib.Path, name: str, remedy: str) -> Record | None:
    """The object in a JSON file of a run; None without one. UserError with the remedy if damaged."""
    path = files.own_file(workdir, name)
    return None if path is None else untrusted.read_json(path, remedy)


def media(workdir: pathlib.Path, lines: list[str]) -> list[Record]:
    """The images in media/ that have a section of the page; sheets become JPEGs, which are smaller.

    Those that cannot be read are left out, and why is added to `lines`.
    """
    sections = []
    for name, (title, caption) in MEDIA_SECTIONS.items():
        path = files.own_file(workdir, f"{MEDIA}/{name}")
        if path is not None:
            encode = file_uri if path.suffix == ".gif" else jpeg_uri
            found = readable([Grid(name, 0, path, caption)], encode, lines)
            sections += [{"title": title, **image} for image in found]
    return sections


def sampling_sweep(table: Record | None) -> Record | None:
    """The compared sampling options of sweep.json, best first; None if there was no sweep."""
    if table is None:
        return None
    rows = sorted(table["options"], key=lambda row: checkpoint.sort_key(row[table["metric"]]))
    names = list(rows[0]["setting"])
    return {
        "metric": table["metric"],
        "step": table["step"],
        "samples": rows[0]["samples"],
        "names": names,
        "rows": [[*(row["setting"][name] for name in names), row[table["metric"]]] for row in rows],
    }


def format_number(value: Any) -> str:
    """A table cell: thousands separators, about four digits for floats, a dash for a missing value."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    size = abs(value)
    return f"{value:.{1 if size >= 100 else 2 if size >= 10 else 3 if size >= 1 else 4}f}"


def drop_repeated(scores: Sequence[Record]) -> list[Record]:
    """Scores in order of step; of repeated evaluations, such as after resuming a run, only the last."""
    same = ("step", "samples", "real", "final", "sampling", "weights_sha256", "resampler")
    latest = {json.dumps([record.get(key) for key in same], sort_keys=True): record for record in scores}
    return sorted(latest.values(), key=lambda record: (record.get("step", 0), record.get("samples", 0)))


def score_cards(scores: Sequence[Record], metrics: Sequence[str]) -> list[Record]:
    """One card per metric: the final score, or the best so far."""
    cards = []
    for name in metrics:
        scored = [record for record in scores if isinstance(record.get(name), int | float)]
        if not scored:
            continue
        final = [record for record in scored if record.get("final")]
        record = final[-1] if final else min(scored, key=lambda record: record[name])
        step, samples = format_number(record.get("step")), format_number(record.get("samples"))
        note = f"{'final' if final else 'best so far'}, step {step}, {samples} samples"
        cards.append({"name": name, "value": format_number(record[name]), "note": note})
    return cards


def progress_cards(log: Sequence[Record], scores: Sequence[Record]) -> list[Record]:
    """Cards with the steps, time and speed of the run; it may have been scored after the last log line."""
    if not log and not scores:
        return []
    last = {**(log[-1] if log else {})}
    for record in scores:
        if record.get("step", 0) > last.get("step", 0):
            last |= {name: record.get(name) for name in ("step", "kimg")}
    cards = [{"name": "steps", "value": format_number(last.get("step")), "note": ""}]
    if last.get("kimg") is not None:
        cards.append(
            {"name": "kimg", "value": format_number(float(last["kimg"])), "note": "thousand real images"}
        )
    if last.get("seconds") is not None:
        hours = last["seconds"] / 3600
        value = f"{hours:.2f} h" if hours >= 0.1 else f"{last['seconds']:.0f} s"
        cards.append({"name": "training time", "value": value, "note": "wall clock"})
    speeds = [r["images_per_second"] for r in log if r.get("images_per_second") is not None]
    if speeds:
        cards.append(
            {"name": "images/s", "value": format_number(statistics.median(speeds)), "note": "median"}
        )
    return cards


def notes(metrics: Sequence[str]) -> list[str]:
    """Caveats about comparing the scores with others."""
    lines = []
    if any(name.endswith("_approx") for name in metrics):
        lines.append(
            "Scores that end in _approx are from a network in which some kernels were fitted, because the "
            "published ones were not available. They approximate the true metric."
        )
    if any(re.match(r"random_(mi)?fid", name.lower()) for name in metrics):
        lines.append(
            "random_fid and random_mifid are from a network with fixed random weights. They are comparable "
            "between runs of this project, but not with FID. Its memorization distance says nothing about "
            "copies: no threshold is applied to it, and random_mifid is random_fid2048."
        )
    return lines


def warning(config: Record | None) -> str | None:
    """The warning at the top of the page, for systems that reproduce training images; None for others."""
    system = (config or {}).get("system", {}).get("name")
    return baselines.WARNING if system in systems.SYSTEMS and systems.SYSTEMS[system].cheat else None


def score_row(record: Record) -> Record:
    """A record of scores.jsonl with all columns of the table; missing values are None."""
    sampling = record.get("sampling") or {}
    columns = ("step", "kimg", "samples", "real", "memorization_distance", "weights_kind", "resampler")
    return {
        **{key: record.get(key) for key in columns},
        "metrics": record,
        "final": bool(record.get("final")),
        "sampling": ", ".join(f"{key} {value}" for key, value in sampling.items()) or None,
        "weights_sha256": record.get("weights_sha256") or "",
    }


def submitted_scores(scores: Sequence[Record]) -> Record | None:
    """All scores of the last evaluation of the submitted images, and scores per class, best first."""
    finals = [record for record in scores if record.get("final")]
    if not finals:
        return None
    record = finals[-1]
    values = {key: x for key, x in record.items() if isinstance(x, float) and key not in NOT_SCORES}
    per_class = record.get("per_class") or {}
    columns = list(next(iter(per_class.values()), {}))

    def distance(item: tuple[str, Record]) -> float:
        first = item[1].get(columns[0])
        return float("inf") if first is None else first

    return {
        "scores": values,
        "warnings": record.get("warnings") or [],
        "leaderboard": (record.get("leaderboard") or {}).get("text"),
        "copies": record.get("copies"),
        "columns": columns,
        "classes": sorted(per_class.items(), key=distance),
    }


def figures(log: Sequence[Record], scores: Sequence[Record]) -> list[Record]:
    """Captioned SVGs: metrics, losses, other groups of scalars, speed."""
    plotted = list(plots.metrics(scores).items())
    plotted += [
        (group, plots.scalars(log, names, group)) for group, names in plots.scalar_groups(log).items()
    ]
    plotted.append(("images/s", plots.scalars(log, ["images_per_second"], "images_per_second")))
    return [{"name": name, "svg": svg} for name, svg in plotted if svg is not None]


def find_grids(workdir: pathlib.Path, lines: Sequence[Record]) -> list[Grid]:
    """The grids in order of step; captions give the kimg of the line (of log or scores) there or before."""
    kimg = {r["step"]: r["kimg"] for r in lines if r.get("step") is not None and r.get("kimg") is not None}
    grids = []
    for path in sorted((workdir / writers.GRIDS).glob("*.png")):
        match = re.fullmatch(r"(.+)_(\d{1,18})", path.stem)
        if match and files.own_file(workdir, f"{writers.GRIDS}/{path.name}"):
            name, step = match[1], int(match[2])
            caption = f"{name}, step {step:,}"
            if logged := [x for x in kimg if x <= step]:
                caption += f", {format_number(float(kimg[max(logged)]))} kimg"
            grids.append(Grid(name, step, path, caption))
    return sorted(grids, key=lambda grid: grid.step)


def select_grids(grids: Sequence[Grid]) -> tuple[Grid | None, dict[str, list[Grid]]]:
    """The last grid, preferably one named final, and for each name at most MAX_GRIDS, evenly spaced."""
    if not grids:
        return None, {}
    final = ([grid for grid in grids if "final" in grid.name] or grids)[-1]
    by_name: dict[str, list[Grid]] = {}
    for grid in grids:
        by_name.setdefault(grid.name, []).append(grid)
    series = {}
    for name, named in by_name.items():
        series[name] = [named[i] for i in integers.evenly_spaced(len(named), MAX_GRIDS)]
    return final, {name: selected for name, selected in series.items() if selected != [final]}


def submission(path: pathlib.Path | None) -> Record | None:
    """Properties of images.zip and a sheet of evenly spaced images; None if there is no zip."""
    if path is None:
        return None
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        with archives.open_zip(path) as archive:
            entries = archive.infolist()
            n = min(len(entries), NUM_SUBMITTED)
            images: list[np.ndarray] = []
            for i in range(n):  # one by one, since all the files may not fit into memory
                entry, pixels = entries[i * len(entries) // n], min(MAX_SHOWN_PIXELS, MAX_SHEET_PIXELS // n)
                archives.check_size(entry, MAX_SHOWN_BYTES)
                images.append(photos.decode(archives.read(archive, entry), max_pixels=pixels))
        if len({image.shape for image in images}) > 1:
            raise errors.UserError("its images have several sizes")
        sheet = jpeg_uri(plots.grid(np.stack(images), columns=10)) if images else None
    except strangers.BROKEN_IMAGE as error:
        return {"error": f"images.zip cannot be read: {error}"}
    megabytes = f"{path.stat().st_size / 1e6:.1f} MB"
    return {
        "error": None,
        "count": len(entries),
        "shown": n,
        "bytes": megabytes,
        "sha256": sha256,
        "sheet": sheet,
    }


def file_uri(path: pathlib.Path) -> str:
    """The bytes of a PNG or GIF file as a data URI."""
    data = files.read_limited(path, files.MAX_IMAGE_BYTES)
    return f"data:image/{path.suffix[1:]};base64,{base64.b64encode(data).decode()}"


def jpeg_uri(image: pathlib.Path | np.ndarray) -> str:
    """An image file or array, uint8 [h, w, 3], as a JPEG data URI, which is smaller than PNG.

    Raises errors.UserError if the file is damaged.
    """
    if not isinstance(image, np.ndarray):
        try:
            image = photos.decode(files.read_limited(image, files.MAX_IMAGE_BYTES))
        except photos.BrokenPhotoError as error:
            raise errors.UserError(f"{image} is damaged ({error}): delete it, or write it again") from error
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, format="JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
