"""Scores of any images on disk or in arrays: images -> features -> metrics."""

import pathlib
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import PIL.Image

from jaxdog import sharding
from jaxdog.data import crop_dataset, crop_recipes, image_files, photos
from jaxdog.evaluation import copies, feature_extractor, metric_suite, score_options
from jaxdog.metrics import features, metric_table
from jaxdog.metrics.backbones import networks
from jaxdog.utils import errors, files, outputs

Options = score_options.Options
# A path (see data/image_files.py), [n, h, w, 3] uint8, or a source (see score_inputs.py).
Images = str | pathlib.Path | np.ndarray | photos.Source


class Side(NamedTuple):
    """One side of the comparison: either images to read, or features."""

    source: photos.Source | None
    features: features.Features | None


def score(real: Images, fake: Images, options: Options = Options()) -> dict[str, Any]:  # noqa: B008
    """Scores of generated images against real images, as plain floats.

    Real photos are squashed to the size of the generated images, as in the competition, and their features
    are cached. Either side may also be a file of features.

    Returns the scores by name, "per_class" and "copies" if requested, "warnings", and the origin of the
    scores.
    Raises UserError if a side cannot be read or the sides cannot be compared.
    """
    start, mesh = time.monotonic(), sharding.make_mesh()
    cache_dir = pathlib.Path(options.cache_dir).expanduser()
    features.get_network(options.network)
    metric_suite.check_metrics(options.metrics)
    _check_outputs(options)
    real_side, fake_side = _open(real), _open(fake)
    extractor = None
    if real_side.features is None or fake_side.features is None:
        weights = networks.load(options.network, options.weights, cache_dir)
        extractor = feature_extractor.FeatureExtractor(options.network, weights, mesh, options.batch_size)
    generated, images = _features(extractor, fake_side, options.size, options, None)
    size = int(generated.spec.size.split("x")[0])
    reference, _ = _features(extractor, real_side, size, options, cache_dir)
    for path, side in ((options.save_real, reference), (options.save_fake, generated)):
        if path:
            features.save(path, side)
    result = metric_suite.MetricSuite(reference, mesh, options.eps).scores(generated, options.metrics)
    scores: dict[str, Any] = {
        **result.scores,
        **({"per_class": result.per_class} if result.per_class else {}),
    }
    warnings = [*result.warnings, *omissions("real", real_side.source, reference.count)]
    warnings += omissions("generated", fake_side.source, generated.count)
    if "copies" in options.metrics:
        if images is None or real_side.source is None:
            warnings.append(f"no copies: {metric_table.NEEDS['images']}")
        else:
            training = _photos_and_boxes(real_side.source, size, options.resampler, cache_dir)
            report = copies.find_copies(images, training.image, training.photo, mesh, generated, reference)
            scores["copies"] = copies.summary(report, training)
            if options.pairs:
                with files.atomic_path(options.pairs) as temporary:
                    PIL.Image.fromarray(copies.pair_grid(report)).save(temporary, "PNG")
    spec = reference.spec
    return {
        **scores,
        "warnings": warnings,
        "samples": generated.count,
        "real": reference.count,
        "generated_source": generated.spec.source,
        "real_source": spec.source,
        "network": spec.network,
        "weights_kind": spec.kind,
        "weights_sha256": spec.sha256,
        "size": spec.size,
        "resampler": spec.resampler,
        "seconds": time.monotonic() - start,
    }


def _check_outputs(options: Options) -> None:
    """Raises UserError if a file of the options cannot be written."""
    for name, suffix in (("save_real", ".npz"), ("save_fake", ".npz"), ("pairs", ".png")):
        if path := getattr(options, name):
            outputs.check(path, name, (suffix,))


def _open(images: Images) -> Side:
    if isinstance(images, photos.Source):
        return Side(images, None)
    if isinstance(images, np.ndarray):
        return Side(image_files.array("array", images, None), None)
    path = pathlib.Path(images).expanduser()
    if path.suffix == ".npz" and path.is_file() and features.is_features_file(path):
        return Side(None, features.load(path))
    return Side(image_files.source(images), None)


def omissions(side: str, source: photos.Source | None, count: int) -> list[str]:
    """What is left out of a side whose `count` images are scored, as warnings; [] for features."""
    if source is None:
        return []
    lines = [f"{side} images {note}" for note in source.notes]
    missing = len(source.photos) - count
    if missing:
        lines.append(f"{side} images left out as broken: {missing:,} of {len(source.photos):,} (see the log)")
    return lines


def _features(
    extractor: feature_extractor.FeatureExtractor | None,
    side: Side,
    size: int,
    options: Options,
    cache_dir: pathlib.Path | None,
) -> tuple[features.Features, np.ndarray | None]:
    """Features of one side, and its images [n, h, w, 3] uint8 if they were read.

    Images are squashed to `size` pixels unless it is 0. Features are cached unless `cache_dir` is None.
    """
    if side.features is not None:
        return side.features, None
    source = side.source
    assert extractor is not None and source is not None
    recipe, resampler = crop_recipes.as_is, "none"
    if size:
        resampler = options.resampler
        recipe = partial(crop_recipes.squash, size=size, resampler=resampler)
    key = crop_recipes.cache_key(recipe)
    read = partial(_read, source, recipe, key, bool(size))
    if cache_dir is not None:
        spec = extractor.spec(f"{size}x{size}", resampler, source.key)
        data_key = f"{source.key} {key}"
        return feature_extractor.real_features(extractor, read, spec, data_key, cache_dir / "features"), None
    data = read()
    _, height, width, _ = data.image.shape
    spec = extractor.spec(f"{height}x{width}", resampler, source.key)
    layers = extractor.extract(data.image)
    return features.Features(layers, spec, data.label, data.class_names), data.image


def _read(source: photos.Source, recipe: photos.Recipe, key: str, has_size: bool) -> crop_dataset.CropDataset:
    try:
        data = crop_dataset.load(source, recipe, key, None)
    except ValueError as error:
        hint = "" if has_size else " Set a size (--size) to squash all images to."
        raise errors.UserError(f"{error}{hint}") from error
    h, w = data.image.shape[1:3]
    if h != w:
        raise errors.UserError(
            f"the images of {source.key} are {h} x {w} (height x width), but real photos are squashed to "
            "squares: set a size (--size)"
        )
    _check_values(source.key, data.image)
    return data


def _check_values(name: str, image: np.ndarray) -> None:
    """Raises UserError for floats cast to uint8: those in [0, 1] are 0 and 1, those in [-1, 1] also 255."""
    present: set[int] = set()
    for x in image:
        present |= set(np.unique(x).tolist())
        if present - {0, 1, 255}:
            return
    if present <= {0, 1} or present == {0, 1, 255}:
        values = ", ".join(map(str, sorted(present)))
        raise errors.UserError(
            f"the images of {name} only have the values {values}, as floats in [0, 1] "
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
    if "copies" in scores:
        found = scores["copies"]
        lines += ["", f"copies: {found['verdict']}", *(f"  because {reason}" for reason in found["reasons"])]
        floats = {k: v for k, v in found.items() if isinstance(v, float)}
        lines += [f"  {name:<{width}}{x:,.4g}" for name, x in floats.items()]
    lines += ["", *(f"note: {warning}" for warning in scores["warnings"])] if scores["warnings"] else []
    return "\n".join(lines)
