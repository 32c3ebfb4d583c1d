"""Options of `score_files` and their choices. This module does not import JAX, for a fast command line."""

from typing import NamedTuple

NETWORKS = ("inception", "nasnet")  # as in features.NETWORKS
METRICS = (
    "mifid",
    "isc",
    "kid",
    "prdc",
    "fid_infinity",
    "per_class",
    "copies",
)  # as in metric_table.METRICS
RESAMPLERS = ("box", "bilinear", "bicubic", "lanczos", "area", "tf1-bilinear")  # as in cropping.RESAMPLERS


class Options(NamedTuple):
    """How images are scored."""

    network: str = "inception"  # one of NETWORKS
    weights: str = "published"  # "published" | "random" | a file or folder
    size: int = 0  # pixels; both sides are squashed to size x size; 0: the size of the generated images
    resampler: str = "lanczos"  # squashes the images; one of RESAMPLERS
    eps: float | None = None  # MiFID's threshold on the memorization distance; None: the network's own
    metrics: tuple[str, ...] = ("mifid", "isc", "kid", "prdc")  # names in METRICS
    batch_size: int = 64  # images per forward pass
    cache_dir: str = "~/.cache/jaxdog"  # cache of weights and of the real side's features
    pairs: str = ""  # .png file for pairs of images and the photos they resemble, with metric "copies"
    save_real: str = ""  # .npz file for the real side's features
    save_fake: str = ""  # .npz file for the generated side's features
