"""The two sides of a score: what each of them is, and what can be computed of both."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxdog.data import image_files, photos
from jaxdog.evaluation import score_options
from jaxdog.metrics import comparison, features, fid, metric_table, statistics_files
from jaxdog.utils import errors

Options = score_options.Options
DEFAULTS = Options()
# A path (see data/image_files.py), [n, h, w, 3] uint8, or a source (see score_inputs.py).
Images = str | pathlib.Path | np.ndarray | photos.Source


class Side(NamedTuple):
    """One side of the comparison: images to read, or features, or statistics of features."""

    source: photos.Source | None
    features: features.Features | None
    statistics: statistics_files.Statistics | None

    @property
    def count(self) -> int:
        """Number of images, those that are broken among them; 0: unknown."""
        if self.source is not None:
            return len(self.source.photos)
        if self.features is not None:
            return self.features.count
        assert self.statistics is not None
        rows, moments = self.statistics.rows, self.statistics.moments
        return len(rows) if rows is not None else moments.n if moments is not None else 0


def open_side(images: Images) -> Side:
    """One side; raises UserError if it cannot be read."""
    if isinstance(images, photos.Source):
        return Side(images, None, None)
    if isinstance(images, np.ndarray):
        return Side(image_files.array("array", images, None), None, None)
    path = pathlib.Path(images).expanduser()
    if features.is_features_file(path):
        return Side(None, features.load(path), None)
    if statistics_files.is_statistics_file(path):
        return Side(None, None, statistics_files.read(path))
    return Side(image_files.source(images), None, None)


def network_of(sides: Sequence[Side]) -> str:
    """The network of saved features, or of statistics; Inception for images."""
    saved = [side.features.spec.network for side in sides if side.features is not None]
    made = [statistics_files.network_of(side.statistics) for side in sides if side.statistics is not None]
    return [*saved, *made, "inception"][0]


def metrics_of(
    options: Options, real: features.Features, fake: features.Features, images: comparison.Images
) -> tuple[str, ...]:
    """The metrics to compute. Raises UserError for one that needs more than the moments of a side."""
    if not real.moments and not fake.moments:
        return options.metrics or metric_table.DEFAULT
    has = {
        name: comparison.available(metric.needs, real, fake, images)
        for name, metric in metric_table.METRICS.items()
    }
    missing = [name for name in options.metrics or () if not has[name]]
    if missing:
        only = " and ".join(
            f"{side.spec.source} has only the mean and the covariance of {', '.join(side.moments)}"
            for side in (real, fake)
            if side.moments
        )
        possible = ", ".join(name for name, possible in has.items() if possible)
        raise errors.UserError(
            f"{missing[0]} cannot be computed: {metric_table.NEEDS[metric_table.METRICS[missing[0]].needs]}; "
            f"{only}. Metrics that can be computed: {possible or 'none'}"
        )
    return options.metrics or tuple(name for name in metric_table.DEFAULT_OF_MOMENTS if has[name])


# --- checks before features are computed -----------------------------------------------------------------


def check(real: Side, fake: Side, options: Options, given: Options) -> None:
    """Raises UserError, before features are computed, for sides that cannot be what is asked for.

    Args:
      real, fake: the sides.
      options: the options, with the network of the scores.
      given: the options as they were given.
    """
    unknown = statistics_files.UNKNOWN
    kind = "random" if options.weights == "random" else unknown
    spec = features.FeatureSpec(options.network, kind, unknown, unknown, unknown, options.weights)
    nothing = np.empty((0, 0), np.float32)
    layers = dict.fromkeys((*features.frechet_layers(options.network), features.LOGITS), nothing)
    full = features.Features(layers, spec, nothing)  # as images will have them at most
    at_most = [
        statistics_files.side(side.statistics, options.network, spec) if side.statistics is not None else full
        for side in (real, fake)
    ]
    some = None if real.source is None or fake.source is None else lambda: iter(())
    metrics_of(options, at_most[0], at_most[1], comparison.Images(some, some))
    for side, which in ((real, "real"), (fake, "generated")):
        if side.features is not None:
            _check_saved(side.features.spec, which, given)
    if "fid_infinity" in (options.metrics or ()) and 0 < fake.count < fid.INFINITY_IMAGES:
        raise errors.UserError(
            f"there are {fake.count} generated images, and fid_infinity needs at least "
            f"{fid.INFINITY_IMAGES}: leave it out of the metrics, or give more images"
        )


def _check_saved(spec: features.FeatureSpec, which: str, given: Options) -> None:
    """Raises UserError for an option that saved features, of a side `which`, contradict."""
    pairs = {"network": (given.network, spec.network)}
    if given.size:
        pairs["size"] = (f"{given.size}x{given.size}", spec.size)
    if which == "real" and given.resampler != DEFAULTS.resampler:
        pairs["resampler"] = (given.resampler, spec.resampler)
    if given.weights == "random":
        pairs["weights"] = (given.weights, spec.kind)
    for name, (asked, held) in pairs.items():
        if asked and asked != held:
            raise errors.UserError(
                f"{name} is {asked}, but the {which} side is a file of features of {name} {held}: leave "
                f"{name} out, or give the images from which the features were computed"
            )


# --- warnings --------------------------------------------------------------------------------------------


def notes(
    sides: Sequence[Side],
    options: Options,
    metrics: Sequence[str],
    both: tuple[features.Features, features.Features],
) -> list[str]:
    """What is assumed about statistics, which metrics were left out, and which options do nothing."""
    read = [side.statistics for side in sides if side.statistics is not None]
    lines = [statistics_files.note(statistics, options.network) for statistics in read]
    if options.metrics is None and any(side.moments for side in both):
        left_out = ", ".join(name for name in metric_table.DEFAULT if name not in metrics)
        lines.append(f"mean and covariance give {', '.join(metrics)}, not {left_out}, which need features")
    if options.eps is not None and not {"mifid", "per_class"} & set(metrics):
        lines.append(f"eps is {options.eps:g}, and has no effect without the metric mifid or per_class")
    network_eps = features.NETWORKS[options.network].eps
    if "mifid" in (options.metrics or ()) and options.eps is None and network_eps is None:
        lines.append(
            f"no MiFID: the network {options.network} has no threshold on the memorization distance; "
            "set eps for one, or ask for the metric fid"
        )
    if options.save_as == "pytorch-fid" and options.network != "inception_pytorch":
        lines.append(
            f"the saved mean and covariance are of the network {options.network}, and those of "
            "pytorch-fid are of inception_pytorch: do not compare them with its own files"
        )
    return lines
