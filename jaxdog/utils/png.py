"""PNG files."""

import os

import numpy as np
import PIL.Image

from jaxdog.utils import files


def write(path: str | os.PathLike, image: np.ndarray, durable: bool = True) -> None:
    """Writes an image [h, w, 3] uint8 atomically, see `files.atomic_path`."""
    with files.atomic_path(path, durable) as temporary:
        PIL.Image.fromarray(image).save(temporary, "PNG")
