"""Settings of `jaxdog clean` and what they mean. This module imports nothing, for a fast command line."""

from typing import NamedTuple

METHODS = ("none", "pixels", "segments", "features", "labels")


class Settings(NamedTuple):
    """--clean.*: which crops to drop, and how to cluster the crops. `MEANINGS` explains the fields."""

    min_side: int = 1
    min_aspect: float = 0.2
    max_aspect: float = 4.0  # the limits are those of the 1st place of 2019
    max_bytes_percentile: float = 100.0
    duplicates: bool = True
    near_duplicates: float = 0.75
    blocklist: str = ""
    method: str = "pixels"
    size: int = 32
    num_components: int = 64
    num_clusters: int = 8
    seed: int = 0
    weights: str = ""
    labels: str = ""
    sheet_size: int = 100


MEANINGS = {
    "min_side": "boxes whose short side has fewer pixels are dropped",
    "min_aspect": "boxes whose height / width is smaller are dropped",
    "max_aspect": "boxes whose height / width is larger are dropped",
    "max_bytes_percentile": "photos whose file is larger than this percentile are dropped",
    "duplicates": "keep only the first of crops with equal pixels",
    "near_duplicates": "keep only the first of crops with at least this similarity; 0: off",
    "blocklist": "file with names to drop, one per line: photos, or crops as photo:index",
    "method": f"of clustering: {', '.join(METHODS)}",
    "size": "side in pixels of what methods pixels and segments cluster",
    "num_components": "maximum number of principal components",
    "num_clusters": "number of clusters",
    "seed": "of clustering",
    "weights": "method features: a file with VGG16's weights; empty: Inception with config.eval.weights",
    "labels": "method labels: the file that jaxdog label wrote; empty: labels.csv of the work folder",
    "sheet_size": "number of crops on each contact sheet",
}
