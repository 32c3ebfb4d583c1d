"""An attempt on the record in one command: a config, fitted to the minutes there are, in one or more pieces.

    python experiments/record/run.py --arm r3gan --minutes 540                                # the real one
    python experiments/record/run.py --arm r3gan --minutes 25 --now 8 --crops .pack/crops.zip  # a piece of it
    python experiments/record/run.py --arm rals_ac_biggan --teraflop 200 --set ...              # a yardstick

The first call measures how fast the training step is here and writes plan.json: so many steps that they take
`--minutes` (or make up `--teraflop`), evaluations, the rates' and weights' schedules stretched to them. Each
call trains for `--now` minutes, or to the end, and the next one goes on where it stopped. After the last step
the best checkpoint is found, the best way to draw from it, 10,000 pictures are drawn, zipped, scored and
reported; --out gets what travels: the averaged generator in parts, curves, scores, a sheet.

`--crops` is what experiments/gpu/pack.py makes, for machines without the photos. Without `--weights` nothing
is scored here: the last average is handed out, and experiments/gpu/score.py scores it elsewhere.
"""

import argparse
import importlib
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
P100 = 9.3e12  # its float32 operations per second at most; the competition lent nine hours of it
UNIT = 100  # steps: of plans, checkpoints, evaluations
SHARE = 0.9  # of the time is trained; the rest compiles, scores and saves


def parse() -> argparse.Namespace:
    """The command line."""
    parser = trial.parser(__doc__)
    parser.set_defaults(samples=10_000, batch=128, runs="runs/record", weights="")
    parser.add_argument("--arm", default="r3gan", help="a file of configs/")
    parser.add_argument("--now", type=float, default=0.0, help="minutes of this call; 0: to the end")
    parser.add_argument("--teraflop", type=float, default=0.0, help="in place of --minutes")
    parser.add_argument("--steps", type=int, default=0, help="in place of both; nothing is measured")
    parser.add_argument("--evaluations", type=int, default=20, help="on the way; 0: no sheets, either")
    parser.add_argument("--eval_samples", type=int, default=5_000, help="pictures of each")
    parser.add_argument("--seconds", type=float, default=10.0, help="of measuring the speed")
    parser.add_argument("--by", type=int, default=1, help="--narrow divides widths by this")
    parser.add_argument("--crops", type=pathlib.Path, help="a zip of crops, in place of the photos")
    parser.add_argument("--out", type=pathlib.Path, help="gets what travels")
    parser.add_argument(
        "--tracks", type=int, nargs="*", default=[0], help="averages that travel, see ema.tracks"
    )
    parser.add_argument("--half", action="store_true", help="they travel in float16")
    args = parser.parse_args()
    if sum(map(bool, (args.minutes, args.teraflop, args.steps))) != 1 or args.kimg:
        parser.error("give one of --minutes, --teraflop and --steps, of the whole attempt")
    return args


def config_of(args: argparse.Namespace) -> Any:
    """The arm's config as it would run here, but for its length."""
    config = importlib.import_module(f"configs.{args.arm}").get_config()
    more: dict[str, Any] = {"data.archives": args.archives, "eval.weights": args.weights or "random"}
    more |= trial.narrowed(config, args.by) if args.narrow else {}
    if args.crops:
        photos = pathlib.Path(args.runs) / "photos"
        if not photos.exists():
            with zipfile.ZipFile(args.crops) as packed:
                packed.extractall(photos)
        with config.unlocked():
            config.data.crop = dict(name="short_side_center", resampler="lanczos")
            config.data.curate = {}  # that is done, and what was to be held out is not there
        more |= {"data.source": "folder", "data.path": str(photos)}
    config.update_from_flattened_dict({**more, **trial.told(args)})
    return config


def plan(config: Any, folder: pathlib.Path, args: argparse.Namespace) -> dict[str, Any]:
    """How long the attempt is: made by the first call, read by those that follow."""
    path = folder / "plan.json"
    asked = {"arm": args.arm, "minutes": args.minutes, "teraflop": args.teraflop}
    asked |= {"steps": args.steps} if args.steps else {}
    if path.is_file():
        made = json.loads(path.read_text())
        if {name: made[name] for name in asked} != asked:
            sys.exit(f"{path} is the plan of {made}; give the same again, or another --runs")
        return made
    per_step = trial.flops(config)
    speed, steps = {}, args.steps
    if not steps:
        speed = trial.speed(config, config.train.steps_per_dispatch, args.seconds)
        fitting = SHARE * 60.0 * args.minutes * speed["steps_per_second"]
        wanted = args.teraflop * 1e12 / per_step if args.teraflop else fitting
        steps = max(round(wanted / UNIT), 2) * UNIT
    made = {
        **asked,
        "steps": steps,
        **speed,
        "flop_per_step": per_step,
        "flop": steps * per_step,
        "p100_hours_at_peak": steps * per_step / P100 / 3600.0,
    }
    trial.write(path, made)
    return made


def lengthen(config: Any, steps: int, args: argparse.Namespace) -> Any:
    """Stretches what the config says in steps to the plan's."""
    from jaxdog.config import build

    every = max(round(steps / max(args.evaluations, 1) / UNIT), 1) * UNIT
    pictures = build.phases(build.check(config), 120)[0].batch_size  # of a step
    changes = {
        "train.steps": steps,
        "train.max_hours": 0.0,
        "train.log_every": UNIT,
        "train.grid_every": every if args.evaluations else 0,
        "checkpoint.every": every,
        "eval.every_kimg": every * pictures / 1000.0 if args.weights and args.evaluations else 0.0,
        "eval.samples": args.eval_samples,
        "eval.batch_size": args.batch,
        "submit.images": args.samples,
    }
    if config.game.augment_p.name == "ramp":
        changes["game.augment_p.steps"] = steps
    config.update_from_flattened_dict(changes)
    return config


def piece(config: Any, folder: pathlib.Path, minutes: float, scoring: bool) -> tuple[Any, Any]:
    """Trains for so many minutes more, or to the end; the job, and how it stands."""
    import jax

    from jaxdog import runs
    from jaxdog.config import build
    from jaxdog.training import loop, writers

    checked = build.check(config)
    cache = pathlib.Path(checked.data.cache_dir).expanduser()
    jax.config.update("jax_compilation_cache_dir", str(cache / "xla"))
    made = runs.make(checked, folder, cache, training=True, scoring=scoring)
    latest = made.checkpoints.latest() or 0
    lines = writers.read_jsonl(folder / writers.LOG) if latest else []
    before = lines[-1]["seconds"] if lines else 0.0
    hours = (before / 60.0 + minutes) / 60.0 if minutes else 0.0
    made = made._replace(config=checked._replace(train=checked.train._replace(max_hours=hours)))
    with writers.Writer(folder, step=latest) as writer:
        return made, loop.train(runs.training(made, writer))


def hand_out(state: Any, folder: pathlib.Path, args: argparse.Namespace) -> None:
    """Averages of the generator in parts, and what `copy` takes."""
    import flax
    import jax
    import numpy as np

    args.out.mkdir(parents=True, exist_ok=True)
    for track in args.tracks:
        average = (state.ema, *getattr(state, "tracks", ()))[track]
        average = jax.device_get({"params": average.params, "stats": average.stats})
        found: list[dict[str, Any]] = [{}]
        for name, x in flax.traverse_util.flatten_dict(average, sep="/").items():
            x = x.astype(np.float16) if args.half else x
            if found[-1] and sum(y.nbytes for y in found[-1].values()) + x.nbytes > PART:
                found.append({})
            found[-1][name] = x
        for i, part in enumerate(found):
            np.savez(args.out / f"ema{track}-{i}.npz", **part)
    copy(folder, args.out)


def copy(folder: pathlib.Path, out: pathlib.Path) -> None:
    """What there is of plan, config, curves, scores, report and the newest sheets."""
    for name in ("plan.json", "config.json", "log.jsonl", "scores.jsonl", "sweep.json", "report.html"):
        if (folder / name).is_file():
            shutil.copy(folder / name, out / name)
    for sheet in sorted((folder / "grids").glob("*.png"))[-3:]:
        shutil.copy(sheet, out / sheet.name)


def main() -> None:
    """One piece of the attempt, and its end if it is the last."""
    args = parse()
    from jaxdog import commands

    folder = pathlib.Path(args.runs) / args.arm
    config = config_of(args)
    config = lengthen(config, plan(config, folder, args)["steps"], args)
    (folder / "config.json").write_text(config.to_json_best_effort(indent=2) + "\n")
    made, outcome = piece(config, folder, args.now, bool(args.weights))
    print(f"{args.arm}: step {outcome.step} of {config.train.steps}, {outcome.seconds / 60:.1f} minutes")
    if args.out:
        hand_out(outcome.state, folder, args)
    made.checkpoints.close()
    if outcome.step >= config.train.steps and args.weights:
        commands.run("submit", config, str(folder))
        if args.out:
            copy(folder, args.out)


if __name__ == "__main__":
    main()
