"""Checkpoints of a run: asynchronous, atomic, the last few and the best few by score.

A checkpoint holds the state's arrays, and beside them a small JSON record (seconds trained, scores).
"""

import pathlib
import shutil
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers, type_handlers

Record = dict[str, Any]


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read; the message says what to do."""


class Checkpoints:
    """The checkpoints of one work folder.

    keep_last: newest checkpoints kept. keep_best: checkpoints with the lowest `metric` kept besides.
    """

    def __init__(
        self, folder: pathlib.Path, keep_last: int, keep_best: int, metric: str, read_only: bool = False
    ):
        self.folder = folder.absolute()
        self.metric = metric
        # One host writes a replicated array; to share it out orbax would compile a slice for every shape.
        writer = type_handlers.ArrayHandler(use_replica_parallel=False)
        type_handlers.register_type_handler(jax.Array, writer, override=True)
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

    def latest(self) -> int | None:
        """The step of the newest whole checkpoint."""
        return self._manager.latest_step()

    def best(self) -> int | None:
        """The step of the checkpoint with the lowest score; the newest if none has a score."""
        scored = [i for i in self._manager.all_steps() if self._score(i) is not None]
        return min(scored, key=lambda i: (self._score(i), i)) if scored else self.latest()

    def best_score(self) -> float | None:
        """The lowest score of a checkpoint that is kept; None if none has one."""
        scores = [x for i in self._manager.all_steps() if (x := self._score(i)) is not None]
        return min(scores, default=None)

    def _score(self, step: int) -> float | None:
        metrics = self._manager.metrics(step)
        return None if metrics is None else metrics[self.metric]

    def save(self, step: int, state: Any, record: Record, score: float | None = None) -> None:
        """Begin to write `state` at `step`; returns once the device's arrays are copied.

        Raises CheckpointError where the disk cannot hold it, or where an earlier write failed.
        """
        needed = sum(x.nbytes for x in jax.tree.leaves(state))
        free = shutil.disk_usage(self.folder).free
        if free < 1.1 * needed:
            raise CheckpointError(
                self._full(step, f"it needs {needed / 1e6:.1f} MB, {free / 1e6:.1f} MB are free")
            )
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), record=ocp.args.JsonSave(record))
        metrics = None if score is None else {self.metric: float(score)}
        try:
            self._manager.save(step, args=args, metrics=metrics, force=True)
        except (OSError, ValueError) as error:
            raise CheckpointError(self._full(step, str(error))) from error

    def wait(self) -> None:
        """Return when every begun checkpoint is on disk; raises CheckpointError if one could not be."""
        try:
            self._manager.wait_until_finished()
        except (OSError, ValueError) as error:
            raise CheckpointError(self._full(None, str(error))) from error

    def restore(self, step: int, shapes: Any, shardings: Any) -> tuple[Any, Record]:
        """State and record at `step`, placed by `shardings`; `shapes` is the state's, by jax.eval_shape.

        Raises CheckpointError where the checkpoint is damaged or of another model.
        """
        like = jax.tree.map(
            lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), shapes, shardings
        )
        args = ocp.args.Composite(state=ocp.args.StandardRestore(like), record=ocp.args.JsonRestore())
        try:
            restored = self._manager.restore(step, args=args)
        except Exception as error:  # orbax and tensorstore raise many kinds
            raise CheckpointError(self._damaged(step, error)) from error
        return restored["state"], dict(restored["record"])

    def raw(self, step: int) -> dict[str, Any]:
        """The state at `step` as nested dicts of arrays on this host, whatever model it is of.

        Raises CheckpointError where the checkpoint is damaged.
        """
        try:
            args = ocp.args.Composite(state=ocp.args.StandardRestore())
            return jax.device_get(self._manager.restore(step, args=args)["state"])
        except Exception as error:  # orbax and tensorstore raise many kinds
            raise CheckpointError(self._damaged(step, error)) from error

    def close(self) -> None:
        """Wait, then let go of the threads."""
        self.wait()
        self._manager.close()

    def _full(self, step: int | None, reason: str) -> str:
        latest = self.latest()
        kept = "there is no earlier one" if latest is None else f"that of step {latest} is whole"
        name = "a checkpoint" if step is None else f"the checkpoint of step {step}"
        return (
            f"{name} could not be written to {self.folder}: {reason}. Nothing else is lost: {kept}. Free "
            "some space (or lower checkpoint.keep_last and keep_best) and run the same command to go on."
        )

    def _damaged(self, step: int, error: Exception) -> str:
        others = sorted(i for i in self._manager.all_steps() if i != step)
        way = (
            f"To go on from step {max(others)} instead, delete the folder {self.folder / str(step)}"
            if others
            else "There is no other checkpoint in this folder, so a new run needs another --workdir"
        )
        reason = " ".join(str(error).split())[:300]
        return (
            f"the checkpoint of step {step} in {self.folder} cannot be read: it is damaged, or of another "
            f"model ({type(error).__name__}: {reason}). {way}."
        )
