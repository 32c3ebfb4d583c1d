"""Features of images: the networks, sets of features, the names of scores, and .npz files.

A file of features holds one side of a comparison and its origin: network, weights, resampler and images. The
cache of the real side consists of such files.
"""

import hashlib
import json
import logging
import pathlib
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdog.metrics.backbones import dinov2, inception, nasnet
from jaxdog.utils import errors, files, untrusted

Array = jax.Array

log = logging.getLogger(__name__)

VERSION = 3  # version of the files; increment when features or fields change. Older files are not read
LOGITS = "logits_no_bias"  # input of the Inception Score, if the weights include the classifier


class Network(NamedTuple):
    """A feature network, as the metrics use it."""

    features: Callable[[dict[str, Any], Array], dict[str, Array]]  # params, [b, h, w, 3] -> layer -> [b, d]
    frechet: dict[str, str]  # layer -> name of the Frechet distance of its features
    layer: str  # the layer that all other metrics use
    suffix: str  # suffix of the names of these metrics
    eps: float | None  # MiFID's threshold on the memorization distance; None: MiFID is not defined with it
    board: str  # the leaderboard of 2019 that used it: "public" | "private" | ""
    width: dict[str, int]  # layer -> d
    flops: float  # for one image


def inception_features(
    params: dict[str, Any], image: Array, preprocess: Callable[[Array], Array] = inception.preprocess
) -> dict[str, Array]:
    """[b, h, w, 3] in 0..255, uint8 or float -> "mixed_7" [b, 768], "mixed_8" [b, 1280], "pool_3" [b, 2048].

    With the softmax head among `params` also "logits" and "logits_no_bias", [b, 1008] each. All float32.
    """
    net = inception.Inception(head="softmax" in params)
    return net.apply({"params": params}, preprocess(image))  # pyright: ignore[reportReturnType]


def nasnet_features(params: dict[str, Any], image: Array) -> dict[str, Array]:
    """[b, h, w, 3] in 0..255, uint8 or float -> "final_mean" [b, 4032] float32 of NASNet-A-Large."""
    net = nasnet.NASNet()
    return net.apply({"params": params}, nasnet.preprocess(image))  # pyright: ignore[reportReturnType]


def dinov2_features(plan: dinov2.Plan, params: dict[str, Any], image: Array) -> dict[str, Array]:
    """[b, h, w, 3] in 0..255, uint8 or float -> "class_token" [b, plan.width] float32 of DINOv2."""
    net = dinov2.DINOv2(plan)
    return net.apply({"params": params}, dinov2.preprocess(image))  # pyright: ignore[reportReturnType]


def _inception(
    preprocess: Callable[[Array], Array], suffix: str, eps: float | None = None, board: str = ""
) -> Network:
    return Network(
        features=partial(inception_features, preprocess=preprocess),
        frechet={"mixed_7": f"fid768{suffix}", "pool_3": f"fid2048{suffix}"},
        layer="pool_3",
        suffix=suffix,
        eps=eps,
        board=board,
        width=inception.WIDTH,
        flops=11.1e9,
    )


def _dinov2(plan: dinov2.Plan, suffix: str) -> Network:
    return Network(
        features=partial(dinov2_features, plan),
        frechet={dinov2.LAYER: f"fd{suffix}"},
        layer=dinov2.LAYER,
        suffix=suffix,
        eps=None,
        board="",
        width={dinov2.LAYER: plan.width},
        flops=plan.flops,
    )


NETWORKS = {
    "inception": _inception(inception.preprocess, "", eps=0.1, board="public"),
    # The same network on images that were resized as in pytorch-fid and as in clean-fid.
    "inception_pytorch": _inception(inception.preprocess_pytorch, "_pytorch"),
    "inception_clean": _inception(inception.preprocess_clean, "_clean"),
    "nasnet": Network(
        features=nasnet_features,
        frechet={"final_mean": "fid_nasnet"},
        layer="final_mean",
        suffix="_nasnet",
        eps=0.25,
        board="private",
        width=nasnet.WIDTH,
        flops=47.8e9,
    ),
    "dinov2": _dinov2(dinov2.LARGE, "_dinov2"),
    "dinov2_base": _dinov2(dinov2.BASE, "_dinov2_base"),
    "dinov2_small": _dinov2(dinov2.SMALL, "_dinov2_small"),
}


class FeatureSpec(NamedTuple):
    """The origin of a set of features."""

    network: str  # a row of NETWORKS
    kind: str  # kind of its weights: "published" | "fitted" | "other" | "random"
    sha256: str  # hash of its weights
    size: str  # size of the images given to the network, "64x64" (height x width)
    resampler: str  # resized the photos to that size; "none": not resized
    source: str  # description of the images


class Moments(NamedTuple):
    """Mean and covariance of one layer, where features themselves are not known."""

    mean: np.ndarray  # [d] float64
    covariance: np.ndarray  # [d, d] float64, ddof 1
    n: int  # number of images; 0: unknown


class Features(NamedTuple):
    """One side of a comparison: features of n images, or moments of such features."""

    layers: dict[str, np.ndarray]  # layer -> [n, d] float32; {} if only moments are known
    spec: FeatureSpec
    label: np.ndarray | None = None  # [n] int32, index into class_names
    class_names: tuple[str, ...] = ()
    file: pathlib.Path | None = None  # in the cache; derived arrays are saved next to it
    moments: Mapping[str, Moments] = {}  # layer -> its moments, of layers without features

    @property
    def count(self) -> int:
        """n, the number of images; 0 if it is unknown, as it may be of moments."""
        return next(
            (len(x) for x in self.layers.values()), max((x.n for x in self.moments.values()), default=0)
        )


def select(side: Features, rows: np.ndarray) -> Features:
    """The features of some images; `rows` is [n] bool or indices."""
    layers = {name: x[rows] for name, x in side.layers.items()}
    label = None if side.label is None else side.label[rows]
    return Features(layers, side.spec, label, side.class_names)


def get_network(name: str) -> Network:
    """The row of NETWORKS; raises UserError naming the choices."""
    if name not in NETWORKS:
        raise errors.UserError(f"network is {name!r}; choices: {', '.join(NETWORKS)}")
    return NETWORKS[name]


def judges_distances(kind: str) -> bool:
    """Whether thresholds on the memorization distance hold: not with random weights."""
    return kind != "random"


def frechet_layers(network: str) -> tuple[str, ...]:
    """The layers that metrics use; the Inception Score also uses `LOGITS` of the generated images."""
    return tuple(NETWORKS[network].frechet)


def check_comparable(real: FeatureSpec, fake: FeatureSpec) -> None:
    """Raises UserError naming both sides, unless network, weights and image size agree.

    The resampler may differ, as generated images are not resized.
    """
    different = [
        f"{field} is {a} (real) and {b} (generated)"
        for field, a, b in zip(FeatureSpec._fields, real, fake, strict=True)
        if field in ("network", "kind", "sha256", "size") and a != b
    ]
    if different:
        raise errors.UserError(
            f"features of {real.source} and {fake.source} cannot be compared: {'; '.join(different)}. "
            "Recompute one side with the settings of the other."
        )


# --- names of scores -------------------------------------------------------------------------------------


def metric_name(base: str, kind: str, layer: str = "") -> str:
    """The name of a score for a kind of weights; only published weights give the plain name.

    Fitted kernels only affect layers after mixed_7, so scores of mixed_7 are exact with them.
    """
    names = {
        "published": base,
        "fitted": f"{base}_approx",
        "other": f"{base}_other",
        "random": f"random_{base}",
    }
    if kind not in names:
        raise errors.UserError(f"weights are of kind {kind!r}; kinds: {', '.join(names)}")
    return base if kind == "fitted" and layer == "mixed_7" else names[kind]


class MetricNames(NamedTuple):
    """The names of the scores that are logged during training."""

    fid768: str  # FID of mixed_7
    fid2048: str  # FID of pool_3
    mifid: str


def metric_names(kind: str) -> MetricNames:
    """The names of Inception's scores with weights of this kind."""
    return MetricNames(
        metric_name("fid768", kind, "mixed_7"), metric_name("fid2048", kind), metric_name("mifid", kind)
    )


def other_distances(scores: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the Frechet distances of networks besides Inception in a line of scores.jsonl."""
    kinds = ((row, scores.get(f"weights_kind{row.suffix}")) for row in NETWORKS.values() if row.suffix)
    return tuple(metric_name(name, kind) for row, kind in kinds if kind for name in row.frechet.values())


# --- files -----------------------------------------------------------------------------------------------


def cache_path(folder: str | pathlib.Path, data_key: str, spec: FeatureSpec) -> pathlib.Path:
    """The cache file of these images' features; its name is a hash of everything that affects them.

    data_key: identifies the images and how they were resized.
    """
    key = json.dumps([VERSION, data_key, *spec[:-1]])
    return pathlib.Path(folder) / f"features-{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"


def save(path: str | pathlib.Path, side: Features) -> None:
    """Writes one side of a comparison atomically.

    Raises OSError, or UserError if the size of its images is not known, as that of others' statistics is not.
    """
    _check_size(side.spec)
    header = {**side.spec._asdict(), "n": side.count, "class_names": side.class_names, "version": VERSION}
    arrays = {"metadata": np.array(json.dumps(header))}
    arrays |= {name: np.asarray(x, np.float32) for name, x in side.layers.items()}
    arrays |= {} if side.label is None else {"label": np.asarray(side.label, np.int32)}
    _write(pathlib.Path(path), arrays)


def _check_size(spec: FeatureSpec) -> None:
    if not re.fullmatch(r"[1-9]\d{0,5}x[1-9]\d{0,5}", spec.size):
        raise errors.UserError(f"the size of its images is {spec.size!r}, not height x width, as in 64x64")


def _write(path: pathlib.Path, arrays: dict[str, Any]) -> None:
    with files.atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def load(path: str | pathlib.Path) -> Features:
    """Reads a file of `save`. Raises FileNotFoundError, or UserError if it is damaged or of another kind."""
    path = pathlib.Path(path)
    known = {name for network in NETWORKS.values() for name in network.width} | {LOGITS, "label"}
    try:
        names = untrusted.npz_names(path)
        if "metadata" not in names and path.exists():
            raise errors.UserError(f"it has no entry 'metadata'; its entries: {errors.some(names)}")
        header = _read_header(path)
        if header.get("version") != VERSION:
            raise errors.UserError(
                f"its version is {header.get('version')!r}, but only version {VERSION} can be read"
            )
        spec = FeatureSpec(**{field: str(header[field]) for field in FeatureSpec._fields})
        _check_size(spec)
        arrays = untrusted.read_npz(path, known.__contains__)
        width = {**NETWORKS[spec.network].width, LOGITS: inception.CLASSES}
        layers = {name: x for name, x in arrays.items() if name in width}
        side = Features(layers, spec, arrays.get("label"), tuple(map(str, header["class_names"])))
        _check(side, header["n"], width)
    except FileNotFoundError:
        raise
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise errors.UserError(f"{path} is not a complete file of features: {error}") from error
    return side


def _read_header(path: pathlib.Path) -> dict[str, Any]:
    text = untrusted.read_npz(path, "metadata".__eq__, untrusted.MAX_JSON)["metadata"]
    if text.dtype.kind != "U" or text.shape != () or text.nbytes > untrusted.MAX_JSON:
        raise errors.UserError("its metadata are no text, or too long")
    header = untrusted.parse_json(str(text))
    if not isinstance(header, dict):
        raise errors.UserError("its metadata are not fields")
    return header


def _check(side: Features, n: Any, width: dict[str, int]) -> None:
    missing = set(frechet_layers(side.spec.network)) - side.layers.keys()
    if missing or any(x.shape != (n, width[name]) for name, x in side.layers.items()):
        raise errors.UserError(f"its header gives {n!r} rows, but its arrays have other shapes")
    if not all(x.dtype == np.float32 and np.isfinite(x).all() for x in side.layers.values()):
        raise errors.UserError("it has features that are not finite floats")
    label, classes = side.label, max(len(side.class_names), 1)
    if label is None:
        return
    if (
        label.shape != (n,)
        or label.dtype != np.int32
        or (n and not 0 <= label.min() <= label.max() < classes)
    ):
        raise errors.UserError(f"its labels are not {n!r} numbers of its {classes} classes")


def is_features_file(path: str | pathlib.Path) -> bool:
    """Whether a path is an .npz file of `save`, rather than of images."""
    path = pathlib.Path(path)
    return path.suffix.lower() == ".npz" and path.is_file() and "metadata" in untrusted.npz_names(path)


# --- the cache: a damaged or unwritable file is not an error -------------------------------------


def load_cached(path: pathlib.Path) -> Features | None:
    """The features in a file of the cache; None if it is missing, or damaged (logs a warning)."""
    try:
        return load(path) if path.is_file() else None
    except ValueError as error:
        log.warning("Cached features are damaged and will be recomputed: %s", error)
        return None


def save_cached(path: pathlib.Path, side: Features) -> None:
    """Same as `save`, but only logs a warning if the file cannot be written."""
    try:
        save(path, side)
    except OSError as error:
        _warn_unwritable(path, error)


def load_derived(side: Features, name: str) -> dict[str, np.ndarray] | None:
    """Arrays written by `save_derived`; None if they are missing, or damaged (logs a warning)."""
    path = _derived_path(side, name)
    try:
        return untrusted.read_npz(path)
    except FileNotFoundError:
        return None
    except (errors.UserError, OSError) as error:
        log.warning("%s is damaged (%s) and will be recomputed.", path, error)
        return None


def save_derived(side: Features, name: str, arrays: dict[str, np.ndarray]) -> None:
    """Caches arrays that depend on one side only, next to its file."""
    path = _derived_path(side, name)
    try:
        _write(path, arrays)
    except OSError as error:
        _warn_unwritable(path, error)


def _warn_unwritable(path: pathlib.Path, error: OSError) -> None:
    log.warning("%s could not be written (%s); the next run will recompute it.", path, error)


def _derived_path(side: Features, name: str) -> pathlib.Path:
    assert side.file is not None
    return side.file.with_suffix(f".{name}.npz")
