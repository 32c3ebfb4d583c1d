"""Scores of pictures, on disk or in arrays, against others: what `jaxdog-score` runs, and anybody can."""

import logging
import pathlib
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import PIL.Image

from jaxdog import sharding
from jaxdog.data import cropping, image_files, photos
from jaxdog.evaluation import copies, evaluate, metric_suite
from jaxdog.metrics import features
from jaxdog.metrics.backbones import networks

log = logging.getLogger("jaxdog")

Pictures = str | pathlib.Path | np.ndarray  # a path (see data/pictures.py), or [n, h, w, 3] uint8


class Options(NamedTuple):
    """How pictures are looked at."""

    network: str = "inception"  # a row of features.NETWORKS
    weights: str = "published"  # "published" | "random" | a file or folder
    size: int = 0  # pixels on a side, to which both sides are squashed; 0: the generated pictures' own
    resampler: str = "lanczos"  # how: a row of crop.RESAMPLERS
    eps: float | None = None  # memorization distances below this divide the FID; None: the network's own
    metrics: tuple[str, ...] = ("mifid", "is", "kid", "prdc")  # rows of features.METRICS
    batch_size: int = 64
    cache_dir: str = "~/.cache/jaxdog"
    pairs: str = ""  # where to show the suspects of "forensics" beside photos (.png)
    save_real: str = ""  # where to keep the real side's features
    save_fake: str = ""


class Side(NamedTuple):
    """Pictures not yet looked at, or their features."""

    source: photos.Source | None
    found: features.Features | None


def score(real: Pictures, fake: Pictures, options: Options = Options()) -> dict[str, Any]:  # noqa: B008
    """Scores of generated against real pictures, as plain numbers.

    The real side is squashed to the size of the generated pictures, as the competition did with its photos,
    and its features are kept in the cache; either side may be a file of features instead.

    Returns the scores under their true names, "per_class" if asked for, "warnings", and how they were made.
    Raises ValueError and FileNotFoundError for sides that cannot be read or compared.
    """
    begun, over = time.monotonic(), sharding.mesh()
    cache = pathlib.Path(options.cache_dir).expanduser()
    features.network(options.network)
    sides = _side(real), _side(fake)
    extractor = None
    if any(side.found is None for side in sides):
        weights = networks.load(options.network, options.weights, cache)
        extractor = evaluate.Extractor(options.network, weights, over, options.batch_size)
    generated, images = _look(extractor, sides[1], options.size, options, None)
    size = int(generated.about.size.split("x")[0])
    reference, _ = _look(extractor, sides[0], size, options, cache)
    for path, side in ((options.save_real, reference), (options.save_fake, generated)):
        if path:
            features.save(path, side)
    result = metric_suite.Comparer(reference, over, options.eps).scores(generated, options.metrics)
    found = {**result.scores, **({"per_class": result.per_class} if result.per_class else {})}
    warnings = list(result.warnings)
    if "forensics" in options.metrics:
        if images is None or sides[0].source is None:
            warnings.append("no forensics: both sides have to be pictures, not features")
        else:
            training = whole_and_boxes(sides[0].source, size, options.resampler, cache)
            examined = copies.examine(images, training.image, training.photo, over, generated, reference)
            found["forensics"] = copies.facts(examined, training)
            if options.pairs:
                PIL.Image.fromarray(copies.sheet(examined)).save(options.pairs)
    about = reference.about
    return {
        **found,
        "warnings": warnings,
        "samples": generated.count,
        "real": reference.count,
        "generated_source": generated.about.source,
        "real_source": about.source,
        "network": about.network,
        "weights_kind": about.kind,
        "weights_sha256": about.sha256,
        "size": about.size,
        "resampler": about.resampler,
        "seconds": time.monotonic() - begun,
    }


def whole_and_boxes(
    source: photos.Source, size: int, resampler: str, cache: pathlib.Path, workers: int | None = None
) -> photos.Crops:
    """What copies are looked for in, from the cache or made now."""
    recipe = partial(image_files.whole_and_boxes, size=size, resampler=resampler)
    return photos.crops(source, recipe, cropping.key(recipe), cache / "crops", workers)


def _side(given: Pictures) -> Side:
    if isinstance(given, np.ndarray):
        return Side(image_files.array("array", given, None), None)
    path = pathlib.Path(given).expanduser()
    if path.suffix == ".npz" and path.is_file() and features.is_file(path):
        return Side(None, features.load(path))
    return Side(image_files.source(given), None)


def _look(
    extractor: evaluate.Extractor | None,
    side: Side,
    size: int,
    options: Options,
    cache: pathlib.Path | None,
) -> tuple[features.Features, np.ndarray | None]:
    """Features of one side, and its pictures if they were read.

    `size` 0 leaves pictures as they are, `cache` None keeps nothing.
    """
    if side.found is not None:
        return side.found, None
    source = side.source
    assert extractor is not None and source is not None
    recipe = partial(cropping.squash, size=size, resampler=options.resampler) if size else image_files.as_is
    key, resampler = cropping.key(recipe), options.resampler if size else "none"
    read = partial(_read, source, recipe, key, bool(size))
    if cache is not None:
        about = extractor.about(f"{size}x{size}", resampler, source.key)
        data_key = f"{source.key} {key}"
        return evaluate.real_side(extractor, read, about, data_key, cache / "features"), None
    crops = read()
    about = extractor.about(f"{crops.image.shape[1]}x{crops.image.shape[2]}", resampler, source.key)
    found = features.Features(extractor.of_images(crops.image), about, crops.label, crops.breeds)
    return found, crops.image


def _read(source: photos.Source, recipe: photos.Recipe, key: str, sized: bool) -> photos.Crops:
    try:
        crops = photos.crops(source, recipe, key, None)
    except ValueError as error:
        raise ValueError(
            f"{error}{'' if sized else ' Name a size to squash them all to (--size).'}"
        ) from error
    h, w = crops.image.shape[1:3]
    if h != w:
        raise ValueError(
            f"the pictures of {source.key} are {h} x {w} (height x width), and real photos are squashed to "
            "squares: name a size (--size)"
        )
    return crops


def table(found: dict[str, Any]) -> str:
    """Scores as lines of text: numbers first, then how they were made, then what to know about them."""
    numbers = {k: v for k, v in found.items() if (isinstance(v, float) and k != "seconds") or v is None}
    facts = {k: v for k, v in found.items() if isinstance(v, str | int)}
    facts["seconds"] = f"{found['seconds']:.1f}"
    width = max(map(len, [*numbers, *facts]))
    lines = [f"{name:<{width}}  {'undefined' if x is None else f'{x:,.6g}'}" for name, x in numbers.items()]
    lines += ["", *(f"{name:<{width}}  {x}" for name, x in facts.items())]
    classes: Sequence[tuple[str, dict[str, Any]]] = list(found.get("per_class", {}).items())
    if classes:
        names = list(classes[0][1])
        lines += ["", "  ".join([f"{'class':<40}", *(f"{name:>22}" for name in names)])]
        for breed, row in classes:
            cells = ["undefined" if row[name] is None else f"{row[name]:,.4g}" for name in names]
            lines.append("  ".join([f"{breed:<40}", *(f"{cell:>22}" for cell in cells)]))
    if "forensics" in found:
        told = found["forensics"]
        lines += ["", f"forensics: {told['verdict']}", *(f"  because {reason}" for reason in told["reasons"])]
        shares = {k: v for k, v in told.items() if isinstance(v, float)}
        lines += [f"  {name:<{width}}{x:,.4g}" for name, x in shares.items()]
    lines += ["", *(f"note: {warning}" for warning in found["warnings"])] if found["warnings"] else []
    return "\n".join(lines)
