"""The crops of the photos that a config names, read when they are needed."""

import functools
import logging
import pathlib
from collections.abc import Iterator
from functools import partial

import numpy as np

from jaxdog.config import build, schema
from jaxdog.data import crop_dataset, crop_recipes, dataset_info, photos, select
from jaxdog.utils import errors

log = logging.getLogger("jaxdog")

MIN_PHOTOS = 2  # photos of which scores can be computed


def check_data(config: schema.Experiment, crops: crop_dataset.CropDataset) -> None:
    """Raises ConfigError, which names the field, if the photos do not suffice for what the config asks.

    Warns of classes that are sampled although there is nothing to learn them from.

    Args:
      config: the experiment.
      crops: its training set.
    """
    photos_read = crop_dataset.readable(crops)
    n, classes = len(photos_read), len(crops.class_names)
    if n < MIN_PHOTOS:
        raise errors.ConfigError(
            f"config.data has too few readable photos, {n}; scores need at least {MIN_PHOTOS}"
        )
    every = config.data.select.get("hold_out", {}).get("every")
    held_out = 0 if every is None else int(select.is_held_out(photos_read, every).sum())
    if every is not None and held_out < MIN_PHOTOS:
        raise errors.ConfigError(
            f"config.data.select.hold_out.every is {every}, which holds out {held_out} of {n} photos; scores "
            f"against held-out photos need at least {MIN_PHOTOS}: every must be at most {n // MIN_PHOTOS}"
            + ("" if n // MIN_PHOTOS > 1 else ", so leave hold_out out or add photos")
        )
    exclude = config.sample.exclude_classes
    if not set(range(classes)) - set(exclude) or not set(exclude) <= set(range(classes)):
        raise errors.ConfigError(
            f"config.sample.exclude_classes is {exclude}; the photos have classes 0 to {classes - 1}, and "
            "one must be left"
        )
    if not len(crops.label):
        raise errors.ConfigError(
            f"config.data.select ({', '.join(config.data.select) or 'empty'}) leaves no crop to train on"
        )
    empty = sorted(set(range(classes)) - set(crops.label.tolist()) - set(exclude))
    if empty:
        log.warning(
            "%d of %d classes have no crop to train on (%s), and are sampled nevertheless: leave them out by "
            "--config.sample.exclude_classes='%s'",
            *(len(empty), classes, errors.some([crops.class_names[i] for i in empty])),
            tuple(sorted({*exclude, *empty})),
        )


class PhotoReader:
    """Reads the crops of a config's photos, from the cache if they are there.

    source(): the photos. training_set(): the crops to train on. Both are read by the first call.

    Args:
      config: the experiment.
      cache_dir: folder of the cache.
      expected: the training set of a run. Photos with other content are refused, and nothing is downloaded.
        None: any photos.
      prepare: whether photos that are missing are downloaded.
    """

    def __init__(
        self,
        config: schema.Experiment,
        cache_dir: pathlib.Path,
        expected: dataset_info.DatasetInfo | None = None,
        prepare: bool = True,
    ):
        self.config, self.cache_dir, self.expected = config, cache_dir, expected
        self.prepare = prepare and expected is None
        self._info: dataset_info.DatasetInfo | None = None  # of the training set, once it was read
        self.source = functools.cache(self._source)
        self.training_set = functools.cache(self._training_set)
        size, resampler = config.submit.resolution, config.eval.resampler
        self.squash = partial(crop_recipes.squash, size=size, resampler=resampler)

    def describe(self) -> dataset_info.DatasetInfo:
        """The training set without its images."""
        self.training_set()
        assert self._info is not None
        return self._info

    def whole_and_boxes(self) -> crop_dataset.CropDataset:
        """Whole photos and crops to boxes."""
        size, resampler = self.config.submit.resolution, self.config.eval.resampler
        return self._load(
            self.source(), partial(crop_recipes.whole_and_boxes, size=size, resampler=resampler)
        )

    def whole(self) -> crop_dataset.CropDataset:
        """Whole photos, squashed to the evaluated size."""
        return self._load(self.source(), self.squash)

    def whole_batches(self, batch_size: int) -> Iterator[np.ndarray]:
        """The images of `whole` in batches [b, s, s, 3], of which few are in memory."""
        return (batch.image for batch in crop_dataset.stream(self.source(), self.squash, batch_size))

    def _source(self) -> photos.Source:
        source, expected = build.source(self.config.data, prepare=self.prepare), self.expected
        if expected is not None and source.key != expected.source:  # other files; perhaps the same photos
            found = self._select(source)[1]
            if not dataset_info.is_same(expected, found):
                raise errors.UserError(
                    "the photos are not those that the run was trained on: "
                    f"{dataset_info.changes(expected, found)}"
                )
        return source

    def _select(self, source: photos.Source) -> tuple[crop_dataset.CropDataset, dataset_info.DatasetInfo]:
        """The crops of these photos to train on, and what a run keeps of them."""
        recipe = build.recipe(self.config.data)
        all_crops = self._load(source, recipe)
        crops = build.select_crops(self.config.data)(all_crops)
        return crops, dataset_info.describe(source, all_crops, crops, crop_recipes.cache_key(recipe))

    def _training_set(self) -> crop_dataset.CropDataset:
        source = self.source()
        crops, self._info = self._select(source)
        for line in source.notes:
            log.warning("%s", line)
        check_data(self.config, crops)
        counts = len(crops.image), len(source.photos), len(crops.class_names)
        log.info("%d crops of %d photos, %d classes", *counts)
        return crops

    def _load(self, source: photos.Source, recipe: photos.Recipe) -> crop_dataset.CropDataset:
        """All crops of a recipe, from the cache if they are there."""
        key, workers = crop_recipes.cache_key(recipe), self.config.data.workers or None
        return crop_dataset.load(source, recipe, key, self.cache_dir / "crops", workers)
