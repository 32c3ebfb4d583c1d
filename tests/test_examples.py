"""The examples of docs/python.md, docs/new_metric.md and the notebook run."""

import pathlib
import re
import subprocess
import sys

import pytest

from tests import subprocesses
from tests.subprocesses import ROOT

NOT_RUN = ("install", "hub")  # cells that would need a network
TAGS = "install parameters drive train sample interpolate jax score export hub photos own report".split()


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A home of its own for what the tests of this file share."""
    home = tmp_path_factory.mktemp("home")
    return subprocesses.environment(PYTHONPATH=str(ROOT), HOME=str(home))


def test_the_page_shows_how_to_call_everything() -> None:
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    for name in (
        "train",
        "sample",
        "latents",
        "decode",
        "interpolate",
        "project",
        "score",
        "save_pretrained",
    ):
        assert re.search(rf"[a-z]\.{name}\(", "".join(examples(text))), name


def examples(text: str) -> list[str]:
    """The Python blocks of a page."""
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.long
def test_the_examples_of_the_page_run(tmp_path: pathlib.Path, environment: dict[str, str]) -> None:
    blocks = examples((ROOT / "docs" / "python.md").read_text(encoding="utf-8"))
    script = "\n".join(blocks).replace('"toy"', '"toy:test"')
    assert script.count('"toy:test"') == 1
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert (tmp_path / "toy_dogs" / "model.safetensors").is_file()


def test_the_example_of_a_metric_runs(tmp_path: pathlib.Path, environment: dict[str, str]) -> None:
    (block,) = examples((ROOT / "docs" / "new_metric.md").read_text(encoding="utf-8"))
    command = [sys.executable, "-c", block]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.oracle
def test_the_notebook_runs(
    tmp_path: pathlib.Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed: make oracles")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed: make oracles")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed: make oracles")
    book = nbformat.read(ROOT / "docs" / "notebook.ipynb", 4)
    nbformat.validate(book)
    cells = {cell.metadata["tags"][0]: cell for cell in book.cells if cell.cell_type == "code"}
    assert list(cells) == TAGS
    assert not any(cell.outputs or cell.execution_count for cell in cells.values()), "clear the outputs"
    assert not any("subprocess" in cell.source for cell in cells.values())
    book.cells = [cell for name, cell in cells.items() if name not in NOT_RUN]
    cells["parameters"].source = f'RUNS = "{tmp_path}/runs"\nTOY = OWN = "toy:test"'
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    nbclient.NotebookClient(book, timeout=1800, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = {name: [out.get("data", {}) for out in cell.outputs] for name, cell in cells.items()}
    assert "image/png" in shown["sample"][-1]
    assert "image/gif" in shown["interpolate"][-1]
    assert "random_fid768" in shown["score"][-1]["text/plain"]
    assert shown["export"][-1]["text/plain"] == "True"
    assert "<svg" in shown["report"][-1]["text/html"]
