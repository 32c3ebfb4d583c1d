"""`report.html`: what a run did, on one page that needs nothing else. Reads the workdir's files only.

A run that is still going, or stopped half-way, gets a report of what is there.
"""

import base64
import hashlib
import io
import json
import os
import pathlib
import re
import statistics
import zipfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import jinja2
import numpy as np
import PIL.Image

from jaxdog.config import systems
from jaxdog.memorizers import baselines
from jaxdog.training import writers
from jaxdog.utils import files, plots

NAME = "report.html"
TIMELINE = 6  # pictures of a series that are shown, first and last among them
SHEET = 100  # pictures of images.zip that are shown

NO_SCORES = ("step", "kimg", "evaluation_seconds")  # numbers of a record that measure something else

Record = dict[str, Any]


class Picture(NamedTuple):
    """A grid of the run: grids/<name>_<step>.png."""

    name: str
    step: int
    path: pathlib.Path
    caption: str


def write(workdir: str | os.PathLike[str]) -> pathlib.Path:
    """Writes <workdir>/report.html and returns its path; FileNotFoundError when there is no such folder."""
    workdir = pathlib.Path(workdir)
    if not workdir.is_dir():
        raise FileNotFoundError(f"{workdir}: no such folder; a report is made of a run's workdir")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxdog"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    page = environment.get_template("report.html.j2").render(**gather(workdir))
    files.replace(workdir / NAME, page)
    return workdir / NAME


def gather(workdir: pathlib.Path) -> Record:
    """Everything the template shows."""
    log = writers.read_jsonl(workdir / writers.LOG)
    scores = unique(writers.read_jsonl(workdir / writers.SCORES))
    metrics = sorted({key for record in scores for key in record if plots.is_metric(key)})
    pictures = find_pictures(workdir / writers.GRIDS, log)
    suspects = [picture for picture in pictures if picture.name == "suspects"]
    final, series = arrange([picture for picture in pictures if picture not in suspects])
    config = workdir / "config.json"
    return {
        "title": workdir.resolve().name,
        "cards": headline(scores, metrics) + progress(log),
        "warning": warning(workdir),
        "notes": notes(metrics),
        "scores": [score_row(record) for record in scores],
        "metrics": metrics,
        "last": last_final(scores),
        "ways": ways(workdir / writers.SWEEP),
        "suspects": png_uri(suspects[-1].path) if suspects else None,
        "figures": figures(log, scores),
        "final": final and {"source": png_uri(final.path), "caption": final.caption},
        "series": [
            {"name": name, "pictures": [{"source": jpeg_uri(p.path), "caption": p.caption} for p in some]}
            for name, some in series.items()
        ],
        "submission": submission(workdir / "images.zip"),
        "config": json.dumps(json.loads(config.read_text()), indent=2) if config.exists() else None,
    }


def ways(path: pathlib.Path) -> Record | None:
    """The ways to draw that were tried, best first; None where none were."""
    if not path.is_file():
        return None
    table = json.loads(path.read_text())
    rows = sorted(table["ways"], key=lambda row: row[table["metric"]])
    names = list(rows[0]["setting"])
    return {
        "metric": table["metric"],
        "step": table["step"],
        "samples": rows[0]["samples"],
        "names": names,
        "rows": [[*(row["setting"][name] for name in names), row[table["metric"]]] for row in rows],
    }


def number(value: Any) -> str:
    """A table cell: thousands separated, about four digits of a float, a dash for what is missing."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    size = abs(value)
    return f"{value:.{1 if size >= 100 else 2 if size >= 10 else 3 if size >= 1 else 4}f}"


def unique(scores: Sequence[Record]) -> list[Record]:
    """Scores in order of step; of two evaluations of the same thing, as a resumed run makes, the later."""
    same = ("step", "samples", "real", "final", "sampling", "weights_sha256", "resampler")
    latest = {json.dumps([record.get(key) for key in same], sort_keys=True): record for record in scores}
    return sorted(latest.values(), key=lambda record: (record.get("step", 0), record.get("samples", 0)))


def headline(scores: Sequence[Record], metrics: Sequence[str]) -> list[Record]:
    """A card per metric: the final score if there is one, else the best so far."""
    cards = []
    for name in metrics:
        have = [record for record in scores if isinstance(record.get(name), int | float)]
        if not have:
            continue
        last = [record for record in have if record.get("final")]
        record = last[-1] if last else min(have, key=lambda record: record[name])
        kind = "final" if last else "best so far"
        note = f"{kind}, step {number(record.get('step'))}, {number(record.get('samples'))} samples"
        cards.append({"name": name, "value": number(record[name]), "note": note})
    return cards


def progress(log: Sequence[Record]) -> list[Record]:
    """Cards for how far the run came, how long it took and how fast it was."""
    if not log:
        return []
    last = log[-1]
    cards = [{"name": "steps", "value": number(last.get("step")), "note": ""}]
    if last.get("kimg") is not None:
        cards.append({"name": "kimg", "value": number(float(last["kimg"])), "note": "thousand real pictures"})
    if last.get("seconds") is not None:
        hours = last["seconds"] / 3600
        value = f"{hours:.2f} h" if hours >= 0.1 else f"{last['seconds']:.0f} s"
        cards.append({"name": "training time", "value": value, "note": "wall clock"})
    speeds = [r["images_per_second"] for r in log if r.get("images_per_second") is not None]
    if speeds:
        cards.append({"name": "images/s", "value": number(statistics.median(speeds)), "note": "median"})
    return cards


def notes(metrics: Sequence[str]) -> list[str]:
    """What a reader must know before comparing the scores with others."""
    found = []
    if any(name.endswith("_approx") for name in metrics):
        found.append(
            "Scores that end in _approx come from a network in which some kernels were fitted, because the "
            "published ones were not at hand: close to the true metric, but not it."
        )
    if any(re.match(r"r(mi)?fid", name.lower()) for name in metrics):
        found.append(
            "rFID and rMiFID come from a network with fixed random weights: they compare runs of this "
            "project with each other and are not comparable with any FID."
        )
    return found


def warning(workdir: pathlib.Path) -> str | None:
    """What must stand above everything else: whether the run shows training pictures."""
    config = workdir / "config.json"
    game = json.loads(config.read_text()).get("game", {}).get("name") if config.exists() else None
    return baselines.WARNING if game in systems.GAMES and systems.GAMES[game].cheat else None


def score_row(record: Record) -> Record:
    """A record of scores.jsonl with every column there, None where it has none."""
    sampling = record.get("sampling") or {}
    columns = ("step", "kimg", "samples", "real", "memorization_distance", "weights_kind", "resampler")
    return {
        **{key: record.get(key) for key in columns},
        "metrics": record,
        "final": bool(record.get("final")),
        "sampling": ", ".join(f"{key} {value}" for key, value in sampling.items()) or None,
        "weights_sha256": record.get("weights_sha256") or "",
    }


def last_final(scores: Sequence[Record]) -> Record | None:
    """Every number of the last evaluation of the submitted pictures, and those of each breed, best first."""
    finals = [record for record in scores if record.get("final")]
    if not finals:
        return None
    record = finals[-1]
    numbers = {key: x for key, x in record.items() if isinstance(x, float) and key not in NO_SCORES}
    breeds = record.get("per_class") or {}
    columns = list(next(iter(breeds.values()), {}))

    def distance(item: tuple[str, Record]) -> float:
        first = item[1].get(columns[0])
        return float("inf") if first is None else first

    return {
        "numbers": numbers,
        "warnings": record.get("warnings") or [],
        "forensics": record.get("forensics"),
        "columns": columns,
        "breeds": sorted(breeds.items(), key=distance),
    }


def figures(log: Sequence[Record], scores: Sequence[Record]) -> list[Record]:
    """Captioned SVGs: metrics, losses, other groups of scalars, speed."""
    drawn = list(plots.metrics(scores).items())
    drawn += [(group, plots.scalars(log, names, group)) for group, names in plots.groups(log).items()]
    drawn.append(("images/s", plots.scalars(log, ["images_per_second"], "images_per_second")))
    return [{"name": name, "svg": svg} for name, svg in drawn if svg is not None]


def find_pictures(folder: pathlib.Path, log: Sequence[Record]) -> list[Picture]:
    """The grids in order of step, captioned with the kimg of the log line at that step or just before."""
    kimg = {r["step"]: r["kimg"] for r in log if r.get("step") is not None and r.get("kimg") is not None}
    pictures = []
    for path in sorted(folder.glob("*.png")):
        if match := re.fullmatch(r"(.+)_(\d+)", path.stem):
            name, step = match[1], int(match[2])
            caption = f"{name}, step {step:,}"
            if before := [at for at in kimg if at <= step]:
                caption += f", {number(float(kimg[max(before)]))} kimg"
            pictures.append(Picture(name, step, path, caption))
    return sorted(pictures, key=lambda picture: picture.step)


def arrange(pictures: Sequence[Picture]) -> tuple[Picture | None, dict[str, list[Picture]]]:
    """The last grid (one named final before others), and per name a few pictures over time."""
    if not pictures:
        return None, {}
    finals = [picture for picture in pictures if "final" in picture.name]
    final = (finals or pictures)[-1]
    series: dict[str, list[Picture]] = {}
    for picture in pictures:
        series.setdefault(picture.name, []).append(picture)
    for name, all_of_it in series.items():
        chosen = np.unique(np.linspace(0, len(all_of_it) - 1, TIMELINE).round().astype(int))
        series[name] = [all_of_it[i] for i in chosen]
    return final, {name: some for name, some in series.items() if some != [final]}


def submission(path: pathlib.Path) -> Record | None:
    """Facts of images.zip and a sheet of pictures spread over it; None when there is no zip."""
    if not path.exists():
        return None
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            some = [names[i * len(names) // SHEET] for i in range(SHEET)] if len(names) > SHEET else names
            images = [np.asarray(PIL.Image.open(io.BytesIO(archive.read(name)))) for name in some]
            sheet = jpeg_uri(plots.grid(np.stack(images), columns=10)) if images else None
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        return {"error": f"images.zip cannot be read: {error}"}
    megabytes = f"{path.stat().st_size / 1e6:.1f} MB"
    return {"error": None, "count": len(names), "bytes": megabytes, "sha256": sha256, "sheet": sheet}


def png_uri(path: pathlib.Path) -> str:
    """A PNG file as it is, as a data URI."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def jpeg_uri(picture: pathlib.Path | np.ndarray) -> str:
    """A picture file or array, [h, w, 3] uint8, as a JPEG data URI: small, for what is shown in passing."""
    image = PIL.Image.fromarray(picture) if isinstance(picture, np.ndarray) else PIL.Image.open(picture)
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
