"""The documentation: links, paths, fields and commands exist; the README is short and lists every config."""

import importlib
import pathlib
import re
import shlex
import tomllib
from typing import Any

import ml_collections
import pytest
import yaml

from docs import pages
from jaxdog.advice import rules
from jaxdog.cli import entry, flags, options
from jaxdog.config import library
from jaxdog.utils import errors
from tests.subprocesses import ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),  # not those that `make docs` generates
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
    """Paths in a text that do not exist; what make builds (/docs/_build/ in .gitignore) may be absent."""
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    built = tuple(line.lstrip("/") for line in ignored if line.startswith("/"))
    named = {found.split("::")[0] for found in PATHS.findall(text)}
    return sorted(
        name
        for name in named
        if "my_" not in name and not name.startswith(built) and not (ROOT / name).exists()
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_paths_exist(page):
    text = page.read_text(encoding="utf-8")
    assert not broken_links(page, text)
    assert not missing_paths(text)


def test_the_checks_find_what_is_broken():
    text = "[a](README.md) [b](nowhere.md) ![c](nowhere.png) [d](README.md#nowhere) [e](https://x.org/y.md)"
    assert broken_links(ROOT / "README.md", text) == ["nowhere.md", "nowhere.png", "README.md#nowhere"]
    text = "`configs/toy.py:test`, `configs/nothing.py`, jaxdog/losses/, `jaxdog/nowhere/`, docs/_build/"
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
    names = sorted(path.name for kind in ("*.md", "*.ipynb") for path in (ROOT / "docs").glob(kind))
    assert not [name for name in names if name != "README.md" and f"({name})" not in index]


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


# Commands ------------------------------------------------------------------------------------------------

LINES = r"((?:[^\n]*\\\n)*[^\n]*)"  # a line, which a backslash at its end continues
OLD_COMMANDS = re.compile(rf"^(?: {{4}}|\$ )python -m jaxdog\.(main|score){LINES}", re.MULTILINE)
COMMANDS = re.compile(rf"^(?: {{4}}|\$ )jaxdog {LINES}", re.MULTILINE)
PLACEHOLDERS = ("CONFIG", "NAME")


def check_command(words: list[str]) -> None:
    """The words after `jaxdog` are a command, its options exist, and so does its config."""
    overrides, rest = options.split_overrides(words)
    args = entry.tree(rest[0]).parse_args(options.with_hyphens(rest))
    assert rest[0] in entry.BY_NAME
    assert not overrides or entry.BY_NAME[rest[0]].takes_overrides
    config = getattr(args, "config", None)
    if config and not config.startswith("my_") and config not in PLACEHOLDERS and "/" not in config:
        library.find(config.partition(":")[0])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_are_understood(page):
    text = page.read_text(encoding="utf-8")
    for command in COMMANDS.findall(text):
        check_command(shlex.split(command.replace("\\\n", " "), comments=True))
    for module, command in OLD_COMMANDS.findall(text):
        words = shlex.split(command.replace("\\\n", " ").replace("...", ""), comments=True)
        if module == "score":
            check_command(["score", *words])
            continue
        parser = options.Parser()
        flags.add_arguments(parser)
        _, words = options.split_overrides(flags.two_hyphens(words))
        parser.parse_args(options.with_hyphens(words))


@pytest.mark.parametrize("command", ["train nothing", "train toy --dta photos/", "sampel runs/toy"])
def test_the_check_of_commands_finds_mistakes(command):
    with pytest.raises((SystemExit, errors.UserError)):
        check_command(command.split())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_extras_exist(page):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"(?:jaxdog|'\.|\"\.)\[([a-z,]+)\]", text)
    assert {name for names in named for name in names.split(",")} <= set(project["optional-dependencies"])


def test_the_table_of_chosen_configs_is_up_to_date():
    text = (ROOT / "docs" / "photos.md").read_text(encoding="utf-8")
    assert rules.table() in text, "print(jaxdog.advice.rules.table()) writes it anew"


# The site ------------------------------------------------------------------------------------------------


def test_links_of_the_site_lead_to_pages_or_to_the_repository():
    page = ROOT / "docs" / "training.md"
    links = (
        "[a](data.md#crops) [b](../configs/biggan.py) [c](../experiments/entries/README.md) [d](README.md)"
    )
    assert pages.site_links(links, page, "training.md", "") == (
        "[a](/data.md#crops) [b](/generated/systems/biggan.md) [c](/generated/experiments/entries.md) "
        "[d](/index.md)"
    )
    links = "[a](../pyproject.toml) [b](../jaxdog/losses) [c](https://x.org/a.md) [d](nowhere.md) [e](#crops)"
    assert pages.site_links(links, page, "training.md", "https://host") == (
        "[a](https://host/blob/main/pyproject.toml) [b](https://host/tree/main/jaxdog/losses) "
        "[c](https://x.org/a.md) [d](nowhere.md) [e](#crops)"
    )
    assert pages.site_links("[a `b`](../pyproject.toml)", page, "training.md", "") == "a `b`"


def test_images_of_the_site_are_relative_to_the_page():
    page = ROOT / "experiments" / "entries" / "README.md"
    text = pages.site_links("![a](figure.png)", page, "generated/experiments/entries.md", "")
    assert text == "![a](../../../experiments/entries/figure.png)"


@pytest.mark.parametrize("name", ["biggan", "progan", "memorizer"])
def test_the_page_of_a_config(name, tmp_path):
    path = ROOT / "configs" / f"{name}.py"
    text = "\n\n".join(pages.system_page(path, pages.system_rows(), tmp_path))
    assert text.startswith(f"# {name}\n")
    assert library.describe(path) in text
    assert f"| steps | {library.load(path).train.steps:,} |" in text
    assert (tmp_path / f"{name}-curve.png").exists() == (name != "memorizer")


def test_every_config_has_a_row_for_its_page():
    assert sorted(pages.system_rows()) == sorted(name.removesuffix(".py") for name in CONFIGS)


def test_the_citation_file_agrees_with_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0" and citation["message"] and citation["title"]
    assert citation["authors"] == [{"name": "The jaxdog developers"}]
    assert citation["version"] == project["version"] and citation["license"] == project["license"]
    assert citation["repository-code"] == pages.repository()
