"""Scores of any images on disk or in arrays: images -> features -> metrics."""

import contextlib
import pathlib
import time
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
from jax.sharding import Mesh

from jaxdog import sharding
from jaxdog.data import crop_dataset, crop_recipes, image_files, photos
from jaxdog.evaluation import copies, feature_extractor, metric_suite, score_options
from jaxdog.metrics import comparison, features, leaderboard, metric_table, statistics_files
from jaxdog.metrics.backbones import networks
from jaxdog.utils import errors, files, outputs

Options = score_options.Options
# A path (see data/image_files.py), [n, h, w, 3] uint8, or a source (see score_inputs.py).
Images = str | pathlib.Path | np.ndarray | photos.Source


class Side(NamedTuple):
    """One side of the comparison: images to read, or features, or statistics of features."""

    source: photos.Source | None
    features: features.Features | None
    statistics: statistics_files.Statistics | None


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
    options = _with_outputs(options)
    sides = real_side, fake_side = _open(real), _open(fake)
    options = options._replace(network=options.network or _network(sides))
    _check_possible(sides, options)
    reference, generated = _both(real_side, fake_side, options, mesh, cache_dir)
    size = _side_length(generated) if fake_side.source is not None else options.size
    at_hand = comparison.Images(
        None if real_side.source is None else partial(_images, real_side.source, size, options),
        None if fake_side.source is None else partial(_images, fake_side.source, options.size, options),
    )
    metrics = _metrics(options, reference, generated, at_hand)
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
    warnings += _statistics_notes(sides, options, metrics, (reference, generated))
    if "copies" in metrics:
        if fake_side.source is None or real_side.source is None:
            warnings.append(f"no copies: {metric_table.NEEDS['images']}")
        else:
            images = np.concatenate(list(_images(fake_side.source, options.size, options)))
            training = _photos_and_boxes(real_side.source, size, options.resampler, cache_dir)
            report = copies.find_copies(images, training.image, training.photo, mesh, generated, reference)
            scores["copies"] = copies.summary(report, training)
            if options.pairs:
                with files.atomic_path(options.pairs) as temporary:
                    PIL.Image.fromarray(copies.pair_grid(report)).save(temporary, "PNG")
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


def _with_outputs(options: Options) -> Options:
    """The options with whole paths; raises UserError for a file that cannot, or would not, be written."""
    for name, suffix in (("save_real", ".npz"), ("save_fake", ".npz"), ("pairs", ".png")):
        if path := getattr(options, name):
            options = options._replace(**{name: str(outputs.check(path, name, (suffix,)))})
    if options.pairs and "copies" not in (options.metrics or ()):
        raise errors.UserError(f"pairs is {options.pairs!r}, but copies are not among the metrics")
    if options.save_as not in score_options.FORMATS:
        raise errors.UserError(f"save_as is {options.save_as!r}; choices: {', '.join(score_options.FORMATS)}")
    if options.save_as != "jaxdog" and not (options.save_real or options.save_fake):
        raise errors.UserError(
            f"save_as is {options.save_as!r}, but no file is to be saved: set save_real or save_fake"
        )
    return options


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


def _open(images: Images) -> Side:
    if isinstance(images, photos.Source):
        return Side(images, None, None)
    if isinstance(images, np.ndarray):
        return Side(image_files.array("array", images, None), None, None)
    path = pathlib.Path(images).expanduser()
    if features.is_features_file(path):
        return Side(None, features.load(path), None)
    if statistics_files.is_statistics_file(path):
        return Side(None, None, statistics_files.read(path))
    return Side(image_files.source(images), None, None)


# --- statistics of other programs ------------------------------------------------------------------------


def _network(sides: Sequence[Side]) -> str:
    """The network of saved features, or of statistics; Inception for images."""
    saved = [side.features.spec.network for side in sides if side.features is not None]
    made = [statistics_files.network_of(side.statistics) for side in sides if side.statistics is not None]
    return [*saved, *made, "inception"][0]


def _metrics(
    options: Options, real: features.Features, fake: features.Features, images: comparison.Images
) -> tuple[str, ...]:
    """The metrics to compute. Raises UserError for one that needs more than the moments of a side."""
    if not real.moments and not fake.moments:
        return options.metrics or metric_table.DEFAULT
    has = {
        name: comparison.available(metric.needs, real, fake, images)
        for name, metric in metric_table.METRICS.items()
    }
    missing = [name for name in options.metrics or () if not has[name]]
    if missing:
        only = " and ".join(
            f"{side.spec.source} has only the mean and the covariance of {', '.join(side.moments)}"
            for side in (real, fake)
            if side.moments
        )
        possible = ", ".join(name for name, possible in has.items() if possible)
        raise errors.UserError(
            f"{missing[0]} cannot be computed: {metric_table.NEEDS[metric_table.METRICS[missing[0]].needs]}; "
            f"{only}. Metrics that can be computed: {possible or 'none'}"
        )
    return options.metrics or tuple(name for name in metric_table.DEFAULT_OF_MOMENTS if has[name])


def _check_possible(sides: Sequence[Side], options: Options) -> None:
    """Raises UserError, before features are computed, for statistics that cannot be what is asked for."""
    unknown = statistics_files.UNKNOWN
    kind = "random" if options.weights == "random" else unknown
    spec = features.FeatureSpec(options.network, kind, unknown, unknown, unknown, options.weights)
    nothing = np.empty((0, 0), np.float32)
    layers = dict.fromkeys((*features.frechet_layers(options.network), features.LOGITS), nothing)
    full = features.Features(layers, spec, nothing)  # as images will have them at most
    real, fake = (
        statistics_files.side(side.statistics, options.network, spec) if side.statistics is not None else full
        for side in sides
    )
    some = None if any(side.source is None for side in sides) else lambda: iter(())
    _metrics(options, real, fake, comparison.Images(some, some))


def _statistics_notes(
    sides: Sequence[Side],
    options: Options,
    metrics: Sequence[str],
    both: tuple[features.Features, features.Features],
) -> list[str]:
    """What is assumed about statistics, and which metrics were left out, as warnings."""
    read = [side.statistics for side in sides if side.statistics is not None]
    notes = [statistics_files.note(statistics, options.network) for statistics in read]
    if options.metrics is None and any(side.moments for side in both):
        left_out = ", ".join(name for name in metric_table.DEFAULT if name not in metrics)
        notes.append(f"mean and covariance give {', '.join(metrics)}, not {left_out}, which need features")
    return notes


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
        generated = _features(extractor, fake.source, options.size, options, None)
    if real.source is not None:
        size = options.size if generated is None else _side_length(generated)
        reference = _features(extractor, real.source, size, options, cache_dir if size else None)
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
) -> features.Features:
    """Features of one side, whose images are squashed to `size` pixels unless it is 0.

    They are cached unless `cache_dir` is None. Without an extractor there are none.
    """
    compute = partial(_compute, extractor, source, size, options)
    if cache_dir is None or extractor is None:
        return compute()
    spec = extractor.spec(f"{size}x{size}", options.resampler, source.key)
    data_key = f"{source.key} {crop_recipes.cache_key(_squash(size, options))}"
    return feature_extractor.cached(features.cache_path(cache_dir / "features", data_key, spec), compute)


def _compute(
    extractor: feature_extractor.FeatureExtractor | None, source: photos.Source, size: int, options: Options
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
    labels: list[np.ndarray] = []

    def images_of(batches: Iterator[crop_dataset.Batch]) -> Iterator[np.ndarray]:
        for image, label in batches:
            labels.append(label)
            yield image

    layers = extractor.extract_batches(images_of(_batches(source, size, options)), len(source.photos))
    spec = extractor.spec(f"{h}x{w}", resampler, source.key)
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
    source: photos.Source, size: int, resampler: str, cache_dir: pathlib.Path
) -> crop_dataset.CropDataset:
    """The images among which copies are searched: whole photos and crops to their boxes, cached."""
    recipe = partial(crop_recipes.whole_and_boxes, size=size, resampler=resampler)
    return crop_dataset.load(source, recipe, crop_recipes.cache_key(recipe), cache_dir / "crops")


def table(scores: dict[str, Any]) -> str:
    """The result of `score` as text: scores, their origin, scores of each class, copies and warnings."""
    values = {k: v for k, v in scores.items() if (isinstance(v, float) and k != "seconds") or v is None}
    settings = {k: v for k, v in scores.items() if isinstance(v, str | int)}
    settings["seconds"] = f"{scores['seconds']:.1f}"
    width = max(map(len, [*values, *settings]))
    lines = [f"{name:<{width}}  {'undefined' if x is None else f'{x:,.6g}'}" for name, x in values.items()]
    lines += ["", *(f"{name:<{width}}  {x}" for name, x in settings.items())]
    classes: Sequence[tuple[str, dict[str, Any]]] = list(scores.get("per_class", {}).items())
    if classes:
        names = list(classes[0][1])
        lines += ["", "  ".join([f"{'class':<40}", *(f"{name:>22}" for name in names)])]
        for class_name, row in classes:
            cells = ["undefined" if row[name] is None else f"{row[name]:,.4g}" for name in names]
            lines.append("  ".join([f"{class_name:<40}", *(f"{cell:>22}" for cell in cells)]))
    if "leaderboard" in scores:
        lines += ["", scores["leaderboard"]["text"]]
    if "copies" in scores:
        found = scores["copies"]
        lines += ["", f"copies: {found['verdict']}", *(f"  because {reason}" for reason in found["reasons"])]
        floats = {k: v for k, v in found.items() if isinstance(v, float)}
        lines += [f"  {name:<{width}}{x:,.4g}" for name, x in floats.items()]
    lines += ["", *(f"note: {warning}" for warning in scores["warnings"])] if scores["warnings"] else []
    return "\n".join(lines)
