"""What a run survives: kills, damaged files, full disks, signals. Writes table.md and table.json.

    python experiments/faults/run.py --kills 20 --signals 6 --flips 8

Each trial is a process that runs `worker.py` and gets into trouble, and then one that resumes. A run has
survived if its last state, its log and its scores are those of a run that was left alone. As root on Linux it
mounts small file systems to fill.
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from experiments.faults import worker  # noqa: E402

STEPS, HALF = 48, 24
TIMEOUT = 600.0
LINES = 15  # more lines of output are not an error in one paragraph: warnings and the error
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "garbage": lambda data: random.Random(len(data)).randbytes(len(data)),
}


class Outcome(NamedTuple):
    """How a process ended."""

    code: int  # exit status; negative: the signal that killed it
    output: str
    seconds: float


class Session:
    """A process that runs the worker: a fork, so that nothing is imported again."""

    def __init__(self, folder: pathlib.Path, steps: int = STEPS, evaluation: float = 0.2):
        self.start, self._path = time.monotonic(), folder.parent / f"{folder.name}.txt"
        self.pid = os.fork()
        if self.pid == 0:
            handle = os.open(self._path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            code = 1
            try:
                worker.main(folder, steps, evaluation, folder.parent / "xla")
                code = 0
            except SystemExit as error:
                code = int(error.code or 0)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)

    def output(self) -> str:
        return self._path.read_text(errors="replace") if self._path.is_file() else ""

    def wait_for(self, word: str) -> None:
        """Waits until the process has printed a word, or has ended."""
        while word not in self.output() and not os.waitid(
            os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT
        ):
            time.sleep(0.01)

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> Outcome:
        end = time.monotonic() + TIMEOUT
        while not (ended := os.waitpid(self.pid, os.WNOHANG))[0]:
            if time.monotonic() > end:
                self.send(signal.SIGKILL)
            time.sleep(0.01)
        return Outcome(os.waitstatus_to_exitcode(ended[1]), self.output(), time.monotonic() - self.start)


def result(folder: pathlib.Path, outcome: Outcome) -> tuple[Any, ...]:
    """What must be equal: the last state, and log and scores without clocks."""
    states = [line for line in outcome.output.splitlines() if line.startswith("state ")]
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    log = [(line["step"], line["loss/d"]) for line in lines]
    return states, log, (folder / "scores.jsonl").read_text()


class Row(NamedTuple):
    """One line of the table."""

    tried: str
    times: int
    survived: int  # the result is that of a run that was left alone
    lines: int  # the state is, and lines of a damaged log are gone
    named: int  # ended with an error in one paragraph, and nothing was lost
    lost: int  # anything else
    note: str = ""


def kills(folder: pathlib.Path, expected: Any, count: int) -> Iterator[str]:
    """SIGKILL at random moments; then it is killed at another, and resumed."""
    whole = Session(folder / "timed")
    whole.wait_for("ready")
    start = time.monotonic()
    whole.wait()
    length, rng = time.monotonic() - start, random.Random(0)
    for i in range(count):
        run = folder / f"kill{i}"
        for _ in range(2):
            session = Session(run)
            session.wait_for("ready")
            time.sleep(rng.uniform(0.0, length))
            session.send(signal.SIGKILL)
            session.wait()
        yield judge(run, expected)


def judge(run: pathlib.Path, expected: Any) -> str:
    """Resumes a run; "survived" | "lines" | "named" | "lost"."""
    outcome = Session(run).wait()
    if outcome.code == 0:
        found = result(run, outcome)
        if found == expected:
            return "survived"
        kept = set(found[1]) <= set(expected[1]) and set(found[2].split("\n")) <= set(expected[2].split("\n"))
        return "lines" if found[0] == expected[0] and kept else "lost"
    paragraph = "Traceback" not in outcome.output and len(outcome.output.splitlines()) <= LINES
    return "named" if outcome.code == 1 and "jaxdog: " in outcome.output and paragraph else "lost"


def damages(folder: pathlib.Path, expected: Any, flips: int) -> Iterator[tuple[str, str]]:
    """Each file of a run that has stopped half-way, damaged in each way; and bits of the newest state."""
    half = folder / "half"
    Session(half, HALF).wait()
    newest = pathlib.Path("checkpoints") / str(HALF)
    names = sorted(str(path.relative_to(half)) for path in half.rglob("*") if path.is_file())
    names = [name for name in names if "checkpoints" not in name or pathlib.Path(name).is_relative_to(newest)]
    names = [
        name for name in names if not name.startswith(("grids", "tensorboard")) and "commit_suc" not in name
    ]
    cases = [(name, kind, damage) for name in names for kind, damage in DAMAGES.items()]
    data = max((half / newest).rglob("*"), key=lambda path: path.stat().st_size).relative_to(half)
    for i in range(flips):
        at = (2 * i + 1) / (2 * flips)
        cases.append((str(data), "one bit", lambda x, at=at: flipped(x, int(at * len(x)))))
    for name, kind, damage in cases:
        run = folder / "damaged"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(half, run)
        (run / name).write_bytes(damage((run / name).read_bytes()))
        group = "one file of the newest checkpoint" if "checkpoints" in name else name
        yield f"{group}: {kind}", judge(run, expected)


def flipped(data: bytes, at: int) -> bytes:
    """The data with one bit changed."""
    return data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :]


def full_disks(folder: pathlib.Path, expected: Any) -> Iterator[str]:
    """A file system that is too small by ever less; then it grows, and the run is resumed."""
    for kilobytes in (64, 400, 700, 1000, 1300, 1600):
        disk = folder / "disk"
        disk.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", disk], check=True)
        try:
            (disk / "xla").symlink_to(folder / "xla")
            outcome = Session(disk / "run").wait()
            named = outcome.code == 1 and "Traceback" not in outcome.output
            subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
            survived = judge(disk / "run", expected)
            yield survived if outcome.code == 0 or named else "lost"
        finally:
            subprocess.run(["umount", "-l", disk], check=True)


def signals(folder: pathlib.Path, expected: Any, count: int) -> Iterator[tuple[str, str, float]]:
    """SIGTERM in training and in a long evaluation, two Ctrl-C: outcomes, and seconds to the end."""
    rng = random.Random(1)
    for i in range(count):
        for name, word, numbers, evaluation in (
            ("SIGTERM in training", "ready", [signal.SIGTERM], 0.2),
            ("SIGTERM in an evaluation of 60 s", "evaluating", [signal.SIGTERM], 60.0),
            ("Ctrl-C twice", "ready", [signal.SIGINT, signal.SIGINT], 60.0),
        ):
            run = folder / f"{word}{len(numbers)}-{i}"
            session = Session(run, evaluation=evaluation)
            session.wait_for(word)
            time.sleep(rng.uniform(0.0, 2.0))
            start = time.monotonic()
            for number in numbers:
                session.send(number)
                time.sleep(0.1)
            session.wait()
            yield name, "", time.monotonic() - start
            yield name, judge(run, expected), 0.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--signals", type=int, default=6)
    parser.add_argument("--flips", type=int, default=8)
    args = parser.parse_args()
    found: dict[str, list[str]] = {}
    slowest: dict[str, float] = {}

    def note(name: str, outcome: str) -> None:
        print(f"{name}: {outcome}", flush=True)
        found.setdefault(name, []).append(outcome)
        write(found, slowest)

    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        alone = Session(folder / "alone")
        expected = result(folder / "alone", alone.wait())
        assert expected[0] and len(expected[1]) == STEPS // 2
        for outcome in kills(folder, expected, args.kills):
            note("killed twice (SIGKILL)", outcome)
        for name, outcome, seconds in signals(folder, expected, args.signals):
            slowest[name] = max(slowest.get(name, 0.0), seconds)
            if outcome:
                note(name, outcome)
        if os.geteuid() == 0:
            for outcome in full_disks(folder, expected):
                note("full disk, then a larger one", outcome)
        for name, outcome in damages(folder, expected, args.flips):
            note(name, outcome)


def write(found: dict[str, list[str]], slowest: dict[str, float]) -> None:
    """Writes the table so far."""
    rows = [
        Row(
            name,
            len(x),
            x.count("survived"),
            x.count("lines"),
            x.count("named"),
            x.count("lost"),
            f"ended in at most {slowest[name]:.1f} s" if name in slowest else "",
        )
        for name, x in found.items()
    ]
    (HERE / "table.json").write_text(json.dumps([row._asdict() for row in rows], indent=1) + "\n")
    lines = ["| tried | times | same result | log lines lost | named error | lost | |", f"{'|---' * 7}|"]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    (HERE / "table.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
