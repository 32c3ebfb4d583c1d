"""Checkpoints of a run, written asynchronously and atomically; the newest and the best-scoring are kept.

`<workdir>/checkpoints/<step>/` holds

    state    every array of the system's state: the step count; for each player (g, d, ...) its parameters,
             batch statistics and spectral-norm vectors, optimizer state and regularizer state; the EMA and
             any further EMAs. Training needs nothing else: random keys and the order of the images are
             functions of the run's seed and the step.
    record   JSON: {"seconds": the training time of the run so far}, with digests of the state's arrays and
             of the record itself, which are checked when it is read
    metrics  JSON, once this step was evaluated: the score (null: not finite), its evaluation protocol, and a
             digest. Only scores of one metric and protocol are compared, see `checkpoint_scores`

A checkpoint is on the disk, not only in its cache, before its folder gets its name and others are deleted.

On the same devices, a resumed run is bit-identical to an uninterrupted one, except on GPUs without
--deterministic and with settings that depend on wall-clock time (wallclock_cosine, train.max_hours).
"""

import contextlib
import dataclasses
import datetime
import itertools
import json
import logging
import math
import pathlib
import shutil
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_utils, type_handlers

from jaxdog import sharding
from jaxdog.evaluation import sampling_state
from jaxdog.training import checkpoint_scores, digests
from jaxdog.utils import errors, files, lock, untrusted

log = logging.getLogger("jaxdog")

RECORD, METRICS = "record/metadata", checkpoint_scores.METRICS  # in the folder of a checkpoint
ARRAYS = "arrays"  # entry of a record: the digests of the arrays
SECONDS = "seconds"  # entry of a record: the training time
DAMAGED = ".damaged"  # at the end of the name of a folder that was set aside
# Warnings of Orbax about what is done here on purpose: arrays of our own type.
EXPECTED = "Type handler registry type"
logging.getLogger("absl").addFilter(lambda line: not line.getMessage().startswith(EXPECTED))


class CheckpointError(errors.UserError):
    """A checkpoint could not be written or read; the message says what to do."""


def sort_key(score: float | None) -> float:
    """A score by which a lower one is better, to be compared: one that is not finite is the worst."""
    return score if score is not None and math.isfinite(score) else math.inf


class _Manager(ocp.CheckpointManager):
    """Orbax's manager, which opens a folder without a look at its own files about each checkpoint.

    It needs nothing of them, and would end at one that is damaged.
    """

    def _load_checkpoint_infos(self, skip_metadata_read: bool = True) -> list[Any]:
        del skip_metadata_read
        infos = super()._load_checkpoint_infos(skip_metadata_read=True)
        return [dataclasses.replace(info, time=datetime.datetime.now(datetime.UTC)) for info in infos]


class Checkpoints:
    """The checkpoints of one folder.

    Args:
      folder: where they are stored; created if missing.
      keep_last: number of newest checkpoints to keep, at least 1.
      keep_best: number of checkpoints with the lowest finite `metric` to keep in addition; also of scores of
        other metrics, or by other protocols, see `checkpoint_scores`.
      metric: name of the score; lower is better.
      read_only: if True, nothing is written or deleted.
      protocol: how scores are computed: the weights of the feature network, the number of samples. Only
        scores of the same protocol are compared; "": any.

    Raises UserError if a score cannot be read now, but may be sound.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        keep_last: int,
        keep_best: int,
        metric: str,
        read_only: bool = False,
        protocol: str = "",
    ):
        self.folder = folder.absolute()
        # One process writes each replicated array. Sharing the work would compile one slice per array shape.
        handler = type_handlers.ArrayHandler(use_replica_parallel=False)
        type_handlers.register_type_handler(jax.Array, handler, override=True)
        self._keep_last, self._keep_best = keep_last, keep_best
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self,
            enable_async_checkpointing=True,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._sync),
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
        )
        self._manager = _Manager(self.folder, options=options)
        kind = checkpoint_scores.Kind(metric, protocol)
        self._scores = checkpoint_scores.Scores(self.folder, kind, self.steps())

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Which checkpoints are kept, as Orbax asks for it: the newest and the best."""
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = {*steps[-self._keep_last :]} | self._scores.kept(steps, self._keep_best)
        return [step in kept for step in steps]

    def ranked(self) -> list[int]:
        """The steps of the checkpoints with a finite score by the newest one's protocol, best first."""
        return self._scores.ranked(self.steps())

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
        return self._scores.value(ranked[0]) if ranked else None

    def score(self, step: int) -> float | None:
        """The score of a checkpoint by the metric, which may be NaN; None if it has none."""
        return self._scores.value(step)

    def set_score(self, step: int, score: float) -> None:
        """Adds the score of the checkpoint at `step`; waits until that is on disk. Raises CheckpointError."""
        problem: errors.UserError | None = None
        self.wait()
        try:
            lock.check()
            if jax.process_index() == 0:
                self._scores.write(step, float(score))
        except OSError as error:
            problem = CheckpointError(self._not_written(step, str(error)))
        except errors.UserError as error:
            problem = error
        self._raise_together(step, problem)
        self._scores.set(step, float(score))

    def save(self, step: int, state: Any, seconds: float) -> None:
        """Starts to write `state` at `step`, and the training time of the run so far, in seconds.

        Returns once the arrays are copied to the host.

        Raises CheckpointError if the disk has too little space, or an earlier write failed, and UserError if
        another process has taken the folder over.
        """
        problem: errors.UserError | None = None
        needed = sum(x.nbytes for x in jax.tree.leaves(state))
        try:
            lock.check()  # the first process has it
            free = shutil.disk_usage(self.folder).free
            if free < 1.1 * needed:
                space = f"it needs {needed / 1e6:.1f} MB, {free / 1e6:.1f} MB are free"
                problem = CheckpointError(self._not_written(step, space))
        except errors.UserError as error:
            problem = error
        except OSError as error:
            problem = CheckpointError(self._not_written(step, errors.explain(error)))
        self._raise_together(step, problem)
        record: dict[str, Any] = {SECONDS: seconds}
        if jax.process_index() == 0:  # which writes the record
            record = json.loads(digests.seal({**record, ARRAYS: digests.of_arrays(state)}))
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), record=ocp.args.JsonSave(record))
        try:
            self._manager.save(step, args=args, force=True)
        except (OSError, ValueError) as error:
            raise CheckpointError(self._not_written(step, str(error))) from error

    def _raise_together(self, step: int | None, problem: errors.UserError | None) -> None:
        """Raises in all processes if one of them has a problem: the others would wait for it forever."""
        if not sharding.all_processes_agree(problem is None):
            raise problem or CheckpointError(self._not_written(step, "another process says why"))

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
        problem: errors.UserError | None = None
        try:
            self._wait()
        except CheckpointError as error:
            problem = error
        self._raise_together(None, problem)

    def _wait(self) -> None:
        """`wait` in this process alone."""
        try:
            self._manager.wait_until_finished()
        except (OSError, ValueError) as error:
            raise CheckpointError(self._not_written(None, str(error))) from error

    def restore(self, step: int, shapes: Any, shardings: Any) -> tuple[Any, float]:
        """The state at `step`, and the training time until then, in seconds.

        Args:
          step: the step of a checkpoint.
          shapes: shapes and dtypes of the state's arrays, from jax.eval_shape.
          shardings: the sharding of each array; the checkpoint may have been written on other devices.

        Raises CheckpointError if the checkpoint is damaged or belongs to another model.
        """
        target = jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes, shardings
        )
        with self._reading(step):
            arrays, seconds = self._record(step)
            args = ocp.args.Composite(state=ocp.args.StandardRestore(target))
            state = self._manager.restore(step, args=args)["state"]
            digests.check_arrays(arrays, state)
        return state, seconds

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
        with self._reading(step):
            # The manager's own reader cannot leave arrays out.
            with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
                state = reader.restore(self.path(step) / "state", args=args)
            arrays = sampling_state.read_arrays(state, read)
            digests.check_arrays(self._record(step)[0], arrays)
        return arrays

    def load_arrays(self, step: int) -> dict[str, Any]:
        """The state at `step` as nested dicts of host arrays, for any model.

        Raises CheckpointError if the checkpoint is damaged.
        """
        with self._reading(step):
            args = ocp.args.Composite(state=ocp.args.StandardRestore())
            state = jax.device_get(self._manager.restore(step, args=args)["state"])
            digests.check_arrays(self._record(step)[0], state)
        return state

    @contextlib.contextmanager
    def _reading(self, step: int) -> Iterator[None]:
        """Raises CheckpointError for damage that is met in the block.

        A lack of memory, of permissions or of open files is no damage: the checkpoint is not set aside.
        """
        try:
            yield
        except Exception as error:  # Orbax and TensorStore raise many types of exceptions
            if not self.path(step).is_dir():
                raise errors.UserError(
                    f"the checkpoint of step {step} in {self.folder} was deleted meanwhile, as a training "
                    "keeps only the newest and the best. Run the command again, which uses another one"
                ) from error
            if isinstance(error, MemoryError):
                raise
            if reason := errors.of_the_system(error):
                raise errors.UserError(
                    f"the checkpoint of step {step} in {self.folder} cannot be read now: {reason}. It is not "
                    "damaged: run the command again when it can be read"
                ) from error
            if errors.out_of_memory(error):
                raise
            raise CheckpointError(self._not_readable(step, error)) from error

    def _record(self, step: int) -> tuple[dict[str, str], float]:
        """The digests of the arrays at `step`, and the training time."""
        record = digests.unseal(files.read_limited(self.path(step) / RECORD, untrusted.MAX_JSON))
        arrays, seconds = record.get(ARRAYS, {}), record.get(SECONDS)
        if not isinstance(arrays, dict) or not isinstance(seconds, int | float):
            raise digests.MismatchError(f"{RECORD} has values of other types than those of a checkpoint")
        return arrays, float(seconds)

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
        self._scores.drop(step)
        self._manager.reload()
        return aside

    def close(self) -> None:
        """Waits for all writes and stops the threads."""
        self._wait()
        self._manager.close()

    def _not_written(self, step: int | None, reason: str) -> str:
        steps = [int(path.name) for path in self.folder.glob("*") if path.name.isdecimal()]
        kept = f"the checkpoint of step {max(steps)} is complete" if steps else "there is no earlier one"
        name = "a checkpoint" if step is None else f"the checkpoint of step {step}"
        return (
            f"{name} could not be written to {self.folder}: {reason}. Nothing else is lost: {kept}. Free "
            "some space (or lower checkpoint.keep_last and keep_best) and rerun the command to resume."
        )

    def _not_readable(self, step: int, error: Exception) -> str:
        others = [i for i in self.steps() if i != step]
        advice = (
            f"Training resumes from step {max(others)}; for other commands to use another checkpoint, move "
            f"the folder {self.path(step)} elsewhere"
            if others
            else "There is no other checkpoint in this folder, so a new run needs another --workdir"
        )
        reason = " ".join(str(error).split())[:300]
        return (
            f"the checkpoint of step {step} in {self.folder} cannot be read: it is damaged, or belongs to "
            f"another model ({type(error).__name__}: {reason}). {advice}."
        )
