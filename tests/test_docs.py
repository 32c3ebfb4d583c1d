"""The documentation: links, paths, fields and flags exist; the README is short and lists every config."""

import importlib
import pathlib
import re
from typing import Any

import ml_collections
import pytest

from jaxdog import main, score

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "experiments").rglob("README.md")),
    ROOT / "experiments" / "bench" / "notes.md",
]
README_LINES = 160
# Paths of this repository in running text and in commands; `my_` marks the names of a reader's own files.
PATHS = re.compile(r"(?<![\w/.])(?:configs|docs|experiments|jaxdog|tests)/[\w/.-]*[\w/]")
LINKS = re.compile(r"(?<!\!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
CONFIGS = sorted(path.name for path in (ROOT / "configs").glob("*.py"))


def broken_links(page: pathlib.Path, text: str) -> list[str]:
    """Relative links of a page that lead to no file, or to no heading of it."""
    broken = []
    for found in LINKS.finditer(text):
        target = found[1] or found[2]
        if target.startswith(("http://", "https://")):
            continue
        file, _, heading = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        if not path.exists() or (heading and heading not in headings(path)):
            broken.append(target)
    return broken


def headings(page: pathlib.Path) -> set[str]:
    """The anchors of a page, as GitHub makes them of its headings."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def missing_paths(text: str) -> list[str]:
    """Paths named in a text that do not exist."""
    named = {found.split("::")[0] for found in PATHS.findall(text)}
    return sorted(name for name in named if "my_" not in name and not (ROOT / name).exists())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_paths_exist(page):
    text = page.read_text(encoding="utf-8")
    assert not broken_links(page, text)
    assert not missing_paths(text)


def test_the_checks_find_what_is_broken():
    text = "[a](README.md) [b](nowhere.md) ![c](nowhere.png) [d](README.md#nowhere) [e](https://x.org/y.md)"
    assert broken_links(ROOT / "README.md", text) == ["nowhere.md", "nowhere.png", "README.md#nowhere"]
    text = "`configs/biggan.py:test`, `configs/nothing.py`, jaxdog/losses/, `jaxdog/nowhere/`"
    assert missing_paths(text) == ["configs/nothing.py", "jaxdog/nowhere/"]


def test_the_readme_is_short():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= README_LINES, f"README.md has {len(lines)} lines, the limit is {README_LINES}"


@pytest.mark.parametrize("page", ["README.md", "docs/systems.md"])
def test_every_config_is_in_the_tables_of_systems(page):
    rows = "".join(line for line in (ROOT / page).read_text(encoding="utf-8").splitlines() if line[:1] == "|")
    assert not [name for name in CONFIGS if f"`{name}`" not in rows]
    named = set(re.findall(r"`(\w+\.py)`", rows))
    assert named <= set(CONFIGS) | {"types.py"}


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = sorted(path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md"))
    assert not [page for page in pages if page != "README.md" and f"({page})" not in index]


def test_every_experiment_is_in_the_index():
    index = (ROOT / "experiments" / "README.md").read_text(encoding="utf-8")
    folders = sorted(path.parent.name for path in (ROOT / "experiments").glob("*/README.md"))
    assert not [name for name in folders if f"({name}/README.md" not in index]


# Fields of configs and flags -----------------------------------------------------------------------------


def fields_of(section: Any, prefix: str = "") -> set[str]:
    """All dotted names of a config, of its sections as well."""
    names = set()
    for name, value in section.items():
        names.add(prefix + name)
        if isinstance(value, ml_collections.ConfigDict):
            names |= fields_of(value, f"{prefix}{name}.")
    return names


@pytest.fixture(scope="module")
def fields() -> set[str]:
    configs = (importlib.import_module(f"configs.{name.removesuffix('.py')}") for name in CONFIGS)
    return set().union(*(fields_of(config.get_config()) for config in configs))


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "config.md"], ids=lambda page: str(page.relative_to(ROOT))
)
def test_fields_of_configs_exist(page, fields):
    """docs/config.md is generated from the fields."""
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w.])config\.((?:\w+\.)*[a-z]\w*)", text)) - {"json", "md", "py", "x.y"}
    assert named <= fields, sorted(named - fields)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_flags_exist(page):
    """Of `python -m jaxdog.main` and `python -m jaxdog.score`, whose commands may end in a backslash."""
    known = {*main.flags.FLAGS, *score.flags.FLAGS}
    commands = re.compile(r"python -m jaxdog\.(?:main|score)((?:[^\n]*\\\n)*[^\n]*)")
    for command in commands.findall(page.read_text(encoding="utf-8")):
        flags = re.findall(r"--(\w[\w.]*)", command)
        unknown = [name for name in flags if name not in known and not name.startswith("config.")]
        assert not unknown
