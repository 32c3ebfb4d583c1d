"""Steps of config.data.select: dropped names, and which crops get a class of their own."""

import jax
import numpy as np
import pytest

from jaxdog.config import library
from jaxdog.data import crop_dataset, select
from jaxdog.systems import sampling

KEY = jax.random.key(0)


def crops_of(crop_type: list[int], photo: list[int]) -> crop_dataset.CropDataset:
    n = len(crop_type)
    image = np.arange(n, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    names = tuple(f"{i:02d}.jpg" for i in range(max(photo) + 1))
    zeros = np.zeros(n, np.int32)
    return crop_dataset.CropDataset(
        image,
        zeros,
        np.asarray(photo, np.int32),
        np.zeros((n, 2), np.int32),
        np.asarray(crop_type, np.int32),
        names,
        ("dog",),
        (),
    )


def test_crops_are_sampled_and_numbered():
    crops = crops_of([0] * 10, list(range(10)))
    got = select.own_class(crops, count=4, seed=57, crop_types=(0,))
    chosen = np.random.RandomState(57).choice(10, 4, replace=False)
    assert got.photo.tolist() == got.image[:, 0, 0, 0].tolist() == chosen.tolist()
    assert got.label.tolist() == [0, 1, 2, 3] and got.class_names == tuple(f"{i:02d}.jpg" for i in chosen)
    assert sampling.labels(4, len(got.class_names), "balanced", KEY).tolist() == [0, 1, 2, 3]


def test_each_position_has_its_crop_type():
    crops = crops_of([0, 1] * 9, [i // 2 for i in range(18)])
    got = select.own_class(crops, count=7, seed=1, crop_types=(0, 0, 1))
    assert got.crop_type.tolist() == [0, 0, 1, 0, 0, 1, 0] and len(set(got.photo.tolist())) == 7
    assert got.image[:, 0, 0, 0].tolist() == [
        2 * p + k for p, k in zip(got.photo, got.crop_type, strict=True)
    ]


def test_impossible_samples_are_errors():
    crops = crops_of([0, 0], [0, 1])
    with pytest.raises(ValueError, match=r"crop_types is empty, and must have at least one crop type"):
        select.own_class(crops, count=2, seed=0, crop_types=())
    with pytest.raises(ValueError, match=r"no crop is of type 5; crop types: \[0\]"):
        select.own_class(crops, count=2, seed=0, crop_types=(5,))
    with pytest.raises(ValueError, match=r"0[01].jpg has no crop of type 1"):
        select.own_class(crops, count=2, seed=0, crop_types=(0, 1))


def test_named_photos_and_crops_are_dropped(caplog):
    crops = crops_of([0] * 6, [0, 0, 1, 1, 1, 2])
    with caplog.at_level("INFO"):
        got = select.drop(crops, names=("00.jpg:1", "01.jpg:0", "02.jpg", "else.jpg:3"))
    assert got.image[:, 0, 0, 0].tolist() == [0, 3, 4] and got.photo.tolist() == [0, 1, 1]
    assert "1 of 4 names to drop are unknown (else.jpg:3, ...)" in caplog.text


def test_seed_57_samples_the_photos_of_the_competition():
    """The original drew 10,000 of 20,579 sorted file names; one photo of Stanford Dogs is not among them."""
    names = sorted([f"n{i:08d}_{i}.jpg" for i in range(20_579)] + ["n02105855_2933.jpg"])
    crops = crops_of([0] * len(names), list(range(len(names))))._replace(names=tuple(names))
    settings = library.load("memorizer").data.select
    got = select.own_class(select.drop(crops, **settings.drop), **settings.own_class)
    left = [name for name in names if name != "n02105855_2933.jpg"]
    chosen = np.random.RandomState(57).choice(20_579, 10_000, replace=False)
    assert got.class_names == tuple(left[i] for i in chosen)
