"""Images/s of full-width configs on a GPU, and of plain PyTorch trainers of the same sizes.

    python experiments/gpu/speed.py --out DIR --jobs table             # or another list below, or a JSON file

Each job is a process of its own (`worker.py`). A few at a time get ready, and fewer of these compile, since
XLA times kernels while it compiles. Those that are ready in time are then measured in turns, so that the
jobs of a round see the same minute of the machine. speed.json is written as it is measured.
"""

import argparse
import contextlib
import json
import os
import pathlib
import queue
import statistics
import subprocess
import sys
import threading
import time
from importlib import metadata
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from experiments import trial  # noqa: E402

EAGER, COMPILED = ("eager", "eager channels_last"), ("compile channels_last",)
SIZES = (  # name, config, changes
    ("biggan", "biggan", {}),
    ("biggan, 256", "biggan", {"system.batch_size": 256}),
    ("progan", "progan", {}),
    ("biggan, ch 64, 128", "biggan", {"system.batch_size": 128, "generator.channels": 64}),
    ("stylegan", "stylegan", {}),
    ("lsgan_sn", "lsgan_sn", {}),
    ("sagan", "sagan", {}),
)
DTYPES = ("float32", "bfloat16")
LATE = {"failed": "left out: no time"}


def job(kind: str, name: str, config: str, dtype: str, changes: Any = (), **more: Any) -> dict[str, Any]:
    """One process: its kind (of worker.KINDS), its name, the config and its changes."""
    return {
        "kind": kind,
        "name": f"{name} {dtype}",
        "config": config,
        "dtype": dtype,
        "k": 10,
        "set": dict(changes),
        **more,
    }


def first_state(job: dict[str, Any]) -> str:
    """The file that `ahead.py` writes: of a config and the changes that its initial state depends on."""
    changed = [str(value) for name, value in job["set"].items() if name != "system.batch_size"]
    return "-".join([job["config"], *changed]) + ".init"


def listed(name: str) -> list[dict[str, Any]]:
    """The jobs called `name`, or of a file of them."""
    if name.endswith(".json"):
        return json.loads(pathlib.Path(name).read_text())
    peaks = [job("limits", "limits", "", dtype) for dtype in DTYPES]
    pairs = []
    for dtype in reversed(DTYPES):
        for title, config, changes in SIZES:
            pairs.append(job("jaxdog", title, config, dtype, changes, profile=config == "biggan"))
            for mode, forms in (("eager", EAGER), ("compiled", COMPILED)):
                pairs.append(job("torch", f"torch {mode} {title}", config, dtype, changes, k=4, forms=forms))
    few = [pair for pair in pairs if pair["config"] == "biggan" and "ch 64" not in pair["name"]]
    halves = {dtype: [x for x in peaks + pairs if x["dtype"] == dtype] for dtype in DTYPES}
    lists = halves | {"table": peaks + pairs, "few": peaks + few}
    if name not in lists:
        sys.exit(f"--jobs {name!r} is unknown; choices: {', '.join(lists)}, or a file of JSON")
    return lists[name]


def remaining(jobs: list[dict[str, Any]], done: pathlib.Path | None) -> list[dict[str, Any]]:
    """Jobs that an earlier call has not measured; limits are measured in each."""
    known = json.loads(done.read_text())["measured"] if done else {}
    return [
        job for job in jobs if job["kind"] == "limits" or not known.get(job["name"], {}).get("per_second")
    ]


class Process:
    """A worker and its measurements."""

    def __init__(self, job: dict[str, Any], out: pathlib.Path):
        self.job, self.ready, self.rounds, self.failed = job, {}, [], ""
        self.waiting = False  # for its turn to compile
        self.log = out / "logs" / (job["name"].replace(" ", "-").replace(",", "") + ".txt")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        flags = f"{os.environ.get('XLA_FLAGS', '')} {job.get('flags', '')}".strip()
        more = {
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            "XLA_PYTHON_CLIENT_MEM_FRACTION": str(job.get("memory", 0.15)),  # several processes share it
            "TORCHINDUCTOR_COMPILE_THREADS": "4",
        }
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "worker.py"), json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log.open("w"),
            text=True,
            env={**os.environ, **more, **({"XLA_FLAGS": flags} if flags else {}), **job.get("env", {})},
        )
        self.answers: queue.Queue[Any] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.answers.put(json.loads(line))
        self.answers.put({"failed": "ended: " + self.log.read_text()[-300:]})

    def answer(self, until: float) -> Any:
        """The next answer, or LATE."""
        try:
            return self.answers.get(timeout=max(until - time.monotonic(), 0.01))
        except queue.Empty:
            return LATE

    def tell(self, what: str) -> None:
        """Sends a line; if the worker has ended, that is its next answer."""
        assert self.process.stdin
        with contextlib.suppress(OSError):
            self.process.stdin.write(what + "\n")
            self.process.stdin.flush()

    def ask(self, what: str, until: float) -> Any:
        """Sends a line and waits for the answer."""
        self.tell(what)
        return self.answer(until)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = trial.command_line(__doc__)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--jobs", default="table", help="a list by name, or a file with one")
    parser.add_argument("--ready", type=float, default=200.0, help="seconds until measuring begins, at most")
    parser.add_argument("--beside", type=int, default=4, help="processes that get ready at a time")
    parser.add_argument("--compiling", type=int, default=1, help="of these, how many compile at a time")
    parser.add_argument(
        "--begin", type=pathlib.Path, help="a folder with initial states compiled by ahead.py"
    )
    parser.add_argument(
        "--done", type=pathlib.Path, help="speed.json of an earlier call: its jobs are left out"
    )
    parser.add_argument("--budget", type=float, default=540.0, help="seconds of everything")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def row(process: Process) -> dict[str, Any]:
    """The record of a job: medians over the rounds, the rounds, costs."""
    names = process.rounds[0] if process.rounds else {}
    median = {name: statistics.median(each[name] for each in process.rounds) for name in names}
    result = {"job": process.job, "ready": process.ready, "per_second": median, "rounds": process.rounds}
    return result | ({"failed": process.failed} if process.failed else {})


def prepare(jobs: list[dict[str, Any]], args: argparse.Namespace, start: float) -> list[Process]:
    """All processes, ready or failed: `beside` at a time start, `compiling` at a time compile, in order."""
    processes: list[Process] = []
    unready: list[Process] = []
    compiling: list[Process] = []
    while (len(processes) < len(jobs) or unready) and time.monotonic() - start < args.ready:
        if len(unready) < args.beside and len(processes) < len(jobs):
            processes.append(Process(jobs[len(processes)], args.out))
            unready.append(processes[-1])
        for process in list(unready):
            waiting = [other for other in unready if other.job["kind"] != "torch" and other not in compiling]
            if process.waiting and (len(compiling) >= args.compiling or waiting[0] is not process):
                continue
            if process.waiting:
                compiling.append(process)
                process.waiting = False
                process.tell("compile")
            got = process.answer(time.monotonic())
            if got == LATE:
                continue
            if "waiting" in got:
                process.waiting = True
                continue
            process.ready, process.failed = got, got.get("failed", "")
            compiling = [other for other in compiling if other is not process]
            unready.remove(process)
            print(process.job["name"], got, f"{time.monotonic() - start:.0f} s", flush=True)
        time.sleep(0.02)
    for process in unready:
        process.failed = LATE["failed"]
    return processes


def measure(
    processes: list[Process], jobs: list[dict[str, Any]], args: argparse.Namespace, start: float
) -> dict[str, Any]:
    """Measures the ready processes in turns, and profiles those whose job says so."""
    found: dict[str, Any] = {}
    about = machine()

    def write() -> None:
        trial.write(args.out / "speed.json", {"machine": about, "measured": found})

    def keep(process: Process) -> None:
        found[process.job["name"]] = row(process)
        write()

    for process in processes:
        keep(process)
    for job in jobs[len(processes) :]:
        found[job["name"]] = {"job": job, **LATE}
    ready = [process for process in processes if not process.failed]
    for process in set(processes) - set(ready):
        process.process.kill()
    for _ in range(args.rounds):
        for process in ready:
            if time.monotonic() - start < args.budget and not process.failed:
                got = process.ask(f"go {args.seconds}", start + args.budget)
                if "failed" in got:
                    process.failed = got["failed"]
                else:
                    process.rounds.append(got)
                print(process.job["name"], got, flush=True)
                keep(process)
    for process in ready:
        if process.job.get("profile") and time.monotonic() - start < args.budget:
            folder = process.log.with_suffix(".trace")
            found[process.job["name"]]["profile"] = process.ask(f"profile {folder}", start + args.budget)
    write()
    for process in ready:
        assert process.process.stdin
        process.process.stdin.close()
        found[process.job["name"]]["end"] = process.answer(start + args.budget + 10)
        process.process.kill()
    write()
    return found


def machine() -> dict[str, Any]:
    """GPU, cores and versions."""
    query = "--query-gpu=name,driver_version,clocks.sm,temperature.gpu"
    command = ["nvidia-smi", query, "--format=csv,noheader"]
    try:
        device = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except OSError:
        device = "no GPU"
    return {"device": device, "cores": os.cpu_count()} | {
        name: metadata.version(name) for name in ("jax", "flax", "torch")
    }


def main() -> None:
    """Starts the jobs, measures, writes speed.json."""
    args, start = parse(), time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    jobs = remaining(listed(args.jobs), args.done)
    for job in jobs if args.begin else ():
        job |= {"init": str(path)} if (path := args.begin / first_state(job)).exists() else {}
    measure(prepare(jobs, args, start), jobs, args, start)


if __name__ == "__main__":
    main()
