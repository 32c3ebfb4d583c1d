"""Selection of training crops and their classes: functions `(crops, **settings) -> crops`.

`config.data.select` lists the steps of `STEPS` to apply, with their settings.
"""

import logging
from collections.abc import Callable, Sequence

import numpy as np

from jaxdog.data import crop_dataset, tables
from jaxdog.utils import errors

log = logging.getLogger(__name__)

LABELS = ("class", "cluster")


def draw(names: Sequence[str], n: int, seed: int) -> np.ndarray:
    """int32 [min(n, len(names))]: indices into `names`, sampled without replacement from the sorted names."""
    if not names or n < 1:
        raise errors.UserError(f"cannot sample {n} of {len(names)} photos")
    if n > len(names):
        log.warning("There are only %d photos, so %d are sampled instead of %d.", len(names), len(names), n)
    order = np.argsort(np.asarray(names), kind="stable")
    chosen = np.random.RandomState(seed).choice(len(names), min(n, len(names)), replace=False)
    return order[chosen].astype(np.int32)


def drop(crops: crop_dataset.CropDataset, names: tuple[str, ...]) -> crop_dataset.CropDataset:
    """All crops except the named ones.

    Args:
      crops: all crops.
      names: file names of photos, or `photo.jpg:1` for the second crop of one. Unknown names are
        logged only: the list may be for more photos than there are.
    """
    found, unknown = tables.is_listed(crops, names)
    if unknown:
        log.info("%d of %d names to drop are unknown (%s, ...)", len(unknown), len(names), unknown[0])
    return crop_dataset.subset(crops, ~found)


def from_csv(
    crops: crop_dataset.CropDataset, path: str, keep: bool, clusters: tuple[int, ...], labels: str
) -> crop_dataset.CropDataset:
    """The crops selected by a table, which `jaxdog clean` writes and which may be edited by hand.

    Args:
      crops: all crops, from any recipe; rows are matched by photo and box.
      path: the table, clean.csv.
      keep: whether to select only rows with keep = 1.
      clusters: select only these clusters; (): all crops, with or without a cluster.
      labels: "class": labels are unchanged; "cluster": clusters become the classes, in numerical order, and
        crops without a cluster are dropped.

    Raises:
      FileNotFoundError: the table does not exist.
      errors.UserError: the table is for other photos or boxes, lacks one of `clusters`, or selects nothing.
    """
    if labels not in LABELS:
        raise errors.UserError(f"from_csv: labels is {labels!r}; choices: {', '.join(LABELS)}")
    table = tables.read(path)
    try:
        rows = tables.match_rows(table, crops)
    except ValueError as error:
        raise errors.UserError(f"{path} does not fit these crops: {error}") from error
    cluster = table.cluster[rows]
    selected = table.keep[rows] if keep else np.ones(len(rows), bool)
    if clusters:
        selected = selected & np.isin(cluster, clusters)
    if labels == "cluster":
        selected = selected & (cluster != tables.NONE)
    missing = sorted(set(clusters) - set(cluster[selected].tolist()))
    if missing or not selected.any():
        known = sorted(set(table.cluster.tolist()) - {tables.NONE})
        what = f"in cluster {missing[0]}" if missing else f"with labels {labels!r}"
        raise errors.UserError(
            f"{path} keeps no crop {what}; its clusters: {', '.join(map(str, known)) or 'none'}. "
            f"{int(table.keep.sum())} of its {len(table.keep)} rows have keep = 1"
        )
    subset = crop_dataset.subset(crops, selected)
    if labels == "class":
        return subset
    clusters_left, label = np.unique(cluster[selected], return_inverse=True)
    class_names = tuple(f"cluster {c}" for c in clusters_left)
    return subset._replace(label=label.astype(np.int32), class_names=class_names)


def hold_out(crops: crop_dataset.CropDataset, every: int) -> crop_dataset.CropDataset:
    """The training split: all crops except those of every `every`-th photo.

    Samples are also scored against the held-out photos, the validation split (`is_held_out`).
    """
    if every < 2:
        raise errors.UserError(f"hold_out: every is {every}, and must be at least 2")
    return crop_dataset.subset(crops, ~is_held_out(crops.photo, every))


def is_held_out(photo: np.ndarray, every: int) -> np.ndarray:
    """bool [n]: whether each photo, given by its index, is in the validation split."""
    return photo % every == every - 1


def own_class(
    crops: crop_dataset.CropDataset, count: int, seed: int, crop_types: tuple[int, ...]
) -> crop_dataset.CropDataset:
    """A random sample of `count` crops, each in a class of its own, which is named after its photo.

    The crops are sampled by file name (`draw`), as by the memorizers of 2019.

    Args:
      crops: all crops.
      count: size of the sample; if there are fewer crops, all are used and a warning is logged.
      seed: seed of the sample.
      crop_types: the k-th sampled crop has type crop_types[k % len(crop_types)]. Crops of the first type are
        sampled. For another type, the sampled crop is replaced with that of the same photo.
    """
    if not crop_types:
        raise errors.UserError(
            "own_class: crop_types is empty, and must have at least one crop type, such as (0,)"
        )
    candidates = np.flatnonzero(crops.crop_type == crop_types[0])
    if len(candidates) == 0:
        known = sorted(set(crops.crop_type.tolist()))
        raise errors.UserError(f"own_class: no crop is of type {crop_types[0]}; crop types: {known}")
    rows = candidates[draw([crops.names[crops.photo[i]] for i in candidates], count, seed)]
    photos_and_types = list(zip(crops.photo.tolist(), crops.crop_type.tolist(), strict=True))
    first_row = {key: row for row, key in reversed([*enumerate(photos_and_types)])}
    for k, row in enumerate(rows.tolist()):
        photo, crop_type = int(crops.photo[row]), crop_types[k % len(crop_types)]
        if crops.crop_type[row] != crop_type:
            if (photo, crop_type) not in first_row:
                raise errors.UserError(f"own_class: {crops.names[photo]} has no crop of type {crop_type}")
            rows[k] = first_row[photo, crop_type]
    sample = crop_dataset.subset(crops, rows)
    class_names = tuple(crops.names[i] for i in sample.photo)
    return sample._replace(label=np.arange(len(rows), dtype=np.int32), class_names=class_names)


# The steps are applied in this order.
STEPS: dict[str, Callable[..., crop_dataset.CropDataset]] = {
    "drop": drop,
    "hold_out": hold_out,
    "from_csv": from_csv,
    "own_class": own_class,
}
