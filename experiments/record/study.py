"""Which choices make a small generator better at equal computation: what record_biggan is made of.

    python experiments/record/study.py --teraflop 12 --seeds 2 --weights FOLDER --archives FOLDER
    python experiments/record/study.py --only base,squash --teraflop 12 --weights FOLDER --archives FOLDER

Every option is a narrow network, trained for the same number of floating-point operations and scored alike.
Each run has a process of its own and leaves rows/OPTION-SEED.json; one whose row is there, of the same
config and budget, is not run again. ranking.md, ranking.json and ranking.png are made of all rows that are
there.
"""

import argparse
import math
import pathlib
import statistics
import sys
from typing import Any, NamedTuple

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from experiments import trial  # noqa: E402


class Option(NamedTuple):
    """A choice: its changes of a config."""

    title: str
    changes: dict[str, Any] = {}
    config: str = "biggan"


DIFFAUGMENT = {
    "system.diffaugment": {
        "color": {"brightness": 0.5, "contrast": 0.5, "saturation": 1.0},
        "translation": {"ratio": 0.125},
    }
}
SQUASH = {"data.crop": {"name": "squash", "resampler": "lanczos"}}
MIXED = {"data.crop": {"name": "box_and_photo", "resampler": "lanczos"}}
LECAM = {"system.d_regularizers": {"lecam": {"weight": 0.3, "interval": 1, "decay": 0.99}}}
RELATIVISTIC = {"system.loss": {"name": "relativistic_average", "base": "hinge"}}
RATES = {"optimizer.g.learning_rate": 2e-4, "optimizer.d.learning_rate": 8e-4}
END = {
    f"optimizer.{player}.schedule": {"name": "constant_then_linear", "fraction": 0.3} for player in ("g", "d")
}
OPTIONS = {
    "base": Option("BigGAN, batches of 8, EMA decay 0.99"),
    "squash": Option("whole photos, resized as the metric's real set is", SQUASH),
    "mixed": Option("whole photos, resized, and boxes", MIXED),
    "diffaugment": Option("DiffAugment: color and translation", DIFFAUGMENT),
    "lecam": Option("LeCam 0.3", LECAM),
    "unlabelled": Option("an unconditional discriminator", {"discriminator.projection": False}),
    "ramp": Option(
        "class conditioning blends in between 20 and 40 % of the run", {"system.class_transition": (0.2, 0.4)}
    ),
    "rates": Option("both learning rates doubled", RATES),
    "end": Option("learning rates fall to zero over the last 30 %", END),
    "batch16": Option("batches of 16, half the steps", {"system.batch_size": 16}),
    "relativistic": Option("relativistic average hinge", RELATIVISTIC),
    "together": Option("whole photos and doubled learning rates", {**SQUASH, **RATES}),
    "r3gan": Option("R3GAN, slim, unconditional", {"optimizer.g.learning_rate": 2e-4}, "r3gan"),
    "second": Option("the 2nd place of 2019", {}, "rals_ac_biggan"),
}
SHARED = {
    "system.batch_size": 8,
    "ema.decay": 0.99,
    "ema.start": 0,
    "ema.extra_ema_decays": (),
    "sample.sweep": {},
}
SCORES = ("fid768", "fid2048", "recall", "precision")
NARROW = 8  # widths are divided by this


def parse() -> argparse.Namespace:
    """The command line."""
    parser = trial.parser(__doc__, OPTIONS)
    parser.set_defaults(narrow=True, samples=500)
    parser.add_argument("--teraflop", type=float, required=True, help="of each run, in 10^12 operations")
    parser.add_argument("--seeds", type=int, default=2, help="of each option")
    args = parser.parse_args()
    if args.minutes or args.kimg:
        parser.error("a study's budget is --teraflop, not --minutes or --kimg")
    return args


def config_of(name: str, seed: int, args: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """An option's config, as long as the budget, and its changes."""
    from experiments import timing

    option = OPTIONS[name]
    config = trial.load_config(option.config)
    with config.unlocked():  # sections that are changed are given whole
        for path, value in option.changes.items():
            *above, last = path.split(".")
            section = config
            for field in above:
                section = section[field]
            if isinstance(value, dict):
                del section[last]
    changes = {**trial.narrow(config, NARROW), **SHARED, **option.changes, "seed": seed}
    changes = trial.shorten(config, args, **changes)
    unit = 2 * trial.K  # steps of a line of the log
    steps = max(round(args.teraflop * 1e12 / timing.flops(config) / unit), 1) * unit
    config.train.steps = steps
    if config.system.augment_p.name == "ramp":
        config.system.augment_p.steps = steps
    return config, {**changes, "train.steps": steps}


def run(name: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Trains and scores an option."""
    config, changes = config_of(name, seed, args)
    trained = trial.Trial(config, pathlib.Path(args.runs) / f"study-{name}-{seed}")
    row = trained.train()
    scores = trained.score(args.samples)
    trained.grid(HERE / "grids" / f"{name}-{seed}.png", 24)
    return {"option": name, "seed": seed, **row, "after": scores, "changes": changes}


def ranking(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Options by their mean fid768, best first; each mean with its standard error over seeds, if several."""
    table = []
    for name in dict.fromkeys(row["option"] for row in rows):
        own = [row for row in rows if row["option"] == name]
        line: dict[str, Any] = {"option": name, "seeds": len(own)}
        for score in SCORES:
            values = [trial.score_of(row, score) for row in own]
            error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
            line[score] = {"mean": statistics.mean(values), "error": error}
        line |= {key: statistics.mean(row[key] for row in own) for key in ("images", "seconds")}
        table.append(line)
    return sorted(table, key=lambda line: line["fid768"]["mean"])


def collect() -> None:
    """All rows that are there -> ranking.json, ranking.md, ranking.png."""
    rows = list(trial.read_rows(HERE / "rows").values())
    table = ranking(rows)
    trial.write(HERE / "ranking.json", table)

    def text(x: dict[str, Any], digits: int) -> str:
        return f"{x['mean']:.{digits}f}" + ("" if x["error"] is None else f" ± {x['error']:.{digits}f}")

    fid2048, recall = (
        next(x for x in rows[0]["after"] if x.startswith(score)) for score in ("fid2048", "recall")
    )
    header = ("option", "what it is", "fid768", fid2048, recall, "seeds", "images", "seconds")
    lines = []
    for x in table:
        scores = text(x["fid768"], 3), text(x["fid2048"], 1), text(x["recall"], 4)
        title = OPTIONS[x["option"]].title
        lines.append([x["option"], title, *scores, x["seeds"], f"{x['images']:,.0f}", f"{x['seconds']:.0f}"])
    (HERE / "ranking.md").write_text(markdown := trial.markdown(header, lines))
    draw(table, HERE / "ranking.png")
    print(markdown)


def draw(table: list[dict[str, Any]], path: pathlib.Path) -> None:
    """fid768 of each option with its error, best at the top."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.32 * len(table) + 1), layout="constrained")
    axes = figure.add_subplot()
    places = range(len(table))
    means = [x["fid768"]["mean"] for x in table]
    errors = [x["fid768"]["error"] or 0.0 for x in table]
    axes.errorbar(means, places, xerr=errors, fmt="o", capsize=3)
    axes.set_yticks(places, [x["option"] for x in table])
    axes.invert_yaxis()
    axes.set_xlabel("fid768 at equal computation (lower is better; bars: standard error over seeds)")
    figure.savefig(path, dpi=100)


def main() -> None:
    """Trains what the study lacks, and ranks."""
    args = parse()
    if args.one:
        name, seed = args.one.rsplit("-", 1)
        trial.write(HERE / "rows" / f"{args.one}.json", run(name, int(seed), args))
        return
    missing = [
        trial.Task(f"{name}-{seed}")
        for seed in range(args.seeds)
        for name in args.only
        if not trial.is_done(HERE / "rows" / f"{name}-{seed}.json", config_of(name, seed, args)[1])
    ]
    failed = trial.run_tasks(__file__, missing, args.jobs)
    collect()
    if failed:
        sys.exit(f"these failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
