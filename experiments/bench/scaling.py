"""The collectives of a training step, counted in the compiled program, and the weak scaling they allow.

    python experiments/bench/scaling.py --devices 2,8      # fake devices of this host
    python experiments/bench/scaling.py --platform tpu --devices 8,256 --set 'dtype="bfloat16"'  # jax[tpu]
    python experiments/bench/scaling.py --platform cuda --devices 2,8 --set 'dtype="bfloat16"'   # jax[cuda13]

Weak scaling: each device keeps its batch, so computation stays the same and only communication grows. A
step must send each parameter's gradient once per update, and the sums of the batch statistics. A ring's
all-reduce of b bytes over n devices sends 2 (n - 1) / n b from each, an all-gather or reduce-scatter half
of that. Nothing is assumed to overlap with computation; latencies are counted per collective and step of
the ring. scaling.md holds all platforms counted so far.
"""

import argparse
import contextlib
import json
import math
import os
import pathlib
import re
import sys
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from experiments import aot, trial  # noqa: E402

BYTES = {"f32": 4, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "s64": 8, "pred": 1, "u8": 1}
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")
# Platform, and of one device: peak FLOP/s in bfloat16, the fraction that a step reaches, bytes/s in one
# direction, seconds of latency. Assumptions until they are measured.
FABRICS = {
    "TPU v5e, its own network": ("tpu", 197e12, 0.3, 45e9, 1e-6),
    "H100, 400 Gbit/s for each GPU": ("cuda", 989e12, 0.2, 50e9, 5e-6),
    "H100, 25 Gbit/s for each GPU": ("cuda", 989e12, 0.2, 3.1e9, 20e-6),
}
CLASSES = 120
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def collectives(program: str) -> dict[str, dict[str, float]]:
    """Kind -> number in a compiled program, and the bytes of their results on one device."""
    found = {kind: {"count": 0, "bytes": 0} for kind in KINDS}
    for line in program.splitlines():
        match = re.search(r"=\s*(.+?)\s(" + "|".join(KINDS) + r")(-start)?\(", line)
        if match is None:
            continue
        shapes, kind, start = match.groups()
        sizes = [
            BYTES.get(dtype, 4) * math.prod(int(x) for x in dims.split(",") if x)
            for dtype, dims in re.findall(r"(\w+)\[([\d,]*)\]", shapes.replace("u32[]", ""))
        ]
        results = sizes[len(sizes) // 2 :] if start else sizes  # a start lists its operands first
        found[kind]["count"] += 1
        found[kind]["bytes"] += sum(results)
    return {kind: row for kind, row in found.items() if row["count"]}


def measure(config: Any, platform: str, count: int) -> dict[str, Any]:
    """What a step of a config's last phase computes and communicates, compiled for `count` devices."""
    import jax
    import numpy as np
    from jax.sharding import Mesh

    from jaxdog import cost, sharding, types
    from jaxdog.config import build

    checked = build.check(config)
    side = checked.data.stored_resolution
    flops = cost.count_flops(build.phases(checked, CLASSES)[-1], side)
    config.system.batch_size = config.system.batch_size * count  # weak scaling
    phase = build.phases(build.check(config), CLASSES)[-1]
    with contextlib.nullcontext() if platform == "cpu" else aot.target(platform, count):
        mesh = Mesh(np.array(jax.devices()[:count]), (sharding.AXIS,))
        state, step = cost.lower_step(phase, side, mesh, checked.parallel.fsdp)
        program = step.compile()
    nets = [net for net in vars(state).values() if isinstance(net, types.PlayerState)]
    return {
        "devices": count,
        "flops_of_each": flops,
        "parameter_bytes": sum(4 * x.size for net in nets for x in jax.tree.leaves(net.params)),
        "statistics_bytes": sum(4 * x.size for net in nets for x in jax.tree.leaves(net.model_state)),
        "working_bytes": program.memory_analysis().temp_size_in_bytes,
        "collectives": collectives(program.as_text()),
    }


def sent(row: dict[str, Any], n: int) -> tuple[float, float]:
    """(bytes that a device sends in a step over n devices, steps of rings it waits for)."""
    total = waits = 0.0
    for kind, found in row["collectives"].items():
        rings = 2 if kind == "all-reduce" else 1
        total += rings * (n - 1) / n * found["bytes"]
        waits += rings * (n - 1) * found["count"]
    return total, waits


def efficiency(row: dict[str, Any], n: int, fabric: tuple[str, float, float, float, float]) -> float:
    """Speed of n devices relative to n times one device, without overlap."""
    _, peak, share, wire, latency = fabric
    computing = row["flops_of_each"] / (peak * share)
    amount, waits = sent(row, n)
    return computing / (computing + amount / wire + waits * latency)


def table(found: dict[str, dict[str, Any]]) -> str:
    """The counts of all platforms, and the modeled scaling."""
    header = ["compiled for", "devices", "all-reduces", "MB reduced", "parameters, MB", "statistics, MB"]
    lines = []
    for platform, counted in found.items():
        for row in counted["rows"]:
            reduced = row["collectives"].get("all-reduce", {"count": 0, "bytes": 0})
            others = (f"{x['count']} {k}" for k, x in row["collectives"].items() if k != "all-reduce")
            line = [f"{platform}, {counted['dtype']}", row["devices"], reduced["count"]]
            line += [f"{reduced['bytes'] / 1e6:.1f}", f"{row['parameter_bytes'] / 1e6:.1f}"]
            line += [f"{row['statistics_bytes'] / 1e6:.2f}", ", ".join(others) or "none"]
            lines.append([*line, f"{row['working_bytes'] / 1e9:.2f}"])
    counts = trial.markdown([*header, "other collectives", "working memory, GB"], lines)
    lines = []
    for name, fabric in FABRICS.items():
        if fabric[0] in found:
            last = found[fabric[0]]["rows"][-1]
            lines.append([name, *(f"{100 * efficiency(last, n, fabric):.0f} %" for n in COUNTS)])
    return counts + "\n" + trial.markdown(["weak scaling, modeled", *COUNTS], lines)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = trial.command_line(__doc__)
    parser.add_argument("--config", default="biggan")
    parser.add_argument("--platform", default="cpu", choices=("cpu", *aot.BACKENDS))
    parser.add_argument("--batch", type=int, default=32, help="images per device")
    parser.add_argument("--devices", default="2,4,8")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=JSON")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "scaling.json")
    return parser.parse_args()


def config_of(args: argparse.Namespace) -> Any:
    """The config with the command line's changes."""
    config = trial.load_config(args.config)
    config.update_from_flattened_dict({"system.batch_size": args.batch, **trial.overrides(args)})
    return config


def main() -> None:
    """Counts, and adds the counts to the table."""
    args = parse()
    counts = [int(x) for x in args.devices.split(",")]
    os.environ["JAX_PLATFORMS"] = "cpu"
    if args.platform == "cpu":
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={max(counts)}"
    import jax

    rows = []
    for n in counts:
        rows.append(measure(config_of(args), args.platform, n))
        print(json.dumps(rows[-1]), flush=True)
    found = json.loads(args.out.read_text()) if args.out.exists() else {}
    found[args.platform] = {
        "config": args.config,
        "dtype": config_of(args).dtype,
        "batch_of_each": args.batch,
        "set": args.set,
        "jax": jax.__version__,
        "rows": rows,
    }
    trial.write(args.out, found)
    args.out.with_suffix(".md").write_text(text := table(found))
    print(text)


if __name__ == "__main__":
    main()
