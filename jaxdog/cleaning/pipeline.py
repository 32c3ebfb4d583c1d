"""Mode clean: photos -> what to train on (`clean.csv`), clusters, and sheets of both to look at."""

import json
import logging
import os
import pathlib
from collections import Counter
from functools import partial
from typing import Any

import jax
import numpy as np
import PIL.Image
import tqdm
from jax.sharding import Mesh

from jaxdog import sharding
from jaxdog.cleaning import clusters, filters, labels, segment
from jaxdog.config import build, schema
from jaxdog.data import cropping, photos, tables
from jaxdog.evaluation import copies, evaluate
from jaxdog.metrics.backbones import networks, vgg
from jaxdog.utils import files, optional, plots

log = logging.getLogger("jaxdog")

TABLE, LABELS, SUMMARY, SHEETS = "clean.csv", "labels.csv", "clean.json", "clusters"
BATCH = 16  # pictures at a time through VGG16
SEARCHED = 64  # pixels on a side at which near duplicates are looked for
COLUMNS = 10  # of a sheet


def run(
    config: schema.Checked, settings: filters.Settings, folder: pathlib.Path, cache_dir: pathlib.Path
) -> tables.Table:
    """Decides on every crop of config.data, before any curation, and writes what was decided.

    Args:
      config: an experiment; its photos and crops are looked at, its eval.weights may be.
      settings: --clean.*.
      folder: where clean.csv, clean.json and clusters/ go.
      cache_dir: of crops and weights.

    Raises ValueError and FileNotFoundError for settings that do not fit, `extras.MissingExtra` without the
    packages that a method of clustering needs.
    """
    if jax.process_count() > 1:
        raise schema.ConfigError("mode clean runs in one process, not in several")
    filters.check(settings)
    _check_files(settings, folder)
    source, crops = read(config, cache_dir)
    look = partial(segment.cut_out, size=settings.size) if settings.method == "segments" else None
    facts = filters.survey(source, crops, look, config.data.workers or None)
    reasons = filters.filtered(crops, facts, settings)
    over = sharding.mesh()
    if settings.near_duplicates > 0:
        first = near(crops, filters.kept(reasons), settings.near_duplicates, over)
        filters.drop_copies(reasons, first, filters.names(crops), filters.LIKE)
    kept = filters.kept(reasons)
    if not kept.any():
        raise ValueError(
            f"nothing is left of {len(kept)} crops ({_counts(reasons)}): loosen the filters of --clean"
        )
    found, about = clustered(config, settings, folder, cache_dir, crops, facts, kept, over)
    rows = filters.table(crops, facts, reasons, found.number)
    tables.write(folder / TABLE, rows)
    _sheets(folder / SHEETS, crops, rows, found, settings.sheet)
    summary = _summary(source, config, settings, rows, reasons) | about
    files.replace(folder / SUMMARY, json.dumps(summary, indent=2) + "\n")
    log.info("%d of %d crops stay (%s)", kept.sum(), len(kept), _counts(reasons) or "nothing is dropped")
    for row in summary["clusters"]:
        log.info("cluster %(cluster)d: %(kept)d of %(crops)d crops stay, mean share %(mean_share).2f", row)
    log.info("%s, sheets in %s", folder / TABLE, folder / SHEETS)
    return rows


def _check_files(settings: filters.Settings, folder: pathlib.Path) -> None:
    """Whatever is missing is said now, not after the photos were read."""
    if settings.method in ("pixels", "segments", "features"):
        optional.load("sklearn.cluster", f"clustering by {settings.method}")
    if settings.method == "segments":
        optional.load("cv2", "clustering by segments")
    if settings.method == "features" and settings.weights:
        vgg.load(settings.weights)
    if settings.method == "labels":
        labels.read(settings.labels or folder / LABELS)
    if settings.intruders:
        tables.text(settings.intruders, "a list of intruders")


def read(config: schema.Checked, cache_dir: pathlib.Path) -> tuple[photos.Source, photos.Crops]:
    """The photos of config.data and all crops of its recipe."""
    source, recipe = build.source(config.data), build.recipe(config.data)
    workers = config.data.workers or None
    return source, photos.crops(source, recipe, cropping.key(recipe), cache_dir / "crops", workers)


def near(crops: photos.Crops, among: np.ndarray, likeness: float, over: Mesh) -> np.ndarray:
    """int [n]: the first crop of other photos that each is nearly the same as, or as what is like it.

    Args:
      crops: n of them.
      among: bool [n], those that are compared; the others stand for themselves.
      likeness: of edges (`copies.find`), from which on crops count as nearly the same.
      over: the mesh of all devices.
    """
    rows, first = np.flatnonzero(among), np.arange(len(among))
    if len(np.unique(crops.photo[rows])) < 2:
        return first
    side = min(SEARCHED, crops.image.shape[1])
    small = np.stack([cropping.resize(crops.image[i], side, side, "box") for i in rows])
    match = copies.Search(small, crops.photo[rows], over)(small, crops.photo[rows])
    alike = np.asarray(match.likeness) >= likeness
    first[rows] = rows[filters.groups(np.asarray(match.photo), alike)]
    return first


# ------------------------------------------------------------------------------------- clusters


def clustered(
    config: schema.Checked,
    settings: filters.Settings,
    folder: pathlib.Path,
    cache_dir: pathlib.Path,
    crops: photos.Crops,
    facts: filters.Facts,
    kept: np.ndarray,
    over: Mesh,
) -> tuple[clusters.Clusters, dict[str, Any]]:
    """Clusters by settings.method, found among those kept, and what is worth telling of how.

    Crops of which no dog could be cut out are in no cluster of segments: what they have in common is that.
    """
    if settings.method in ("none", "labels"):
        number = np.full(len(kept), tables.NONE)
        if settings.method == "labels":
            number = by_hand(crops, settings.labels or folder / LABELS)
        return clusters.Clusters(number, np.zeros(len(kept)), 0.0), {}
    about: dict[str, Any] = {}
    told = np.ones(len(kept), bool)
    if settings.method == "features" and settings.weights:
        x, about = deep(settings.weights, crops.image, over), {"network": "vgg16"}
    elif settings.method == "features":
        weights = networks.load("inception", config.eval.weights, cache_dir)
        extractor = evaluate.Extractor("inception", weights, over, config.eval.batch_size)
        x = extractor.of_images(crops.image)["pool_3"]
        about = {"network": "inception", "weights_kind": weights.kind, "weights_sha256": weights.sha256}
    elif settings.method == "segments":
        x, told = clusters.vectors(np.asarray(facts.look)), segment.told(np.asarray(facts.look))
        about = {"not_cut_out": int((~told).sum())}
    else:
        x = clusters.pixels(crops.image, settings.size)
    found = clusters.cluster(x, kept & told, settings.components, settings.k, settings.seed)
    found = found._replace(number=np.where(told, found.number, tables.NONE))
    return found, about | {"explained_variance": found.explained}


def by_hand(crops: photos.Crops, path: str | os.PathLike) -> np.ndarray:
    """int [n]: the cluster of each crop's label, tables.NONE where it has none or was skipped."""
    given = labels.read(path).label
    keys = labels.keys(crops)
    if not any(key in given for key in keys):
        raise ValueError(f"none of the {len(given)} labels in {path} is of one of these {len(keys)} crops")
    return np.asarray([labels.CLUSTERS.get(given.get(key, ""), tables.NONE) for key in keys])


def deep(path: str, image: np.ndarray, over: Mesh) -> np.ndarray:
    """VGG16's features [n, 512] of crops [n, s, s, 3] uint8, with the weights of a file."""
    params = sharding.put(vgg.load(path), sharding.everywhere(over))
    forward = sharding.compiled(vgg.features, over)
    found = []
    size = sharding.rounded(BATCH, over)
    bar = tqdm.tqdm(total=len(image), desc="features", unit="img", leave=False, disable=evaluate.hidden())
    for rows in evaluate.blocks(len(image), size):
        found.append(np.asarray(forward(params, sharding.put(image[rows], sharding.by_rows(over)))))
        bar.update(size)
    bar.close()
    return np.concatenate(found)[: len(image)]


# ------------------------------------------------------------------------------------- what is told


def _sheets(
    folder: pathlib.Path, crops: photos.Crops, rows: tables.Table, found: clusters.Clusters, most: int
) -> None:
    """cluster_00.png, ..., of what is kept, the most typical first, and dropped.png; no older ones stay."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("cluster_*.png"), folder / "dropped.png"):
        old.unlink(missing_ok=True)
    shown = {
        f"cluster_{c:02d}": np.flatnonzero(rows.keep & (rows.cluster == c))
        for c in sorted(set(rows.cluster.tolist()) - {tables.NONE})
    }
    shown["dropped"] = np.flatnonzero(~rows.keep)
    for name, members in shown.items():
        if len(members):
            chosen = clusters.spread(members, found.distance, most)
            PIL.Image.fromarray(plots.grid(crops.image[chosen], COLUMNS)).save(folder / f"{name}.png")


def _counts(reasons: filters.Reasons) -> str:
    """How many crops were dropped why, the most common reason first."""
    kinds = Counter(_kind(why) for several in reasons for why in several)
    return ", ".join(f"{kind}: {count}" for kind, count in kinds.most_common())


def _kind(why: str) -> str:
    """A reason without its figures and names."""
    return next(kind for kind in filters.KINDS if why.startswith(kind))


def _summary(
    source: photos.Source,
    config: schema.Checked,
    settings: filters.Settings,
    rows: tables.Table,
    reasons: filters.Reasons,
) -> dict[str, Any]:
    """What clean.json holds."""
    members = {c: rows.cluster == c for c in sorted(set(rows.cluster.tolist()) - {tables.NONE})}
    return {
        "source": source.key,
        "recipe": cropping.key(build.recipe(config.data)),
        "settings": settings._asdict(),
        "crops": len(rows.file),
        "kept": int(rows.keep.sum()),
        "dropped": dict(Counter(_kind(why) for several in reasons for why in several).most_common()),
        "clusters": [
            {
                "cluster": int(c),
                "crops": int(of.sum()),
                "kept": int((of & rows.keep).sum()),
                "mean_share": float(rows.share[of].mean()),
            }
            for c, of in members.items()
        ],
    }
