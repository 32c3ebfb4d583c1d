"""The tables of attempts.

    python experiments/record/compare.py runs/record/r3gan runs/record/record_biggan ...

Reads finished work directories of run.py and writes attempts.json (plans, changes of their configs, all
scores), attempts.md (final scores), attempts.png (fid768 against images, hours and operations) and the
final grids, grids/attempt-NAME.png. An attempt is named by its arm, and by its --runs folder if an arm
occurs more than once.

With --pilots it compares unfinished runs at their first scores, and writes pilots.json and pilots.md.
"""

import json
import pathlib
import shutil
import sys
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from experiments import trial  # noqa: E402

# Fields that are not part of the recipe, or follow from the plan.
IGNORED = "train.", "checkpoint.", "eval.", "submit.", "data.archives", "data.path", "data.cache_dir"
IGNORED += ("system.augment_p.steps",)
AXES = {"kimg": "thousand real images", "hours": "hours", "teraflop": "TFLOP"}
FINAL = ("fid", "mifid", "val_fid", "precision", "recall", "memorization_d")  # prefixes of the scores shown


def changes_of(arm: str, ran: dict[str, Any]) -> dict[str, Any]:
    """Fields of a run's config that differ from its file, except IGNORED; None: the field is gone."""
    from jaxdog.config import saved

    original = saved.flatten(json.loads(trial.load_config(arm).to_json_best_effort()))
    now = saved.flatten(ran)
    return {
        name: now.get(name)
        for name in sorted(original.keys() | now.keys())
        if original.get(name) != now.get(name) and not name.startswith(IGNORED)
    }


def read(folder: pathlib.Path, finished: bool = True) -> dict[str, Any]:
    """An attempt: plan, changes, and scores with hours and operations; SystemExit if it is unfinished."""
    from jaxdog.training import writers

    plan = json.loads((folder / "plan.json").read_text())
    seconds = {line["step"]: line["seconds"] for line in writers.read_jsonl(folder / writers.LOG)}
    scores = writers.read_jsonl(folder / writers.SCORES)
    if not scores or (finished and not scores[-1]["final"]):
        sys.exit(f"{folder} has no {'final ' * finished}score: run.py has not brought it so far")
    for row in scores:
        last = max((step for step in seconds if step <= row["step"]), default=0)
        row["hours"] = seconds.get(last, 0.0) / 3600.0
        row["teraflop"] = row["step"] * plan["flop_per_step"] / 1e12
    sweep = folder / "sweep.json"
    return {
        **plan,
        "hours": max(seconds.values()) / 3600.0,
        "changes": changes_of(plan["arm"], json.loads((folder / "config.json").read_text())),
        "sweep": json.loads(sweep.read_text()) if sweep.is_file() else None,
        "scores": scores,
    }


def add_names(attempts: list[dict[str, Any]], folders: list[pathlib.Path]) -> None:
    """Names each attempt by its arm, and by the folder above where that is not unique."""
    arms = [x["arm"] for x in attempts]
    for x, folder in zip(attempts, folders, strict=True):
        arm = x["arm"]
        x["name"] = arm if arms.count(arm) == 1 else f"{arm}-{folder.absolute().parent.name}"


def final_table(attempts: list[dict[str, Any]]) -> str:
    """Final scores as Markdown, best fid768 first."""
    names = [name for name in attempts[0]["scores"][-1] if name.startswith(FINAL)]
    lines = []
    for x in sorted(attempts, key=lambda x: x["scores"][-1]["fid768"]):
        final = x["scores"][-1]
        seen = max(row["kimg"] / row["step"] for row in x["scores"]) * x["steps"]
        line = [f"`{x['name']}`", f"{x['flop'] / 1e12:.1f}", f"{x['hours']:.2f}", f"{seen:.0f}"]
        best = f"{final['step']:,} of {x['steps']:,}"
        lines.append([*line, best, *(f"{final[name]:.4g}" for name in names)])
    header = ["attempt", "TFLOP", "hours", "thousand real images", "best at step", *names]
    return trial.markdown(header, lines)


def pilot_table(attempts: list[dict[str, Any]]) -> str:
    """First scores as Markdown, best fid768 first, with the changes that not all have in common."""

    def value(attempt: dict[str, Any], field: str) -> str:
        return json.dumps(attempt["changes"].get(field, "as in the config"))

    common = {field for field in attempts[0]["changes"] if len({value(x, field) for x in attempts}) == 1}
    lines = []
    for x in sorted(attempts, key=lambda x: x["scores"][0]["fid768"]):
        first = x["scores"][0]
        changes = ", ".join(f"{field} {new}" for field, new in x["changes"].items() if field not in common)
        fid2048 = first.get("fid2048", first.get("fid2048_approx"))
        line = [f"`{x['name']}`: {changes}", f"{first['teraflop']:.1f}", f"{first['step']:,}"]
        scores = f"{first['fid768']:.3f}", f"{fid2048:.1f}", f"{first['val_fid768']:.3f}"
        lines.append([*line, f"{first['hours']:.2f}", *scores])
    return trial.markdown(["changes", "TFLOP", "step", "hours", "fid768", "fid2048", "val_fid768"], lines)


def draw(attempts: list[dict[str, Any]], path: pathlib.Path) -> None:
    """fid768 of the evaluations during training against each of AXES; crosses: the final one."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(AXES), 3.5), layout="constrained")
    for i, (axis, label) in enumerate(AXES.items()):
        axes = figure.add_subplot(1, len(AXES), i + 1)
        for k, x in enumerate(attempts):
            rows, final = [row for row in x["scores"] if not row["final"]], x["scores"][-1]
            points = [[row[key] for row in rows] for key in (axis, "fid768")]
            axes.plot(*points, "o-", color=f"C{k}", label=x["name"])
            axes.plot([final[axis]], [final["fid768"]], "x", color=f"C{k}")
        axes.set_xlabel(label)
        axes.set_ylabel("fid768")
        axes.legend()
    figure.savefig(path, dpi=100)


def main() -> None:
    """Writes everything."""
    parser = trial.command_line(__doc__)
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    parser.add_argument("--pilots", action="store_true", help="runs that were stopped on the way")
    args = parser.parse_args()
    attempts = [read(folder, finished=not args.pilots) for folder in args.folders]
    add_names(attempts, args.folders)
    kind, text = ("pilots", pilot_table(attempts)) if args.pilots else ("attempts", final_table(attempts))
    trial.write(HERE / f"{kind}.json", attempts)
    (HERE / f"{kind}.md").write_text(text)
    print(text)
    if args.pilots:
        return
    draw(attempts, HERE / "attempts.png")
    for folder, x in zip(args.folders, attempts, strict=True):
        grid = max((folder / "grids").glob("final_*.png"))
        shutil.copy(grid, HERE / "grids" / f"attempt-{x['name']}.png")


if __name__ == "__main__":
    main()
