"""What a training step sends over the wire, counted in the compiled program, and what weak scaling it leaves.

    python experiments/bench/scaling.py --config biggan --channels 16 --devices 2,4,8

Weak scaling: each device keeps its batch, so its computation stays the same and only communication grows. The
step is compiled for so many devices (fake ones of this host) and every collective in it is counted. That is
held against what the step must send: each parameter's gradient once, for each player's update, and the sums
of the batch statistics. A ring's all-reduce of b bytes over n devices sends 2 (n - 1) / n b from each; an
all-gather or a reduce-scatter sends half of that. Nothing is assumed to overlap with computation, which is
the worst case; latencies are counted per collective and step of the ring.
"""

import argparse
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

BYTES = {"f32": 4, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "s64": 8, "pred": 1, "u8": 1}
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")
# Of one device: its peak in bfloat16 operations/s, the share of it that a step reaches, bytes/s in one
# direction, seconds to a neighbour. Assumptions, all of them, until they are measured.
FABRICS = {
    "TPU v5e, its own network": (197e12, 0.3, 45e9, 1e-6),
    "H100, 400 Gbit/s for each GPU": (989e12, 0.2, 50e9, 5e-6),
    "H100, 25 Gbit/s for each GPU": (989e12, 0.2, 3.1e9, 20e-6),
}
TO = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def collectives(program: str) -> dict[str, dict[str, float]]:
    """Kind -> how often it stands in a compiled program, and the bytes of its results on a device."""
    found = {kind: {"count": 0, "bytes": 0} for kind in KINDS}
    for line in program.splitlines():
        match = re.search(r"=\s*(.+?)\s(" + "|".join(KINDS) + r")(?:-start)?\(", line)
        if match is None:
            continue
        shapes, kind = match.groups()
        found[kind]["count"] += 1
        for dtype, dims in re.findall(r"(\w+)\[([\d,]*)\]", shapes):
            count = math.prod(int(x) for x in dims.split(",") if x)
            found[kind]["bytes"] += count * BYTES.get(dtype, 4)
    return {kind: row for kind, row in found.items() if row["count"]}


def compiled(config: Any, devices_used: int) -> dict[str, Any]:
    """What a step of a config's last phase computes and sends, compiled for so many devices."""
    import jax
    import numpy as np
    from jax.sharding import Mesh

    from jaxdog import costs, devices, factory, system

    over = Mesh(np.array(jax.devices()[:devices_used]), (devices.AXIS,))
    config.game.batch_size = config.game.batch_size * devices_used  # weak scaling
    checked = factory.check(config)
    phase = factory.phases(checked, 120)[-1]
    state, step = costs.lowered(phase, checked.data.store_size, over, checked.devices.deal_state)
    made = step.compile()
    nets = [net for net in vars(state).values() if isinstance(net, system.Net)]
    return {
        "devices": devices_used,
        "flops_of_each": (made.cost_analysis() or {}).get("flops"),
        "parameter_bytes": sum(4 * x.size for net in nets for x in jax.tree.leaves(net.params)),
        "statistics_bytes": sum(4 * x.size for net in nets for x in jax.tree.leaves(net.stats)),
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


def efficiency(row: dict[str, Any], n: int, fabric: tuple[float, float, float, float]) -> float:
    """Share of n times one device's speed that is left, all communication waited for."""
    peak, share, wire, latency = fabric
    computing = row["flops_of_each"] / (peak * share)
    amount, waits = sent(row, n)
    return computing / (computing + amount / wire + waits * latency)


def table(rows: list[dict[str, Any]]) -> str:
    """What was counted, and what follows from it."""
    lines = ["| devices | all-reduces | MB reduced | gradients, MB | statistics, MB | other collectives |"]
    lines += ["|---|---|---|---|---|---|"]
    for row in rows:
        reduced = row["collectives"].get("all-reduce", {"count": 0, "bytes": 0})
        others = ", ".join(f"{x['count']} {k}" for k, x in row["collectives"].items() if k != "all-reduce")
        lines.append(
            f"| {row['devices']} | {reduced['count']} | {reduced['bytes'] / 1e6:.2f} | "
            f"{row['parameter_bytes'] / 1e6:.2f} | {row['statistics_bytes'] / 1e6:.3f} | {others or 'none'} |"
        )
    lines += [
        "",
        "| weak scaling, modelled | " + " | ".join(map(str, TO)) + " |",
        "|---" * (len(TO) + 1) + "|",
    ]
    for name, fabric in FABRICS.items():
        shares = " | ".join(f"{100 * efficiency(rows[-1], n, fabric):.0f} %" for n in TO)
        lines.append(f"| {name} | {shares} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="biggan")
    parser.add_argument("--channels", type=int, default=0, help="of both networks; 0: the config's")
    parser.add_argument("--batch", type=int, default=32, help="of each device")
    parser.add_argument("--devices", default="2,4,8")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=JSON")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "scaling.json")
    args = parser.parse_args()
    counts = [int(x) for x in args.devices.split(",")]
    os.environ["XLA_FLAGS"] = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={max(counts)}"
    )
    rows = []
    for n in counts:
        config = importlib.import_module(f"configs.{args.config}").get_config()
        config.game.batch_size = args.batch
        if args.channels:
            config.generator.channels = config.discriminator.channels = args.channels
        fields = (x.partition("=") for x in args.set)
        config.update_from_flattened_dict({field: json.loads(value) for field, _, value in fields})
        rows.append(compiled(config, n))
        print(json.dumps(rows[-1]), flush=True)
    result = {
        "setting": {k: v for k, v in vars(args).items() if k != "out"},
        "counted": rows,
        "fabrics": FABRICS,
        "weak_scaling": {
            name: {n: efficiency(rows[-1], n, fabric) for n in TO} for name, fabric in FABRICS.items()
        },
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    args.out.with_suffix(".md").write_text(table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
