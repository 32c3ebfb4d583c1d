"""`real_features.npz`: the features of the real side, kept with a run for scores without photos.

Those of another network than Inception are `real_features_nasnet.npz`, `real_features_dinov2.npz`, ...
"""

import logging
import pathlib

from jaxdog.metrics import features
from jaxdog.utils import files

log = logging.getLogger("jaxdog")


def name(network: str) -> str:
    """The file in the folder of a run."""
    return f"real_features{features.NETWORKS[network].suffix}.npz"


def load(folder: pathlib.Path, spec: features.FeatureSpec) -> features.Features | None:
    """The features in a run's folder; None if there are none, or damaged ones, or of another spec."""
    side = features.load_cached(folder / name(spec.network))
    return side if side is not None and side.spec == spec else None


def keep(folder: pathlib.Path, side: features.Features) -> None:
    """Keeps the features with the run: as a hard link of their cache file, or a copy where links fail."""
    path = folder / name(side.spec.network)
    try:
        if side.file is not None and side.file.is_file():
            files.link_or_copy(side.file, path)
        else:
            features.save(path, side)
    except OSError as error:
        log.warning("%s could not be written (%s): later scores of this run need the photos.", path, error)


def describe(folder: pathlib.Path, network: str) -> str:
    """What a run's folder has of a network's features, for error messages."""
    path = folder / name(network)
    side = features.load_cached(path)
    if side is None:
        return f"{path} is missing or damaged"
    spec = side.spec
    return (
        f"{path} was made by {spec.kind} weights of {spec.network} (sha256 {spec.sha256[:12]}...) "
        f"from {spec.size} images ({spec.resampler})"
    )
