"""`select.own_class`: which crops are sampled, in which order, and with which labels."""

import jax
import numpy as np
import pytest

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
