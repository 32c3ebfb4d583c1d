"""What attempts came to: python experiments/record/compare.py runs/record/r3gan runs/record/record_biggan ...

Takes the folders that run.py has filled, each to its end, and writes beside this file attempts.json (plans,
what their configs changed, every score), attempts.md (the final scores), attempts.png (fid768 against
pictures, hours and operations) and the final sheets, grids/attempt-NAME.png. An attempt is called by its arm;
where one arm is there more than once, by the folder above (run.py's --runs) besides.

With --pilots it compares runs that were stopped on the way, all at their first scores, and writes pilots.json
and pilots.md.
"""

import argparse
import importlib
import json
import pathlib
import shutil
import sys
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from experiments import trial  # noqa: E402

# Fields that say nothing of the recipe, or follow from the plan.
OTHER = "train.", "checkpoint.", "eval.", "submit.", "data.archives", "data.path", "data.cache_dir"
OTHER += ("game.augment_p.steps",)
AXES = {"kimg": "thousand real pictures", "hours": "hours", "teraflop": "TFLOP"}


def changed(arm: str, ran: dict[str, Any]) -> dict[str, Any]:
    """What a run's config says differently from its file, but for length, scoring and places.

    None: the field is gone.
    """
    from jaxdog import commands

    config = importlib.import_module(f"configs.{arm}").get_config()
    told, now = commands.flat(json.loads(config.to_json_best_effort())), commands.flat(ran)
    return {
        name: now.get(name)
        for name in sorted(told.keys() | now.keys())
        if told.get(name) != now.get(name) and not name.startswith(OTHER)
    }


def attempt(folder: pathlib.Path, whole: bool = True) -> dict[str, Any]:
    """One attempt: its plan, what it changed, and its scores with the seconds and operations they took.

    whole: it must have come to its end; else its first score is what counts.
    """
    from jaxdog.training import writers

    plan = json.loads((folder / "plan.json").read_text())
    seconds = {line["step"]: line["seconds"] for line in writers.read_jsonl(folder / writers.LOG)}
    scores = writers.read_jsonl(folder / writers.SCORES)
    if not scores or (whole and not scores[-1]["final"]):
        sys.exit(f"{folder} has no {'final ' * whole}score: run.py has not brought it so far")
    for row in scores:
        last = max((step for step in seconds if step <= row["step"]), default=0)
        row["hours"] = seconds.get(last, 0.0) / 3600.0
        row["teraflop"] = row["step"] * plan["flop_per_step"] / 1e12
    ran = json.loads((folder / "config.json").read_text())
    sweep = folder / "sweep.json"
    return {
        **plan,
        "hours": max(seconds.values()) / 3600.0,
        "changes": changed(plan["arm"], ran),
        "sweep": json.loads(sweep.read_text()) if sweep.is_file() else None,
        "scores": scores,
    }


def name(attempts: list[dict[str, Any]], folders: list[pathlib.Path]) -> None:
    """Gives each attempt a name of its own: its arm, and the folder above where that is not enough."""
    arms = [x["arm"] for x in attempts]
    for x, folder in zip(attempts, folders, strict=True):
        arm = x["arm"]
        x["name"] = arm if arms.count(arm) == 1 else f"{arm}-{folder.absolute().parent.name}"


def table(attempts: list[dict[str, Any]]) -> str:
    """Final scores as Markdown, best fid768 first."""
    names = [
        name
        for name in attempts[0]["scores"][-1]
        if name.startswith(("fid", "mifid", "held_out_fid", "precision", "recall", "memorization_d"))
    ]
    lines = [f"| attempt | TFLOP | hours | thousand real pictures | best at step | {' | '.join(names)} |"]
    lines.append("|---" * (5 + len(names)) + "|")
    for x in sorted(attempts, key=lambda x: x["scores"][-1]["fid768"]):
        final = x["scores"][-1]
        seen = max(row["kimg"] / row["step"] for row in x["scores"]) * x["steps"]
        numbers = " | ".join(f"{final[name]:.4g}" for name in names)
        lines.append(
            f"| `{x['name']}` | {x['flop'] / 1e12:.1f} | {x['hours']:.2f} | {seen:.0f} | "
            f"{final['step']:,} of {x['steps']:,} | {numbers} |"
        )
    return "\n".join(lines) + "\n"


def beginnings(attempts: list[dict[str, Any]]) -> str:
    """First scores as Markdown, best fid768 first, with the changes that not all have in common."""
    common = [field for field in attempts[0]["changes"] if len({_said(x, field) for x in attempts}) == 1]
    lines = ["| changes | TFLOP | step | hours | fid768 | fid2048 | held-out fid768 |", "|---" * 7 + "|"]
    for x in sorted(attempts, key=lambda x: x["scores"][0]["fid768"]):
        first = x["scores"][0]
        fid2048 = first.get("fid2048", first.get("fid2048_approx"))
        changes = [f"{field} {value}" for field, value in x["changes"].items() if field not in common]
        lines.append(
            f"| `{x['name']}`: {', '.join(changes)} | {first['teraflop']:.1f} | {first['step']:,} | "
            f"{first['hours']:.2f} | {first['fid768']:.3f} | {fid2048:.1f} | {first['held_out_fid768']:.3f} |"
        )
    return "\n".join(lines) + "\n"


def _said(attempt: dict[str, Any], field: str) -> str:
    return json.dumps(attempt["changes"].get(field, "as in the config"))


def draw(attempts: list[dict[str, Any]], path: pathlib.Path) -> None:
    """fid768 of training's own evaluations against each of AXES; crosses: the final one."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(AXES), 3.5), layout="constrained")
    for i, (axis, said) in enumerate(AXES.items()):
        axes = figure.add_subplot(1, len(AXES), i + 1)
        for k, x in enumerate(attempts):
            ways = [row for row in x["scores"] if not row["final"]]
            final = x["scores"][-1]
            axes.plot(
                [r[axis] for r in ways], [r["fid768"] for r in ways], "o-", color=f"C{k}", label=x["name"]
            )
            axes.plot([final[axis]], [final["fid768"]], "x", color=f"C{k}")
        axes.set_xlabel(said)
        axes.set_ylabel("fid768")
        axes.legend()
    figure.savefig(path, dpi=100)


def main() -> None:
    """Writes all of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    parser.add_argument("--pilots", action="store_true", help="runs that were stopped on the way")
    args = parser.parse_args()
    attempts = [attempt(folder, whole=not args.pilots) for folder in args.folders]
    name(attempts, args.folders)
    kind, told = ("pilots", beginnings(attempts)) if args.pilots else ("attempts", table(attempts))
    trial.write(HERE / f"{kind}.json", attempts)
    (HERE / f"{kind}.md").write_text(told)
    print(told)
    if args.pilots:
        return
    draw(attempts, HERE / "attempts.png")
    for folder, x in zip(args.folders, attempts, strict=True):
        sheet = max((folder / "grids").glob("final_*.png"))
        shutil.copy(sheet, HERE / "grids" / f"attempt-{x['name']}.png")


if __name__ == "__main__":
    main()
