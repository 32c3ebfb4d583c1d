"""Deterministic mutations of files: input i of a target is a function of (target, i)."""

import re
import zipfile
import zlib
from collections.abc import Callable

import numpy as np

from tests.fuzz import samples

Draw = np.random.Generator
INTEGERS = (0, 1, 127, 128, 255, 1 << 15, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 63) - 1)
SCALAR = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null')
WORDS = (
    *(b"null", b"true", b"0", b"-1", b"1.5", b"1e999", b"NaN", b"[]", b"{}", b'""', b'"\\ud800"', b'"$a_$"'),
    *(b"9" * 18, b"9" * 400, b"9" * 5000, b"[" * 200_000, b'{"a":' * 50_000, b'"' + b"x" * 70_000 + b'"'),
)


def generator(target: str, i: int) -> Draw:
    """The random numbers of one input."""
    return np.random.default_rng([zlib.crc32(target.encode()), i])


def mutate(data: bytes, draw: Draw) -> bytes:
    """One to four changes of bytes."""
    for _ in range(draw.integers(1, 5)):
        data = CHANGES[draw.integers(len(CHANGES))](data, draw)
    return data


def _place(data: bytes, draw: Draw) -> int:
    return int(draw.integers(len(data) + 1))


def _set_byte(data: bytes, draw: Draw) -> bytes:
    at = _place(data, draw)
    return data[:at] + bytes([draw.integers(256)]) + data[at + 1 :]


def _set_integer(data: bytes, draw: Draw) -> bytes:
    at, width = _place(data, draw), int(draw.choice([1, 2, 4, 8]))
    value = INTEGERS[draw.integers(len(INTEGERS))] % (1 << 8 * width)
    return data[:at] + value.to_bytes(width, "little") + data[at + width :]


def _remove(data: bytes, draw: Draw) -> bytes:
    at = _place(data, draw)
    return data[:at] + data[at + draw.integers(1, 40) :]


def _truncate(data: bytes, draw: Draw) -> bytes:
    return data[: _place(data, draw)]


def _insert(data: bytes, draw: Draw) -> bytes:
    at = _place(data, draw)
    return data[:at] + draw.bytes(draw.integers(1, 12)) + data[at:]


def _repeat(data: bytes, draw: Draw) -> bytes:
    """A part many times over: deep nesting, many entries."""
    at = _place(data, draw)
    part = data[at : at + int(draw.choice([1, 2, 3, 5, 20]))]
    return data[:at] + part * int(draw.choice([2, 50, 3000, 100_000])) + data[at:]


def _move(data: bytes, draw: Draw) -> bytes:
    a, b = _place(data, draw), _place(data, draw)
    return data[:b] + data[a : a + int(draw.integers(1, 60))] + data[b:]


CHANGES: tuple[Callable[[bytes, Draw], bytes], ...] = (
    *(_set_byte, _set_integer, _set_byte, _set_integer),
    *(_remove, _truncate, _insert, _repeat, _move),
)


def mutate_json(data: bytes, draw: Draw) -> bytes:
    """Other values in places of one to three values or names; sometimes other bytes."""
    if draw.random() < 0.2:
        return mutate(data, draw)
    for _ in range(draw.integers(1, 4)):
        found = list(SCALAR.finditer(data))
        if found:
            one = found[draw.integers(len(found))]
            data = data[: one.start()] + WORDS[draw.integers(len(WORDS))] + data[one.end() :]
    return data


def mutate_zip(members: dict[str, bytes], draw: Draw) -> bytes:
    """A changed member in a sound archive, a changed archive, or an archive that lies about sizes."""
    kind, members = draw.random(), dict(members)
    compression = int(draw.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2]))
    if kind < 0.6:
        name = list(members)[draw.integers(len(members))]
        members[name] = mutate(members[name], draw)
        return samples.zipped(members, compression)
    if kind < 0.65:  # a bomb
        name = list(members)[draw.integers(len(members))]
        members[name] = members[name][: int(draw.integers(200))] + bytes(1 << 20)
        return samples.zipped(members, zipfile.ZIP_DEFLATED)
    data = samples.zipped(members, compression)
    return mutate(data, draw) if kind < 0.9 else _set_directory(data, draw)


def _set_directory(data: bytes, draw: Draw) -> bytes:
    """A changed integer in the directory at the end of an archive."""
    start = data.index(b"PK\x01\x02")
    return data[:start] + _set_integer(data[start:], draw)
