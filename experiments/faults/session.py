"""Processes that run the worker, and what has become of their runs."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

from experiments.faults import worker

STEPS, HALF = 24, 12
TIMEOUT = 900.0


class Outcome(NamedTuple):
    """How a process ended."""

    code: int  # exit status; negative: the signal that killed it
    output: str
    seconds: float


class Session:
    """A process that runs the worker, or any other function: a fork, so that nothing is imported again.

    Args:
      folder: that of the run; the output goes to a file next to it.
      cache: the folder of compiled programs.
      steps: the last step.
      place: where it stays for a while, see `worker.PLACES`.
      traced: options of strace, which watches it from its first moment; (): not watched.
      body: what it runs in place of the worker.
    """

    number = 0

    def __init__(
        self,
        folder: pathlib.Path,
        cache: pathlib.Path,
        steps: int = STEPS,
        place: str = "",
        traced: tuple[str, ...] = (),
        body: Callable[[], None] | None = None,
    ):
        Session.number += 1
        self.start, self._path = time.monotonic(), cache / f"output{os.getpid()}-{Session.number}.txt"
        body = body or (lambda: worker.main(folder, steps, cache, place))
        read, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self._run(read, body)
        self._tracer = None
        if traced:
            words = ["strace", "-f", "-qq", "-p", str(self.pid), *traced]
            self._tracer = subprocess.Popen(words, stderr=subprocess.DEVNULL)
            status = pathlib.Path(f"/proc/{self.pid}/status")
            while "TracerPid:\t0\n" in status.read_text() and self._tracer.poll() is None:
                time.sleep(0.01)
        os.write(write, b"x")
        os.close(write)
        os.close(read)

    def _run(self, read: int, body: Callable[[], None]) -> None:
        handle = os.open(self._path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        code = 1
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.read(read, 1)
            body()
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
        if self._tracer is not None:
            self._tracer.wait()
        output = self.output()
        self._path.unlink(missing_ok=True)
        return Outcome(os.waitstatus_to_exitcode(ended[1]), output, time.monotonic() - self.start)


def result(folder: pathlib.Path, outcome: Outcome) -> tuple[Any, ...]:
    """What must be equal: the last state, and log and scores without clocks."""
    states = [line for line in outcome.output.splitlines() if line.startswith("state ")]
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    log = [(line["step"], line["loss/d"]) for line in lines]
    return states, log, (folder / "scores.jsonl").read_text(), (folder / "report.html").read_text()


def paragraph(outcome: Outcome) -> bool:
    """Whether a process has ended with an error in one paragraph."""
    _, found, last = outcome.output.rpartition("\njaxdog: ")
    return (
        outcome.code == 1 and bool(found) and "Traceback" not in outcome.output and len(last.split("\n")) < 4
    )


def judge(run: pathlib.Path, outcome: Outcome, expected: Any) -> str:
    """What the last session of a run has made of it: "same" | "lines" | "named" | "lost"."""
    if outcome.code == 0:
        found = result(run, outcome)
        if found == expected:
            return "same"
        kept = set(found[1]) <= set(expected[1]) and set(found[2].split("\n")) <= set(expected[2].split("\n"))
        return "lines" if found[0] == expected[0] and kept else "lost"
    return "named" if paragraph(outcome) else "lost"
