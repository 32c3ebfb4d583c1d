"""Scores of generated images against one set of real images: images -> features -> metrics.

`generation` samples images, `feature_extractor` computes their features, and `metric_suite` the metrics.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from jax.sharding import Mesh

from jaxdog import types
from jaxdog.evaluation import batching, feature_extractor, metric_suite
from jaxdog.metrics import comparison, features, metric_table
from jaxdog.metrics.backbones import inception_weights

# Of all networks in a line of scores.
SHARED = ("samples", "real", "real_source", "network", "size", "resampler")
VAL_METRICS = ("mifid", "kid")  # also computed against the held-out photos, and written as val_...


class Evaluator:
    """Scores images against one set of real images, the real side, with one feature network.

    Args:
      extractor: the feature network.
      real: features of the real side, from the same network.
      mesh: the mesh of all devices.
      eps: MiFID's threshold on the memorization distance; None: the network's own.
      held_out: [n] bool, the photos of the real side that are not trained on. `VAL_METRICS` are also
        computed against these alone. None: there are none.
      real_images: the images of the real side, for metrics that need them, see `comparison.Images`.
    """

    def __init__(
        self,
        extractor: feature_extractor.FeatureExtractor,
        real: features.Features,
        mesh: Mesh,
        eps: float | None = None,
        held_out: np.ndarray | None = None,
        real_images: Callable[[], Iterator[np.ndarray]] | None = None,
    ):
        self.extractor, self.real, self.real_images = extractor, real, real_images
        self.suite = metric_suite.MetricSuite(real, mesh, eps)
        self.val_suite = None
        if held_out is not None:
            self.val_suite = metric_suite.MetricSuite(features.select(real, held_out), mesh, eps)

    def features_of(self, images: np.ndarray, label: np.ndarray) -> features.Features:
        """Features of images [n, h, w, 3] uint8 on the host, of the classes `label` [n]."""
        return self._generated(self.extractor.extract(images), label)

    def score_images(
        self, images: np.ndarray, label: np.ndarray, metrics: Sequence[str] = ("mifid",)
    ) -> dict[str, Any]:
        """Scores of images [n, h, w, 3] uint8 on the host, of the classes `label` [n]."""
        return self.score(self.features_of(images, label), metrics, images)

    def score_system(
        self,
        system: types.System,
        state: Any,
        key: types.Key,
        label: np.ndarray,
        metrics: Sequence[str] = ("mifid",),
        batch_size: int = 0,
    ) -> dict[str, Any]:
        """Scores of images generated for the classes `label` [n]; see `generation.generate`."""
        start = time.monotonic()
        layers = self.extractor.extract_samples(system, state, key, label, batch_size)
        scores = self.score(self._generated(layers, label), metrics)
        return {**scores, "evaluation_seconds": time.monotonic() - start}

    def score(
        self,
        fake: features.Features,
        metrics: Sequence[str] = ("mifid",),
        images: np.ndarray | None = None,
    ) -> dict[str, Any]:
        """Scores of features and their origin, as in a line of scores.jsonl.

        `images` [n, h, w, 3] uint8 are those of the features, for metrics that need them.
        """
        generated = None if images is None else partial(batching.slices, images, self.extractor.batch_size)
        at_hand = comparison.Images(self.real_images, generated)
        spec, result = self.real.spec, self.suite.scores(fake, metrics, at_hand)
        val = metric_suite.Result({}, {}, ())
        if self.val_suite is not None:
            val = self.val_suite.scores(fake, VAL_METRICS)
        new = (f"held-out photos: {text}" for text in val.warnings if text not in result.warnings)
        return {
            **result.scores,
            **{f"val_{name}": x for name, x in val.scores.items()},
            **({"per_class": result.per_class} if result.per_class else {}),
            "warnings": (*result.warnings, *new),
            "samples": fake.count,
            "real": self.real.count,
            "real_source": spec.source,
            "network": spec.network,
            "weights_kind": spec.kind,
            "weights_sha256": spec.sha256,
            "size": spec.size,
            "resampler": spec.resampler,
        }

    def _generated(self, layers: dict[str, np.ndarray], label: np.ndarray) -> features.Features:
        spec = self.real.spec._replace(resampler="none", source="generated images")
        return features.Features(layers, spec, label, self.real.class_names)


def protocol(
    weights: inception_weights.Weights, samples: int, size: int, resampler: str, sampling: Mapping[str, Any]
) -> str:
    """How scores during training are computed: only those with equal phrases can be compared."""
    digest = hashlib.sha256(repr(sorted(sampling.items())).encode()).hexdigest()
    return (
        f"{weights.kind} weights {weights.sha256[:12]}, {samples} samples of {size} px with sampling options "
        f"{digest[:8]}, and photos resized by {resampler}"
    )


def metrics_of(network: str, metrics: Sequence[str]) -> tuple[str, ...]:
    """The metrics of a network: only Inception has a classifier, and pixels are compared once, with it."""
    rows = {name: metric_table.METRICS[name] for name in metrics}
    shared = {name for name, row in rows.items() if row.needs == "logits" or row.sees_pixels_only}
    return tuple(name for name in metrics if network == "inception" or name not in shared)


def merge(scores: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Scores of the same images from Inception and from another network, as one line of scores.jsonl.

    What has no suffix yet, such as the memorization distance and the hash of the weights, gets that of the
    other network.
    """
    suffix = features.NETWORKS[other["network"]].suffix

    def renamed(row: Mapping[str, Any]) -> dict[str, Any]:
        return {name if suffix in name else f"{name}{suffix}": x for name, x in row.items()}

    apart = {"warnings", "per_class", "evaluation_seconds", *SHARED}
    merged = scores | renamed({name: x for name, x in other.items() if name not in apart})
    new = tuple(f"{other['network']}: {x}" for x in other["warnings"] if x not in scores["warnings"])
    merged["warnings"] = (*scores["warnings"], *new)
    if "evaluation_seconds" in scores:
        merged["evaluation_seconds"] = scores["evaluation_seconds"] + other["evaluation_seconds"]
    if "per_class" in scores and "per_class" in other:
        rows = other["per_class"]
        merged["per_class"] = {x: row | renamed(rows[x]) for x, row in scores["per_class"].items()}
    return merged
