"""Every config at its full size: twenty steps on the dogs, stopped by a signal half-way, and resumed.

    python experiments/full_size/run.py --archives FOLDER

For each config, `jaxdog train NAME` gets SIGTERM while it computes steps 6 to 10, and the same command, which
resumes, while it computes steps 16 to 20: rows/NAME.json and table.md. Systems with phases take four steps in
all but the last. `--only` selects configs; those that have a row are left out.
"""

import argparse
import json
import math
import os
import pathlib
import platform
import re
import signal
import subprocess
import sys
import time
from typing import Any, NamedTuple

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from experiments import trial  # noqa: E402

STEPS = 20
K = 5  # steps per execution, and per log line
POLL = 0.2  # seconds between two looks at the log
LIMIT = 3600.0  # seconds of a session
COMPILED = re.compile(r"Finished XLA compilation of (?:jit\()?_train_steps\)? in ([\d.e+-]+) sec")


class Session(NamedTuple):
    """One process that trained until it got a signal."""

    log: list[dict[str, Any]]  # its lines
    compilations: list[float]  # seconds of each compilation of the training step
    memory_gb: float  # its peak
    seconds: float


def parse(names: tuple[str, ...]) -> argparse.Namespace:
    """The command line."""
    made = trial.command_line(__doc__)
    made.add_argument("--archives", default="", help="data.archives")
    made.add_argument("--runs", default="runs/full_size", help="where work directories are")
    made.add_argument("--only", type=trial.selection(names), default=names, help="configs")
    return made.parse_args()


def few_steps(config: Any) -> tuple[dict[str, Any], int]:
    """(changes of a system with phases, which takes K steps in all but the last, steps before the last)."""
    if config.system.name == "progressive":
        before = K * (len(config.system.resolutions) - 1)
        steps = (K,) * (before // K) + (100 * STEPS,)
        return {"system.steps": steps, "train.steps": sum(steps)}, before
    return ({"system.autoencoder_steps": K}, K) if config.system.name == "vqvae" else ({}, 0)


def command(name: str, folder: pathlib.Path, changes: dict[str, Any], args: argparse.Namespace) -> list[str]:
    """`jaxdog train NAME`, which neither draws grids nor scores."""
    fixed = {"data.archives": args.archives, "data.cache_dir": str(pathlib.Path(args.runs) / "cache")}
    fixed |= {"eval.weights": "random", "eval.every_kimg": 0.0, "eval.final": (), "init_from": ""}
    fixed |= {"train.steps_per_execution": K, "train.log_every": K, "train.grid_every": 0}
    flags = [f"--config.{field}={value}" for field, value in {**fixed, **changes}.items()]
    return [sys.executable, "-m", "jaxdog.main", "train", name, "--workdir", str(folder), *flags]


def session(words: list[str], folder: pathlib.Path, until: int) -> Session:
    """Trains until the log has a line of step `until`, then sends SIGTERM."""
    from jaxdog.training import writers

    start, errors = time.monotonic(), folder.with_suffix(".txt")
    with errors.open("w") as file:
        settings = {**os.environ, "JAX_LOG_COMPILES": "1"}
        process = subprocess.Popen(words, cwd=HERE.parent.parent, env=settings, stdout=file, stderr=file)
        while True:
            done, status, usage = os.wait4(process.pid, os.WNOHANG)
            if done:
                break
            log = writers.read_jsonl(folder / writers.LOG) if (folder / writers.LOG).is_file() else []
            if (log and log[-1]["step"] >= until) or time.monotonic() - start > LIMIT:
                process.send_signal(signal.SIGTERM)
                _, status, usage = os.wait4(process.pid, 0)
                break
            time.sleep(POLL)
    process.returncode = os.waitstatus_to_exitcode(status)
    text = errors.read_text()
    if process.returncode:
        raise RuntimeError(f"exit status {process.returncode}: {text[-2000:]}")
    scale = 1e9 if platform.system() == "Darwin" else 1e6  # ru_maxrss is in bytes there
    compilations = [float(seconds) for seconds in COMPILED.findall(text)]
    log = writers.read_jsonl(folder / writers.LOG)
    return Session(log, compilations, usage.ru_maxrss / scale, time.monotonic() - start)


def measure(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Two sessions of a config; its row."""
    import jax

    from jaxdog.config import build

    folder = pathlib.Path(args.runs).absolute() / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    config = trial.load_config(name)
    changes, before = few_steps(config)
    words = command(name, folder, changes, args)
    first = session(words, folder, before + K)
    stopped = first.log[-1]["step"]
    second = session(words, folder, stopped + K)
    kept = sorted(int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit())
    losses = {
        key: [line[key] for line in second.log if key in line] for key in second.log[-1] if "loss" in key
    }
    times = [line["seconds"] for line in second.log if line["step"] > stopped]
    phase = build.phases(build.check(config), 120)[-1]
    return {
        "name": name,
        "changes": changes,
        "batch_size": phase.batch_size,
        "steps": second.log[-1]["step"],
        "stopped": stopped,
        "checkpoints": kept,
        "resumed": [line["step"] for line in second.log] == list(range(K, second.log[-1]["step"] + 1, K)),
        "finite": all(math.isfinite(x) for values in losses.values() for x in values),
        "losses": losses,
        "compilations": [first.compilations, second.compilations],
        "seconds_per_step": (times[-1] - times[-2]) / K if len(times) > 1 else None,
        "images_per_second": second.log[-1]["images_per_second"],
        "memory_gb": max(first.memory_gb, second.memory_gb),
        "seconds": [first.seconds, second.seconds],
        "jax": jax.__version__,
        "cores": os.cpu_count(),
    }


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The rows as Markdown."""
    header = ["config", "images a step", "steps", "stopped at", "compilations", "seconds of the first"]
    header += ["images/s", "GB", "losses finite", "resumed"]
    lines = []
    for name, row in sorted(rows.items()):
        if "error" in row:
            lines.append([f"`{name}`", *[""] * (len(header) - 3), row["error"].splitlines()[-1][:100], "no"])
            continue
        first, second = row["compilations"]
        cells = [row["batch_size"], row["steps"], row["stopped"], f"{len(first)}, {len(second)}"]
        cells += [f"{sum(first):.0f}", f"{row['images_per_second']:.1f}", f"{row['memory_gb']:.1f}"]
        good = ["yes" if row[key] else "NO" for key in ("finite", "resumed")]
        lines.append([f"`{name}`", *cells, *good])
    return trial.markdown(header, lines)


def main() -> None:
    """A row for each config that has none, and the table of all."""
    from jaxdog.config import library

    args = parse(tuple(library.names()))
    for name in args.only:
        path = HERE / "rows" / f"{name}.json"
        if path.exists():
            continue
        try:
            row = measure(name, args)
        except Exception as error:  # a row, too: this is what the experiment looks for
            row = {"name": name, "error": f"{type(error).__name__}: {error}".replace(args.runs, "runs")}
        trial.write(path, row)
        print(json.dumps(row)[:400], flush=True)
        (HERE / "table.md").write_text(table(trial.read_rows(HERE / "rows")))


if __name__ == "__main__":
    main()
