"""The result of `score_files.score` as text."""

from collections.abc import Sequence
from typing import Any


def table(scores: dict[str, Any]) -> str:
    """Scores as text: values, their origin, scores of each class, copies and warnings."""
    values = {k: v for k, v in scores.items() if (isinstance(v, float) and k != "seconds") or v is None}
    settings = {k: v for k, v in scores.items() if isinstance(v, str | int)}
    settings["seconds"] = f"{scores['seconds']:.1f}"
    width = max(map(len, [*values, *settings]))
    lines = [f"{name:<{width}}  {'undefined' if x is None else f'{x:,.6g}'}" for name, x in values.items()]
    lines += ["", *(f"{name:<{width}}  {x}" for name, x in settings.items())]
    classes: Sequence[tuple[str, dict[str, Any]]] = list(scores.get("per_class", {}).items())
    if classes:
        names = list(classes[0][1])
        lines += ["", "  ".join([f"{'class':<40}", *(f"{name:>22}" for name in names)])]
        for class_name, row in classes:
            cells = ["undefined" if row[name] is None else f"{row[name]:,.4g}" for name in names]
            lines.append("  ".join([f"{class_name:<40}", *(f"{cell:>22}" for cell in cells)]))
    if "leaderboard" in scores:
        lines += ["", scores["leaderboard"]["text"]]
    if "copies" in scores:
        found = scores["copies"]
        lines += ["", f"copies: {found['verdict']}", *(f"  because {reason}" for reason in found["reasons"])]
        floats = {k: v for k, v in found.items() if isinstance(v, float)}
        lines += [f"  {name:<{width}}{x:,.4g}" for name, x in floats.items()]
    lines += ["", *(f"note: {warning}" for warning in scores["warnings"])] if scores["warnings"] else []
    return "\n".join(lines)
