"""Images/s of full-width configs on a GPU, and of plain PyTorch trainers of the same sizes beside them.

    python experiments/gpu/speed.py --out DIR --jobs table             # or another list below, or a JSON file

Each job is a process of its own (`worker.py`). A few at a time get ready, and of these one at a time compiles
for XLA, which times as it does; those that are ready in time are then measured in turns, so that each pair of
a round saw the same minute of the machine. Everything is written as it is measured. A training run there is
experiments/record/run.py; `kernels.py` tells what is in the traces of jobs with "profile".
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
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from experiments import trial  # noqa: E402

EAGER, COMPILED = ("eager", "eager channels_last"), ("compile channels_last",)
SIZES = (  # name, config, changes
    ("biggan", "biggan", {}),
    ("biggan, 256", "biggan", {"game.batch_size": 256}),
    ("progan", "progan", {}),
    ("biggan, ch 64, 128", "biggan", {"game.batch_size": 128, "generator.channels": 64}),
    ("stylegan", "stylegan", {}),
    ("lsgan_sn", "lsgan_sn", {}),
    ("sagan", "sagan", {}),
)
DTYPES = ("float32", "bfloat16")
NO_GRAPHS = "--xla_gpu_enable_command_buffer="
LATE = {"failed": "left out: no time"}
ALL_GRAPHS = "--xla_gpu_enable_command_buffer=FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,CONDITIONAL,WHILE"


def job(kind: str, name: str, config: str, dtype: str, changes: Any = (), **more: Any) -> dict[str, Any]:
    """One process: its kind (of worker.KINDS), what it is called, the config and what is changed in it."""
    known = {"config": config, "dtype": dtype, "k": 10, "set": dict(changes)}
    return {"kind": kind, "name": f"{name} {dtype}", **known, **more}


def tried(config: str, dtype: str) -> list[dict[str, Any]]:
    """A config in other ways: steps per dispatch, CUDA graphs."""
    ways: list[tuple[str, dict[str, Any]]] = [(f"k={k}", {"k": k}) for k in (1, 2, 5, 20, 50)]
    ways += [("no graphs", {"flags": NO_GRAPHS}), ("all graphs", {"flags": ALL_GRAPHS})]
    return [job("jaxdog", f"{config}, {way}", config, dtype, **more) for way, more in ways]


def first_state(job: dict[str, Any]) -> str:
    """The file that `ahead.py` leaves: of a config and the changes that its first state depends on."""
    changed = [str(value) for name, value in job["set"].items() if name != "game.batch_size"]
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
            for way, forms in (("eager", EAGER), ("compiled", COMPILED)):
                known = {"k": 4, "forms": forms}
                pairs.append(job("torch", f"torch {way} {title}", config, dtype, changes, **known))
    first = [made for made in pairs if made["config"] == "biggan" and "ch 64" not in made["name"]]
    halves = {dtype: [made for made in peaks + pairs if made["dtype"] == dtype] for dtype in DTYPES}
    lists = halves | {
        "table": peaks + pairs,
        "few": peaks + first,
        "ways": [job("jaxdog", "biggan", "biggan", "bfloat16"), *tried("biggan", "bfloat16")],
        "score": [job("score", "score biggan", "biggan", dtype) for dtype in DTYPES],
    }
    if name not in lists:
        sys.exit(f"--jobs {name!r} is unknown; choices: {', '.join(lists)}, or a file of JSON")
    return lists[name]


def undone(jobs: list[dict[str, Any]], done: pathlib.Path | None) -> list[dict[str, Any]]:
    """Those that an earlier call has not measured; limits are measured in each."""
    known = json.loads(done.read_text())["measured"] if done else {}
    return [
        job for job in jobs if job["kind"] == "limits" or not known.get(job["name"], {}).get("per_second")
    ]


class Process:
    """A worker, its answers, and what was measured of it."""

    def __init__(self, job: dict[str, Any], out: pathlib.Path):
        self.job, self.ready, self.rounds, self.failed = job, {}, [], ""
        self.told = False  # that it waits for the GPU
        self.log = out / "logs" / (job["name"].replace(" ", "-").replace(",", "") + ".txt")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        flags = f"{os.environ.get('XLA_FLAGS', '')} {job.get('flags', '')}".strip()
        more = {
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            "XLA_PYTHON_CLIENT_MEM_FRACTION": str(job.get("memory", 0.15)),  # of the device's; several run
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
        """The next one, or what says that there was none."""
        try:
            return self.answers.get(timeout=max(until - time.monotonic(), 0.01))
        except queue.Empty:
            return LATE

    def tell(self, what: str) -> None:
        """Tells it what to do; that it has ended is an answer of its own."""
        assert self.process.stdin
        with contextlib.suppress(OSError):
            self.process.stdin.write(what + "\n")
            self.process.stdin.flush()

    def ask(self, what: str, until: float) -> Any:
        """Tells it what to do and waits for its answer."""
        self.tell(what)
        return self.answer(until)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--jobs", default="table", help="a list by name, or a file with one")
    parser.add_argument("--ready", type=float, default=200.0, help="seconds until measuring begins, at most")
    parser.add_argument("--beside", type=int, default=4, help="processes that get ready at a time")
    parser.add_argument("--compiling", type=int, default=1, help="of these, for XLA at a time")
    parser.add_argument("--begin", type=pathlib.Path, help="a folder of ahead.py with compiled first states")
    parser.add_argument(
        "--done", type=pathlib.Path, help="JSON of an earlier call: its jobs are not run again"
    )
    parser.add_argument("--budget", type=float, default=540.0, help="seconds of all; the rest is left")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def row(process: Process) -> dict[str, Any]:
    """What is known of a job: medians over the rounds, the rounds, costs."""
    names = process.rounds[0] if process.rounds else {}
    median = {name: statistics.median(each[name] for each in process.rounds) for name in names}
    made = {"job": process.job, "ready": process.ready, "per_second": median, "rounds": process.rounds}
    return made | ({"failed": process.failed} if process.failed else {})


def prepared(jobs: list[dict[str, Any]], args: argparse.Namespace, begun: float) -> list[Process]:
    """All processes, ready or failed: a few at a time get there, fewer of them compile, in their order."""
    made: list[Process] = []
    unready: list[Process] = []
    compiling: list[Process] = []
    while (len(made) < len(jobs) or unready) and time.monotonic() - begun < args.ready:
        if len(unready) < args.beside and len(made) < len(jobs):
            made.append(Process(jobs[len(made)], args.out))
            unready.append(made[-1])
        for process in list(unready):
            waiting = [other for other in unready if other.job["kind"] != "torch" and other not in compiling]
            if process.told and (len(compiling) >= args.compiling or waiting[0] is not process):
                continue
            if process.told:
                compiling.append(process)
                process.told = False
                process.tell("compile")
            got = process.answer(time.monotonic())
            if got == LATE:
                continue
            if "waiting" in got:
                process.told = True
                continue
            process.ready, process.failed = got, got.get("failed", "")
            compiling = [other for other in compiling if other is not process]
            unready.remove(process)
            print(process.job["name"], got, f"{time.monotonic() - begun:.0f} s", flush=True)
        time.sleep(0.02)
    for process in unready:
        process.failed = LATE["failed"]
    return made


def measure(
    processes: list[Process], jobs: list[dict[str, Any]], args: argparse.Namespace, begun: float
) -> dict[str, Any]:
    """Measures those that are ready in turns, profiles those that ask for it."""
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
    able = [process for process in processes if not process.failed]
    for process in set(processes) - set(able):
        process.process.kill()
    for _ in range(args.rounds):
        for process in able:
            if time.monotonic() - begun < args.budget and not process.failed:
                got = process.ask(f"go {args.seconds}", begun + args.budget)
                if "failed" in got:
                    process.failed = got["failed"]
                else:
                    process.rounds.append(got)
                print(process.job["name"], got, flush=True)
                keep(process)
    for process in able:
        if process.job.get("profile") and time.monotonic() - begun < args.budget:
            folder = process.log.with_suffix(".trace")
            found[process.job["name"]]["profile"] = process.ask(f"profile {folder}", begun + args.budget)
    write()
    for process in able:
        assert process.process.stdin
        process.process.stdin.close()
        found[process.job["name"]]["end"] = process.answer(begun + args.budget + 10)
        process.process.kill()
    write()
    return found


def machine() -> dict[str, Any]:
    """What all of this ran on."""
    asked = [
        "nvidia-smi",
        "--query-gpu=name,driver_version,clocks.sm,temperature.gpu",
        "--format=csv,noheader",
    ]
    try:
        device = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except OSError:
        device = "no GPU"
    from importlib import metadata

    return {"device": device, "cores": os.cpu_count()} | {
        name: metadata.version(name) for name in ("jax", "flax", "torch")
    }


def main() -> None:
    """All measurements, JSON."""
    args, begun = parse(), time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    jobs = undone(listed(args.jobs), args.done)
    for job in jobs if args.begin else ():
        job |= {"init": str(path)} if (path := args.begin / first_state(job)).exists() else {}
    measure(prepared(jobs, args, begun), jobs, args, begun)


if __name__ == "__main__":
    main()
