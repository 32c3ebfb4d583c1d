"""The whole of each config is checked in, so that a changed default shows in a diff.

python -m tests.config.test_snapshots    # writes the snapshots anew
"""

import json
import pathlib
from typing import Any

import pytest

from jaxdog.config import library

FOLDER = pathlib.Path(__file__).with_name("snapshots")


def snapshot(name: str) -> str:
    """A config's fields by their dotted names, one a line."""
    fields = flat(json.loads(library.load(name).to_json_best_effort()))
    return json.dumps(fields, indent=0, sort_keys=True) + "\n"


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Empty sections are kept."""
    fields: dict[str, Any] = {}
    for name, value in tree.items():
        nested = isinstance(value, dict) and value
        fields |= flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return fields


@pytest.mark.parametrize("name", library.names())
def test_resolved_configs_are_those_of_the_snapshots(name: str) -> None:
    expected = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    assert json.loads(snapshot(name)) == expected, "python -m tests.config.test_snapshots writes them anew"


def test_each_snapshot_has_a_config() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == set(library.names())


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in library.names():
        (FOLDER / f"{name}.json").write_text(snapshot(name), encoding="utf-8")
