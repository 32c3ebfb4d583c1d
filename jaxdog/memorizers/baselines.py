"""The images of disqualified entries of 2019, as positive examples for copy detection.

Each shows training photos in a light disguise: "imitation" blends in a trace of another photo, "memorizer"
shows crops that a network had memorized. The network adds nothing that a metric can see, so none is trained
here; `memorizers.system` trains them.
"""

import functools
import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxdog.data import crop_recipes, crop_recipes_2019, photos, select
from jaxdog.utils import errors

log = logging.getLogger(__name__)

CropRecipe = Callable[..., list[photos.Crop]]

# The crops that each memorizer learned; image i is cut by recipe i modulo their number.
MEMORIZERS: dict[str, tuple[CropRecipe, ...]] = {
    "corner": (crop_recipes_2019.corner,),
    "top-left": (functools.partial(crop_recipes_2019.top_left_square, which="first"),),
    "upper-middle": (
        crop_recipes_2019.upper_middle,
        crop_recipes_2019.upper_middle,
        crop_recipes.short_side_center,
    ),
}
IMITATIONS: dict[str, CropRecipe] = {
    "whole": crop_recipes.squash,
    "box": functools.partial(crop_recipes.box_square, mode="clip", which="first", max_aspect=float("inf")),
}
HIRUNE_SEED = 57  # the choice of photos with the best score, found by search
WARNING = "This system memorizes its training images; such entries were disqualified in 2019."


class Cheat(NamedTuple):
    """Images that are passed off as generated, and the photos that they show."""

    image: np.ndarray  # uint8 [n, size, size, 3]
    photo: np.ndarray  # int32 [n], index into the source's photos


def memorizer(
    source: photos.Source, recipe: str = "corner", n: int = 10_000, size: int = 64, seed: int = HIRUNE_SEED
) -> Cheat:
    """Crops of n photos, drawn without replacement from the sorted list of file names.

    The draw is the published one (numpy's RandomState of `seed`): on the competition's 20,579 files the
    10,000 images are those of the entry that scored 5.175.

    Args:
      source: the training photos. With fewer than n, all are used and a message is logged.
      recipe: a key of MEMORIZERS: "corner" (hirune924), "top-left" or "upper-middle" (cdeotte).
      n: number of images; photos that cannot be read or cropped make it fewer.
      size: height and width of the images.
      seed: of the choice of photos.

    Raises:
      UserError: an unknown recipe, a photo that the system does not let be read, or no photo gave a crop.
    """
    recipes = _choose(recipe, MEMORIZERS)
    index = select.draw([photo.name for photo in source.photos], n, seed)
    image, kept = _crop(source, index, recipes, size)
    return Cheat(image, index[kept])


def imitation(
    source: photos.Source,
    recipe: str = "whole",
    n: int = 10_000,
    size: int = 64,
    blend_weight: float = 0.999,
    seed: int = 0,
) -> Cheat:
    """n training photos, each blended with another one: "Imitation Game", 0.999 : 0.001 in 2019.

    Args:
      source: the training photos, at least 2. With fewer than n, all are used and a message is logged.
      recipe: a key of IMITATIONS: "whole" squashes the photo, "box" clips it to its first box.
      n: number of images; photos that cannot be read or cropped make it fewer.
      size: height and width of the images.
      blend_weight: in [0, 1], of the photo that `Cheat.photo` names.
      seed: of the choice of photos.

    Raises:
      UserError: an unknown recipe, a weight outside [0, 1], or fewer than 2 crops.
    """
    if not 0 <= blend_weight <= 1:
        raise errors.UserError(f"blend_weight is {blend_weight}; a blend needs 0 <= blend_weight <= 1")
    recipes = (_choose(recipe, IMITATIONS),)
    index = select.draw([photo.name for photo in source.photos], n, seed)
    image, kept = _crop(source, index, recipes, size)
    if len(image) < 2:
        raise errors.UserError(f"{source.key} gives {len(image)} images, but a blend needs 2")
    other = np.roll(image, 1, axis=0)  # the photos are in random order already
    blend = np.float32(blend_weight) * image + np.float32(1 - blend_weight) * other
    return Cheat(np.rint(blend).astype(np.uint8), index[kept])


def _crop(
    source: photos.Source, index: np.ndarray, recipes: Sequence[CropRecipe], size: int
) -> tuple[np.ndarray, np.ndarray]:
    """The first crop of each photo, uint8 [k, size, size, 3], and which photos gave one, int [k]."""

    def crop(k: int) -> list[photos.Crop]:
        photo = source.photos[int(index[k])]
        try:
            return recipes[k % len(recipes)](photo.read(), photo.boxes, size=size)[:1]
        except OSError as error:
            log.warning("Skipped a broken photo, %s: %s", photo.name, photos.why_broken(photo.name, error))
            return []

    with photos.thread_map(crop, range(len(index)), "cropping photos") as results:
        crops = list(results)
    kept = np.flatnonzero([len(x) for x in crops])
    if len(kept) == 0:
        raise errors.UserError(f"none of the {len(index)} photos drawn from {source.key} gave a crop")
    return np.stack([crops[k][0].image for k in kept]), kept


def _choose(recipe: str, choices: dict):
    if recipe not in choices:
        raise errors.UserError(f"recipe is {recipe!r}; choices: {', '.join(map(repr, choices))}")
    return choices[recipe]
