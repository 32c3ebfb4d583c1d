"""Segmentation of an object from its background by GrabCut, initialized by its box.

GrabCut: Rother, Kolmogorov and Blake, 2004. Needs OpenCV, from the extra `clean`.
"""

import numpy as np

from jaxdog.data import cropping, photos
from jaxdog.utils import optional

SIDE = 128  # pixels of the longer side at which photos are segmented
AROUND = 0.5  # margin around the box that is also segmented, relative to the box
RIM = 0.04  # border of the region that is always background, relative to its sides
ROUNDS = 3  # iterations of GrabCut
MIXTURES_SEED = 0  # GrabCut initializes its color mixtures at random


def object_mask(photo: np.ndarray, box: photos.Box) -> np.ndarray:
    """bool [h, w]: the pixels of a box that show the object.

    All are True if GrabCut finds no object, or no background.

    Args:
      photo: uint8 [_, _, 3].
      box: a nonempty box of height h and width w within the photo.
    """
    cv2 = optional.load("cv2", "segmentation")
    height, width, _ = photo.shape
    margin = float(AROUND)
    region = cropping.clip(cropping.add_margin(box, margin), height, width)
    h, w = region[3] - region[1], region[2] - region[0]
    scale = min(1.0, SIDE / max(h, w))
    small = cropping.resize(
        cropping.take(photo, region), max(round(h * scale), 1), max(round(w * scale), 1), "box"
    )
    rectangle = _box_in_region(box, region, small.shape[0], small.shape[1])
    everything = np.ones((box[3] - box[1], box[2] - box[0]), bool)
    if rectangle is None:
        return everything
    mask = np.zeros(small.shape[:2], np.uint8)
    cv2.setRNGSeed(MIXTURES_SEED)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(small, mask, rectangle, *models, ROUNDS, cv2.GC_INIT_WITH_RECT)
    foreground = ((mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD)).astype(np.uint8)
    full = cv2.resize(foreground, (w, h), interpolation=cv2.INTER_NEAREST).astype(bool)
    xmin, ymin = box[0] - region[0], box[1] - region[1]
    in_box = full[ymin : ymin + everything.shape[0], xmin : xmin + everything.shape[1]]
    return in_box if in_box.any() else everything


def _box_in_region(box: photos.Box, region: photos.Box, h: int, w: int) -> tuple[int, int, int, int] | None:
    """(x, y, width, height) of the box in the region resized to h x w, without its rim; None if empty."""
    rim_x, rim_y = max(round(RIM * w), 1), max(round(RIM * h), 1)
    scale_x, scale_y = w / (region[2] - region[0]), h / (region[3] - region[1])
    xmin = max(round((box[0] - region[0]) * scale_x), rim_x)
    ymin = max(round((box[1] - region[1]) * scale_y), rim_y)
    xmax = min(round((box[2] - region[0]) * scale_x), w - rim_x)
    ymax = min(round((box[3] - region[1]) * scale_y), h - rim_y)
    return (xmin, ymin, xmax - xmin, ymax - ymin) if xmax - xmin > 1 and ymax - ymin > 1 else None


def cut_out(photo: np.ndarray, box: photos.Box, *, size: int) -> np.ndarray:
    """The box squashed to uint8 [size, size, 4]: RGB with a black background, and the mask (0 or 255)."""
    mask = object_mask(photo, box)
    pixels = cropping.take(photo, box) * mask[:, :, None]
    mask_pixels = np.repeat(mask[:, :, None], 3, axis=2).astype(np.uint8) * 255
    rgb, alpha = (cropping.resize(x, size, size, "box") for x in (pixels, mask_pixels))
    return np.concatenate([rgb, alpha[:, :, :1]], axis=2)


def is_segmented(cut_outs: np.ndarray) -> np.ndarray:
    """bool [n]: whether each result of `cut_out`, [n, s, s, 4], has a background."""
    return ~(cut_outs[:, :, :, 3] == 255).all((1, 2))
