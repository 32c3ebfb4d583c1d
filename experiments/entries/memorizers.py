"""What MiFID and the copy test say of the banned entries of 2019, trained on real photos.

    python experiments/entries/memorizers.py --data DATA --n 1000
    python experiments/entries/memorizers.py --data DATA --n 10000 --only memorizer,rows --weights published

DATA holds stanford_dogs/ (the three archives) and inception/ (weights). Each entry learns N images for as
many epochs as its original learned 10,000 and submits them; the two networks with a bottleneck, slow on a
CPU, are cut to --updates. The real set is all photos, the learned ones included. Work directories are below
--runs; memorizers.json holds all rows so far.
"""

import argparse
import json
import pathlib
import sys
import time
from typing import Any, NamedTuple

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from experiments import trial  # noqa: E402
from jaxdog import commands  # noqa: E402
from jaxdog.training import writers  # noqa: E402


class Entry(NamedTuple):
    """A row: its config, how long it learns, and what is changed."""

    config: str
    g_epochs: int
    d_epochs: int = 0  # before the generator's; 0: no discriminator
    slow: bool = False  # --updates cuts the generator's
    changes: dict[str, Any] = {}


TABLE = {  # cdeotte's entry as it scored 7.2
    "optimizer.g.rates": (5.0, 1.0, 0.5),
    "optimizer.g.thresholds": (25.0, 1.5),
    "optimizer.g.interval": 10,
    "optimizer.g.doubling": False,
    "system.blend_weight": 0.999,
}
ENTRIES = {
    "memorizer": Entry("memorizer", 50, 100),
    "rows": Entry("dog_memorizer", 50, 50, changes=TABLE),
    "dog_memorizer": Entry("dog_memorizer", 511, 50, slow=True),
    "supervised": Entry("supervised", 500, slow=True),
    "imitation": Entry("imitation", 1),
}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = trial.command_line(__doc__)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--weights", default="", help="eval.weights; default: those below --data")
    parser.add_argument("--n", type=int, default=1000, help="images that are learned and submitted")
    parser.add_argument("--updates", type=int, default=0, help="at most, of slow networks; 0: all")
    parser.add_argument("--batch_size", type=int, default=256, help="images of one update")
    parser.add_argument("--batch", type=int, default=16, help="images in Inception at a time")
    parser.add_argument("--only", type=trial.selection(tuple(ENTRIES)), default=tuple(ENTRIES))
    parser.add_argument("--runs", default="runs/memorizers")
    return parser.parse_args()


def config_of(name: str, args: argparse.Namespace) -> Any:
    """An entry's config for N images."""
    entry = ENTRIES[name]
    config = trial.load_config(entry.config)
    if name == "rows":
        with config.unlocked():
            config.generator = {"name": "table"}
    per_epoch = -(-args.n // args.batch_size)
    steps, d_steps = entry.g_epochs * per_epoch, entry.d_epochs * per_epoch
    if entry.slow and args.updates:
        steps = min(steps, args.updates)
    k = 1 if name == "imitation" else 10
    steps, d_steps = (-(-x // k) * k for x in (steps, d_steps))
    fields = {
        "data.archives": str(args.data / "stanford_dogs"),
        "data.select.own_class.count": args.n,
        "system.batch_size": args.batch_size,
        "train.steps": steps + d_steps,
        "train.steps_per_execution": k,
        "train.log_every": k,
        "train.grid_every": 0,
        "checkpoint.every": steps + d_steps,
        "eval.weights": args.weights or str(args.data / "inception"),
        "eval.batch_size": args.batch,
        "submit.images": args.n,
        **({"system.discriminator_steps": d_steps} if d_steps else {}),
    }
    config.update_from_flattened_dict({**entry.changes, **fields})
    return config


def measure(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Trains, submits and scores one entry."""
    folder, start = pathlib.Path(args.runs) / f"{name}_{args.n}", time.monotonic()
    config = config_of(name, args)
    commands.run_mode("train", config, str(folder))
    scores = [line for line in writers.read_jsonl(folder / writers.SCORES) if line["final"]][-1]
    log = writers.read_jsonl(folder / writers.LOG)[-1]
    assert scores["cheat"]
    skipped = ("sampling", "copies", "evaluation_seconds")
    return {
        **{key: x for key, x in scores.items() if key not in skipped},
        "copies": {key: x for key, x in scores["copies"].items() if key != "evidence"},
        "pixel_error": log.get("error/g"),  # mean over the last updates, of 256 levels, before blending
        "steps": config.train.steps,
        "training_seconds": round(log["seconds"], 1),
        "all_seconds": round(time.monotonic() - start, 1),
    }


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The rows as Markdown."""
    first = next(iter(rows.values()))
    names = [
        next((x for x in (key, f"{key}_approx", f"random_{key}", f"{key}_other") if x in first), key)
        for key in ("fid768", "fid2048", "mifid")
    ]
    lines = []
    for name, x in rows.items():
        error = "" if x["pixel_error"] is None else f"{x['pixel_error']:.1f}"
        copies = (
            f"{x['memorization_distance']:.4f}",
            f"{x['copies']['copied_share']:.1%}",
            x["copies"]["verdict"],
        )
        lines.append([name, x["samples"], x["steps"], error, *(f"{x[key]:.4g}" for key in names), *copies])
    header = ["entry", "images", "updates", "pixel error", *names, "distance", "copied", "copy test"]
    return trial.markdown(header, lines)


def main() -> None:
    """The selected rows, then the table of all rows so far."""
    args, path = parse(), HERE / "memorizers.json"
    rows: dict[str, dict[str, Any]] = {}
    for name in args.only:
        row = {"command": " ".join(sys.argv[1:]), **measure(name, args)}
        rows = json.loads(path.read_text())["rows"] if path.exists() else {}
        rows[name] = row
        trial.write(path, {"rows": rows})
    print(table(rows))


if __name__ == "__main__":
    main()
