"""The table of metrics.

A new metric is a function of a `Comparison` in a file of its own, a row here, and its name in
`evaluation.score_options.METRICS` and `config.schema.Metric`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxdog.metrics import comparison, features, fid, inception_score, kid, mifid, per_class, prdc


class Metric(NamedTuple):
    """A row of the table."""

    scores: Callable[[comparison.Comparison], Any] | None  # -> Scores, or class name -> Scores
    needs: str = "features"  # a row of NEEDS
    of_each_class: bool = False  # whether the scores are per class


METRICS = {
    "mifid": Metric(mifid.scores),  # FID of each layer, the memorization distance, MiFID
    "isc": Metric(inception_score.scores, needs="logits"),
    "kid": Metric(kid.scores),
    "prdc": Metric(prdc.scores),  # precision, recall, density, coverage
    "fid_infinity": Metric(fid.infinity_scores),
    "per_class": Metric(per_class.scores, needs="labels", of_each_class=True),
    "copies": Metric(None, needs="images"),  # computed by evaluation.copies from images, not features
}

NEEDS = {
    "features": "both sides need features",
    "logits": "these weights have no classifier",
    "labels": "both sides need labels of the same classes",
    "images": "both sides must be images, not features",
}


def available(needs: str, real: features.Features, fake: features.Features) -> bool:
    """Whether two sets of features have what a metric needs; False for "images"."""
    if needs == "logits":
        return features.LOGITS in fake.layers
    if needs == "labels":
        return real.label is not None and fake.label is not None and real.class_names == fake.class_names
    return needs == "features"
