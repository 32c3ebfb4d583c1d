"""Feeds changed files to every reader of files from others, and counts what is no errors.UserError.

    python -m tests.fuzz                            a few hundred inputs for each reader
    python -m tests.fuzz pth graph --inputs 100000  more, for two readers

Each reader runs in a process of its own, a fork, with little memory. An input is a function of the reader's
name and a number, so that `--first N --inputs 1` runs one again; `--keep DIR` writes those that fail.
"""

import argparse
import logging
import os
import pathlib
import resource
import signal
import sys
import tempfile
import time
import traceback
from typing import Any, NoReturn

from tests.fuzz import mutations, targets

MEMORY = 1 << 30  # bytes that a reader may need, besides those of the imported packages
SECONDS = 10.0  # of the processor that it may take for one input
NAMES = (
    *("pickle", "pickle4", "pth", "legacy", "graph", "folded", "hdf5", "dinov2", "features", "moments"),
    *("stylegan", "stylegan5", "torch_fidelity", "safetensors", "exported", "config"),
    *("photo", "photos", "annotation", "run"),
)


class TooSlow(BaseException):
    """An input takes more than SECONDS."""


def work(name: str, first: int, count: int, keep: pathlib.Path | None, at: pathlib.Path) -> int:
    """Runs one reader; returns the number of inputs that failed."""
    logging.disable()  # of damage, which is expected
    target = targets.TARGETS[name]()

    def stop(*_: Any) -> None:
        raise TooSlow

    signal.signal(signal.SIGVTALRM, stop)
    used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    read = failed = 0
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, target.name)
        for i in range(first, first + count):
            at.write_text(str(i))
            path.write_bytes(target.make(mutations.generator(name, i)))
            signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
            try:
                target.read(path)
                read += 1
            except targets.EXPECTED:
                pass
            except BaseException as error:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
                failed += 1
                place = traceback.extract_tb(error.__traceback__)[-1]
                text = str(error)[:100]
                print(f"{name} {i}: {type(error).__name__}: {text} ({place.filename}:{place.lineno})")
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{name}_{i}").write_bytes(path.read_bytes())
            finally:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    speed = count / (time.monotonic() - start)
    print(f"{name}: {count:,} inputs, {speed:,.0f}/s, {read:,} of them read, {failed} failed", flush=True)
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="READER", help=f"default: all of {', '.join(NAMES)}")
    parser.add_argument("--inputs", type=int, default=300, help="for each reader")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--keep", type=pathlib.Path, help="a folder for inputs that fail")
    args = parser.parse_args()
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        at = pathlib.Path(folder, "at")
        for name in args.names or NAMES:
            process = os.fork()
            if process == 0:
                _child(name, args.first, args.inputs, args.keep, at)
            code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            if code < 0:
                print(f"{name} {at.read_text()}: the process died by signal {-code}", flush=True)
            bad += code != 0
    return min(bad, 1)


def _child(*args: Any) -> NoReturn:
    """Runs one reader, and ends the process."""
    code = 1
    try:
        code = min(work(*args), 100)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
