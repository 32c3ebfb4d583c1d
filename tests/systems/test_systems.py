"""One table runs every system: steps, finite, every parameter moves, one compilation, round trip, sampling.

A new config file is in the table by being there; each phase of it is entered from the one before.
"""

import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import chex
import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from jaxdog import sharding, types
from jaxdog.config import build, schema
from jaxdog.data import batches
from jaxdog.systems import sampling
from jaxdog.training import checkpoint, train_step
from tests.config import test_build

CLASSES = 3


class Ran(NamedTuple):
    """One system after its first and after its second step, on 4 devices."""

    phase: types.Phase
    begin: int  # steps of the phases before
    config: schema.Checked
    data: batches.Data
    functions: train_step.Compiled
    first: Any
    second: Any
    scalars: dict[str, list[np.ndarray]]


def toy_data(config: schema.Checked, over: Mesh) -> batches.Data:
    """Noise as it would be stored: of three kinds, cut from rectangles."""
    rng = np.random.default_rng(0)
    size = config.data.store_size
    images = rng.integers(0, 256, (40, size, size, 3), np.uint8)
    label, kind = rng.integers(0, CLASSES, 40, np.int32), rng.integers(0, 3, 40, np.int32)
    data = batches.resident(images, label, rng.integers(64, 200, (40, 2), np.int32), kind)
    return sharding.put(data, sharding.everywhere(over))


def load(path: pathlib.Path) -> schema.Checked:
    return build.check(test_build.load(path).get_config("test"))


def every_phase() -> list[Any]:
    """(config file, number of the phase) for each phase of each file."""
    rows = []
    for path in test_build.CONFIGS:
        try:
            names = [phase.name for phase in build.phases(load(path), CLASSES)]
        except schema.ConfigError:  # the tests of this file say so, not the collection of all
            names = [""]
        ids = [path.stem] if len(names) == 1 else [f"{path.stem}-{name}" for name in names]
        rows += [pytest.param((path, i), id=name) for i, name in enumerate(ids)]
    return rows


def networks_once(rows: list[Any]) -> Iterator[Any]:
    """The same rows; those of a game and networks that stand in an earlier file are slow."""
    first: dict[Any, pathlib.Path] = {}
    for row in rows:
        path = row.values[0][0]
        config = test_build.load(path).get_config("test")
        kind = tuple(config.get(part, {}).get("name") for part in ("game", "generator", "discriminator"))
        marks = () if first.setdefault(kind, path) == path else pytest.mark.slow
        yield pytest.param(*row.values, id=row.id, marks=marks)


PHASES = every_phase()


def begun(
    config: schema.Checked, i: int, data: batches.Data, over: Mesh
) -> tuple[types.Phase, int, train_step.Compiled, Any]:
    """Phase i, the steps before it, its functions and its first state; those before it are passed through."""
    state, begin = None, 0
    for phase in build.phases(config, CLASSES)[: i + 1]:
        functions = train_step.compiled(phase, seed=0, steps_per_dispatch=1, over=over)
        if phase.enter is None or state is None:
            state = functions.init(data)
        else:
            state = train_step.entered(phase, state.replace(step=np.int32(begin)), over)
        begin += phase.steps
    return phase, begin - phase.steps, functions, state


@pytest.fixture(scope="module", params=PHASES)
def ran(request: pytest.FixtureRequest) -> Ran:
    path, i = request.param
    config = load(path)
    over = sharding.mesh()
    data = toy_data(config, over)
    phase, begin, functions, state = begun(config, i, data, over)
    first = jax.tree.map(np.asarray, state)
    scalars: dict[str, list[np.ndarray]] = {}
    for _ in range(2):
        state, numbers = functions.dispatch(state, data, 0.0)
        for name, x in numbers.items():
            scalars.setdefault(name, []).append(np.asarray(x)[0])
    return Ran(phase, begin, config, data, functions, first, state, scalars)


def test_counts_its_steps_and_stays_finite(ran: Ran) -> None:
    assert int(ran.first.step) == ran.begin and int(ran.second.step) == ran.begin + 2
    chex.assert_tree_all_finite(ran.scalars)
    chex.assert_tree_all_finite(ran.second)


def test_every_parameter_moves(ran: Ran) -> None:
    """All but those that start behind a gain of zero: attention's inner layers, until the gain has moved."""
    before = {name: net.params for name, net in vars(ran.first).items() if isinstance(net, types.Net)}
    after = {name: net.params for name, net in vars(ran.second).items() if isinstance(net, types.Net)}
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
    restored, _ = train_step.restore(kept, [ran.phase], 2, ran.data.image.shape[1:], sharding.mesh())
    kept.close()
    chex.assert_trees_all_equal(restored, ran.second)


def test_samples_are_pictures_in_range(ran: Ran) -> None:
    keys = sampling.image_keys(jax.random.key(0), 4)
    images = jax.jit(ran.phase.system.sample)(ran.second, keys, np.arange(4, dtype=np.int32) % CLASSES)
    chex.assert_shape(images, (4, ran.config.data.size, ran.config.data.size, 3))
    assert np.abs(images).max() <= 1.0
    if not build.cheat(ran.config):  # their pictures are black at first, and have numbers, no keys
        assert np.std(images) > 1e-3
        assert not np.array_equal(images[0], images[3])  # same breed, other key


@pytest.mark.parametrize("ran", list(networks_once(PHASES)), indirect=True)
def test_one_device_agrees_with_four(ran: Ran) -> None:
    assert sharding.mesh().size == 4
    alone = Mesh(np.array(jax.devices()[:1]), ("data",))
    data, state = sharding.put((ran.data, ran.first), sharding.everywhere(alone))
    functions = train_step.compiled(ran.phase, seed=0, steps_per_dispatch=1, over=alone)
    _, scalars = functions.dispatch(state, data, 0.0)
    for name, values in ran.scalars.items():
        np.testing.assert_allclose(scalars[name][0], values[0], rtol=1e-3, atol=1e-4, err_msg=name)
