"""Images/s of full-width configs on a lent GPU, and of a plain PyTorch BigGAN beside them.

    python experiments/gpu/speed.py --out DIR

The training step in float32 and bfloat16. `--set FIELD=JSON` changes all configs. A training run there is
experiments/record/run.py.
"""

import argparse
import importlib
import pathlib
import sys
import time
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from experiments import trial  # noqa: E402

CONFIGS = "biggan,lsgan_sn,rals_ac_biggan,dog_biggan,leaky_biggan,biggan96_style,sngan,stylegan2"
TORCH = ("tf32", "tf32 channels_last", "bf16 channels_last", "tf32 compile", "bf16 channels_last compile")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = trial.parser(__doc__)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--configs", default=CONFIGS, help="files of configs/, separated by commas")
    parser.add_argument("--dtypes", default="float32,bfloat16", help="of convolutions and matmuls")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--budget", type=float, default=540.0, help="seconds of all; the rest is left")
    return parser.parse_args()


# Speed ------------------------------------------------------------------------------------------------------


def ours(name: str, dtype: str, args: argparse.Namespace) -> dict[str, float]:
    """A config's last phase at its own widths."""
    config = importlib.import_module(f"configs.{name}").get_config()
    config.dtype = dtype
    config.update_from_flattened_dict(trial.told(args))
    return trial.speed(config, 10, args.seconds)


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
        return trial.rate(turn, 10 * b, args.seconds)
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
        trial.write(args.out / "speed.json", {**machine(), "measured": found})
    return found


def machine() -> dict[str, Any]:
    """What all of this ran on."""
    import jax

    return {"device": jax.devices()[0].device_kind, "devices": len(jax.devices()), "jax": jax.__version__}


def main() -> None:
    """All measurements, JSON."""
    args = parse()
    args.out.mkdir(parents=True, exist_ok=True)
    speed(args)


if __name__ == "__main__":
    main()
