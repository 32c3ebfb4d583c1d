"""Clusters against NumPy and known clusters, segmentation of drawings, and errors for missing packages."""

import sys

import numpy as np
import pytest

from jaxdog.cleaning import clusters, segment
from jaxdog.data import toy
from jaxdog.utils import optional

SKLEARN = "scikit-learn comes with the extra clean"


def blobs(sizes: tuple[int, ...], d: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Points around distant centers, shuffled: float32 [n, d], and the blob of each."""
    rng = np.random.default_rng(0)
    middles = rng.normal(size=(len(sizes), d)) * 20
    blob = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return (middles[blob] + rng.normal(size=(len(blob), d))).astype(np.float32), blob


@pytest.mark.oracle
def test_clusters_are_ordered_by_size():
    pytest.importorskip("sklearn", reason=SKLEARN)
    x, blob = blobs((5, 40, 20))
    got = clusters.fit_and_assign(x, np.ones(65, bool), 3, 3, 0)
    np.testing.assert_array_equal(got.cluster, np.array([2, 0, 1])[blob])
    again = clusters.fit_and_assign(x, np.ones(65, bool), 3, 3, 0)
    np.testing.assert_array_equal(got.distance, again.distance)


@pytest.mark.oracle
def test_components_and_distances_are_those_of_an_independent_computation():
    """Principal axes by NumPy's SVD, cluster centers as means, and distances from them."""
    pytest.importorskip("sklearn", reason=SKLEARN)
    x, blob = blobs((30, 20))
    got = clusters.fit_and_assign(x, np.ones(50, bool), 2, 2, 0)
    centered = x - x.mean(axis=0)
    _, s, axes = np.linalg.svd(centered.astype(np.float64), full_matrices=False)
    assert got.explained_variance == pytest.approx(float((s[:2] ** 2).sum() / (s**2).sum()), rel=1e-5)
    reduced = centered @ axes[:2].T
    middles = np.stack([reduced[blob == b].mean(axis=0) for b in (0, 1)])
    np.testing.assert_allclose(got.distance, np.linalg.norm(reduced - middles[blob], axis=1), rtol=1e-3)


@pytest.mark.oracle
def test_vectors_not_fitted_are_assigned_to_the_nearest_cluster():
    pytest.importorskip("sklearn", reason=SKLEARN)
    metrics = pytest.importorskip("sklearn.metrics", reason=SKLEARN)
    x, blob = blobs((30, 20, 10))
    among = np.arange(60) < 45
    alone = clusters.fit_and_assign(x[among], np.ones(45, bool), 4, 3, 1)
    wild = np.where(among[:, None], x, x + 3)
    both = clusters.fit_and_assign(wild.astype(np.float32), among, 4, 3, 1)
    np.testing.assert_array_equal(both.cluster[among], alone.cluster)
    np.testing.assert_allclose(both.distance[among], alone.distance, rtol=1e-3)
    assert metrics.adjusted_rand_score(both.cluster, blob) == 1.0


@pytest.mark.oracle
def test_too_few_crops_for_so_many_clusters():
    pytest.importorskip("sklearn", reason=SKLEARN)
    x = np.repeat(np.eye(3, dtype=np.float32), 10, axis=0)
    assert set(clusters.fit_and_assign(x, np.ones(30, bool), 99, 3, 0).cluster.tolist()) == {0, 1, 2}
    with pytest.raises(ValueError, match="num_clusters is 4, but only 3 distinct crops are left to cluster"):
        clusters.fit_and_assign(x, np.ones(30, bool), 2, 4, 0)
    with pytest.raises(ValueError, match="num_clusters is 2, but only 1 distinct"):
        clusters.fit_and_assign(x, np.arange(30) < 5, 2, 2, 0)


def test_pixels_are_area_means_in_the_order_of_the_crops():
    image = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    got = clusters.pixel_vectors(image, 4)
    means = image.reshape(3, 4, 2, 4, 2, 3).mean((2, 4)) / 255
    assert got.dtype == np.float32
    apart = 255 * np.abs(got - means.reshape(3, -1))  # in levels: rounded along each axis
    assert apart.max() <= 1.0001


def test_members_are_sampled_evenly_by_distance():
    distance = np.array([5.0, 1.0, 9.0, 3.0, 7.0, 0.0])
    members = np.array([0, 1, 2, 3, 4])
    assert clusters.sample_by_distance(members, distance, 9).tolist() == [1, 3, 0, 4, 2]
    assert clusters.sample_by_distance(members, distance, 3).tolist() == [1, 0, 2]
    assert clusters.sample_by_distance(members, distance, 1).tolist() == [1]


# ------------------------------------------------------------------ cut out


def disc(h: int, w: int, centre: tuple[int, int], radius: int) -> tuple[np.ndarray, np.ndarray]:
    """A red disc on a green ground with a little noise, and which pixels it has."""
    y, x = np.mgrid[:h, :w]
    inside = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2
    photo = np.where(inside[..., None], (200, 40, 40), (40, 160, 60))
    noise = np.random.default_rng(0).integers(-8, 9, (h, w, 3))
    return (photo + noise).astype(np.uint8), inside


@pytest.mark.oracle
def test_a_disc_is_segmented_exactly():
    pytest.importorskip("cv2", reason="opencv comes with the extra clean")
    photo, inside = disc(90, 120, (40, 60), 22)
    box = (35, 15, 85, 65)
    np.testing.assert_array_equal(segment.object_mask(photo, box), inside[15:65, 35:85])


@pytest.mark.oracle
def test_a_box_as_large_as_the_photo_still_has_a_background():
    """The border of the photo is background then."""
    pytest.importorskip("cv2", reason="opencv comes with the extra clean")
    photo, inside = disc(80, 80, (40, 40), 25)
    np.testing.assert_array_equal(segment.object_mask(photo, (0, 0, 80, 80)), inside)


@pytest.mark.oracle
def test_large_photos_are_segmented_at_a_smaller_size():
    pytest.importorskip("cv2", reason="opencv comes with the extra clean")
    photo, inside = disc(600, 800, (300, 400), 150)
    got, truth = segment.object_mask(photo, (230, 130, 570, 470)), inside[130:470, 230:570]
    assert got.shape == (340, 340) and (got & truth).sum() / (got | truth).sum() > 0.95


@pytest.mark.oracle
def test_segmentation_is_deterministic():
    import concurrent.futures

    pytest.importorskip("cv2", reason="opencv comes with the extra clean")
    drawings = [toy.dogs(8).photos[i] for i in range(8)]
    alone = [segment.object_mask(p.read(), p.boxes[0]) for p in drawings]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        again = list(pool.map(lambda p: segment.object_mask(p.read(), p.boxes[0]), drawings))
    for a, b in zip(alone, again, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.oracle
@pytest.mark.parametrize("box", [(5, 5, 6, 6), (0, 0, 2, 40), (0, 0, 1, 1)])
def test_without_a_segmentation_the_whole_box_is_the_object(box):
    pytest.importorskip("cv2", reason="opencv comes with the extra clean")
    flat = np.full((40, 40, 3), 90, np.uint8)
    got = segment.object_mask(flat, box)
    assert got.shape == (box[3] - box[1], box[2] - box[0]) and got.all()
    assert segment.object_mask(flat, (4, 4, 30, 30)).any()


@pytest.mark.oracle
def test_cut_out_has_colors_and_mask():
    pytest.importorskip("cv2", reason="opencv comes with the extra clean")
    photo, inside = disc(80, 80, (40, 40), 25)
    got = segment.cut_out(photo, (10, 10, 70, 70), size=60)
    np.testing.assert_array_equal(got[:, :, 3], inside[10:70, 10:70] * np.uint8(255))
    np.testing.assert_array_equal(got[:, :, :3], photo[10:70, 10:70] * inside[10:70, 10:70, None])
    assert segment.cut_out(photo, (10, 10, 70, 70), size=16).shape == (16, 16, 4)
    nothing = segment.cut_out(np.full((80, 80, 3), 90, np.uint8), (0, 0, 1, 1), size=60)
    np.testing.assert_array_equal(segment.is_segmented(np.stack([got, nothing])), [True, False])


# ------------------------------------------------------------------ without the packages


@pytest.mark.parametrize(
    ("module", "work", "package"),
    [("sklearn.cluster", "clustering", "scikit-learn"), ("cv2", "segmentation", "opencv-python-headless")],
)
def test_a_missing_package_is_named_with_its_extra(monkeypatch, module, work, package):
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not there
    with pytest.raises(
        optional.MissingExtraError, match=rf"^{work} needs {package}, .*: pip install 'jaxdog\[clean\]'"
    ):
        optional.load(module, work)
