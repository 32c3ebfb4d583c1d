"""What becomes of a set of crops before a run trains on it: `(crops, **settings) -> crops`."""

from collections.abc import Callable

import numpy as np

from jaxdog.data import cheats, photos


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
    rows = among[cheats.draw([crops.names[crops.photo[i]] for i in among], count, seed)]
    place = {
        (int(p), int(k)): i for i, (p, k) in reversed([*enumerate(zip(crops.photo, crops.kind, strict=True))])
    }
    for k, row in enumerate(rows.tolist()):
        wanted = (int(crops.photo[row]), kinds[k % len(kinds)])
        if crops.kind[row] != wanted[1]:
            if wanted not in place:
                raise ValueError(f"own_class: {crops.names[wanted[0]]} has no crop of kind {wanted[1]}")
            rows[k] = place[wanted]
    return photos.Crops(
        image=crops.image[rows],
        label=np.arange(len(rows), dtype=np.int32),
        photo=crops.photo[rows],
        extent=crops.extent[rows],
        kind=crops.kind[rows],
        names=crops.names,
        breeds=tuple(crops.names[i] for i in crops.photo[rows]),
        broken=crops.broken,
    )


STEPS: dict[str, Callable[..., photos.Crops]] = {"own_class": own_class}
