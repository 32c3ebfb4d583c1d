"""What a run survives: kills, signals, full disks, power cuts, damaged files, two processes.

    python experiments/faults/run.py                 all trials
    python experiments/faults/run.py kills signals   two groups of them

Each trial is one or more processes that run `worker.py` and get into trouble, and then one that resumes. A
run has survived if its last state, its log and its scores are those of a run that was left alone. The trials
are recorded in records.json, one by one, and not repeated; the table is in table.md. Needs strace, and root
on Linux, to mount small file systems.
"""

import argparse
import json
import pathlib
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from experiments.faults import trials  # noqa: E402
from experiments.faults.session import STEPS, Session, result  # noqa: E402
from jaxdog.utils import files  # noqa: E402

RECORDS = HERE / "records.json"
GROUPS = ("calls", "pairs", "power", "signals", "disks", "damages", "kills")
COLUMNS = {"same": "same result", "lines": "log lines lost", "named": "named error", "lost": "lost"}


def group(name: str, lab: trials.Lab) -> Iterator[trials.Trial]:
    """The trials of a group that were not made before."""
    return {
        "calls": lambda: trials.kills_at_calls(lab, 36),
        "pairs": lambda: trials.pairs(lab, 3),
        "power": lambda: trials.power_cuts(lab, 12),
        "signals": lambda: trials.signals(lab),
        "disks": lambda: trials.full_disks(lab, 12),
        "damages": lambda: trials.damages(lab, 12),
        "kills": lambda: trials.kills(lab, 20),
    }[name]()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("groups", nargs="*", choices=[*GROUPS, []], help="default: all")
    parser.add_argument("--place", type=pathlib.Path, help="where runs are made; default: a temporary folder")
    args = parser.parse_args()
    records: dict[str, Any] = json.loads(RECORDS.read_text()) if RECORDS.is_file() else {}
    with tempfile.TemporaryDirectory(dir=args.place) as temporary:
        folder = pathlib.Path(temporary)
        (folder / "cache").mkdir()
        for name in ("first", "alone"):  # the first one compiles
            alone = Session(folder / name, folder / "cache").wait()
        expected = result(folder / "alone", alone)
        assert expected[0] and len(expected[1]) == STEPS // 2, alone.output
        lab = trials.Lab(folder, folder / "cache", expected, alone.seconds, records.__contains__)
        for name in args.groups or GROUPS:
            for tried, key, outcome, remark in group(name, lab):
                print(f"{tried} [{key}]: {outcome} {remark}", flush=True)
                records[key] = {"tried": tried, "outcome": outcome, "remark": remark}
                files.write_text(RECORDS, json.dumps(records, indent=0) + "\n")
                files.write_text(HERE / "table.md", table(records))


def table(records: dict[str, Any]) -> str:
    """The outcomes of the trials, counted."""
    lines = [f"| tried | times | {' | '.join(COLUMNS.values())} | |", f"{'|---' * 7}|"]
    for tried in dict.fromkeys(x["tried"] for x in records.values()):
        rows = [x for x in records.values() if x["tried"] == tried]
        kills = sum(int(y) for x in rows for y in re.findall(r"^(\d+) kills", x["remark"]))
        counts = [str(sum(x["outcome"] == column for x in rows)) for column in COLUMNS]
        seconds = [float(y) for x in rows for y in re.findall(r"after ([\d.]+) s", x["remark"])]
        note = f"ended in at most {max(seconds):.1f} s" if seconds else f"{kills} kills" if kills else ""
        lines.append("| " + " | ".join([tried, str(len(rows)), *counts, note]) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if not shutil.which("strace"):
        sys.exit("strace is not installed")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that disks are unmounted
    main()
