"""Photos and their crops: types that sources, crop recipes and datasets share.

A `Source` lists photos with their labels and boxes (`sources.py`, `image_files.py`, `toy.py`). A `Recipe`
turns one photo into square crops (`crop_recipes.py`). `crop_dataset.load` applies a recipe to a source.
"""

import collections
import concurrent.futures
import contextlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from jaxdog.data import metadata
from jaxdog.utils import errors, files, progress

T = TypeVar("T")
Box = tuple[int, int, int, int]  # xmin, ymin, xmax, ymax in pixels; xmax and ymax are exclusive

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")  # Pillow's names
AHEAD = 32  # results per thread that wait to be read
MAX_PIXELS = 89_000_000  # of one image; Pillow warns of larger ones
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
HEIC_HINT = (
    "convert it to JPEG, on macOS with `sips -s format jpeg IMG.HEIC --out IMG.jpg`, elsewhere with "
    "`heif-convert IMG.HEIC IMG.jpg` of libheif"
)
TILE_WIDTH, TILE_LENGTH = 322, 323  # tags of TIFF
TURNS = {  # EXIF orientation -> the turn that makes a photo upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BrokenPhotoError(OSError):
    """A photo cannot be read; other photos of its source still can."""


def why_broken(name: str, error: OSError) -> str:
    """Why a photo cannot be used, in words.

    Raises errors.UserError if the system does not let it be read: then it may be sound.
    """
    if reason := errors.of_the_system(error):
        raise errors.UserError(
            f"the photo {name} cannot be read: {reason}. It may be sound: make it readable, or take it "
            "out of the folder"
        ) from error
    return str(error) or type(error).__name__


class Photo(NamedTuple):
    """One photo, not yet decoded."""

    name: str  # file name
    label: int  # index into the source's class_names
    boxes: tuple[Box, ...]  # objects in the photo; (): the whole photo
    read: Callable[[], np.ndarray]  # () -> uint8 [h, w, 3]; raises OSError if the photo is broken
    num_bytes: int = 0  # size of its file; 0: it is not a file
    notes: tuple[str, ...] = ()  # what of it is left out, and why


class Source(NamedTuple):
    """A set of photos. `photos[i]` is lazy and thread-safe."""

    key: str  # identifies the source and its content
    class_names: tuple[str, ...]
    photos: Sequence[Photo]
    notes: tuple[str, ...] = ()  # what is left out and why, for logs and warnings
    num_bytes: int = 0  # size on disk; 0: unknown


class Crop(NamedTuple):
    """One training image cut from a photo."""

    image: np.ndarray  # uint8 [s, s, 3]
    original_size: tuple[int, int] | None = None  # (h, w) before squashing to s x s; None: that of `image`
    crop_type: int = 0  # for recipes with several types of crops, which augmentations treat differently
    box: Box | None = None  # the box that the crop shows; None: the photo's first box, or the whole photo


Recipe = Callable[[np.ndarray, Sequence[Box]], list[Crop]]  # (photo uint8 [h, w, 3], boxes) -> its crops


# ------------------------------------------------------------------------------------- decoding


def decode(data: bytes, *, upright: bool = False, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Bytes of an image file -> uint8 [h, w, 3] RGB, for any color mode: those of `pixels`.

    Args:
      data: the file, in one of FORMATS, which is detected from the content; of several images the first.
      upright: whether to rotate the photo by its EXIF orientation. False for annotated photos, whose boxes
        refer to the pixels as stored.
      max_pixels: images with more pixels are not decoded.

    Raises:
      BrokenPhotoError: the bytes are not such an image, or a truncated or too large one.
    """

    def read(data: bytes) -> np.ndarray:
        with open_image(data, max_pixels) as image:
            return pixels(image, upright=upright)

    return _despite_metadata(read, data)


def image_size(data: bytes) -> tuple[int, int]:
    """Height and width of an encoded image, read from its header only; raises BrokenPhotoError."""

    def read(data: bytes) -> tuple[int, int]:
        with open_image(data) as image:
            return image.height, image.width

    return _despite_metadata(read, data)


def _despite_metadata(read: Callable[[bytes], T], data: bytes) -> T:
    """`read(data)`; if only metadata in the file is damaged, `read` of the file without it."""
    try:
        return read(data)
    except BrokenPhotoError:
        without = metadata.remove(data)
        if without == data:
            raise
        with contextlib.suppress(BrokenPhotoError):
            return read(without)
        raise


@contextlib.contextmanager
def open_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """The image in the bytes of a file, not yet decoded: the only way in which jaxdog opens image files.

    Other formats than FORMATS are never tried, as some of them start programs. Whatever a decoder raises,
    here or in the block, becomes a BrokenPhotoError; so does an image of more than `max_pixels`.
    """
    heic = data[4:8] == b"ftyp" and data[8:12] in HEIC_BRANDS
    with files.guard(BrokenPhotoError):
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        except UnidentifiedImageError as error:  # whose own message names an object in memory
            what = f"a HEIC image: {HEIC_HINT}" if heic else "not an image in a format that is read here"
            raise BrokenPhotoError(f"{type(error).__name__}: it is {what}") from error
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise BrokenPhotoError(
                f"it has too many pixels ({error}); the limit is {max_pixels:,}"
            ) from error
        with image:
            _check_size(image, max_pixels)
            yield image


def _check_size(image: Image.Image, max_pixels: int) -> None:
    """Raises BrokenPhotoError if decoding the image would take the memory of more than `max_pixels`."""
    tags = getattr(image, "tag_v2", {})  # of TIFF, whose tiles may be larger than the image
    h, w = max(image.height, tags.get(TILE_LENGTH, 0)), max(image.width, tags.get(TILE_WIDTH, 0))
    if h * w > max_pixels:
        raise BrokenPhotoError(f"it has {h} x {w} pixels, the limit is {max_pixels:,}")


def pixels(image: Image.Image, *, upright: bool) -> np.ndarray:
    """uint8 [h, w, 3] RGB of an image of any color mode; raises BrokenPhotoError.

    Transparent pixels are composited over white, and 16-bit gray is scaled to 8 bits.
    """
    with files.guard(BrokenPhotoError):
        _scale_transparency(image)
        image.load()
        return np.asarray(_rgb(_upright(image) if upright else image))


def _upright(image: Image.Image) -> Image.Image:
    """The image rotated by its EXIF orientation; no other tag is read, and a damaged one costs nothing."""
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # whatever Pillow raises on damaged metadata
        turn = None
    return image if turn is None else image.transpose(turn)


def _scale_transparency(image: Image.Image) -> None:
    """Scales the transparent color of a PNG to 8 bits, as Pillow does with the pixels only."""
    color, tiles = image.info.get("transparency"), getattr(image, "tile", ())
    if image.format != "PNG" or color is None or not tiles:
        return
    if tiles[0].args == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in color)
    elif tiles[0].args in ("L;2", "L;4"):
        image.info["transparency"] = color * {"L;2": 85, "L;4": 17}[tiles[0].args]


def _rgb(image: Image.Image) -> Image.Image:
    """A loaded image in mode RGB."""
    if image.mode == "F":
        raise BrokenPhotoError("its pixels are floats, whose range is unknown; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 or 32 bits of gray, 0..65535
        values = np.asarray(image)
        gray = np.clip(values >> 8, 0, 255).astype(np.uint8)
        transparent = image.info.get("transparency")
        if transparent is not None:
            gray[values == transparent] = 255
        return Image.fromarray(gray).convert("RGB")
    if image.has_transparency_data:
        foreground = image.convert("RGBA")
        white = Image.new("RGBA", foreground.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, foreground).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


# ------------------------------------------------------------------------------------- threads


@contextlib.contextmanager
def thread_map(
    function: Callable[[int], Any], indices: Sequence[int], description: str, workers: int | None = None
) -> Iterator[Iterator[Any]]:
    """An iterator over `function(i)` for each index of a photo, in order, with a progress bar.

        with photos.thread_map(read, range(n), "reading photos") as results:
            for result in results: ...

    Pillow releases the GIL, so threads decode in parallel. At most AHEAD results per thread wait to be read.
    Leaving the block early cancels the remaining calls.

    Args:
      function: called in the threads; its exceptions are raised when its result is read.
      indices: its arguments.
      description: title of the progress bar; "": no bar.
      workers: number of threads; None or 0: one per core.
    """
    threads = workers or os.cpu_count() or 1
    pool = concurrent.futures.ThreadPoolExecutor(threads)

    def results() -> Iterator[Any]:
        waiting: collections.deque[concurrent.futures.Future] = collections.deque()
        for i in indices:
            waiting.append(pool.submit(function, i))
            if len(waiting) > AHEAD * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    try:
        shown = bool(description)
        yield iter(progress.bar(len(indices), description, "photo", shown, iterable=results()))
    finally:
        pool.shutdown(cancel_futures=True)
