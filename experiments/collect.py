"""Keeps what a run showed: python experiments/collect.py RUN_FOLDER experiments/NAME

Copies the numbers (config.json, scores.json, speed.json), draws curve.png and takes the final grid; no
checkpoint, no zip, no photo. The README beside them, with the command and what was learnt, is yours to write.
"""

import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from jaxdog.training import writers
from jaxdog.utils import plots


def main(run: pathlib.Path, out: pathlib.Path) -> None:
    """run: a work folder. out: made if missing."""
    log, scores = writers.read_jsonl(run / writers.LOG), writers.read_jsonl(run / writers.SCORES)
    if not log:
        sys.exit(f"{run / writers.LOG} holds no line: nothing was trained there")
    out.mkdir(parents=True, exist_ok=True)
    shutil.copy(run / "config.json", out / "config.json")
    write(out / "scores.json", scores)
    write(out / "speed.json", speed(log))
    if scores:
        curve(scores, out / "curve.png")
    finals = sorted((run / writers.GRIDS).glob("final_*.png"))
    if finals:
        shutil.copy(finals[-1], out / "final.png")
    print(f"{out}: {', '.join(sorted(path.name for path in out.iterdir()))}")


def write(path: pathlib.Path, value: Any) -> None:
    """JSON that people can read."""
    path.write_text(json.dumps(value, indent=1) + "\n")


def speed(log: list[dict[str, Any]]) -> dict[str, Any]:
    """How long it took, how fast it was, and on what."""
    rates = [line["images_per_second"] for line in log]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "steps": log[-1]["step"],
        "kimg": log[-1]["kimg"],
        "seconds": log[-1]["seconds"],
        "images_per_second_median": float(np.median(rates)),
        "memory_gb_max": max(line["memory_gb"] for line in log),
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "commit": commit.stdout.strip(),
    }


def curve(scores: list[dict[str, Any]], path: pathlib.Path) -> None:
    """Every Frechet distance over the real pictures seen; the final evaluation as a cross."""
    names = [name for name in scores[0] if plots.is_metric(name) and "mifid" not in name]
    figure = Figure(figsize=(4.5 * len(names), 3.5), layout="constrained")
    for i, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), i + 1)
        for final, mark in ((False, "o-"), (True, "x")):
            rows = [row for row in scores if row["final"] is final]
            if rows:
                label = f"{rows[-1]['samples']:,} samples" + (", final" if final else "")
                axes.plot([row["kimg"] for row in rows], [row[name] for row in rows], mark, label=label)
        axes.set_xlabel("thousand real pictures seen")
        axes.set_ylabel(name)
        axes.legend()
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
