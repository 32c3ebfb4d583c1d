"""A full disk at each kind of file that the command line writes. Adds its trials to records.json.

    python experiments/faults/outputs.py RUN CACHE

RUN is the folder of a trained run, such as that of `jaxdog train toy:test`, and CACHE its cache folder. Each
command runs in a copy of the run, on a file system of which some kilobytes are left, then again with room. It
has survived if it first ends with an error in one paragraph that names the file (or, for caches, with a
warning and without an error), leaves no part of a file, and the files of the run as they were, and then
succeeds.
"""

import argparse
import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from experiments.faults import run  # noqa: E402
from experiments.faults.session import Session, paragraph  # noqa: E402
from jaxdog.cli import entry  # noqa: E402
from jaxdog.utils import files, interrupts  # noqa: E402


class Place(NamedTuple):
    """A command, and the file that does not fit. RUN, CACHE and OUT stand for folders."""

    name: str
    words: str
    fits: int = 0  # kilobytes that are left
    cache: bool = False  # the command goes on without this file
    removed: tuple[str, ...] = ()  # files that are removed first, so that they are made again


CACHED = "--config.data.cache_dir=CACHE"
PLACES = (
    Place("grid of samples", "sample RUN -n 4 --out OUT/samples.png"),
    Place("zip of samples", "sample RUN -n 4 --out OUT/samples.zip"),
    Place("folder of samples", "sample RUN -n 4 --out OUT/samples", fits=4),
    Place("interpolation", "interpolate RUN --frames 4 --out OUT/x.gif"),
    Place("projection", "project RUN RUN/grids/PNG --steps 1 --class beagle --out OUT/p.png", fits=4),
    Place("exported generator", "export RUN --out OUT/exported", fits=16),
    Place("report", "report RUN", removed=("RUN/report.html",)),
    Place("page that compares", "compare RUN RUN2 --out OUT/page.html"),
    Place("images.zip", "submit RUN", fits=4, removed=("RUN/images.zip",)),
    Place("file of scores", "score RUN/images.zip RUN/images.zip --weights random --out OUT/s.json"),
    Place("lines of scores", "evaluate RUN"),
    Place("table of crops", f"clean toy:test --method none --workdir OUT/clean {CACHED}", fits=4),
    Place("features", f"evaluate RUN {CACHED}", 24, True, ("CACHE/features", "RUN/real_features.npz")),
    Place("cache of crops", f"train toy:test --workdir RUN {CACHED}", 40, True, ("CACHE/crops",)),
)  # fmt: skip


@contextlib.contextmanager
def small_disk(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A mounted file system in memory."""
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", disk], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
        disk.rmdir()


def contents(folder: pathlib.Path) -> dict[str, str]:
    """The digest of each file but those that are appended to."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "tensorboard" not in path.parts and path.name not in ("filler", "lock.json"):
            found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def attempt(
    place: Place, folder: pathlib.Path, trained: pathlib.Path, cache: pathlib.Path
) -> tuple[str, str]:
    """Outcome and remark of one place."""
    with small_disk(folder) as disk:
        shutil.copytree(trained, disk / "run")
        shutil.copytree(trained, disk / "run2")
        shutil.copytree(cache, disk / "cache")
        (disk / "out").mkdir()
        names = {"RUN2": "run2", "RUN": "run", "CACHE": "cache", "OUT": "out"}
        png = next((disk / "run" / "grids").glob("*.png")).name

        def filled(text: str) -> str:
            for name, real in names.items():
                text = text.replace(name, str(disk / real))
            return text.replace("PNG", png)

        for name in place.removed:
            path = pathlib.Path(filled(name))
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        before = contents(disk)
        free = shutil.disk_usage(disk).free - 1024 * place.fits
        with (disk / "filler").open("wb") as file:
            file.write(bytes(max(free, 0)))

        def body() -> None:
            interrupts.watch()
            entry.main(filled(place.words).split())

        full = Session(disk / "run", folder, body=body).wait()
        after = contents(disk)
        parts = sorted(name for name in after if name.endswith(".tmp"))
        changed = sorted(name for name in before if after.get(name) != before[name])
        (disk / "filler").unlink()
        again = Session(disk / "run", folder, body=body).wait()
    ended = full.code == 0 if place.cache else paragraph(full)
    last = " ".join(full.output.split("jaxdog: ")[-1].split())[:160] if full.code else "went on"
    fine = ended and again.code == 0 and "Traceback" not in full.output and not parts and not changed
    if not fine:
        print(full.output[-3000:], again.output[-2000:], parts, changed, again.code, flush=True)
    return ("named" if fine and full.code else "same" if fine else "lost"), last.replace(str(disk), "")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("trained", metavar="RUN", type=pathlib.Path)
    parser.add_argument("cache", metavar="CACHE", type=pathlib.Path)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    os.chdir(tempfile.gettempdir())
    for place in PLACES:
        records = json.loads(run.RECORDS.read_text()) if run.RECORDS.is_file() else {}
        if f"full: {place.name}" in records:
            continue
        with tempfile.TemporaryDirectory() as folder:
            outcome, remark = attempt(place, pathlib.Path(folder), args.trained, args.cache)
        print(f"{place.name}: {outcome} {remark}", flush=True)
        tried = "full disk: " + place.name
        records[f"full: {place.name}"] = {"tried": tried, "outcome": outcome, "remark": remark}
        files.write_text(run.RECORDS, json.dumps(records, indent=0) + "\n")
        files.write_text(HERE / "table.md", run.table(records))


if __name__ == "__main__":
    main()
