"""Seconds from the command to the first training step, cold and with what an earlier run has kept.

    python experiments/bench/first_step.py

`toy` as it is, and BigGAN at full width on drawn dogs (pictures of 64x64, batches of 32). Cold: neither crops
nor compiled programs are there. Warm: another run of the same config has left both. Besides, how long
`python -m jaxdog.main --help` takes. first_step.json is left beside this file.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from experiments import trial  # noqa: E402

DRAWN = ("--config.data.source=toy", "--config.eval.weights=random", "--config.data.classes=0")
CASES = {"toy": (), "biggan": (*DRAWN, "--config.game.batch_size=32")}
# A line after one step.
STEP = ("steps_per_dispatch", "log_every")
LIMIT = 600.0


def first_step(name: str, workdir: pathlib.Path, cache: pathlib.Path) -> float:
    """Seconds until the log has a line."""
    command = [sys.executable, "-m", "jaxdog.main", f"--config=configs/{name}.py", f"--workdir={workdir}"]
    command += [f"--config.data.cache_dir={cache}", *CASES[name]]
    command += [f"--config.train.{field}=1" for field in STEP]
    command += [f"--config.train.{field}=100" for field in ("steps", "grid_every")]
    command += ["--config.checkpoint.every=100", "--config.eval.every_kimg=0"]
    begun, line = time.perf_counter(), workdir / "log.jsonl"
    with open(workdir.with_suffix(".txt"), "w+") as said:
        process = subprocess.Popen(command, cwd=trial.ROOT, stdout=said, stderr=said)
        while not (line.is_file() and line.stat().st_size):
            if process.poll() is not None or time.perf_counter() - begun > LIMIT:
                process.kill()
                said.seek(0)
                sys.exit(f"{name} has made no step:\n{said.read()[-3000:]}")
            time.sleep(0.02)
        seconds = time.perf_counter() - begun
        process.send_signal(signal.SIGKILL)
        process.wait()
    return seconds


def main() -> None:
    """Measures, prints, keeps."""
    found: dict[str, object] = {"device": f"{os.cpu_count()} CPU cores"}
    with tempfile.TemporaryDirectory() as made:
        for name in CASES:
            place = pathlib.Path(made) / name
            place.mkdir()
            found[name] = {
                kind: round(first_step(name, place / kind, place / "cache"), 1) for kind in ("cold", "warm")
            }
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "jaxdog.main", "--help"], cwd=trial.ROOT, capture_output=True, check=False
        )
        times.append(time.perf_counter() - begun)
    found["help"] = round(min(times), 2)
    trial.write(HERE / "first_step.json", found)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
