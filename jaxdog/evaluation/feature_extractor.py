"""Computes features of images on all devices; features of the real side are cached on disk."""

import logging
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxdog import sharding, types
from jaxdog.evaluation import batching, generation
from jaxdog.metrics import features
from jaxdog.metrics.backbones import inception_weights

PAD_MULTIPLE = 8  # fewer images than a batch are padded to a multiple of this, so that few sizes are compiled
CPU_BATCH_SIZE = 8  # images per forward pass on CPUs, so that activations fit in their caches
LONG = 3e12  # FLOPs, about a minute of two CPU cores; the cost of more is logged

log = logging.getLogger("jaxdog")


class FeatureExtractor:
    """A feature network with its weights.

    Args:
      network: a name in features.NETWORKS.
      weights: its weights.
      mesh: the mesh of all devices.
      batch_size: images per forward pass, rounded up to a multiple of the number of devices.
    """

    def __init__(self, network: str, weights: inception_weights.Weights, mesh: Mesh, batch_size: int = 128):
        self.network, self.weights, self.mesh = network, weights, mesh
        self.batch_size = sharding.round_up(batch_size, mesh)
        forward_size = min(batch_size, CPU_BATCH_SIZE) if jax.default_backend() == "cpu" else batch_size
        self._forward_size = sharding.round_up(forward_size, mesh)
        self._layers = (*features.frechet_layers(network), features.LOGITS)
        self._cost_logged = jax.default_backend() != "cpu" or jax.process_index() != 0
        self._params = sharding.put(weights.params, sharding.replicated(mesh))
        # Features are replicated, so that every host can read all of them.
        self._features = sharding.jit_replicated(features.NETWORKS[network].features, mesh)

    def spec(self, size: str, resampler: str, source: str) -> features.FeatureSpec:
        """The spec of features of images of this size ("64x64": height x width) from this network."""
        weights = self.weights
        return features.FeatureSpec(self.network, weights.kind, weights.sha256, size, resampler, source)

    def extract(self, images: np.ndarray, progress: str = "features") -> dict[str, np.ndarray]:
        """Images [n, h, w, 3] uint8 on the host -> layer -> [n, d] float32."""
        return self.extract_batches([images], len(images), progress)

    def extract_batches(
        self, batches: Iterable[np.ndarray], n: int, progress: str = "features"
    ) -> dict[str, np.ndarray]:
        """Layer -> [n, d] float32, of batches [b, h, w, 3] uint8 that are read when they are needed.

        There may be fewer images than n: then there are fewer features.
        """
        padded = -(-n // PAD_MULTIPLE) * PAD_MULTIPLE
        size = min(self._forward_size, sharding.round_up(padded, self.mesh))
        count = 0

        def parts() -> Iterator[dict[str, jax.Array]]:
            nonlocal count
            for batch in batching.rebatch(batches, size):
                count += len(batch)
                yield self._forward(self._put(batching.pad(batch, size)))

        layers = batching.collect(self._log_cost(parts(), n), n, progress)
        return {name: x[:count] for name, x in layers.items()}

    def extract_samples(
        self, system: types.System, state: Any, key: types.Key, label: np.ndarray, batch_size: int = 0
    ) -> dict[str, np.ndarray]:
        """Layer -> [n, d] float32, of images generated for the classes `label` [n].

        The images are those of `generation.generate`; they stay on the devices. With `batch_size` 0 the
        extractor's own is used.
        """
        size = batch_size or self.batch_size
        sample = generation.make_sampler(system, generation.sample_sharding(size, self.mesh))
        state = generation.prepare_state(system, state, key)

        def parts() -> Iterator[dict[str, jax.Array]]:
            for batch in generation.sample_batches(label, size, self.mesh):
                yield from self._forward_in_chunks(sample(state, key, *batch))

        return batching.collect(self._log_cost(parts(), len(label)), len(label), "evaluation")

    def _log_cost(self, parts: Iterator[dict[str, jax.Array]], n: int) -> Iterator[dict[str, jax.Array]]:
        """The same batches of features of n images; logs their cost on CPUs, once, if they take long.

        FLOPs are logged before the first batch, and seconds after the second, as the first is compiled.
        """
        flops = features.NETWORKS[self.network].flops
        if self._cost_logged or n * flops < LONG:
            yield from parts
            return
        self._cost_logged = True
        log.info(
            "features of %s images by %s: %.3g GFLOPs each, %.3g TFLOPs in all",
            *(f"{n:,}", self.network, flops / 1e9, n * flops / 1e12),
        )
        start = 0.0
        for i, part in enumerate(parts):
            yield part
            if i < 2:
                jax.block_until_ready(part)
            if i == 0:
                start = time.monotonic()
            elif i == 1:
                seconds = (time.monotonic() - start) / len(next(iter(part.values())))
                log.info(
                    "features by %s take %.2g s per image on this CPU: %s minutes in all",
                    *(self.network, seconds, f"{n * seconds / 60:,.2g}"),
                )

    def _forward_in_chunks(self, images: jax.Array) -> Iterator[dict[str, jax.Array]]:
        """Features of images [n, h, w, 3] on the devices, in chunks of `_forward_size` if that divides n."""
        n, size = images.shape[0], self._forward_size
        if n <= size or n % size or jax.process_count() > 1:
            yield self._forward(images)
            return
        on_host = np.asarray(images)
        for start in range(0, n, size):
            yield self._forward(self._put(on_host[start : start + size]))

    def _forward(self, images: jax.Array) -> dict[str, jax.Array]:
        layers = self._features(self._params, images)
        return {name: x for name, x in layers.items() if name in self._layers}

    def _put(self, images: np.ndarray) -> jax.Array:
        return sharding.put(np.asarray(images), sharding.batch_sharding(self.mesh))


def cached(path: pathlib.Path, compute: Callable[[], features.Features]) -> features.Features:
    """The features of the real side, from the file `path` of the cache; computed if it is not there."""
    side = features.load_cached(path)
    if not sharding.all_processes_agree(side is not None):
        side = compute()
        side.layers.pop(features.LOGITS, None)  # the Inception Score only uses generated images
        features.save_cached(path, side)  # in every process, as hosts may have separate disks
    assert side is not None
    return side._replace(file=path)
