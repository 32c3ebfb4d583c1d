"""Pictures to the features that scores are made of, the scores' true names, and files of features.

A file of features (.npz) holds one side of a comparison and says what made it: which network, weights and
resize, from which pictures. It is the cache of the real side and what people pass around as "statistics".
"""

import hashlib
import json
import logging
import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdog.metrics.backbones import inception, nasnet
from jaxdog.utils import files

Array = jax.Array

log = logging.getLogger(__name__)

VERSION = 2  # of what the features mean; another number leaves old caches unread


class Network(NamedTuple):
    """What scores need to know of a feature network."""

    features: Callable[[dict[str, Any], Array], dict[str, Array]]  # params, [b, h, w, 3] -> layer -> [b, d]
    frechet: dict[str, str]  # layer -> what the Frechet distance on it is called
    layer: str  # the one that all other scores are made of
    suffix: str  # of those scores' names
    eps: float  # threshold on the memorization distance
    width: dict[str, int]  # layer -> d


def features(params: dict[str, Any], image: Array) -> dict[str, Array]:
    """[b, h, w, 3] in 0..255, uint8 or float -> "mixed_7" [b, 768], "mixed_8" [b, 1280], "pool_3" [b, 2048].

    With the softmax head among `params` also "logits" and "logits_no_bias" [b, 1008]. Pure: jit it outside.
    """
    net = inception.Inception(head="softmax" in params)
    return net.apply({"params": params}, inception.preprocess(image))  # pyright: ignore[reportReturnType]


def nasnet_features(params: dict[str, Any], image: Array) -> dict[str, Array]:
    """[b, h, w, 3] in 0..255, uint8 or float -> "final_mean" [b, 4032] of NASNet-A-Large."""
    net = nasnet.NASNet()
    return net.apply({"params": params}, nasnet.preprocess(image))  # pyright: ignore[reportReturnType]


NETWORKS = {
    "inception": Network(
        features, {"mixed_7": "fid768", "pool_3": "fid2048"}, "pool_3", "", 0.1, inception.WIDTH
    ),
    "nasnet": Network(
        nasnet_features, {"final_mean": "fid_nasnet"}, "final_mean", "_nasnet", 0.25, nasnet.WIDTH
    ),
}
# What can be measured; "mifid" brings FID along, "forensics" is examine.py's, the others are compare.py's.
METRICS = ("mifid", "is", "kid", "prdc", "fid_infinity", "per_class", "forensics")
LOGITS = "logits_no_bias"  # what the Inception Score is made of, where the weights have the head


class About(NamedTuple):
    """What a set of features was made with; what `comparable` looks at."""

    network: str  # a row of NETWORKS
    kind: str  # of its weights: "published" | "fitted" | "other" | "random"
    sha256: str  # of its weights
    size: str  # of the pictures that the network saw, "64x64"
    resampler: str  # how whole photos became that size; "none": they had it
    source: str  # the pictures, for people


class Features(NamedTuple):
    """One side of a comparison."""

    found: dict[str, np.ndarray]  # layer -> [n, d] float32
    about: About
    label: np.ndarray | None = None  # [n] int32, index into breeds
    breeds: tuple[str, ...] = ()
    file: pathlib.Path | None = None  # of the cache, where these are; what is made of them is kept beside it

    @property
    def count(self) -> int:
        """n, the number of pictures."""
        return len(next(iter(self.found.values())))


def network(name: str) -> Network:
    """The row of NETWORKS; raises ValueError naming the rows."""
    if name not in NETWORKS:
        raise ValueError(f"network is {name!r}; choices: {', '.join(NETWORKS)}")
    return NETWORKS[name]


def kept(network: str) -> tuple[str, ...]:
    """The layers that scores are made of, besides the logits of generated pictures."""
    return tuple(NETWORKS[network].frechet)


def called(base: str, kind: str, layer: str = "") -> str:
    """The true name of a score: only with published weights is it the plain one.

    Fitted kernels come after mixed_7, so what is made of that layer is exact with them.
    """
    names = {"published": base, "fitted": f"{base}_approx", "other": f"{base}_other", "random": f"r{base}"}
    if kind not in names:
        raise ValueError(f"weights are of kind {kind!r}; known are {', '.join(names)}")
    return base if kind == "fitted" and layer == "mixed_7" else names[kind]


class Names(NamedTuple):
    """What the scores of training are called."""

    fid768: str  # on the means of mixed_7
    fid2048: str  # on pool_3
    mifid: str


def names(kind: str) -> Names:
    """The true names of scores made by Inception with weights of this kind."""
    return Names(called("fid768", kind, "mixed_7"), called("fid2048", kind), called("mifid", kind))


def comparable(real: About, fake: About) -> None:
    """Raises ValueError, naming both sides, unless features made so may be compared.

    How photos were resized does not need to agree: generated pictures mostly have their size.
    """
    wrong = [
        f"{field}: {a} (real) against {b} (generated)"
        for field, a, b in zip(About._fields, real, fake, strict=True)
        if field in ("network", "kind", "sha256", "size") and a != b
    ]
    if wrong:
        raise ValueError(
            f"features of {real.source} cannot be compared with those of {fake.source}, they were made "
            f"differently; {'; '.join(wrong)}. Make one of them again in the way of the other."
        )


# ------------------------------------------------------------------------------------- files


def cache_path(folder: str | pathlib.Path, data_key: str, about: About) -> pathlib.Path:
    """The cache's file for these pictures, seen so; its name changes with anything that changes features."""
    told = json.dumps([VERSION, data_key, *about[:-1]])
    return pathlib.Path(folder) / f"features-{hashlib.sha256(told.encode()).hexdigest()[:32]}.npz"


def save(path: str | pathlib.Path, made: Features) -> None:
    """Writes one side of a comparison; the file appears whole or not at all. Raises OSError."""
    _write(pathlib.Path(path), _arrays(made))


def _arrays(made: Features) -> dict[str, np.ndarray]:
    header = {**made.about._asdict(), "n": made.count, "breeds": made.breeds, "version": VERSION}
    label = {} if made.label is None else {"label": np.asarray(made.label, np.int32)}
    found = {name: np.asarray(x, np.float32) for name, x in made.found.items()}
    return {"metadata": np.array(json.dumps(header)), **found, **label}


def _write(path: pathlib.Path, arrays: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **arrays)
        os.replace(temporary, path)
    finally:
        pathlib.Path(temporary).unlink(missing_ok=True)


def load(path: str | pathlib.Path) -> Features:
    """Reads what `save` wrote; raises FileNotFoundError, or ValueError when it is damaged or no such file."""
    path = pathlib.Path(path)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            if "metadata" not in stored.files:
                raise ValueError(f"it has no entry 'metadata', and holds {', '.join(stored.files[:8])}")
            header = json.loads(str(stored["metadata"]))
            if header.get("version") != VERSION:
                raise ValueError(f"its version is {header.get('version')}, this program reads {VERSION}")
            about = About(**{field: str(header[field]) for field in About._fields})
            width = NETWORKS[about.network].width
            found = {name: stored[name] for name in stored.files if name in (*width, LOGITS)}
            label = stored["label"] if "label" in stored.files else None
        n = header["n"]
        if any(found[name].shape != (n, width[name]) for name in kept(about.network)):
            raise ValueError(f"it announces {n} rows and does not hold them")
        if not all(np.isfinite(x).all() for x in found.values()):
            raise ValueError("it holds features that are not finite")
    except FileNotFoundError:
        raise
    except (*files.DAMAGED, ValueError, TypeError) as error:
        raise ValueError(f"{path} is no whole file of features: {error}") from error
    return Features(found, about, label, tuple(header["breeds"]))


def is_file(path: str | pathlib.Path) -> bool:
    """Whether a .npz file says that it holds features, rather than pictures."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return "metadata" in stored.files
    except (*files.DAMAGED, ValueError):
        return False


def cached(path: pathlib.Path) -> Features | None:
    """What the cache holds there, or None if there is nothing or it is damaged, which is said."""
    try:
        return load(path) if path.is_file() else None
    except ValueError as error:
        log.warning("The cached features are damaged and are computed again: %s", error)
        return None


def keep(path: pathlib.Path, made: Features) -> None:
    """Writes the cache; one that cannot be written costs time, not the run: it is said, nothing is raised."""
    _keep(path, _arrays(made))


def _keep(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    try:
        _write(path, arrays)
    except OSError as error:
        log.warning("%s could not be kept (%s); the next run makes it again.", path, error)


def derived(side: Features, name: str) -> dict[str, np.ndarray] | None:
    """What was made of one side alone and kept beside its file in the cache; None: nothing, or damaged."""
    path = _beside(side, name)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return dict(stored)
    except FileNotFoundError:
        return None
    except (*files.DAMAGED, ValueError) as error:
        log.warning("%s is damaged (%s) and is made again.", path, error)
        return None


def keep_derived(side: Features, name: str, arrays: dict[str, np.ndarray]) -> None:
    """Keeps for `derived` what was made of one side that has a file in the cache; see `keep`."""
    _keep(_beside(side, name), arrays)


def _beside(side: Features, name: str) -> pathlib.Path:
    assert side.file is not None
    return side.file.with_suffix(f".{name}.npz")
