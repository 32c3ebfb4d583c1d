"""Restores the best checkpoint when training has collapsed (config.train.rollback_ratio)."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from jaxdog import types
from jaxdog.optim import optimizers
from jaxdog.training import checkpoint, train_step

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
        """Whether `score` is more than `ratio` times the best."""
        if self._ratio <= 0.0:
            return False
        self._checkpoints.wait()  # the score of a checkpoint is known once it is written
        best = self._checkpoints.best_score()
        return best is not None and score > self._ratio * best

    def roll_back(self, phase: types.Phase, state: Any, reason: str) -> Any | None:
        """The state to continue from in place of `state`; None if no rollback is possible."""
        self._checkpoints.wait()
        best = self._checkpoints.best() if self._checkpoints.best_score() is not None else None
        allowed = self._ratio > 0.0 and self._rollbacks < MAX_ROLLBACKS
        if not allowed or best is None or self._phases[train_step.phase_at(self._phases, best)] is not phase:
            return None
        self._rollbacks += 1
        log.warning("%s: rolling back to step %d at half the learning rates", reason, best)
        return optimizers.rollback_state(self._restore(best), state, 0.5)
