"""dataset.json: a round trip, and files that are refused."""

import json
import pathlib
from typing import Any

import numpy as np
import pytest

from jaxdog.data import crop_dataset, dataset_info, photos
from jaxdog.utils import errors

ZEROS = np.zeros(3, np.int32)
CROPS = crop_dataset.CropDataset(
    np.zeros((3, 8, 8, 3), np.uint8), np.array([2, 0, 2]), ZEROS, ZEROS, ZEROS, ("a",), ("x", "y", "z"), ()
)
SOURCE = photos.Source("folder-abc", ("x", "y", "z"), [photos.Photo("a", 0, (), lambda: ZEROS)] * 4)


def test_round_trip(tmp_path: pathlib.Path) -> None:
    info = dataset_info.describe(SOURCE, CROPS, "squash")
    assert info == dataset_info.DatasetInfo(
        ("x", "y", "z"), (1, 0, 2), 4, 3, "folder-abc", "squash", (8, 8, 3), None
    )
    assert dataset_info.read(tmp_path) is None
    for changed in (info, info._replace(held_out=(1, 3))):
        dataset_info.write(tmp_path, changed, "1.0")
        assert dataset_info.read(tmp_path) == changed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "its format is 2, and only 1 can be read"),
        ({"class_names": []}, "it has no classes"),
        ({"image_shape": [8]}, "no image shape"),
        ({"class_counts": 3, "image_shape": 3}, "TypeError"),
    ],
)
def test_other_files_are_refused(tmp_path: pathlib.Path, changes: dict[str, Any], message: str) -> None:
    dataset_info.write(tmp_path, dataset_info.describe(SOURCE, CROPS, "squash"), "1.0")
    path = tmp_path / dataset_info.NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(errors.UserError, match=f"dataset.json cannot be read: .*{message}"):
        dataset_info.read(tmp_path)
    path.write_text("{")
    with pytest.raises(errors.UserError, match="dataset.json cannot be read"):
        dataset_info.read(tmp_path)
