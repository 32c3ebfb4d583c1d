"""Images per second of training steps and of plain PyTorch trainers of the same sizes, in turns.

    python experiments/bench/step.py --set system.batch_size=8    # every family at full width
    python experiments/bench/step.py --narrow                     # at the widths of the CPU experiments
    python experiments/bench/step.py --only biggan --set system.batch_size=32 generator.channels=16

A family is a config. Both sides have the same parameter counts, batch, losses, regularizers, optimizers and
EMA. Ours also gathers and mirrors its batch; PyTorch gets a batch that is ready, and runs in both of its
memory layouts. A round is one turn of each, and the ratio of a round compares adjacent turns. The same
process measures what a matrix product and a convolution reach, and what a line of the log costs. Each
family has a process of its own and leaves rows/NAME.json (or NAME-narrow.json); table.md and table.png are
made of all rows that are there.
"""

import argparse
import itertools
import os
import pathlib
import statistics
import sys
import tempfile
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from experiments import trial  # noqa: E402
from experiments.entries import run as entries  # noqa: E402

FAMILIES = ("biggan", "lsgan_sn", "sagan", "progan", "stylegan")
LAYOUTS = {"torch": "contiguous_format", "torch_channels_last": "channels_last"}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = trial.parser(__doc__, FAMILIES)
    parser.set_defaults(kimg=1.0)  # any: nothing is trained to its end
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4, help="per turn")
    parser.add_argument("--compile", action="store_true", help="torch.compile as well")
    return parser.parse_args()


def config_of(name: str, args: argparse.Namespace) -> Any:
    """A family's config at the widths of experiments/entries."""
    from experiments import timing

    return timing.without_fades(entries.config_of(name, args)[0])


def input_turn(data: Any, b: int, k: int) -> Any:
    """A turn of k batches gathered and mirrored, and nothing else."""
    import jax
    import numpy as np

    from jaxdog.augment import transforms
    from jaxdog.data import batches

    @jax.jit
    def one(data: batches.Data, i: jax.Array) -> jax.Array:
        key = jax.random.key(0)
        batch = batches.batch(data, key, i, b)
        return transforms.flip(jax.random.fold_in(key, i), batch).image

    def turn() -> None:
        for i in range(k):
            jax.block_until_ready(one(data, np.int32(i)))

    return turn


def log_turn(scalars: Any, folder: str) -> Any:
    """A turn that fetches the scalars of a turn and writes them as a line of the log."""
    import jax
    import numpy as np

    from jaxdog.training import writers

    writer, steps = writers.Writer(folder), itertools.count(1)

    def turn() -> None:
        means = {name: float(np.mean(x)) for name, x in jax.device_get(scalars).items()}
        writer.log(next(steps), means)

    return turn


def alternate(name: str, turns: dict[str, Any], rounds: int) -> dict[str, list[float]]:
    """Seconds of each turn of each round, after a round that counts for nothing."""
    from experiments import timing

    for turn in turns.values():  # first allocations, compilation
        turn()
    times: dict[str, list[float]] = {key: [] for key in turns}
    for i in range(rounds):
        for key, turn in turns.items():
            times[key].append(timing.seconds(turn))
        latest = ", ".join(f"{key} {t[-1]:.3f} s" for key, t in times.items())
        print(f"{name}, round {i + 1}: {latest}", flush=True)
    return times


def summary(images: int, times: dict[str, list[float]], lines: float) -> dict[str, Any]:
    """Medians over the rounds, `lines` of the log in each turn; ratios above 1: jaxdog is faster."""
    own = statistics.median(times["jaxdog"])
    pairs = {
        name: "jaxdog draws" if name.endswith("draws") else "jaxdog"
        for name in times
        if name.startswith("torch")
    }
    ratios = {
        name: [a / b for a, b in zip(times[name], times[ours], strict=True)] for name, ours in pairs.items()
    }
    return {
        "images_per_second": {
            name: round(images / statistics.median(times[name]), 2) for name in (*pairs, *set(pairs.values()))
        },
        "ratio": {name: round(statistics.median(r), 3) for name, r in ratios.items()},
        "ratio_of_each_round": {name: [round(x, 3) for x in r] for name, r in ratios.items()},
        "seconds_per_kimg": round(1000 * own / images, 2),
        "input_share": round(statistics.median(times["inputs"]) / own, 5),
        "log_share": round(lines * statistics.median(times["log line"]) / own, 5),
    }


def measure(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """The record of one family."""
    import jax
    import torch

    from experiments import timing
    from experiments.bench import torch_trainers

    if hasattr(os, "sched_getaffinity"):  # elsewhere PyTorch uses all cores, as XLA does
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    config = config_of(name, args)
    data = timing.random_data(timing.stored_resolution(config))
    k, b = args.steps, config.system.batch_size
    functions, state = timing.initialized(config, data, k)
    params = jax.device_get({"g": state.g.params, "d": state.d.params})
    program, cost = timing.compile_steps(functions, state, data)
    draw = timing.sampler(config, state, k)
    turns = {"jaxdog": timing.stepper(program, state, data), "jaxdog draws": draw}
    counts = [timing.count(params[player]) for player in ("g", "d")]
    for layout, torch_name in LAYOUTS.items():
        for compiled in (False, True)[: 1 + args.compile]:
            key = f"{layout}_compiled" if compiled else layout
            players = torch_trainers.compilable(config) if compiled else ""
            peer = torch_trainers.turns(config, params, timing.CLASSES, k, torch_name, players)
            turns[key], turns[f"{key} draws"], peer_counts = peer
            if peer_counts != counts:
                sys.exit(f"the networks differ: ours have {counts} parameters, PyTorch's {peer_counts}")
    turns["inputs"] = input_turn(data, b, k)
    with tempfile.TemporaryDirectory() as folder:
        turns["log line"] = log_turn(turns["jaxdog"](), folder)
        times = alternate(name, turns, args.rounds)
    result = summary(k * b, times, k / config.train.log_every)
    flop = timing.flops(config, -1) / b
    return {
        "name": name,
        "parameters": counts,
        "batch_size": b,
        **result,
        **cost,
        "gflop_per_image": flop / 1e9,
        "gflops": flop * result["images_per_second"]["jaxdog"] / 1e9,
        **timing.limits(),
        "set": args.set,
        "narrow": args.narrow,
        "device": f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores",
        **timing.versions(),
        "torch": torch.__version__,
    }


def title(row: dict[str, Any]) -> str:
    """A row's name in the table."""
    return f"{row['name']}, narrow" if row["narrow"] else row["name"]


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    header = ["config", "parameters G, D", "batch", "images/s", "s/kimg", "PyTorch", "channels last"]
    header += ["both, sampling", "GFLOP/s: step, matrix product, convolution", "s to compile", "temporary GB"]
    header += ["inputs", "log"]
    lines = []
    for row in rows:
        ratio, rounds = row["ratio"], row["ratio_of_each_round"]
        line = [title(row), "{:,}, {:,}".format(*row["parameters"]), row["batch_size"]]
        line += [f"{row['images_per_second']['jaxdog']:.1f}", f"{row['seconds_per_kimg']:.1f}"]
        line += [f"{ratio[x]:.2f} ({min(rounds[x]):.2f} to {max(rounds[x]):.2f})" for x in LAYOUTS]
        line.append(", ".join(f"{ratio[f'{x} draws']:.2f}" for x in LAYOUTS))
        line.append(", ".join(f"{row[x]:.0f}" for x in ("gflops", "matmul_gflops", "conv_gflops")))
        line += [f"{row['compile_seconds']:.0f}", f"{row['temporary_gb']:.2f}"]
        line += [f"{100 * row[x]:.2f} %" for x in ("input_share", "log_share")]
        lines.append(line)
    return trial.markdown(header, lines)


def figure(rows: list[dict[str, Any]], path: pathlib.Path) -> None:
    """Bars: the ratio to PyTorch in either layout; whiskers from the worst to the best round."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(1.5 + 1.1 * len(rows), 3.6), layout="constrained")
    axes = drawn.add_subplot()
    for shift, layout in ((-0.2, "torch"), (0.2, "torch_channels_last")):
        ratio = [row["ratio"][layout] for row in rows]
        rounds = [row["ratio_of_each_round"][layout] for row in rows]
        below = [x - min(r) for x, r in zip(ratio, rounds, strict=True)]
        above = [max(r) - x for x, r in zip(ratio, rounds, strict=True)]
        at = [i + shift for i in range(len(rows))]
        label = layout.replace("_", ", ", 1).replace("_", " ")
        axes.bar(at, ratio, 0.4, yerr=[below, above], capsize=2, label=label)
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(rows)), [title(row).replace(", ", "\n") for row in rows], fontsize=8)
    axes.set_ylabel("jaxdog's images/s relative to PyTorch's")
    axes.legend(fontsize=8)
    drawn.savefig(path, dpi=110)


def main() -> None:
    """Measures the families one after the other and makes the table."""
    args = parse()
    if args.one:
        suffix = "-narrow" if args.narrow else ""
        trial.write(HERE / "rows" / f"{args.one}{suffix}.json", measure(args.one, args))
        return
    failed = trial.run_tasks(__file__, [trial.Task(name) for name in args.only], args.jobs)
    found = trial.read_rows(HERE / "rows")
    names = [f"{name}{suffix}" for suffix in ("", "-narrow") for name in FAMILIES]
    rows = [found[name] for name in names if name in found]
    (HERE / "table.md").write_text(text := table(rows))
    figure(rows, HERE / "table.png")
    print(text)
    if failed:
        sys.exit(f"these failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
