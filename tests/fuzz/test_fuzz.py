"""Readers of files from others only raise UserErrors: a few changed files of each; `__main__` runs more."""

import subprocess
import sys

import pytest

from tests.fuzz import __main__ as fuzz
from tests.fuzz import mutations, samples

ROOT = samples.FROZEN.parent.parent.parent.parent
INPUTS = 100


def test_inputs_are_a_function_of_their_number():
    one, again, other = (mutations.generator("pth", i) for i in (3, 3, 4))
    made = [mutations.mutate_zip(samples.pth_members(), draw) for draw in (one, other)]
    assert made[0] != made[1]
    assert mutations.mutate_json(b'{"a": 1}', again) == mutations.mutate_json(
        b'{"a": 1}', mutations.generator("pth", 3)
    )


QUICK = ("pth", "config")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.long)
        for name in fuzz.NAMES
        if name != "hdf5"
    ],
)
def test_changed_files_are_refused_or_read(name):
    words = [sys.executable, "-m", "tests.fuzz", name, f"--inputs={INPUTS}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert f"{name}: {INPUTS} inputs" in done.stdout and " 0 failed" in done.stdout


@pytest.mark.oracle
def test_changed_hdf5_files_are_refused():
    pytest.importorskip("h5py")
    test_changed_files_are_refused_or_read("hdf5")
