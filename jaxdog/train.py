"""The training loop: phases of systems, jitted once each over a mesh of all devices.

Read downwards: the compiled functions of one phase, the bookkeeping of a run, the loop.
The host reads the numbers of dispatch n only after dispatch n + 1 has been launched.
"""

import collections
import contextlib
import logging
import math
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from jaxdog import checkpoint, devices, optim, plots, sampling, sections, system, writers
from jaxdog.data import batches

log = logging.getLogger("jaxdog")

BACKS = 4  # times that one session goes back to its best

# What each use of a run's one seed folds into its key.
INIT, DATA, STEP, EVALUATE, GRID, SUBMIT, LABELS, RECONSTRUCT = range(8)


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


def key_for(seed: int, use: int) -> system.Key:
    """The key of one use (INIT, DATA, ...) of a run's seed."""
    return jax.random.fold_in(jax.random.key(seed), use)


class Compiled(NamedTuple):
    """The jitted functions of one phase; what takes a state donates it, but for `grid`."""

    init: Callable[[batches.Data], Any]
    dispatch: Any  # (state, data, hours) -> (state, scalars [k]): k steps; jitted
    grid: Callable[[Any, system.Array], system.Array]  # (state, label [n]) -> [n, h, w, c] uint8


def compiled(phase: system.Phase, seed: int, steps_per_dispatch: int, over: Mesh) -> Compiled:
    """Jits a phase over the mesh: state replicated, batches sharded along `data`."""
    if phase.batch_size % over.size:
        raise ValueError(
            f"a step's {phase.batch_size} pictures cannot be shared out over {over.size} devices; "
            f"make game.batch_size a multiple of {over.size}"
        )
    everywhere, sharded = devices.everywhere(over), devices.by_rows(over)

    def batch(data: batches.Data, step: system.Array, hours: system.Array | float) -> system.Batch:
        batch = batches.batch(data, key_for(seed, DATA), step, phase.batch_size, hours)
        return jax.lax.with_sharding_constraint(batch, sharded)

    # Made inside jit: every leaf is its own buffer and can be donated.
    @partial(jax.jit, out_shardings=everywhere)
    def init(data: batches.Data) -> Any:
        return phase.system.init(key_for(seed, INIT), batch(data, jnp.zeros((), jnp.int32), 0.0))

    # The old state's memory is reused for the new one; k steps per call hide the host.
    @partial(jax.jit, donate_argnums=0, out_shardings=(everywhere, everywhere))
    def dispatch(state: Any, data: batches.Data, hours: system.Array | float) -> tuple[Any, system.Scalars]:
        def one(state: Any, _: None) -> tuple[Any, system.Scalars]:
            return phase.system.step(state, batch(data, state.step, hours), key_for(seed, STEP))

        return jax.lax.scan(one, state, length=steps_per_dispatch)

    @partial(jax.jit, out_shardings=everywhere)
    def grid(state: Any, label: system.Array) -> system.Array:
        keys = sampling.image_keys(key_for(seed, GRID), label.shape[0])
        return sampling.to_uint8(phase.system.sample(state, keys, label))

    return Compiled(init, dispatch, grid)


def entered(phase: system.Phase, state: Any, over: Mesh) -> Any:
    """The first state of a phase that is not the first, from the last state of the one before."""
    assert phase.enter is not None
    # What a phase adds is on all devices, as the rest is.
    return jax.jit(phase.enter, donate_argnums=0, out_shardings=devices.everywhere(over))(state)


class Run(NamedTuple):
    """Everything the loop needs."""

    phases: Sequence[system.Phase]
    settings: sections.Loop
    checkpoint_every: int  # steps
    seed: int
    classes: int
    data: batches.Data  # on the devices
    over: Mesh
    writer: writers.Writer
    checkpoints: checkpoint.Checkpoints
    evaluate: Callable[[system.Phase, Any, int], float] | None  # (phase, state, step) -> score
    evaluate_every: int  # steps; 0: never
    begin: Callable[[Any], Any] | None = None  # the first state -> the one to begin with


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
    if 0.0 < settings.memory_gb < held:
        raise ValueError(
            f"the crops alone take {held:.2f} GB, more than train.memory_gb = {settings.memory_gb}"
        )
    if settings.log_every < 1 or run.checkpoint_every < 1:
        raise ValueError("train.log_every and checkpoint.every must be at least 1")


def phase_at(phases: Sequence[system.Phase], step: int) -> int:
    """Which phase the state of `step` belongs to: the one that made it; the first for step 0."""
    ends = np.cumsum([phase.steps for phase in phases])
    return min(int(np.searchsorted(ends, step, side="left")), len(phases) - 1)


def restore(
    checkpoints: checkpoint.Checkpoints,
    phases: Sequence[system.Phase],
    step: int,
    shape: tuple[int, ...],
    over: Mesh,
) -> tuple[Any, checkpoint.Record]:
    """State and record of the checkpoint at `step`, on all devices; `shape` is a picture's, (h, w, c)."""
    phase = phases[phase_at(phases, step)]

    def init() -> Any:
        data = batches.resident(jnp.zeros((1, *shape), jnp.uint8), jnp.zeros(1, jnp.int32))
        return phase.system.init(
            jax.random.key(0), batches.batch(data, jax.random.key(0), 0, phase.batch_size)
        )

    state = jax.eval_shape(init)
    return checkpoints.restore(step, state, devices.everywhere(over))


class _Progress:
    """The numbers of the run so far: log windows, time, the progress bar."""

    def __init__(self, run: Run, step: int, seconds: float):
        self.run = run
        self.pending: collections.deque[tuple[int, system.Phase, Any]] = collections.deque()
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

    def _log(self, step: int, phase: system.Phase) -> None:
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
        kimg = {"kimg": images_at(self.run.phases, step) / 1000.0, "seconds": self.seconds()}
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


def images_at(phases: Sequence[system.Phase], step: int) -> int:
    """Real pictures seen after `step` steps."""
    seen = 0
    for phase in phases:
        done = min(step, phase.steps)
        seen += done * phase.batch_size
        step -= done
    return seen


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
            functions = compiled(phase, run.seed, run.settings.steps_per_dispatch, run.over)
            if state is None:
                state = functions.init(run.data)
                state = state if run.begin is None else run.begin(state)
            elif step == begin and phase.enter is not None:
                state = entered(phase, state, run.over)
            while step < end and not reason:
                if step % run.settings.log_every == 0:
                    hours = _agreed(progress.seconds() / 3600.0)
                state, scalars = functions.dispatch(state, run.data, hours)
                step += run.settings.steps_per_dispatch
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


def _begin(run: Run) -> tuple[int, Any, float]:
    latest = run.checkpoints.latest()
    if latest is None:
        return 0, None, 0.0
    shape = run.data.image.shape[1:]
    state, record = restore(run.checkpoints, run.phases, latest, shape, run.over)
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
    phase: system.Phase,
    functions: Compiled,
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

    evaluate = run.evaluate is not None and due(run.evaluate_every)
    if not (last or evaluate or due(settings.grid_every) or due(run.checkpoint_every)):
        return state
    progress.read(keep=0)  # a state whose numbers are not finite must not be saved
    progress.pause()
    if settings.grid_every and (last or due(settings.grid_every)):
        label = sampling.labels(settings.grid_images, run.classes, "balanced", key_for(run.seed, LABELS))
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


def _back(run: Run, phase: system.Phase, state: Any, progress: _Progress, why: str) -> Any:
    """The best checkpoint's state at half the rates of `state`; None where there is none to go back to."""
    run.checkpoints.wait()
    best = run.checkpoints.best() if run.checkpoints.best_score() is not None else None
    guarded = run.settings.collapse > 0.0 and progress.backs < BACKS
    if not guarded or best is None or run.phases[phase_at(run.phases, best)] is not phase:
        return None
    progress.backs += 1
    progress.pending.clear()
    log.warning("%s: back to step %d, at half the learning rates", why, best)
    kept, _ = restore(run.checkpoints, run.phases, best, run.data.image.shape[1:], run.over)
    return optim.calmed(kept, state, 0.5)
