"""Reconstruction errors of an autoencoder on its training images: Frechet distances (rFID), squared error."""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdog import sharding, types
from jaxdog.data import batches
from jaxdog.evaluation import batching, feature_extractor, metric_suite
from jaxdog.metrics import features
from jaxdog.systems import sampling
from jaxdog.utils import errors

MAX_PAIRS = 60  # maximum number of pairs in the report


class Reconstruction(NamedTuple):
    """The result of `reconstruct`."""

    scores: dict[str, float | None]  # "reconstruction_" + name of a Frechet distance, or "squared_error"
    pairs: np.ndarray  # [2k, s, s, 3] uint8: an image, its reconstruction, the next image, ...
    warnings: tuple[str, ...]  # caveats of the scores


def reconstruct(
    extractor: feature_extractor.FeatureExtractor,
    system: types.System,
    state: Any,
    key: types.Key,
    data: batches.Data,
    n: int,
) -> Reconstruction:
    """Compares training images with their reconstructions.

    Args:
      extractor: the feature network.
      system: a system with `reconstruct`.
      state: its state.
      key: selects the images and their augmentation.
      data: the training images, on the host.
      n: number of images, at most all of them; Frechet distances need at least 2.

    Reconstructions are compared with the encoder's input, after augmentation. The squared error is a mean
    over pixel values in [-1, 1].
    """
    if system.reconstruct is None:
        raise errors.UserError("this system is not an autoencoder and cannot reconstruct images")
    count = min(n, len(data.image))
    parts = _batches(extractor, system.reconstruct, state, key, data, count)
    image, reconstructed = batching.collect(parts, count)
    spec = extractor.spec(f"{image.shape[1]}x{image.shape[2]}", "none", "training images")
    real, fake = (features.Features(extractor.extract(side), spec) for side in (image, reconstructed))
    found = metric_suite.MetricSuite(real, extractor.mesh).scores(fake, ("fid",))
    frechet = features.NETWORKS[spec.network].frechet.items()
    names = [features.metric_name(base, spec.kind, layer) for layer, base in frechet]
    error = float(np.mean(np.square((image.astype(np.float32) - reconstructed) / 127.5)))
    kept = {**{name: found.scores[name] for name in names}, "squared_error": error}
    pairs = np.stack([image[:MAX_PAIRS], reconstructed[:MAX_PAIRS]], 1).reshape(-1, *image.shape[1:])
    warnings = tuple(f"reconstructions: {text}" for text in found.warnings)
    return Reconstruction({f"reconstruction_{name}": x for name, x in kept.items()}, pairs, warnings)


def _batches(
    extractor: feature_extractor.FeatureExtractor,
    reconstruct: Any,
    state: Any,
    key: types.Key,
    data: batches.Data,
    count: int,
) -> Iterator[tuple[jax.Array, jax.Array]]:
    """(images, reconstructions), [b, s, s, 3] uint8 each, in batches until there are `count`."""
    replicated, b = sharding.replicated(extractor.mesh), extractor.batch_size
    order_key, reconstruct_key = jax.random.split(key)

    @partial(jax.jit, out_shardings=replicated)
    def reconstruct_batch(state: Any, data: batches.Data, i: jax.Array) -> tuple[jax.Array, jax.Array]:
        batch = batches.batch(data, order_key, i, b)
        image, reconstructed = reconstruct(state, batch, jax.random.fold_in(reconstruct_key, i))
        return sampling.to_uint8(image), sampling.to_uint8(reconstructed)

    data = sharding.put(data, replicated)
    for i in range(-(-count // b)):
        yield reconstruct_batch(state, data, jnp.int32(i))
