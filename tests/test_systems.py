"""One table runs every system: steps, finite, every parameter moves, one compilation, round trip, sampling.

A new config file is in the table by being there.
"""

import pathlib
from typing import Any, NamedTuple

import chex
import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from jaxdog import checkpoint, devices, factory, sampling, sections, system, train
from jaxdog.data import batches
from tests import test_factory

CLASSES = 3


class Ran(NamedTuple):
    """One system after its first and after its second step, on 4 devices."""

    phase: system.Phase
    config: sections.Checked
    data: batches.Data
    functions: train.Compiled
    first: Any
    second: Any
    scalars: dict[str, list[np.ndarray]]


def toy_data(config: sections.Checked, over: Mesh) -> batches.Data:
    rng = np.random.default_rng(0)
    size = config.data.size
    images = rng.integers(0, 256, (40, size, size, 3), np.uint8)
    data = batches.resident(images, rng.integers(0, CLASSES, 40).astype(np.int32))
    return devices.put(data, devices.everywhere(over))


@pytest.fixture(scope="module", params=test_factory.CONFIGS, ids=lambda path: path.stem)
def ran(request: pytest.FixtureRequest) -> Ran:
    config = factory.check(test_factory.load(request.param).get_config("test"))
    phase = factory.phases(config, CLASSES)[0]
    over = devices.mesh()
    data = toy_data(config, over)
    functions = train.compiled(phase, seed=0, steps_per_dispatch=1, over=over)
    state = functions.init(data)
    first = jax.tree.map(np.asarray, state)
    scalars: dict[str, list[np.ndarray]] = {}
    for _ in range(2):
        state, numbers = functions.dispatch(state, data, 0.0)
        for name, x in numbers.items():
            scalars.setdefault(name, []).append(np.asarray(x)[0])
    return Ran(phase, config, data, functions, first, state, scalars)


def test_counts_its_steps_and_stays_finite(ran: Ran) -> None:
    assert int(ran.first.step) == 0 and int(ran.second.step) == 2
    chex.assert_tree_all_finite(ran.scalars)
    chex.assert_tree_all_finite(ran.second)


def test_every_parameter_moves(ran: Ran) -> None:
    """All but those that start behind a gain of zero: attention's inner layers, until the gain has moved."""
    before = {name: net.params for name, net in vars(ran.first).items() if isinstance(net, system.Net)}
    after = {name: net.params for name, net in vars(ran.second).items() if isinstance(net, system.Net)}
    assert before
    still = [
        jax.tree_util.keystr(path)
        for (path, old), new in zip(
            jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True
        )
        if np.array_equal(old, new)
    ]
    assert not still, still


def test_the_step_is_compiled_once(ran: Ran) -> None:
    assert ran.functions.dispatch._cache_size() == 1


def test_checkpoint_round_trip(ran: Ran, tmp_path: pathlib.Path) -> None:
    kept = checkpoint.Checkpoints(tmp_path, 1, 1, "fid768")
    kept.save(2, ran.second, {"seconds": 1.0})
    kept.wait()
    restored, _ = train.restore(kept, [ran.phase], 2, ran.data.image.shape[1:], devices.mesh())
    kept.close()
    chex.assert_trees_all_equal(restored, ran.second)


def test_samples_are_pictures_in_range(ran: Ran) -> None:
    keys = sampling.image_keys(jax.random.key(0), 4)
    images = jax.jit(ran.phase.system.sample)(ran.second, keys, np.arange(4, dtype=np.int32) % CLASSES)
    chex.assert_shape(images, (4, ran.config.data.size, ran.config.data.size, 3))
    assert np.abs(images).max() <= 1.0 and np.std(images) > 1e-3
    assert not np.array_equal(images[0], images[3])  # same breed, other key


def test_one_device_agrees_with_four(ran: Ran) -> None:
    assert devices.mesh().size == 4
    alone = Mesh(np.array(jax.devices()[:1]), ("data",))
    data = devices.put(ran.data, devices.everywhere(alone))
    functions = train.compiled(ran.phase, seed=0, steps_per_dispatch=1, over=alone)
    state, scalars = functions.dispatch(functions.init(data), data, 0.0)
    for name, values in ran.scalars.items():
        np.testing.assert_allclose(scalars[name][0], values[0], rtol=1e-3, atol=1e-4, err_msg=name)
    images = [
        np.asarray(functions.grid(state, np.arange(4, dtype=np.int32) % CLASSES)),
    ]
    assert images[0].shape[0] == 4
