"""What becomes of a set of crops before a run trains on it: `(crops, **settings) -> crops`."""

import logging
from collections.abc import Callable, Sequence

import numpy as np

from jaxdog.data import photos, tables

log = logging.getLogger(__name__)

LABELS = ("breed", "cluster")


def draw(names: Sequence[str], n: int, seed: int) -> np.ndarray:
    """int32 [min(n, len(names))], places in `names` drawn without replacement after sorting them by name."""
    if not names or n < 1:
        raise ValueError(f"cannot draw {n} of {len(names)} photos")
    if n > len(names):
        log.warning("There are %d photos, so %d pictures are made instead of %d.", len(names), len(names), n)
    order = np.argsort(np.asarray(names), kind="stable")
    chosen = np.random.RandomState(seed).choice(len(names), min(n, len(names)), replace=False)
    return order[chosen].astype(np.int32)


def from_csv(
    crops: photos.Crops, path: str, keep: bool, clusters: tuple[int, ...], labels: str
) -> photos.Crops:
    """The crops that a table made by mode clean, or by hand, speaks for.

    Args:
      crops: all of them, of any recipe: rows are found by photo and box.
      path: the table, clean.csv.
      keep: only those with keep = 1.
      clusters: only those in these clusters; (): in any, or in none.
      labels: "breed": breeds stay the classes; "cluster": clusters are, in order of their numbers, and what
        is in none is left out.

    Raises ValueError for a table of other photos or boxes, for clusters that it lacks, or if nothing is left;
    FileNotFoundError where there is none.
    """
    if labels not in LABELS:
        raise ValueError(f"from_csv: labels is {labels!r}; choices: {', '.join(LABELS)}")
    rows = tables.read(path)
    try:
        index = tables.matched(rows, crops)
    except ValueError as error:
        raise ValueError(f"{path} does not fit these crops: {error}") from error
    cluster = rows.cluster[index]
    wanted = rows.keep[index] if keep else np.ones(len(index), bool)
    if clusters:
        wanted = wanted & np.isin(cluster, clusters)
    if labels == "cluster":
        wanted = wanted & (cluster != tables.NONE)
    lacking = sorted(set(clusters) - set(cluster[wanted].tolist()))
    if lacking or not wanted.any():
        there = sorted(set(rows.cluster.tolist()) - {tables.NONE})
        what = f"in cluster {lacking[0]}" if lacking else f"with labels {labels!r}"
        raise ValueError(
            f"{path} keeps no crop {what}; its clusters: {', '.join(map(str, there)) or 'none'}. "
            f"{int(rows.keep.sum())} of its {len(rows.keep)} rows have keep = 1"
        )
    left = photos.chosen(crops, wanted)
    if labels == "breed":
        _warn_of_empty(left)
        return left
    number, label = np.unique(cluster[wanted], return_inverse=True)
    return left._replace(label=label.astype(np.int32), breeds=tuple(f"cluster {c}" for c in number))


def _warn_of_empty(crops: photos.Crops) -> None:
    """A breed without crops is never learnt, but still drawn."""
    empty = sorted(set(range(len(crops.breeds))) - set(crops.label.tolist()))
    if empty:
        log.warning(
            "No crop is left of %d breeds (%s, ...): leave them out of the samples with "
            "--config.sample.without='%s'",
            len(empty),
            crops.breeds[empty[0]],
            tuple(empty),
        )


def hold_out(crops: photos.Crops, every: int) -> photos.Crops:
    """All crops but those of every `every`-th photo, against which pictures are scored besides.

    Every crop of such a photo is left out. The photos are `held_out`.
    """
    if every < 2:
        raise ValueError(f"hold_out: every is {every}, and must be at least 2")
    return photos.chosen(crops, ~held_out(crops.photo, every))


def held_out(photo: np.ndarray, every: int) -> np.ndarray:
    """Which numbers of photos [n] are held out, bool [n]."""
    return photo % every == every - 1


def own_class(crops: photos.Crops, count: int, seed: int, kinds: tuple[int, ...]) -> photos.Crops:
    """`count` of the crops in the order of a draw; each is a class of its own, called like its photo.

    The draw is that of 2019's memorizers (`cheats.draw`): without replacement, over file names in order.

    Args:
      crops: all of them.
      count: how many are kept; all, and a warning, if there are fewer.
      seed: another seed is another choice.
      kinds: crop k is of kind kinds[k % len(kinds)]. The first of them are drawn among, the others belong to
        the same photos.
    """
    if not kinds:
        raise ValueError("own_class: kinds is empty, and must name at least one kind of crop; say (0,)")
    among = np.flatnonzero(crops.kind == kinds[0])
    if len(among) == 0:
        raise ValueError(
            f"own_class: no crop is of kind {kinds[0]}; kinds: {sorted(set(crops.kind.tolist()))}"
        )
    rows = among[draw([crops.names[crops.photo[i]] for i in among], count, seed)]
    place = {
        (int(p), int(k)): i for i, (p, k) in reversed([*enumerate(zip(crops.photo, crops.kind, strict=True))])
    }
    for k, row in enumerate(rows.tolist()):
        wanted = (int(crops.photo[row]), kinds[k % len(kinds)])
        if crops.kind[row] != wanted[1]:
            if wanted not in place:
                raise ValueError(f"own_class: {crops.names[wanted[0]]} has no crop of kind {wanted[1]}")
            rows[k] = place[wanted]
    drawn = photos.chosen(crops, rows)
    breeds = tuple(crops.names[i] for i in drawn.photo)
    return drawn._replace(label=np.arange(len(rows), dtype=np.int32), breeds=breeds)


# In this order.
STEPS: dict[str, Callable[..., photos.Crops]] = {
    "hold_out": hold_out,
    "from_csv": from_csv,
    "own_class": own_class,
}
