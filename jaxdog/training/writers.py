"""Logs of a run: log.jsonl, scores.jsonl, PNG grids, TensorBoard and callbacks.

Only one process may write; the others use `Writer(..., enabled=False)`, which does nothing.
"""

import json
import logging
import math
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

import jax
import numpy as np

from jaxdog.training import callbacks
from jaxdog.utils import errors, files, lock, png, untrusted

log = logging.getLogger("jaxdog")

LOG = "log.jsonl"
SCORES = "scores.jsonl"
SWEEP = "sweep.json"  # scores of the sampling options, for the best checkpoint
GRIDS, BOARD = "grids", "tensorboard"
MAX_BYTES = 256 << 20  # of a JSON-lines file that is read


def read_jsonl(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The records of a JSON-lines file; [] if there is no file. A last line truncated by a crash is ignored.

    Raises UserError if any other line is not a JSON object, or its "step" not a number.
    """
    records, damaged = _parse(pathlib.Path(path))
    if damaged:
        number, line = damaged[0]
        raise errors.UserError(
            f"{path}: line {number} is not a JSON object of a step: {line[:80]!r}. Delete it, or rerun the "
            "training, which removes such lines"
        )
    return records


def _parse(path: pathlib.Path) -> tuple[list[dict[str, Any]], list[tuple[int, str]]]:
    """The records of a JSON-lines file, and numbers and text of its damaged lines, but for the last one."""
    records, damaged = [], []
    try:
        text = files.read_limited(path, MAX_BYTES).decode(errors="replace")
    except FileNotFoundError:
        text = ""
    for number, line in enumerate(text.rstrip().split("\n"), 1):
        try:
            record = untrusted.parse_json(line)
        except errors.UserError:
            record = None
        if isinstance(record, dict) and isinstance(record.get("step", 0), int | float):
            records.append(record)
        elif line.strip():
            damaged.append((number, line))
    last = text.rstrip().count("\n") + 1
    return records, [(number, line) for number, line in damaged if number < last]


def to_json(value: Any) -> Any:
    """`value` as strict JSON: arrays become lists or numbers, NaN and infinity become None (null)."""
    if isinstance(value, Mapping):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(v) for v in value]
    if isinstance(value, str | bool | int | None):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if not hasattr(value, "__array__"):
        raise TypeError(f"a {type(value).__name__} cannot be written as JSON: {value!r}")
    return to_json(np.asarray(value).tolist())


class Writer:
    """Passes the events of a run to its listeners: first files and TensorBoard, then the user's callbacks.

    A context manager. Lines and images are on disk when a call returns. An exception of a listener does not
    interrupt training: see `failure`. `callbacks.Callback` documents the events. UserError if the folder has
    been taken over by another process (`lock.check`).

    Args:
      workdir: created if missing.
      step: the step that this session starts from. Lines of later steps, which a killed run wrote after its
        last checkpoint, are removed, so that no step is logged twice. None: keep all lines.
      enabled: if False, every method does nothing.
      listeners: callbacks.
      config: the resolved config as nested dicts, for callbacks.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        step: int | None = 0,
        enabled: bool = True,
        listeners: Iterable[object] = (),
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.failure: Exception | None = None  # the first exception of a listener, until it is raised
        self._listeners: list[object] = []
        self._failed: set[int] = set()  # ids of listeners
        listeners = callbacks.check(listeners)
        if not enabled:
            return
        workdir = pathlib.Path(workdir)
        workdir.mkdir(parents=True, exist_ok=True)
        purge = None if step is None else step + 1  # TensorBoard hides the lines that are removed
        self._files = _Files(workdir, step)
        self._board = callbacks.TensorBoard(workdir / BOARD, purge)
        self._listeners = [self._files, self._board]
        for listener in listeners:
            self._listeners.append(listener)
            self._call(listener, "on_start", workdir, config or {})
        if self.failure is not None:
            self.close()

    def rewind(self, step: int, scored: int) -> None:
        """Starts from `step` instead: removes later lines, and scores after `scored` that are not final."""
        if self._listeners:
            lock.check()
            self._files.reopen(step, scored)
            self._board.purge(step + 1)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._end()
        if error is None:  # otherwise the failure, which has been logged, must not hide the other exception
            self.raise_failure()

    def log(self, step: int, scalars: Mapping[str, Any]) -> None:
        """A log line: a line of log.jsonl, `step` first, and TensorBoard scalars."""
        self._notify("on_log", step, scalars)

    def scores(self, step: int, record: Mapping[str, Any]) -> None:
        """An evaluation: a line of scores.jsonl, and its numbers in TensorBoard under `scores/`."""
        self._notify("on_scores", step, record)

    def image(self, name: str, step: int, image: np.ndarray) -> None:
        """An image, [h, w, 3] uint8: grids/<name>_<step>.png, and in TensorBoard."""
        image = np.asarray(image)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise errors.UserError(
                f"{name}: a grid is [h, w, 3] uint8, got {list(image.shape)} {image.dtype}"
            )
        self._notify("on_image", name, step, image)

    def checkpoint(self, step: int, path: pathlib.Path) -> None:
        """The checkpoint of `step` is complete in the folder `path`."""
        self._notify("on_checkpoint", step, path)

    def sync(self) -> None:
        """Flushes the lines to the disk, before a checkpoint that comes after them."""
        if self._listeners:
            self._call(self._files, "sync")

    def close(self) -> None:
        """Ends the session and raises `failure`; a second call does nothing."""
        self._end()
        self.raise_failure()

    def _end(self) -> None:
        self._notify("on_end")
        self._listeners = []

    def raise_failure(self) -> None:
        """Raises the first exception of a listener with its own traceback, unless it was raised before."""
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure

    def _notify(self, event: str, *args: Any) -> None:
        if self._listeners and event != "on_end":
            try:
                lock.check()
            except errors.UserError as error:
                if jax.process_count() == 1:
                    raise
                self.failure = self.failure or error  # the processes end together
                return
            args = tuple(to_json(x) if isinstance(x, Mapping) else x for x in args)
        for listener in self._listeners:
            self._call(listener, event, *args)

    def _call(self, listener: object, event: str, *args: Any) -> None:
        """Calls one listener. If it raises, the exception is kept, and only its `on_end` is called later."""
        if id(listener) in self._failed and event != "on_end":
            return
        try:
            getattr(listener, event, _ignore)(*args)
        except Exception as error:
            name = type(listener).__name__
            known = isinstance(error, OSError | errors.UserError)
            log.error(
                "%s.%s failed%s; training stops as soon as there is a checkpoint",
                name, event, f" ({error})" if known else "", exc_info=not known,
            )  # fmt: skip
            self._failed.add(id(listener))
            self.failure = self.failure or error


def _ignore(*args: Any) -> None:
    del args


class _Files(callbacks.Callback):
    """Writes log.jsonl, scores.jsonl and grids/."""

    def __init__(self, workdir: pathlib.Path, step: int | None):
        self._workdir = workdir
        self._log, self._scores = _reopen(workdir / LOG, step), _reopen(workdir / SCORES, step)

    def reopen(self, step: int, scored: int) -> None:
        """Removes lines after `step`, and scores after `scored` that are not final."""
        self.on_end()
        self._log = _reopen(self._workdir / LOG, step)
        self._scores = _reopen(self._workdir / SCORES, step, scored)

    def on_log(self, step: int, scalars: Mapping[str, Any]) -> None:
        _write_line(self._log, {"step": step, **scalars})

    def on_scores(self, step: int, scores: Mapping[str, Any]) -> None:
        _write_line(self._scores, {"step": step, **scores})

    def on_image(self, name: str, step: int, image: np.ndarray) -> None:
        png.write(self._workdir / GRIDS / f"{name}_{step:08d}.png", image)

    def sync(self) -> None:
        """Flushes the lines to the disk."""
        for file in (self._log, self._scores):
            os.fsync(file.fileno())

    def on_end(self) -> None:
        with self._log, self._scores:  # closes both, even if one raises
            pass


def _write_line(file: TextIO, record: Mapping[str, Any]) -> None:
    file.write(json.dumps(record, allow_nan=False) + "\n")
    file.flush()


def _reopen(path: pathlib.Path, step: int | None, scored: int | None = None) -> TextIO:
    """Opens a JSON-lines file for appending; removes damaged lines (logged), and lines after `step`.

    scored: lines after this step that are not final are removed, too; None: `step`.
    """
    records, damaged = _parse(path)
    if damaged:
        log.warning(
            "%s: %d damaged lines are removed; the first, line %d: %r",
            path, len(damaged), damaged[0][0], damaged[0][1][:80],
        )  # fmt: skip
    last = math.inf if step is None else step
    others = last if scored is None else scored
    kept = [r for r in records if r.get("step", 0) <= (last if r.get("final") else others)]
    if step == 0 and len(kept) < len(records):
        log.warning(
            "%s: %d lines are removed, as there is no checkpoint to go on from",
            path,
            len(records) - len(kept),
        )
    text = "".join(json.dumps(r) + "\n" for r in kept)
    if path.exists() and path.read_bytes() != text.encode():
        files.write_text(path, text)
    return open(path, "a", encoding="utf-8")
