"""Weights of the feature networks, by name: published, random, or a file."""

import logging
import pathlib
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from jaxdog.metrics.backbones import dinov2, dinov2_weights, downloads, inception_weights, nasnet_weights
from jaxdog.utils import errors

log = logging.getLogger("jaxdog")


class Source(NamedTuple):
    """Where the weights of a network come from."""

    load: Callable[[pathlib.Path], inception_weights.Weights]  # of a file or folder
    random: Callable[[], inception_weights.Weights]
    published: downloads.Remote | None  # None: they are not downloaded
    accepted: str  # the files that `load` accepts, in a sentence


def _dinov2(plan: dinov2.Plan) -> Source:
    return Source(
        partial(dinov2_weights.load, plan=plan),
        partial(dinov2_weights.random, plan),
        dinov2_weights.PUBLISHED[plan],
        dinov2_weights.accepted(plan),
    )


_INCEPTION = Source(
    inception_weights.load, inception_weights.random, inception_weights.PUBLISHED, inception_weights.ACCEPTED
)
SOURCES = {  # for each row of features.NETWORKS
    "inception": _INCEPTION,
    "inception_pytorch": _INCEPTION,
    "inception_clean": _INCEPTION,
    "nasnet": Source(nasnet_weights.load, nasnet_weights.random, None, nasnet_weights.ACCEPTED),
    "dinov2": _dinov2(dinov2.LARGE),
    "dinov2_base": _dinov2(dinov2.BASE),
    "dinov2_small": _dinov2(dinov2.SMALL),
}


def load(network: str, name: str, cache_dir: pathlib.Path) -> inception_weights.Weights:
    """Loads the weights of a network in features.NETWORKS.

    Args:
      network: a row of `SOURCES`.
      name: "published" (downloaded once into `cache_dir`), "random", or a file or folder.
      cache_dir: folder for downloads.

    If the published weights of Inception cannot be downloaded, returns a random network, whose scores are
    named random_fid... Raises UserError for other published weights that are not or cannot be downloaded, and
    for a file that cannot be read.
    """
    source = SOURCES[network]
    if name == "random":
        return source.random()
    if name != "published":
        return source.load(pathlib.Path(name).expanduser())
    if source.published is None:
        raise errors.UserError(
            f"the published weights of {network} are not downloaded: name their file (jaxdog score: "
            f"--weights FILE; a run: config.eval.{network.partition('_')[0]}_weights), or 'random'. "
            f"{source.accepted}"
        )
    try:
        return source.load(downloads.download(cache_dir / "weights", source.published))
    except downloads.DownloadError as error:
        if source is not _INCEPTION:
            raise
        log.warning(
            "%s A network with fixed random weights is used instead: scores are called random_fid... and are "
            "not comparable with any FID.",
            error,
        )
        return source.random()
