"""Scripts for clusters name flags and fields that exist."""

import pathlib
import re
import subprocess

import pytest

from jaxdog.cli import entry, flags, options
from tests.subprocesses import ROOT

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
    parser = options.Parser()
    flags.add_arguments(parser)
    names = options.option_names(parser)
    names += [name for command in entry.BY_NAME for name in options.option_names(entry.tree(command))]
    known = {name.lstrip("-").replace("-", "_") for name in names} | first
    strange = {word for word in words if word not in known and not word.startswith("config.")}
    assert not strange
    assert "coordinator" in words or path.name == "slurm.sh"
