"""Images per second of jaxdog's training step and of a plain PyTorch BigGAN of the same size, alternating.

    python experiments/bench/step.py --g_channels 16 --d_channels 16 --out experiments/bench/step.json

Both nets have the same number of parameters, batch, losses, optimiser, one discriminator step per generator
step and an average of the generator. Ours also gathers its batch from 22,125 pictures and mirrors it; PyTorch
gets one batch that is ready. A round is one turn of each; the ratio of a round compares neighbours in time.
PyTorch runs in both of its memory layouts.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import flax
import jax
import numpy as np

from configs import biggan as config_of
from jaxdog import augment, devices, factory, program
from jaxdog.data import batches

HERE = pathlib.Path(__file__).resolve().parent
PICTURES, CLASSES = 22_125, 120


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--g_channels", type=int, default=16)
    parser.add_argument("--d_channels", type=int, default=16)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=2, help="per turn")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of PyTorch; XLA takes all cores")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "step.json")
    return parser.parse_args()


def phase_of(args: argparse.Namespace) -> Any:
    """The one phase of configs/biggan.py at the given widths."""
    config = config_of.get_config()
    config.generator.channels, config.discriminator.channels = args.g_channels, args.d_channels
    config.game.batch_size = args.batch
    return factory.phases(factory.check(config), classes=CLASSES)[0]


def pictures() -> batches.Data:
    """Random pictures as many and as large as the real ones."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (PICTURES, 64, 64, 3), np.uint8)
    label = rng.integers(0, CLASSES, PICTURES, np.int32)
    return devices.put(batches.resident(image, label), devices.everywhere(devices.mesh()))


def ours(args: argparse.Namespace, data: batches.Data) -> tuple[Callable[[], Any], dict[str, int]]:
    """(a turn of `steps` training steps, parameter counts)."""
    functions = program.compiled(phase_of(args), 0, args.steps, devices.mesh())
    state = functions.init(data)
    counts = {
        "g": sum(x.size for x in jax.tree.leaves(state.g.params)),
        "d": sum(x.size for x in jax.tree.leaves(state.d.params)),
    }

    def turn() -> None:
        nonlocal state
        state, scalars = functions.dispatch(state, data, 0.0)
        jax.block_until_ready((state, scalars))

    return turn, counts


def inputs_only(args: argparse.Namespace, data: batches.Data) -> Callable[[], Any]:
    """A turn of `steps` batches gathered and mirrored, and nothing else."""

    @jax.jit
    def one(data: batches.Data, i: jax.Array) -> jax.Array:
        key = jax.random.key(0)
        batch = batches.batch(data, key, i, args.batch)
        return augment.flip(jax.random.fold_in(key, i), batch).image

    def turn() -> None:
        for i in range(args.steps):
            jax.block_until_ready(one(data, np.int32(i)))

    return turn


def theirs(args: argparse.Namespace, channels_last: bool) -> tuple[Callable[[], Any], dict[str, int]]:
    """A turn of PyTorch's steps, and its parameter counts."""
    import torch

    spec = importlib.util.spec_from_file_location("torch_biggan", HERE / "torch_biggan.py")
    assert spec is not None and spec.loader is not None
    twin = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(twin)
    torch.set_num_threads(args.threads)
    g = twin.Generator(args.g_channels, 100, 128, CLASSES, 4)
    d = twin.Discriminator(args.d_channels, CLASSES, 4)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    g, d = g.to(memory_format=layout), d.to(memory_format=layout)
    trainer = twin.Trainer(g, d, 100, CLASSES)
    real = (torch.rand(args.batch, 3, 64, 64) * 2 - 1).contiguous(memory_format=layout)
    label = torch.randint(CLASSES, (args.batch,))

    def turn() -> None:
        for _ in range(args.steps):
            trainer.step(real, label)

    return turn, {name: sum(p.numel() for p in net.parameters()) for name, net in (("g", g), ("d", d))}


def seconds(turn: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    turn()
    return time.perf_counter() - begun


def summary(args: argparse.Namespace, times: dict[str, list[float]]) -> dict[str, Any]:
    """Medians over the rounds."""
    images = args.batch * args.steps
    layouts = [name for name in times if name.startswith("torch")]
    ratios = {name: [a / b for a, b in zip(times[name], times["jaxdog"], strict=True)] for name in layouts}
    return {
        "images_per_second": {
            name: round(images / statistics.median(times[name]), 2) for name in ("jaxdog", *layouts)
        },
        "ratio": {name: round(statistics.median(r), 3) for name, r in ratios.items()},
        "ratio_of_each_round": {name: [round(x, 3) for x in r] for name, r in ratios.items()},
        "input_share": round(statistics.median(times["inputs"]) / statistics.median(times["jaxdog"]), 5),
    }


def main() -> None:
    args = arguments()
    data = pictures()
    ours_turn, our_counts = ours(args, data)
    plain, counts = theirs(args, channels_last=False)
    turns = {
        "jaxdog": ours_turn,
        "torch": plain,
        "torch_channels_last": theirs(args, channels_last=True)[0],
        "inputs": inputs_only(args, data),
    }
    if counts != our_counts:
        raise SystemExit(f"the nets differ: ours have {our_counts} parameters, PyTorch's {counts}")
    for turn in turns.values():  # compilation, first allocations
        turn()
    times: dict[str, list[float]] = {name: [] for name in turns}
    for i in range(args.rounds):
        for name, turn in turns.items():
            times[name].append(seconds(turn))
        print(
            f"round {i + 1}: " + ", ".join(f"{name} {t[-1]:.3f} s" for name, t in times.items()), flush=True
        )
    import torch

    setting = {key: value for key, value in vars(args).items() if key != "out"}
    versions = {"jax": jax.__version__, "flax": flax.__version__, "torch": torch.__version__}
    machine = {"cores": os.cpu_count(), "processor": platform.machine()}
    result = {"parameters": our_counts, **summary(args, times), "setting": setting, **versions, **machine}
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
