"""Weights for the Inception network."""

import hashlib
import pathlib
import zipfile
from typing import Any, NamedTuple

import numpy as np

from jaxdog.metrics import inception


class Weights(NamedTuple):
    params: dict[str, Any]  # unit's name in the graph -> {"kernel": ..., "bias": ...}
    kind: str
    sha256: str
    source: str


def load(path: str | pathlib.Path) -> Weights:
    path = pathlib.Path(path)
    files = sorted(path.glob("inception*.npz")) if path.is_dir() else [path]
    flat = {}
    for file in files:
        with np.load(file) as stored:
            flat |= {name: stored[name] for name in stored.files}
    hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    sha256 = hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
    params: dict[str, Any] = {}
    for name in inception.shapes():
        unit, leaf = name.rsplit("/", 1)
        params.setdefault(unit, {})[leaf] = flat[name]
    return Weights(params, "fitted" if any("fitted" in f.name for f in files) else "other", sha256, str(path))
