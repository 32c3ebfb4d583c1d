"""The newest, or best, checkpoint that can be read, where others are damaged."""

import logging
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from jaxdog import sharding
from jaxdog.training import checkpoint

log = logging.getLogger("jaxdog")

T = TypeVar("T")


def restore_first(
    checkpoints: checkpoint.Checkpoints, steps: Iterable[int], restore: Callable[[int], T]
) -> tuple[int, T]:
    """The first of `steps` whose checkpoint can be read, and what `restore` returns for it.

    Those before it are set aside, with a warning. Raises the first CheckpointError if none can be read.
    """
    failed: dict[int, checkpoint.CheckpointError] = {}
    for step in steps:
        problem: Exception | None = None
        restored: Any = None
        try:
            restored = restore(step)
        except Exception as error:
            problem = error
        is_damage = isinstance(problem, checkpoint.CheckpointError)
        elsewhere = checkpoint.CheckpointError(f"another process cannot read the checkpoint of step {step}")
        if not sharding.all_processes_agree(problem is None or is_damage):
            raise problem or elsewhere
        if not sharding.all_processes_agree(problem is None):
            failed[step] = problem if isinstance(problem, checkpoint.CheckpointError) else elsewhere
            continue
        for damaged, error in failed.items():
            reason = " ".join(str(error.__cause__ or error).split())[:300]
            log.warning(
                "The checkpoint of step %d is damaged (%s); that of step %d is used instead. The damaged one "
                "is now %s.", damaged, reason, step, checkpoints.set_aside(damaged),
            )  # fmt: skip
        return step, restored
    raise next(iter(failed.values()))
