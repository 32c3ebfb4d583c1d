"""Images/s of full-width configs on a lent GPU, and of plain PyTorch trainers of the same sizes beside them.

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
from experiments.bench import step  # noqa: E402

CONFIGS = "biggan,lsgan_sn,sagan,progan,stylegan,rals_ac_biggan,dog_biggan,leaky_biggan,biggan96_style,r3gan"
K = 10  # steps of a turn
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


def config_of(name: str, args: argparse.Namespace) -> Any:
    """A config at its own widths, without fades."""
    config = importlib.import_module(f"configs.{name}").get_config()
    config.update_from_flattened_dict(trial.told(args))
    return step.unfaded(config)


def ours(name: str, dtype: str, args: argparse.Namespace) -> dict[str, float]:
    """A config's last phase."""
    config = config_of(name, args)
    config.dtype = dtype
    return trial.speed(config, K, args.seconds)


def theirs(name: str, form: str, args: argparse.Namespace) -> dict[str, float]:
    """PyTorch's trainer of the size of a config; form: one of TORCH."""
    import torch

    config = config_of(name, args)
    params = step.parameters(config)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    layout = step.LAYOUTS["torch_channels_last" if "channels_last" in form else "torch"]
    try:
        turn, *_ = step.theirs(config, params, K, layout, "compile" in form, "bf16" in form)
        return trial.rate(turn, K * config.game.batch_size, args.seconds)
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
    beside = len(args.dtypes.split(","))  # PyTorch's of the first config right after it, the others' last
    names = [name for name in args.configs.split(",") if name in step.FAMILIES]
    torchs = [[(f"torch {name} {form}", theirs, (name, form)) for form in TORCH] for name in names]
    jobs[beside:beside] = torchs[0] if torchs else []
    jobs += [job for several in torchs[1:] for job in several]
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
