"""Image files without the metadata in them: Pillow refuses files in which it is damaged or large."""

import re
import struct
import zlib

from PIL import ExifTags, Image

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")  # of PNG, that the pixels need
# Markers of JPEG.
SCAN, COMMENT, EXIF = 0xDA, 0xFE, 0xE1
ALONE = (0x01, *range(0xD0, 0xDA), *range(0xF0, 0xFE))  # without a segment
APPLICATIONS = range(0xE0, 0xF0)
OF_COLORS = {0xE0: 14, 0xEE: 12}  # JFIF and Adobe -> bytes of which colors depend on them
AVIF_EXIF = re.compile(rb"(infe\x02.{7})Exif", re.DOTALL)  # the item in the list of items


def remove(data: bytes) -> bytes:
    """The file with what its pixels and their orientation need only.

    Files of other formats than PNG, JPEG and AVIF, and those that cannot be understood, are unchanged.
    """
    if data.startswith(PNG):
        return _png(data)
    if data.startswith(JPEG):
        return _jpeg(data)
    return AVIF_EXIF.sub(rb"\1free", data) if data[4:8] == b"ftyp" else data  # its orientation is elsewhere


def _png(data: bytes) -> bytes:
    """A PNG file without other chunks than CHUNKS and the EXIF data, whose checksum is made anew.

    Chunks whose names begin with a capital are needed: with an unknown one, the file is unchanged.
    """
    kept, at = [PNG], len(PNG)
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")  # length, name, data, checksum
        name = data[at + 4 : at + 8]
        if name in CHUNKS:
            kept.append(data[at:end])
        elif name == b"eXIf":
            kept += [data[at : end - 4], struct.pack(">I", zlib.crc32(data[at + 4 : end - 4]))]
        elif not name[:1].islower():
            return data
        at = end
    return b"".join(kept)


def _jpeg(data: bytes) -> bytes:
    """A JPEG file without comments and data of applications, but for the orientation and OF_COLORS."""
    kept, exif, at = [], b"", len(JPEG)
    while (at := data.find(b"\xff", at)) >= 0 and at + 1 < len(data):
        marker = data[at + 1]
        if marker in (0x00, 0xFF):  # padding
            at += 1
        elif marker == SCAN:
            return b"".join((JPEG, _orientation(exif), *kept, data[at:]))
        elif marker in ALONE:
            at += 2
        else:
            end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
            content = data[at + 4 : end]
            if marker == EXIF and content.startswith(b"Exif\0\0"):
                exif += content[6:]
            least = OF_COLORS.get(marker, len(data)) if marker in APPLICATIONS else 0
            if marker != COMMENT and len(content) >= least:
                kept.append(data[at:end])
            at = end
    return data


def _orientation(exif: bytes) -> bytes:
    """A segment of JPEG with the orientation in EXIF data only; b"" if that has none or is damaged."""
    try:
        tags = Image.Exif()
        tags.load(exif)
        value = tags.get(ExifTags.Base.Orientation, 1)
    except Exception:  # whatever Pillow raises on damaged metadata
        return b""
    if value not in range(2, 9):
        return b""
    content = b"Exif\0\0II*\0" + struct.pack("<IHHHIII", 8, 1, ExifTags.Base.Orientation, 3, 1, int(value), 0)
    return struct.pack(">BBH", 0xFF, EXIF, 2 + len(content)) + content
