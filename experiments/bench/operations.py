"""Where a training step's time goes: its operations, the longest first, and what of the model each is.

    python experiments/bench/operations.py --config biggan --narrow --most 20
    taskset -c 0 python experiments/bench/operations.py --config biggan --narrow    # one core: times add up

Runs a dispatch of `--steps` under JAX's profiler and adds up the durations of each operation of the compiled
program, with the name that the model gave it. On several cores an operation's parts count together. What
convolutions and matrix products reach is told beside what one large one of each reaches in the same process.
"""

import argparse
import collections
import gzip
import itertools
import math
import pathlib
import re
import sys
import tempfile
from typing import Any, NamedTuple

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from experiments import trial  # noqa: E402
from experiments.bench import step  # noqa: E402

COMPUTATION = re.compile(r"(?:ENTRY )?%(\S+) .*\{$")
AROUND = ("Execute", "while", "call", "Pjrt", "$")  # events that hold others


class Operation(NamedTuple):
    """One of the compiled program, over all steps of a dispatch."""

    name: str
    ms: float  # of a step
    shape: str  # of its result
    source: str  # where in the model it was asked for
    flop: float = 0.0  # of a step's convolutions and matrix products in it


def parse() -> argparse.Namespace:
    """The command line."""
    parser = trial.parser(__doc__)
    parser.set_defaults(kimg=1.0)
    parser.add_argument("--config", default="biggan", help="a family of step.py")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--most", type=int, default=20, help="operations that are shown")
    return parser.parse_args()


def read(path: pathlib.Path) -> bytes:
    """A file, gzipped or not."""
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def trace(folder: pathlib.Path) -> Any:
    """The newest one below a folder, as JAX's profiler has it."""
    import jax

    newest = max(folder.rglob("*.xplane.pb*"), key=lambda path: path.stat().st_mtime)
    return jax.profiler.ProfileData.from_serialized_xspace(read(newest))


def durations(folder: str) -> collections.Counter[str]:
    """Milliseconds of each operation in the newest trace below a folder."""
    found: collections.Counter[str] = collections.Counter()
    for plane in trace(pathlib.Path(folder)).planes:
        for line in plane.lines:
            for event in line.events:
                if not any(event.name.startswith(word) or f"::{word}" in event.name for word in AROUND):
                    found[event.name] += event.duration_ns / 1e6
    return found


def parsed(line: str) -> tuple[str, str, str, str] | None:
    """(name, shape of the result, what is done, with what) of an instruction, if the line is one."""
    found = re.match(r"\s*(?:ROOT )?%?(\S+) = (\(.*?\)|\S+) ([\w-]+)\((.*)", line)
    return (found[1], re.sub(r"\{.*?\}", "", found[2]), found[3], found[4]) if found else None


def numbers(text: str) -> list[int]:
    """All in a text."""
    return [int(x) for x in re.findall(r"\d+", text)]


def taps(size: int, kernel: int, out: int, stride: int, before: int) -> int:
    """Pairs of a kernel's entry and an output, along one side, that meet no zero around the input."""
    pairs = itertools.product(range(out), range(kernel))
    return sum(0 <= o * stride + t - before < size for o, t in pairs)


def product_flop(kind: str, out: str, told: str, shapes: dict[str, str]) -> float:
    """Multiplications and additions of a `dot` or of a `convolution` of [b, h, w, c] and [n, m, c, k]."""
    names = re.findall(r"%([^\s,)]+)", told.split(")", 1)[0])
    a, b = (numbers(shapes[name].split("[", 1)[1]) for name in names)
    result = numbers(out.split("[", 1)[1])
    if kind == "dot":
        summed = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", told)
        return 2.0 * math.prod(result) * math.prod(a[i] for i in numbers(summed[1] if summed else ""))
    if "dim_labels=b01f_01io->b01f" not in told:
        raise ValueError(f"no [b, h, w, c] convolution by [n, m, c, k]: {told}")
    found = {key: re.search(key + r"=([\dx_-]+)", told) for key in ("stride", "pad")}
    strides = numbers(found["stride"][1]) if found["stride"] else [1, 1]
    pads = [int(x) for x in re.split("[x_]", found["pad"][1])] if found["pad"] else [0] * 4
    sides = [taps(a[i + 1], b[i], result[i + 1], strides[i], pads[2 * i]) for i in (0, 1)]
    return 2.0 * result[0] * result[3] * b[2] * math.prod(sides)


def work(program: str) -> dict[str, float]:
    """Instruction -> operations of the convolutions and matrix products that it is or holds."""
    lines = program.splitlines()
    shapes = {found[0]: found[1] for line in lines if (found := parsed(line))}
    inside: collections.Counter[str] = collections.Counter()  # of a computation
    alone: dict[str, float] = {}
    computation = ""
    for line in lines:
        if begun := COMPUTATION.match(line):
            computation = begun[1]
        if (found := parsed(line)) and found[2] in ("convolution", "dot"):
            alone[found[0]] = product_flop(found[2], found[1], found[3], shapes)
            inside[computation] += alone[found[0]]
    for line in lines:
        if (found := parsed(line)) and found[2] in ("fusion", "call"):
            called = re.search(r"(?:calls|to_apply)=%([^\s,]+)", found[3])
            alone[found[0]] = inside[called[1]] if called else 0.0
    return alone


def turns(program: str) -> dict[str, int]:
    """Computation -> how often it runs in all loops around it together, as far as the compiler knows."""
    callers: dict[str, tuple[str, int]] = {}  # of a computation: where it is called, and how often there
    computation = ""
    for line in program.splitlines():
        if begun := COMPUTATION.match(line):
            computation = begun[1]
        count = re.search(r'"known_trip_count":\{"n":"(\d+)"', line)
        for called in re.findall(r"(?:body|calls|to_apply)=%([^\s,]+)", line):
            callers[called] = computation, int(count[1]) if count else 1

    def of(name: str) -> int:
        where, count = callers.get(name, ("", 1))
        return count * (of(where) if where else 1)

    return {name: of(name) for name in callers}


def operations(program: str, ms: collections.Counter[str], steps: int) -> list[Operation]:
    """The operations of a compiled program of so many steps that took time, the longest first."""
    rows, flop, often, computation = [], work(program), turns(program), ""
    for line in program.splitlines():
        if begun := COMPUTATION.match(line):
            computation = begun[1]
        found = parsed(line)
        if found and found[0] in ms:
            source = re.search(r'op_name="(?:jit\(dispatch\)/while/body/)?([^"]*)"', line)
            told = source[1] if source else ""
            of_step = flop.get(found[0], 0.0) * often.get(computation, 1) / steps
            rows.append(Operation(found[0], ms[found[0]] / steps, found[1], told, of_step))
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
    products = [row for row in rows if row.flop]
    ms, flop, most = sum(row.ms for row in products), sum(row.flop for row in products), step.limits()
    reached = flop / max(ms, 1e-9) / 1e6
    print(
        f"convolutions and matrix products: {flop / 1e9:.2f} GFLOP in {ms:.0f} ms, {100 * ms / total:.0f} % "
        f"of the time: {reached:.1f} GFLOP/s; one large convolution reaches {most['conv_gflops']:.1f} "
        f"({most['conv_gflops'] / reached:.2f} times that), one large product {most['matmul_gflops']:.1f}\n"
    )
    print("| ms | share | GFLOP/s | operation | result | of |\n|---|---|---|---|---|---|")
    for row in rows[: args.most]:
        share, rate = 100 * row.ms / total, f"{row.flop / row.ms / 1e6:.0f}" if row.flop else ""
        print(f"| {row.ms:.2f} | {share:.1f} % | {rate} | {row.name} | {row.shape} | {row.source} |")


if __name__ == "__main__":
    main()
