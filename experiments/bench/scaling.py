"""What a training step sends over the wire, counted in the compiled program, and what weak scaling it leaves.

    python experiments/bench/scaling.py --devices 2,8      # fake devices of this host
    python experiments/bench/scaling.py --platform tpu --devices 8,256 --set 'dtype="bfloat16"'  # jax[tpu]
    python experiments/bench/scaling.py --platform cuda --devices 2,8 --set 'dtype="bfloat16"'   # jax[cuda13]

Weak scaling: each device keeps its batch, so its computation stays the same and only communication grows. The
step is compiled for so many devices, of which none need be there, and every collective in it is counted. That
is held against what the step must send: each parameter's gradient once, for each player's update, and the
sums of the batch statistics. A ring's all-reduce of b bytes over n devices sends 2 (n - 1) / n b from each;
an all-gather or a reduce-scatter sends half of that. Nothing is assumed to overlap with computation, which is
the worst case; latencies are counted per collective and step of the ring. scaling.md is made of all platforms
that have been counted.
"""

import argparse
import contextlib
import importlib
import json
import math
import os
import pathlib
import re
import sys
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from experiments import absent  # noqa: E402

BYTES = {"f32": 4, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "s64": 8, "pred": 1, "u8": 1}
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")
# The platform, and of one device: its peak in bfloat16 operations/s, the share of it that a step reaches,
# bytes/s in one direction, seconds to a neighbour. Assumptions, all of them, until they are measured.
FABRICS = {
    "TPU v5e, its own network": ("tpu", 197e12, 0.3, 45e9, 1e-6),
    "H100, 400 Gbit/s for each GPU": ("cuda", 989e12, 0.2, 50e9, 5e-6),
    "H100, 25 Gbit/s for each GPU": ("cuda", 989e12, 0.2, 3.1e9, 20e-6),
}
PLATFORMS = ("cpu", *absent.BACKENDS)
CLASSES = 120
TO = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def collectives(program: str) -> dict[str, dict[str, float]]:
    """Kind -> how often it stands in a compiled program, and the bytes of its results on a device."""
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
        results = sizes[len(sizes) // 2 :] if start else sizes  # a start names its operands first
        found[kind]["count"] += 1
        found[kind]["bytes"] += sum(results)
    return {kind: row for kind, row in found.items() if row["count"]}


def compiled(config: Any, platform: str, devices_used: int) -> dict[str, Any]:
    """What a step of a config's last phase computes and sends, compiled for so many devices."""
    import jax
    import numpy as np
    from jax.sharding import Mesh

    from jaxdog import cost, sharding, types
    from jaxdog.config import build

    side = config.data.store_size
    operations = cost.flops(build.phases(build.check(config), CLASSES)[-1], side)
    config.game.batch_size = config.game.batch_size * devices_used  # weak scaling
    checked = build.check(config)
    phase = build.phases(checked, CLASSES)[-1]
    with contextlib.nullcontext() if platform == "cpu" else absent.present(platform, devices_used):
        over = Mesh(np.array(jax.devices()[:devices_used]), (sharding.AXIS,))
        state, step = cost.lowered(phase, side, over, checked.devices.deal_state)
        made = step.compile()
    nets = [net for net in vars(state).values() if isinstance(net, types.Net)]
    return {
        "devices": devices_used,
        "flops_of_each": operations,
        "parameter_bytes": sum(4 * x.size for net in nets for x in jax.tree.leaves(net.params)),
        "statistics_bytes": sum(4 * x.size for net in nets for x in jax.tree.leaves(net.stats)),
        "working_bytes": made.memory_analysis().temp_size_in_bytes,
        "collectives": collectives(made.as_text()),
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
    """Share of n times one device's speed that is left, all communication waited for."""
    _, peak, share, wire, latency = fabric
    computing = row["flops_of_each"] / (peak * share)
    amount, waits = sent(row, n)
    return computing / (computing + amount / wire + waits * latency)


def table(found: dict[str, dict[str, Any]]) -> str:
    """What was counted by platform, and what follows from it."""
    lines = [
        "| compiled for | devices | all-reduces | MB reduced | parameters, MB | statistics, MB | "
        "other collectives | working memory, GB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for platform, counted in found.items():
        for row in counted["rows"]:
            reduced = row["collectives"].get("all-reduce", {"count": 0, "bytes": 0})
            others = (f"{x['count']} {k}" for k, x in row["collectives"].items() if k != "all-reduce")
            lines.append(
                f"| {platform}, {counted['dtype']} | {row['devices']} | {reduced['count']} | "
                f"{reduced['bytes'] / 1e6:.1f} | {row['parameter_bytes'] / 1e6:.1f} | "
                f"{row['statistics_bytes'] / 1e6:.2f} | {', '.join(others) or 'none'} | "
                f"{row['working_bytes'] / 1e9:.2f} |"
            )
    lines += [
        "",
        "| weak scaling, modelled | " + " | ".join(map(str, TO)) + " |",
        "|---" * (len(TO) + 1) + "|",
    ]
    for name, fabric in FABRICS.items():
        if fabric[0] in found:
            last = found[fabric[0]]["rows"][-1]
            shares = " | ".join(f"{100 * efficiency(last, n, fabric):.0f} %" for n in TO)
            lines.append(f"| {name} | {shares} |")
    return "\n".join(lines) + "\n"


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="biggan")
    parser.add_argument("--platform", default="cpu", choices=PLATFORMS)
    parser.add_argument("--channels", type=int, default=0, help="of both networks; 0: the config's")
    parser.add_argument("--batch", type=int, default=32, help="of each device")
    parser.add_argument("--devices", default="2,4,8")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=JSON")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "scaling.json")
    return parser.parse_args()


def config_of(args: argparse.Namespace) -> Any:
    """The config, as the command line changes it."""
    config = importlib.import_module(f"configs.{args.config}").get_config()
    config.game.batch_size = args.batch
    if args.channels:
        config.generator.channels = config.discriminator.channels = args.channels
    fields = (x.partition("=") for x in args.set)
    config.update_from_flattened_dict({field: json.loads(value) for field, _, value in fields})
    return config


def main() -> None:
    """Counts, and adds what was counted to the table."""
    args = parse()
    counts = [int(x) for x in args.devices.split(",")]
    os.environ["JAX_PLATFORMS"] = "cpu"
    if args.platform == "cpu":
        os.environ["XLA_FLAGS"] = (
            f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={max(counts)}"
        )
    import jax

    rows = []
    for n in counts:
        rows.append(compiled(config_of(args), args.platform, n))
        print(json.dumps(rows[-1]), flush=True)
    found = json.loads(args.out.read_text()) if args.out.exists() else {}
    found[args.platform] = {
        "config": args.config,
        "dtype": config_of(args).dtype,
        "batch_of_each": args.batch,
        "channels": args.channels,
        "set": args.set,
        "jax": jax.__version__,
        "rows": rows,
    }
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    args.out.with_suffix(".md").write_text(said := table(found))
    print(said)


if __name__ == "__main__":
    main()
