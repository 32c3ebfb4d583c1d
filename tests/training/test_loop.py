"""The training loop on a counting system: resuming, stopping, phases, hooks, rollback."""

import logging
import math
import os
import pathlib
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from jaxdog import sharding, types
from jaxdog.config import schema
from jaxdog.data import batches
from jaxdog.evaluation import batching
from jaxdog.optim import schedules
from jaxdog.training import checkpoint, loop, progress, rollback, train_step, writers
from jaxdog.utils import errors


@struct.dataclass
class State:
    step: jax.Array
    total: jax.Array  # a sum over all batches, so that a lost or repeated step shows
    size: jax.Array


def counter(bad_at: int = -1, signal_at: int = -1) -> types.System:
    """A system that sums the images of its batches, with NaN or a signal at a given step."""

    def init(key: jax.Array, batch: types.Batch) -> State:
        return State(jnp.int32(0), jnp.zeros(()), jnp.float32(batch.image.shape[0]))

    def send_signal(step: Any) -> None:
        if step == signal_at:
            os.kill(os.getpid(), signal.SIGTERM)

    def step(state: State, batch: types.Batch, key: jax.Array) -> tuple[State, types.Scalars]:
        jax.debug.callback(send_signal, state.step)
        noise = jax.random.uniform(jax.random.fold_in(key, state.step))
        total = state.total * 0.9 + jnp.mean(batch.image) + noise
        loss = jnp.where(state.step == bad_at, jnp.nan, total)
        return state.replace(step=state.step + 1, total=total), {"loss/d": loss}

    def sample(state: State, key: jax.Array, label: jax.Array) -> jax.Array:
        value = jax.vmap(lambda k: jax.random.uniform(k, minval=-1.0))(key)
        return jnp.broadcast_to(value[:, None, None, None], (label.shape[0], 8, 8, 3))

    return types.System(init, step, sample)


LOOP = schema.Train(
    steps=12,
    max_hours=0.0,
    memory_gb=0.0,
    steps_per_execution=2,
    log_every=4,
    grid_every=6,
    grid_images=4,
    rollback_ratio=0.0,
)


def phase(steps: int = 12, **options: Any) -> types.Phase:
    return types.Phase("count", counter(**options), steps, batch_size=4)


OPEN: list[loop.TrainSetup] = []


@pytest.fixture(autouse=True)
def close() -> Iterator[None]:
    """Closes every setup of a test after it."""
    yield
    while OPEN:
        setup = OPEN.pop()
        setup.writer.close()
        setup.checkpoints.close()


def make(folder: pathlib.Path, phases: Any = None, **changes: Any) -> loop.TrainSetup:
    mesh = sharding.make_mesh()
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
    checkpoints = checkpoint.Checkpoints(folder / "checkpoints", keep_last=2, keep_best=1, metric="fid768")
    setup = loop.TrainSetup(
        phases=phases or [phase()],
        settings=LOOP,
        checkpoint_every=4,
        seed=0,
        classes=2,
        data=sharding.put(batches.make_data(images, np.zeros(20, np.int32)), sharding.replicated(mesh)),
        mesh=mesh,
        writer=writers.Writer(folder, step=checkpoints.latest() or 0),
        checkpoints=checkpoints,
        evaluate=None,
        evaluate_every=0,
    )
    OPEN.append(setup)
    return setup._replace(**changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[loop.TrainResult, pathlib.Path]:
    folder = tmp_path_factory.mktemp("whole")
    setup = make(folder)
    return loop.train(setup), folder


def test_runs_all_steps_and_writes_logs_and_grids(whole: tuple[loop.TrainResult, pathlib.Path]) -> None:
    outcome, folder = whole
    assert (outcome.step, outcome.reason, int(outcome.state.step)) == (12, "steps", 12)
    log = writers.read_jsonl(folder / "log.jsonl")
    assert [line["step"] for line in log] == [4, 8, 12]
    assert [line["kimg"] for line in log] == [0.016, 0.032, 0.048]
    assert all(line["images_per_second"] > 0 and line["memory_gb"] > 0 for line in log)
    np.testing.assert_allclose([x["images_per_second"] * x["seconds_per_kimg"] for x in log], 1000.0)
    names = sorted(path.name for path in (folder / "grids").iterdir())
    assert names == ["grid_00000006.png", "grid_00000012.png"]


def test_log_lines_are_means_over_their_window(tmp_path: pathlib.Path) -> None:
    every_step = make(tmp_path / "a", settings=LOOP._replace(steps_per_execution=1, log_every=1))
    by_four = make(tmp_path / "b")
    for setup in (every_step, by_four):
        loop.train(setup)
        setup.writer.close()
    fine = [x["loss/d"] for x in writers.read_jsonl(tmp_path / "a" / "log.jsonl")]
    coarse = [x["loss/d"] for x in writers.read_jsonl(tmp_path / "b" / "log.jsonl")]
    np.testing.assert_allclose(coarse, np.reshape(fine, (3, 4)).mean(1), rtol=1e-5)


def test_stopped_by_a_signal_and_resumed_equals_uninterrupted(
    whole: tuple[loop.TrainResult, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    setup = make(tmp_path, [phase(signal_at=5)])
    first = loop.train(setup)
    setup.writer.close()
    assert first.reason == "signal" and 5 < first.step < 12
    assert setup.checkpoints.latest() == first.step
    again = make(tmp_path)
    second = loop.train(again)
    again.writer.close()
    assert second.step == 12 and second.seconds > first.seconds
    assert np.array_equal(second.state.total, whole[0].state.total)
    steps = [line["step"] for line in writers.read_jsonl(tmp_path / "log.jsonl")]
    assert steps == sorted(set(steps)) and steps[-1] == 12


def test_hours_stop_a_run_and_count_across_sessions(tmp_path: pathlib.Path) -> None:
    setup = make(tmp_path, settings=LOOP._replace(max_hours=1e-9))
    assert loop.train(setup).reason == "hours"
    again = make(tmp_path, settings=LOOP._replace(max_hours=1e-9))
    step, _, seconds = loop._resume(again)
    assert step == 2 and seconds > 0.0
    outcome = loop.train(again)  # which is over
    assert (outcome.step, outcome.reason, int(outcome.state.step)) == (2, "hours", 2)
    assert again.checkpoints.steps() == [2]


def test_phases_with_other_scalars_may_share_a_log_line(tmp_path: pathlib.Path) -> None:
    """The first phase ends between two log lines."""

    def renamed(name: str, steps: int) -> types.Phase:
        system = counter()

        def step(*args: Any) -> tuple[Any, types.Scalars]:
            state, scalars = system.step(*args)
            return state, {name: scalars["loss/d"], "loss/both": scalars["loss/d"]}

        return types.Phase(name, system._replace(step=step), steps, batch_size=4)

    loop.train(make(tmp_path, [renamed("loss/first", 6), renamed("loss/second", 6)]))
    log = writers.read_jsonl(tmp_path / "log.jsonl")
    names = [sorted(name for name in line if name.startswith("loss/")) for line in log]
    assert names == [
        ["loss/both", "loss/first"], ["loss/both", "loss/first", "loss/second"], ["loss/both", "loss/second"]
    ]  # fmt: skip
    first, second = log[1]["loss/first"], log[1]["loss/second"]
    np.testing.assert_allclose(log[1]["loss/both"], (first + second) / 2, rtol=1e-6)


def test_a_checkpoint_is_written_before_the_next_phase_compiles(tmp_path: pathlib.Path) -> None:
    setup = make(tmp_path, [phase(6), phase(6)], checkpoint_every=100)
    compiled, kept = train_step.CompiledPhase, []

    class Compiled(compiled):
        def __init__(self, *args: Any, **given: Any) -> None:
            setup.checkpoints.wait()
            kept.append(setup.checkpoints.steps())
            super().__init__(*args, **given)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(train_step, "CompiledPhase", Compiled)
        loop.train(setup)
    assert kept == [[], [6]]


def test_a_run_above_the_memory_limit_stops(tmp_path: pathlib.Path) -> None:
    setup = make(tmp_path / "a", settings=LOOP._replace(memory_gb=0.01))
    with pytest.raises(
        progress.TrainingError, match=r"has used \d+\.\d\d GB by step 4, .*memory_gb = 0.01; .*smaller"
    ):
        loop.train(setup)
    crops = make(tmp_path / "b", settings=LOOP._replace(memory_gb=1e-6))
    with pytest.raises(ValueError, match=r"the crops alone take 0.00 GB, more than train.memory_gb = 1e-06"):
        loop.train(crops)


def test_steps_get_the_training_hours_of_all_sessions(tmp_path: pathlib.Path) -> None:
    """Wall-clock schedules read the hours from the batch; here the step stores them."""
    played = counter()

    def step(state: State, batch: types.Batch, key: jax.Array) -> tuple[State, types.Scalars]:
        state, scalars = played.step(state, batch, key)
        return state.replace(total=batch.hours[0]), scalars

    phases = [types.Phase("clock", played._replace(step=step), 12, batch_size=4)]
    start = time.monotonic()
    first = loop.train(make(tmp_path, phases, settings=LOOP._replace(max_hours=1e-9)))
    assert first.step == 2 and 0.0 <= first.state.total < first.seconds / 3600
    again = loop.train(make(tmp_path, phases))
    assert first.seconds / 3600 <= again.state.total <= (time.monotonic() - start) / 3600


def test_nan_stops_with_the_step_and_the_last_good_checkpoint(tmp_path: pathlib.Path) -> None:
    setup = make(tmp_path, [phase(bad_at=9)])
    message = r"loss/d became NaN .* between steps 9 and 10; .* step 8 .*rollback_ratio"
    with pytest.raises(progress.TrainingError, match=message):
        loop.train(setup)
    setup.checkpoints.wait()
    assert setup.checkpoints.latest() == 8


def test_one_compilation_of_the_step(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    compiled = train_step.CompiledPhase
    monkeypatch.setattr(train_step, "CompiledPhase", lambda *args: made.append(compiled(*args)) or made[-1])
    loop.train(make(tmp_path))
    assert len(made) == 1 and made[0].train_steps._cache_size() == 1


@pytest.mark.long
def test_phases_follow_each_other_and_resume_inside_the_second(tmp_path: pathlib.Path) -> None:
    def transition(state: State) -> State:
        return state.replace(total=state.total + 1000.0, size=jnp.float32(8))

    def phases(signal_at: int = -1) -> list[types.Phase]:
        second = types.Phase("second", counter(signal_at=signal_at), 8, batch_size=8, transition=transition)
        return [phase(steps=4), second]

    straight = make(tmp_path / "a", phases())
    one = loop.train(straight)
    assert float(one.state.size) == 8 and one.step == 12
    assert train_step.images_at(straight.phases, 12) == 4 * 4 + 8 * 8
    broken = make(tmp_path / "b", phases(signal_at=3 + 4))
    first = loop.train(broken)
    broken.writer.close()
    assert 4 < first.step < 12
    two = loop.train(make(tmp_path / "b", phases()))
    assert np.array_equal(one.state.total, two.state.total)


def test_a_checkpoint_between_phases_belongs_to_the_first() -> None:
    phases = [phase(steps=4), phase(steps=8)]
    assert [train_step.phase_at(phases, step) for step in (0, 1, 4, 5, 12)] == [0, 0, 0, 1, 1]


def test_evaluations_pick_the_best_checkpoint(tmp_path: pathlib.Path) -> None:
    scores = {4: 3.0, 8: 1.0, 12: 2.0}
    setup = make(tmp_path, evaluate=lambda phase, state, step: scores[step], evaluate_every=4)
    loop.train(setup)
    assert setup.checkpoints.best() == 8 and setup.checkpoints.latest() == 12


def test_the_end_is_evaluated_whatever_the_interval(tmp_path: pathlib.Path) -> None:
    scores = {8: 3.0, 12: 2.0}
    setup = make(tmp_path, evaluate=lambda phase, state, step: scores.pop(step), evaluate_every=8)
    loop.train(setup)
    assert setup.checkpoints.best() == 12 and not scores


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"settings": LOOP._replace(log_every=3)},
            "train.log_every is 3 steps.* = 2; the nearest are 2 and 4",
        ),
        ({"checkpoint_every": 5}, "checkpoint.every is 5 steps.* the nearest are 4 and 6"),
        ({"settings": LOOP._replace(steps_per_execution=0)}, "steps_per_execution is 0"),
        ({"phases": [phase(steps=7)]}, "steps of phase count is 7"),
        ({"checkpoint_every": 0}, "must be at least 1"),
    ],
)
def test_contradictions_are_refused(tmp_path: pathlib.Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loop.train(make(tmp_path, **changes))


def test_batch_that_devices_do_not_divide_is_refused() -> None:
    odd = types.Phase("count", counter(), 4, batch_size=6)
    with pytest.raises(ValueError, match="6 images cannot be split over 4 devices; .* multiple of 4"):
        train_step.CompiledPhase(odd, 0, 1, sharding.make_mesh())


def test_another_number_of_steps_per_execution_must_divide_the_step_to_go_on_from(
    tmp_path: pathlib.Path,
) -> None:
    """Also that of an older checkpoint, if the newest is damaged."""
    first = make(tmp_path, [phase(4)], checkpoint_every=2)
    loop.train(first)
    first.writer.close()
    threes = LOOP._replace(steps_per_execution=3, log_every=12, grid_every=12)
    message = "from step 4, .* = 3 does not divide.*--config.train.steps_per_execution=1, or another number"
    for run in (loop.check, loop.train):
        with pytest.raises(errors.UserError, match=message):
            run(make(tmp_path, settings=threes, checkpoint_every=12))
    loop.check(make(tmp_path, [phase(3)], settings=threes, checkpoint_every=12))  # is over
    last = make(tmp_path, settings=LOOP._replace(steps_per_execution=4, grid_every=12))
    loop.check(last)
    for path in (tmp_path / "checkpoints" / "4" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.raises(errors.UserError, match="from step 2, .* = 4 does not divide.*per_execution=2, or"):
        loop.train(last)


def test_what_cannot_be_trained_is_found_by_the_check(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = types.Phase("count", counter(), 4, batch_size=6)
    with pytest.raises(errors.UserError, match="6 images cannot be split over 4 devices"):
        loop.check(make(tmp_path, [phase(), odd]))
    setup = make(tmp_path)
    streamed = setup._replace(data=jax.tree.map(np.asarray, setup.data))
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(errors.UserError, match="stay on the host needs grain"):
        loop.check(streamed)
    loop.check(setup)


def test_lines_are_on_the_disk_before_the_checkpoint_and_the_score(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut between them would leave a checkpoint whose lines are never written again."""
    flushed: list[int] = []

    def fsync(handle: int) -> None:
        if os.readlink(f"/proc/self/fd/{handle}").endswith((writers.LOG, writers.SCORES)):
            flushed.append(os.fstat(handle).st_size)

    monkeypatch.setattr(os, "fsync", fsync)
    setup = make(tmp_path)
    setup = setup._replace(
        evaluate=lambda phase, state, step: setup.writer.scores(step, {}) or 1.0, evaluate_every=4
    )

    def checked(name: str) -> Any:
        whole = getattr(setup.checkpoints, name)

        def call(*given: Any) -> None:
            assert flushed[-2:] == [
                (tmp_path / file).stat().st_size for file in (writers.LOG, writers.SCORES)
            ]
            whole(*given)

        return call

    for name in ("save", "set_score"):
        monkeypatch.setattr(setup.checkpoints, name, checked(name))
    loop.train(setup)


def test_an_evaluation_that_is_made_up_for_keeps_the_final_scores(tmp_path: pathlib.Path) -> None:
    first = make(tmp_path)
    loop.train(first)
    first.writer.scores(12, {"final": True})
    first.writer.close()
    second = make(tmp_path, evaluate=lambda *_: 1.0, evaluate_every=4)
    loop.train(second)
    assert second.checkpoints.best_score() == 1.0
    assert writers.read_jsonl(tmp_path / writers.SCORES) == [{"step": 12, "final": True}]


def test_networks_that_cannot_be_built_are_an_error_of_one_paragraph(tmp_path: pathlib.Path) -> None:
    """Whatever their config makes JAX raise: it may be a stranger's."""

    def init(*_: Any) -> Any:
        raise TypeError("shapes must be\nnumbers")

    phases = [types.Phase("count", counter()._replace(init=init), 12, batch_size=4)]
    setup = make(tmp_path)
    with pytest.raises(
        errors.UserError, match="networks that cannot be built: TypeError: shapes must be numbers"
    ):
        train_step.restore_sampled(setup.checkpoints, phases, 4, (8, 8, 3), setup.mesh, lambda _: ())


# Rollback ---------------------------------------------------------------------------------------------------


@struct.dataclass
class Rated:
    step: jax.Array
    total: jax.Array
    opt: schedules.LearningRateState


def rated(bad_at: int = -1) -> types.Phase:
    """A system that counts updates and sums their learning-rate factors, with NaN once at a given step."""

    def init(key: jax.Array, batch: types.Batch) -> Rated:
        return Rated(jnp.int32(0), jnp.zeros(()), schedules.LearningRateState(jnp.int32(0), jnp.ones(())))

    def step(state: Rated, batch: types.Batch, key: jax.Array) -> tuple[Rated, types.Scalars]:
        opt = state.opt._replace(count=state.opt.count + 1)
        total = state.total + jnp.where(state.step == bad_at, jnp.nan, opt.factor)
        return Rated(state.step + 1, total, opt), {"total": total}

    return types.Phase("count", types.System(init, step, counter().sample), 12, batch_size=4)


def test_a_collapsed_score_rolls_back_to_the_best_at_half_the_learning_rates(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """4 steps at factor 1, then 4 that are rolled back, then 4 at factor 1/2; the step count continues."""
    scores = {4: 1.0, 8: 2.5, 12: 1.5}
    settings = LOOP._replace(rollback_ratio=2.0)
    setup = make(
        tmp_path, [rated()], evaluate=lambda *given: scores[given[2]], evaluate_every=4, settings=settings
    )
    logger = logging.getLogger("jaxdog")
    logger.addHandler(caplog.handler)
    state = loop.train(setup).state
    logger.removeHandler(caplog.handler)
    assert (float(state.total), float(state.opt.factor)) == (4 * 1.0 + 4 * 0.5, 0.5)
    assert int(state.step) == int(state.opt.count) == 12
    assert "the score of step 8, 2.500, is more than" in caplog.text
    assert "rolling back to step 4" in caplog.text
    assert setup.checkpoints.best() == 4


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_that_is_not_finite_rolls_back_and_deletes_nothing(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, bad: float
) -> None:
    scores = {4: 1.0, 8: bad, 12: 1.5}
    settings = LOOP._replace(rollback_ratio=2.0)
    monkeypatch.setattr(logging.getLogger("jaxdog"), "propagate", True)
    setup = make(
        tmp_path, [rated()], evaluate=lambda *given: scores[given[2]], evaluate_every=4, settings=settings
    )
    assert float(loop.train(setup).state.opt.factor) == 0.5
    assert f"the score of step 8, {bad:.3f}, is not finite" in caplog.text
    assert setup.checkpoints.best() == 4


def kept_arrays(setup: loop.TrainSetup) -> dict[int, float]:
    return {step: float(setup.checkpoints.load_arrays(step)["total"]) for step in setup.checkpoints.steps()}


def interrupting(at: int, scores: dict[int, float]) -> Any:
    """An evaluation that a signal interrupts between two batches, once, at step `at`; and what it scored."""
    scored = []

    def evaluate(phase: types.Phase, state: Any, step: int) -> float:
        if step == at and not scored.count(-at):
            scored.append(-at)
            os.kill(os.getpid(), signal.SIGTERM)
            list(batching.map_batches(lambda x: x, (np.zeros(4),), 2))
            pytest.fail("the evaluation went on")
        scored.append(step)
        return scores[step]

    return evaluate, scored


@pytest.mark.parametrize("at", [4, 8, 12])
def test_an_evaluation_that_a_signal_interrupts_is_made_up_for(tmp_path: pathlib.Path, at: int) -> None:
    """The checkpoint is saved first; then the result, with a rollback at step 8, is that of one session."""
    scores = {4: 1.0, 8: 2.5, 12: 1.5}
    settings = LOOP._replace(rollback_ratio=2.0)
    common = {"evaluate_every": 4, "settings": settings}
    whole = make(tmp_path / "a", [rated()], evaluate=lambda *given: scores[given[2]], **common)
    expected = loop.train(whole)
    evaluate, scored = interrupting(at, scores)
    first = make(tmp_path / "b", [rated()], evaluate=evaluate, **common)
    outcome = loop.train(first)
    assert (outcome.reason, outcome.step, first.checkpoints.latest()) == ("signal", at, at)
    assert first.checkpoints.score(at) is None
    first.writer.close()
    second = make(tmp_path / "b", [rated()], evaluate=evaluate, **common)
    again = loop.train(second)
    assert again.reason == "steps" and scored == sorted([4, 8, 12, -at], key=lambda x: (abs(x), x))
    assert float(again.state.total) == float(expected.state.total)
    assert kept_arrays(second) == kept_arrays(whole)
    third = make(tmp_path / "b", [rated()], evaluate=lambda *given: pytest.fail("scored again"), **common)
    loop.train(third)


def test_a_kill_after_a_rollback_does_not_undo_it(tmp_path: pathlib.Path) -> None:
    scores = {4: 1.0, 8: 2.5, 12: 1.5}
    settings = LOOP._replace(rollback_ratio=2.0)
    common = {"evaluate": lambda *given: scores[given[2]], "evaluate_every": 4, "settings": settings}
    first = make(tmp_path, [rated()], **common)
    expected = loop.train(first)
    first.writer.close()
    shutil.rmtree(tmp_path / "checkpoints" / "12")
    again = make(tmp_path, [rated()], **common)
    assert float(loop.train(again).state.total) == float(expected.state.total) == 6.0


def test_a_signal_ends_training_without_grid_or_evaluation(tmp_path: pathlib.Path) -> None:
    setup = make(
        tmp_path,
        [phase(signal_at=5)],
        settings=LOOP._replace(grid_every=2),
        evaluate=lambda phase, state, step: pytest.fail("evaluated") if step > 4 else 1.0,
        evaluate_every=2,
    )
    first = loop.train(setup)
    assert first.reason == "signal" and setup.checkpoints.latest() == first.step > 5
    assert not (tmp_path / "grids" / f"grid_{first.step:08d}.png").exists()


def test_a_damaged_checkpoint_is_replaced_by_the_next_older_one(
    whole: tuple[loop.TrainResult, pathlib.Path],
    tmp_path: pathlib.Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = make(tmp_path)
    loop.train(first)
    first.writer.close()
    first.checkpoints.close()
    assert first.checkpoints.steps() == [8, 12]
    for path in (tmp_path / "checkpoints" / "12" / "state" / "d").iterdir():
        path.write_bytes(bytes(path.stat().st_size))
    monkeypatch.setattr(logging.getLogger("jaxdog"), "propagate", True)
    again = make(tmp_path)
    outcome = loop.train(again)
    again.writer.close()
    assert "The checkpoint of step 12 is damaged" in caplog.text and "that of step 8 is used" in caplog.text
    assert outcome.step == 12 and np.array_equal(outcome.state.total, whole[0].state.total)
    assert again.checkpoints.steps() == [8, 12]
    assert [line["step"] for line in writers.read_jsonl(tmp_path / "log.jsonl")] == [4, 8, 12]


def test_a_run_whose_checkpoints_are_all_damaged_is_not_started_again(tmp_path: pathlib.Path) -> None:
    first = make(tmp_path)
    loop.train(first)
    first.writer.close()
    for step in (8, 12):
        (tmp_path / "checkpoints" / str(step) / checkpoint.RECORD).write_bytes(b"")
    with pytest.raises(checkpoint.CheckpointError, match="step 12 .* damaged"):
        loop.train(make(tmp_path))
    assert make(tmp_path).checkpoints.steps() == [8, 12]


def test_a_damaged_best_checkpoint_is_replaced_by_the_next_best(tmp_path: pathlib.Path) -> None:
    scores = {4: 1.0, 8: 1.1, 12: 9.0}
    settings = LOOP._replace(rollback_ratio=2.0)

    def evaluate(phase: types.Phase, state: Any, step: int) -> float:
        if step == 12:
            (tmp_path / "checkpoints" / "4" / checkpoint.RECORD).write_bytes(b"")
        return scores[step]

    setup = make(tmp_path, [rated()], evaluate=evaluate, evaluate_every=4, settings=settings)
    assert float(loop.train(setup).state.total) == 8.0
    assert setup.checkpoints.steps() == [8, 12]


def test_lines_replace_the_progress_bar_without_a_terminal(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress.progress, "SECONDS", 0.0)
    monkeypatch.setattr(logging.getLogger("jaxdog"), "propagate", True)
    with caplog.at_level(logging.INFO, "jaxdog"):
        loop.train(make(tmp_path))
    lines = [record.message for record in caplog.records if " left" in record.message]
    assert lines[0].startswith("step 2 of 12, about") and lines[-1].startswith(
        "step 12 of 12, about 0 minutes"
    )


def test_without_a_ratio_there_is_no_rollback(tmp_path: pathlib.Path) -> None:
    scores = {4: 1.0, 8: 9.0, 12: 9.0}
    setup = make(tmp_path, [rated()], evaluate=lambda *given: scores[given[2]], evaluate_every=4)
    assert float(loop.train(setup).state.total) == 12.0


def test_nan_rolls_back_if_there_is_a_best(tmp_path: pathlib.Path) -> None:
    settings = LOOP._replace(rollback_ratio=2.0)
    setup = make(tmp_path, [rated(6)], evaluate=lambda *given: 1.0, evaluate_every=4, settings=settings)
    state = loop.train(setup).state
    assert np.isfinite(state.total) and float(state.opt.factor) == 0.5 and int(state.step) == 12


def test_nan_in_the_last_steps_is_rolled_back_and_saved_and_scored(tmp_path: pathlib.Path) -> None:
    settings, scored = LOOP._replace(rollback_ratio=2.0), []
    evaluate = lambda phase, state, step: scored.append(step) or 1.0  # noqa: E731
    setup = make(tmp_path, [rated(11)], evaluate=evaluate, evaluate_every=4, settings=settings)
    outcome = loop.train(setup)
    assert np.isfinite(outcome.state.total) and float(outcome.state.opt.factor) == 0.5
    assert scored == [4, 8, 12] and setup.checkpoints.latest() == 12


def test_nan_before_any_score_stops_the_run(tmp_path: pathlib.Path) -> None:
    settings = LOOP._replace(rollback_ratio=2.0)
    setup = make(tmp_path, [rated(1)], evaluate=lambda *given: 1.0, evaluate_every=4, settings=settings)
    with pytest.raises(progress.TrainingError, match="total became NaN or infinite between steps 1 and 2"):
        loop.train(setup)


def test_rollbacks_are_limited(tmp_path: pathlib.Path) -> None:
    settings = LOOP._replace(rollback_ratio=2.0, log_every=2, grid_every=2)
    worse = lambda phase, state, step: 1.0 if step == 2 else 5.0  # noqa: E731
    setup = make(tmp_path, [rated()], evaluate=worse, evaluate_every=2, checkpoint_every=2, settings=settings)
    assert float(loop.train(setup).state.opt.factor) == 0.5**rollback.MAX_ROLLBACKS


def test_steps_are_compiled_once_while_the_first_state_is_made(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    setup = make(tmp_path)
    functions = train_step.CompiledPhase(setup.phases[0], 0, 2, setup.mesh)
    hours = np.float32(0.0)
    jax.config.update("jax_log_compiles", True)
    try:
        with caplog.at_level(logging.WARNING):
            state = train_step.init_state(functions, setup.data, hours)
            assert _compiled(caplog) == 1
            for _ in range(2):
                state, _ = functions.train_steps(state, setup.data, hours)
            assert _compiled(caplog) == 1
    finally:
        jax.config.update("jax_log_compiles", False)
    assert int(state.step) == 4


def _compiled(caplog: pytest.LogCaptureFixture) -> int:
    """The number of compilations of the training steps."""
    return sum("Finished XLA compilation of jit(_train_steps)" in record.message for record in caplog.records)


def test_a_failed_compilation_fails_the_start(tmp_path: pathlib.Path) -> None:
    setup = make(tmp_path)
    functions = train_step.CompiledPhase(setup.phases[0], 0, 2, setup.mesh)

    class Broken:
        def lower(self, *_: Any) -> Any:
            raise RuntimeError("no memory")

    functions.train_steps = Broken()
    with pytest.raises(RuntimeError, match="no memory"):
        train_step.init_state(functions, setup.data, np.float32(0.0))
