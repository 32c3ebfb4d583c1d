"""Logs of a run: log.jsonl, scores.jsonl, PNG grids and TensorBoard.

Only one process may write; the others use `Writer(..., enabled=False)`, which does nothing.
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

from jaxdog.utils import errors, files

LOG = "log.jsonl"
SCORES = "scores.jsonl"
SWEEP = "sweep.json"  # scores of the sampling options, for the best checkpoint
GRIDS = "grids"


def read_jsonl(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The records of a JSON-lines file; [] if there is no file. A last line truncated by a crash is ignored.

    Raises UserError if any other line is not a JSON object.
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
                raise errors.UserError("not an object")
        except ValueError as error:
            if any(later.strip() for later in lines[number:]):
                raise errors.UserError(
                    f"{path}: line {number} is not a JSON object: {line[:80]!r}"
                ) from error
            break
        records.append(record)
    return records


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
    """Writes a run's logs in `workdir`. A context manager; each line is on disk when the call returns.

    Args:
      workdir: created if missing.
      step: the step that this session starts from. Lines of later steps, which a killed run wrote after its
        last checkpoint, are removed, so that no step is logged twice. None: keep all lines.
      enabled: if False, every method does nothing.
    """

    def __init__(self, workdir: str | os.PathLike[str], step: int | None = 0, enabled: bool = True) -> None:
        self._enabled = enabled
        if not enabled:
            return
        self._workdir = pathlib.Path(workdir)
        self._workdir.mkdir(parents=True, exist_ok=True)
        self._log = _reopen(self._workdir / LOG, step)
        self._scores = _reopen(self._workdir / SCORES, step)
        self._purge = None if step is None else step + 1  # TensorBoard hides the same later steps

    @functools.cached_property
    def _board(self) -> Any:
        """Created at the first write: the import takes seconds where torch is installed."""
        from tensorboardX import SummaryWriter

        return SummaryWriter(str(self._workdir / "tensorboard"), purge_step=self._purge, flush_secs=10)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def log(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Appends a line to log.jsonl, `step` first, and the scalars to TensorBoard."""
        if self._enabled:
            self._line(self._log, step, scalars, prefix="")

    def scores(self, step: int, record: Mapping[str, Any]) -> None:
        """Appends a line to scores.jsonl, and its numbers to TensorBoard under `scores/`."""
        if self._enabled:
            self._line(self._scores, step, record, prefix="scores/")

    def image(self, name: str, step: int, image: np.ndarray) -> None:
        """Saves an image, [h, w, 3] uint8, as grids/<name>_<step>.png and in TensorBoard."""
        if not self._enabled:
            return
        image = np.asarray(image)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise errors.UserError(
                f"{name}: a grid is [h, w, 3] uint8, got {list(image.shape)} {image.dtype}"
            )
        with files.atomic_path(self._workdir / GRIDS / f"{name}_{step:08d}.png") as temporary:
            PIL.Image.fromarray(image).save(temporary, format="PNG")
        self._board.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Closes all files; a second call does nothing."""
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
    """Opens a JSON-lines file for appending; removes an incomplete last line and lines after `step`."""
    records = read_jsonl(path)
    kept = [r for r in records if step is None or r.get("step", 0) <= step]
    text = "".join(json.dumps(r) + "\n" for r in kept)
    if path.exists() and path.read_bytes() != text.encode():
        files.write_text(path, text)
    return open(path, "a", encoding="utf-8")
