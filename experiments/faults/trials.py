"""The trials: each gets a run into trouble and yields its name, a key, and how it ended."""

import collections
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from experiments.faults import worker
from experiments.faults.session import HALF, Outcome, Session, judge, paragraph

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "garbage": lambda data: random.Random(len(data)).randbytes(len(data)),
    "other JSON": lambda data: b'[null, {"step": "12", "version": 1e999}]\n',
}
# Calls of the system that change files, by what they do.
CALLS = {
    "write": "write,pwrite64,writev",
    "flush": "fsync,fdatasync",
    "rename": "rename,renameat,renameat2",
    "folder": "mkdir,mkdirat,rmdir",
    "remove": "unlink,unlinkat",
    "create": "openat,ftruncate",
}
CHAIN = 6  # kills of a run before it is left alone
SIGNALS = {
    "SIGTERM": [signal.SIGTERM],
    "Ctrl-C": [signal.SIGINT],
    "Ctrl-C twice": [signal.SIGINT, signal.SIGINT],
    "SIGHUP": [signal.SIGHUP],
    "SIGQUIT": [signal.SIGQUIT],
    "SIGUSR1": [signal.SIGUSR1],
    "SIGXCPU": [signal.SIGXCPU],
}


class Lab(NamedTuple):
    """Where the trials take place."""

    folder: pathlib.Path
    cache: pathlib.Path  # of compiled programs
    expected: Any  # the result of a run that was left alone
    seconds: float  # that it took
    done: Callable[[str], bool]  # whether a trial was made before, by its key

    def session(self, run: pathlib.Path, **options: Any) -> Session:
        return Session(run, self.cache, **options)

    def resume(self, run: pathlib.Path) -> str:
        """How a run ends that is resumed, and then removed: see `session.judge`."""
        found = judge(run, self.session(run).wait(), self.expected)
        shutil.rmtree(run, ignore_errors=True)
        return found


Trial = tuple[str, str, str, str]  # (name in the table, key, outcome, remark)


def calls_of(lab: Lab) -> dict[str, int]:
    """How often a thread of a whole run makes a kind of system call, at most."""
    path, run = lab.folder / "strace.txt", lab.folder / "counted"
    lab.session(run, traced=("-o", str(path), "-e", f"trace={','.join(CALLS.values())}")).wait()
    shutil.rmtree(run)
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    for line in path.read_text(errors="replace").splitlines():
        thread, _, call = line.partition(" ")
        name = call.strip().partition("(")[0]
        for kind, names in CALLS.items():
            counts[kind, thread] += name in names.split(",")
    return {kind: max(n for (k, _), n in counts.items() if k == kind) for kind in CALLS}


def kills_at_calls(lab: Lab, count: int) -> Iterator[Trial]:
    """SIGKILL at the n-th call of a kind by any thread, CHAIN times in a run, first anywhere in it."""
    if all(lab.done(f"calls {i}") for i in range(count)):
        return
    most = calls_of(lab)
    places = [(kind, n) for kind in CALLS for n in range(1, most[kind] + 1)]
    random.Random(0).shuffle(places)
    for i, first in enumerate(places[:count]):
        if lab.done(f"calls {i}"):
            continue
        run, rng, reached = lab.folder / f"call{i}", random.Random(i), []
        later = [
            (kind, rng.randint(1, max(most[kind] // 4, 1))) for kind in rng.choices([*CALLS], k=CHAIN - 1)
        ]
        for kind, n in [first, *later]:
            inject = f"inject={CALLS[kind]}:signal=KILL:when={n}"
            options = ("-o", "/dev/null", "-e", f"trace={CALLS[kind]}", "-e", inject)
            if lab.session(run, traced=options).wait().code != -signal.SIGKILL:
                break  # the run has ended before
            reached.append(f"{kind} {n}")
        remark = f"{len(reached)} kills: {', '.join(reached)}"
        yield "killed at a system call (SIGKILL)", f"calls {i}", lab.resume(run), remark


def kills(lab: Lab, count: int) -> Iterator[Trial]:
    """SIGKILL at random moments, CHAIN times in a run."""
    for i in range(count):
        if lab.done(f"kill {i}"):
            continue
        run, rng = lab.folder / f"kill{i}", random.Random(i)
        for _ in range(CHAIN):
            session = lab.session(run)
            time.sleep(rng.uniform(0.0, lab.seconds))
            session.send(signal.SIGKILL)
            session.wait()
        yield "killed at random (SIGKILL)", f"kill {i}", lab.resume(run), f"{CHAIN} kills"


def signals(lab: Lab) -> Iterator[Trial]:
    """Each signal in each place."""
    for name, numbers in SIGNALS.items():
        for place in worker.PLACES:
            key = f"{name} {place}"
            if lab.done(key):
                continue
            run = lab.folder / "signaled"
            session = lab.session(run, place=place)
            session.wait_for(f"at {place}")
            start = time.monotonic()
            for number in numbers:
                time.sleep(0.3)
                session.send(number)
            outcome = session.wait()
            seconds = time.monotonic() - start - 0.3 * len(numbers)
            found = "lost" if "Traceback" in outcome.output else lab.resume(run)
            yield name, key, found, f"{place}: exit {outcome.code} after {seconds:.1f} s"


def damages(lab: Lab, flips: int) -> Iterator[Trial]:
    """Each file of a run that has stopped half-way, damaged in each way; and bits of the newest state."""
    half = lab.folder / "half"
    lab.session(half, steps=HALF).wait()
    newest = pathlib.Path("checkpoints") / str(HALF)
    names = sorted(str(path.relative_to(half)) for path in half.rglob("*") if path.is_file())
    names = [name for name in names if "checkpoints" not in name or pathlib.Path(name).is_relative_to(newest)]
    unread = ("grids", "tensorboard", "report.html")
    names = [name for name in names if not name.startswith(unread) and "commit_suc" not in name]
    cases = [(name, kind, damage) for name in names for kind, damage in DAMAGES.items()]
    data = max((half / newest).rglob("*"), key=lambda path: path.stat().st_size).relative_to(half)
    for i in range(flips):
        at = (2 * i + 1) / (2 * flips)
        cases.append((str(data), f"bit {i}", lambda x, at=at: _flipped(x, int(at * len(x)))))
    for name, kind, damage in cases:
        key = f"{kind} {name}" if kind in DAMAGES else kind
        if lab.done(key):
            continue
        run = lab.folder / "damaged"
        shutil.copytree(half, run)
        (run / name).write_bytes(damage((run / name).read_bytes()))
        group = "a file of the newest checkpoint" if "checkpoints" in name else name
        yield f"{group}: {kind if kind in DAMAGES else 'bit'}", key, lab.resume(run), name


def _flipped(data: bytes, at: int) -> bytes:
    """The data with one bit changed."""
    return data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :]


# ------------------------------------------------------------------ disks


def full_disks(lab: Lab, count: int) -> Iterator[Trial]:
    """A file system that is too small by ever less; then it grows, and the run is resumed."""
    for i in range(count):
        key, size = f"disk {i}", 40 + 1600 * i // count
        if lab.done(key):
            continue
        disk = lab.folder / "disk"
        disk.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", disk], check=True)
        try:
            outcome = lab.session(disk / "run").wait()
            subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
            survived = lab.resume(disk / "run")
            fine = outcome.code == 0 or paragraph(outcome)
            yield "full disk, then a larger one", key, survived if fine else "lost", f"{size} kB"
        finally:
            subprocess.run(["umount", "-l", disk], check=True)


def power_cuts(lab: Lab, count: int) -> Iterator[Trial]:
    """The image of a mounted disk, copied at a random moment of a run; the run is resumed on the copy."""
    disk, image = lab.folder / "disk", lab.folder / "disk.img"
    disk.mkdir(exist_ok=True)
    for i in range(count):
        if lab.done(f"power {i}"):
            continue
        image.unlink(missing_ok=True)
        with image.open("wb") as file:
            file.truncate(64 << 20)
        subprocess.run(["mkfs.ext4", "-q", image], check=True)
        options = "loop" if i % 2 else "loop,data=writeback,commit=1"  # or with names before their contents
        subprocess.run(["mount", "-o", options, image, disk], check=True)
        try:
            session = lab.session(disk / "run")
            time.sleep(random.Random(i).uniform(0.1, 0.9) * lab.seconds)
            session.send(signal.SIGSTOP)
            _copy_at_once(image, lab.folder / "cut.img")
            session.send(signal.SIGKILL)
            session.wait()
        finally:
            subprocess.run(["umount", "-l", disk], check=True)
        subprocess.run(["mount", "-o", "loop", lab.folder / "cut.img", disk], check=True)
        try:
            steps = [int(x.name) for x in (disk / "run" / "checkpoints").glob("*") if x.name.isdigit()]
            found = lab.resume(disk / "run")
        finally:
            subprocess.run(["umount", "-l", disk], check=True)
        sound = subprocess.run(["e2fsck", "-fn", lab.folder / "cut.img"], capture_output=True, check=False)
        remark = f"checkpoints {sorted(steps)}{'' if sound.returncode == 0 else ', file system damaged'}"
        yield "power cut", f"power {i}", found, remark


def _copy_at_once(image: pathlib.Path, copy: pathlib.Path) -> None:
    """Copies the image of a mounted disk to which nothing was written meanwhile."""
    devices = subprocess.run(["losetup", "-j", image], capture_output=True, text=True, check=True).stdout
    stat = pathlib.Path("/sys/block", pathlib.Path(devices.partition(":")[0]).name, "stat")
    written = ""
    while written != (written := stat.read_text().split()[4]):
        shutil.copyfile(image, copy)


# ------------------------------------------------------------------ two processes


def pairs(lab: Lab, count: int) -> Iterator[Trial]:
    """Two processes that want one folder, `count` times in each of six ways."""
    ways = (_both, _second, _after_a_kill, _suspended, _taken_over, _reader)
    for way in ways:
        for i in range(count):
            name, key = (way.__doc__ or "").rstrip("."), f"{way.__name__} {i}"
            if lab.done(key):
                continue
            run = lab.folder / "pair"
            outcomes = way(lab, run)
            winners = [x for x in outcomes if x.code == 0 and "state " in x.output]
            others = [x for x in outcomes if x not in winners]
            fine = len(winners) == 1 and all(paragraph(x) or x.code in (0, -signal.SIGKILL) for x in others)
            found = judge(run, winners[0], lab.expected) if fine else "lost"
            shutil.rmtree(run, ignore_errors=True)
            yield (
                f"two processes: {name[0].lower()}{name[1:]}",
                key,
                found,
                " ".join(str(x.code) for x in outcomes),
            )


def _both(lab: Lab, run: pathlib.Path) -> list[Outcome]:
    """Both start at once."""
    return [session.wait() for session in (lab.session(run), lab.session(run))]


def _second(lab: Lab, run: pathlib.Path) -> list[Outcome]:
    """One starts while the other trains."""
    first = lab.session(run, place="step")
    first.wait_for("at step")
    return [lab.session(run).wait(), first.wait()]


def _after_a_kill(lab: Lab, run: pathlib.Path) -> list[Outcome]:
    """Both start at once after a third was killed."""
    killed = lab.session(run, place="evaluation")
    killed.wait_for("at evaluation")
    killed.send(signal.SIGKILL)
    return [killed.wait(), *(x.wait() for x in (lab.session(run), lab.session(run)))]


def _suspended(lab: Lab, run: pathlib.Path) -> list[Outcome]:
    """One starts while the other is suspended."""
    first = lab.session(run, place="step")
    first.wait_for("at step")
    first.send(signal.SIGSTOP)
    second = lab.session(run).wait()
    first.send(signal.SIGCONT)
    return [second, first.wait()]


def _taken_over(lab: Lab, run: pathlib.Path) -> list[Outcome]:
    """One is suspended, loses its lock, and goes on when the other has ended."""
    first = lab.session(run, place="step")
    first.wait_for("at step")
    first.send(signal.SIGSTOP)
    (run / "lock.json").unlink()
    second = lab.session(run).wait()
    first.send(signal.SIGCONT)
    return [second, first.wait()]


def _reader(lab: Lab, run: pathlib.Path) -> list[Outcome]:
    """Reports are written while one trains."""

    def report() -> None:
        sys.argv = ["jaxdog", "report", os.fspath(run)]
        from jaxdog.cli import entry

        entry.main(sys.argv[1:])

    first = lab.session(run)
    first.wait_for("ready")
    others = []
    while not os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        others.append(lab.session(run, body=report).wait())
    last = first.wait()
    (run / "report.html").write_text(last.output.rpartition("state ")[2].strip())
    return [last, *others]
