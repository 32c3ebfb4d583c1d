"""The cheats of 2019, made again as test cases for scorers. They were banned, and are no way to make dogs.

Both showed training photos in a light disguise to the competition's metric, which looked only for nearly
equal features: "imitation" blends a trace of another photo in, "memorizer" gives crops that a network had
learnt by heart (the network adds nothing to what a scorer sees, so none is trained here).
"""

import concurrent.futures
import functools
import logging
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tqdm

from jaxdog.data import cropping, photos, select

log = logging.getLogger(__name__)

# The crops that each memorizer learnt; picture i is cut by recipe i modulo their number.
MEMORIZERS: dict[str, tuple[Callable[..., list[np.ndarray]], ...]] = {
    "corner": (cropping.corner,),
    "top-left": (functools.partial(cropping.top_left_square, which="first"),),
    "upper-middle": (cropping.upper_middle, cropping.upper_middle, cropping.short_side_center),
}
IMITATIONS: dict[str, Callable[..., list[np.ndarray]]] = {
    "whole": cropping.squash,
    "box": functools.partial(cropping.box_square, mode="clip", which="first"),
}
HIRUNE_SEED = 57  # the choice of photos that scored best, found by trying
WARNING = "This system memorises its training pictures; such entries were disqualified in 2019."


class Cheat(NamedTuple):
    """Pictures that pretend to be generated, and where they come from."""

    image: np.ndarray  # uint8 [n, size, size, 3]
    photo: np.ndarray  # int32 [n], index into the source's photos


def memorizer(
    source: photos.Source, recipe: str = "corner", n: int = 10_000, size: int = 64, seed: int = HIRUNE_SEED
) -> Cheat:
    """Crops of n photos, drawn without replacement from the list of file names in order.

    The draw is the published one (numpy's RandomState of `seed`), so on the competition's 20,579 files the
    10,000 pictures are those of the entry that scored 5.175.

    Args:
      source: the training photos. With fewer than n, all are used and that is logged.
      recipe: "corner" (hirune924), "top-left" or "upper-middle" (cdeotte); see MEMORIZERS.
      n: number of pictures; photos that cannot be read or cropped make it fewer.
      size: side of the pictures.
      seed: another seed is another choice.
    """
    recipes = _choose(recipe, MEMORIZERS)
    index = select.draw([photo.name for photo in source.photos], n, seed)
    image, kept = _cut(source, index, recipes, size)
    return Cheat(image, index[kept])


def imitation(
    source: photos.Source,
    recipe: str = "whole",
    n: int = 10_000,
    size: int = 64,
    share: float = 0.999,
    seed: int = 0,
) -> Cheat:
    """n training photos, a trace of another one in each: "Imitation Game", 0.999 : 0.001 in 2019.

    Args:
      source: the training photos, at least 2. With fewer than n, all are used and that is logged.
      recipe: "whole" photos squashed, or clipped to their first "box".
      n: number of pictures; photos that cannot be read or cropped make it fewer.
      size: side of the pictures.
      share: weight of the photo that `Cheat.photo` names.
      seed: chooses the photos.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share}; a blend needs 0 <= share <= 1")
    recipes = (_choose(recipe, IMITATIONS),)
    index = select.draw([photo.name for photo in source.photos], n, seed)
    image, kept = _cut(source, index, recipes, size)
    if len(image) < 2:
        raise ValueError(f"{source.key} gives {len(image)} pictures, but a blend needs 2")
    other = np.roll(image, 1, axis=0)  # the photos are in random order already
    blend = np.float32(share) * image + np.float32(1 - share) * other
    return Cheat(np.rint(blend).astype(np.uint8), index[kept])


def upper_middle_and_center(
    photo: np.ndarray, boxes: Sequence[photos.Box] = (), *, size: int, resampler: str = "lanczos"
) -> list[photos.Kept]:
    """Both crops of cdeotte's supervised net, kinds 0 (two of three pictures showed it) and 1 (the third)."""
    cut = cropping.upper_middle(photo, boxes, size=size, resampler=resampler)
    cut += cropping.short_side_center(photo, boxes, size=size, resampler=resampler)
    return [photos.Kept(image, (size, size), kind) for kind, image in enumerate(cut)]


RECIPES: dict[str, Callable[..., list[photos.Kept]]] = {"upper_middle_and_center": upper_middle_and_center}


def _cut(
    source: photos.Source, index: np.ndarray, recipes: Sequence[Callable[..., list[np.ndarray]]], size: int
) -> tuple[np.ndarray, np.ndarray]:
    """The first crop of each photo, uint8 [k, size, size, 3], and which of the photos gave one, int [k]."""

    def one(k: int) -> list[np.ndarray]:
        photo = source.photos[int(index[k])]
        try:
            return recipes[k % len(recipes)](photo.read(), photo.boxes, size=size)[:1]
        except OSError as error:
            log.warning("Skipped a broken photo, %s: %s", photo.name, error)
            return []

    pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        bar = tqdm.tqdm(
            pool.map(one, range(len(index))), "cropping photos", len(index), leave=False, disable=None
        )
        found = list(bar)
    finally:
        pool.shutdown(cancel_futures=True)
    kept = np.flatnonzero([len(crops) for crops in found])
    if len(kept) == 0:
        raise ValueError(f"none of the {len(index)} photos drawn from {source.key} gave a crop")
    return np.stack([found[k][0] for k in kept]), kept


def _choose(recipe: str, choices: dict):
    if recipe not in choices:
        raise ValueError(f"recipe is {recipe!r}; it can be {', '.join(map(repr, choices))}")
    return choices[recipe]
