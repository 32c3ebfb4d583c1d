"""Pages of the site that are made from other files of the repository, and links between them.

- generated/systems/NAME.md: the docstring of a config, its sizes, its short run in experiments/entries, and
  the config itself.
- generated/experiments/NAME.md: the READMEs of experiments/.
- generated/contributing.md, generated/changelog.md: the files at the top of the repository.

Markdown files of the repository link to each other by path, so that they can be read on GitHub; `rewrite`
replaces these paths by pages of the site while Sphinx reads them.
"""

import ast
import json
import os
import pathlib
import re
import shutil
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from matplotlib.figure import Figure

from jaxdog.config import library

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
CONFIGS = sorted((ROOT / "configs").glob("*.py"))
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
# Pages below another page in the table of contents.
CHILDREN = {"systems": "generated/systems/*", "experiments": "generated/experiments/*"}
# Samples of full-width runs: (config, image, what it shows).
LONGER_RUNS = (
    (
        "record_biggan",
        "experiments/gpu/record_biggan.png",
        "Samples after 224 s of training on one H200, at two thirds of the config's widths "
        "([how](../../../experiments/gpu/README.md#a-training-run)).",
    ),
    (
        "r3gan",
        "experiments/record/grids/attempt-r3gan.png",
        "Samples of a narrow run of 1.8 hours on a CPU core ([how](../../../experiments/record/README.md)).",
    ),
)


def repository() -> str:
    """Address of the repository, from pyproject.toml; "" if it names none."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    urls = {name.lower(): url.rstrip("/") for name, url in project.get("urls", {}).items()}
    return next((urls[name] for name in ("repository", "source", "homepage") if name in urls), "")


# ------------------------------------------------------------------------------------- pages and links


def sources() -> dict[str, pathlib.Path]:
    """Page -> the Markdown file that it shows, unless the page is made of several files."""
    files = {path.name: path for path in DOCS.glob("*.md") if path.name != "README.md"}
    files["generated/contributing.md"] = ROOT / "CONTRIBUTING.md"
    files["generated/changelog.md"] = ROOT / "CHANGELOG.md"
    for path in sorted((ROOT / "experiments").glob("*/README.md")):
        files[f"generated/experiments/{path.parent.name}.md"] = path
    return files


def targets() -> dict[pathlib.Path, str]:
    """File of the repository -> the page that a link to it leads to."""
    found = {path: page for page, path in sources().items()}
    found |= {path: f"generated/systems/{path.stem}.md" for path in CONFIGS}
    found |= {path: path.name for path in DOCS.glob("*.ipynb")}
    return found | {DOCS / "README.md": "index.md", ROOT / "experiments" / "README.md": "experiments.md"}


def rewrite(app: Any, docname: str, source: list[str]) -> None:
    """Sphinx's event source-read: links between files of the repository become links between pages."""
    page = f"{docname}.md"
    if (DOCS / page).exists():
        origin = sources().get(page, DOCS / page)
        source[0] = site_links(source[0], origin, page, repository())
        if docname in CHILDREN:
            source[0] += f"\n```{{toctree}}\n:hidden:\n:glob:\n\n{CHILDREN[docname]}\n```\n"


def site_links(text: str, origin: pathlib.Path, page: str, address: str) -> str:
    """The text of the file `origin`, with links as they are needed on a page of the site.

    Files that are no page are linked at the repository's `address`, and not linked if it is "".
    """
    known = targets()

    def replace(match: re.Match) -> str:
        mark, label, target = match.groups()
        file, _, heading = target.partition("#")
        path = (origin.parent / file).resolve()
        if not file or "://" in target or not path.exists():
            return match[0]
        if mark:
            return f"![{label}]({os.path.relpath(path, (DOCS / page).parent)})"
        target = known.get(path) or known.get(path / "README.md")
        if target:
            return f"[{label}](/{target}{'#' if heading else ''}{heading})"
        kind = "tree" if path.is_dir() else "blob"
        return f"[{label}]({address}/{kind}/main/{path.relative_to(ROOT)})" if address else label

    return LINK.sub(replace, text)


def to_rst(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Sphinx's event autodoc-process-docstring: indented paragraphs are Python, |z| is no substitution."""
    lines[:] = [re.sub(r"\|(\w+)\|", r"\\|\1\\|", line) for line in lines]
    for i in range(len(lines) - 1, 1, -1):
        before = lines[i - 2]
        if lines[i].startswith("    ") and not lines[i - 1] and before and not before.startswith((" ", "-")):
            lines[i:i] = [".. code-block:: python", ""]


def generate() -> None:
    """Writes the pages in docs/generated/."""
    folder = DOCS / "generated"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "systems").mkdir(parents=True)
    (folder / "experiments").mkdir()
    for page, path in sources().items():
        if page.startswith("generated/"):
            (DOCS / page).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    rows = system_rows()
    for path in CONFIGS:
        page = folder / "systems" / f"{path.stem}.md"
        page.write_text("\n\n".join(system_page(path, rows, page.parent)) + "\n", encoding="utf-8")


# ------------------------------------------------------------------------------------- a page of a config


def system_rows() -> dict[str, dict[str, str]]:
    """Rows of the tables in docs/systems.md: name of the config -> {column: cell}."""
    rows, columns = {}, []
    for line in (DOCS / "systems.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split(" | ")]
        if line.startswith("| config"):
            columns = cells
        elif match := re.match(r"\| \[`(\w+)\.py`\]", line):
            cells = [cell.strip() for cell in line.strip()[1:-1].split("|")]
            rows[match[1]] = dict(zip(columns, cells, strict=True))
    return rows


def system_page(path: pathlib.Path, rows: Mapping[str, Mapping[str, str]], folder: pathlib.Path) -> list[str]:
    """The page of a config, block by block; images that it needs are written to `folder`."""
    name = path.stem
    module = ast.parse(path.read_text(encoding="utf-8"))
    docstring, end = ast.get_docstring(module) or "", module.body[0].end_lineno or 0
    sizes = _sizes(library.load(path), rows[name])
    table = ["| | |", "|---|---|", *(f"| {what} | {value} |" for what, value in sizes.items() if value)]
    parts = [f"# {name}", docstring, "## Sizes", "\n".join(table)]
    record = ROOT / "experiments" / "entries" / "rows" / f"{name}.json"
    if record.exists():
        parts += _short_run(name, json.loads(record.read_text(encoding="utf-8")), folder)
    longer = [run for run in LONGER_RUNS if run[0] == name]
    parts += ["## A longer run"] if longer else []
    for _, image, caption in longer:
        parts += [caption, f"![samples of {name}]({os.path.relpath(ROOT / image, folder)})"]
    code = f"```{{literalinclude}} ../../../configs/{path.name}\n:language: python\n:lines: {end + 2}-\n```"
    return [*parts, "## The config", "Fields that it does not set have the [defaults](/config.md).", code]


def _sizes(config: Any, row: Mapping[str, str]) -> dict[str, str]:
    """What defines the size of a run, as rows of a table; "" where a config has no such thing."""
    system = config.system
    resolution = system.get("resolution") or " to ".join(
        map(str, (system.resolutions[0], system.resolutions[-1]))
    )
    loss = system.get("loss", {}).get("name", "")
    hours = config.train.max_hours
    return {
        "network": config.get("generator", {}).get("name", ""),
        "parameters in millions (generator, discriminator)": row.get("parameters", ""),
        "resolution": f"{resolution} px",
        "classes": f"{config.data.classes}" if config.data.classes else "",
        "length of z": f"{system.latent_dim}" if "latent_dim" in system else "",
        "loss": f"`{loss}`" if loss else "",
        "images in a batch": f"{system.batch_size}",
        "steps": f"{config.train.steps:,}",
        "time limit": f"{hours:g} h" if hours else "none",
        "2019: MiFID on the public, the private leaderboard": row.get("2019: public, private", "")
        or row.get("2019: public", ""),
    }


def _short_run(name: str, record: Mapping[str, Any], folder: pathlib.Path) -> Iterator[str]:
    """The run in experiments/entries: what it was, its curves and its samples."""
    scores = [record[when]["fid768"] for when in ("before", "after") if record.get(when)]
    yield "## A short run"
    yield (
        f"{record['seconds'] / 60:.0f} minutes on two CPU cores, narrower than the config "
        f"([all systems](../../../experiments/entries/README.md)): {record['images']:,} images, fid768 "
        f"{' to '.join(f'{score:.2f}' for score in scores)}. It shows whether a system learns, not the "
        "score that its config reaches."
    )
    curve = folder / f"{name}-curve.png"
    if _curve(record["losses"], curve):
        yield f"![losses of {name}]({curve.name})"
    grid = ROOT / "experiments" / "entries" / "grids" / f"{name}.png"
    if grid.exists():
        yield f"![samples of {name}]({os.path.relpath(grid, folder)})"


def _curve(losses: list[dict[str, float]], path: pathlib.Path) -> bool:
    """Plots losses and, if there are any, the discriminator's logits; False if there is nothing to plot."""
    names = sorted({key for record in losses for key in record})
    total = [key for key in names if key in ("loss/d", "loss/g")]
    groups = [
        total or [key for key in names if key.startswith("loss/")],
        [k for k in names if k.startswith("logit/")],
    ]
    groups = [group for group in groups if group]
    if not groups:
        return False
    figure = Figure(figsize=(4.2 * len(groups), 2.6), layout="constrained")
    for axes, group in zip(figure.subplots(1, len(groups), squeeze=False)[0], groups, strict=True):
        for key in group:
            points = [(record["step"], record[key]) for record in losses if key in record]
            axes.plot(*zip(*points, strict=True), label=key, linewidth=1.0)
        axes.set_xlabel("step")
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    return True
