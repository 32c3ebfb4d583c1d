"""Everything that minutes on a lent GPU are good for, in one command each; JSON and small files come back.

    python experiments/gpu/run.py speed --out DIR                        # images/s of full-width configs
    python experiments/gpu/run.py train --out DIR --crops .pack/crops.zip --config biggan --minutes 8

`speed` times the training step in float32 and bfloat16, and a plain PyTorch BigGAN beside ours in the same
run. `train` trains on packed crops and leaves the averaged generator as .npz parts below 15 MiB, the log and
a sheet; `score.py` draws and scores 10,000 pictures of it elsewhere. `--set FIELD=JSON` changes a config.
"""

import argparse
import importlib
import json
import pathlib
import statistics
import sys
import time
import zipfile
from collections.abc import Callable
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from experiments import trial  # noqa: E402

CONFIGS = "biggan,lsgan_sn,rals_ac_biggan,dog_biggan,leaky_biggan,biggan96_style,sngan,stylegan2"
TORCH = ("tf32", "tf32 channels_last", "bf16 channels_last", "tf32 compile", "bf16 channels_last compile")
PART = 15 * 2**20  # bytes of an .npz part


def parse() -> argparse.Namespace:
    """The command line."""
    parser = trial.parser(__doc__)
    parser.add_argument("what", choices=("speed", "train"))
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--config", default="biggan", help="train: a file of configs/")
    parser.add_argument("--configs", default=CONFIGS, help="speed: files of configs/, separated by commas")
    parser.add_argument("--dtypes", default="float32,bfloat16", help="speed")
    parser.add_argument("--crops", type=pathlib.Path, help="train: what pack.py made")
    parser.add_argument("--seconds", type=float, default=5.0, help="speed: of each measurement")
    parser.add_argument("--budget", type=float, default=540.0, help="speed: seconds of all; the rest is left")
    args = parser.parse_args()
    if args.what == "train":
        trial.check_budget(parser, args)
    return args


# Speed ------------------------------------------------------------------------------------------------------


def rate(turn: Callable[[], Any], images: int, seconds: float) -> dict[str, float]:
    """Images/s over turns for `seconds`, after one that compiles: the median, and how long that one took."""
    begun = time.perf_counter()
    turn()
    first = time.perf_counter() - begun
    turn()
    times = []
    while sum(times) < seconds or len(times) < 5:
        begun = time.perf_counter()
        turn()
        times.append(time.perf_counter() - begun)
    return {"images_per_second": images / statistics.median(times), "first_turn_seconds": first}


def ours(name: str, dtype: str, args: argparse.Namespace) -> dict[str, float]:
    """A config's last phase at its own widths, on random pictures; k steps a turn."""
    import jax
    import numpy as np

    from jaxdog import devices, factory, train
    from jaxdog.data import batches

    config = importlib.import_module(f"configs.{name}").get_config()
    config.dtype = dtype
    config.update_from_flattened_dict(trial.told(args))
    over, steps = devices.mesh(), 10
    phase = factory.phases(factory.check(config), 120)[-1]
    rng, side = np.random.default_rng(0), config.data.store_size
    image = rng.integers(0, 256, (4096, side, side, 3), np.uint8)
    extent = rng.integers(64, 400, (4096, 2), np.int32)
    label, kind = rng.integers(0, 120, 4096, np.int32), rng.integers(0, 2, 4096, np.int32)
    data = devices.put(batches.resident(image, label, extent, kind), devices.everywhere(over))
    functions = train.compiled(phase, 0, steps, over)
    state = functions.init(data)

    def turn() -> None:
        nonlocal state
        state, scalars = functions.dispatch(state, data, 0.0)
        jax.block_until_ready(scalars)

    return rate(turn, steps * phase.batch_size, args.seconds)


def theirs(form: str, args: argparse.Namespace) -> dict[str, float]:
    """PyTorch's BigGAN of the size of configs/biggan.py; form: one of TORCH."""
    import torch

    bench = importlib.import_module("experiments.bench.torch_biggan")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    torch.set_default_device(device)
    layout = torch.channels_last if "channels_last" in form else torch.contiguous_format
    told = trial.told(args)
    g = bench.Generator(told.get("generator.channels", 32), 100, 128, 120, 4)
    d = bench.Discriminator(told.get("discriminator.channels", 64), 120, 4)
    b = told.get("game.batch_size", 32)
    trainer = bench.Trainer(g.to(memory_format=layout), d.to(memory_format=layout), 100, 120)
    if "compile" in form:
        trainer.g, trainer.d = torch.compile(trainer.g), torch.compile(trainer.d)
    real = (torch.rand(b, 3, 64, 64) * 2 - 1).contiguous(memory_format=layout)
    label = torch.randint(120, (b,))

    def turn() -> None:
        for _ in range(10):
            with torch.autocast(device.type, torch.bfloat16, enabled="bf16" in form):
                trainer.step(real, label)
        if device.type == "cuda":
            torch.cuda.synchronize()

    try:
        return rate(turn, 10 * b, args.seconds)
    finally:
        torch.set_default_device("cpu")


def speed(args: argparse.Namespace) -> dict[str, Any]:
    """All measurements that the budget allows, the first ones first; each is written as it is made."""
    begun = time.perf_counter()
    found: dict[str, Any] = {}
    jobs = [
        (f"{name} {dtype}", ours, (name, dtype))
        for name in args.configs.split(",")
        for dtype in args.dtypes.split(",")
    ]
    beside = len(args.dtypes.split(","))  # PyTorch's right after the first config
    jobs[beside:beside] = [(f"torch biggan {form}", theirs, (form,)) for form in TORCH]
    for title, measure, about in jobs:
        if time.perf_counter() - begun > args.budget:
            found[title] = "left out: no time"
            continue
        try:
            found[title] = measure(*about, args)
        except Exception as error:  # one that fails must not cost the others
            found[title] = f"{type(error).__name__}: {str(error)[:500]}"
        print(title, found[title], flush=True)
        write(args.out / "speed.json", {**machine(), "measured": found})
    return found


# Training ---------------------------------------------------------------------------------------------------


def train(args: argparse.Namespace) -> None:
    """A run on packed crops; its averaged generator in parts."""
    import flax
    import jax
    import ml_collections
    import numpy as np

    if not args.crops or not args.crops.is_file():
        sys.exit(f"--crops is {args.crops}: pack.py makes it")
    photos = pathlib.Path(args.runs) / "photos"
    with zipfile.ZipFile(args.crops) as packed:
        packed.extractall(photos)
    config = importlib.import_module(f"configs.{args.config}").get_config()
    whole = ml_collections.ConfigDict(dict(name="short_side_center", resampler="lanczos"))
    config.data.source, config.data.path, config.data.crop = "folder", str(photos), whole
    changes = trial.shorten(config, args)
    tried = trial.Trial(config, pathlib.Path(args.runs) / args.config, scoring=False)
    row = tried.train()
    tried.grid(args.out / "grid.png", 120)
    average = jax.device_get({"params": tried.state.ema.params, "stats": tried.state.ema.stats})
    for i, part in enumerate(parts(flax.traverse_util.flatten_dict(average, sep="/"))):
        np.savez(args.out / f"ema{i}.npz", **part)
    write(args.out / "row.json", {"config": args.config, "changes": changes, **machine(), **row})


def parts(leaves: dict[str, Any]) -> list[dict[str, Any]]:
    """Arrays dealt out in order, none of the parts larger than PART."""
    found: list[dict[str, Any]] = [{}]
    for name, x in leaves.items():
        if found[-1] and sum(y.nbytes for y in found[-1].values()) + x.nbytes > PART:
            found.append({})
        found[-1][name] = x
    return found


# Both -------------------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """What all of this ran on."""
    import jax

    return {"device": jax.devices()[0].device_kind, "devices": len(jax.devices()), "jax": jax.__version__}


def write(path: pathlib.Path, value: Any) -> None:
    """JSON, readable."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, default=float) + "\n")


def main() -> None:
    """One of the two."""
    args = parse()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.what == "speed":
        speed(args)
        return
    train(args)


if __name__ == "__main__":
    main()
