"""What MiFID and the forensic check say of the banned entries of 2019, trained on real photos.

    python experiments/entries/cheats.py --data ../shared/data --n 1000
    python experiments/entries/cheats.py --data FOLDER --n 10000 --only memorizer,rows --weights published

--data holds stanford_dogs/ (the three archives) and inception/ (weights). Each entry learns N pictures for as
many epochs as its original learnt 10,000, but the two networks with a bottleneck, slow on a CPU, are cut to
--updates; then it hands in those N. The real side is all photos, theirs among them. Every row is a whole run
of jaxdog below --runs; cheats.json beside this file holds the rows that were made so far.
"""

import argparse
import importlib
import json
import pathlib
import sys
import time
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT))

from jaxdog import commands  # noqa: E402  (the configs are found beside the package)
from jaxdog.training import writers  # noqa: E402  (the configs are found beside the package)

# Row -> its config, what is changed, and whether its generator is slow.
ENTRIES: dict[str, tuple[str, dict[str, Any], bool]] = {
    "memorizer": ("memorizer", {}, False),
    "rows": (  # cdeotte's entry as it scored 7.2
        "dog_memorizer",
        {
            "generator": {"name": "rows"},
            "optimizer.g.rates": (5.0, 1.0, 0.5),
            "optimizer.g.limits": (25.0, 1.5),
            "optimizer.g.every": 10,
            "optimizer.g.doubling": False,
            "game.share": 0.999,
        },
        False,
    ),
    "dog_memorizer": ("dog_memorizer", {}, True),
    "supervised": ("supervised", {}, True),
    "imitation": ("imitation", {}, False),
}
G_EPOCHS = {"memorizer": 50, "rows": 50, "dog_memorizer": 511, "supervised": 500, "imitation": 1}
D_EPOCHS = {"memorizer": 100, "rows": 50, "dog_memorizer": 50}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default=str(ROOT.parent / "shared" / "data"))
    parser.add_argument("--weights", default="", help="as eval.weights; default: those below --data")
    parser.add_argument("--n", type=int, default=1000, help="pictures that are learnt and handed in")
    parser.add_argument("--updates", type=int, default=0, help="at most, of slow networks; 0: all")
    parser.add_argument("--batch_size", type=int, default=256, help="pictures of one update")
    parser.add_argument("--batch", type=int, default=16, help="pictures in flight through Inception")
    parser.add_argument("--only", default=",".join(ENTRIES), help="rows, separated by commas")
    parser.add_argument("--runs", default="runs/cheats")
    return parser.parse_args()


def config_of(row: str, args: argparse.Namespace) -> Any:
    """The entry's config for N pictures."""
    file, changes, slow = ENTRIES[row]
    config = importlib.import_module(f"configs.{file}").get_config()
    with config.unlocked():
        if "generator" in changes:
            config.generator = changes["generator"]
            changes = {name: value for name, value in changes.items() if name != "generator"}
    config.update_from_flattened_dict(changes)
    config.game.batch_size = args.batch_size
    per_epoch = -(-args.n // args.batch_size)
    steps = G_EPOCHS[row] * per_epoch
    if slow and args.updates:
        steps = min(steps, args.updates)
    d_steps = D_EPOCHS.get(row, 0) * per_epoch
    k = 1 if row == "imitation" else 10
    steps, d_steps = (-(-x // k) * k for x in (steps, d_steps))
    fields = {
        "data.archives": str(pathlib.Path(args.data) / "stanford_dogs"),
        "data.curate.own_class.count": args.n,
        "train.steps": steps + d_steps,
        "train.steps_per_dispatch": k,
        "train.log_every": k,
        "train.grid_every": 0,
        "checkpoint.every": steps + d_steps,
        "eval.weights": args.weights or str(pathlib.Path(args.data) / "inception"),
        "eval.batch_size": args.batch,
        "submit.images": args.n,
        **({"game.d_updates": d_steps} if row in D_EPOCHS else {}),
    }
    config.update_from_flattened_dict(fields)
    return config


def measured(row: str, args: argparse.Namespace) -> dict[str, Any]:
    """Trains, submits and scores one entry."""
    folder, begun = pathlib.Path(args.runs) / f"{row}_{args.n}", time.monotonic()
    config = config_of(row, args)
    commands.run("train", config, str(folder))
    score = [line for line in writers.read_jsonl(folder / writers.SCORES) if line["final"]][-1]
    log = writers.read_jsonl(folder / writers.LOG)[-1]
    assert score["cheat"]
    return {
        **{
            name: x
            for name, x in score.items()
            if name not in ("sampling", "forensics", "evaluation_seconds")
        },
        "forensics": {name: x for name, x in score["forensics"].items() if name != "evidence"},
        "pixel_error": log.get("error/g"),  # mean, in levels, of the last updates, before mixing
        "steps": config.train.steps,
        "training_seconds": round(log["seconds"], 1),
        "all_seconds": round(time.monotonic() - begun, 1),
    }


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The rows as Markdown."""
    kind = next(iter(rows.values()))
    named = {key: next((x for x in (key, f"{key}_approx", f"r{key}", f"{key}_other") if x in kind), key)
             for key in ("fid768", "fid2048", "mifid")}  # fmt: skip
    head = ["entry", "pictures", "updates", "pixel error", *named.values(), "distance", "copied", "verdict"]
    lines = [head, ["---"] * len(head)]
    for row, x in rows.items():
        error = "" if x["pixel_error"] is None else f"{x['pixel_error']:.1f}"
        numbers = [f"{x[name]:.4g}" for name in named.values()]
        told = [f"{x['memorization_distance']:.4f}", f"{x['forensics']['copied_share']:.1%}"]
        lines.append(
            [row, str(x["samples"]), str(x["steps"]), error, *numbers, *told, x["forensics"]["verdict"]]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """All rows that are asked for, then the table of all that are there."""
    args, out = parse(), HERE / "cheats.json"
    rows: dict[str, dict[str, Any]] = {}
    for row in args.only.split(","):
        made = {"command": " ".join(sys.argv[1:]), **measured(row, args)}
        rows = json.loads(out.read_text())["rows"] if out.exists() else {}
        rows[row] = made
        out.write_text(json.dumps({"rows": rows}, indent=2) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
