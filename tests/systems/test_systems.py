"""All systems: step count, finite values, parameter updates, compilations, checkpoints, samples.

The tests are parametrized by every phase of every config. A phase starts from the state of the previous
one.
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
from jaxdog.config import build, library, schema
from jaxdog.data import batches
from jaxdog.systems import sampling
from jaxdog.training import checkpoint, train_step
from jaxdog.utils import errors

CLASSES = 3
STEPS = 3


class Steps(NamedTuple):
    """A few training steps of one phase on 4 devices."""

    phase: types.Phase
    begin: int  # number of steps of earlier phases
    config: schema.Experiment
    data: batches.Data
    functions: train_step.CompiledPhase
    first: Any  # state before the steps
    last: Any  # state after the steps
    scalars: dict[str, list[np.ndarray]]


def toy_data(config: schema.Experiment, mesh: Mesh) -> batches.Data:
    """A training set of noise, with random original sizes and three crop types."""
    rng = np.random.default_rng(0)
    size = config.data.stored_resolution
    images = rng.integers(0, 256, (40, size, size, 3), np.uint8)
    label, kind = rng.integers(0, CLASSES, 40, np.int32), rng.integers(0, 3, 40, np.int32)
    data = batches.make_data(images, label, rng.integers(64, 200, (40, 2), np.int32), kind)
    return sharding.put(data, sharding.replicated(mesh))


def load(name: str) -> schema.Experiment:
    return build.check(library.load(name, "test"))


# Quick to compile; all others are marked long.
QUICK = ("acgan", "vae", "memorizer", "imitation")


def every_phase() -> list[Any]:
    """(name, index of the phase) for each phase of each config."""
    rows = []
    for name in library.names():
        try:
            phases = [phase.name for phase in build.phases(load(name), CLASSES)]
        except errors.ConfigError:  # raised by this file's tests instead of during collection
            phases = [""]
        ids = [name] if len(phases) == 1 else [f"{name}-{phase}" for phase in phases]
        marks = () if name in QUICK else pytest.mark.long
        rows += [pytest.param((name, i), id=row, marks=marks) for i, row in enumerate(ids)]
    return rows


def networks_once(rows: list[Any]) -> Iterator[Any]:
    """The same rows; those with the system and networks of an earlier config are marked slow."""
    first: dict[Any, str] = {}
    for row in rows:
        name = row.values[0][0]
        config: Any = library.load(name, "test")
        kind = tuple(config.get(part, {}).get("name") for part in ("system", "generator", "discriminator"))
        repeated = () if first.setdefault(kind, name) == name else (pytest.mark.slow,)
        yield pytest.param(*row.values, id=row.id, marks=(*row.marks, *repeated))


PHASES = every_phase()


def initial_state(
    config: schema.Experiment, i: int, data: batches.Data, mesh: Mesh
) -> tuple[types.Phase, int, train_step.CompiledPhase, Any]:
    """Phase i, the number of steps before it, its functions and its initial state."""
    state, begin = None, 0
    for phase in build.phases(config, CLASSES)[: i + 1]:
        functions = train_step.CompiledPhase(phase, seed=0, steps_per_execution=1, mesh=mesh)
        if phase.transition is None or state is None:
            state = functions.init(data)
        else:
            state = train_step.transition(phase, state.replace(step=np.int32(begin)), mesh)
        begin += phase.steps
    return phase, begin - phase.steps, functions, state


@pytest.fixture(scope="module", params=PHASES)
def ran(request: pytest.FixtureRequest) -> Steps:
    name, i = request.param
    config = load(name)
    mesh = sharding.make_mesh()
    data = toy_data(config, mesh)
    phase, begin, functions, state = initial_state(config, i, data, mesh)
    first = jax.tree.map(np.asarray, state)
    scalars: dict[str, list[np.ndarray]] = {}
    for _ in range(STEPS):
        state, numbers = functions.train_steps(state, data, 0.0)
        for name, x in numbers.items():
            scalars.setdefault(name, []).append(np.asarray(x)[0])
    return Steps(phase, begin, config, data, functions, first, state, scalars)


def test_counts_steps_and_stays_finite(ran: Steps) -> None:
    assert int(ran.first.step) == ran.begin and int(ran.last.step) == ran.begin + STEPS
    chex.assert_tree_all_finite(ran.scalars)
    chex.assert_tree_all_finite(ran.last)


def test_every_parameter_is_updated(ran: Steps) -> None:
    """Layers behind a gain of zero are only updated after it, and a U-Net has one behind another."""
    before = {name: net.params for name, net in vars(ran.first).items() if isinstance(net, types.PlayerState)}
    after = {name: net.params for name, net in vars(ran.last).items() if isinstance(net, types.PlayerState)}
    assert before
    unchanged = [
        jax.tree_util.keystr(path)
        for (path, old), new in zip(
            jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True
        )
        if np.array_equal(old, new)
    ]
    assert not unchanged, unchanged


def test_the_step_is_compiled_once(ran: Steps) -> None:
    assert ran.functions.train_steps._cache_size() == 1


def test_checkpoint_round_trip(ran: Steps, tmp_path: pathlib.Path) -> None:
    kept = checkpoint.Checkpoints(tmp_path, 1, 1, "fid768")
    kept.save(2, ran.last, 1.0)
    kept.wait()
    restored, _ = train_step.restore(kept, [ran.phase], 2, ran.data.image.shape[1:], sharding.make_mesh())
    kept.close()
    chex.assert_trees_all_equal(restored, ran.last)


def test_samples_are_images_in_range(ran: Steps) -> None:
    keys = sampling.image_keys(jax.random.key(0), 4)
    images = jax.jit(ran.phase.system.sample)(ran.last, keys, np.arange(4, dtype=np.int32) % CLASSES)
    chex.assert_shape(images, (4, ran.config.submit.resolution, ran.config.submit.resolution, 3))
    assert np.abs(images).max() <= 1.0
    if not build.cheat(ran.config):  # their images are black at first and do not depend on keys
        assert np.std(images) > 1e-3
        assert not np.array_equal(images[0], images[3])  # same class, another key


@pytest.mark.parametrize("ran", list(networks_once(PHASES)), indirect=True)
def test_one_device_agrees_with_four(ran: Steps) -> None:
    assert sharding.make_mesh().size == 4
    alone = Mesh(np.array(jax.devices()[:1]), ("data",))
    data, state = sharding.put((ran.data, ran.first), sharding.replicated(alone))
    functions = train_step.CompiledPhase(ran.phase, seed=0, steps_per_execution=1, mesh=alone)
    _, scalars = functions.train_steps(state, data, 0.0)
    for name, values in ran.scalars.items():
        np.testing.assert_allclose(scalars[name][0], values[0], rtol=1e-3, atol=1e-4, err_msg=name)
