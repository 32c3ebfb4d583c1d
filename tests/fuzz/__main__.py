"""Feeds changed files to every reader of files from others, and counts what is no errors.UserError.

    python -m tests.fuzz                            a few hundred inputs for each reader
    python -m tests.fuzz pth graph --inputs 100000  more, for two readers

Each reader runs in a process of its own with little memory. An input is a function of the reader's name and a
number, so that `--first N --inputs 1` runs one again; `--keep DIR` writes those that fail.
"""

import argparse
import pathlib
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from typing import Any

from tests.fuzz import mutations

MEMORY = 1 << 30  # bytes that a reader may need, besides those of the imported packages
SECONDS = 10.0  # of the processor that it may take for one input
NAMES = (
    *("pickle", "pickle4", "pth", "legacy", "graph", "folded", "hdf5", "dinov2", "features", "moments"),
    *("stylegan", "stylegan5", "torch_fidelity", "safetensors", "exported", "config"),
)


class TooSlow(BaseException):
    """An input takes more than SECONDS."""


def work(name: str, first: int, count: int, keep: pathlib.Path | None, at: pathlib.Path) -> int:
    """Runs one reader; returns the number of inputs that failed."""
    from tests.fuzz import targets

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
    parser.add_argument("--at", type=pathlib.Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.at is not None:
        return min(work(args.names[0], args.first, args.inputs, args.keep, args.at), 100)
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        at = pathlib.Path(folder, "at")
        for name in args.names or NAMES:
            words = [name, f"--inputs={args.inputs}", f"--first={args.first}", f"--at={at}"]
            words += [f"--keep={args.keep}"] if args.keep else []
            done = subprocess.run([sys.executable, "-m", "tests.fuzz", *words], check=False)
            if done.returncode < 0:
                print(f"{name} {at.read_text()}: the process died by signal {-done.returncode}")
            bad += done.returncode != 0
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main())
