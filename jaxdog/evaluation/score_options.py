"""Options of `score_files` and their choices. This module does not import JAX, for a fast command line."""

import numbers
import operator
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxdog.metrics import metric_table
from jaxdog.utils import errors

FORMATS = ("jaxdog", "pytorch-fid")  # of saved features
RESAMPLERS = ("box", "bilinear", "bicubic", "lanczos", "area", "tf1-bilinear")  # as in cropping.RESAMPLERS


class Options(NamedTuple):
    """How images are scored."""

    network: str = ""  # a row of features.NETWORKS; "": inception, or that of a file of statistics
    weights: str = "published"  # "published" | "random" | a file or folder
    size: int = 0  # pixels; both sides are squashed to size x size; 0: the size of the generated images
    resampler: str = "lanczos"  # squashes the images; one of RESAMPLERS
    eps: float | None = None  # MiFID's threshold on the memorization distance; None: the network's own
    metrics: tuple[str, ...] | None = None  # names in metric_table.METRICS; None: its defaults
    batch_size: int = 64  # images per forward pass
    cache_dir: str = "~/.cache/jaxdog"  # cache of weights and of the real side's features
    pairs: str = ""  # .png file for pairs of images and the photos they resemble, with metric "copies"
    save_real: str = ""  # .npz file for the real side's features
    save_fake: str = ""  # .npz file for the generated side's features
    save_as: str = "jaxdog"  # one of FORMATS: features, or their mean and covariance as in pytorch-fid


def from_keywords(options: Mapping[str, Any]) -> Options:
    """The options of a Python call; `metrics` may be one name, names with commas, or a sequence of names.

    Raises errors.UserError for an unknown option or metric, naming near ones and the choices.
    """
    for name in options:
        _check_name(name, Options._fields, "an option of score", "options")
    checked = Options(**options)
    check_integer("batch_size", checked.batch_size, 1)
    check_integer("size", checked.size, 0)
    if checked.eps is not None and not (isinstance(checked.eps, numbers.Real) and checked.eps >= 0):
        raise errors.UserError(f"eps is {checked.eps!r}, and must be a number of at least 0")
    names = checked.metrics
    if names is None:
        return checked
    metrics = tuple(word.strip() for word in names.split(",")) if isinstance(names, str) else tuple(names)
    for name in metrics:
        _check_name(name, tuple(metric_table.METRICS), "a metric", "metrics")
    return checked._replace(metrics=metrics)


def check_integer(name: str, value: Any, least: int) -> None:
    """Raises errors.UserError unless a value is an integer, also one of NumPy, of at least `least`."""
    try:
        fits = not isinstance(value, bool) and operator.index(value) >= least
    except TypeError:
        fits = False
    if not fits:
        raise errors.UserError(f"{name} is {value!r}, and must be an integer of at least {least}")


def _check_name(name: str, choices: tuple[str, ...], what: str, kind: str) -> None:
    if name not in choices:
        hint = errors.did_you_mean(str(name), choices)
        raise errors.UserError(f"{name} is not {what}; {hint}{kind}: {', '.join(choices)}")
