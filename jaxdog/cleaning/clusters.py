"""Clustering of crops by PCA and k-means, both from scikit-learn.

The vectors to cluster are pixels, segmented objects or features of a network. The numbers of components and
clusters used in 2019 were not published.
"""

from typing import NamedTuple

import numpy as np

from jaxdog.data import cropping
from jaxdog.utils import errors, integers, optional

NUM_INITS = 10  # of k-means; the best result is used


class Clusters(NamedTuple):
    """The cluster of each vector."""

    cluster: np.ndarray  # int [n]; clusters are numbered by decreasing size
    distance: np.ndarray  # float [n], to the cluster's center in the principal components
    explained_variance: float  # fraction of the variance explained by the components


def pixel_vectors(image: np.ndarray, size: int) -> np.ndarray:
    """Crops uint8 [n, s, s, 3], averaged down -> float32 [n, size * size * 3] in [0, 1]."""
    return to_vectors(np.stack([cropping.resize(x, size, size, "box") for x in image]))


def to_vectors(image: np.ndarray) -> np.ndarray:
    """uint8 [n, ...] -> float32 [n, d] in [0, 1]."""
    return image.reshape(len(image), -1).astype(np.float32) / np.float32(255)


def fit_and_assign(
    vectors: np.ndarray, among: np.ndarray, num_components: int, num_clusters: int, seed: int
) -> Clusters:
    """Fits PCA and k-means to some of the vectors, and assigns each vector to the nearest cluster.

    Args:
      vectors: float32 [n, d].
      among: bool [n], the vectors to fit to.
      num_components: maximum number of components, also limited by d and the number of vectors.
      num_clusters: k.
      seed: random seed.

    Raises:
      errors.UserError: there are fewer than k distinct vectors.
      optional.MissingExtraError: scikit-learn is not installed.
    """
    decomposition = optional.load("sklearn.decomposition", "clustering")
    kmeans = optional.load("sklearn.cluster", "clustering")
    num_distinct = len(np.unique(vectors[among], axis=0))
    if num_distinct < num_clusters:
        raise errors.UserError(
            f"num_clusters is {num_clusters}, but only {num_distinct} distinct crops are left to cluster"
        )
    num_components = min(num_components, int(among.sum()), vectors.shape[1])
    pca = decomposition.PCA(num_components, svd_solver="auto", random_state=seed).fit(vectors[among])
    components = pca.transform(vectors)
    model = kmeans.KMeans(num_clusters, n_init=NUM_INITS, random_state=seed).fit(components[among])
    distances, cluster = model.transform(components), model.predict(components)
    sizes = np.bincount(cluster[among], minlength=num_clusters)
    rank = np.argsort(np.argsort(-sizes, kind="stable"))
    distance = distances[np.arange(len(vectors)), cluster]
    return Clusters(rank[cluster], distance, float(pca.explained_variance_ratio_.sum()))


def sample_by_distance(members: np.ndarray, distance: np.ndarray, count: int) -> np.ndarray:
    """At most `count` members, int, of the m in a cluster, evenly spaced from the nearest to the farthest."""
    ordered = members[np.argsort(distance[members], kind="stable")]
    return ordered[integers.evenly_spaced(len(ordered), count)]
