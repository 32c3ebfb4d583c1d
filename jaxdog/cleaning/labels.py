"""Manual labels: a CSV file with one row per answer, written before the next crop is shown.

Rows are only appended, so a crash loses at most the row being written. A row with label "undo" removes the
crop's label, if it has one.
"""

import csv
import io
import os
import pathlib
from typing import NamedTuple

from jaxdog.data import crop_dataset, photos, tables
from jaxdog.utils import errors, files

LABELS = ("near", "far", "skip")  # "skip": undecided
CLUSTERS = {"near": 0, "far": 1}  # cluster of each label; other crops have no cluster
UNDO = "undo"
BINARY = getattr(os, "O_BINARY", 0)  # else Windows writes other line breaks
COLUMNS = ("file", "xmin", "ymin", "xmax", "ymax", "number", "label")
CONTENT = "labels (written by jaxdog label)"

CropKey = tuple[str, photos.Box, int]  # file name of the photo, box, index of the crop within the box


class Labels(NamedTuple):
    """The labels in a file, with all undos applied."""

    label: dict[CropKey, str]  # one of LABELS
    order: tuple[CropKey, ...]  # the crops in order of labeling


def crop_keys(crops: crop_dataset.CropDataset) -> list[CropKey]:
    """[n]: the key of each crop in the file; crops of the same boxes by another recipe have the same keys."""
    if crops.box is None:
        raise errors.UserError("the boxes of these crops are unknown")
    boxes = [(crops.names[p], tuple(box)) for p, box in zip(crops.photo, crops.box.tolist(), strict=True)]
    return [(*key, int(k)) for key, k in zip(boxes, tables.occurrence_indices(boxes), strict=True)]


def read(path: str | os.PathLike) -> Labels:
    """The labels in a file; an incomplete last row, which may still be written, is ignored.

    Raises FileNotFoundError, or errors.UserError, which names the line.
    """
    data = tables.read_text(path, f"a table of {CONTENT}").encode()
    labels: dict[CropKey, str] = {}
    for line, row in tables.read_rows(path, COLUMNS, CONTENT, drop_partial=_whole(data) < len(data)):
        try:
            xmin, ymin, xmax, ymax, index = (int(row[name]) for name in COLUMNS[1:6])
        except ValueError as error:
            raise errors.UserError(f"{path}, line {line}: {error}") from error
        key = (row["file"], (xmin, ymin, xmax, ymax), index)
        labels.pop(key, None)  # a new label moves to the end of the order
        if row["label"] == UNDO:
            continue
        if row["label"] not in LABELS:
            raise errors.UserError(
                f"{path}, line {line}: the label is {row['label']!r}; choices: {', '.join(LABELS)}, {UNDO}"
            )
        labels[key] = row["label"]
    return Labels(labels, tuple(labels))


def _whole(data: bytes) -> int:
    """The bytes of a file up to an incomplete last row; a row that only lacks its line end is complete."""
    end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
    last = data[end:].rpartition(b",")[2]
    return len(data) if last in [label.encode() for label in (*LABELS, UNDO)] else end


class LabelLog:
    """The file, open for appending; created if missing, and an incomplete last row is removed.

    Not thread-safe, and not safe for several processes.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)
        if not self.path.is_file() or not self.path.stat().st_size:
            files.write_text(self.path, _csv_line(COLUMNS))
        read(self.path)  # raises before a file of another kind is changed
        data = self.path.read_bytes()
        whole = data[: _whole(data)]
        os.truncate(self.path, len(whole))
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | BINARY)
        if not whole.endswith((b"\n", b"\r")):
            os.write(self._file, b"\n")

    def append(self, crop: CropKey, label: str) -> None:
        """Writes a row in one call; it is on disk when this returns. A part of a row is removed again."""
        file, box, index = crop
        row = _csv_line((file, *box, index, label)).encode()
        length = os.fstat(self._file).st_size
        try:
            if os.write(self._file, row) != len(row):
                raise OSError(f"only a part of a row could be written to {self.path}: is the disk full?")
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, length)
            raise

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)


def _csv_line(cells: tuple) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue()
