"""The forensic check from pictures to a verdict, on drawn dogs: crops are found out, other dogs are not."""

from functools import partial

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from jaxdog import sharding
from jaxdog.data import cropping, image_files, photos, toy
from jaxdog.evaluation import copies
from jaxdog.metrics import features

SIZE = 32


@pytest.fixture(scope="module")
def training() -> photos.Crops:
    recipe = partial(image_files.whole_and_boxes, size=SIZE)
    return photos.crops(toy.dogs(40), recipe, cropping.key(recipe), None)


@pytest.fixture(scope="module")
def copied(training: photos.Crops) -> copies.Examination:
    """Mirrored crops of boxes and whole photos, at most of the pictures."""
    fakes = training.image[::2][:24, :, ::-1]
    return copies.examine(fakes, training.image, training.photo, sharding.mesh())


def test_copies_are_named_with_their_photos(training, copied):
    assert copied.verdict.accused and copied.verdict.copied_share > 0.9
    told = copies.facts(copied, training)
    assert told["verdict"] == "copies" and "are copies of a part of a training photo" in told["reasons"][0]
    for row in told["evidence"]:
        assert row["photo"] == training.names[training.photo[::2][row["image"]]]
        assert row["mirrored"] and row["likeness"] > 0.9


def test_pairs_show_the_picture_beside_its_source(copied):
    pair = copied.pairs[0].astype(float)
    assert copied.pairs.shape[1:] == (2, SIZE, SIZE, 3)
    assert np.abs(pair[0] - pair[1]).mean() < 8
    assert copies.sheet(copied, columns=5).shape == (SIZE * -(-len(copied.pairs) // 5), SIZE * 10, 3)


def test_noise_is_not_accused_and_devices_change_nothing(training):
    noise = np.random.default_rng(0).integers(0, 256, (9, SIZE, SIZE, 3), np.uint8)
    generator = np.random.default_rng(1)
    found = [{"pool_3": np.abs(generator.normal(size=(n, 2048))).astype(np.float32)} for n in (9, 40)]
    about = features.About("inception", "random", "a", "32x32", "none", "noise")
    sides = [features.Features(x, about) for x in found]
    results = [
        copies.examine(noise, training.image, training.photo, over, *sides)
        for over in (sharding.mesh(), Mesh(np.array(jax.devices()[:1]), ("data",)))
    ]
    assert not results[0].verdict.accused and results[0].verdict.copied_share == 0
    assert set(results[0].numbers) == {
        *("memorization_distance", "reversed_distance", "real_distance", "authentic_share"),
        *("copied_share", "copied_share_of_real"),
    }
    for name, x in results[0].numbers.items():
        np.testing.assert_allclose(results[1].numbers[name], x, rtol=1e-5)


def test_one_photo_is_too_few(training):
    with pytest.raises(ValueError, match="3 pictures cannot be looked for among 1 photos"):
        copies.examine(training.image[:3], training.image[:1], training.photo[:1], sharding.mesh())
