"""Pictures to the features that scores are made of, the scores' names, and the cache of the real side."""

import hashlib
import json
import logging
import os
import pathlib
import tempfile
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdog.metrics import archives, inception

Array = jax.Array

log = logging.getLogger(__name__)

KEPT = ("mixed_7", "pool_3")  # what scores need of the real side
VERSION = 1  # of what the features mean; another number leaves old caches unread


class Names(NamedTuple):
    """What scores are called."""

    fid768: str  # on the means of mixed_7
    fid2048: str  # on pool_3
    mifid: str


_NAMES = {
    "published": Names("fid768", "fid2048", "mifid"),
    "fitted": Names("fid768", "fid2048_approx", "mifid_approx"),
    "other": Names("fid768_other", "fid2048_other", "mifid_other"),
    "random": Names("rfid768", "rfid2048", "rmifid"),
}


def names(kind: str) -> Names:
    """The true names of scores made with weights of this kind: only the published network's pool_3 gives FID.

    Fitted kernels come after mixed_7, so FID-768 is exact with them.
    """
    if kind not in _NAMES:
        raise ValueError(f"weights are of kind {kind!r}; known are {', '.join(_NAMES)}")
    return _NAMES[kind]


def features(params: dict[str, Any], image: Array) -> dict[str, Array]:
    """[b, h, w, 3] in 0..255, uint8 or float -> "mixed_7" [b, 768], "mixed_8" [b, 1280], "pool_3" [b, 2048].

    With the softmax head among `params` also "logits" and "logits_no_bias" [b, 1008]. Pure: jit it outside.
    """
    net = inception.Inception(head="softmax" in params)
    return net.apply({"params": params}, inception.preprocess(image))  # pyright: ignore[reportReturnType]


def cache_key(data_key: str, resampler: str, weights_sha256: str) -> str:
    """32 hexadecimal digits that change with the pictures, how they were resized, and the network."""
    told = json.dumps([VERSION, data_key, resampler, weights_sha256])
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def _path(folder: str | pathlib.Path, key: str) -> pathlib.Path:
    return pathlib.Path(folder) / f"features-{key}.npz"


def save(folder: str | pathlib.Path, key: str, found: dict[str, np.ndarray], about: dict[str, Any]) -> None:
    """Keeps mixed_7 [n, 768] and pool_3 [n, 2048] with `about` in JSON; the file appears whole or not at all.

    A cache that cannot be written costs time, not the run: it is said, and nothing is raised.
    """
    path = _path(folder, key)
    kept = {name: np.asarray(found[name], np.float32) for name in KEPT}
    metadata = json.dumps({**about, "key": key, "rows": len(kept["pool_3"])}, sort_keys=True)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            np.savez(file, metadata=np.array(metadata), mixed_7=kept["mixed_7"], pool_3=kept["pool_3"])
        os.replace(temporary, path)
    except OSError as error:
        log.warning(
            "The real side's features could not be kept in %s (%s); the next run computes them again.",
            path,
            error,
        )
    finally:
        if temporary is not None:
            pathlib.Path(temporary).unlink(missing_ok=True)


def load(folder: str | pathlib.Path, key: str) -> dict[str, np.ndarray] | None:
    """What `save` kept under this key, or None if there is nothing or it is damaged, which is said."""
    path = _path(folder, key)
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            about = json.loads(str(stored["metadata"]))
            found = {name: stored[name] for name in KEPT}
        expected = {name: (about["rows"], inception.WIDTH[name]) for name in KEPT}
        if about["key"] != key or any(found[name].shape != expected[name] for name in KEPT):
            raise ValueError(f"holds {about['rows']} rows under key {about['key']}")
    except (*archives.DAMAGED, ValueError, TypeError) as error:
        log.warning("The cached features in %s are damaged (%s) and are computed again.", path, error)
        return None
    return found
