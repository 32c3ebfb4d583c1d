"""The training loop: trains the phases in order and runs periodic hooks.

    train           phases -> executions of k steps -> hooks
    _Session.hooks  sample grid, evaluation (with rollback) and checkpoint, each at its own interval
    train_step.py   batch i, and `system.step` compiled (gradients, optimizer, EMA: `systems`)
    rollback.py     restores the best checkpoint after a collapse
    progress.py     log lines and training time
    writers.py      passes log lines, images and checkpoints to files and callbacks
    checkpoint.py   saves and restores the state

The host reads the scalars of an execution only after it has launched the next one.
"""

import contextlib
import itertools
import signal
import threading
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
from jaxdog.training import checkpoint, progress, rollback, train_step, writers
from jaxdog.utils import errors, plots


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

    def restore(self, step: int) -> tuple[Any, checkpoint.Record]:
        """State and record of the checkpoint at `step`."""
        shape = self.data.image.shape[1:]
        return train_step.restore(self.checkpoints, self.phases, step, shape, self.mesh, self.fsdp)


class TrainResult(NamedTuple):
    """How training ended."""

    step: int
    state: Any
    seconds: float  # wall-clock time of all sessions of the run
    reason: str  # "steps" | "hours" | "signal" | "callback" (failed in process 0)


def train(setup: TrainSetup) -> TrainResult:
    """Trains until the step or time limit, or a signal; resumes from the newest checkpoint.

    Raises the exception of a callback once the checkpoint is on disk.
    """
    check(setup)
    stop_signal = threading.Event()
    session = _Session(setup, stop_signal)
    with _set_on_signals(stop_signal), session.progress.bar:
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
    size = sum(x.nbytes for x in jax.tree.leaves(setup.data)) / 1e9
    if not setup.streamed() and 0.0 < settings.memory_gb < size:
        raise errors.UserError(
            f"the crops alone take {size:.2f} GB, more than train.memory_gb = {settings.memory_gb}"
        )


class _Hook(NamedTuple):
    """An action between two executions."""

    action: Callable[[], None]
    every: tuple[int, ...]  # runs at multiples of any of these steps; 0: never
    on_stop: bool  # also runs when the session stops early; at the last step every enabled hook runs


class _Session:
    """Training in one process, from the newest checkpoint or from scratch."""

    def __init__(self, setup: TrainSetup, stop_signal: threading.Event):
        self.setup = setup
        self.step, self.state, seconds = _resume(setup)
        self.stop_reason = ""  # that of TrainResult once training should stop early
        self._stop_signal = stop_signal
        self._last_step = sum(phase.steps for phase in setup.phases)
        self._hours = _broadcast_from_first_process(seconds / 3600.0)
        self._score: float | None = None  # the current state's, if it was just evaluated
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
        data, hooks = self._data(phase, end), self.hooks(phase, functions)
        while self.step < end and not self.stop_reason:
            if self.step % setup.settings.log_every == 0:
                self._hours = _broadcast_from_first_process(self.progress.seconds() / 3600.0)
            self.state, scalars = functions.train_steps(self.state, next(data), self._hours)
            self.step += k
            self.progress.add(self.step, phase, scalars)
            try:
                self.progress.read(keep=1)
                self.report_checkpoint()
                self.stop_reason = self._why_stop()
                self._run_hooks(hooks)
            except progress.NotFiniteError as error:
                if not self._roll_back(phase, str(error)):
                    raise

    def _data(self, phase: types.Phase, end: int) -> Iterator[batches.Data]:
        """The input of each execution: the whole training set, or the rows of its batches if streamed."""
        setup = self.setup
        if not setup.streamed():
            return itertools.repeat(setup.data)
        key, steps = train_step.key_for(setup.seed, train_step.DATA), range(self.step, end)
        k = setup.settings.steps_per_execution
        return host_loader.prefetch(setup.data, key, steps, k, phase.batch_size, setup.mesh)

    # ------------------------------------------------------------------ hooks

    def hooks(self, phase: types.Phase, functions: train_step.CompiledPhase) -> tuple[_Hook, ...]:
        """The hooks of a phase, in the order in which they run."""
        setup = self.setup
        evaluate_every = 0 if setup.evaluate is None else setup.evaluate_every

        def write_grid() -> None:
            key = train_step.key_for(setup.seed, train_step.LABELS)
            label = sampling.labels(setup.settings.grid_images, setup.classes, "balanced", key)
            images = np.asarray(functions.sample_grid(self.state, label))
            setup.writer.image("grid", self.step, plots.grid(images, columns=10))

        def evaluate() -> None:
            assert setup.evaluate is not None
            self._score = setup.evaluate(phase, self.state, self.step)
            if self._guard.collapsed(self._score):
                ratio = f"more than train.rollback_ratio = {setup.settings.rollback_ratio:g} times the best"
                if self._roll_back(phase, f"the score of step {self.step}, {self._score:.3f}, is {ratio}"):
                    self._score = None  # the score belongs to the discarded state

        def save_checkpoint() -> None:
            record = {"seconds": self.progress.seconds()}
            self.report_checkpoint(wait=True)
            setup.checkpoints.save(self.step, self.state, record, self._score)
            self._unreported = self.step

        return (
            _Hook(write_grid, (setup.settings.grid_every,), on_stop=True),
            _Hook(evaluate, (evaluate_every,), on_stop=False),
            _Hook(save_checkpoint, (setup.checkpoint_every, evaluate_every), on_stop=True),
        )

    def _run_hooks(self, hooks: Sequence[_Hook]) -> None:
        due = [hook for hook in hooks if self._is_due(hook)]
        if not due:
            return
        self.progress.read(keep=0)  # raises NotFiniteError before such a state is saved
        self._score = None
        with self.progress.paused():
            for hook in due:
                hook.action()

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

    def _roll_back(self, phase: types.Phase, reason: str) -> bool:
        """Replaces the state with that of the best checkpoint; returns whether it could."""
        state = self._guard.roll_back(phase, self.state, reason)
        if state is None:
            return False
        self.state = state
        self.progress.drop_pending()
        return True

    # ------------------------------------------------------------------ stopping

    def _why_stop(self) -> str:
        """The reason to stop now, or "". Multiple processes agree on it once per log window."""
        settings = self.setup.settings
        if jax.process_count() > 1 and self.step % settings.log_every:
            return ""
        if _any_process(self.setup.writer.failure is not None):
            return "callback"
        if _any_process(self._stop_signal.is_set()):
            return "signal"
        budget = settings.max_hours * 3600.0
        return "hours" if _any_process(0.0 < budget <= self.progress.seconds()) else ""

    def _last_checkpoint(self) -> str:
        """A phrase for error messages: the last checkpoint and its folder."""
        checkpoints = self.setup.checkpoints
        step = checkpoints.latest()
        last = "no checkpoint has been written yet" if step is None else f"the last checkpoint is step {step}"
        return f"{last} in {checkpoints.folder}"


def _resume(setup: TrainSetup) -> tuple[int, Any, float]:
    """Step, state and training seconds of the newest checkpoint; 0, None and 0.0 if there is none."""
    step = setup.checkpoints.latest()
    if step is None:
        return 0, None, 0.0
    state, record = setup.restore(step)
    return step, state, record["seconds"]


@contextlib.contextmanager
def _set_on_signals(event: threading.Event) -> Iterator[None]:
    """SIGTERM or Ctrl-C sets the event; a second Ctrl-C raises KeyboardInterrupt."""

    def handle(number: int, frame: Any) -> None:
        del frame
        if event.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        event.set()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _any_process(flag: bool) -> bool:
    """Whether `flag` is True in any process; all processes must call this at the same step."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


def _broadcast_from_first_process(hours: float) -> Any:
    """`hours` of the first process, in every process; [] float32."""
    value = np.float32(hours)
    return value if jax.process_count() == 1 else multihost_utils.broadcast_one_to_all(value)
