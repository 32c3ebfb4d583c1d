"""Crops put into clusters: vectors -> principal components -> k-means, both scikit-learn's.

What the vectors are made of, pixels, cut-out dogs or a network's features, is the caller's choice. How many
components and clusters the methods had that were told of in 2019 was never published.
"""

from typing import NamedTuple

import numpy as np

from jaxdog.data import cropping
from jaxdog.utils import optional

STARTS = 10  # of k-means; the best is taken


class Clusters(NamedTuple):
    """Where each vector belongs."""

    number: np.ndarray  # int [n]: cluster 0 is the largest
    distance: np.ndarray  # float [n], to the middle of its cluster, among the components
    explained: float  # share of the variance that the components hold


def pixels(image: np.ndarray, size: int) -> np.ndarray:
    """Crops uint8 [n, s, s, 3] -> float32 [n, size * size * 3] in [0, 1], area means."""
    small = np.stack([cropping.resize(x, size, size, "box") for x in image])
    return vectors(small)


def vectors(image: np.ndarray) -> np.ndarray:
    """uint8 [n, ...] -> float32 [n, d] in [0, 1]."""
    return image.reshape(len(image), -1).astype(np.float32) / np.float32(255)


def cluster(x: np.ndarray, among: np.ndarray, components: int, k: int, seed: int) -> Clusters:
    """Clusters of vectors [n, d]: found among some of them, every one put into the nearest.

    Args:
      x: float32 [n, d].
      among: bool [n], those by which components and clusters are found.
      components: at most; there are no more than d, or vectors.
      k: clusters.
      seed: another seed is another start.

    Raises ValueError where there are not k different vectors, MissingExtra without scikit-learn.
    """
    decomposition = optional.load("sklearn.decomposition", "clustering")
    kmeans = optional.load("sklearn.cluster", "clustering")
    distinct = len(np.unique(x[among], axis=0))
    if distinct < k:
        raise ValueError(f"clean.k is {k}, and only {distinct} different crops are left to cluster")
    components = min(components, int(among.sum()), x.shape[1])
    pca = decomposition.PCA(components, svd_solver="auto", random_state=seed).fit(x[among])
    reduced = pca.transform(x)
    model = kmeans.KMeans(k, n_init=STARTS, random_state=seed).fit(reduced[among])
    distances, number = model.transform(reduced), model.predict(reduced)
    sizes = np.bincount(number[among], minlength=k)
    order = np.argsort(-sizes, kind="stable")
    renamed = np.argsort(order)[number]
    return Clusters(renamed, distances[np.arange(len(x)), number], float(pca.explained_variance_ratio_.sum()))


def spread(members: np.ndarray, distance: np.ndarray, most: int) -> np.ndarray:
    """int [at most `most`] of the members int [m], from the most to the least typical, evenly spread."""
    ordered = members[np.argsort(distance[members], kind="stable")]
    return ordered[np.unique(np.linspace(0, len(ordered) - 1, min(len(ordered), most)).round().astype(int))]
