"""`dataset.json`: what a run keeps of its training set, to be sampled and scored without photos."""

import collections
import json
import pathlib
from typing import Any, NamedTuple

from jaxdog.data import crop_dataset, photos
from jaxdog.utils import errors, files

NAME = "dataset.json"  # in the folder of a run
FORMAT = 1  # version of the file


class DatasetInfo(NamedTuple):
    """A training set without its images."""

    class_names: tuple[str, ...]
    class_counts: tuple[int, ...]  # crops of each class
    photos: int  # number of photos of the source
    crops: int  # number of crops to train on
    source: str  # key of the source
    recipe: str  # key of the crop recipe
    image_shape: tuple[int, ...]  # (h, w, c) of a stored crop
    held_out: tuple[int, ...] | None = None  # rows of the real features that are not trained on, if known


def describe(source: photos.Source, crops: crop_dataset.CropDataset, recipe: str) -> DatasetInfo:
    """The training set `crops` of a source; `recipe` is the key of its crop recipe."""
    counts = collections.Counter(crops.label.tolist())
    return DatasetInfo(
        class_names=tuple(crops.class_names),
        class_counts=tuple(counts[i] for i in range(len(crops.class_names))),
        photos=len(source.photos),
        crops=len(crops.image),
        source=source.key,
        recipe=recipe,
        image_shape=tuple(crops.image.shape[1:]),
    )


def read(folder: pathlib.Path) -> DatasetInfo | None:
    """The dataset.json of a run's folder; None if there is none. Raises UserError if it is damaged."""
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        if fields["format"] != FORMAT:
            raise errors.UserError(f"its format is {fields['format']}, and only {FORMAT} can be read")
        values: dict[str, Any] = {name: fields[name] for name in DatasetInfo._fields}
        values = {name: tuple(x) if isinstance(x, list) else x for name, x in values.items()}
        info = DatasetInfo(**values)
        if not info.class_names or len(info.image_shape) != 3:
            raise errors.UserError("it has no classes or no image shape")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise errors.UserError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
    return info


def write(folder: pathlib.Path, info: DatasetInfo, version: str) -> None:
    """Writes dataset.json atomically; `version` is that of jaxdog."""
    fields = {"format": FORMAT, "jaxdog_version": version, **info._asdict()}
    files.write_text(folder / NAME, json.dumps(fields, indent=1) + "\n")
