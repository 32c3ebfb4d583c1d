"""What the command line tells XLA."""

import os
import subprocess
import sys

import pytest

from jaxdog import main


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", f"{main.SAME_BITS}=true"),
        ("--xla_a=1 --xla_b=2", f"--xla_a=1 --xla_b=2 {main.SAME_BITS}=true"),
        (f"{main.SAME_BITS}=true --xla_a=1", f"{main.SAME_BITS}=true --xla_a=1"),
        (main.SAME_BITS, main.SAME_BITS),
    ],
)
def test_deterministic_runs_keep_the_flags_that_are_given(given: str, expected: str) -> None:
    assert main.same_bits(given) == expected


@pytest.mark.parametrize("no", ["false", "False", "0"])
def test_contradictory_flags_are_refused(no: str) -> None:
    with pytest.raises(main.app.UsageError, match=f"contradicts {main.SAME_BITS}={no} in XLA_FLAGS"):
        main.same_bits(f"--xla_a=1 {main.SAME_BITS}={no}")


def test_xla_knows_the_flag() -> None:
    """XLA aborts a process with an unknown flag."""

    def code(flags: str) -> int:
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
        words = [sys.executable, "-c", "import jax; jax.devices()"]
        return subprocess.run(words, env=environment, capture_output=True, check=False).returncode

    assert code(main.same_bits("")) == 0
    assert code("--xla_gpu_deterministic_oops=true") != 0
