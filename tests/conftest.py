"""Strict settings for every test: 4 fake devices, no silent rank promotion, warnings are errors."""

import gc
import importlib.metadata
import logging
import os
import pathlib
from collections.abc import Iterator

# On a machine that is busy, or asleep for a minute, devices wait longer for each other than XLA lets them: it
# ends the process when one is a minute late. Programs that tests start inherit this.
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_collective_call_warn_stuck_timeout_seconds=300"
    " --xla_cpu_collective_call_terminate_timeout_seconds=600"
)
# The tests' time is compile time. XLA's older way of fusing takes half of it, code in one piece a twentieth
# less than in many. A flag that another version may not know any more would end the process.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"

import jax
import pytest

gc.set_threshold(100_000, 50, 50)  # tracing makes many objects that last: looked at less often
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_platforms", os.environ.get("JAX_PLATFORMS", "cpu"))
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_disable_most_optimizations", True)

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On several processes a file stays together, for its dear fixtures; the systems are dealt out."""
    for item in items:
        row = getattr(item, "callspec", None)
        system = f":{row.id}" if row is not None and item.path.stem == "test_systems" else ""
        item.add_marker(pytest.mark.xdist_group(f"{item.path.stem}{system}"))


@pytest.fixture(scope="module", autouse=True)
def forget_what_was_compiled() -> Iterator[None]:
    """Programs of one file serve no other, and would fill the memory."""
    yield
    jax.clear_caches()


@pytest.fixture(autouse=True)
def hear_the_log() -> Iterator[None]:
    """A mode that a test runs in this process makes the log its own; afterwards it is everybody's again."""
    log = logging.getLogger("jaxdog")
    yield
    log.handlers.clear()
    log.propagate = True


@pytest.fixture(scope="session")
def real_data() -> pathlib.Path:
    """The folder with real photos and weights, if this machine has it."""
    folder = pathlib.Path(os.environ.get("JAXDOG_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set JAXDOG_DATA to the folder that holds it")
    return folder
