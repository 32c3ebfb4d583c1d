"""The feature networks' weights, by name: published, random, or a file."""

import logging
import pathlib

from jaxdog.metrics.backbones import inception_weights, nasnet_weights

log = logging.getLogger("jaxdog")


def load(network: str, name: str, cache_dir: pathlib.Path) -> inception_weights.Weights:
    """The weights of a row of features.NETWORKS.

    Args:
      network: "inception" | "nasnet".
      name: "published" (downloaded once into `cache_dir`), "random", or a file or folder.
      cache_dir: where downloads are kept.

    Where the published weights of Inception cannot be had, a random network, whose score is called rFID;
    those of NASNet are not downloaded: raises ValueError. Raises FileNotFoundError for a missing file.
    """
    known = {"inception": inception_weights, "nasnet": nasnet_weights}[network]
    if name == "random":
        return known.random()
    if name != "published":
        return known.load(pathlib.Path(name).expanduser())
    if network == "nasnet":
        raise ValueError(
            "NASNet's published weights are not downloaded: name their file (--weights FILE), or 'random'. "
            f"{nasnet_weights.ACCEPTED}"
        )
    try:
        return inception_weights.load(inception_weights.download(cache_dir / "weights"))
    except inception_weights.DownloadError as error:
        log.warning(
            "%s This is scored with a network of fixed random weights instead: its score is called rFID "
            "and compares with no FID.",
            error,
        )
        return inception_weights.random()
