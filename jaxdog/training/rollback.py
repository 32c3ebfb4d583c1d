"""Restores the best checkpoint when training has collapsed (config.train.rollback_ratio)."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from jaxdog import types
from jaxdog.optim import optimizers
from jaxdog.training import checkpoint, fallback, train_step

log = logging.getLogger("jaxdog")

MAX_ROLLBACKS = 4  # per session


class RollbackGuard:
    """Rolls back to the best checkpoint, at half the current learning rates.

    Weights, optimizer state and EMA are those of the checkpoint. The step count continues, and with it the
    order of the images and the schedules. Scores of different phases are not compared: the best checkpoint
    must belong to the current phase.

    Args:
      ratio: a score above `ratio` times the best counts as a collapse (lower is better); 0: never roll back.
      checkpoints: the checkpoints of the run.
      phases: the phases of the run.
      restore: step -> the state of that checkpoint.
    """

    def __init__(
        self,
        ratio: float,
        checkpoints: checkpoint.Checkpoints,
        phases: Sequence[types.Phase],
        restore: Callable[[int], Any],
    ):
        self._ratio, self._checkpoints, self._phases, self._restore = ratio, checkpoints, phases, restore
        self._rollbacks = 0

    def collapsed(self, score: float) -> bool:
        """Whether `score` is more than `ratio` times the best, or not finite."""
        best = self._checkpoints.best_score()
        return self._ratio > 0.0 and best is not None and checkpoint.sort_key(score) > self._ratio * best

    def roll_back(self, phase: types.Phase, state: Any, reason: str) -> Any | None:
        """The state to continue from in place of `state`; None if no rollback is possible."""
        self._checkpoints.wait()
        ranked, allowed = self._checkpoints.ranked(), self._ratio > 0.0 and self._rollbacks < MAX_ROLLBACKS
        of_phase = [i for i in ranked if self._phases[train_step.phase_at(self._phases, i)] is phase]
        if not allowed or not of_phase or of_phase[0] != ranked[0]:
            return None
        best, restored = fallback.restore_first(self._checkpoints, of_phase, self._restore)
        self._rollbacks += 1
        log.warning("%s: rolling back to step %d at half the learning rates", reason, best)
        return optimizers.rollback_state(restored, state, 0.5)
