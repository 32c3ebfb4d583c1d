"""A record attempt in one command: a config scaled to the given minutes, in one or more parts.

    python experiments/record/run.py --arm r3gan --minutes 540                                # the real one
    python experiments/record/run.py --arm r3gan --minutes 25 --now 8 --crops .pack/crops.zip  # a part of it
    python experiments/record/run.py --arm rals_ac_biggan --teraflop 200 --set ...              # a yardstick

The first call measures the training step and writes plan.json: the number of steps that take `--minutes`
(or `--teraflop` of computation); evaluations and schedules are scaled to it. Each call trains for `--now`
minutes, or to the end, and the next one resumes. After the last step the best checkpoint and sampling
option are chosen, and 10,000 images are generated, zipped, scored and reported. `--out` gets an export: the
EMA in parts, curves, scores, a grid.

`--crops` is the zip of experiments/gpu/pack.py, for machines without the photos. Without `--weights`
nothing is scored here; experiments/gpu/score.py scores the exported EMA elsewhere.
"""

import argparse
import json
import pathlib
import shutil
import sys
import zipfile
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from experiments import trial  # noqa: E402

PART = 15 * 2**20  # bytes of an .npz part
P100 = 9.3e12  # its peak in float32 FLOP/s; the competition gave nine hours of it
UNIT = 100  # steps: plans, checkpoints and evaluations are multiples of it
CHECKPOINT_EVERY = 500  # steps, or at each evaluation if that is more often
TRAINING_SHARE = 0.9  # of the time; the rest compiles, scores and saves


def parse() -> argparse.Namespace:
    """The command line."""
    parser = trial.parser(__doc__)
    parser.set_defaults(samples=10_000, batch=128, runs="runs/record", weights="")
    parser.add_argument("--arm", default="r3gan", help="a file of configs/")
    parser.add_argument("--now", type=float, default=0.0, help="minutes of this call; 0: to the end")
    parser.add_argument("--teraflop", type=float, default=0.0, help="in place of --minutes")
    parser.add_argument("--steps", type=int, default=0, help="in place of both; nothing is measured")
    parser.add_argument("--evaluations", type=int, default=20, help="on the way; 0: no grids, either")
    parser.add_argument("--eval_samples", type=int, default=5_000, help="images of each")
    parser.add_argument("--seconds", type=float, default=10.0, help="of measuring the speed")
    parser.add_argument("--by", type=int, default=1, help="--narrow divides widths by this")
    parser.add_argument("--crops", type=pathlib.Path, help="a zip of crops, in place of the photos")
    parser.add_argument("--out", type=pathlib.Path, help="gets the export")
    parser.add_argument("--ema_index", type=int, nargs="*", default=[0], help="EMAs to export, 0: the first")
    parser.add_argument("--half", action="store_true", help="export in float16")
    args = parser.parse_args()
    if sum(map(bool, (args.minutes, args.teraflop, args.steps))) != 1 or args.kimg:
        parser.error("give one of --minutes, --teraflop and --steps, of the whole attempt")
    return args


def config_of(args: argparse.Namespace) -> Any:
    """The arm's config as it runs here, except for its length."""
    config = trial.load_config(args.arm)
    more: dict[str, Any] = {"data.archives": args.archives, "eval.weights": args.weights or "random"}
    more |= trial.narrow(config, args.by) if args.narrow else {}
    if args.crops:
        photos = pathlib.Path(args.runs) / "photos"
        if not photos.exists():
            with zipfile.ZipFile(args.crops) as packed:
                packed.extractall(photos)
        with config.unlocked():
            config.data.crop = dict(name="short_side_center", resampler="lanczos")
            config.data.select = {}  # the packed crops are selected already, without the held-out ones
        more |= {"data.source": "folder", "data.path": str(photos)}
    config.update_from_flattened_dict({**more, **trial.overrides(args)})
    return config


def make_plan(config: Any, folder: pathlib.Path, args: argparse.Namespace) -> dict[str, Any]:
    """The length of the attempt: made by the first call, read by the following ones."""
    from experiments import timing

    path = folder / "plan.json"
    asked = {"arm": args.arm, "minutes": args.minutes, "teraflop": args.teraflop}
    asked |= {"steps": args.steps} if args.steps else {}
    if path.is_file():
        plan = json.loads(path.read_text())
        if {name: plan[name] for name in asked} != asked:
            sys.exit(f"{path} is the plan of {plan}; give the same again, or another --runs")
        return plan
    flop = timing.flops(config)
    speed: dict[str, float] = {}
    steps = args.steps
    if not steps:
        speed = timing.train_rate(config, args.seconds)
        by_time = TRAINING_SHARE * 60.0 * args.minutes * speed["steps_per_second"]
        wanted = args.teraflop * 1e12 / flop if args.teraflop else by_time
        steps = max(round(wanted / UNIT), 2) * UNIT
    plan = {
        **asked,
        "steps": steps,
        **speed,
        "flop_per_step": flop,
        "flop": steps * flop,
        "p100_hours_at_peak": steps * flop / P100 / 3600.0,
    }
    trial.write(path, plan)
    return plan


def scale(config: Any, steps: int, args: argparse.Namespace) -> Any:
    """Scales the config's counts of steps to the plan's."""
    from jaxdog.config import build

    interval = max(round(steps / max(args.evaluations, 1) / UNIT), 1) * UNIT
    images = build.phases(build.check(config), 120)[0].batch_size  # per step
    changes = {
        "train.steps": steps,
        "train.max_hours": 0.0,
        "train.log_every": UNIT,
        "train.grid_every": interval if args.evaluations else 0,
        "checkpoint.every": min(interval, CHECKPOINT_EVERY),
        "eval.every_kimg": interval * images / 1000.0 if args.weights and args.evaluations else 0.0,
        "eval.samples": args.eval_samples,
        "eval.batch_size": args.batch,
        "submit.images": args.samples,
    }
    if config.system.augment_p.name == "ramp":
        changes["system.augment_p.steps"] = steps
    config.update_from_flattened_dict(changes)
    return config


def train(config: Any, folder: pathlib.Path, minutes: float, scoring: bool) -> tuple[Any, Any]:
    """Trains for so many minutes more (0: to the end); the run, and its result so far."""
    import jax

    from jaxdog import runs
    from jaxdog.config import build
    from jaxdog.training import loop, writers

    checked = build.check(config)
    cache = pathlib.Path(checked.data.cache_dir).expanduser()
    jax.config.update("jax_compilation_cache_dir", str(cache / "xla"))
    run = runs.start(runs.make(checked, folder, cache, training=True, scoring=scoring))
    latest = run.checkpoints.latest() or 0
    lines = writers.read_jsonl(folder / writers.LOG) if latest else []
    before = lines[-1]["seconds"] if lines else 0.0
    hours = (before / 60.0 + minutes) / 60.0 if minutes else 0.0
    run = run._replace(config=checked._replace(train=checked.train._replace(max_hours=hours)))
    with writers.Writer(folder, step=latest) as writer:
        return run, loop.train(runs.train_setup(run, runs.place_data(run), writer))


def export(state: Any, folder: pathlib.Path, args: argparse.Namespace) -> None:
    """EMAs of the generator in parts, and `copy`."""
    import flax
    import jax
    import numpy as np

    args.out.mkdir(parents=True, exist_ok=True)
    for index in args.ema_index:
        ema = (state.ema, *getattr(state, "extra_emas", ()))[index]
        arrays = jax.device_get({"params": ema.params, "model_state": ema.model_state})
        parts: list[dict[str, Any]] = [{}]
        for name, x in flax.traverse_util.flatten_dict(arrays, sep="/").items():
            x = x.astype(np.float16) if args.half else x
            if parts[-1] and sum(y.nbytes for y in parts[-1].values()) + x.nbytes > PART:
                parts.append({})
            parts[-1][name] = x
        for i, part in enumerate(parts):
            np.savez(args.out / f"ema{index}-{i}.npz", **part)
    copy(folder, args.out)


def copy(folder: pathlib.Path, out: pathlib.Path) -> None:
    """Plan, config, curves, scores, report and the newest grids, where they exist."""
    for name in ("plan.json", "config.json", "log.jsonl", "scores.jsonl", "sweep.json", "report.html"):
        if (folder / name).is_file():
            shutil.copy(folder / name, out / name)
    for grid in sorted((folder / "grids").glob("*.png"))[-3:]:
        shutil.copy(grid, out / grid.name)


def main() -> None:
    """One part of the attempt, and its end if it is the last."""
    args = parse()
    from jaxdog import commands

    folder = pathlib.Path(args.runs) / args.arm
    config = config_of(args)
    config = scale(config, make_plan(config, folder, args)["steps"], args)
    (folder / "config.json").write_text(config.to_json_best_effort(indent=2) + "\n")
    run, result = train(config, folder, args.now, bool(args.weights))
    print(f"{args.arm}: step {result.step} of {config.train.steps}, {result.seconds / 60:.1f} minutes")
    if args.out:
        export(result.state, folder, args)
    run.checkpoints.close()
    if result.step >= config.train.steps and args.weights:
        commands.run_mode("submit", config, str(folder))
        if args.out:
            copy(folder, args.out)


if __name__ == "__main__":
    main()
