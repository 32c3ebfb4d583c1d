"""Makes folders of odd files: every format and mode, damage of many kinds, other formats, and odd names."""

import io
import pathlib
import struct
import zipfile
import zlib

import numpy as np
from PIL import Image

Files = dict[str, bytes]  # path below the folder -> content

MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "WEBP": ("RGB", "RGBA"),
    "GIF": ("L", "P"),
    "BMP": ("1", "L", "P", "RGB"),
    "TIFF": ("1", "L", "LA", "RGB", "RGBA", "CMYK", "I;16", "F", "LAB"),
    "AVIF": ("RGB", "RGBA"),
}
SUFFIXES = {
    "PNG": (".png", ".PNG", ".apng"),
    "JPEG": (".jpg", ".JPEG", ".jpe", ".jfif"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif",),
}
OTHER_FORMATS = ("EPS", "PDF", "ICO", "PPM", "TGA", "JPEG2000", "PCX", "SGI", "DDS")
LEFT_OUT = (".heic", ".txt", ".xml", ".mp4", ".svg", "", ".jpg.part", ".JPG_", ".eps")
STEMS = (
    *("plain", "with space", "2019.05.01", "ünïcödé", "日本語", "🐶", "'quoted\"", "100%", "-dash", "a&b<c>"),
    *("semi;colon", "tab\there", "line\nbreak", "dot.", "x" * 200, "{brace}", "$HOME", "com:ma,", "#hash"),
)
HIDDEN = (".hidden.jpg", ".DS_Store", "._photo.jpg", ".git/config.jpg")


def encode(random: np.random.Generator, form: str, **settings) -> bytes:
    """A small image of a random size in a random mode of the format."""
    mode = str(random.choice(MODES.get(form, ("RGB",))))
    h, w = random.integers(1, 40, 2)
    if mode in ("I;16", "F", "LAB"):
        values = random.integers(0, 65536, (h, w)).astype(np.float32 if mode == "F" else np.uint16)
        image = Image.new("LAB", (w, h)) if mode == "LAB" else Image.fromarray(values)
    else:
        image = Image.fromarray(random.integers(0, 256, (h, w, 3), np.uint8)).convert(mode)
    out = io.BytesIO()
    image.save(out, form, **settings)
    return out.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def huge(random: np.random.Generator) -> bytes:
    """A few bytes that claim millions of pixels."""
    side = int(random.integers(9_500, 65_000))
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    bmp = b"BM" + struct.pack("<IIIIIIHHIIIIII", 99, 0, 54, 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
    gif = (
        b"GIF89a"
        + struct.pack("<HHBBB", side, side, 0, 0, 0)
        + b","
        + struct.pack("<4HB", 0, 0, side, side, 0)
    )
    forms = (
        png + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b""),
        bmp + bytes(9),
        gif + bytes(9),
    )
    return forms[random.integers(len(forms))]


def content(random: np.random.Generator, kind: str, form: str) -> bytes:
    """The bytes of a file of a kind, made of an image in a format."""
    if kind == "empty":
        return b""
    if kind == "text":
        return b"not an image, " * int(random.integers(1, 99))
    if kind == "noise":
        return random.bytes(int(random.integers(1, 999)))
    if kind == "huge":
        return huge(random)
    if kind == "other format":
        return encode(random, str(random.choice(OTHER_FORMATS)))
    if kind == "exif" and form in ("JPEG", "PNG", "WEBP"):
        tags = b"".join(
            struct.pack("<HHII", *map(int, random.integers(0, (2**16, 14, 99, 2**32)))) for _ in range(4)
        )
        orientation = struct.pack("<HHII", 0x0112, 3, 1, int(random.integers(0, 12)))
        return encode(random, form, exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0" + orientation + tags)
    data = bytearray(encode(random, form))
    if kind == "truncated":
        return bytes(data[: random.integers(len(data))])
    if kind == "flipped":
        for position in random.integers(0, len(data), 8):
            data[position] ^= 1 << int(random.integers(8))
    return bytes(data)


KINDS = ("good", "good", "good", "wrong suffix", "exif", "truncated", "flipped", "empty", "text", "noise")
KINDS += ("huge", "other format", "left out", "hidden")


def make(n: int, seed: int = 0, classes: int = 3) -> Files:
    """n files in class folders and folders in them; the same for the same seed."""
    random, made = np.random.default_rng(seed), Files()
    while len(made) < n:
        kind, form = KINDS[len(made) % len(KINDS)], str(random.choice(list(MODES)))
        suffix = str(
            random.choice(SUFFIXES[str(random.choice(list(MODES))) if kind == "wrong suffix" else form])
        )
        suffix = str(random.choice(LEFT_OUT)) if kind == "left out" else suffix
        name = f"{random.choice(STEMS)} {len(made)}{suffix}"
        name = f"{len(made)}/{random.choice(HIDDEN)}" if kind == "hidden" else name
        folder = f"class {random.integers(classes)}" + ("/deep/er" if random.random() < 0.2 else "")
        made[f"{folder}/{name}"] = content(random, kind, form)
    return made


def write_folder(root: pathlib.Path, made: Files) -> pathlib.Path:
    for name, data in made.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def write_zip(path: pathlib.Path, made: Files) -> pathlib.Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in made.items():
            archive.writestr(name, data)
    return path
