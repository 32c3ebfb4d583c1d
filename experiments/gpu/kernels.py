"""Where a step's time goes on a GPU: kernels of a trace, with what of the model each is, the longest first.

    python experiments/gpu/kernels.py DIR/logs/NAME.trace --hlo DUMP/...after_optimizations.txt --steps 10

The trace is that of a job of `speed.py` with "profile"; the program's text is what XLA leaves with the flags
--xla_dump_to=DUMP --xla_dump_hlo_as_text --xla_dump_hlo_module_re=.*dispatch.* in XLA_FLAGS, or in the job's
"flags". Either may be gzipped.
"""

import argparse
import collections
import pathlib
import re
import sys
from typing import Any, NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent))

from experiments.bench import operations  # noqa: E402

BRIEF = 4.0  # microseconds: a kernel that is shorter than this mostly starts and ends


class Kernel(NamedTuple):
    """One of a trace."""

    name: str
    operation: str  # XLA's
    us: float  # of a step
    count: float  # in a step


def kernels(folder: pathlib.Path, steps: int) -> tuple[list[Kernel], float]:
    """(kernels of the newest trace below a folder, the longest first; microseconds of a step)."""
    found: dict[tuple[str, str], list[float]] = collections.defaultdict(list)
    begin, end = float("inf"), 0.0
    for plane in operations.trace(folder).planes:
        for line in plane.lines if "GPU" in plane.name else ():
            for event in line.events if line.name.startswith("Stream") else ():
                operation = str(dict(event.stats).get("hlo_op", ""))
                found[event.name, operation].append(event.duration_ns / 1000.0)
                begin, end = min(begin, event.start_ns), max(end, event.start_ns + event.duration_ns)
    if not found:
        raise SystemExit(f"the trace below {folder} holds no stream of a GPU")
    rows = [Kernel(*names, sum(us) / steps, len(us) / steps) for names, us in found.items()]
    return sorted(rows, key=lambda row: -row.us), (end - begin) / 1000.0 / steps


def sources(text: str) -> dict[str, str]:
    """XLA's operation -> where in the model it was asked for."""
    made = {}
    for line in text.splitlines():
        name = re.match(r"\s*(?:ROOT )?%([\w.\-]+) = ", line)
        source = re.search(r'op_name="([^"]*)"', line)
        if name and source:
            made[name[1]] = re.sub(r".*while/body/(?:eval_jaxpr/|closed_call/)*", "", source[1])
    return made


def source(kernel: Kernel, known: dict[str, str]) -> str:
    """Where a kernel comes from; within a CUDA graph it is known by its own name only."""
    own = re.sub(r"_(\d+)$", r".\1", kernel.name)
    return known.get(kernel.operation) or known.get(own) or known.get(kernel.name, "")


def kind(kernel: Kernel) -> str:
    """Convolution (with the numbers it computes in), product, or what XLA calls its fusion."""
    if "conv" in kernel.operation and "fusion" not in kernel.operation:
        numbers = "tf32 " if "tf32" in kernel.name else "bf16 " if "bf16" in kernel.name else ""
        way = {"bw-filter": ", kernel's gradient", "bw-input": ", input's gradient"}
        return f"{numbers}convolution" + next((told for x, told in way.items() if x in kernel.operation), "")
    if re.search("gemm|cublas|nvjet", kernel.name + kernel.operation):
        return "product"
    return re.sub(r"[_.]?\d+$", "", kernel.name)


def table(rows: list[tuple[str, Any, Any, str]]) -> str:
    """Markdown."""
    lines = [f"| {name} | {us:.0f} | {count:.0f} | {where} |" for name, us, count, where in rows]
    return "\n".join(["| | µs a step | in a step | |", "|---|---|---|---|", *lines]) + "\n"


def main() -> None:
    """Both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trace", type=pathlib.Path)
    parser.add_argument("--hlo", type=pathlib.Path, help="the compiled program's text")
    parser.add_argument("--steps", type=int, default=10, help="that were traced")
    parser.add_argument("--most", type=int, default=12, help="rows")
    args = parser.parse_args()
    rows, span = kernels(args.trace, args.steps)
    known = sources(operations.read(args.hlo).decode()) if args.hlo else {}
    busy, brief = sum(row.us for row in rows), [row for row in rows if row.us / row.count < BRIEF]
    count, short = sum(row.count for row in rows), sum(row.us for row in brief)
    print(f"a step: {span:.0f} µs under the profiler, {busy:.0f} in {count:.0f} kernels,", end=" ")
    print(f"{short:.0f} in {sum(row.count for row in brief):.0f} below {BRIEF:.0f} µs\n")
    sums: dict[str, list[float]] = collections.defaultdict(lambda: [0.0, 0.0])
    for row in rows:
        sums[kind(row)][0] += row.us
        sums[kind(row)][1] += row.count
    kinds = sorted(sums.items(), key=lambda item: -item[1][0])[: args.most]
    print(table([(name, us, count, "") for name, (us, count) in kinds]))
    print(table([(kind(row), row.us, row.count, source(row, known)) for row in rows[: args.most]]))


if __name__ == "__main__":
    main()
