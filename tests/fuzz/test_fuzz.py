"""Readers of files from others only raise UserErrors: a few changed files of each; `__main__` runs more."""

import re
import subprocess
import sys

import pytest

from tests.fuzz import __main__ as fuzz
from tests.fuzz import mutations, samples
from tests.subprocesses import ROOT

INPUTS = 100


def test_inputs_are_a_function_of_their_number():
    one, again, other = (mutations.generator("pth", i) for i in (3, 3, 4))
    made = [mutations.mutate_zip(samples.pth_members(), draw) for draw in (one, other)]
    assert made[0] != made[1]
    assert mutations.mutate_json(b'{"a": 1}', again) == mutations.mutate_json(
        b'{"a": 1}', mutations.generator("pth", 3)
    )


QUICK = ("pth", "config", "photo")


@pytest.mark.parametrize(
    "names",
    [
        QUICK,
        pytest.param(sorted({*fuzz.NAMES} - {*QUICK, "hdf5"}), marks=pytest.mark.long),
        pytest.param(("hdf5",), marks=pytest.mark.oracle),
    ],
    ids=["quick", "others", "hdf5"],
)
def test_changed_files_are_refused_or_read(names):
    if "hdf5" in names:
        pytest.importorskip("h5py", reason="h5py is not installed: make oracles")
    words = [sys.executable, "-m", "tests.fuzz", *names, f"--inputs={INPUTS}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for name in names:
        assert re.search(rf"^{name}: {INPUTS} inputs, .* 0 failed$", done.stdout, re.MULTILINE), done.stdout
