"""Statistics of features that other programs save: mean and covariance, or the features themselves.

| program | file | content |
|---|---|---|
| pytorch-fid, TTUR | .npz | `mu`, `sigma`, both float64 |
| clean-fid | .npz | `mu` in float32 and `sigma`; for KID `feats` |
| the competition's organizers | .npz | `m`, `s`, `features` |
| torch-fidelity | .pt | `mu`, `sigma`; or a tensor of features |
| StyleGAN2-ADA, StyleGAN3 | .pkl | `raw_mean`, `raw_cov`, `num_items`; or `all_features` |

None of them names its network, its weights or the size of its images. The number of columns tells the layer,
and the program how it resizes images. Nothing is unpickled: see `backbones.pickles`.
"""

import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from jaxdog.metrics import features
from jaxdog.metrics.backbones import pickles, weight_files
from jaxdog.utils import errors, files, untrusted

SUFFIXES = (".npz", ".pt", ".pkl")
UNKNOWN = "unknown"  # in a FeatureSpec
MOMENTS = ({"mu", "sigma"}, {"m", "s"})  # arrays of mean and covariance
HALVES = ({"feats"}, {"mu"}, {"sigma"}, {"m"}, {"s"})  # all that a file holds; one of a pair is an error
ASYMMETRY = 1e-3  # of a covariance, relative to its largest element
# Program -> the network that resizes images in its way.
PROGRAMS = {
    "pytorch-fid": "inception_pytorch",
    "clean-fid": "inception_clean",
    "the competition": "inception",
    "torch-fidelity": "inception",
    "StyleGAN": "inception",
}


class Statistics(NamedTuple):
    """The content of a file: features, or else moments."""

    path: pathlib.Path
    program: str  # a row of PROGRAMS
    rows: np.ndarray | None  # [n, d] float32, features
    moments: features.Moments | None

    @property
    def width(self) -> int:
        """d, the number of features of an image."""
        if self.rows is not None:
            return self.rows.shape[1]
        assert self.moments is not None
        return len(self.moments.mean)


def is_statistics_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file is one that `read` reads, by its suffix and the names in it."""
    path = pathlib.Path(path)
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        return False
    names = set(untrusted.npz_names(path))
    return path.suffix.lower() != ".npz" or any(names >= pair for pair in MOMENTS) or names in HALVES


def read(path: str | os.PathLike[str]) -> Statistics:
    """The statistics in a file. Raises FileNotFoundError, or UserError for a damaged or another file."""
    path = pathlib.Path(path)
    readers = {".npz": _read_npz, ".pt": _read_torch, ".pkl": _read_stylegan}
    try:
        program, values, moments = readers[path.suffix.lower()](path)
        if values is None and moments is None:
            raise errors.UserError("it has neither features nor their mean and covariance")
        return Statistics(
            path,
            program,
            None if values is None else _checked_features(values),
            _checked_moments(moments) if values is None and moments is not None else None,
        )
    except FileNotFoundError:
        raise
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise errors.UserError(f"{path} cannot be read as statistics of features: {error}") from error


Content = tuple[str, np.ndarray | None, features.Moments | None]  # program, features, moments


def _read_npz(path: pathlib.Path) -> Content:
    wanted = {"mu", "sigma", "m", "s", "features", "feats"}
    arrays = untrusted.read_npz(path, wanted.__contains__)
    if "feats" in arrays:
        return "clean-fid", arrays["feats"], None
    if "m" in arrays and "s" in arrays:
        return "the competition", arrays.get("features"), features.Moments(arrays["m"], arrays["s"], 0)
    if missing := {"mu", "sigma"} - arrays.keys():
        raise errors.UserError(f"it has no {errors.some(missing)}; its arrays: {errors.some(arrays)}")
    program = "pytorch-fid" if arrays["mu"].dtype == np.float64 else "clean-fid"
    return program, None, features.Moments(arrays["mu"], arrays["sigma"], 0)


def _read_torch(path: pathlib.Path) -> Content:
    arrays = weight_files.read_torch_arrays(path)
    if "" in arrays:
        return "torch-fidelity", arrays[""], None
    return "torch-fidelity", None, features.Moments(arrays["mu"], arrays["sigma"], 0)


def _read_stylegan(path: pathlib.Path) -> Content:
    """The fields of a FeatureStats: sums over images of features and of their products, or all features."""
    weight_files.check_size(path)
    fields: Any = pickles.load(path.read_bytes(), arrays=True)[0]
    if not isinstance(fields, dict) or "num_items" not in fields:
        raise errors.UserError("it is not a FeatureStats of StyleGAN2-ADA or StyleGAN3")
    n, rows = fields["num_items"], [_values(x) for x in fields.get("all_features") or []]
    if rows:
        return "StyleGAN", np.concatenate(rows), None
    if not fields.get("capture_mean_cov") or type(n) is not int or n < 2:
        return "StyleGAN", None, None
    mean = _values(fields["raw_mean"]) / n
    products = _values(fields["raw_cov"]) / n
    if mean.ndim != 1 or products.shape != 2 * mean.shape:
        raise errors.UserError(f"its sums have the shapes {mean.shape} and {products.shape}")
    covariance = (products - np.outer(mean, mean)) * (n / (n - 1))  # StyleGAN's own is divided by n
    return "StyleGAN", None, features.Moments(mean, covariance, n)


def _values(value: Any) -> np.ndarray:
    if not isinstance(value, pickles.Array) or value.values is None:
        raise errors.UserError(f"it has a {type(value).__name__} where an array belongs")
    return value.values


def _checked_features(rows: np.ndarray) -> np.ndarray:
    if rows.ndim != 2 or rows.dtype.kind != "f" or len(rows) < 2 or not np.isfinite(rows).all():
        raise errors.UserError(f"its features are {rows.dtype} {list(rows.shape)}, not finite floats [n, d]")
    return np.asarray(rows, np.float32)


def _checked_moments(moments: features.Moments) -> features.Moments:
    mean, covariance = moments.mean, moments.covariance
    shapes = f"its mean is {mean.dtype} {list(mean.shape)}, its covariance {covariance.dtype} "
    shapes += f"{list(covariance.shape)}"
    if (
        mean.ndim != 1
        or covariance.shape != 2 * mean.shape
        or {mean.dtype.kind, covariance.dtype.kind} != {"f"}
    ):
        raise errors.UserError(f"{shapes}; expected are floats [d] and [d, d]")
    if not np.isfinite(mean).all() or not np.isfinite(covariance).all():
        raise errors.UserError("it has numbers that are not finite")
    mean, covariance = np.asarray(mean, np.float64), np.asarray(covariance, np.float64)
    if np.abs(covariance - covariance.T).max(initial=0) > ASYMMETRY * np.abs(covariance).max(initial=0):
        raise errors.UserError("its covariance is not symmetric")
    return features.Moments(mean, (covariance + covariance.T) / 2, moments.n)


def network_of(statistics: Statistics) -> str:
    """The network that most likely made the statistics, by their program and width; raises UserError."""
    names = [PROGRAMS[statistics.program], *features.NETWORKS]
    fitting = [name for name in names if _layer(name, statistics.width)]
    if not fitting:
        layer_of(statistics, names[0])
    return fitting[0]


def _layer(network: str, width: int) -> str:
    """The layer of that many features, of those that have a Frechet distance; "" if there is none."""
    known = features.NETWORKS[network]
    return next((layer for layer in known.frechet if known.width[layer] == width), "")


def layer_of(statistics: Statistics, network: str) -> str:
    """The layer of a network that has as many features as the statistics; raises UserError without one."""
    layer = _layer(network, statistics.width)
    if not layer:
        widths = {
            name: ", ".join(f"{known.width[layer]} ({layer})" for layer in known.frechet)
            for name, known in features.NETWORKS.items()
        }
        early = " 64 and 192 are early layers of Inception, which are not computed here."
        raise errors.UserError(
            f"{statistics.path} has statistics of {statistics.width} features, and the network {network} has "
            f"{widths.pop(network)}. Choose the network that made them ("
            + "; ".join(f"{name}: {text}" for name, text in widths.items())
            + "), or make them again from one of these layers."
            + (early if statistics.width in (64, 192) else "")
        )
    return layer


def side(statistics: Statistics, network: str, other: features.FeatureSpec) -> features.Features:
    """One side of a comparison. What the file does not say is assumed to be as on the other side.

    Raises UserError if the network has no such layer, or the other side's weights are random.
    """
    layer = layer_of(statistics, network)
    source = f"{statistics.path.name} ({statistics.program})"
    if other.kind == "random":
        raise errors.UserError(
            f"{statistics.path} has statistics of a trained network, which cannot be compared with features "
            f"of random weights ({other.source}). Give the weights that made them (--weights FILE)"
        )
    spec = other._replace(resampler=UNKNOWN, source=source)
    if statistics.rows is not None:
        return features.Features({layer: statistics.rows}, spec)
    assert statistics.moments is not None
    return features.Features({}, spec, moments={layer: statistics.moments})


def note(statistics: Statistics, network: str) -> str:
    """What is assumed about a file, as a sentence for the warnings."""
    others = ", ".join(name for name in dict.fromkeys(PROGRAMS.values()) if name != network)
    return (
        f"{statistics.path.name} does not say how its features were made: it is taken for a file of "
        f"{statistics.program}, and for features of the same weights and of images resized as by the network "
        f"{network}. Otherwise choose another one with --network ({others})"
    )


def write(path: str | os.PathLike[str], made: features.Features) -> None:
    """Writes mean and covariance of the network's last layer as pytorch-fid does, atomically.

    Raises UserError for a side without features, OSError if the file cannot be written.
    """
    layer = features.NETWORKS[made.spec.network].layer
    if layer in made.moments:
        moments = made.moments[layer]
    elif layer in made.layers:
        rows = made.layers[layer].astype(np.float64)
        moments = features.Moments(rows.mean(axis=0), np.cov(rows, rowvar=False), len(rows))
    else:
        raise errors.UserError(f"{made.spec.source} has no features of {layer} to save")
    with files.atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, mu=moments.mean, sigma=moments.covariance)
