"""One run on several numbers of devices and processes, and resumed on another number than it began with.

    python experiments/bench/hosts.py

A small BigGAN on drawn dogs (configs/toy.py:test, 40 steps of 8 images) is trained on 1, 2, 4 and 8 fake
CPU devices, in 2 and 4 processes that communicate over the loopback, with fsdp, and in runs that stop
halfway and resume on other devices. Each is compared with the run on one device: losses of its log, its
score; and each ends with images.zip.
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

STEPS, EARLY = 40, 5  # lines of the log, each of 2 steps, before small differences have grown
# Less time to compile: only the results matter here.
FAST_COMPILE = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2"}
LOSSES, SCORE = ("loss/d", "loss/g"), "random_fid768"


class Part(NamedTuple):
    """A part of a run, and what computes it."""

    devices: int  # of each process
    processes: int = 1
    steps: int = STEPS  # at which it ends
    flags: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """For the table."""
        processes = f"{self.processes} processes of " if self.processes > 1 else ""
        plural = "s" if self.devices > 1 else ""
        return " ".join((f"{processes}{self.devices} device{plural}", *self.flags))


FSDP = ("--config.parallel.fsdp=true",)
RUNS: list[tuple[Part, ...]] = [
    (Part(1),),
    (Part(2),),
    (Part(4),),
    (Part(8),),
    (Part(4, flags=FSDP),),
    (Part(1, 2),),
    (Part(1, 4),),
    (Part(2, 2, flags=FSDP),),
    (Part(4, steps=STEPS // 2), Part(2)),
    (Part(1, 4, steps=STEPS // 2), Part(1, 2)),
    (Part(2, 2, steps=STEPS // 2, flags=FSDP), Part(1)),
]


def train(part: Part, workdir: pathlib.Path, cache: pathlib.Path) -> None:
    """Trains to the end of a part; raises SystemExit with the output of its processes if one fails."""
    command = [sys.executable, "-m", "jaxdog.main", "--config=configs/toy.py:test", f"--workdir={workdir}"]
    command += [f"--config.data.cache_dir={cache}", f"--config.train.steps={part.steps}", *part.flags]
    command += ["--config.eval.every_kimg=0.16", "--config.train.grid_every=0"]
    count = f"--xla_force_host_platform_device_count={part.devices}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": count, **FAST_COMPILE}
    if part.processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        command += [f"--coordinator={address}", f"--num_processes={part.processes}"]
    own = [[f"--process_id={i}"] if part.processes > 1 else [] for i in range(part.processes)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    processes = [subprocess.Popen(command + x, cwd=trial.ROOT, env=environment, **pipes) for x in own]
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        sys.exit(f"{part.title} failed:\n" + "\n".join(x[-3000:] for x in outputs))


def read(folder: pathlib.Path) -> dict[str, list[float]]:
    """Losses of a run's log, and the scores on the way."""
    lines = writers.read_jsonl(folder / "log.jsonl")
    scores = [x[SCORE] for x in writers.read_jsonl(folder / "scores.jsonl") if not x["final"]]
    losses = {name: [line[name] for line in lines] for name in LOSSES}
    return {"step": [line["step"] for line in lines], **losses, SCORE: scores}


def difference(ours: list[float], theirs: list[float]) -> float:
    """The largest one, relative to the largest value."""
    return float(np.max(np.abs(np.subtract(ours, theirs))) / np.max(np.abs(theirs)))


def differences(ours: dict[str, list[float]], theirs: dict[str, list[float]]) -> tuple[float, float, float]:
    """Of losses in the first steps and in all, and of scores."""
    early = max(difference(ours[name][:EARLY], theirs[name][:EARLY]) for name in LOSSES)
    late = max(difference(ours[name], theirs[name]) for name in LOSSES)
    return early, late, difference(ours[SCORE], theirs[SCORE])


def main() -> None:
    """Trains all runs; writes hosts.json and hosts.md."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for i, parts in enumerate(RUNS):
            workdir = pathlib.Path(folder) / str(i)
            for part in parts:
                train(part, workdir, pathlib.Path(folder) / "cache")
            ours = read(workdir)
            rows.append({"run": ", then ".join(part.title for part in parts), "found": ours})
            first = rows[0]["found"]
            if ours["step"] != first["step"] or not (workdir / "images.zip").exists():
                sys.exit(f"{parts[0].title} has lines at {ours['step']}, one device at {first['step']}")
            print(rows[-1]["run"], differences(ours, first), flush=True)
    trial.write(HERE / "hosts.json", rows)
    header = ["run", f"losses, {2 * EARLY} steps", f"losses, {STEPS} steps", SCORE]
    first = rows[0]["found"]
    lines = [[row["run"], *(f"{x:.0e}" for x in differences(row["found"], first))] for row in rows[1:]]
    (HERE / "hosts.md").write_text(trial.markdown(header, lines))


if __name__ == "__main__":
    main()
