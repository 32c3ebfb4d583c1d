"""The notebook runs, and scripts for clusters name flags and fields that exist."""

import pathlib
import re
import subprocess

import pytest

from jaxdog import main
from tests import test_end_to_end, test_factory

ROOT = test_factory.ROOT
SCRIPTS = sorted((ROOT / "experiments" / "clusters").glob("*.*"))


def test_shell_scripts_are_shell() -> None:
    scripts = [path for path in SCRIPTS if path.suffix == ".sh"]
    assert len(scripts) == 2
    for path in scripts:
        subprocess.run(["bash", "-n", path], check=True)


@pytest.mark.parametrize("path", SCRIPTS, ids=[path.name for path in SCRIPTS])
def test_flags_exist(path: pathlib.Path) -> None:
    """Those that follow jaxdog.main, or stand in the README."""
    words = re.findall(r"--([a-z_.]+)(?==|\s|`|\b)", path.read_text())
    others = {"nodes", "ntasks-per-node", "gpus-per-node", "time", "requeue", "signal", "job-name"}
    others |= {"cpus-per-task", "kill-on-bad-exit", "zone", "worker", "command"}
    first = {word.split("-")[0] for word in others}
    known = set(main.flags.FLAGS) | first
    strange = {word for word in words if word not in known and not word.startswith("config.")}
    assert not strange
    assert "coordinator" in words or path.name == "slurm.sh"


def test_the_notebook_trains_a_toy(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed: make oracles")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed: make oracles")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed: make oracles")
    book = nbformat.read(ROOT / "experiments" / "colab.ipynb", 4)
    nbformat.validate(book)
    tags = [tag for cell in book.cells for tag in cell.metadata.get("tags", [])]
    assert tags == ["install", "parameters", "drive", "toy", "look", "real", "real", "real"]
    left = [cell for cell in book.cells if cell.metadata.get("tags", [""])[0] not in ("install", "real")]
    book.cells = left
    parameters = next(cell for cell in left if cell.metadata.get("tags") == ["parameters"])
    parameters.source = f'RUNS = "{tmp_path}"\nTOY = "configs/toy.py:test"'
    for name, value in test_end_to_end.environment().items():
        monkeypatch.setenv(name, value)
    nbclient.NotebookClient(book, timeout=600, resources={"metadata": {"path": str(ROOT)}}).execute()
    assert (tmp_path / "notebook-toy" / "images.zip").is_file()
    shown = next(cell for cell in left if cell.metadata.get("tags") == ["look"]).outputs
    assert "image/png" in shown[0].data and "rfid768" in shown[-1].data["text/plain"]
