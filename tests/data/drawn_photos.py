"""Photos whose pixels encode their coordinates, and functions that read them."""

from collections.abc import Sequence

import numpy as np

from jaxdog.data import photos


def coordinates(h: int, w: int) -> np.ndarray:
    """photo[y, x] = (x, y, 7)."""
    y, x = np.mgrid[:h, :w]
    return np.stack([x, y, np.full_like(x, 7)], -1).astype(np.uint8)


def noise(h: int, w: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), np.uint8)


def xs(image: np.ndarray) -> list[int]:
    return image[0, :, 0].tolist()


def ys(image: np.ndarray) -> list[int]:
    return image[:, 0, 1].tolist()


def images(crops: Sequence[photos.Crop]) -> list[np.ndarray]:
    return [crop.image for crop in crops]
