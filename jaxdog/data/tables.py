"""CSV tables: `clean.csv`, which lists whether to train on each crop, and readers for other tables.

Rows are matched to crops by photo and box, so a table applies to the crops of any recipe.
"""

import collections
import csv
import io
import os
import pathlib
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxdog.data import crop_dataset
from jaxdog.utils import errors, files

COLUMNS = (
    *("file", "photo", "crop", "xmin", "ymin", "xmax", "ymax"),
    *("area_fraction", "keep", "cluster", "reasons"),
)
NONE = -1  # cluster of a crop without a cluster


class Table(NamedTuple):
    """clean.csv: one row per crop."""

    file: tuple[str, ...]  # [n] file name of the photo
    photo: np.ndarray  # int [n], index of the photo in the source
    crop: np.ndarray  # int [n], index of the crop within its photo
    box: np.ndarray  # int [n, 4]: xmin, ymin, xmax, ymax in pixels of the photo
    area_fraction: np.ndarray  # float [n], area of the box / area of the photo
    keep: np.ndarray  # bool [n]
    cluster: np.ndarray  # int [n] or NONE
    reasons: tuple[str, ...]  # [n] reasons to drop it, separated by semicolons


def occurrence_indices(keys: Sequence[Any]) -> np.ndarray:
    """int [n]: number of earlier occurrences of each key."""
    counts: collections.Counter[Any] = collections.Counter()
    indices = []
    for key in keys:
        indices.append(counts[key])
        counts[key] += 1
    return np.asarray(indices, int)


def write(path: str | os.PathLike, table: Table) -> None:
    """Writes clean.csv atomically."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for i in range(len(table.file)):
        cluster = "" if table.cluster[i] == NONE else int(table.cluster[i])
        writer.writerow(
            [table.file[i], int(table.photo[i]), int(table.crop[i]), *table.box[i].tolist()]
            + [f"{table.area_fraction[i]:.4f}", int(table.keep[i]), cluster, table.reasons[i]]
        )
    files.write_text(path, out.getvalue())


def read(path: str | os.PathLike) -> Table:
    """Reads clean.csv, which may have been edited by hand; columns may be in any order.

    Raises FileNotFoundError, or errors.UserError, which names the line.
    """
    rows = read_rows(path, COLUMNS, "the crops to keep (written by jaxdog clean)")
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for line, row in rows:
        try:
            values = {name: _int64(row[name]) for name in ("photo", "crop", "xmin", "ymin", "xmax", "ymax")}
            values |= {"area_fraction": float(row["area_fraction"]), "keep": _bit(row["keep"])}
            values |= {"cluster": _int64(row["cluster"]) if row["cluster"] else NONE}
        except ValueError as error:
            raise errors.UserError(f"{path}, line {line}: {error}") from error
        values |= {"file": row["file"], "reasons": row["reasons"]}
        for name, value in values.items():
            columns[name].append(value)
    box = np.asarray([columns[name] for name in ("xmin", "ymin", "xmax", "ymax")], int).T
    return Table(
        tuple(columns["file"]),
        np.asarray(columns["photo"], int),
        np.asarray(columns["crop"], int),
        box,
        np.asarray(columns["area_fraction"], float),
        np.asarray(columns["keep"], bool),
        np.asarray(columns["cluster"], int),
        tuple(columns["reasons"]),
    )


def _int64(text: str) -> int:
    if not -(1 << 63) <= int(text) < 1 << 63:
        raise errors.UserError(f"{text[:40]} is not a 64-bit integer")
    return int(text)


def _bit(text: str) -> bool:
    if text not in ("0", "1"):
        raise errors.UserError(f"keep is {text!r}, and must be 0 or 1")
    return text == "1"


def read_rows(
    path: str | os.PathLike, columns: Iterable[str], what: str, drop_partial: bool = False
) -> list[tuple[int, dict[str, str]]]:
    """(line number, column -> text) for each row of a CSV file.

    Args:
      path: the file.
      columns: required names in the header, in any order.
      what: content of the table, for the error if the file is missing.
      drop_partial: ignore a last line without a line break, which is still being written.

    Raises FileNotFoundError, or errors.UserError for missing columns and cells.
    """
    content = read_text(path, f"a table of {what}")
    content = content[: content.rfind("\n") + 1] if drop_partial else content
    reader = csv.DictReader(io.StringIO(content, newline=""), strict=True)
    try:
        missing = [name for name in columns if name not in (reader.fieldnames or ())]
        if missing:
            raise errors.UserError(f"{path} has no column {missing[0]!r}; it needs: {', '.join(columns)}")
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise errors.UserError(f"{path}, line {reader.line_num + 1}: {error}") from error
    for line, row in rows:
        if None in row or None in row.values():
            raise errors.UserError(f"{path}, line {line}: its number of cells differs from the header")
    return rows


def read_text(path: str | os.PathLike, what: str) -> str:
    """Reads a UTF-8 text file; raises FileNotFoundError, which says `what` it should be, or UserError."""
    path = pathlib.Path(path).expanduser()
    if not path.is_file():
        raise errors.MissingFileError(
            f"{path} does not exist (looked from {os.getcwd()}); it should be {what}"
        )
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise errors.UserError(f"{path} is not UTF-8 text: {error}") from error


def match_rows(table: Table, crops: crop_dataset.CropDataset) -> np.ndarray:
    """int [n]: the row of each crop, matched by photo and box, for the crops of any recipe.

    The k-th crop of a box has the k-th row of that box; a single row applies to all crops of the box.

    Raises errors.UserError for a crop without a row, or one whose row is ambiguous.
    """
    if crops.box is None:
        raise errors.UserError("the boxes of these crops are unknown")
    rows_of_box: dict[Any, list[int]] = {}
    for row, key in enumerate(zip(table.file, map(tuple, table.box.tolist()), strict=True)):
        rows_of_box.setdefault(key, []).append(row)
    keys = [(crops.names[p], tuple(box)) for p, box in zip(crops.photo, crops.box.tolist(), strict=True)]
    missing = [key for key in keys if key not in rows_of_box]
    if missing:
        file, box = missing[0]
        raise errors.UserError(
            f"it has no row for {len(missing)} of the {len(keys)} crops, such as box {box} of {file}: it was "
            "made for other photos or boxes. Run jaxdog clean with this config"
        )
    matches = []
    counts = collections.Counter(keys)
    for key, occurrence in zip(keys, occurrence_indices(keys).tolist(), strict=True):
        rows = rows_of_box[key]
        if len(rows) > 1 and len(rows) != counts[key]:
            raise errors.UserError(
                f"it has {len(rows)} rows for the {counts[key]} crops of box {key[1]} of {key[0]}: it was "
                "made with another recipe. Run jaxdog clean with this config"
            )
        matches.append(rows[occurrence] if len(rows) > 1 else rows[0])
    return np.asarray(matches, int)


def crop_names(crops: crop_dataset.CropDataset) -> list[str]:
    """[n]: name of each crop, the file name of its photo, a colon, and its index within the photo."""
    index = occurrence_indices(crops.photo.tolist())
    return [f"{crops.names[p]}:{k}" for p, k in zip(crops.photo, index, strict=True)]


def is_listed(crops: crop_dataset.CropDataset, listed: Collection[str]) -> tuple[np.ndarray, list[str]]:
    """Which crops are listed, by name or by the name of their photo, and the listed names that are unknown.

    Args:
      crops: n crops.
      listed: names of photos, or of crops as by `crop_names`.

    Returns (bool [n], unknown names in order).
    """
    names = crop_names(crops)
    photos = [name.rpartition(":")[0] for name in names]
    found = [name in listed or photo in listed for name, photo in zip(names, photos, strict=True)]
    return np.asarray(found, bool), sorted({*listed} - {*names, *photos})
