"""Images per second of jaxdog's training steps and of plain PyTorch ones of the same sizes, alternating.

    python experiments/bench/step.py --set game.batch_size=8    # every family at full width
    python experiments/bench/step.py --narrow                   # at the widths of the CPU experiments
    python experiments/bench/step.py --only biggan --set game.batch_size=32 generator.channels=16

A family is a config. Both sides have the same number of parameters, batch, losses, penalties, optimiser and
average of the generator. Ours also gathers its batch from 22,125 pictures and mirrors it; PyTorch gets one
batch that is ready, and runs in both of its memory layouts. A round is one turn of each; the ratio of a round
compares neighbours in time. The same process measures what a matrix product and a convolution reach on this
machine, and what a line of the log costs (numbers fetched, JSON and TensorBoard written). Each family has a
process of its own and leaves rows/NAME.json (or NAME-narrow.json) beside this file; table.md and table.png
are made of all rows that are there.
"""

import argparse
import itertools
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from experiments import trial  # noqa: E402
from experiments.entries import run as entries  # noqa: E402

PICTURES, CLASSES = 22_125, 120
FAMILIES = ("biggan", "lsgan_sn", "sagan", "progan", "stylegan")
LAYOUTS = {"torch": "contiguous_format", "torch_channels_last": "channels_last"}
Turn = Callable[[], Any]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = trial.parser(__doc__)
    parser.set_defaults(kimg=1.0)  # any: nothing is trained to its end
    parser.add_argument("--only", default=",".join(FAMILIES), help="configs, separated by commas")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4, help="per turn")
    parser.add_argument("--compile", action="store_true", help="PyTorch's networks compiled, too")
    return parser.parse_args()


def config_of(name: str, args: argparse.Namespace) -> Any:
    """A family's config at the widths of the table of entries."""
    return unfaded(entries.config_of(name, args)[0])


def unfaded(config: Any) -> Any:
    """The same without fades, if it has any: the last phase's networks are whole from its first step."""
    if "fade" in config.game:
        config.game.fade = (0.0,) * len(config.game.fade)
    return config


def pictures(side: int, n: int = PICTURES) -> Any:
    """Random pictures, as many and as large as the real ones, on the devices."""
    import numpy as np

    from jaxdog import sharding
    from jaxdog.data import batches

    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (n, side, side, 3), np.uint8)
    label = rng.integers(0, CLASSES, n, np.int32)
    return sharding.put(batches.resident(image, label), sharding.everywhere(sharding.mesh()))


def last(config: Any) -> Any:
    """A config's last phase."""
    from jaxdog.config import build

    return build.phases(build.check(config), CLASSES)[-1]


def begun(config: Any, data: Any, k: int) -> tuple[Any, Any]:
    """The functions of a config's last phase, and its first state."""
    from jaxdog import sharding
    from jaxdog.training import train_step

    functions = train_step.compiled(last(config), 0, k, sharding.mesh())
    return functions, functions.init(data)


def parameters(config: Any) -> dict[str, Any]:
    """Those that both players begin with, on the host."""
    import jax

    _, state = begun(config, pictures(config.data.store_size, 64), 1)
    return jax.device_get({"g": state.g.params, "d": state.d.params})


def ours(config: Any, data: Any, k: int) -> tuple[Turn, Turn, dict[str, Any], dict[str, float]]:
    """(a turn of k training steps, one that draws as many pictures, parameters of both players, costs)."""
    import jax

    functions, state = begun(config, data, k)
    params = jax.device_get({"g": state.g.params, "d": state.d.params})
    mark = time.perf_counter()
    dispatch = functions.dispatch.lower(state, data, 0.0).compile()
    found = {"compile_seconds": time.perf_counter() - mark}
    found["temporary_gb"] = dispatch.memory_analysis().temp_size_in_bytes / 1e9

    def turn() -> Any:
        nonlocal state
        state, scalars = dispatch(state, data, 0.0)
        return jax.block_until_ready((state, scalars))[1]

    return turn, drawer(config, state, k), params, found


def drawer(config: Any, state: Any, k: int) -> Turn:
    """A turn that draws the pictures of k batches from a state of a config's last phase, to the host."""
    import jax
    import numpy as np

    from jaxdog import sharding
    from jaxdog.evaluation import evaluate
    from jaxdog.training import train_step

    drawn, over, label = last(config).system, sharding.mesh(), np.arange(k * config.game.batch_size) % CLASSES
    key = train_step.key_for(0, train_step.SUBMIT)
    ready = jax.block_until_ready(evaluate.prepared(drawn, jax.tree.map(lambda x: x.copy(), state), key))
    make = evaluate.painter(drawn, sharding.everywhere(over))

    def draw() -> None:
        for index, breed in evaluate.draws(label.astype(np.int32), config.game.batch_size, over):
            np.asarray(make(ready, key, index, breed))

    return draw


def inputs_only(data: Any, b: int, k: int) -> Turn:
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


def line_only(scalars: Any, folder: str) -> Turn:
    """A turn that writes these numbers of a dispatch as a line of the log, and nothing else."""
    import jax
    import numpy as np

    from jaxdog.training import writers

    writer, steps = writers.Writer(folder), itertools.count(1)

    def turn() -> None:
        numbers = {name: float(np.mean(x)) for name, x in jax.device_get(scalars).items()}
        writer.log(next(steps), numbers)

    return turn


def compilable(config: Any) -> str:
    """The players that torch.compile can make: it has no gradients of gradients, which penalties need."""
    return "g" if config.game.d_penalties else "gd"


def theirs(
    config: Any, params: dict[str, Any], k: int, layout: str, compiled: str = "", half: bool = False
) -> tuple[Turn, Turn, list[int]]:
    """A turn of k of PyTorch's steps on its default device, one that draws as many pictures (uint8, on the
    host), and its players' parameter counts.

    Args:
      config: a family's.
      params: jaxdog's, by player, at which networks begin that are functions.
      k: steps.
      layout: one of LAYOUTS' values.
      compiled: the players that torch.compile makes: none, or as `compilable` has them.
      half: whether they compute in bfloat16.
    """
    import torch

    from experiments.bench import torch_games

    form = getattr(torch, layout)
    g, d = torch_games.networks(config, params, CLASSES, form)
    g, d = (
        net._replace(call=torch.compile(net.call)) if name in compiled else net
        for name, net in (("g", g), ("d", d))
    )
    trainer = torch_games.Trainer(g, d, config, CLASSES)
    b, size = config.game.batch_size, config.game.size
    real = (torch.rand(b, 3, size, size) * 2 - 1).contiguous(memory_format=form)
    label = torch.randint(CLASSES, (b,))

    def turn() -> None:
        with torch.autocast(real.device.type, torch.bfloat16, enabled=half):
            for _ in range(k):
                trainer.step(real, label)
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    def draw() -> None:
        with torch.inference_mode(), torch.autocast(real.device.type, torch.bfloat16, enabled=half):
            for _ in range(k):
                made = trainer.made(label)[0].add(1.0).mul(127.5).round().clamp(0, 255)
                made.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()

    return turn, draw, [sum(x.numel() for x in player.params) for player in (g, d)]


def peaks(n: int, maps: tuple[int, int, int], dtype: str = "float32") -> dict[str, tuple[Turn, float]]:
    """A matrix product of n and a 3x3 convolution of maps (pictures, height, channels), and their operations.

    Products with zeros around the maps do not count, as XLA counts.
    """
    import jax
    import jax.numpy as jnp

    b, h, c = maps
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = (n, n), (n, n), (b, h, h, c), (3, 3, c, c)
    one, other, x, kernel = (
        jax.random.normal(key, shape, jnp.dtype(dtype)) for key, shape in zip(keys, shapes, strict=True)
    )
    product = jax.jit(jnp.matmul)

    @jax.jit
    def convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    return {
        "matmul": (lambda: product(one, other), 2.0 * n**3),
        "conv": (lambda: convolution(x, kernel), 2.0 * b * (3 * h - 2) ** 2 * c**2),
    }


def limits(seconds: float = 2.0) -> dict[str, float]:
    """GFLOP/s of a matrix product of 1024 and of a 3x3 convolution of 128 channels at 16x16, 32 pictures."""
    import jax

    def measured(run: Turn, flop: float) -> float:
        turn = trial.rate(lambda: jax.block_until_ready(run()), 1, seconds)
        return flop * turn["images_per_second"] / 1e9

    return {f"{name}_gflops": measured(*peak) for name, peak in peaks(1024, (32, 16, 128)).items()}


def seconds(turn: Turn) -> float:
    """Of one turn."""
    mark = time.perf_counter()
    turn()
    return time.perf_counter() - mark


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


def alternating(name: str, turns: dict[str, Turn], rounds: int) -> dict[str, list[float]]:
    """Seconds of each turn of each round, after a round that counts for nothing."""
    for turn in turns.values():  # first allocations, compilation
        turn()
    times: dict[str, list[float]] = {told: [] for told in turns}
    for i in range(rounds):
        for told, turn in turns.items():
            times[told].append(seconds(turn))
        said = ", ".join(f"{told} {t[-1]:.3f} s" for told, t in times.items())
        print(f"{name}, round {i + 1}: {said}", flush=True)
    return times


def one(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Measures one family."""
    import flax
    import jax
    import torch

    if hasattr(os, "sched_getaffinity"):  # elsewhere PyTorch takes all cores, as XLA does
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    config = config_of(name, args)
    data, k, b = pictures(config.data.store_size), args.steps, config.game.batch_size
    turn, draw, params, found = ours(config, data, k)
    counts = [sum(x.size for x in jax.tree.leaves(params[player])) for player in ("g", "d")]
    turns: dict[str, Turn] = {"jaxdog": turn, "jaxdog draws": draw}
    for layout, form in LAYOUTS.items():
        for compiled in (False, True)[: 1 + args.compile]:
            told = f"{layout}_compiled" if compiled else layout
            players = compilable(config) if compiled else ""
            turns[told], turns[f"{told} draws"], count = theirs(config, params, k, form, players)
            if count != counts:
                raise SystemExit(f"the nets differ: ours have {counts} parameters, PyTorch's {count}")
    turns["inputs"] = inputs_only(data, b, k)
    with tempfile.TemporaryDirectory() as folder:
        turns["log line"] = line_only(turns["jaxdog"](), folder)
        times = alternating(name, turns, args.rounds)
    measured = summary(k * b, times, k / config.train.log_every)
    flop, peak = trial.flops(config, -1) / b, limits()
    return {
        "name": name,
        "parameters": counts,
        "batch_size": b,
        **measured,
        **found,
        "gflop_per_image": flop / 1e9,
        "gflops": flop * measured["images_per_second"]["jaxdog"] / 1e9,
        **peak,
        "set": args.set,
        "narrow": args.narrow,
        "device": f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores",
        **{package.__name__: package.__version__ for package in (jax, flax, torch)},
    }


def row_at(name: str, narrow: bool) -> pathlib.Path:
    """Where a family's row is."""
    return HERE / "rows" / f"{name}{'-narrow' if narrow else ''}.json"


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| config | parameters G, D | batch | images/s | s/kimg | against PyTorch | "
        "against its channels last | both, drawing | GFLOP/s: step, matrix product, convolution | "
        "s to compile | temporary GB | inputs | log |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        apart = {
            layout: f"{row['ratio'][layout]:.2f} ({min(r):.2f} to {max(r):.2f})"
            for layout, r in row["ratio_of_each_round"].items()
        }
        lines.append(
            f"| {title(row)} | {row['parameters'][0]:,}, {row['parameters'][1]:,} | {row['batch_size']} | "
            f"{row['images_per_second']['jaxdog']:.1f} | {row['seconds_per_kimg']:.1f} | {apart['torch']} | "
            f"{apart['torch_channels_last']} | "
            f"{row['ratio']['torch draws']:.2f}, {row['ratio']['torch_channels_last draws']:.2f} | "
            f"{row['gflops']:.0f}, {row['matmul_gflops']:.0f}, {row['conv_gflops']:.0f} | "
            f"{row['compile_seconds']:.0f} | {row['temporary_gb']:.2f} | {100 * row['input_share']:.2f} % | "
            f"{100 * row['log_share']:.2f} % |"
        )
    return "\n".join(lines) + "\n"


def title(row: dict[str, Any]) -> str:
    """What a row is called."""
    return f"{row['name']}, narrow" if row["narrow"] else row["name"]


def figure(rows: list[dict[str, Any]], path: pathlib.Path) -> None:
    """Bars: how many times PyTorch's speed, in either layout; whiskers from the worst to the best round."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(1.5 + 1.1 * len(rows), 3.6), layout="constrained")
    axes = drawn.add_subplot()
    for shift, layout in ((-0.2, "torch"), (0.2, "torch_channels_last")):
        ratio = [row["ratio"][layout] for row in rows]
        rounds = [row["ratio_of_each_round"][layout] for row in rows]
        reach = [
            [x - min(r) for x, r in zip(ratio, rounds, strict=True)],
            [max(r) - x for x, r in zip(ratio, rounds, strict=True)],
        ]
        at = [i + shift for i in range(len(rows))]
        axes.bar(at, ratio, 0.4, yerr=reach, capsize=2, label=layout.replace("_", ", ").replace(", l", " l"))
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(rows)), [title(row).replace(", ", "\n") for row in rows], fontsize=8)
    axes.set_ylabel("jaxdog's images/s to PyTorch's")
    axes.legend(fontsize=8)
    drawn.savefig(path, dpi=110)


def main() -> None:
    """Measures the families one after the other, and makes the table."""
    args = parse()
    if args.one:
        trial.write(row_at(args.one, args.narrow), one(args.one, args))
        return
    failed = trial.side_by_side(__file__, [trial.Job(name) for name in args.only.split(",")], args.jobs)
    paths = [row_at(name, narrow) for narrow in (False, True) for name in FAMILIES]
    rows = [json.loads(path.read_text()) for path in paths if path.exists()]
    (HERE / "table.md").write_text(said := table(rows))
    figure(rows, HERE / "table.png")
    print(said)
    if failed:
        sys.exit(f"these failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
