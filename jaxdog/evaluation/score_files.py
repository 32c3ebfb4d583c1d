"""Scores of any images on disk or in arrays: images -> features -> metrics."""

import contextlib
import pathlib
import time
from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import Any

import numpy as np
from jax.sharding import Mesh

from jaxdog import sharding
from jaxdog.data import crop_dataset, crop_recipes, photos
from jaxdog.evaluation import copies, feature_extractor, metric_suite, score_options, score_sides
from jaxdog.metrics import comparison, features, leaderboard, metric_table, statistics_files
from jaxdog.metrics.backbones import networks
from jaxdog.utils import errors, png

Options = score_options.Options
Images = score_sides.Images
Side = score_sides.Side
Compare = Callable[[features.FeatureSpec], None]  # raises UserError unless a side fits the other one


def score(real: Images, fake: Images, options: Options = Options()) -> dict[str, Any]:  # noqa: B008
    """Scores of generated images against real images, as plain floats.

    Real photos are squashed to the size of the generated images, as in the competition, and their features
    are cached. Either side may also be a file of features, or of statistics of another program.

    Returns the scores by name, "per_class" and "copies" if requested, "warnings", the origin of the scores,
    and with MiFID "leaderboard", see `leaderboard.standing`.
    Raises UserError if a side cannot be read, the sides cannot be compared, or a metric needs more than a
    file of statistics has.
    """
    start, mesh = time.monotonic(), sharding.make_mesh()
    cache_dir = pathlib.Path(options.cache_dir).expanduser()
    features.get_network(options.network or "inception")
    metric_suite.check_metrics(options.metrics or ())
    given = score_options.with_outputs(options, real, fake)
    sides = real_side, fake_side = score_sides.open_side(real), score_sides.open_side(fake)
    options = given._replace(network=given.network or score_sides.network_of(sides))
    score_sides.check(real_side, fake_side, options, given)
    reference, generated = _both(real_side, fake_side, options, mesh, cache_dir)
    size = _side_length(generated) if fake_side.source is not None else options.size
    at_hand = comparison.Images(
        None if real_side.source is None else partial(_images, real_side.source, size, options),
        None if fake_side.source is None else partial(_images, fake_side.source, options.size, options),
    )
    metrics = score_sides.metrics_of(options, reference, generated, at_hand)
    for path, side in ((options.save_real, reference), (options.save_fake, generated)):
        if path:
            _save(path, side, options.save_as)
    result = metric_suite.MetricSuite(reference, mesh, options.eps).scores(generated, metrics, at_hand)
    scores: dict[str, Any] = {
        **result.scores,
        **({"per_class": result.per_class} if result.per_class else {}),
    }
    warnings = [*result.warnings, *omissions("real", real_side.source, reference.count)]
    warnings += omissions("generated", fake_side.source, generated.count)
    warnings += score_sides.notes(sides, options, metrics, (reference, generated))
    if "copies" in metrics:
        if fake_side.source is None or real_side.source is None:
            warnings.append(f"no copies: {metric_table.NEEDS['images']}")
        else:
            images = np.concatenate(list(_images(fake_side.source, options.size, options)))
            training = _photos_and_boxes(real_side.source, size, options.resampler, cache_dir)
            report = copies.find_copies(images, training.image, training.photo, mesh, generated, reference)
            scores["copies"] = copies.summary(report, training)
            if options.pairs:
                png.write(options.pairs, copies.pair_grid(report))
    seconds = time.monotonic() - start
    count = _count(fake_side, generated), _count(real_side, reference)
    scores |= {"warnings": warnings, **_origin(reference, generated, *count), "seconds": seconds}
    return scores | leaderboard.standing(scores, reference.class_names, options.eps)


def _side_length(side: features.Features) -> int:
    return int(side.spec.size.split("x")[0])


def _count(side: Side, found: features.Features) -> int | str:
    return found.count or (len(side.source.photos) if side.source else statistics_files.UNKNOWN)


def _origin(
    reference: features.Features, generated: features.Features, samples: int | str, real: int | str
) -> dict[str, Any]:
    """What the scores depend on."""
    spec = reference.spec
    return {
        "samples": samples,
        "real": real,
        "generated_source": generated.spec.source,
        "real_source": spec.source,
        "network": spec.network,
        "weights_kind": spec.kind,
        "weights_sha256": spec.sha256,
        "size": spec.size,
        "resampler": spec.resampler,
    }


def _save(path: str, side: features.Features, save_as: str) -> None:
    if save_as != "jaxdog":
        statistics_files.write(path, side)
    elif set(features.frechet_layers(side.spec.network)) <= side.layers.keys():
        features.save(path, side)
    else:
        raise errors.UserError(
            f"{side.spec.source} does not have all features that {path} would hold; --save-as pytorch-fid "
            "writes their mean and covariance"
        )


# --- features --------------------------------------------------------------------------------------------


def _both(
    real: Side, fake: Side, options: Options, mesh: Mesh, cache_dir: pathlib.Path
) -> tuple[features.Features, features.Features]:
    """Features or moments of the real and the generated side."""
    extractor = None
    if (real.source or fake.source) and not _pixels_only(real, fake, options):
        weights = networks.load(options.network, options.weights, cache_dir)
        extractor = feature_extractor.FeatureExtractor(options.network, weights, mesh, options.batch_size)
    generated, reference = fake.features, real.features
    if fake.source is not None:
        compare = None if reference is None else partial(features.check_comparable, reference.spec)
        generated = _features(extractor, fake.source, options.size, options, None, compare)
    if real.source is not None:
        size = options.size if generated is None else _side_length(generated)
        compare = None if generated is None else partial(features.check_comparable, fake=generated.spec)
        reference = _features(extractor, real.source, size, options, cache_dir if size else None, compare)
    if reference is None and real.statistics is not None:
        other = _assumed(options, cache_dir) if generated is None else generated.spec
        reference = statistics_files.side(real.statistics, options.network, other)
    assert reference is not None
    if generated is None and fake.statistics is not None:
        generated = statistics_files.side(fake.statistics, options.network, reference.spec)
    assert generated is not None
    return reference, generated


def _assumed(options: Options, cache_dir: pathlib.Path) -> features.FeatureSpec:
    """The spec of statistics where no features are at hand: the weights are those of the options."""
    unknown = statistics_files.UNKNOWN
    kind, sha256 = "published", unknown
    if options.weights != "published":
        weights = networks.load(options.network, options.weights, cache_dir)
        kind, sha256 = weights.kind, weights.sha256
    return features.FeatureSpec(options.network, kind, sha256, unknown, unknown, options.weights)


def omissions(side: str, source: photos.Source | None, count: int) -> list[str]:
    """What is left out of a side whose `count` images are scored, as warnings; [] for features."""
    if source is None:
        return []
    count = count or len(source.photos)  # without features, images are only streamed
    lines = [f"{side} images {note}" for note in source.notes]
    missing = len(source.photos) - count
    if missing:
        lines.append(f"{side} images left out as broken: {missing:,} of {len(source.photos):,} (see the log)")
    return lines


def _pixels_only(real: Side, fake: Side, options: Options) -> bool:
    """Whether no features have to be computed."""
    rows = [metric_table.METRICS[name] for name in options.metrics or metric_table.DEFAULT]
    images = real.source is not None and fake.source is not None
    saved = options.save_real or options.save_fake
    return images and not saved and all(row.sees_pixels_only for row in rows)


def _features(
    extractor: feature_extractor.FeatureExtractor | None,
    source: photos.Source,
    size: int,
    options: Options,
    cache_dir: pathlib.Path | None,
    compare: Compare | None,
) -> features.Features:
    """Features of one side, whose images are squashed to `size` pixels unless it is 0.

    They are cached unless `cache_dir` is None. Without an extractor there are none. `compare` is called
    before any are computed.
    """
    compute = partial(_compute, extractor, source, size, options, compare)
    if cache_dir is None or extractor is None:
        return compute()
    spec = extractor.spec(f"{size}x{size}", options.resampler, source.key)
    data_key = f"{source.key} {crop_recipes.cache_key(_squash(size, options))}"
    return feature_extractor.cached(features.cache_path(cache_dir / "features", data_key, spec), compute)


def _compute(
    extractor: feature_extractor.FeatureExtractor | None,
    source: photos.Source,
    size: int,
    options: Options,
    compare: Compare | None,
) -> features.Features:
    """Features of one side; its images are in memory a batch at a time."""
    with contextlib.closing(_images(source, size, options)) as images:
        _, h, w, _ = next(images).shape
    if h != w:
        raise errors.UserError(
            f"the images of {source.key} are {h} x {w} (height x width), but real photos are squashed to "
            "squares: set a size (--size)"
        )
    _check_values(source)
    resampler, unknown = options.resampler if size else "none", statistics_files.UNKNOWN
    if extractor is None:
        spec = features.FeatureSpec(options.network, unknown, unknown, f"{h}x{w}", resampler, source.key)
        return features.Features({}, spec, None, source.class_names)
    spec = extractor.spec(f"{h}x{w}", resampler, source.key)
    if compare is not None:
        compare(spec)
    labels: list[np.ndarray] = []

    def images_of(batches: Iterator[crop_dataset.Batch]) -> Iterator[np.ndarray]:
        for image, label in batches:
            labels.append(label)
            yield image

    layers = extractor.extract_batches(images_of(_batches(source, size, options)), len(source.photos))
    return features.Features(layers, spec, np.concatenate(labels), source.class_names)


def _squash(size: int, options: Options) -> photos.Recipe:
    """Whole images, squashed to `size` pixels unless it is 0."""
    return (
        partial(crop_recipes.squash, size=size, resampler=options.resampler) if size else crop_recipes.as_is
    )


def _batches(source: photos.Source, size: int, options: Options) -> Generator[crop_dataset.Batch]:
    """The images of a side, squashed to `size` pixels unless it is 0, and their classes."""
    try:
        yield from crop_dataset.stream(source, _squash(size, options), options.batch_size)
    except ValueError as error:
        hint = "" if size else " Set a size (--size) to squash all images to."
        raise errors.UserError(f"{error}{hint}") from error


def _images(source: photos.Source, size: int, options: Options) -> Generator[np.ndarray]:
    """Their images, [b, h, w, 3] uint8."""
    with contextlib.closing(_batches(source, size, options)) as batches:
        for batch in batches:
            yield batch.image


def _check_values(source: photos.Source) -> None:
    """Raises UserError for floats cast to uint8: those in [0, 1] are 0 and 1, those in [-1, 1] also 255.

    Images are as they were before any resize, which would mix these values.
    """
    present: set[int] = set()
    for photo in source.photos:
        with contextlib.suppress(OSError):  # broken photos are reported elsewhere
            present |= set(np.unique(photo.read()).tolist())
        if present - {0, 1, 255}:
            return
    if present <= {0, 1} or present == {0, 1, 255}:
        values = ", ".join(map(str, sorted(present)))
        raise errors.UserError(
            f"the images of {source.key} only have the values {values}, as floats in [0, 1] "
            "or [-1, 1] that were cast to uint8. Convert them to 0..255 first: np.round(255 * x) from "
            "[0, 1], np.round(127.5 * (x + 1)) from [-1, 1]"
        )


def _photos_and_boxes(
    source: photos.Source, size: int, resampler: score_options.Resampler, cache_dir: pathlib.Path
) -> crop_dataset.CropDataset:
    """The images among which copies are searched: whole photos and crops to their boxes, cached."""
    recipe = partial(crop_recipes.whole_and_boxes, size=size, resampler=resampler)
    return crop_dataset.load(source, recipe, crop_recipes.cache_key(recipe), cache_dir / "crops")
