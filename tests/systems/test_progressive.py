"""Progressive growing: values within a stage, the transition to the next one, and resuming."""

import functools
import pathlib
from collections.abc import Iterator
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct

from jaxdog import sharding, types
from jaxdog.config import build, library, schema
from jaxdog.data import batches
from jaxdog.models import progan
from jaxdog.optim import optimizers, schedules
from jaxdog.systems import progressive
from jaxdog.training import checkpoint, loop, train_step, writers
from jaxdog.utils import errors
from tests.config import test_build

KEY = jax.random.key(0)
CLASSES = 3


def stage(**changes: Any) -> progressive.Stage:
    return progressive.Stage(resolution=8, steps=10, fade=0.0, ema_decay=0.9, ema_milestones=())._replace(
        **changes
    )


# Stages -----------------------------------------------------------------------------------------------------


def test_the_stages_are_the_epochs_of_2019() -> None:
    config = build.check(library.load("progan"))
    phases = build.phases(config, 120)
    assert [phase.name for phase in phases] == ["4x4", "8x8", "16x16", "32x32", "64x64"]
    assert [phase.steps / 346 for phase in phases] == [5, 10, 20, 40, 100]
    assert [phase.batch_size for phase in phases] == [64] * 5
    assert [phase.transition is None for phase in phases] == [True, False, False, False, False]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "system.steps",
            (4, 8),
            r"config.system.steps is \(4, 8\); it must have one value for each .* \(4, 8, 16\)",
        ),
        ("ema.decay", 0.9, "config.ema.decay is 0.9; it must have one value for each"),
        ("ema.decay", (0.9, 0.9, 1.0), r"ema.decay is \(0.9, 0.9, 1.0\); each value must lie in \[0, 1\)"),
        ("system.fade", (0.0, 0.5, 2.0), r"system.fade is .*; each value must lie in \[0, 1\]"),
        ("system.fade", (0.0, -0.5, 0.5), r"system.fade is .*; each value must lie in \[0, 1\]"),
        ("system.resolutions", (4, 8, 32), r"resolutions is \(4, 8, 32\); each must be twice the one before"),
        ("system.resolutions", (8, 4, 16), r"resolutions is \(8, 4, 16\); each must be twice the one before"),
        ("system.resolutions", (4, 8, 24), r"resolutions is \(4, 8, 24\); each must be twice the one before"),
        ("system.steps", (2, 2, 2), "config.system.steps adds up to 6, but config.train.steps is 12"),
        ("generator", {"name": "biggan"}, "config.generator.name is 'biggan'; choices: progan"),
        ("discriminator", {"name": "biggan"}, "config.discriminator.name is 'biggan'; choices: progan"),
    ],
)
def test_contradictions_are_refused(path: str, value: Any, message: str) -> None:
    config = library.load("progan:test").to_dict()
    *section, field = path.split(".")
    functools.reduce(lambda tree, name: tree[name], section, config)[field] = value
    with pytest.raises(ValueError, match=message):
        build.check(build.Config(config))


def test_a_system_with_one_phase_needs_one_decay() -> None:
    with pytest.raises(errors.ConfigError, match="this system has one phase: it needs one number"):
        build.check(test_build.changed("ema.decay", (0.9, 0.99)))


# What changes within a stage --------------------------------------------------------------------------------


def test_blocks_fade_in_over_a_fraction_of_the_steps_or_not_at_all() -> None:
    assert progressive.progress_at(stage(), jnp.int32(1)).alpha is None
    fading = stage(fade=0.4)
    alphas = [progressive.progress_at(fading, jnp.int32(i)).alpha for i in (0, 1, 3, 4, 5, 10)]
    np.testing.assert_allclose(alphas, [0.0, 0.25, 0.75, 1.0, 1.0, 1.0])


def test_the_ema_is_ten_times_slower_from_epochs_50_and_100() -> None:
    """0.99, then 0.9 + 0.99 / 10, then 0.9 + 0.999 / 10."""
    last = stage(ema_decay=0.99, ema_milestones=(49 * 346, 99 * 346))
    epochs = [(1, 1), (49, 346), (50, 1), (66, 346), (99, 346), (100, 1)]
    steps = [(epoch - 1) * 346 + i for epoch, i in epochs]
    decays = [float(progressive.progress_at(last, jnp.int32(step)).ema_decay) for step in steps]
    np.testing.assert_allclose(decays, [0.99, 0.99, 0.999, 0.999, 0.999, 0.9999], atol=1e-6)
    assert progressive.progress_at(stage(), jnp.int32(5)).ema_decay == 0.9


@struct.dataclass
class Recorded:
    """The progress that each step got: [10] each."""

    step: jax.Array
    alpha: jax.Array
    decay: jax.Array


def recorder(stage: progressive.Stage, progress: progressive.Progress) -> types.System:
    """Records the progress; its images have the value alpha."""

    def step(state: Recorded, batch: Any, key: Any) -> tuple[Recorded, types.Scalars]:
        i = state.step
        recorded = Recorded(
            i + 1, state.alpha.at[i].set(progress.alpha), state.decay.at[i].set(progress.ema_decay)
        )
        return recorded, {}

    def sample(state: Recorded, key: Any, label: jax.Array) -> jax.Array:
        return jnp.full((1, 4, 4, 3), progress.alpha)

    zeros = jnp.zeros(10)
    return types.System(lambda key, batch: Recorded(jnp.int32(0), zeros, zeros), step, sample)


def test_a_stage_counts_its_own_steps() -> None:
    system = progressive.stage_system(stage(steps=4, fade=0.5, ema_milestones=(3,)), recorder, begin=5)
    state = system.init(KEY, None).replace(step=jnp.int32(5))
    np.testing.assert_array_equal(system.sample(state, None, None)[0, 0, 0], 0.0)
    for _ in range(4):
        state, _ = system.step(state, None, None)
    np.testing.assert_allclose(state.alpha[5:9], [0.5, 1.0, 1.0, 1.0])
    np.testing.assert_allclose(state.decay[5:9], [0.9, 0.9, 0.9, 0.99], rtol=1e-6)
    np.testing.assert_array_equal(system.sample(state.replace(step=6), None, None)[0, 0, 0], 0.5)


# Images -----------------------------------------------------------------------------------------------------


def batch(image: jax.Array) -> types.Batch:
    b = image.shape[0]
    zeros = jnp.zeros(b, jnp.int32)
    return types.Batch(image, zeros, jnp.full((b, 2), image.shape[1]), zeros, jnp.zeros(b))


def test_real_images_are_averaged_and_fade_from_half_the_resolution() -> None:
    image = jax.random.uniform(KEY, (2, 8, 8, 3), minval=-1.0)
    small = progressive.downscale_reals(KEY, batch(image), 4, None).image
    np.testing.assert_allclose(small[1, 0, 1], image[1, :2, 2:4].mean((0, 1)), rtol=1e-5, atol=1e-7)
    mixed = progressive.downscale_reals(KEY, batch(image), 4, 0.25).image
    tiny = image[1, :4, :4].mean((0, 1))
    np.testing.assert_allclose(mixed[1, 0, 1], 0.25 * small[1, 0, 1] + 0.75 * tiny, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(progressive.downscale_reals(KEY, batch(image), 8, None).image, image)


def test_upscale_repeats_each_pixel() -> None:
    image = jax.random.normal(KEY, (2, 2, 2, 3))
    large = progressive.upscale(image, 8)
    np.testing.assert_array_equal(large, np.asarray(image).repeat(4, 1).repeat(4, 2))
    np.testing.assert_allclose(progressive.downscale(large, 2), image, rtol=1e-6)
    with pytest.raises(ValueError, match="of 2x2 cannot be upscaled to 7x7"):
        progressive.upscale(image, 7)
    with pytest.raises(ValueError, match="of 8x8 cannot be downscaled to 3x3"):
        progressive.downscale(large, 3)


# The next stage ---------------------------------------------------------------------------------------------


def toy_data(size: int = 24) -> batches.Data:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, size, size, 3), np.uint8)
    return batches.make_data(images, rng.integers(0, CLASSES, 40).astype(np.int32))


def phases_of(**changes: Any) -> tuple[types.Phase, ...]:
    config = library.load("progan:test")
    config.update_from_flattened_dict({"generator.channels": 4, "discriminator.channels": 4, **changes})
    return build.phases(build.check(config), CLASSES)


@pytest.mark.long
def test_a_transition_keeps_what_it_can_and_initializes_the_rest() -> None:
    first, second, _ = phases_of()
    real = batches.batch(toy_data(), KEY, 0, 8)
    start = jax.jit(first.system.init)(KEY, real)
    marked = jax.tree.map(lambda x: x + 1 if x.dtype == jnp.int32 else x + 0.5, start)
    assert second.transition is not None
    state = jax.jit(second.transition)(marked)
    chex.assert_trees_all_equal_shapes(state, jax.eval_shape(second.system.init, KEY, real))
    assert state.step == 1
    for net, old in ((state.g, marked.g), (state.d, marked.d)):
        for name in set(net.params) & set(old.params):
            chex.assert_trees_all_equal(net.params[name], old.params[name])
            adam, old_adam = net.opt_state[0][name], old.opt_state[0][name]
            chex.assert_trees_all_equal(adam, old_adam)
            assert all(x == 1 for x in jax.tree.leaves(adam) if x.dtype == jnp.int32)
        new = set(net.params) - set(old.params)
        assert new == {"block8", "rgb8"} and "rgb4" not in net.params
        for name in new:
            assert all(not x.any() for x in jax.tree.leaves(net.opt_state[0][name]))
            assert all(np.std(x) > 0.5 for x in jax.tree.leaves(net.params[name]) if x.ndim == 4)
    chex.assert_trees_all_equal(state.ema.params["conv"], marked.ema.params["conv"])
    chex.assert_trees_all_equal(state.ema.params["block8"], state.g.params["block8"])
    other = jax.jit(phases_of(seed=5)[1].transition)(marked)
    assert not np.array_equal(other.g.params["rgb8"]["kernel"], state.g.params["rgb8"]["kernel"])


def test_only_a_stage_that_fades_keeps_the_output_layer_of_the_resolution_before() -> None:
    real = batches.batch(toy_data(), KEY, 0, 8)
    for fade, kept in ((0.0, {"rgb16"}), (0.5, {"rgb8", "rgb16"})):
        last = phases_of(**{"system.fade": (0.0, 0.0, fade)})[-1]
        state = jax.eval_shape(lambda phase=last: phase.system.init(KEY, real))
        assert {name for name in state.g.params if name.startswith("rgb")} == kept
        assert {name for name in state.d.params if name.startswith("rgb")} == kept


def test_an_array_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\['a'\] has shape \(2,\), and \(3,\) in the next phase"):
        progressive.merge({"a": jnp.zeros(2)}, {"a": jnp.zeros(3)})


@pytest.mark.oracle
def test_two_stages_of_adam_are_those_of_one_adam_in_torch() -> None:
    """One torch optimizer has all parameters from the start; new blocks receive gradients later."""
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    from tests.twins import progan as twin_progan

    label = jnp.arange(8)  # torch shortens the rows it looks up, we all of them: here that is the same
    optimizer = optimizers.adam_per_leaf(schedules.constant(0, 0.02), 0.5, 0.99, 1e-8, 0.0, 0, {"embed": 1.0})

    def start(size: int) -> types.PlayerState:
        net = progan.Discriminator(4, 8, size)
        params = net.init(jax.random.key(size), jnp.zeros((8, size, size, 3)), label, True)["params"]
        return types.PlayerState(params, {}, optimizer.init(params))

    @functools.partial(jax.jit, static_argnums=2)
    def learn(player: types.PlayerState, image: jax.Array, size: int) -> types.PlayerState:
        def loss(params: Any) -> jax.Array:
            net = progan.Discriminator(4, 8, size)
            return jnp.sum(jax.nn.softplus(-net.apply({"params": params}, image, label, True).logit))

        updates, opt = optimizer.update(jax.grad(loss)(player.params), player.opt_state, player.params)
        return types.PlayerState(optax.apply_updates(player.params, updates), {}, opt)

    state = start(4)
    small, large = twin_progan.tensors(state.params), twin_progan.tensors(start(8).params)
    theirs = {**large, **small}
    reference = torch.optim.Adam(theirs.values(), lr=0.02, betas=(0.5, 0.99), eps=1e-8)
    for size in (4, 8):
        if size == 8:
            state = progressive.merge(state, start(8))
        for i in range(4):
            image = jax.random.normal(jax.random.fold_in(KEY, 10 * size + i), (8, size, size, 3))
            state = learn(state, image, size)
            reference.zero_grad()
            pixels = torch.tensor(np.asarray(image).transpose(0, 3, 1, 2).copy())
            expected = twin_progan.judge(theirs, pixels, torch.tensor(np.asarray(label)).long(), size, None)
            torch.nn.functional.softplus(-expected).sum().backward()
            reference.step()
    twin_progan.judge(theirs, pixels, torch.tensor(np.asarray(label)).long(), 8, None)  # shortens the rows
    expected = twin_progan.arrays(state.params, theirs)
    chex.assert_trees_all_close(state.params, expected, atol=1e-5)
    lengths = np.linalg.norm(state.params["embed"]["kernel"], axis=1)
    assert lengths.min() < 0.99 and np.isclose(lengths.max(), 1.0, rtol=1e-5)  # the limit was met
    counts = {name: int(jax.tree.leaves(net)[0]) for name, net in state.opt_state[0].items()}
    assert counts["conv"] == 8 and counts["block8"] == counts["rgb8"] == 4 and "rgb4" not in counts


# Resuming ---------------------------------------------------------------------------------------------------

GROWN = {
    "system.resolutions": (4, 8),
    "system.steps": (4, 6),
    "system.fade": (0.0, 0.5),
    "ema.decay": (0.9, 0.99),
    "train.steps": 10,
}
LOOP = schema.Train(
    steps=10,
    max_hours=0.0,
    memory_gb=0.0,
    steps_per_execution=1,
    log_every=1,
    grid_every=0,
    grid_images=4,
    rollback_ratio=0.0,
)


class Killed(Exception):
    """Simulates the end of a process."""


@pytest.fixture(scope="module")
def compiled() -> Iterator[list[train_step.CompiledPhase]]:
    """Each phase is compiled once for all runs of these tests."""
    made: list[train_step.CompiledPhase] = []
    original = train_step.CompiledPhase

    @functools.cache
    def once(name: str) -> train_step.CompiledPhase:
        phase = next(phase for phase in phases_of(**GROWN) if phase.name == name)
        made.append(original(phase, 0, 1, sharding.make_mesh()))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_step, "CompiledPhase", lambda phase, *rest: once(phase.name))
        yield made


class Mortal(checkpoint.Checkpoints):
    """Checkpoints of a run that is killed when it is about to save one."""

    killed_at = -1  # step

    def save(self, step: int, state: Any, seconds: float) -> None:
        if step == self.killed_at:
            raise Killed
        super().save(step, state, seconds)


def run(folder: pathlib.Path, killed_at: int = -1) -> loop.TrainResult | None:
    """A run with a checkpoint every other step, which may be killed right before one."""
    mesh = sharding.make_mesh()
    kept = Mortal(folder / "checkpoints", keep_last=2, keep_best=1, metric="fid768")
    kept.killed_at = killed_at

    with writers.Writer(folder, step=kept.latest() or 0) as writer:
        try:
            return loop.train(
                loop.TrainSetup(
                    phases=phases_of(**GROWN),
                    settings=LOOP,
                    checkpoint_every=2,
                    seed=0,
                    classes=CLASSES,
                    data=sharding.put(toy_data(), sharding.replicated(mesh)),
                    mesh=mesh,
                    writer=writer,
                    checkpoints=kept,
                    evaluate=lambda phase, state, step: 1.0,
                    evaluate_every=2,
                )
            )
        except Killed:
            return None
        finally:
            kept.close()


@pytest.mark.long
def test_a_run_resumes_exactly_from_any_checkpoint(
    tmp_path: pathlib.Path, compiled: list[train_step.CompiledPhase]
) -> None:
    """Killed after the checkpoints of steps 2, in the first stage, 4, at its end, and 8, in the second."""
    whole = run(tmp_path / "whole")
    assert whole is not None and whole.step == 10 and int(whole.state.step) == 10
    for step in (4, 6, 10):
        assert run(tmp_path / "killed", killed_at=step) is None
        found = checkpoint.Checkpoints(tmp_path / "killed" / "checkpoints", 2, 1, "fid768", read_only=True)
        assert found.latest() == {4: 2, 6: 4, 10: 8}[step]
        found.close()
    again = run(tmp_path / "killed")
    assert again is not None
    chex.assert_trees_all_equal(again.state, whole.state)
    assert [functions.train_steps._cache_size() for functions in compiled] == [1, 1]
