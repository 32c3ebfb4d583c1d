"""Tables in CSV files: `clean.csv`, which says of each crop whether to train on it, and how others are read.

Rows are found again by photo and box, so that the crops of any recipe have theirs.
"""

import collections
import csv
import io
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxdog.data import photos
from jaxdog.utils import files

COLUMNS = (
    *("file", "photo", "crop", "xmin", "ymin", "xmax", "ymax"),
    *("share", "keep", "cluster", "reasons"),
)
NONE = -1  # the cluster of a crop that has none


class Table(NamedTuple):
    """clean.csv: a row per crop."""

    file: tuple[str, ...]  # name of the photo
    photo: np.ndarray  # int [n], its number among the photos of the source
    crop: np.ndarray  # int [n], number of the crop among those of its photo, from 0
    box: np.ndarray  # int [n, 4]: xmin, ymin, xmax, ymax, pixels of the photo
    share: np.ndarray  # float [n], of the photo's area that the box takes
    keep: np.ndarray  # bool [n]
    cluster: np.ndarray  # int [n]; NONE: in none
    reasons: tuple[str, ...]  # why it is not kept, separated by semicolons


def running(keys: Sequence[Any]) -> np.ndarray:
    """int [n]: how often each key stands before."""
    seen: dict[Any, int] = {}
    found = []
    for key in keys:
        found.append(seen.get(key, 0))
        seen[key] = found[-1] + 1
    return np.asarray(found, int)


def write(path: str | os.PathLike, rows: Table) -> None:
    """Writes clean.csv, whole or not at all."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for i in range(len(rows.file)):
        cluster = "" if rows.cluster[i] == NONE else int(rows.cluster[i])
        writer.writerow(
            [rows.file[i], int(rows.photo[i]), int(rows.crop[i]), *rows.box[i].tolist()]
            + [f"{rows.share[i]:.4f}", int(rows.keep[i]), cluster, rows.reasons[i]]
        )
    files.replace(path, out.getvalue())


def read(path: str | os.PathLike) -> Table:
    """Reads clean.csv, also one that was changed by hand; columns may stand in any order.

    Raises FileNotFoundError, or ValueError naming the line.
    """
    found = rows_of(path, COLUMNS, "which crops to keep (mode clean writes one)")
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for number, row in found:
        try:
            values = {name: int(row[name]) for name in ("photo", "crop", "xmin", "ymin", "xmax", "ymax")}
            values |= {"share": float(row["share"]), "keep": _bit(row["keep"])}
            values |= {"cluster": int(row["cluster"]) if row["cluster"] else NONE}
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        values |= {"file": row["file"], "reasons": row["reasons"]}
        for name, value in values.items():
            columns[name].append(value)
    box = np.asarray([columns[name] for name in ("xmin", "ymin", "xmax", "ymax")], int).T
    return Table(
        tuple(columns["file"]),
        np.asarray(columns["photo"], int),
        np.asarray(columns["crop"], int),
        box,
        np.asarray(columns["share"], float),
        np.asarray(columns["keep"], bool),
        np.asarray(columns["cluster"], int),
        tuple(columns["reasons"]),
    )


def _bit(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError(f"keep is {text!r}, and must be 0 or 1")
    return text == "1"


def rows_of(
    path: str | os.PathLike, columns: Iterable[str], what: str, torn: bool = False
) -> list[tuple[int, dict[str, str]]]:
    """(line, column -> text) of each row of a CSV file; raises ValueError for missing columns and cells.

    With `torn`, a last line without its end does not count.
    """
    whole = text(path, f"a table of {what}")
    whole = whole[: whole.rfind("\n") + 1] if torn else whole
    reader = csv.DictReader(io.StringIO(whole, newline=""), strict=True)
    try:
        missing = [name for name in columns if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"{path} has no column {missing[0]!r}; it needs: {', '.join(columns)}")
        found = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num + 1}: {error}") from error
    for number, row in found:
        if None in row or None in row.values():
            raise ValueError(f"{path}, line {number}: it has not as many cells as the first line")
    return found


def text(path: str | os.PathLike, what: str) -> str:
    """A text file in UTF-8; raises FileNotFoundError saying `what` it should be, or ValueError."""
    path = pathlib.Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist (looked from {os.getcwd()}); it should be {what}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8: {error}") from error


def matched(rows: Table, crops: photos.Crops) -> np.ndarray:
    """int [n]: the row that speaks of each crop, found by photo and box, so that any recipe's crops have one.

    The k-th crop of a box has the k-th row of that box; one row alone holds for all crops of the box.

    Raises ValueError for a crop of which no row speaks, or of which it is unclear which one does.
    """
    if crops.box is None:
        raise ValueError("the crops do not know which boxes they were made of")
    places: dict[Any, list[int]] = {}
    for i, key in enumerate(zip(rows.file, map(tuple, rows.box.tolist()), strict=True)):
        places.setdefault(key, []).append(i)
    keys = [(crops.names[p], tuple(box)) for p, box in zip(crops.photo, crops.box.tolist(), strict=True)]
    missing = [key for key in keys if key not in places]
    if missing:
        file, box = missing[0]
        raise ValueError(
            f"it has no row for {len(missing)} of the {len(keys)} crops, such as box {box} of {file}: it was "
            "made of other photos or boxes. Run --mode clean on this config"
        )
    found = []
    turns = running(keys)
    counts = collections.Counter(keys)
    for key, turn in zip(keys, turns.tolist(), strict=True):
        of = places[key]
        if len(of) > 1 and len(of) != counts[key]:
            raise ValueError(
                f"it has {len(of)} rows for box {key[1]} of {key[0]}, of which there are {counts[key]} "
                "crops: it was made with another recipe. Run --mode clean on this config"
            )
        found.append(of[turn] if len(of) > 1 else of[0])
    return np.asarray(found, int)
