"""The training loop: phases of systems, jitted once each over a mesh of all devices.

Read downwards: the bookkeeping of a run, the loop. What it calls on the devices is in `program.py`.
The host reads the numbers of dispatch n only after dispatch n + 1 has been launched.
"""

import collections
import contextlib
import itertools
import logging
import math
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import tqdm
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from jaxdog import types
from jaxdog.config import schema
from jaxdog.data import batches, host_loader
from jaxdog.optim import optimizers
from jaxdog.systems import sampling
from jaxdog.training import checkpoint, train_step, writers
from jaxdog.utils import plots

log = logging.getLogger("jaxdog")

BACKS = 4  # times that one session goes back to its best


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what is saved."""


class NotFiniteError(TrainingError):
    """A number of a step is NaN or infinite."""


class Outcome(NamedTuple):
    """How training ended."""

    step: int
    state: Any
    seconds: float  # wall-clock of all sessions of the run
    reason: str  # "steps" | "hours" | "signal"


class Run(NamedTuple):
    """Everything the loop needs."""

    phases: Sequence[types.Phase]
    settings: schema.Loop
    checkpoint_every: int  # steps
    seed: int
    classes: int
    data: batches.Data  # on the devices, or with the host, and then streamed
    over: Mesh
    writer: writers.Writer
    checkpoints: checkpoint.Checkpoints
    evaluate: Callable[[types.Phase, Any, int], float] | None  # (phase, state, step) -> score
    evaluate_every: int  # steps, and after the last one; 0: never
    begin: Callable[[Any], Any] | None = None  # the first state -> the one to begin with
    deal_state: bool = False  # large arrays of the state are dealt out over the devices


def check(run: Run) -> None:
    """Raises ValueError where the settings contradict each other."""
    settings, k = run.settings, run.settings.steps_per_dispatch
    if k < 1:
        raise ValueError(f"train.steps_per_dispatch is {k}, and must be at least 1")
    counts = {f"train.{name}": getattr(settings, name) for name in ("log_every", "grid_every")}
    counts |= {"checkpoint.every": run.checkpoint_every, "evaluation interval": run.evaluate_every}
    counts |= {f"steps of phase {phase.name}": phase.steps for phase in run.phases}
    for name, count in counts.items():
        if count % k:
            raise ValueError(
                f"{name} is {count} steps, and must be a multiple of train.steps_per_dispatch = {k}; "
                f"the nearest are {count // k * k} and {(count // k + 1) * k}"
            )
    held = sum(x.nbytes for x in jax.tree.leaves(run.data)) / 1e9
    if _resident(run) and 0.0 < settings.memory_gb < held:
        raise ValueError(
            f"the crops alone take {held:.2f} GB, more than train.memory_gb = {settings.memory_gb}"
        )
    if settings.log_every < 1 or run.checkpoint_every < 1:
        raise ValueError("train.log_every and checkpoint.every must be at least 1")


class _Progress:
    """The numbers of the run so far: log windows, time, the progress bar."""

    def __init__(self, run: Run, step: int, seconds: float):
        self.run = run
        self.pending: collections.deque[tuple[int, types.Phase, Any]] = collections.deque()
        self.window: list[dict[str, float]] = []
        self.before = seconds  # of the sessions before this one
        self.begun = time.monotonic()
        self.busy = 0.0  # training seconds of this log window
        self.mark = self.begun
        self.backs = 0
        self.bar = tqdm.tqdm(
            total=sum(phase.steps for phase in run.phases),
            initial=step,
            unit="step",
            disable=None if jax.process_index() == 0 else True,
            dynamic_ncols=True,
            smoothing=0.1,
        )

    def seconds(self) -> float:
        return self.before + time.monotonic() - self.begun

    def pause(self) -> None:
        """Training time stops counting: what follows is evaluation, grids, files."""
        self.busy += time.monotonic() - self.mark

    def proceed(self) -> None:
        self.mark = time.monotonic()

    def read(self, keep: int) -> None:
        """Reads the oldest dispatches' numbers until `keep` are left in flight."""
        while len(self.pending) > keep:
            step, phase, scalars = self.pending.popleft()
            numbers = {name: float(np.mean(x)) for name, x in jax.device_get(scalars).items()}
            bad = sorted(name for name, x in numbers.items() if not math.isfinite(x))
            if bad:
                self._stop(step, bad)
            self.window.append(numbers)
            self.bar.update(self.run.settings.steps_per_dispatch)
            if step % self.run.settings.log_every == 0:
                self._log(step, phase)

    def _stop(self, step: int, bad: list[str]) -> None:
        first = step - self.run.settings.steps_per_dispatch + 1
        raise NotFiniteError(
            f"{', '.join(bad)} became NaN or infinite between steps {first} and {step}; {_saved(self.run)}. "
            "Lower the learning rates (optimizer.g, optimizer.d), or go on from there with another seed."
        )

    def _log(self, step: int, phase: types.Phase) -> None:
        self.pause()
        self.proceed()
        pictures = len(self.window) * self.run.settings.steps_per_dispatch * phase.batch_size
        rate = pictures / max(self.busy, 1e-9)
        mean = {name: float(np.mean([w[name] for w in self.window])) for name in self.window[0]}
        memory = {"memory_gb": memory_gb()}
        limit = self.run.settings.memory_gb
        if 0.0 < limit < memory["memory_gb"]:
            raise TrainingError(
                f"the run has taken {memory['memory_gb']:.2f} GB by step {step}, more than "
                f"train.memory_gb = {limit}; {_saved(self.run)}. Take a smaller batch, narrower networks or "
                "smaller stored crops (data.store_size)."
            )
        speed = {"images_per_second": rate, "seconds_per_kimg": 1000.0 / rate}
        kimg = {"kimg": train_step.images_at(self.run.phases, step) / 1000.0, "seconds": self.seconds()}
        self.run.writer.log(step, {**kimg, **speed, **memory, **mean})
        self.bar.set_postfix_str(
            f"{rate:.1f} img/s, {1000.0 / rate:.1f} s/kimg, {memory['memory_gb']:.1f} GB", refresh=False
        )
        self.window, self.busy = [], 0.0


def _saved(run: Run) -> str:
    good = run.checkpoints.latest()
    saved = "no checkpoint was written yet" if good is None else f"the last good checkpoint is step {good}"
    return f"{saved} in {run.checkpoints.folder}"


def memory_gb() -> float:
    """Peak bytes in use on the first device, or of this process where the device does not say, in GB."""
    stats = jax.local_devices()[0].memory_stats() or {}
    used = stats.get("peak_bytes_in_use") or 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 1e9


@contextlib.contextmanager
def _signals() -> Iterator[threading.Event]:
    """SIGTERM or Ctrl-C asks to stop after the running dispatch; a second Ctrl-C stops at once."""
    asked = threading.Event()

    def handle(number: int, frame: Any) -> None:
        del frame
        if asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _anywhere(flag: bool) -> bool:
    """Whether any host raises the flag; all hosts must ask at the same step."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


def _agreed(hours: float) -> Any:
    """The clock of the first host, for all; [] float32."""
    now = np.float32(hours)
    return now if jax.process_count() == 1 else multihost_utils.broadcast_one_to_all(now)


def train(run: Run) -> Outcome:
    """Trains until the steps or hours are done or a signal comes, resuming from the newest checkpoint."""
    check(run)
    step, state, seconds = _begin(run)
    progress = _Progress(run, step, seconds)
    reason, end, hours = "", 0, _agreed(seconds / 3600.0)
    total = sum(phase.steps for phase in run.phases)
    with _signals() as asked, progress.bar:
        for phase in run.phases:
            begin, end = end, end + phase.steps
            if step >= end or reason:
                continue
            k, streamed = run.settings.steps_per_dispatch, not _resident(run)
            functions = train_step.compiled(phase, run.seed, k, run.over, run.deal_state, streamed)
            if state is None:
                rows = next(_feed(run, phase, step, end))
                state = train_step.begun(functions, rows, hours, run.over, run.deal_state)
                state = state if run.begin is None else run.begin(state)
            elif step == begin and phase.enter is not None:
                state = train_step.entered(phase, state, run.over, run.deal_state)
            feed = _feed(run, phase, step, end)
            while step < end and not reason:
                if step % run.settings.log_every == 0:
                    hours = _agreed(progress.seconds() / 3600.0)
                state, scalars = functions.dispatch(state, next(feed), hours)
                step += k
                progress.pending.append((step, phase, scalars))
                try:
                    progress.read(keep=1)
                    reason = _reason(run, step, asked, progress)
                    last = step >= total or bool(reason)
                    state = _events(run, phase, functions, state, step, progress, last)
                except NotFiniteError as error:
                    state = _back(run, phase, state, progress, str(error))
                    if state is None:
                        raise
        progress.read(keep=0)
    run.checkpoints.wait()
    return Outcome(step, state, progress.seconds(), reason or "steps")


def _resident(run: Run) -> bool:
    return isinstance(run.data.image, jax.Array)


def _feed(run: Run, phase: types.Phase, step: int, end: int) -> Iterator[batches.Data]:
    """What each dispatch from `step` on is given: the set on the devices, or its own rows of it."""
    if _resident(run):
        return itertools.repeat(run.data)
    k, key = run.settings.steps_per_dispatch, train_step.key_for(run.seed, train_step.DATA)
    return host_loader.dispatches(run.data, key, range(step, end), k, phase.batch_size, run.over)


def _begin(run: Run) -> tuple[int, Any, float]:
    latest = run.checkpoints.latest()
    if latest is None:
        return 0, None, 0.0
    shape = run.data.image.shape[1:]
    state, record = train_step.restore(run.checkpoints, run.phases, latest, shape, run.over, run.deal_state)
    return latest, state, record["seconds"]


def _reason(run: Run, step: int, asked: threading.Event, progress: _Progress) -> str:
    """Why to stop now, or "". Hosts agree on it once per log window."""
    if jax.process_count() > 1 and step % run.settings.log_every:
        return ""
    if _anywhere(asked.is_set()):
        return "signal"
    budget = run.settings.max_hours * 3600.0
    return "hours" if _anywhere(0.0 < budget <= progress.seconds()) else ""


def _events(
    run: Run,
    phase: types.Phase,
    functions: train_step.Compiled,
    state: Any,
    step: int,
    progress: _Progress,
    last: bool,
) -> Any:
    """What is due at `step`: grid, evaluation, checkpoint. Their time is not training time.

    Returns the state to go on with: this one, or a better one of earlier.
    """
    settings = run.settings

    def due(every: int) -> bool:
        return every > 0 and step % every == 0

    end = step >= sum(phase.steps for phase in run.phases)  # what the whole run came to is scored, too
    evaluate = run.evaluate is not None and run.evaluate_every > 0 and (end or due(run.evaluate_every))
    if not (last or evaluate or due(settings.grid_every) or due(run.checkpoint_every)):
        return state
    progress.read(keep=0)  # a state whose numbers are not finite must not be saved
    progress.pause()
    if settings.grid_every and (last or due(settings.grid_every)):
        label = sampling.labels(
            settings.grid_images, run.classes, "balanced", train_step.key_for(run.seed, train_step.LABELS)
        )
        images = np.asarray(functions.grid(state, label))
        run.writer.image("grid", step, plots.grid(images, columns=10))
    score = None
    if evaluate and run.evaluate is not None:
        score = run.evaluate(phase, state, step)
        if _collapsed(run, score):
            why = f"the score of step {step}, {score:.3f}, is more than train.collapse times the best"
            better = _back(run, phase, state, progress, why)
            state, score = (state, score) if better is None else (better, None)
    if last or evaluate or due(run.checkpoint_every):
        run.checkpoints.save(step, state, {"seconds": progress.seconds()}, score)
    progress.proceed()
    return state


def _collapsed(run: Run, score: float) -> bool:
    """Whether the pictures are so much worse than the best that the run should go back."""
    if run.settings.collapse <= 0.0:
        return False
    run.checkpoints.wait()  # of one that is being written the score is not known yet
    best = run.checkpoints.best_score()
    return best is not None and score > run.settings.collapse * best


def _back(run: Run, phase: types.Phase, state: Any, progress: _Progress, why: str) -> Any:
    """The best checkpoint's state at half the rates of `state`; None where there is none to go back to."""
    run.checkpoints.wait()
    best = run.checkpoints.best() if run.checkpoints.best_score() is not None else None
    guarded = run.settings.collapse > 0.0 and progress.backs < BACKS
    if not guarded or best is None or run.phases[train_step.phase_at(run.phases, best)] is not phase:
        return None
    progress.backs += 1
    progress.pending.clear()
    log.warning("%s: back to step %d, at half the learning rates", why, best)
    shape = run.data.image.shape[1:]
    kept, _ = train_step.restore(run.checkpoints, run.phases, best, shape, run.over, run.deal_state)
    return optimizers.calmed(kept, state, 0.5)
