"""Checkpoints of a run, written asynchronously and atomically; the newest and the best-scoring are kept.

`<workdir>/checkpoints/<step>/` holds

    state    every array of the system's state: the step count; for each player (g, d, ...) its parameters,
             batch statistics and spectral-norm vectors, optimizer state and regularizer state; the EMA and
             any further EMAs. Training needs nothing else: random keys and the order of the images are
             functions of the run's seed and the step.
    record   JSON: {"seconds": the training time of the run so far}, with digests of the state's arrays and
             of the record itself, which are checked when it is read
    metrics  JSON: {metric: score} once this step was evaluated, with a digest; null: not finite

A checkpoint is on the disk, not only in its cache, before its folder gets its name and others are deleted.

On the same devices, a resumed run is bit-identical to an uninterrupted one, except on GPUs without
--deterministic and with settings that depend on wall-clock time (wallclock_cosine, train.max_hours).
"""

import itertools
import json
import logging
import math
import pathlib
import shutil
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_utils, type_handlers

from jaxdog import sharding
from jaxdog.evaluation import sampling_state
from jaxdog.training import digests
from jaxdog.utils import errors, files, lock

log = logging.getLogger("jaxdog")

Record = dict[str, Any]
T = TypeVar("T")

RECORD, METRICS = "record/metadata", "metrics/metrics"  # in the folder of a checkpoint
ARRAYS = "arrays"  # the entry of a record with the digests of the arrays
DAMAGED = ".damaged"  # at the end of the name of a folder that was set aside
# Warnings of Orbax about what is done here on purpose: arrays of our own type.
EXPECTED = "Type handler registry type"
logging.getLogger("absl").addFilter(lambda line: not line.getMessage().startswith(EXPECTED))


class CheckpointError(errors.UserError):
    """A checkpoint could not be written or read; the message says what to do."""


def sort_key(score: float | None) -> float:
    """A score by which a lower one is better, to be compared: one that is not finite is the worst."""
    return score if score is not None and math.isfinite(score) else math.inf


def restore_first(
    checkpoints: "Checkpoints", steps: Iterable[int], restore: Callable[[int], T]
) -> tuple[int, T]:
    """The first of `steps` whose checkpoint can be read, and what `restore` returns for it.

    Those before it are set aside, with a warning. Raises the first CheckpointError if none can be read.
    """
    failed: dict[int, CheckpointError] = {}
    for step in steps:
        try:
            restored = restore(step)
        except CheckpointError as error:
            failed[step] = error
            continue
        for damaged, error in failed.items():
            reason = " ".join(str(error.__cause__ or error).split())[:300]
            log.warning(
                "The checkpoint of step %d is damaged (%s); that of step %d is used instead. The damaged one "
                "is now %s, which can be deleted.", damaged, reason, step, checkpoints.set_aside(damaged),
            )  # fmt: skip
        return step, restored
    raise next(iter(failed.values()))


class _Manager(ocp.CheckpointManager):
    """Orbax's manager without its scores, one damaged file of which would hide all checkpoints."""

    def metrics(self, step: int) -> None:
        return None


class Checkpoints:
    """The checkpoints of one folder.

    Args:
      folder: where they are stored; created if missing.
      keep_last: number of newest checkpoints to keep.
      keep_best: number of checkpoints with the lowest finite `metric` to keep in addition.
      metric: name of the score; lower is better.
      read_only: if True, nothing is written or deleted.
    """

    def __init__(
        self, folder: pathlib.Path, keep_last: int, keep_best: int, metric: str, read_only: bool = False
    ):
        self.folder = folder.absolute()
        self.metric = metric
        # One process writes each replicated array. Sharing the work would compile one slice per array shape.
        handler = type_handlers.ArrayHandler(use_replica_parallel=False)
        type_handlers.register_type_handler(jax.Array, handler, override=True)
        self._keep_last, self._keep_best = keep_last, keep_best
        self._manager = _Manager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=self,
                enable_async_checkpointing=True,
                async_options=ocp.AsyncOptions(post_finalization_callback=self._sync),
                cleanup_tmp_directories=not read_only,
                read_only=read_only,
            ),
        )
        scores = {step: self._read_score(step) for step in self.steps()}
        self._scores = {step: score for step, score in scores.items() if score is not None}

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Which checkpoints are kept, as Orbax asks for it: the newest and the best."""
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = {*steps[len(steps) - self._keep_last :], *self.ranked()[: self._keep_best]}
        return [step in kept for step in steps]

    def ranked(self) -> list[int]:
        """The steps of the checkpoints with a finite score, best first."""
        scored = sorted((score, step) for step, score in self._scores.items() if math.isfinite(score))
        return [step for _, step in scored if step in self.steps()]

    def _sync(self) -> None:
        """Flushes a checkpoint to the disk; Orbax calls this before it gives the folder its name."""
        for unfinished in self.folder.glob("*.orbax-checkpoint-tmp*"):
            files.sync(unfinished)

    def steps(self) -> list[int]:
        """The steps of all complete checkpoints, in order."""
        return sorted(self._manager.all_steps())

    def latest(self) -> int | None:
        """The step of the newest complete checkpoint; None if there is none."""
        return self._manager.latest_step()

    def best(self) -> int | None:
        """The step of the checkpoint with the lowest finite score; the newest if none has one."""
        ranked = self.ranked()
        return ranked[0] if ranked else self.latest()

    def best_score(self) -> float | None:
        """The lowest finite score of the checkpoints that are kept; None if none has one."""
        ranked = self.ranked()
        return self._scores[ranked[0]] if ranked else None

    def score(self, step: int) -> float | None:
        """The score of a checkpoint, which may be NaN; None if it was not evaluated."""
        return self._scores.get(step)

    def set_score(self, step: int, score: float) -> None:
        """Adds the score of the checkpoint at `step`; waits until that is on disk. Raises CheckpointError."""
        self.wait()
        lock.check()
        self._scores[step] = float(score)
        if jax.process_index() == 0:
            value = float(score) if math.isfinite(score) else None
            try:
                files.write_text(self.path(step) / METRICS, digests.seal({self.metric: value}))
            except OSError as error:
                raise CheckpointError(self._not_written(step, str(error))) from error

    def _read_score(self, step: int) -> float | None:
        path = self.path(step) / METRICS
        try:
            values = digests.unseal(path.read_text(encoding="utf-8"))
            if self.metric not in values:
                return None
            return math.nan if values[self.metric] is None else float(values[self.metric])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            log.warning("%s is damaged (%s): the checkpoint of step %d has no score", path, error, step)
            return None

    def save(self, step: int, state: Any, record: Record) -> None:
        """Starts to write `state` at `step`; returns once the arrays are copied to the host.

        Raises CheckpointError if the disk has too little space, or an earlier write failed, and UserError if
        another process has taken the folder over.
        """
        lock.check()
        needed = sum(x.nbytes for x in jax.tree.leaves(state))
        free = shutil.disk_usage(self.folder).free
        if free < 1.1 * needed:
            raise CheckpointError(
                self._not_written(step, f"it needs {needed / 1e6:.1f} MB, {free / 1e6:.1f} MB are free")
            )
        if jax.process_index() == 0:  # which writes the record
            record = json.loads(digests.seal({**record, ARRAYS: digests.of_arrays(state)}))
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), record=ocp.args.JsonSave(record))
        try:
            self._manager.save(step, args=args, force=True)
        except (OSError, ValueError) as error:
            raise CheckpointError(self._not_written(step, str(error))) from error

    def path(self, step: int) -> pathlib.Path:
        """The folder of the checkpoint at `step`."""
        return self.folder / str(step)

    def is_complete(self, step: int) -> bool:
        """Whether the checkpoint at `step` is on disk; does not wait for it."""
        return not self.is_saving() and self.path(step).is_dir()

    def is_saving(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._manager.is_saving_in_progress()

    def wait(self) -> None:
        """Waits until all checkpoints are on disk; raises CheckpointError if one could not be written."""
        try:
            self._manager.wait_until_finished()
        except (OSError, ValueError) as error:
            raise CheckpointError(self._not_written(None, str(error))) from error

    def restore(self, step: int, shapes: Any, shardings: Any) -> tuple[Any, Record]:
        """State and record at `step`.

        Args:
          step: the step of a checkpoint.
          shapes: shapes and dtypes of the state's arrays, from jax.eval_shape.
          shardings: the sharding of each array; the checkpoint may have been written on other devices.

        Raises CheckpointError if the checkpoint is damaged or belongs to another model.
        """
        target = jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes, shardings
        )
        try:
            record = self._record(step)
            args = ocp.args.Composite(state=ocp.args.StandardRestore(target))
            state = self._manager.restore(step, args=args)["state"]
            digests.check_arrays(record.pop(ARRAYS, {}), state)
        except Exception as error:  # Orbax and TensorStore raise many types of exceptions
            raise CheckpointError(self._not_readable(step, error)) from error
        return state, record

    def restore_arrays(
        self, step: int, shapes: Any, shardings: Any, read: Collection[str]
    ) -> dict[str, jax.Array]:
        """The arrays of the state at `step` whose names are in `read`; see `sampling_state.names`.

        Other arrays are not read from disk. The rest is as in `restore`.
        """
        target = jax.tree.map(
            lambda name, x, sharding: (
                jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding) if name in read else ocp.PLACEHOLDER
            ),
            sampling_state.names(shapes),
            shapes,
            shardings,
        )
        args = ocp.args.PyTreeRestore(target, checkpoint_utils.construct_restore_args(target))
        try:
            # The manager's own reader cannot leave arrays out.
            with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
                state = reader.restore(self.path(step) / "state", args=args)
            arrays = sampling_state.read_arrays(state, read)
            digests.check_arrays(self._record(step).get(ARRAYS, {}), arrays)
        except Exception as error:  # Orbax and TensorStore raise many types of exceptions
            raise CheckpointError(self._not_readable(step, error)) from error
        return arrays

    def load_arrays(self, step: int) -> dict[str, Any]:
        """The state at `step` as nested dicts of host arrays, for any model.

        Raises CheckpointError if the checkpoint is damaged.
        """
        try:
            args = ocp.args.Composite(state=ocp.args.StandardRestore())
            state = jax.device_get(self._manager.restore(step, args=args)["state"])
            digests.check_arrays(self._record(step).get(ARRAYS, {}), state)
            return state
        except Exception as error:  # Orbax and TensorStore raise many types of exceptions
            raise CheckpointError(self._not_readable(step, error)) from error

    def _record(self, step: int) -> Record:
        return digests.unseal((self.path(step) / RECORD).read_text(encoding="utf-8"))

    def set_aside(self, step: int) -> pathlib.Path:
        """Renames the folder of a damaged checkpoint, so that it is none; returns the new path."""
        path = self.path(step)
        aside = next(
            new
            for i in itertools.count()
            if not (new := path.with_name(f"{step}{DAMAGED}{i or ''}")).exists()
        )
        if jax.process_index() == 0:
            path.rename(aside)
        sharding.all_processes_agree(True)  # waits until it is renamed
        self._scores.pop(step, None)
        self._manager.reload()
        return aside

    def close(self) -> None:
        """Waits for all writes and stops the threads."""
        self.wait()
        self._manager.close()

    def _not_written(self, step: int | None, reason: str) -> str:
        latest = self.latest()
        kept = "there is no earlier one" if latest is None else f"the checkpoint of step {latest} is complete"
        name = "a checkpoint" if step is None else f"the checkpoint of step {step}"
        return (
            f"{name} could not be written to {self.folder}: {reason}. Nothing else is lost: {kept}. Free "
            "some space (or lower checkpoint.keep_last and keep_best) and rerun the command to resume."
        )

    def _not_readable(self, step: int, error: Exception) -> str:
        others = [i for i in self.steps() if i != step]
        advice = (
            f"Training resumes from step {max(others)}; for other commands to use another checkpoint, delete "
            f"the folder {self.path(step)}"
            if others
            else "There is no other checkpoint in this folder, so a new run needs another --workdir"
        )
        reason = " ".join(str(error).split())[:300]
        return (
            f"the checkpoint of step {step} in {self.folder} cannot be read: it is damaged, or belongs to "
            f"another model ({type(error).__name__}: {reason}). {advice}."
        )
