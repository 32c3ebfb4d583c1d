"""What attempts came to: python experiments/record/compare.py runs/record/r3gan runs/record/record_biggan ...

Takes the folders that run.py has filled, each to its end, and writes beside this file attempts.json (plans,
what their configs changed, every score), attempts.md (the final scores), attempts.png (fid768 against
pictures, hours and operations) and the final sheets, grids/attempt-ARM.png.
"""

import importlib
import json
import pathlib
import shutil
import sys
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from experiments import trial  # noqa: E402

# Fields that say nothing of the recipe.
OTHER = "train.", "checkpoint.", "eval.", "submit.", "data.archives", "data.path", "data.cache_dir"
AXES = {"kimg": "thousand real pictures", "hours": "hours", "teraflop": "TFLOP"}


def changed(arm: str, ran: dict[str, Any]) -> dict[str, Any]:
    """What a run's config says differently from its file, but for length, scoring and places.

    None: the field is gone.
    """
    from jaxdog import modes

    config = importlib.import_module(f"configs.{arm}").get_config()
    told, now = modes.flat(json.loads(config.to_json_best_effort())), modes.flat(ran)
    return {
        name: now.get(name)
        for name in sorted(told.keys() | now.keys())
        if told.get(name) != now.get(name) and not name.startswith(OTHER)
    }


def attempt(folder: pathlib.Path) -> dict[str, Any]:
    """One attempt: its plan, what it changed, and its scores with the seconds and operations they took."""
    from jaxdog import writers

    plan = json.loads((folder / "plan.json").read_text())
    seconds = {line["step"]: line["seconds"] for line in writers.read_jsonl(folder / writers.LOG)}
    scores = writers.read_jsonl(folder / writers.SCORES)
    if not scores or not scores[-1]["final"]:
        sys.exit(f"{folder} has no final score: run.py has not brought it to its end")
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


def table(attempts: list[dict[str, Any]]) -> str:
    """Final scores as Markdown, best fid768 first."""
    names = [
        name
        for name in attempts[0]["scores"][-1]
        if name.startswith(("fid", "mifid", "held_out_fid", "precision", "recall", "memorization_d"))
    ]
    lines = [f"| arm | TFLOP | hours | thousand real pictures | best at step | {' | '.join(names)} |"]
    lines.append("|---" * (5 + len(names)) + "|")
    for x in sorted(attempts, key=lambda x: x["scores"][-1]["fid768"]):
        final = x["scores"][-1]
        seen = max(row["kimg"] / row["step"] for row in x["scores"]) * x["steps"]
        numbers = " | ".join(f"{final[name]:.4g}" for name in names)
        lines.append(
            f"| `{x['arm']}` | {x['flop'] / 1e12:.1f} | {x['hours']:.2f} | {seen:.0f} | "
            f"{final['step']:,} of {x['steps']:,} | {numbers} |"
        )
    return "\n".join(lines) + "\n"


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
                [r[axis] for r in ways], [r["fid768"] for r in ways], "o-", color=f"C{k}", label=x["arm"]
            )
            axes.plot([final[axis]], [final["fid768"]], "x", color=f"C{k}")
        axes.set_xlabel(said)
        axes.set_ylabel("fid768")
        axes.legend()
    figure.savefig(path, dpi=100)


def main() -> None:
    """Writes all of it."""
    folders = [pathlib.Path(name) for name in sys.argv[1:]]
    if not folders or any(name.startswith("-") for name in sys.argv[1:]):
        sys.exit(__doc__)
    attempts = [attempt(folder) for folder in folders]
    trial.write(HERE / "attempts.json", attempts)
    (HERE / "attempts.md").write_text(table(attempts))
    draw(attempts, HERE / "attempts.png")
    for folder, x in zip(folders, attempts, strict=True):
        shutil.copy(max((folder / "grids").glob("final_*.png")), HERE / "grids" / f"attempt-{x['arm']}.png")
    print(table(attempts))


if __name__ == "__main__":
    main()
