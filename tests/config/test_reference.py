"""docs/config.md lists every field of every config."""

import json
import re

from jaxdog.config import library, reference, schema
from tests.config import test_snapshots
from tests.subprocesses import ROOT

PAGE = ROOT / "docs" / "config.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference.page(), (
        "python -m jaxdog.config.reference docs/config.md writes it anew"
    )


def test_every_field_has_a_meaning() -> None:
    for line in reference.page().splitlines():
        if line.startswith("|") and not line.startswith("| **"):
            meaning = re.sub(r"`'[^']*'`", "", line.split(" | ")[-1])  # without the choices
            assert meaning.strip(" |,;"), line


def test_every_field_of_every_config_is_listed() -> None:
    rows = [line.split("|")[1:3] for line in reference.page().splitlines() if line.startswith("|")]
    listed = {cell.strip("* ") for row in rows for cell in row}
    listed |= {"name", *schema.Experiment._fields}  # sections are headings
    for name in library.names():
        for field in json.loads(test_snapshots.snapshot(name)):
            if "sweep." not in field and "max_row_norms." not in field:
                assert field.split(".")[-1] in listed, f"{name}: {field}"
