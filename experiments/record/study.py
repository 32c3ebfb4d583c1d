"""Which choices make a small generator better for the same computation: what a record attempt is made of.

    python experiments/record/study.py --teraflop 12 --seeds 2 --weights FOLDER --archives FOLDER
    python experiments/record/study.py --only base,squash --teraflop 12 --weights FOLDER --archives FOLDER

Every option is a narrow network for pictures of `--size`, trained for the same number of floating-point
operations, and scored alike, against photos squashed to that size.
Each run has a process of its own and leaves rows/OPTION-SEED.json beside this file; one whose row is there,
of the same config and budget, is not run again, so that a study goes on where it was interrupted. ranking.md,
ranking.json and ranking.png are made of all rows that are there.
"""

import argparse
import importlib
import json
import math
import pathlib
import statistics
import sys
from typing import Any, NamedTuple

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from experiments import trial  # noqa: E402


class Option(NamedTuple):
    """A choice: what it changes of a config."""

    said: str
    changes: dict[str, Any] = {}
    config: str = "biggan"
    narrow: int = 8  # its widths are divided by this


CHANGED = {
    "game.diffaugment": {
        "colour": {"brightness": 0.5, "contrast": 0.5, "saturation": 1.0},
        "translation": {"ratio": 0.125},
    }
}
SQUASH = {"data.crop": {"name": "squash", "resampler": "lanczos"}}
MIXED = {"data.crop": {"name": "box_and_photo", "resampler": "lanczos"}}
LECAM = {"game.d_penalties": {"lecam": {"weight": 0.3, "every": 1, "decay": 0.99}}}
RATES = {"optimizer.g.schedule.learning_rate": 2e-4, "optimizer.d.schedule.learning_rate": 8e-4}
END = {
    f"optimizer.{player}.schedule": {"name": "linear_end", "learning_rate": rate, "fraction": 0.3}
    for player, rate in (("g", 1e-4), ("d", 4e-4))
}
OPTIONS = {
    "base": Option("BigGAN, batches of 8, average of decay 0.99"),
    "squash": Option("crops squashed as the metric's real side is", SQUASH),
    "mixed": Option("whole photos, squashed so, and boxes", MIXED),
    "diffaugment": Option("DiffAugment: colour and translation", CHANGED),
    "lecam": Option("LeCam 0.3", LECAM),
    "unlabelled": Option("the discriminator is not told the breed", {"discriminator.projection": False}),
    "ramp": Option("breeds come in between 20 and 40 % of the run", {"game.label_ramp": (0.2, 0.4)}),
    "rates": Option("both rates doubled", RATES),
    "end": Option("rates fall to zero over the last 30 %", END),
    "batch16": Option("batches of 16, half the steps", {"game.batch_size": 16}),
    "consistency": Option(
        "bCR", {"game.d_penalties": {"consistency": {"weight": 10.0, "every": 1, "shift": 4, "fakes": 1.0}}}
    ),
    "relativistic": Option(
        "relativistic average hinge", {"game.loss": {"name": "relativistic_average", "base": "hinge"}}
    ),
    "slow": Option("average of decay 0.999, ramped", {"ema.decay": 0.999, "ema.rampup": 0.1}),
    "together": Option("squashed crops and doubled rates", {**SQUASH, **RATES}),
    "r3gan": Option("R3GAN, slim, without breeds", {"optimizer.g.schedule.learning_rate": 2e-4}, "r3gan"),
    "second": Option("the 2nd place of 2019", {}, "rals_ac_biggan"),
    "fifth": Option("the 5th place of 2019", {}, "dog_biggan"),
}
SHARED = {"game.batch_size": 8, "ema.decay": 0.99, "ema.start": 0, "ema.tracks": (), "sample.sweep": {}}
SCORES = {"fid768": "lower", "fid2048": "lower", "recall": "higher", "precision": "higher"}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = trial.parser(__doc__)
    parser.set_defaults(narrow=True, samples=500)
    parser.add_argument("--teraflop", type=float, required=True, help="of each run, in 10^12 operations")
    parser.add_argument("--size", type=int, default=64, help="of the pictures, a power of 2 up to 64")
    parser.add_argument("--only", default=",".join(OPTIONS), help="options, separated by commas")
    parser.add_argument("--seeds", type=int, default=2, help="of each option")
    args = parser.parse_args()
    if args.minutes or args.kimg:
        parser.error("a study's budget is --teraflop, not --minutes or --kimg")
    if args.size not in (16, 32, 64):
        parser.error(f"--size is {args.size}; choices: 16, 32, 64")
    unknown = sorted(set(args.only.split(",")) - set(OPTIONS))
    if unknown:
        parser.error(f"{unknown[0]} is no option; options: {', '.join(OPTIONS)}")
    return args


def smaller(config: Any, size: int) -> dict[str, Any]:
    """Fields of a config for pictures of 64x64 that make it one for a smaller size."""
    by = config.game.size // size
    changes = {
        "data.size": config.data.size // by,
        "data.store_size": config.data.store_size // by,
        "game.size": size,
    }
    if "shift_scale_rotate" in config.augment:
        changes["augment.shift_scale_rotate.size"] = size
    for player in ("generator", "discriminator"):
        net = config[player]
        if "attention" in net:
            changes[f"{player}.attention"] = tuple(height // by for height in net.attention)
        if "widths" in net:
            # Of one height each: the generator's from 4 pixels on, the discriminator's down to 4.
            less = by.bit_length() - 1
            last = len(net.widths) - less
            changes[f"{player}.widths"] = net.widths[:last] if player == "generator" else net.widths[less:]
    return changes


def config_of(name: str, seed: int, args: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """An option's config, as long as the budget, and what it changes."""
    option = OPTIONS[name]
    config = importlib.import_module(f"configs.{option.config}").get_config()
    for section in [path for path, value in option.changes.items() if isinstance(value, dict)]:
        with config.unlocked():
            *above, last = section.split(".")
            place = config
            for field in above:
                place = place[field]
            del place[last]
    small = smaller(config, args.size)
    config.update_from_flattened_dict(small)
    changes = {**small, **trial.narrowed(config, option.narrow), **SHARED, **option.changes, "seed": seed}
    told = trial.shorten(config, args, **changes)
    unit = trial.K * 2  # of dispatches and log lines
    steps = max(round(args.teraflop * 1e12 / trial.flops(config) / unit), 1) * unit
    config.train.steps = steps
    if config.game.augment_p.name == "ramp":
        config.game.augment_p.steps = steps
    return config, {**told, "train.steps": steps}


def one(name: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Trains and scores an option."""
    config, told = config_of(name, seed, args)
    tried = trial.Trial(config, pathlib.Path(args.runs) / f"study-{name}-{seed}")
    row = tried.train()
    score = tried.score(args.samples)
    tried.grid(HERE / "grids" / f"{name}-{seed}.png", 24)
    return {"option": name, "seed": seed, **row, "after": score, "changes": told}


def number(row: dict[str, Any], score: str) -> float:
    """A score by its first name: fid2048 may be called fid2048_approx."""
    return next(value for name, value in row["after"].items() if name.startswith(score))


def ranking(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Options by their mean fid768, best first; each mean with its standard error over seeds, if several."""
    table = []
    for name in dict.fromkeys(row["option"] for row in rows):
        own = [row for row in rows if row["option"] == name]
        line: dict[str, Any] = {"option": name, "seeds": len(own)}
        for score in SCORES:
            values = [number(row, score) for row in own]
            error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
            line[score] = {"mean": statistics.mean(values), "error": error}
        line["images"] = statistics.mean(row["images"] for row in own)
        line["seconds"] = statistics.mean(row["seconds"] for row in own)
        table.append(line)
    return sorted(table, key=lambda line: line["fid768"]["mean"])


def collect() -> None:
    """All rows that are there -> ranking.json, ranking.md, ranking.png."""
    rows = [json.loads(path.read_text()) for path in sorted((HERE / "rows").glob("*.json"))]
    table = ranking(rows)
    trial.write(HERE / "ranking.json", table)

    def said(x: dict[str, Any], digits: int) -> str:
        return f"{x['mean']:.{digits}f}" + ("" if x["error"] is None else f" ± {x['error']:.{digits}f}")

    true = {score: next((x for x in rows[0]["after"] if x.startswith(score)), score) for score in SCORES}
    names = "option", "what it is", "fid768", true["fid2048"], true["recall"], "seeds", "pictures", "seconds"
    lines = [f"| {' | '.join(names)} |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    lines += [
        f"| {x['option']} | {OPTIONS[x['option']].said} | {said(x['fid768'], 3)} | {said(x['fid2048'], 1)} | "
        f"{said(x['recall'], 4)} | {x['seeds']} | {x['images']:,.0f} | {x['seconds']:.0f} |"
        for x in table
    ]
    (HERE / "ranking.md").write_text("\n".join(lines) + "\n")
    draw(table, HERE / "ranking.png")
    print("\n".join(lines))


def draw(table: list[dict[str, Any]], path: pathlib.Path) -> None:
    """fid768 of each option with its error, best at the top."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.32 * len(table) + 1), layout="constrained")
    axes = figure.add_subplot()
    names, places = [x["option"] for x in table], range(len(table))
    means = [x["fid768"]["mean"] for x in table]
    errors = [x["fid768"]["error"] or 0.0 for x in table]
    axes.errorbar(means, places, xerr=errors, fmt="o", capsize=3)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xlabel("fid768 at equal computation (lower is better; bars: standard error over seeds)")
    figure.savefig(path, dpi=100)


def main() -> None:
    """Trains what the study lacks, and ranks."""
    args = parse()
    if args.one:
        name, seed = args.one.rsplit("-", 1)
        trial.write(HERE / "rows" / f"{args.one}.json", one(name, int(seed), args))
        return
    wanted = [(name, seed) for seed in range(args.seeds) for name in args.only.split(",")]  # seed by seed
    missing = [
        trial.Job(f"{name}-{seed}")
        for name, seed in wanted
        if not trial.kept(HERE / "rows" / f"{name}-{seed}.json", config_of(name, seed, args)[1])
    ]
    failed = trial.side_by_side(__file__, missing, args.jobs)
    collect()
    if failed:
        sys.exit(f"these failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
