"""`dataset.json`: what a run keeps of its training set, to be sampled and scored without photos.

It also identifies the photos by what is learned from them: the pixels of the crops, their classes as numbers,
and their order. Where the photos are, and what files and classes are called, do not matter.
"""

import collections
import hashlib
import json
import logging
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxdog.data import crop_dataset, photos
from jaxdog.utils import errors, files, untrusted

log = logging.getLogger("jaxdog")

NAME = "dataset.json"  # in the folder of a run
FORMAT = 1  # version of the file
DIGITS = 8  # of the hash of an image that `DatasetInfo.images` keeps
MAX_LISTED = 1_000_000  # images that are listed in it


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
    content: str = ""  # hash of all crops in order, with their classes; "": unknown
    # Of each class, the first digits of the hash of each of its crops to train on; (): too many, or unknown.
    images: tuple[str, ...] = ()


def describe(
    source: photos.Source, all_crops: crop_dataset.CropDataset, crops: crop_dataset.CropDataset, recipe: str
) -> DatasetInfo:
    """The training set of a source.

    Args:
      source: the photos.
      all_crops: all crops of the recipe.
      crops: those to train on, a `crop_dataset.subset` of them, with their classes.
      recipe: the key of the crop recipe.
    """
    counts = collections.Counter(crops.label.tolist())
    of_all = _hashes(all_crops)
    hashes = of_all if crops.row is None else [of_all[row] for row in crops.row]
    everything = _content(all_crops, of_all) if all_crops is not crops else ""
    of_class = lambda i: "".join(hashes[row][:DIGITS] for row in np.flatnonzero(crops.label == i))  # noqa: E731
    listed = range(len(crops.class_names) if len(crops.image) <= MAX_LISTED else 0)
    return DatasetInfo(
        class_names=tuple(crops.class_names),
        class_counts=tuple(counts[i] for i in range(len(crops.class_names))),
        photos=len(source.photos),
        crops=len(crops.image),
        source=source.key,
        recipe=recipe,
        image_shape=tuple(crops.image.shape[1:]),
        content=hashlib.sha256(f"{everything} {_content(crops, hashes)}".encode()).hexdigest(),
        images=tuple(of_class(i) for i in listed),
    )


def _hashes(crops: crop_dataset.CropDataset) -> list[str]:
    """The hash of each crop, with what augmentations know of it."""
    found = []
    for image, size, kind in zip(crops.image, crops.original_size, crops.crop_type, strict=True):
        digest = hashlib.sha256(np.ascontiguousarray(image).data)
        digest.update(f"{np.asarray(size).tolist()} {int(kind)}".encode())
        found.append(digest.hexdigest())
    return found


def _content(crops: crop_dataset.CropDataset, hashes: Sequence[str]) -> str:
    return hashlib.sha256(repr([*zip(crops.label.tolist(), hashes, strict=True)]).encode()).hexdigest()


# ------------------------------------------------------------------ the same photos?


def is_same(old: DatasetInfo, new: DatasetInfo) -> bool:
    """Whether two training sets are of the same photos; runs of old versions know only the class names."""
    return old.content == new.content if old.content else old.class_names == new.class_names


def resumed(folder: pathlib.Path, old: DatasetInfo, new: DatasetInfo) -> DatasetInfo:
    """The training set of a run that resumes: the new one, with what the old one knows of the same photos.

    Args:
      folder: that of the run, for messages.
      old: what the run was trained on.
      new: the photos now.

    Raises ConfigError that names what has changed, unless the photos are the same.
    """
    shape = (len(old.class_names), old.image_shape)  # of the networks; a class may have no image
    if not is_same(old, new) or shape != (len(new.class_names), new.image_shape):
        raise errors.ConfigError(
            f"{folder} was trained on other photos: {changes(old, new)}. Its networks know classes by number "
            "and its batches images by their order, so it continues with the same photos only: restore them. "
            "To train on the new ones, use another work folder; with "
            f"--config.init_from={folder} it starts from the networks of this run"
        )
    renamed = [pair for pair in zip(old.class_names, new.class_names, strict=True) if pair[0] != pair[1]]
    if renamed:
        log.warning("class %s", errors.some([f"{a!r} is now called {b!r}" for a, b in renamed]))
    return new._replace(source=old.source, held_out=old.held_out) if old.content else new


def changes(old: DatasetInfo, new: DatasetInfo) -> str:
    """What differs between two training sets, as one phrase."""
    before, after = _images(old), _images(new)
    removed = [name for name in before if name not in after]
    added = [name for name in after if name not in before]
    now = {name: name for name in before if name in after}  # class -> what it is called now
    lines = []
    for name in removed:
        twins = [other for other in added if _are_mostly_the_same(before[name], after[other])]
        if twins:
            now[name] = twins[0]
            added.remove(twins[0])
            lines.append(f"class {name!r} is now called {twins[0]!r}")
        else:
            lines.append(f"class {name!r}, {_count(before[name])}, is gone")
    lines += [f"class {name!r}, {_count(after[name])}, is new" for name in added]
    for name, other in now.items():
        lines += _changes_of_class(other, before[name] - after[other], after[other] - before[name])
    positions = [list(after).index(now[name]) for name in before if name in now]
    if positions != sorted(positions):
        lines.append("the order of the classes, which is that of their names, has changed")
    if old.image_shape != new.image_shape:
        lines.append(f"the shape of the crops is {list(new.image_shape)}, was {list(old.image_shape)}")
    if not lines and old.images and new.images and old.images != new.images:
        lines.append("the same images are in another order, as their files have other names")
    left_out = "photos that config.data.select leaves out have changed"
    return errors.some(lines or [left_out if new.images else "images have changed"], between="; ")


def _images(info: DatasetInfo) -> dict[str, collections.Counter[str]]:
    """The hashes of the images of each class."""
    if not info.images:
        pairs = zip(info.class_names, info.class_counts, strict=True)
        return {name: collections.Counter({"": count}) for name, count in pairs}
    starts = [range(0, len(text), DIGITS) for text in info.images]
    counters = [
        collections.Counter(text[i : i + DIGITS] for i in places)
        for text, places in zip(info.images, starts, strict=True)
    ]
    return dict(zip(info.class_names, counters, strict=True))


def _are_mostly_the_same(before: collections.Counter[str], after: collections.Counter[str]) -> bool:
    return "" not in before and 2 * (before & after).total() > max(before.total(), after.total())


def _changes_of_class(
    name: str, removed: collections.Counter[str], added: collections.Counter[str]
) -> list[str]:
    changed = min(removed.total(), added.total())
    counts = {"changed": changed, "added": added.total() - changed, "removed": removed.total() - changed}
    parts = [f"{count} {what}" for what, count in counts.items() if count]
    return [f"images of class {name!r}: {', '.join(parts)}"] if parts else []


def _count(images: collections.Counter[str]) -> str:
    return "1 image" if images.total() == 1 else f"{images.total():,} images"


# ------------------------------------------------------------------ the file


def read(folder: pathlib.Path) -> DatasetInfo | None:
    """The dataset.json of a run's folder; None if there is none. Raises UserError if it is damaged."""
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        fields = untrusted.read_json(path, "Training writes it again")
        if fields.get("format") != FORMAT:
            raise errors.UserError(f"its format is {fields.get('format')}, and only {FORMAT} can be read")
        info = untrusted.record(DatasetInfo, fields)
        numbers = (*info.class_counts, *info.image_shape, *(info.held_out or ()), info.photos, info.crops)
        lengths = {len(info.class_names), len(info.class_counts), len(info.images or info.class_names)}
        if not info.class_names or len(info.image_shape) != 3 or min(numbers) < 0 or len(lengths) > 1:
            raise errors.UserError("its numbers of classes, images or sides contradict each other")
    except (OSError, errors.UserError) as error:
        raise errors.UserError(f"{path} cannot be read: {error}") from error
    return info


def write(folder: pathlib.Path, info: DatasetInfo, version: str) -> None:
    """Writes dataset.json atomically; `version` is that of jaxdog."""
    fields = {"format": FORMAT, "jaxdog_version": version, **info._asdict()}
    files.write_text(folder / NAME, json.dumps(fields, indent=1) + "\n")
