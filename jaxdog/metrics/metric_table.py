"""The table of metrics, and the names of networks. It imports no JAX, for a fast command line."""

import importlib
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

Network = Literal[  # the rows of features.NETWORKS
    "inception", "inception_pytorch", "inception_clean", "nasnet", "dinov2", "dinov2_base", "dinov2_small"
]


class Metric(NamedTuple):
    """A row of the table."""

    # (comparison.Comparison) -> Scores, or class name -> Scores; or where it is, as "module:name".
    # None: computed elsewhere.
    scores: Callable[[Any], Any] | str | None
    needs: str = "features"  # a row of NEEDS
    of_each_class: bool = False  # whether the scores are per class

    def function(self) -> Callable[[Any], Any] | None:
        """The function, which is imported if the row has its name."""
        if not isinstance(self.scores, str):
            return self.scores
        module, _, name = self.scores.partition(":")
        return getattr(importlib.import_module(module), name)

    @property
    def sees_pixels_only(self) -> bool:
        """Whether it needs images and no features."""
        return self.scores is not None and self.needs in ("images", "generated images")


METRICS = {
    "fid": Metric("jaxdog.metrics.fid:scores", needs="moments"),  # FID of each layer
    "mifid": Metric("jaxdog.metrics.mifid:scores"),  # FID of each layer, the memorization distance, MiFID
    "isc": Metric("jaxdog.metrics.inception_score:scores", needs="logits"),
    "kid": Metric("jaxdog.metrics.kid:scores"),
    "prdc": Metric("jaxdog.metrics.prdc:scores"),  # precision, recall, density, coverage
    "fid_infinity": Metric("jaxdog.metrics.fid:infinity_scores", needs="generated features"),
    "per_class": Metric("jaxdog.metrics.per_class:scores", needs="labels", of_each_class=True),
    "copies": Metric(None, needs="images"),  # computed by evaluation.copies
}
DEFAULT = ("mifid", "isc", "kid", "prdc")  # of files and arrays
DEFAULT_OF_MOMENTS = ("fid", "isc")  # where a side has only mean and covariance of its features

NEEDS = {
    "moments": "both sides need features of the same layer, or their mean and covariance",
    "features": "both sides need features",
    "generated features": "the generated side needs features",
    "logits": "it needs generated images, and weights with a classifier",
    "labels": "both sides need labels of the same classes",
    "images": "both sides must be images, not features",
    "generated images": "the generated side must be images, not features",
}
