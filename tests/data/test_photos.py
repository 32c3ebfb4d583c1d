import ast
import io
import pathlib
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from jaxdog.data import photos
from jaxdog.utils import errors
from tests.data import odd_files
from tests.data.drawn_photos import noise


def pixels() -> np.ndarray:
    return noise(20, 30)


def encode(image: Image.Image, file_format: str, **settings) -> bytes:
    out = io.BytesIO()
    image.save(out, file_format, **settings)
    return out.getvalue()


# ------------------------------------------------------------------ decoding


def test_rgb_png_is_decoded_exactly():
    np.testing.assert_array_equal(photos.decode(encode(Image.fromarray(pixels()), "PNG")), pixels())
    assert photos.image_size(encode(Image.fromarray(pixels()), "JPEG")) == (20, 30)


@pytest.mark.parametrize(
    ("mode", "file_format"),
    [
        ("L", "JPEG"),
        ("CMYK", "JPEG"),
        ("L", "PNG"),
        ("1", "PNG"),
        ("P", "PNG"),
        ("LA", "PNG"),
        ("RGBA", "WEBP"),
    ],
)
def test_every_color_mode_becomes_rgb(mode, file_format):
    red = Image.new("RGB", (16, 16), (200, 40, 40)).convert(mode)
    got = photos.decode(encode(red, file_format))
    assert got.shape == (16, 16, 3) and got.dtype == np.uint8
    want = np.asarray(red.convert("RGB"))
    assert np.abs(got.astype(int) - want).max() <= 4  # JPEG and WebP lose a little


def test_transparency_lies_over_white():
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[:, :4] = (10, 20, 30, 255)
    got = photos.decode(encode(Image.fromarray(rgba), "PNG"))
    np.testing.assert_array_equal(got[:, :4], np.broadcast_to(np.uint8([10, 20, 30]), (8, 4, 3)))
    assert (got[:, 4:] == 255).all()
    palette = Image.fromarray(np.tile(np.arange(8, dtype=np.uint8), (8, 1)), "P")
    palette.putpalette([40, 40, 40] * 8)
    clear = photos.decode(encode(palette, "PNG", transparency=bytes([0] + [255] * 7)))
    assert (clear[:, 0] == 255).all() and (clear[:, 1:] == 40).all()


def png(values: np.ndarray, depth: int, color_type: int, transparent: tuple[int, ...]) -> bytes:
    """A PNG [h, w] or [h, w, 3] of `depth` bits whose color `transparent` is transparent."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    h, w = values.shape[:2]
    bits = ((values[..., None] >> np.arange(depth)[::-1]) & 1).astype(np.uint8).reshape(h, -1)
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in bits)
    header = struct.pack(">IIBBBBB", w, h, depth, color_type, 0, 0, 0)
    clear = struct.pack(f">{len(transparent)}H", *transparent)
    parts = ((b"IHDR", header), (b"tRNS", clear), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_transparent_gray_is_white_at_every_depth(depth):
    low, mid, high = (
        0,
        (2**depth - 1) // 3,
        2**depth - 1,
    )  # 0, 85 and 255 with 8 bits, but 0, 0 and 255 with 1
    shown = {low: 0, mid: mid * 255 // high, high: 255}
    for clear in (low, mid, high):
        got = photos.decode(png(np.array([[low, mid, high]]), depth, 0, (clear,)))
        want = [255 if value == clear else shown[value] for value in (low, mid, high)]
        np.testing.assert_array_equal(got, np.repeat(np.array(want)[None, :, None], 3, axis=2))


def test_a_transparent_color_is_white_at_every_depth():
    for depth in (8, 16):
        colors = np.array([[[0x12, 0x34, 0x56], [0x65, 0x43, 0x21]]])
        colors = colors if depth == 8 else 256 * colors + 0x99
        got = photos.decode(png(colors, depth, 2, tuple(colors[0, 0].tolist())))
        np.testing.assert_array_equal(got, [[[255] * 3, [0x65, 0x43, 0x21]]])


def test_floats_are_refused_as_their_range_is_unknown():
    with pytest.raises(photos.BrokenPhotoError, match="its pixels are floats, whose range is unknown"):
        photos.decode(encode(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF"))


def test_sixteen_bit_gray_is_scaled_to_eight():
    gray = np.array([[0, 256 * 100, 65535]], np.uint16)
    got = photos.decode(encode(Image.fromarray(gray), "PNG"))
    np.testing.assert_array_equal(got[0], [[0] * 3, [100] * 3, [255] * 3])


def test_upright_turns_as_exif_says_and_is_off_otherwise():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    data = encode(Image.fromarray(pixels()), "JPEG", exif=exif, quality=95)
    assert photos.decode(data).shape == (20, 30, 3)
    np.testing.assert_array_equal(photos.decode(data, upright=True), np.rot90(photos.decode(data), -1))


def test_errors_of_broken_photos_give_the_reason():
    whole = encode(Image.fromarray(pixels()), "JPEG")
    png = encode(Image.fromarray(pixels()), "PNG")
    for data in (b"", b"not an image", whole[:2], whole[: len(whole) // 2], png[: len(png) // 2], png[:40]):
        with pytest.raises(photos.BrokenPhotoError, match=r"^\w+: ."):
            photos.decode(data)
    with pytest.raises(photos.BrokenPhotoError, match="it is not an image in a format"):
        photos.image_size(b"not an image")


# ------------------------------------------------------------------ what Pillow reads, and what not


@pytest.mark.parametrize("file_format", photos.FORMATS)
def test_every_format_is_read(file_format):
    flat = np.full((16, 16, 3), (90, 120, 200), np.uint8)
    got = photos.decode(encode(Image.fromarray(flat), file_format))
    assert np.abs(got.astype(int) - flat).max() <= 4


def test_formats_that_start_programs_are_never_tried():
    image = Image.new("RGB", (8, 8))
    for file_format in ("EPS", "PDF", "ICO", "PPM", "TGA", "JPEG2000"):
        with pytest.raises(photos.BrokenPhotoError, match="it is not an image in a format that is read here"):
            photos.decode(encode(image, file_format))
    heic = b"\0\0\0\x18ftypheic" + bytes(40)
    with pytest.raises(photos.BrokenPhotoError, match="it is a HEIC image: convert it to JPEG"):
        photos.decode(heic)


def test_image_files_are_opened_in_one_place_only():
    """`Image.open` would guess the format from the content, and try EPS with Ghostscript."""
    root = pathlib.Path(photos.__file__).parents[1]
    calls = [
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "open" and "Image" in ast.unparse(node.value)
    ]
    assert calls == ["data/photos.py"]


def test_whatever_a_decoder_raises_costs_one_photo(monkeypatch):
    data = encode(Image.fromarray(pixels()), "PNG")
    for error in (
        struct.error,
        AttributeError,
        TypeError,
        RuntimeError,
        LookupError,
        ZeroDivisionError,
        OverflowError,
    ):

        def load(self, error=error):
            raise error("odd")

        monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
        with pytest.raises(photos.BrokenPhotoError, match=f"{error.__name__}: odd"):
            photos.decode(data)
    for error in (MemoryError, KeyboardInterrupt, errors.UserError):

        def fail(self, error=error):
            raise error("stop")

        monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
        with pytest.raises(error):
            photos.decode(data)


def bad_exif(orientation: int | None) -> bytes:
    """EXIF data with a rational of no bytes, or with garbage behind the tag of the orientation."""
    tags = [(0x0112, 3, 1, orientation or 1), (0x011A, 5, 1, 0xFFFFFFF0), (0x8769, 4, 1, 0xFFFFFF00)]
    rows = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + rows


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "exif", [bad_exif(6), bad_exif(6)[:40], bad_exif(None), b"Exif\0\0" + bytes(99), b"Exif\0\0II*"]
)
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_damaged_tags_cost_nothing(exif, file_format):
    image = Image.fromarray(np.zeros((20, 30, 3), np.uint8))
    got = photos.decode(encode(image, file_format, exif=exif), upright=True)
    assert got.shape == ((30, 20, 3) if exif in (bad_exif(6), bad_exif(6)[:40]) else (20, 30, 3))


PNG_DAMAGE = {
    "a text of 2 MiB": odd_files.chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2 << 20))),
    "XMP of 2 MiB": odd_files.chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(2 << 20))),
    "a profile of 2 MiB": odd_files.chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2 << 20))),
    "a compression of texts": odd_files.chunk(b"zTXt", b"a\0\7x"),
    "a compression of profiles": odd_files.chunk(b"iCCP", b"a\0\7x"),
    "a checksum": odd_files.chunk(b"tEXt", b"a\0b")[:-1] + b"!",
    **{f"{name}": odd_files.chunk(name.encode(), b"") for name in ("pHYs", "gAMA", "cHRM", "sRGB")},
}


@pytest.mark.parametrize("damage", PNG_DAMAGE.values(), ids=PNG_DAMAGE)
@pytest.mark.parametrize("before", [33, -12], ids=["first", "last"])
def test_damaged_metadata_of_a_png_costs_nothing(damage, before):
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = encode(Image.fromarray(pixels()), "PNG", exif=exif)
    data = whole[:before] + damage + whole[before:]
    np.testing.assert_array_equal(photos.decode(data), pixels())
    np.testing.assert_array_equal(photos.decode(data, upright=True), np.rot90(pixels(), -1))
    assert photos.image_size(data) == (20, 30)


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, 2 + len(content)) + content


def exif_of(*tags: tuple[int, int, int, int]) -> bytes:
    rows = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + rows + bytes(4)


SIDEWAYS = (0x0112, 3, 1, 6)
JPEG_DAMAGE = {
    "a resolution of one byte": segment(0xE1, exif_of(SIDEWAYS, (0x011A, 1, 1, 7), (0x0128, 3, 1, 2))),
    "Photoshop": segment(0xED, b"Photoshop 3.0\x008BIM\3\xed") + segment(0xE1, exif_of(SIDEWAYS)),
    "a profile": segment(0xE2, b"ICC_PROFILE\0\1") + segment(0xE1, exif_of(SIDEWAYS)),
    "JFIF": segment(0xE1, exif_of(SIDEWAYS)) + segment(0xE0, b"JFIF\0\1"),
    "Adobe": b"\xff" + segment(0xEE, b"Adobe\0") + segment(0xFE, b"words") + segment(0xE1, exif_of(SIDEWAYS)),
}


@pytest.mark.parametrize("damage", JPEG_DAMAGE.values(), ids=JPEG_DAMAGE)
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_damaged_metadata_of_a_jpeg_costs_nothing(damage, mode):
    whole = encode(Image.fromarray(pixels()).convert(mode), "JPEG")
    data = whole[:2] + damage + whole[2:]
    np.testing.assert_array_equal(photos.decode(data), photos.decode(whole))
    np.testing.assert_array_equal(photos.decode(data, upright=True), np.rot90(photos.decode(whole), -1))
    assert photos.image_size(data) == (20, 30)
    for cut in (2, len(data) // 2):  # pixels are not metadata
        with pytest.raises(photos.BrokenPhotoError):
            photos.decode(data[:cut])


def test_damaged_metadata_of_an_avif_costs_nothing():
    whole = encode(Image.fromarray(pixels()), "AVIF", exif=exif_of(SIDEWAYS, (0x0128, 3, 1, 2)))
    data = whole.replace(b"II*\0", b"????")
    assert data != whole
    upright = photos.decode(whole, upright=True)
    assert upright.shape == (30, 20, 3)
    np.testing.assert_array_equal(photos.decode(data, upright=True), upright)


# ------------------------------------------------------------------ limits


def big_tile() -> bytes:
    """A TIFF of 16 x 16 pixels whose only tile has 24,000 x 24,000."""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    packed = zlib.compress(bytes(100))
    shorts = {258: 8, 259: 8, 262: 1, 277: 1}
    longs = {256: 16, 257: 16, 322: 24_000, 323: 24_000, 324: 8, 325: len(packed)}
    for tag, value in {**shorts, **longs}.items():
        info.tagtype[tag] = 3 if tag in shorts else 4
        info[tag] = value
    directory = info.tobytes(8 + len(packed))
    return b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + directory


def test_images_with_too_many_pixels_are_not_decoded(monkeypatch):
    wide = encode(Image.new("1", (12_000, 8_000)), "TIFF", compression="group4")  # 3 kB
    monkeypatch.setattr(TiffImagePlugin.TiffImageFile, "load", lambda self: pytest.fail("it was decoded"))
    for data in (wide, big_tile()):
        with pytest.raises(photos.BrokenPhotoError, match="pixels.*the limit is 89,000,000"):
            photos.decode(data)
    with pytest.raises(photos.BrokenPhotoError, match="it has 20 x 30 pixels, the limit is 599"):
        photos.decode(encode(Image.fromarray(pixels()), "PNG"), max_pixels=599)
