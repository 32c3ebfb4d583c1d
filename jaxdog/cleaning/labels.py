"""Labels given by hand: one row of a CSV file for each keystroke, on disk before the next crop is shown.

Only ever appended to, so a crash costs at most the row that was being written. `undo` is a row, too: what
stands is what a reader of the whole file arrives at.
"""

import csv
import io
import os
import pathlib
from typing import NamedTuple

from jaxdog.data import photos, tables
from jaxdog.utils import files

LABELS = ("near", "far", "skip")  # skip: cannot be told
CLUSTERS = {"near": 0, "far": 1}  # as clusters; skipped crops and those not labelled are in none
UNDO = "undo"
COLUMNS = ("file", "xmin", "ymin", "xmax", "ymax", "number", "label")

# A crop: name of its photo, its box, and which of this box's crops it is.
Crop = tuple[str, tuple[int, int, int, int], int]


class Labels(NamedTuple):
    """What a file says in the end."""

    label: dict[Crop, str]  # one of LABELS
    order: tuple[Crop, ...]  # in which they were given; a crop taken back is not in it


def keys(crops: photos.Crops) -> list[Crop]:
    """What each crop is called in the file; another recipe's crops of the same boxes have the same names."""
    if crops.box is None:
        raise ValueError("the crops do not know which boxes they were made of")
    boxes = [(crops.names[p], tuple(box)) for p, box in zip(crops.photo, crops.box.tolist(), strict=True)]
    return [(*key, int(k)) for key, k in zip(boxes, tables.running(boxes), strict=True)]


def read(path: str | os.PathLike) -> Labels:
    """What the file says; a last row that was cut off in writing does not count.

    Raises FileNotFoundError, or ValueError naming the line.
    """
    found: dict[Crop, str] = {}
    for number, row in tables.rows_of(path, COLUMNS, "labels (mode label writes one)", torn=True):
        try:
            sides = [int(row[name]) for name in COLUMNS[1:6]]
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        key = (row["file"], (sides[0], sides[1], sides[2], sides[3]), sides[4])
        before = found.pop(key, None)  # a label given again is the latest
        if row["label"] == UNDO and before is not None:
            continue
        if row["label"] not in LABELS:
            raise ValueError(
                f"{path}, line {number}: the label is {row['label']!r}; choices: {', '.join(LABELS)}, or "
                f"{UNDO} after one of them"
            )
        found[key] = row["label"]
    return Labels(found, tuple(found))


class Log:
    """The file, open for appending; begun if it is not there, and its torn last row cut off.

    Not safe for several threads or processes at once.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.is_file() or not self.path.stat().st_size:
            files.replace(self.path, _line(COLUMNS))
        read(self.path)  # a file of something else is left alone
        os.truncate(self.path, self.path.read_bytes().rfind(b"\n") + 1)
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND)

    def append(self, crop: Crop, label: str) -> None:
        """One row, in one write, on disk when the call returns."""
        file, box, number = crop
        row = _line((file, *box, number, label)).encode()
        if os.write(self._file, row) != len(row):
            raise OSError(f"{self.path} took only a part of a row: is the disk full?")
        os.fsync(self._file)

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)


def _line(cells: tuple) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue()
