"""Mode clean: decides which crops to train on, clusters them, and writes tables and contact sheets."""

import json
import logging
import os
import pathlib
import re
from collections import Counter
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxdog import sharding
from jaxdog.cleaning import clusters, filters, labels, segment
from jaxdog.config import build, schema
from jaxdog.data import crop_dataset, crop_recipes, cropping, photos, tables
from jaxdog.evaluation import batching, copies, feature_extractor
from jaxdog.metrics.backbones import networks, vgg
from jaxdog.utils import errors, files, optional, outputs, plots, png

log = logging.getLogger("jaxdog")

TABLE, LABELS, SUMMARY, SHEETS = "clean.csv", "labels.csv", "clean.json", "clusters"
VGG_BATCH_SIZE = 16
SEARCH_SIZE = 64  # height and width in pixels for the search of near duplicates
COLUMNS = 10  # in a contact sheet
SHEET = re.compile(r"cluster_\d{2,}|dropped")  # names of contact sheets


def run(
    config: schema.Experiment, settings: filters.Settings, folder: pathlib.Path, cache_dir: pathlib.Path
) -> tables.Table:
    """Filters and clusters all crops of config.data, before config.data.select, and writes the results.

    Args:
      config: an experiment, of which config.data is used and, for features of Inception, config.eval.weights.
      settings: --clean.*.
      folder: the folder for clean.csv, clean.json and clusters/.
      cache_dir: the cache of crops and weights.

    Raises:
      errors.UserError: a setting is invalid, or no crop is left.
      FileNotFoundError: a file that the settings name is missing.
      optional.MissingExtraError: a package for the clustering method is not installed.
    """
    if jax.process_count() > 1:
        raise errors.ConfigError("jaxdog clean must run in a single process")
    filters.check(settings)
    _check_requirements(settings, folder)
    source, crops = load_crops(config, cache_dir)
    view = partial(segment.cut_out, size=settings.size) if settings.method == "segments" else None
    facts = filters.measure(source, crops, view, config.data.workers)
    reasons = filters.find_reasons(crops, facts, settings)
    mesh = sharding.make_mesh()
    if settings.near_duplicates > 0:
        first = near_duplicates(crops, filters.is_kept(reasons), settings.near_duplicates, mesh)
        filters.add_duplicates(reasons, first, tables.crop_names(crops), filters.NEAR_DUPLICATE)
    kept = filters.is_kept(reasons)
    if not kept.any():
        raise errors.UserError(
            f"none of the {len(kept)} crops is left ({_counts(reasons)}): loosen the filters"
        )
    clustering, details = cluster_crops(config, settings, folder, cache_dir, crops, facts, kept, mesh)
    table = filters.to_table(crops, facts, reasons, clustering.cluster)
    tables.write(folder / TABLE, table)
    _write_sheets(folder / SHEETS, crops, table, clustering, settings.sheet_size)
    summary = _summary(source, config, settings, table, reasons) | details
    files.write_text(folder / SUMMARY, json.dumps(summary, indent=2) + "\n")
    log.info("kept %d of %d crops (%s)", kept.sum(), len(kept), _counts(reasons) or "none dropped")
    for row in summary["clusters"]:
        log.info(
            "cluster %(cluster)d: kept %(kept)d of %(crops)d crops, mean area %(mean_area_fraction).2f", row
        )
    log.info("wrote %s, contact sheets to %s", folder / TABLE, folder / SHEETS)
    return table


def _check_requirements(settings: filters.Settings, folder: pathlib.Path) -> None:
    """Raises errors for missing packages and files, and for a link in place of the folder of sheets."""
    outputs.check_links(folder, (SHEETS,))
    if settings.method in ("pixels", "segments", "features"):
        optional.load("sklearn.cluster", f"clustering by {settings.method}")
    if settings.method == "segments":
        optional.load("cv2", "clustering by segments")
    if settings.method == "features" and settings.weights:
        vgg.load(settings.weights)
    if settings.method == "labels":
        labels.read(settings.labels or folder / LABELS)
    if settings.blocklist:
        tables.read_text(settings.blocklist, "a blocklist")


def load_crops(
    config: schema.Experiment, cache_dir: pathlib.Path
) -> tuple[photos.Source, crop_dataset.CropDataset]:
    """The photos of config.data and all crops of its recipe."""
    source, recipe = build.source(config.data), build.recipe(config.data)
    key = crop_recipes.cache_key(recipe)
    crops = crop_dataset.load(source, recipe, key, cache_dir / "crops", config.data.workers)
    for line in source.notes:
        log.warning("%s", line)
    return source, crops


def near_duplicates(
    crops: crop_dataset.CropDataset, among: np.ndarray, threshold: float, mesh: Mesh
) -> np.ndarray:
    """int [n]: the first crop of each crop's group of near duplicates; itself if it has none.

    Groups are connected components: crops of different photos are joined if their similarity is at least
    `threshold`.

    Args:
      crops: n crops.
      among: bool [n], the crops to compare.
      threshold: minimum similarity, see `metrics.copy_search`.
      mesh: the mesh of all devices.
    """
    rows, first = np.flatnonzero(among), np.arange(len(among))
    if len(np.unique(crops.photo[rows])) < 2:
        return first
    side = min(SEARCH_SIZE, crops.image.shape[1])
    small = np.stack([cropping.resize(crops.image[i], side, side, "box") for i in rows])
    match = copies.CopySearch(small, crops.photo[rows], mesh)(small, crops.photo[rows])
    is_similar = np.asarray(match.similarity) >= threshold
    first[rows] = rows[filters.first_of_group(np.asarray(match.photo), is_similar)]
    return first


# ------------------------------------------------------------------------------------- clusters


def cluster_crops(
    config: schema.Experiment,
    settings: filters.Settings,
    folder: pathlib.Path,
    cache_dir: pathlib.Path,
    crops: crop_dataset.CropDataset,
    facts: filters.CropFacts,
    kept: np.ndarray,
    mesh: Mesh,
) -> tuple[clusters.Clusters, dict[str, Any]]:
    """Clusters by settings.method, fitted to the kept crops, and details for the summary.

    With method "segments", crops that could not be segmented get no cluster, as they would form their own.
    """
    if settings.method in ("none", "labels"):
        cluster = np.full(len(kept), tables.NONE)
        if settings.method == "labels":
            cluster = clusters_of_labels(crops, settings.labels or folder / LABELS)
        return clusters.Clusters(cluster, np.zeros(len(kept)), 0.0), {}
    details: dict[str, Any] = {}
    usable = np.ones(len(kept), bool)
    if settings.method == "features" and settings.weights:
        vectors, details = vgg_features(settings.weights, crops.image, mesh), {"network": "vgg16"}
    elif settings.method == "features":
        weights = networks.load("inception", config.eval.weights, cache_dir)
        extractor = feature_extractor.FeatureExtractor("inception", weights, mesh, config.eval.batch_size)
        vectors = extractor.extract(crops.image)["pool_3"]
        details = {"network": "inception", "weights_kind": weights.kind, "weights_sha256": weights.sha256}
    elif settings.method == "segments":
        cut_outs = np.asarray(facts.view)
        vectors, usable = clusters.to_vectors(cut_outs), segment.is_segmented(cut_outs)
        details = {"not_segmented": int((~usable).sum())}
    else:
        vectors = clusters.pixel_vectors(crops.image, settings.size)
    result = clusters.fit_and_assign(
        vectors, kept & usable, settings.num_components, settings.num_clusters, settings.seed
    )
    result = result._replace(cluster=np.where(usable, result.cluster, tables.NONE))
    return result, details | {"explained_variance": result.explained_variance}


def clusters_of_labels(crops: crop_dataset.CropDataset, path: str | os.PathLike) -> np.ndarray:
    """int [n]: the cluster of each crop's manual label; tables.NONE if it has no label or was skipped."""
    label = labels.read(path).label
    keys = labels.crop_keys(crops)
    if not any(key in label for key in keys):
        raise errors.UserError(
            f"none of the {len(label)} labels in {path} is for one of the {len(keys)} crops"
        )
    return np.asarray([labels.CLUSTERS.get(label.get(key, ""), tables.NONE) for key in keys])


def vgg_features(path: str, image: np.ndarray, mesh: Mesh) -> np.ndarray:
    """VGG16 features [n, 512] of crops uint8 [n, s, s, 3], with the weights in a file."""
    params = sharding.put(vgg.load(path), sharding.replicated(mesh))
    forward = sharding.jit_replicated(vgg.features, mesh)

    def extract(rows: np.ndarray) -> jax.Array:
        return forward(params, sharding.put(rows, sharding.batch_sharding(mesh)))

    return batching.map_batches(extract, (image,), sharding.round_up(VGG_BATCH_SIZE, mesh), "features")


# ------------------------------------------------------------------------------------- results


def _cluster_numbers(table: tables.Table) -> list[int]:
    return sorted(set(table.cluster.tolist()) - {tables.NONE})


def _write_sheets(
    folder: pathlib.Path,
    crops: crop_dataset.CropDataset,
    table: tables.Table,
    clustering: clusters.Clusters,
    sheet_size: int,
) -> None:
    """Contact sheets: cluster_00.png, ... of the kept crops, nearest to the center first, and dropped.png."""
    sheets = {
        f"cluster_{c:02d}": np.flatnonzero(table.keep & (table.cluster == c)) for c in _cluster_numbers(table)
    }
    sheets["dropped"] = np.flatnonzero(~table.keep)
    sheets = {name: members for name, members in sheets.items() if len(members)}
    for name, members in sheets.items():
        rows = clusters.sample_by_distance(members, clustering.distance, sheet_size)
        png.write(folder / f"{name}.png", plots.grid(crops.image[rows], COLUMNS))
    for path in folder.glob("*.png"):
        if SHEET.fullmatch(path.stem) and path.stem not in sheets:  # of an earlier command
            path.unlink()


def _count_reasons(reasons: filters.Reasons) -> Counter[str]:
    """The number of occurrences of each of filters.REASONS."""
    return Counter(
        next(reason for reason in filters.REASONS if text.startswith(reason))
        for texts in reasons
        for text in texts
    )


def _counts(reasons: filters.Reasons) -> str:
    return ", ".join(f"{reason}: {count}" for reason, count in _count_reasons(reasons).most_common())


def _summary(
    source: photos.Source,
    config: schema.Experiment,
    settings: filters.Settings,
    table: tables.Table,
    reasons: filters.Reasons,
) -> dict[str, Any]:
    """The content of clean.json."""
    members = {c: table.cluster == c for c in _cluster_numbers(table)}
    return {
        "source": source.key,
        "recipe": crop_recipes.cache_key(build.recipe(config.data)),
        "settings": settings._asdict(),
        "crops": len(table.file),
        "kept": int(table.keep.sum()),
        "dropped": dict(_count_reasons(reasons).most_common()),
        "clusters": [
            {
                "cluster": int(c),
                "crops": int(is_member.sum()),
                "kept": int((is_member & table.keep).sum()),
                "mean_area_fraction": float(table.area_fraction[is_member].mean()),
            }
            for c, is_member in members.items()
        ],
    }
