"""Callbacks: objects that are called with the log lines, scores, images and checkpoints of a run.

class Plot(callbacks.Callback):
    def on_scores(self, step, scores):
        print(step, scores["samples"], scores.get("fid2048"))

jaxdog.train("biggan", data="photos/", callbacks=[Plot(), callbacks.WandB(project="dogs")])
"""

import functools
import importlib
import pathlib
import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jaxdog.utils import errors, files, optional

EVENTS = ("on_start", "on_log", "on_scores", "on_image", "on_checkpoint", "on_end")
FLUSH = 10.0  # seconds after which TensorBoard's events are flushed to the disk
WANDB_ID = "wandb_id.txt"  # in the folder of a run: the id of its W&B run, which resumes with it


class Callback:
    """Base class of callbacks; every method does nothing.

    Inheriting from it is optional: an object with any of these methods is a callback. The methods are called
    in the order of the events, on process 0 only, on the host and between two training steps, so training
    waits for them. Scalars and scores are what log.jsonl and scores.jsonl hold: numbers, strings, lists and
    dicts, with None in place of NaN and infinity. All callbacks share the arguments: copy what you change.

    An exception ends the run: its traceback is logged at once, no method of the callback but `on_end` is
    called again, training stops as after Ctrl-C, which writes a checkpoint, and then the exception is raised.
    The run can be resumed from there.
    """

    def on_start(self, folder: pathlib.Path, config: Mapping[str, Any]) -> None:
        """The session starts, from scratch or from a checkpoint.

        Args:
          folder: the folder of the run.
          config: the resolved config as nested dicts, as in config.json.
        """

    def on_log(self, step: int, scalars: Mapping[str, Any]) -> None:
        """A log line: means over the last config.train.log_every steps, speed and memory."""

    def on_scores(self, step: int, scores: Mapping[str, Any]) -> None:
        """An evaluation of the weights of `step`; `scores["final"]`: that of the submitted images."""

    def on_image(self, name: str, step: int, image: np.ndarray) -> None:
        """A sheet of images, [h, w, 3] uint8: "grid" in training; "final" and others after the last step."""

    def on_checkpoint(self, step: int, path: pathlib.Path) -> None:
        """The checkpoint of `step` is complete in the folder `path`.

        Checkpoints are written in the background, so this is called some steps later: at the latest before
        the next checkpoint is written, and before training ends. Old checkpoints are deleted later.
        """

    def on_end(self) -> None:
        """The session ends, also because of an error; no other method is called after it."""


def check(callbacks: Iterable[object]) -> tuple[object, ...]:
    """The callbacks as a tuple; raises UserError for an object that has no method of `Callback`."""
    if not isinstance(callbacks, Iterable):
        raise errors.UserError(f"callbacks is {callbacks!r}, and must be a list of callbacks")
    checked = tuple(callbacks)
    for callback in checked:
        if isinstance(callback, type):
            raise errors.UserError(f"the callback {callback.__name__} is a class; give an object of it")
        if not any(callable(getattr(callback, event, None)) for event in EVENTS):
            raise errors.UserError(
                f"the callback {callback!r} has none of the methods of a callback: {', '.join(EVENTS)}"
            )
    return checked


class TensorBoard(Callback):
    """Writes scalars, scores (under `scores/`) and images as TensorBoard events; every run has one.

    Events are written in this thread. tensorboardX has one for it, which ends on a full disk, and then waits
    forever for it.

    Args:
      folder: the folder of the events.
      purge_step: TensorBoard hides the events of earlier sessions from this step on; None: hides none.
    """

    def __init__(self, folder: pathlib.Path, purge_step: int | None = None):
        self._folder, self._purge_step = folder, purge_step
        self._next_flush = time.monotonic() + FLUSH

    @functools.cached_property
    def _board(self) -> Any:
        """Created at the first event: the import takes seconds where torch is installed."""
        from tensorboardX import event_file_writer

        event_pb2 = _protocol()
        self._folder.mkdir(parents=True, exist_ok=True)
        fraction = f".{time.time_ns() % 10**9:09d}"  # else sessions of the same second had one file
        board = event_file_writer.EventsWriter(str(self._folder / "events"), fraction)
        if self._purge_step is not None:
            started = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            for content in ({"file_version": "brain.Event:2"}, {"session_log": started}):
                board.write_event(event_pb2.Event(step=self._purge_step, wall_time=time.time(), **content))
        return board

    def _add(self, step: int, kind: str, *content: Any, **options: Any) -> None:
        from tensorboardX import summary

        made = getattr(summary, kind)(*content, **options)
        self._board.write_event(_protocol().Event(step=step, wall_time=time.time(), summary=made))
        if time.monotonic() >= self._next_flush:
            self._board.flush()
            self._next_flush = time.monotonic() + FLUSH

    def purge(self, step: int) -> None:
        """Hides the events of earlier sessions from `step` on; before the first event of this one."""
        self._purge_step = step

    def on_log(self, step: int, scalars: Mapping[str, Any]) -> None:
        for name, value in numbers(scalars).items():
            self._add(step, "scalar", name, value)

    def on_scores(self, step: int, scores: Mapping[str, Any]) -> None:
        for name, value in numbers(scores).items():
            self._add(step, "scalar", f"scores/{name}", value)

    def on_image(self, name: str, step: int, image: np.ndarray) -> None:
        self._add(step, "image", name, image, dataformats="HWC")

    def on_end(self) -> None:
        if "_board" in vars(self):
            self._board.close()


class WandB(Callback):
    """Logs a run to Weights & Biases (extra `wandb`): config, scalars, scores (under `scores/`) and images.

    The x-axis of all charts is `step`. A resumed run continues its W&B run, whose id is kept in the folder
    of the run.

    Args:
      project: name of the W&B project.
      init: further arguments of `wandb.init`, for example entity, tags, or mode="offline". By default `name`
        is that of the run's folder and `config` the resolved config.

    Raises MissingExtraError if wandb is not installed.
    """

    def __init__(self, project: str, **init: Any):
        self._wandb = optional.load("wandb", "the callback WandB")
        self._init = {"project": project, **init}
        self.run: Any = None  # the W&B run, from `on_start` on

    def on_start(self, folder: pathlib.Path, config: Mapping[str, Any]) -> None:
        defaults = {"name": folder.resolve().name, "config": dict(config), "resume": "allow"}
        if "id" not in self._init:
            path = folder / WANDB_ID
            name = path.read_text(encoding="utf-8", errors="replace").strip() if path.exists() else ""
            if not name.isalnum():  # missing, or damaged
                name = uuid.uuid4().hex[:8]
                files.write_text(path, name + "\n")
            defaults["id"] = name
        self.run = self._wandb.init(**{**defaults, **self._init})
        self.run.define_metric("*", step_metric="step")  # a resumed run may log a step again

    def on_log(self, step: int, scalars: Mapping[str, Any]) -> None:
        self.run.log({"step": step, **numbers(scalars)})

    def on_scores(self, step: int, scores: Mapping[str, Any]) -> None:
        self.run.log({"step": step, **{f"scores/{name}": x for name, x in numbers(scores).items()}})

    def on_image(self, name: str, step: int, image: np.ndarray) -> None:
        self.run.log({"step": step, name: self._wandb.Image(image)})

    def on_end(self) -> None:
        if self.run is not None:
            self.run.finish()


def _protocol() -> Any:
    """The module of TensorBoard's messages, whose names are made when it is imported."""
    return importlib.import_module("tensorboardX.proto.event_pb2")


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The entries of a log line or of scores that are numbers."""
    return {name: x for name, x in values.items() if isinstance(x, int | float) and not isinstance(x, bool)}
