"""Training sets that stay on the host: the same batches in the same order, from any step."""

import pathlib
from typing import Any

import jax
import numpy as np
import pytest

from jaxdog import sharding
from jaxdog.data import batches, host_loader
from jaxdog.training import checkpoint, loop, train_step
from tests.training import test_loop

pytest.importorskip("grain", reason="grain is not installed; pip install 'jaxdog[stream]'")

pytestmark = pytest.mark.oracle

N, B, K = 23, 8, 3  # batches that span two epochs


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> batches.Data:
    """Images in a memory-mapped file."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("mapped") / "image.npy"
    np.save(path, rng.integers(0, 256, (N, 8, 8, 3), np.uint8))
    mapped = np.load(path, mmap_mode="r")
    return batches.make_data(mapped, rng.integers(0, 5, N, np.int32), rng.integers(8, 99, (N, 2), np.int32))


def rows(data: batches.Data, steps: range, steps_per_execution: int = K) -> list[Any]:
    key, mesh = train_step.key_for(0, train_step.DATA), sharding.make_mesh()
    return list(host_loader.prefetch(data, key, steps, steps_per_execution, B, mesh))


def test_batches_are_those_of_a_resident_set(data: batches.Data) -> None:
    found = rows(data, range(12))
    assert len(found) == 4 and found[0].image.shape == (K, B, 8, 8, 3)
    assert {len(x.sharding.device_set) for x in found[0]} == {sharding.make_mesh().size}
    key = train_step.key_for(0, train_step.DATA)
    for i in range(12):
        expected = batches.batch(data, key, i, B)
        seen = batches.to_batch(jax.tree.map(lambda x, i=i: x[i % K], found[i // K]))
        for name, one, two in zip(expected._fields, expected, seen, strict=True):
            np.testing.assert_array_equal(one, two, err_msg=f"{name} of batch {i}")


def test_starts_from_any_step(data: batches.Data) -> None:
    whole, rest = rows(data, range(12)), rows(data, range(6, 12))
    for one, two in zip(whole[2:], rest, strict=True):
        for x, y in zip(one, two, strict=True):
            np.testing.assert_array_equal(x, y)


def test_a_run_is_the_same_stopped_or_not_streamed_or_not(tmp_path: pathlib.Path) -> None:
    def run(name: str, **changes: Any) -> loop.TrainResult:
        made = test_loop.make(tmp_path / name)
        host = jax.tree.map(np.asarray, made.data) if name != "resident" else made.data
        return loop.train(made._replace(data=host, **changes))

    whole = run("resident")
    assert run("streamed").state.total == whole.state.total
    half = [test_loop.phase(steps=8)]
    run("stopped", phases=half)
    assert checkpoint.Checkpoints(tmp_path / "stopped" / "checkpoints", 1, 1, "fid768").latest() == 8
    assert run("stopped").state.total == whole.state.total
