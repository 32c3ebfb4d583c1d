"""Copy detection on drawn dogs: crops are detected, other dogs are not."""

from functools import partial

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from jaxdog import sharding
from jaxdog.data import crop_dataset, crop_recipes, toy
from jaxdog.evaluation import copies
from jaxdog.metrics import features

SIZE = 32


@pytest.fixture(scope="module")
def training() -> crop_dataset.CropDataset:
    recipe = partial(crop_recipes.whole_and_boxes, size=SIZE)
    return crop_dataset.load(toy.dogs(40), recipe, crop_recipes.cache_key(recipe), None)


@pytest.fixture(scope="module")
def copied(training: crop_dataset.CropDataset) -> copies.CopyReport:
    """Mirrored crops of boxes and whole photos, at most of the images."""
    fakes = training.image[::2][:24, :, ::-1]
    return copies.find_copies(fakes, training.image, training.photo, sharding.make_mesh())


@pytest.mark.long
def test_copies_are_found_with_their_photos(training, copied):
    assert copied.result.is_copy and copied.result.copied_share > 0.9
    summary = copies.summary(copied, training)
    assert (
        summary["verdict"] == "copies" and "are copies of a part of a training photo" in summary["reasons"][0]
    )
    for row in summary["evidence"]:
        assert row["photo"] == training.names[training.photo[::2][row["image"]]]
        assert row["mirrored"] and row["similarity"] > 0.9


@pytest.mark.long
def test_pairs_show_the_image_next_to_its_source(copied):
    pair = copied.pairs[0].astype(float)
    assert copied.pairs.shape[1:] == (2, SIZE, SIZE, 3)
    assert np.abs(pair[0] - pair[1]).mean() < 8
    assert copies.pair_grid(copied, columns=5).shape == (SIZE * -(-len(copied.pairs) // 5), SIZE * 10, 3)


@pytest.mark.long
def test_noise_is_not_a_copy_for_any_number_of_devices(training):
    noise = np.random.default_rng(0).integers(0, 256, (9, SIZE, SIZE, 3), np.uint8)
    generator = np.random.default_rng(1)
    found = [{"pool_3": np.abs(generator.normal(size=(n, 2048))).astype(np.float32)} for n in (9, 40)]
    spec = features.FeatureSpec("inception", "random", "a", "32x32", "none", "noise")
    sides = [features.Features(x, spec) for x in found]
    results = [
        copies.find_copies(noise, training.image, training.photo, mesh, *sides)
        for mesh in (sharding.make_mesh(), Mesh(np.array(jax.devices()[:1]), ("data",)))
    ]
    assert not results[0].result.is_copy and results[0].result.copied_share == 0
    assert results[0].result.notes == ()  # random weights judge no distance
    assert set(results[0].values) == {
        *("memorization_distance", "reversed_distance", "real_distance", "authentic_share"),
        *("copied_share", "copied_share_of_real"),
    }
    for name, x in results[0].values.items():
        np.testing.assert_allclose(results[1].values[name], x, rtol=1e-5)


def test_one_photo_is_an_error(training):
    with pytest.raises(ValueError, match="at least 1 image and 2 photos, not 3 images and 1 photos"):
        copies.find_copies(training.image[:3], training.image[:1], training.photo[:1], sharding.make_mesh())
