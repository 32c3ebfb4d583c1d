"""The training loop: trains the phases in order and runs periodic hooks.

    train           phases -> executions of k steps -> hooks
    _Session.hooks  checkpoint, sample grid and evaluation (with rollback), each at its own interval
    train_step.py   batch i, and `system.step` compiled (gradients, optimizer, EMA: `systems`)
    rollback.py     restores the best checkpoint after a collapse
    progress.py     log lines and training time
    writers.py      passes log lines, images and checkpoints to files and callbacks
    checkpoint.py   saves and restores the state

The host reads the scalars of an execution only after it has launched the next one.
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from jaxdog import types
from jaxdog.config import build, schema
from jaxdog.data import batches, host_loader
from jaxdog.systems import sampling
from jaxdog.training import checkpoint, fallback, progress, rollback, train_step, writers
from jaxdog.utils import errors, interrupts, plots


class TrainSetup(NamedTuple):
    """Everything the loop needs."""

    phases: Sequence[types.Phase]
    settings: schema.Train
    checkpoint_every: int  # steps
    seed: int
    classes: int
    data: batches.Data  # on the devices, or on the host, from which it is streamed
    mesh: Mesh
    writer: writers.Writer
    checkpoints: checkpoint.Checkpoints
    evaluate: (
        Callable[[types.Phase, Any, int], float] | None
    )  # (phase, state, step) -> score, lower is better
    evaluate_every: int  # steps; also at the last step, but not if stopped early; 0: never
    warm_start: Callable[[Any], Any] | None = None  # replaces weights of the initial state
    fsdp: bool = False  # shards large arrays of the state, see sharding.state_shardings

    def streamed(self) -> bool:
        """Whether the images stay on the host and are prefetched."""
        return not isinstance(self.data.image, jax.Array)

    def restore(self, step: int) -> tuple[Any, float]:
        """State of the checkpoint at `step`, and the training time until then, in seconds."""
        shape = self.data.image.shape[1:]
        return train_step.restore(self.checkpoints, self.phases, step, shape, self.mesh, self.fsdp)


class TrainResult(NamedTuple):
    """How training ended."""

    step: int
    state: Any
    seconds: float  # wall-clock time of all sessions of the run
    reason: str  # "steps" | "hours" | "signal" | "callback" (failed in process 0)


def train(setup: TrainSetup) -> TrainResult:
    """Trains until the step or time limit, or a signal; resumes from the newest whole checkpoint.

    Raises the exception of a callback once the checkpoint is on disk.
    """
    check(setup)
    with interrupts.deferred(in_batches=jax.process_count() == 1) as stop:
        session = _Session(setup, stop)
        with session.progress.bar:
            session.finish_evaluation()
            session.stop_if_out_of_time()
            start = 0
            for phase in setup.phases:
                if session.step < start + phase.steps and not session.stop_reason:
                    session.train_phase(phase, start)
                start += phase.steps
            session.progress.read(keep=0)
        session.report_checkpoint(wait=True)
    reason = session.stop_reason or "steps"
    if _any_process(setup.writer.failure is not None):
        reason = "callback"
        setup.writer.raise_failure()
    return TrainResult(session.step, session.state, session.progress.seconds(), reason)


def check(setup: TrainSetup) -> None:
    """Raises UserError if settings contradict each other."""
    settings = setup.settings
    build.check_steps(settings, setup.phases, setup.checkpoint_every, setup.evaluate_every)
    for phase in setup.phases:
        train_step.check_batch(phase, setup.mesh)
    check_step(setup, setup.checkpoints.latest() or 0)
    if setup.streamed():
        host_loader.load_grain()
    size = sum(x.nbytes for x in jax.tree.leaves(setup.data)) / 1e9
    if not setup.streamed() and 0.0 < settings.memory_gb < size:
        raise errors.UserError(
            f"the crops alone take {size:.2f} GB, more than train.memory_gb = {settings.memory_gb}"
        )


def check_step(setup: TrainSetup, step: int) -> None:
    """Raises UserError if training cannot go on from `step` by train.steps_per_execution steps at a time."""
    k, end = setup.settings.steps_per_execution, sum(phase.steps for phase in setup.phases)
    if step < end and step % k:
        raise errors.UserError(
            f"training goes on from step {step}, which train.steps_per_execution = {k} does not divide: no "
            "later step would be that of a checkpoint, a log line or an evaluation; set "
            f"--config.train.steps_per_execution={math.gcd(step, k)}, or another number that divides {step}"
        )


class _Hook(NamedTuple):
    """An action between two executions."""

    action: Callable[[], None]
    every: tuple[int, ...]  # runs at multiples of any of these steps; 0: never
    on_stop: bool  # also runs when the session stops early; at the last step every enabled hook runs


class _Session:
    """Training in one process, from the newest checkpoint or from scratch."""

    def __init__(self, setup: TrainSetup, stop: interrupts.Stop):
        self.setup = setup
        self.step, self.state, seconds = _resume(setup)
        self.stop_reason = ""  # that of TrainResult once training should stop early
        self._saved = self.step  # of the newest checkpoint, which may not be complete yet
        self._stop = stop
        self._stop.nothing_to_lose = self._is_saved
        self._last_step = sum(phase.steps for phase in setup.phases)
        self._hours = _broadcast_from_first_process(seconds / 3600.0)
        self._unreported: int | None = None  # step of the last checkpoint, until the writer knows of it
        self.progress = progress.Progress(
            setup.phases, setup.settings, setup.writer, self._last_checkpoint, self.step, seconds
        )
        self._guard = rollback.RollbackGuard(
            setup.settings.rollback_ratio,
            setup.checkpoints,
            setup.phases,
            lambda step: setup.restore(step)[0],
        )

    def train_phase(self, phase: types.Phase, start: int) -> None:
        """Trains one phase, which starts at step `start`, to its end or until the session stops."""
        setup, k, end = self.setup, self.setup.settings.steps_per_execution, start + phase.steps
        functions = train_step.CompiledPhase(phase, setup.seed, k, setup.mesh, setup.fsdp, setup.streamed())
        if self.state is None:
            self.state = train_step.init_state(functions, next(self._data(phase, end)), self._hours)
            if setup.warm_start is not None:
                self.state = setup.warm_start(self.state)
        elif self.step == start and phase.transition is not None:
            self.state = train_step.transition(phase, self.state, setup.mesh, setup.fsdp)
        data, hooks = self._data(phase, end), self.hooks(phase, functions, end)
        while self.step < end and not self.stop_reason:
            if self.step % setup.settings.log_every == 0:
                self._hours = _broadcast_from_first_process(self.progress.seconds() / 3600.0)
            self.state, scalars = functions.train_steps(self.state, next(data), self._hours)
            self.step += k
            self.progress.add(self.step, phase, scalars)
            try:
                self.progress.read(keep=1)
                self.report_checkpoint()
                self._set_stop_reason(self._why_stop())
                self._run_hooks(hooks)
            except progress.NotFiniteError as error:
                if not self._roll_back(phase, str(error)):
                    raise
                if self.step >= end or self.stop_reason:
                    self._run_hooks(hooks)

    def _data(self, phase: types.Phase, end: int) -> Iterator[batches.Data]:
        """The input of each execution: the whole training set, or the rows of its batches if streamed."""
        setup = self.setup
        if not setup.streamed():
            return itertools.repeat(setup.data)
        key, steps = train_step.key_for(setup.seed, train_step.DATA), range(self.step, end)
        k = setup.settings.steps_per_execution
        return host_loader.prefetch(setup.data, key, steps, k, phase.batch_size, setup.mesh)

    # ------------------------------------------------------------------ hooks

    def hooks(self, phase: types.Phase, functions: train_step.CompiledPhase, end: int) -> tuple[_Hook, ...]:
        """The hooks of a phase that ends at step `end`, in the order in which they run."""
        setup = self.setup
        evaluate_every = self._evaluate_every()

        def write_grid() -> None:
            key = train_step.key_for(setup.seed, train_step.LABELS)
            label = sampling.labels(setup.settings.grid_images, setup.classes, "balanced", key)
            images = np.asarray(functions.sample_grid(self.state, label))
            setup.writer.image("grid", self.step, plots.grid(images, columns=10))

        return (  # the checkpoint first: a signal may end the others, and the next compilation
            _Hook(self._save, (setup.checkpoint_every, evaluate_every, end), on_stop=True),
            _Hook(write_grid, (setup.settings.grid_every,), on_stop=True),
            _Hook(lambda: self._evaluate(phase), (evaluate_every,), on_stop=False),
        )

    def _run_hooks(self, hooks: Sequence[_Hook]) -> None:
        due = [hook for hook in hooks if self._is_due(hook)]
        if not due:
            return
        self.progress.read(keep=0)  # raises NotFiniteError before such a state is saved
        with self._until_signal():
            for hook in due if self.stop_reason != "signal" else ():
                hook.action()
                interrupts.check()
        if self.stop_reason == "signal" and self._saved != self.step:
            self._save()

    def _save(self) -> None:
        self.report_checkpoint(wait=True)
        self.setup.writer.sync()
        self.setup.checkpoints.save(self.step, self.state, self.progress.seconds())
        self._unreported = self._saved = self.step

    @contextlib.contextmanager
    def _until_signal(self) -> Iterator[None]:
        """Work between two executions, which a signal ends; training then stops."""
        with self.progress.paused():
            try:
                yield
            except interrupts.Interrupted:
                self._set_stop_reason("signal")

    def _evaluate_every(self) -> int:
        return 0 if self.setup.evaluate is None else self.setup.evaluate_every

    def _evaluate(self, phase: types.Phase) -> None:
        """Scores the current state, whose checkpoint has been saved, and rolls back if it has collapsed."""
        assert self.setup.evaluate is not None
        score = self.setup.evaluate(phase, self.state, self.step)
        self.setup.writer.sync()
        self.setup.checkpoints.set_score(self.step, score)
        self._roll_back_if_collapsed(phase, score)

    def _roll_back_if_collapsed(self, phase: types.Phase, score: float) -> None:
        if self._guard.collapsed(score):
            ratio = f"more than train.rollback_ratio = {self.setup.settings.rollback_ratio:g} times the best"
            why = ratio if math.isfinite(score) else "not finite"
            self._roll_back(phase, f"the score of step {self.step}, {score:.3f}, is {why}")

    def finish_evaluation(self) -> None:
        """Makes up for the evaluation and rollback after the last checkpoint if a session ended before."""
        setup, step = self.setup, self.step
        every = self._evaluate_every()
        due = every > 0 and (step >= self._last_step or step % every == 0)
        if not due or step not in setup.checkpoints.steps():
            return
        phase, score = setup.phases[train_step.phase_at(setup.phases, step)], setup.checkpoints.score(step)
        with self._until_signal():
            if score is None:
                setup.writer.rewind(step, scored=step - 1)
                self._evaluate(phase)
            else:
                self._roll_back_if_collapsed(phase, score)

    def report_checkpoint(self, wait: bool = False) -> None:
        """Passes the last checkpoint to the writer if it is complete; `wait`: waits until it is."""
        step, checkpoints = self._unreported, self.setup.checkpoints
        if wait:
            checkpoints.wait()
        if step is not None and checkpoints.is_complete(step):
            self._unreported = None
            self.setup.writer.checkpoint(step, checkpoints.path(step))

    def _is_due(self, hook: _Hook) -> bool:
        at_end = self.step >= self._last_step or (hook.on_stop and bool(self.stop_reason))
        return any(n > 0 and (at_end or self.step % n == 0) for n in hook.every)

    def _is_saved(self) -> bool:
        """Whether the current state is on disk, or none was trained: a process that ends loses nothing."""
        return self.step == self._saved and not self.setup.checkpoints.is_saving()

    def _roll_back(self, phase: types.Phase, reason: str) -> bool:
        """Replaces the state with that of the best checkpoint; returns whether it could."""
        state = self._guard.roll_back(phase, self.state, reason)
        if state is None:
            return False
        self.state = state
        self.progress.drop_pending()
        return True

    # ------------------------------------------------------------------ stopping

    def stop_if_out_of_time(self) -> None:
        """Stops a run that resumes after its last hour before it trains another step."""
        if self.step and self._is_out_of_time() and not self.stop_reason:
            self._set_stop_reason("hours")

    def _is_out_of_time(self) -> bool:
        budget = self.setup.settings.max_hours * 3600.0
        return _any_process(0.0 < budget <= self.progress.seconds())

    def _why_stop(self) -> str:
        """The reason to stop now, or "". Multiple processes agree on it once per log window."""
        settings = self.setup.settings
        if jax.process_count() > 1 and self.step % settings.log_every:
            return ""
        if _any_process(self.setup.writer.failure is not None):
            return "callback"
        if _any_process(self._stop.asked.is_set()):
            return "signal"
        return "hours" if self._is_out_of_time() else ""

    def _set_stop_reason(self, reason: str) -> None:
        self.stop_reason, self._stop.seen = reason, reason == "signal"

    def _last_checkpoint(self) -> str:
        """A phrase for error messages: the last checkpoint and its folder."""
        checkpoints = self.setup.checkpoints
        step = checkpoints.latest()
        last = "no checkpoint has been written yet" if step is None else f"the last checkpoint is step {step}"
        return f"{last} in {checkpoints.folder}"


def _resume(setup: TrainSetup) -> tuple[int, Any, float]:
    """Step, state and training seconds of the newest whole checkpoint; 0, None and 0.0 if there is none."""
    latest = setup.checkpoints.latest()
    if latest is None:
        return 0, None, 0.0
    newest_first = reversed(setup.checkpoints.steps())
    step, (state, seconds) = fallback.restore_first(setup.checkpoints, newest_first, setup.restore)
    check_step(setup, step)
    if step != latest:
        setup.writer.rewind(step, scored=step)
    return step, state, seconds


def _any_process(flag: bool) -> bool:
    """Whether `flag` is True in any process; all processes must call this at the same step."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


def _broadcast_from_first_process(hours: float) -> Any:
    """`hours` of the first process, in every process; [] float32."""
    value = np.float32(hours)
    return value if jax.process_count() == 1 else multihost_utils.broadcast_one_to_all(value)
