"""Seconds from the command to the first training step, cold, and with the caches of an earlier run.

    python experiments/bench/first_step.py

`toy`, and BigGAN at full width on drawn dogs (64x64, batches of 32). Cold: neither crops nor compiled
programs are cached. Warm: another run of the same config has left both. Also how long `python -m
jaxdog.main --help` takes.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from experiments import trial  # noqa: E402

DRAWN = ("--config.data.source=toy", "--config.eval.weights=random", "--config.data.classes=0")
CASES = {"toy": (), "biggan": (*DRAWN, "--config.system.batch_size=32")}
LOG_EVERY_STEP = ("--config.train.steps_per_execution=1", "--config.train.log_every=1")
NOTHING_ELSE = (
    *(f"--config.{field}=100" for field in ("train.steps", "train.grid_every", "checkpoint.every")),
    "--config.eval.every_kimg=0",
)
TIMEOUT = 600.0


def first_step(name: str, workdir: pathlib.Path, cache: pathlib.Path) -> float:
    """Seconds until the log has a line."""
    command = [sys.executable, "-m", "jaxdog.main", f"--config=configs/{name}.py", f"--workdir={workdir}"]
    command += [f"--config.data.cache_dir={cache}", *CASES[name], *LOG_EVERY_STEP, *NOTHING_ELSE]
    start, log = time.perf_counter(), workdir / "log.jsonl"
    with open(workdir.with_suffix(".txt"), "w+") as output:
        process = subprocess.Popen(command, cwd=trial.ROOT, stdout=output, stderr=output)
        while not (log.is_file() and log.stat().st_size):
            if process.poll() is not None or time.perf_counter() - start > TIMEOUT:
                process.kill()
                output.seek(0)
                sys.exit(f"{name} has made no step:\n{output.read()[-3000:]}")
            time.sleep(0.02)
        seconds = time.perf_counter() - start
        process.kill()
        process.wait()
    return seconds


def help_seconds() -> float:
    """Of --help, once."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "jaxdog.main", "--help"]
    subprocess.run(command, cwd=trial.ROOT, capture_output=True, check=False)
    return time.perf_counter() - start


def main() -> None:
    """Measures; writes first_step.json."""
    result: dict[str, object] = {"device": f"{os.cpu_count()} CPU cores"}
    with tempfile.TemporaryDirectory() as folder:
        for name in CASES:
            (place := pathlib.Path(folder) / name).mkdir()
            result[name] = {
                x: round(first_step(name, place / x, place / "cache"), 1) for x in ("cold", "warm")
            }
    result["help"] = round(min(help_seconds() for _ in range(3)), 2)
    trial.write(HERE / "first_step.json", result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
