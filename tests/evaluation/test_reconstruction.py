"""Reconstruction errors: which images are compared, and by how much they differ."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog import sharding, types
from jaxdog.data import batches
from jaxdog.evaluation import reconstruction
from jaxdog.metrics import features, fid

N, SIZE = 10, 8
IMAGES = np.random.default_rng(0).integers(20, 200, (N, SIZE, SIZE, 3), np.uint8)
DATA = batches.make_data(IMAGES, np.arange(N, dtype=np.int32))
KEY = jax.random.key(0)


class Extractor:
    """Features that are random projections of the pixels."""

    mesh = sharding.make_mesh()
    batch_size = 4

    def spec(self, size: str, resampler: str, source: str) -> features.FeatureSpec:
        return features.FeatureSpec("inception", "random", "0", size, resampler, source)

    def extract(self, images: np.ndarray) -> dict[str, np.ndarray]:
        flat = images.reshape(len(images), -1) / 255.0
        rng = np.random.default_rng(1)
        return {
            layer: (flat @ rng.normal(size=(flat.shape[1], 3))).astype(np.float32)
            for layer in ("mixed_7", "pool_3")
        }


def drawn(way: Any) -> types.System:
    return types.System(lambda *_: None, lambda *_: (None, {}), lambda *_: jnp.zeros(0), reconstruct=way)


def scored(way: Any, n: int = N) -> reconstruction.Reconstruction:
    extractor: Any = Extractor()
    return reconstruction.reconstruct(extractor, drawn(way), jnp.float32(0.0), KEY, DATA, n)


def test_perfect_reconstructions_have_distance_zero() -> None:
    found = scored(lambda state, batch, key: (batch.image, batch.image))
    assert set(found.scores) == {
        f"reconstruction_{x}" for x in ("random_fid768", "random_fid2048", "squared_error")
    }
    np.testing.assert_allclose(list(found.scores.values()), 0.0, atol=1e-3)
    assert [text.partition(" for ")[0] for text in found.warnings] == [
        "reconstructions: FID is biased upwards"
    ]
    pairs = found.pairs.reshape(N, 2, SIZE, SIZE, 3)
    np.testing.assert_array_equal(pairs[:, 0], pairs[:, 1])
    order = [int(np.flatnonzero((IMAGES == x).all((1, 2, 3)))[0]) for x in pairs[:, 0]]
    assert sorted(order) == list(range(N))  # every image once, though blocks of 4 do not fill 10


def test_distances_are_those_to_the_images_as_the_encoder_saw_them() -> None:
    """Mirrored before, darkened by ten levels on the way."""

    def way(state: Any, batch: types.Batch, key: Any) -> tuple[jax.Array, jax.Array]:
        image = batch.image[:, :, ::-1]
        return image, image - 10.0 / 127.5

    found = scored(way, 7)
    assert found.pairs.shape == (14, SIZE, SIZE, 3)
    seen, back = found.pairs[::2], found.pairs[1::2]
    np.testing.assert_array_equal(seen, back + 10)
    np.testing.assert_allclose(found.scores["reconstruction_squared_error"], (10 / 127.5) ** 2, rtol=1e-5)
    made = [Extractor().extract(x)["pool_3"].astype(np.float64) for x in (seen, back)]
    expected = fid.frechet_exact(*made)
    np.testing.assert_allclose(found.scores["reconstruction_random_fid2048"], expected, rtol=1e-2)


def test_what_has_no_way_back_is_refused() -> None:
    with pytest.raises(ValueError, match="not an autoencoder and cannot reconstruct images"):
        scored(None)
