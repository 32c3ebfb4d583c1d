"""Checkpoints of a run, written asynchronously and atomically; the newest and the best-scoring are kept.

`<workdir>/checkpoints/<step>/` holds

    state    every array of the system's state: the step count; for each player (g, d, ...) its parameters,
             batch statistics and spectral-norm vectors, optimizer state and regularizer state; the EMA and
             any further EMAs. Training needs nothing else: random keys and the order of the images are
             functions of the run's seed and the step.
    record   JSON: {"seconds": the training time of the run so far}
    metrics  JSON: {metric: score}, if this step was evaluated

On the same devices, a resumed run is bit-identical to an uninterrupted one, except on GPUs without
--deterministic and with settings that depend on wall-clock time (wallclock_cosine, train.max_hours).
"""

import logging
import pathlib
import shutil
from collections.abc import Collection
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers, checkpoint_utils, type_handlers

from jaxdog.evaluation import sampling_state
from jaxdog.utils import errors

Record = dict[str, Any]

# Warnings of Orbax about what is done here on purpose: arrays of our own type, checkpoints without a score.
EXPECTED = ("Type handler registry type", "Requested `tracked_metric`; did not provide metrics")
logging.getLogger("absl").addFilter(lambda line: not line.getMessage().startswith(EXPECTED))


class CheckpointError(errors.UserError):
    """A checkpoint could not be written or read; the message says what to do."""


class Checkpoints:
    """The checkpoints of one folder.

    Args:
      folder: where they are stored; created if missing.
      keep_last: number of newest checkpoints to keep.
      keep_best: number of checkpoints with the lowest `metric` to keep in addition.
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
        policy = checkpoint_managers.AnyPreservationPolicy(
            [
                checkpoint_managers.LatestN(keep_last),
                checkpoint_managers.BestN(
                    get_metric_fn=lambda metrics: metrics[metric],
                    reverse=True,
                    n=keep_best,
                    keep_checkpoints_without_metrics=False,
                ),
            ]
        )
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policy,
                best_fn=lambda metrics: metrics[metric],
                best_mode="min",
                enable_async_checkpointing=True,
                cleanup_tmp_directories=not read_only,
                read_only=read_only,
            ),
        )

    def steps(self) -> list[int]:
        """The steps of all complete checkpoints, in order."""
        return sorted(self._manager.all_steps())

    def latest(self) -> int | None:
        """The step of the newest complete checkpoint; None if there is none."""
        return self._manager.latest_step()

    def best(self) -> int | None:
        """The step of the checkpoint with the lowest score; the newest if none has a score."""
        scored = [i for i in self._manager.all_steps() if self._score(i) is not None]
        return min(scored, key=lambda i: (self._score(i), i)) if scored else self.latest()

    def best_score(self) -> float | None:
        """The lowest score of the checkpoints that are kept; None if none has a score."""
        scores = [x for i in self._manager.all_steps() if (x := self._score(i)) is not None]
        return min(scores, default=None)

    def _score(self, step: int) -> float | None:
        metrics = self._manager.metrics(step)
        return None if metrics is None else metrics[self.metric]

    def save(self, step: int, state: Any, record: Record, score: float | None = None) -> None:
        """Starts to write `state` at `step`; returns once the arrays are copied to the host.

        Raises CheckpointError if the disk has too little space, or an earlier write failed.
        """
        needed = sum(x.nbytes for x in jax.tree.leaves(state))
        free = shutil.disk_usage(self.folder).free
        if free < 1.1 * needed:
            raise CheckpointError(
                self._not_written(step, f"it needs {needed / 1e6:.1f} MB, {free / 1e6:.1f} MB are free")
            )
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), record=ocp.args.JsonSave(record))
        metrics = None if score is None else {self.metric: float(score)}
        try:
            self._manager.save(step, args=args, metrics=metrics, force=True)
        except (OSError, ValueError) as error:
            raise CheckpointError(self._not_written(step, str(error))) from error

    def path(self, step: int) -> pathlib.Path:
        """The folder of the checkpoint at `step`."""
        return self.folder / str(step)

    def is_complete(self, step: int) -> bool:
        """Whether the checkpoint at `step` is on disk; does not wait for it."""
        return not self._manager.is_saving_in_progress() and self.path(step).is_dir()

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
        args = ocp.args.Composite(state=ocp.args.StandardRestore(target), record=ocp.args.JsonRestore())
        try:
            restored = self._manager.restore(step, args=args)
        except Exception as error:  # Orbax and TensorStore raise many types of exceptions
            raise CheckpointError(self._not_readable(step, error)) from error
        return restored["state"], dict(restored["record"])

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
        except Exception as error:  # Orbax and TensorStore raise many types of exceptions
            raise CheckpointError(self._not_readable(step, error)) from error
        return sampling_state.read_arrays(state, read)

    def load_arrays(self, step: int) -> dict[str, Any]:
        """The state at `step` as nested dicts of host arrays, for any model.

        Raises CheckpointError if the checkpoint is damaged.
        """
        try:
            args = ocp.args.Composite(state=ocp.args.StandardRestore())
            return jax.device_get(self._manager.restore(step, args=args)["state"])
        except Exception as error:  # Orbax and TensorStore raise many types of exceptions
            raise CheckpointError(self._not_readable(step, error)) from error

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
        others = sorted(i for i in self._manager.all_steps() if i != step)
        advice = (
            f"To resume from step {max(others)} instead, delete the folder {self.folder / str(step)}"
            if others
            else "There is no other checkpoint in this folder, so a new run needs another --workdir"
        )
        reason = " ".join(str(error).split())[:300]
        return (
            f"the checkpoint of step {step} in {self.folder} cannot be read: it is damaged, or belongs to "
            f"another model ({type(error).__name__}: {reason}). {advice}."
        )
