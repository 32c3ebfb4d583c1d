"""What a run writes down as it goes: one JSON line per log step and per evaluation, PNG grids, TensorBoard.

Only one process of a run may write; the others hold `Writer(..., enabled=False)`, which does nothing.
"""

import functools
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any, TextIO

import numpy as np
import PIL.Image

from jaxdog.utils import files

LOG = "log.jsonl"
SCORES = "scores.jsonl"
SWEEP = "sweep.json"  # ways to draw from the best checkpoint, and their scores
GRIDS = "grids"


def read_jsonl(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The records of a JSON-lines file, [] if there is none; a line torn by a crash ends the list.

    Raises ValueError when a line that is not the last is no JSON object: that is damage, not a crash.
    """
    path = pathlib.Path(path)
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    records = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError("not an object")
        except ValueError as error:
            if any(later.strip() for later in lines[number:]):
                raise ValueError(f"{path}: line {number} is not a JSON object: {line[:80]!r}") from error
            break
        records.append(record)
    return records


def to_json(value: Any) -> Any:
    """`value` as strict JSON can hold it: arrays become lists and numbers, NaN and Inf become None (null)."""
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
    """Writes a run's files below `workdir`; a context manager, every line is on disk when the call returns.

    Args:
      workdir: made if missing.
      step: the step the run starts from. Lines of later steps, left by a run that was killed after its last
        checkpoint, are dropped, so that no step is written twice. None: keep all lines, only append.
      enabled: False makes every method do nothing.
    """

    def __init__(self, workdir: str | os.PathLike[str], step: int | None = 0, enabled: bool = True) -> None:
        self._enabled = enabled
        if not enabled:
            return
        self._workdir = pathlib.Path(workdir)
        self._workdir.mkdir(parents=True, exist_ok=True)
        self._log = _reopen(self._workdir / LOG, step)
        self._scores = _reopen(self._workdir / SCORES, step)
        self._purge = None if step is None else step + 1  # TensorBoard hides what a killed run wrote later

    @functools.cached_property
    def _board(self) -> Any:
        """Made when there is something to write: it loads torch where that is installed, seconds long."""
        from tensorboardX import SummaryWriter

        return SummaryWriter(str(self._workdir / "tensorboard"), purge_step=self._purge, flush_secs=10)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def log(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Appends one log line and the same scalars to TensorBoard; the line's `step` comes first."""
        if self._enabled:
            self._line(self._log, step, scalars, prefix="")

    def scores(self, step: int, record: Mapping[str, Any]) -> None:
        """Appends one evaluation; its numbers go to TensorBoard under `scores/`."""
        if self._enabled:
            self._line(self._scores, step, record, prefix="scores/")

    def image(self, name: str, step: int, image: np.ndarray) -> None:
        """Saves a picture, [h, w, 3] uint8, as grids/<name>_<step>.png and in TensorBoard."""
        if not self._enabled:
            return
        image = np.asarray(image)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"{name}: a grid is [h, w, 3] uint8, got {list(image.shape)} {image.dtype}")
        folder = self._workdir / GRIDS
        folder.mkdir(exist_ok=True)
        partial = folder / f".{name}_{step:08d}.partial"
        PIL.Image.fromarray(image).save(partial, format="PNG")
        os.replace(partial, folder / f"{name}_{step:08d}.png")
        self._board.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Flushes and closes all files; a second call does nothing."""
        if self._enabled:
            self._enabled = False
            self._log.close()
            self._scores.close()
            if "_board" in vars(self):
                self._board.close()

    def _line(self, file: TextIO, step: int, record: Mapping[str, Any], prefix: str) -> None:
        clean = to_json({"step": step, **record})
        file.write(json.dumps(clean, allow_nan=False) + "\n")
        file.flush()
        for name, value in clean.items():
            if name != "step" and isinstance(value, int | float) and not isinstance(value, bool):
                self._board.add_scalar(prefix + name, value, step)


def _reopen(path: pathlib.Path, step: int | None) -> TextIO:
    """Opens a JSON-lines file for appending, without its torn last line and without lines after `step`."""
    records = read_jsonl(path)
    kept = [r for r in records if step is None or r.get("step", 0) <= step]
    text = "".join(json.dumps(r) + "\n" for r in kept)
    if path.exists() and path.read_bytes() != text.encode():
        files.replace(path, text)
    return open(path, "a", encoding="utf-8")
