"""Where a training step's time goes: its operations, the longest first, and what of the model each is.

    python experiments/bench/operations.py --config biggan --narrow --most 20
    taskset -c 0 python experiments/bench/operations.py --config biggan --narrow    # one core: times add up

Runs a dispatch of `--steps` under JAX's profiler and adds up the durations of each operation of the compiled
program, with the name that the model gave it. On several cores an operation's parts count together.
"""

import argparse
import collections
import pathlib
import re
import sys
import tempfile
from typing import Any, NamedTuple

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from experiments import trial  # noqa: E402
from experiments.bench import step  # noqa: E402

AROUND = ("Execute", "while", "call", "Pjrt", "$")  # events that hold others


class Operation(NamedTuple):
    """One of the compiled program, over all steps of a dispatch."""

    name: str
    ms: float  # of a step
    shape: str  # of its result
    source: str  # where in the model it was asked for


def parse() -> argparse.Namespace:
    """The command line."""
    parser = trial.parser(__doc__)
    parser.set_defaults(kimg=1.0)
    parser.add_argument("--config", default="biggan", help="a family of step.py")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--most", type=int, default=20, help="operations that are shown")
    return parser.parse_args()


def durations(folder: str) -> collections.Counter[str]:
    """Milliseconds of each operation in the newest trace below a folder."""
    import jax

    newest = max(pathlib.Path(folder).rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    found: collections.Counter[str] = collections.Counter()
    for plane in jax.profiler.ProfileData.from_file(str(newest)).planes:
        for line in plane.lines:
            for event in line.events:
                if not any(event.name.startswith(word) or f"::{word}" in event.name for word in AROUND):
                    found[event.name] += event.duration_ns / 1e6
    return found


def operations(program: str, ms: collections.Counter[str], steps: int) -> list[Operation]:
    """The operations of a compiled program that took time, the longest first."""
    rows = []
    for line in program.splitlines():
        found = re.match(r"\s*(?:ROOT )?%?(\S+) = (\(?[^ ]+)", line)
        if found and found[1] in ms:
            source = re.search(r'op_name="(?:jit\(dispatch\)/while/body/)?([^"]*)"', line)
            shape = re.sub(r"\{.*?\}", "", found[2])
            rows.append(Operation(found[1], ms[found[1]] / steps, shape, source[1] if source else ""))
    return sorted(rows, key=lambda row: -row.ms)


def traced(config: Any, steps: int) -> tuple[list[Operation], float]:
    """(operations, milliseconds of a step as it ran under the profiler)."""
    import jax

    functions, state = step.begun(config, data := step.pictures(config.data.store_size), steps)
    dispatch = functions.dispatch.lower(state, data, 0.0).compile()
    state, _ = jax.block_until_ready(dispatch(state, data, 0.0))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            took = step.seconds(lambda: jax.block_until_ready(dispatch(state, data, 0.0)))
        ms = durations(folder)
    return operations(dispatch.as_text(), ms, steps), 1000 * took / steps


def main() -> None:
    """Prints the table, and sums by kind of operation."""
    args = parse()
    rows, took = traced(step.config_of(args.config, args), args.steps)
    total = sum(row.ms for row in rows)
    print(f"{args.config}: a step took {took:.1f} ms, its operations {total:.1f} ms\n")
    kinds: collections.Counter[str] = collections.Counter()
    for row in rows:
        kinds[re.sub(r"[.\d]+$", "", row.name)] += row.ms
    print(", ".join(f"{kind} {100 * ms / total:.0f} %" for kind, ms in kinds.most_common(8)), "\n")
    print("| ms | share | operation | result | of |\n|---|---|---|---|---|")
    for row in rows[: args.most]:
        print(f"| {row.ms:.2f} | {100 * row.ms / total:.1f} % | {row.name} | {row.shape} | {row.source} |")


if __name__ == "__main__":
    main()
