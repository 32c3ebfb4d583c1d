import io

import numpy as np
import pytest
from PIL import Image

from jaxdog.data import photos
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
