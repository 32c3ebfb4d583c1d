"""The entry points, and what the command line tells XLA."""

import importlib
import os
import subprocess
import sys

import pytest

from jaxdog import main
from jaxdog.cli import entry, options
from jaxdog.utils import errors


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", f"{options.SAME_BITS}=true"),
        ("--xla_a=1 --xla_b=2", f"--xla_a=1 --xla_b=2 {options.SAME_BITS}=true"),
        (f"{options.SAME_BITS}=true --xla_a=1", f"{options.SAME_BITS}=true --xla_a=1"),
        (options.SAME_BITS, options.SAME_BITS),
    ],
)
def test_deterministic_runs_keep_the_flags_that_are_given(given: str, expected: str) -> None:
    assert options.same_bits(given) == expected


@pytest.mark.parametrize("no", ["false", "False", "0"])
def test_contradictory_flags_are_refused(no: str) -> None:
    with pytest.raises(errors.UserError, match=f"contradicts {options.SAME_BITS}={no} in XLA_FLAGS"):
        options.same_bits(f"--xla_a=1 {options.SAME_BITS}={no}")


@pytest.mark.parametrize(
    "words", [["train", "toy:test", "--deterministic"], ["--config=toy:test", "--deterministic"]]
)
def test_deterministic_reaches_xla(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from jaxdog import commands

    monkeypatch.setenv("XLA_FLAGS", "--xla_a=1")
    seen = []
    monkeypatch.setattr(commands, "run_mode", lambda *_, **__: seen.append(os.environ["XLA_FLAGS"]))
    entry.main(words)
    assert seen == [f"--xla_a=1 {options.SAME_BITS}=true"]


def test_xla_knows_the_flag() -> None:
    """XLA aborts a process with an unknown flag."""

    def code(flags: str) -> int:
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
        words = [sys.executable, "-c", "import jax; jax.devices()"]
        return subprocess.run(words, env=environment, capture_output=True, check=False).returncode

    assert code(options.same_bits("")) == 0
    assert code("--xla_gpu_deterministic_oops=true") != 0


def test_the_console_scripts_are_the_entry_points(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    watched = []  # the watcher would end this process when later tests send it signals
    monkeypatch.setattr(entry.interrupts, "watch", lambda: watched.append(1))
    monkeypatch.setattr(sys, "argv", ["jaxdog", "--version"])
    with pytest.raises(SystemExit) as stop:
        main.run()
    assert stop.value.code == 0 and len(watched) == 1
    assert capsys.readouterr().out == f"jaxdog {importlib.import_module('jaxdog').__version__}\n"
    monkeypatch.setattr(sys, "argv", ["jaxdog-score", "--help"])
    with pytest.raises(SystemExit) as stop:
        entry.run_score()
    assert stop.value.code == 0 and "jaxdog score" in capsys.readouterr().out and len(watched) == 2
