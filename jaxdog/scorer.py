"""Scores of pictures, on disk or in arrays, against others: what `jaxdog-score` runs, and anybody can."""

import logging
import pathlib
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from jaxdog import compare, devices, evaluate, networks
from jaxdog.data import crop, photos, pictures
from jaxdog.metrics import features

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
    begun, over = time.monotonic(), devices.mesh()
    cache = pathlib.Path(options.cache_dir).expanduser()
    features.network(options.network)
    sides = {"real": _side(real), "generated": _side(fake)}
    looked: dict[str, features.Features] = {}
    made, size = sides["generated"], options.size
    extractor = None
    if any(side.found is None for side in sides.values()):
        weights = networks.load(options.network, options.weights, cache)
        extractor = evaluate.Extractor(options.network, weights, over, options.batch_size)
    if made.found is None:
        looked["generated"] = _look(extractor, made.source, size, options, None)
    else:
        looked["generated"] = made.found
    size = int(looked["generated"].about.size.split("x")[0])
    if sides["real"].found is None:
        looked["real"] = _look(extractor, sides["real"].source, size, options, cache)
    else:
        looked["real"] = sides["real"].found
    for path, side in ((options.save_real, looked["real"]), (options.save_fake, looked["generated"])):
        if path:
            features.save(path, side)
    result = compare.Comparer(looked["real"], over, options.eps).scores(looked["generated"], options.metrics)
    return {
        **result.scores,
        **({"per_class": result.per_class} if result.per_class else {}),
        "warnings": list(result.warnings),
        "samples": looked["generated"].count,
        "real": looked["real"].count,
        "generated_source": looked["generated"].about.source,
        "real_source": looked["real"].about.source,
        "network": looked["real"].about.network,
        "weights_kind": looked["real"].about.kind,
        "weights_sha256": looked["real"].about.sha256,
        "size": looked["real"].about.size,
        "resampler": looked["real"].about.resampler,
        "seconds": time.monotonic() - begun,
    }


def _side(given: Pictures) -> Side:
    if isinstance(given, np.ndarray):
        return Side(pictures.array("array", given, None), None)
    path = pathlib.Path(given).expanduser()
    if path.suffix == ".npz" and path.is_file() and features.is_file(path):
        return Side(None, features.load(path))
    return Side(pictures.source(given), None)


def _look(
    extractor: evaluate.Extractor | None,
    source: photos.Source | None,
    size: int,
    options: Options,
    cache: pathlib.Path | None,
) -> features.Features:
    """Features of one side; `size` 0 leaves pictures as they are, `cache` None keeps nothing."""
    assert extractor is not None and source is not None
    recipe = partial(crop.squash, size=size, resampler=options.resampler) if size else pictures.as_is
    key = crop.key(recipe)

    def read() -> photos.Crops:
        try:
            crops = photos.crops(source, recipe, key, None)
        except ValueError as error:
            hint = "" if size else " Name a size to squash them all to (--size)."
            raise ValueError(f"{error}{hint}") from error
        h, w = crops.image.shape[1:3]
        if h != w:
            raise ValueError(
                f"the pictures of {source.key} are {h} x {w} (height x width), and real photos are squashed "
                "to squares: name a size (--size)"
            )
        return crops

    resampler = options.resampler if size else "none"
    if cache is not None:
        about = extractor.about(f"{size}x{size}", resampler, source.key)
        return evaluate.real_side(extractor, read, about, f"{source.key} {key}", cache / "features")
    crops = read()
    about = extractor.about(f"{crops.image.shape[1]}x{crops.image.shape[2]}", resampler, source.key)
    return features.Features(extractor.of_images(crops.image), about, crops.label, crops.breeds)


def table(found: dict[str, Any]) -> str:
    """Scores as lines of text: numbers first, then how they were made, then what to know about them."""
    numbers = {k: v for k, v in found.items() if isinstance(v, float) or v is None}
    facts = {k: v for k, v in found.items() if isinstance(v, str | int) and k not in numbers}
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
    lines += ["", *(f"note: {warning}" for warning in found["warnings"])] if found["warnings"] else []
    return "\n".join(lines)
