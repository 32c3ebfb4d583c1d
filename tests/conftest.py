"""Strict settings for every test: 4 fake devices, no silent rank promotion, warnings are errors."""

import collections
import gc
import importlib.metadata
import logging
import os
import pathlib
import sys
from collections.abc import Iterator

# XLA ends the process when one of the fake devices is a minute late for a collective, which happens on a busy
# machine. Subprocesses that tests start inherit this.
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_collective_call_warn_stuck_timeout_seconds=300"
    " --xla_cpu_collective_call_terminate_timeout_seconds=600"
)
# The tests spend their time compiling. The older fusion emitters halve it, and one code module instead of
# several saves 5 %. Other versions of jaxlib may not know these flags, and would end the process.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"

# Matrices in tests are small. Threads of OpenBLAS would wait for each other at the cost of other tests.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Modules are compiled once, not by each of the processes that tests start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Programs that commands compile are cached inside the clone.
os.environ.setdefault("XDG_CACHE_HOME", str(pathlib.Path(__file__).resolve().parent.parent / ".cache"))

import jax  # noqa: E402
import pytest  # noqa: E402

gc.set_threshold(100_000, 50, 50)  # tracing makes many long-lived objects
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_platforms", os.environ.get("JAX_PLATFORMS", "cpu"))
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_disable_most_optimizations", True)

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of a file run in one process, since they share fixtures; test_systems.py is split by system.

    Files with few tests come first: they hold the tests of minutes, which would occupy one process at the end
    while the others have nothing left to do.
    """
    groups = [_group(item) for item in items]
    sizes = collections.Counter(groups)
    for item, group in zip(items, groups, strict=True):
        item.add_marker(pytest.mark.xdist_group(group))
    order = sorted(range(len(items)), key=lambda i: (sizes[groups[i]], groups[i]))
    items[:] = [items[i] for i in order]


def _group(item: pytest.Item) -> str:
    row = getattr(item, "callspec", None)
    system = f":{row.id}" if row is not None and item.path.stem == "test_systems" else ""
    return f"{item.path.relative_to(ROOT)}{system}"


@pytest.fixture(scope="module", autouse=True)
def clear_compilation_cache() -> Iterator[None]:
    """Compiled programs of one file are not reused by others, and would fill the memory."""
    yield
    jax.clear_caches()


@pytest.fixture(autouse=True)
def reset_logging() -> Iterator[None]:
    """Undoes what a command that runs in this process does to the logger."""
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
