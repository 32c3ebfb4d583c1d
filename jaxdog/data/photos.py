"""Photos and their crops: types that sources, crop recipes and datasets share.

A `Source` lists photos with their labels and boxes (`sources.py`, `image_files.py`, `toy.py`). A `Recipe`
turns one photo into square crops (`crop_recipes.py`). `crop_dataset.load` applies a recipe to a source.
"""

import concurrent.futures
import contextlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tqdm
from PIL import Image, ImageOps, UnidentifiedImageError

Box = tuple[int, int, int, int]  # xmin, ymin, xmax, ymax in pixels; xmax and ymax are exclusive


class BrokenPhotoError(OSError):
    """A photo cannot be read; other photos of its source still can."""


class Photo(NamedTuple):
    """One photo, not yet decoded."""

    name: str  # file name
    label: int  # index into the source's class_names
    boxes: tuple[Box, ...]  # objects in the photo; (): the whole photo
    read: Callable[[], np.ndarray]  # () -> uint8 [h, w, 3]; raises OSError if the photo is broken
    num_bytes: int = 0  # size of its file; 0: it is not a file


class Source(NamedTuple):
    """A set of photos. `photos[i]` is lazy and thread-safe."""

    key: str  # identifies the source and its content
    class_names: tuple[str, ...]
    photos: Sequence[Photo]
    notes: tuple[str, ...] = ()  # facts about the source for the run's log


class Crop(NamedTuple):
    """One training image cut from a photo."""

    image: np.ndarray  # uint8 [s, s, 3]
    original_size: tuple[int, int] | None = None  # (h, w) before squashing to s x s; None: that of `image`
    crop_type: int = 0  # for recipes with several types of crops, which augmentations treat differently
    box: Box | None = None  # the box that the crop shows; None: the photo's first box, or the whole photo


Recipe = Callable[[np.ndarray, Sequence[Box]], list[Crop]]  # (photo uint8 [h, w, 3], boxes) -> its crops


# ------------------------------------------------------------------------------------- decoding


def decode(data: bytes, *, upright: bool = False) -> np.ndarray:
    """Bytes of a JPEG, PNG or WebP file -> uint8 [h, w, 3] RGB, for any color mode.

    Transparent images are composited over white, and 16-bit gray is scaled to 8 bits. The format is detected
    from the content.

    Args:
      data: the file.
      upright: whether to rotate the photo by its EXIF orientation. False for annotated photos, whose boxes
        refer to the pixels as stored.

    Raises:
      BrokenPhotoError: the bytes are not an image, or a truncated one.
    """
    with _open(data) as image:
        image.load()
        return np.asarray(rgb(ImageOps.exif_transpose(image) if upright else image))


def image_size(data: bytes) -> tuple[int, int]:
    """Height and width of an encoded image, read from its header only; raises BrokenPhotoError."""
    with _open(data) as image:
        return image.height, image.width


@contextlib.contextmanager
def _open(data: bytes) -> Iterator[Image.Image]:
    try:
        with Image.open(io.BytesIO(data)) as image:
            yield image
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, Image.DecompressionBombError) as error:
        unknown = isinstance(error, UnidentifiedImageError)  # whose own message names an object in memory
        reason = "it is not an image in a format that is read here" if unknown else str(error)
        raise BrokenPhotoError(f"{type(error).__name__}: {reason}") from error


def rgb(image: Image.Image) -> Image.Image:
    """An image of any mode in mode RGB: transparent ones over white, 16 or 32 bits of gray scaled to 8."""
    if image.mode.startswith("I"):  # 16 or 32 bits of gray, 0..65535
        gray = np.clip(np.asarray(image, np.int64) // 256, 0, 255).astype(np.uint8)
        return Image.fromarray(gray).convert("RGB")
    if image.has_transparency_data:
        foreground = image.convert("RGBA")
        white = Image.new("RGBA", foreground.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, foreground).convert("RGB")
    return image.convert("RGB")


# ------------------------------------------------------------------------------------- threads


@contextlib.contextmanager
def thread_map(
    function: Callable[[int], Any], indices: Sequence[int], description: str, workers: int | None = None
) -> Iterator[Iterator[Any]]:
    """An iterator over `function(i)` for each index of a photo, in order, with a progress bar.

        with photos.thread_map(read, range(n), "reading photos") as results:
            for result in results: ...

    Pillow releases the GIL, so threads decode in parallel. Leaving the block early cancels the remaining
    calls.

    Args:
      function: called in the threads; its exceptions are raised when its result is read.
      indices: its arguments.
      description: title of the progress bar.
      workers: number of threads; None or 0: one per core.
    """
    pool = concurrent.futures.ThreadPoolExecutor(workers or os.cpu_count() or 1)
    try:
        results = pool.map(function, indices)
        yield iter(tqdm.tqdm(results, description, len(indices), unit="photo", leave=False, disable=None))
    finally:
        pool.shutdown(cancel_futures=True)
