"""Options of `score_files` and their choices. This module does not import JAX, for a fast command line."""

import math
import numbers
import os
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

from jaxdog.metrics import metric_table
from jaxdog.utils import errors, integers, outputs

FORMATS = ("jaxdog", "pytorch-fid")  # of saved features
Resampler = Literal["box", "bilinear", "bicubic", "lanczos", "area", "tf1-bilinear"]  # as in cropping
RESAMPLERS = get_args(Resampler)


class Options(NamedTuple):
    """How images are scored."""

    network: str = ""  # a row of features.NETWORKS; "": inception, or that of a file of statistics
    weights: str = "published"  # "published" | "random" | a file or folder
    size: int = 0  # pixels; both sides are squashed to size x size; 0: the size of the generated images
    resampler: Resampler = "lanczos"  # squashes the images; one of RESAMPLERS
    eps: float | None = None  # MiFID's threshold on the memorization distance; None: the network's own
    metrics: tuple[str, ...] | None = None  # names in metric_table.METRICS; None: its defaults
    batch_size: int = 64  # images per forward pass
    cache_dir: str = "~/.cache/jaxdog"  # cache of weights and of the real side's features
    pairs: str = ""  # .png file for pairs of images and the photos they resemble, with metric "copies"
    save_real: str = ""  # .npz file for the real side's features
    save_fake: str = ""  # .npz file for the generated side's features
    save_as: str = "jaxdog"  # one of FORMATS: features, or their mean and covariance as in pytorch-fid


CHOICES = {"network": ("", *get_args(metric_table.Network)), "resampler": RESAMPLERS, "save_as": FORMATS}
PATHS = ("weights", "cache_dir", "pairs", "save_real", "save_fake")  # str or os.PathLike
OUTPUTS = {"save_real": ".npz", "save_fake": ".npz", "pairs": ".png"}


def from_keywords(options: Mapping[str, Any]) -> Options:
    """The options of a Python call; `metrics` may be one name, names with commas, or a sequence of names.

    Raises errors.UserError for an unknown option or metric, naming near ones and the choices, and for a
    value of another type or range.
    """
    for name in options:
        _check_name(name, Options._fields, "an option of score", "options")
    checked = Options(**options)
    integers.check(checked.batch_size, "batch_size", 1)
    integers.check(checked.size, "size", 0)
    eps = checked.eps
    if eps is not None and not (isinstance(eps, numbers.Real) and 0 <= eps < math.inf):
        raise errors.UserError(f"eps is {eps!r}, and must be a finite number of at least 0")
    for name, choices in CHOICES.items():
        if (value := getattr(checked, name)) not in choices:
            known = ", ".join(filter(None, choices))
            raise errors.UserError(f"{name} is {value!r}; choices: {known}")
    for name in PATHS:
        value = getattr(checked, name)
        if not isinstance(value, str | os.PathLike):
            raise errors.UserError(
                f"{name} is {value!r} ({type(value).__name__}), and must be text or a path; leave "
                "it out for its default"
            )
        checked = checked._replace(**{name: os.fspath(value)})
    return checked._replace(metrics=_metrics(checked.metrics))


def _metrics(given: Any) -> tuple[str, ...] | None:
    """The names of metrics; raises errors.UserError unless there are any, all of them known."""
    if given is None:
        return None
    try:
        names = tuple(x.strip() for x in given.split(",")) if isinstance(given, str) else tuple(given)
    except TypeError:
        names = ()
    if not names:
        choices = ", ".join(metric_table.METRICS)
        raise errors.UserError(f"metrics is {given!r}, and must be names of metrics; choices: {choices}")
    for name in names:
        _check_name(name, tuple(metric_table.METRICS), "a metric", "metrics")
    return names


def with_outputs(options: Options, real: Any, fake: Any) -> Options:
    """The options with whole paths of outputs.

    Raises errors.UserError for a file that cannot, or would not, be written, or that would replace another
    output, or the images `real` or `fake`, if these are paths.
    """
    used = {"the real images": real, "the generated images": fake}
    for name, suffix in OUTPUTS.items():
        if path := getattr(options, name):
            used[name] = str(outputs.check(path, name, (suffix,), apart=used))
            options = options._replace(**{name: used[name]})
    if options.pairs and "copies" not in (options.metrics or ()):
        raise errors.UserError(f"pairs is {options.pairs!r}, but copies are not among the metrics")
    if options.save_as != "jaxdog" and not (options.save_real or options.save_fake):
        raise errors.UserError(
            f"save_as is {options.save_as!r}, but no file is to be saved: set save_real or save_fake"
        )
    return options


def _check_name(name: Any, choices: tuple[str, ...], what: str, kind: str) -> None:
    if name not in choices:
        hint = errors.did_you_mean(str(name), choices)
        raise errors.UserError(f"{name} is not {what}; {hint}{kind}: {', '.join(choices)}")
