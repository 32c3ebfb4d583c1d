"""The dog without what is around it: GrabCut, started from its box (Rother, Kolmogorov and Blake, 2004).

OpenCV cuts; it is imported when the first picture is cut, and comes with the extra `clean`.
"""

import numpy as np

from jaxdog.data import cropping, photos
from jaxdog.utils import optional

SIDE = 128  # the longer side, in pixels, at which photos are cut
AROUND = 0.5  # of the box's sides, on each of its own, what of the photo is looked at
RIM = 0.04  # of the sides of what is looked at: surely no dog, even where the box reaches as far
ROUNDS = 3
MIXTURES_SEED = 0  # GrabCut's colour mixtures begin with a draw


def dog(photo: np.ndarray, box: photos.Box) -> np.ndarray:
    """Which pixels of a box [h, w] show the dog: bool [h, w].

    Where GrabCut finds no dog, or nothing around it, all of them do.

    Args:
      photo: uint8 [_, _, 3].
      box: within the photo, not empty.
    """
    cv2 = optional.load("cv2", "segmentation")
    height, width, _ = photo.shape
    margin = float(AROUND)
    view = cropping.clip(cropping.add_margin(box, margin), height, width)
    h, w = view[3] - view[1], view[2] - view[0]
    scale = min(1.0, SIDE / max(h, w))
    small = cropping.resize(
        cropping.take(photo, view), max(round(h * scale), 1), max(round(w * scale), 1), "box"
    )
    rect = _inside(box, view, small.shape[0], small.shape[1])
    everything = np.ones((box[3] - box[1], box[2] - box[0]), bool)
    if rect is None:
        return everything
    mask = np.zeros(small.shape[:2], np.uint8)
    cv2.setRNGSeed(MIXTURES_SEED)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(small, mask, rect, *models, ROUNDS, cv2.GC_INIT_WITH_RECT)
    found = ((mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD)).astype(np.uint8)
    full = cv2.resize(found, (w, h), interpolation=cv2.INTER_NEAREST).astype(bool)
    xmin, ymin = box[0] - view[0], box[1] - view[1]
    cut = full[ymin : ymin + everything.shape[0], xmin : xmin + everything.shape[1]]
    return cut if cut.any() else everything


def _inside(box: photos.Box, view: photos.Box, h: int, w: int) -> tuple[int, int, int, int] | None:
    """x, y, width, height of a box in a view shrunk to h x w, a rim left free; None where nothing is left."""
    rim_x, rim_y = max(round(RIM * w), 1), max(round(RIM * h), 1)
    sx, sy = w / (view[2] - view[0]), h / (view[3] - view[1])
    xmin, ymin = max(round((box[0] - view[0]) * sx), rim_x), max(round((box[1] - view[1]) * sy), rim_y)
    xmax, ymax = (
        min(round((box[2] - view[0]) * sx), w - rim_x),
        min(round((box[3] - view[1]) * sy), h - rim_y),
    )
    return (xmin, ymin, xmax - xmin, ymax - ymin) if xmax - xmin > 1 and ymax - ymin > 1 else None


def cut_out(photo: np.ndarray, box: photos.Box, *, size: int) -> np.ndarray:
    """The box squashed to uint8 [size, size, 4]: colours, black where no dog is, and where it is (255)."""
    mask = dog(photo, box)
    pixels = cropping.take(photo, box) * mask[:, :, None]
    where = np.repeat(mask[:, :, None], 3, axis=2).astype(np.uint8) * 255
    colours, inside = (cropping.resize(x, size, size, "box") for x in (pixels, where))
    return np.concatenate([colours, inside[:, :, :1]], axis=2)


def told(look: np.ndarray) -> np.ndarray:
    """bool [n]: of which of `cut_out`'s pictures [n, s, s, 4] a dog was told from what is around it."""
    return ~(look[:, :, :, 3] == 255).all((1, 2))
