"""Pictures to the features that scores are made of, their scores' names, and the cache of the real side."""

import hashlib
import json
import logging
import os
import pathlib
import tempfile
import zipfile
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdog.metrics import inception

Array = jax.Array

log = logging.getLogger("jaxdog")

LAYERS = ("mixed_7", "pool_3")  # what FID-768 and FID-2048 are made of


class Names(NamedTuple):
    """What the scores of one kind of weights are called."""

    fid768: str
    fid2048: str
    mifid: str


NAMES = {
    "published": Names("fid768", "fid2048", "mifid"),
    "fitted": Names("fid768", "fid2048_approx", "mifid_approx"),  # two kernels of the last blocks are fitted
    "other": Names(
        "fid768_other", "fid2048_other", "mifid_other"
    ),  # weights nobody published: not comparable
    "random": Names("rfid768", "rfid2048", "rmifid"),  # compares with no FID
}


def names(kind: str) -> Names:
    """The scores' names for a kind of weights (weights.Weights.kind)."""
    if kind not in NAMES:
        raise ValueError(f"weights of kind {kind!r} have no score names; choices: {', '.join(NAMES)}")
    return NAMES[kind]


def features(params: dict[str, Any], image: Array) -> dict[str, Array]:
    """Pictures [b, h, w, 3] in 0..255 -> "mixed_7" [b, 768], "mixed_8" [b, 1280], "pool_3" [b, 2048].

    uint8 or whole floats. With the softmax head among `params` also "logits" and "logits_no_bias" [b, 1008]. Pure: jit it outside.
    """
    net = inception.Inception(head="softmax" in params)
    return net.apply({"params": params}, inception.preprocess(image))  # pyright: ignore[reportReturnType]


def cache_key(data_key: str, resampler: str, weights_sha256: str) -> str:
    """File name without ending for the real side's features: other data, resize or weights, another name."""
    parts = json.dumps([data_key, resampler, weights_sha256, LAYERS])
    return f"real-{resampler}-{hashlib.sha256(parts.encode()).hexdigest()[:16]}"


def save(folder: pathlib.Path, key: str, found: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
    """Writes arrays and a record of where they come from to <folder>/<key>.npz, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=folder, prefix=f".{key}-", suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, facts=np.array(json.dumps(facts)), **found)  # pyright: ignore[reportArgumentType]
        os.replace(partial, folder / f"{key}.npz")
    finally:
        pathlib.Path(partial).unlink(missing_ok=True)


def load(folder: pathlib.Path, key: str) -> dict[str, np.ndarray] | None:
    """The arrays saved under `key`; None where there are none, or (with a message) where they are damaged."""
    path = folder / f"{key}.npz"
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files if name != "facts"}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        log.warning("%s is damaged (%s), and is made again", path, error)
        return None
