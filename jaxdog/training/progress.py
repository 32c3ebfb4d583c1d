"""Progress of a run: log lines, training time, memory and the progress bar; stops failing runs.

Scalars are read one execution late, so that the devices never wait for the host.
"""

import collections
import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
import tqdm

from jaxdog import sharding, types
from jaxdog.config import schema
from jaxdog.training import train_step, writers
from jaxdog.utils import errors, memory, progress

log = logging.getLogger("jaxdog")


class TrainingError(errors.UserError):
    """Training cannot continue; the message gives the reason and the last checkpoint."""


class NotFiniteError(TrainingError):
    """A scalar of a training step is NaN or infinite."""


class Progress:
    """Collects the scalars of training steps and writes a log line every `settings.log_every` steps.

    Args:
      phases: the phases of the run.
      settings: config.train.
      writer: writes log.jsonl and TensorBoard events.
      last_checkpoint: () -> a phrase for error messages, which names the last checkpoint.
      step: the step that this session starts from.
      seconds: training time of all earlier sessions.
    """

    def __init__(
        self,
        phases: Sequence[types.Phase],
        settings: schema.Train,
        writer: writers.Writer,
        last_checkpoint: Callable[[], str],
        step: int,
        seconds: float,
    ):
        self._phases, self._settings, self._writer = phases, settings, writer
        self._last_checkpoint = last_checkpoint
        self._pending: collections.deque[tuple[int, types.Phase, types.Scalars]] = collections.deque()
        self._window: list[dict[str, float]] = []  # means over each execution since the last log line
        self._seconds_before = seconds
        self._session_start = time.monotonic()
        self._busy = 0.0  # training seconds since the last log line
        self._mark = self._session_start  # when training last continued; earlier time is in `_busy`
        self.bar = tqdm.tqdm(
            total=sum(phase.steps for phase in phases),
            initial=step,
            unit="step",
            disable=None if jax.process_index() == 0 else True,  # None: without a terminal
            dynamic_ncols=True,
            smoothing=0.1,
        )
        self._first_step, self._next_line = step, self._session_start + progress.SECONDS

    def seconds(self) -> float:
        """Wall-clock time of all sessions, evaluations included."""
        return self._seconds_before + time.monotonic() - self._session_start

    def add(self, step: int, phase: types.Phase, scalars: types.Scalars) -> None:
        """Queues the scalars [k] of the execution that ended at `step`; they may not be computed yet."""
        self._pending.append((step, phase, scalars))

    def drop_pending(self) -> None:
        """Discards the scalars that were not read."""
        self._pending.clear()

    def read(self, keep: int) -> None:
        """Reads queued scalars until only `keep` executions are left.

        Raises NotFiniteError for NaN or infinite scalars, and TrainingError above the memory limit.
        """
        while len(self._pending) > keep:
            step, phase, scalars = self._pending.popleft()
            means = {name: float(np.mean(x)) for name, x in jax.device_get(scalars).items()}
            bad = sorted(name for name, x in means.items() if not math.isfinite(x))
            if bad:
                raise NotFiniteError(
                    f"{', '.join(bad)} became NaN or infinite between steps "
                    f"{step - self._settings.steps_per_execution + 1} and {step}; {self._last_checkpoint()}. "
                    "With --config.train.rollback_ratio=2 the same command continues from that with "
                    "the best score, at half the learning rates. Lower ones from the start, or another seed "
                    "(config.optimizer, config.seed), make another run: give it a --workdir of its own."
                )
            self._window.append(means)
            self.bar.update(self._settings.steps_per_execution)
            if self.bar.disable and jax.process_index() == 0 and time.monotonic() >= self._next_line:
                self._write_line(step)
            if step % self._settings.log_every == 0:
                self._log(step, phase)

    def _write_line(self, step: int) -> None:
        """A line in place of the progress bar: the step, and about how long training will take."""
        now, total = time.monotonic(), sum(phase.steps for phase in self._phases)
        left = (total - step) * (now - self._session_start) / max(step - self._first_step, 1)
        if self._settings.max_hours:
            left = min(left, max(3600.0 * self._settings.max_hours - self.seconds(), 0.0))
        size, unit = (3600.0, "hours") if left > 5_400.0 else (60.0, "minutes")
        log.info("step %s of %s, about %.3g %s left", f"{step:,}", f"{total:,}", left / size, unit)
        self._next_line = now + progress.SECONDS

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Excludes the time inside (evaluation, grids, checkpoints) from the training speed."""
        self._lap()
        try:
            yield
        finally:
            self._mark = time.monotonic()

    def _lap(self) -> None:
        now = time.monotonic()
        self._busy, self._mark = self._busy + now - self._mark, now

    def _log(self, step: int, phase: types.Phase) -> None:
        self._lap()
        images = len(self._window) * self._settings.steps_per_execution * phase.batch_size
        rate = images / max(self._busy, 1e-9)
        used, limit = peak_memory_gb(), self._settings.memory_gb
        if limit > 0.0 and not sharding.all_processes_agree(used <= limit):
            raise TrainingError(
                f"the run has used {used:.2f} GB by step {step}, more than train.memory_gb = {limit}; "
                f"{self._last_checkpoint()}. Raise the limit; or start another run, in a --workdir of its "
                "own, with a smaller batch, narrower networks or smaller crops (data.stored_resolution)."
            )
        self._writer.log(
            step,
            {
                "kimg": train_step.images_at(self._phases, step) / 1000.0,
                "seconds": self.seconds(),
                "images_per_second": rate,
                "seconds_per_kimg": 1000.0 / rate,
                "memory_gb": used,
                **_means(self._window),
            },
        )
        self.bar.set_postfix_str(
            f"{rate:.1f} img/s, {1000.0 / rate:.1f} s/kimg, {used:.1f} GB", refresh=False
        )
        self._window, self._busy = [], 0.0


def _means(window: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of each scalar over the executions that have it; those of another phase may have others."""
    names = dict.fromkeys(name for means in window for name in means)
    return {name: float(np.mean([means[name] for means in window if name in means])) for name in names}


def peak_memory_gb() -> float:
    """Peak memory of the first device in GB; of this process if the device does not report its own."""
    stats = jax.local_devices()[0].memory_stats() or {}
    used = stats.get("peak_bytes_in_use") or memory.peak_bytes()
    return used / 1e9
