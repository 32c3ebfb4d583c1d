"""Weights of the feature networks, by name: published, random, or a file."""

import logging
import pathlib

from jaxdog.metrics.backbones import inception_weights, nasnet_weights
from jaxdog.utils import errors

log = logging.getLogger("jaxdog")


def load(network: str, name: str, cache_dir: pathlib.Path) -> inception_weights.Weights:
    """Loads the weights of a network in features.NETWORKS.

    Args:
      network: "inception" | "nasnet".
      name: "published" (downloaded once into `cache_dir`), "random", or a file or folder.
      cache_dir: folder for downloads.

    If the published weights of Inception cannot be downloaded, returns a random network, whose scores are
    named random_fid... Raises UserError for NASNet's published weights, which are not downloaded, and for a
    file that cannot be read.
    """
    module = {"inception": inception_weights, "nasnet": nasnet_weights}[network]
    if name == "random":
        return module.random()
    if name != "published":
        return module.load(pathlib.Path(name).expanduser())
    if network == "nasnet":
        raise errors.UserError(
            "NASNet's published weights are not downloaded: name their file (--weights FILE), or 'random'. "
            f"{nasnet_weights.ACCEPTED}"
        )
    try:
        return inception_weights.load(inception_weights.download(cache_dir / "weights"))
    except inception_weights.DownloadError as error:
        log.warning(
            "%s A network with fixed random weights is used instead: scores are called random_fid... and are "
            "not comparable with any FID.",
            error,
        )
        return inception_weights.random()
