"""One run over several numbers of devices and processes, and going on with another number than it began with.

    python experiments/bench/hosts.py

A small BigGAN on drawn dogs (configs/toy.py:test, 40 steps of 8 pictures) is trained by 1, 2, 4 and 8 devices
(a CPU that pretends), by 2 and 4 processes that talk over the loopback, with a state that is dealt out, and
by runs that stop halfway and go on with other devices. Each is held against the run on one device: losses of
its log, its score; and each ends with images.zip. hosts.json and hosts.md are left beside this file.
"""

import os
import pathlib
import socket
import subprocess
import sys
import tempfile
from typing import Any, NamedTuple

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from experiments import trial  # noqa: E402
from jaxdog.training import writers  # noqa: E402

STEPS, EARLY = 40, 5  # of the log's lines, each of 2 steps: before small differences have grown
# Compiled quickly and kept: this is about what comes out.
QUICKLY = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2"}


class Part(NamedTuple):
    """A piece of a run, and what computes it."""

    devices: int  # of each process
    processes: int = 1
    steps: int = STEPS  # at which it ends
    flags: tuple[str, ...] = ()

    @property
    def said(self) -> str:
        """For the table."""
        over = f"{self.processes} processes of " if self.processes > 1 else ""
        return f"{over}{self.devices} device{'s' if self.devices > 1 else ''}{' '.join(('', *self.flags))}"


DEALT = ("--config.devices.deal_state=true",)
RUNS: list[tuple[Part, ...]] = [
    (Part(1),),
    (Part(2),),
    (Part(4),),
    (Part(8),),
    (Part(4, flags=DEALT),),
    (Part(1, 2),),
    (Part(1, 4),),
    (Part(2, 2, flags=DEALT),),
    (Part(4, steps=STEPS // 2), Part(2)),
    (Part(1, 4, steps=STEPS // 2), Part(1, 2)),
    (Part(2, 2, steps=STEPS // 2, flags=DEALT), Part(1)),
]


def go(part: Part, workdir: pathlib.Path, cache: pathlib.Path) -> None:
    """Trains a run to the end of a part; raises SystemExit with what a process said if one fails."""
    command = [sys.executable, "-m", "jaxdog.main", "--config=configs/toy.py:test", f"--workdir={workdir}"]
    command += [f"--config.data.cache_dir={cache}", f"--config.train.steps={part.steps}", *part.flags]
    command += ["--config.eval.every_kimg=0.16", "--config.train.grid_every=0"]
    count = f"--xla_force_host_platform_device_count={part.devices}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": count, **QUICKLY}
    if part.processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            place = f"127.0.0.1:{free.getsockname()[1]}"
        command += [f"--coordinator={place}", f"--processes={part.processes}"]
    own = [[f"--process={i}"] if part.processes > 1 else [] for i in range(part.processes)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    started = [subprocess.Popen(command + x, cwd=trial.ROOT, env=environment, **pipes) for x in own]
    said = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        sys.exit(f"{part.said} failed:\n" + "\n".join(x[-3000:] for x in said))


def found(folder: pathlib.Path) -> dict[str, list[float]]:
    """What a run left: losses of its lines, scores on the way."""
    lines = writers.read_jsonl(folder / "log.jsonl")
    scores = [x["rfid768"] for x in writers.read_jsonl(folder / "scores.jsonl") if not x["final"]]
    losses = {name: [line[name] for line in lines] for name in ("loss/d", "loss/g")}
    return {"step": [line["step"] for line in lines], **losses, "rfid768": scores}


def apart(ours: list[float], theirs: list[float]) -> float:
    """The largest difference, in units of the largest number."""
    return float(np.max(np.abs(np.subtract(ours, theirs))) / np.max(np.abs(theirs)))


def gaps(ours: dict[str, list[float]], theirs: dict[str, list[float]]) -> dict[str, float]:
    """How far apart two runs are: losses in the first steps and in all, scores."""
    names = ("loss/d", "loss/g")
    early = max(apart(ours[name][:EARLY], theirs[name][:EARLY]) for name in names)
    late = max(apart(ours[name], theirs[name]) for name in names)
    return {"early": early, "late": late, "rfid768": apart(ours["rfid768"], theirs["rfid768"])}


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: every run beside the first."""
    lines = [f"| run | losses, {2 * EARLY} steps | losses, {STEPS} steps | rfid768 |", "|---|---|---|---|"]
    for row in rows[1:]:
        numbers = " | ".join(f"{x:.0e}" for x in gaps(row["found"], rows[0]["found"]).values())
        lines.append(f"| {row['run']} | {numbers} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs them all, and makes the table."""
    rows = []
    with tempfile.TemporaryDirectory() as made:
        place = pathlib.Path(made)
        for i, parts in enumerate(RUNS):
            folder = place / str(i)
            for part in parts:
                go(part, folder, place / "cache")
            ours = found(folder)
            first = ours if i == 0 else rows[0]["found"]
            if ours["step"] != first["step"] or not (folder / "images.zip").exists():
                sys.exit(f"{parts[0].said} has lines at {ours['step']}, one device at {first['step']}")
            rows.append({"run": ", then ".join(part.said for part in parts), "found": ours})
            print(rows[-1]["run"], gaps(ours, first), flush=True)
    trial.write(HERE / "hosts.json", rows)
    (HERE / "hosts.md").write_text(table(rows))


if __name__ == "__main__":
    main()
