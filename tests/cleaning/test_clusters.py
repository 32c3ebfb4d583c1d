"""Clusters against numpy and planted ones, drawings cut out, and what is said without the packages."""

import sys

import numpy as np
import pytest

from jaxdog.cleaning import clusters, segment
from jaxdog.data import toy
from jaxdog.utils import optional

SKLEARN = "scikit-learn comes with the extra clean"


def blobs(sizes: tuple[int, ...], d: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Points around far middles, shuffled: float32 [n, d], and which blob each is of."""
    rng = np.random.default_rng(0)
    middles = rng.normal(size=(len(sizes), d)) * 20
    blob = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return (middles[blob] + rng.normal(size=(len(blob), d))).astype(np.float32), blob


def test_blobs_are_found_the_largest_first():
    pytest.importorskip("sklearn", reason=SKLEARN)
    x, blob = blobs((5, 40, 20))
    got = clusters.cluster(x, np.ones(65, bool), 3, 3, 0)
    np.testing.assert_array_equal(got.number, np.array([2, 0, 1])[blob])
    again = clusters.cluster(x, np.ones(65, bool), 3, 3, 0)
    np.testing.assert_array_equal(got.distance, again.distance)


def test_components_and_distances_are_those_of_an_independent_computation():
    """Principal axes by numpy's SVD, cluster middles as means, distances from them."""
    pytest.importorskip("sklearn", reason=SKLEARN)
    x, blob = blobs((30, 20))
    got = clusters.cluster(x, np.ones(50, bool), 2, 2, 0)
    centred = x - x.mean(axis=0)
    _, s, axes = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    assert got.explained == pytest.approx(float((s[:2] ** 2).sum() / (s**2).sum()), rel=1e-5)
    reduced = centred @ axes[:2].T
    middles = np.stack([reduced[blob == b].mean(axis=0) for b in (0, 1)])
    np.testing.assert_allclose(got.distance, np.linalg.norm(reduced - middles[blob], axis=1), rtol=1e-3)


def test_what_is_not_among_changes_nothing_and_is_put_into_the_nearest():
    pytest.importorskip("sklearn", reason=SKLEARN)
    metrics = pytest.importorskip("sklearn.metrics", reason=SKLEARN)
    x, blob = blobs((30, 20, 10))
    among = np.arange(60) < 45
    alone = clusters.cluster(x[among], np.ones(45, bool), 4, 3, 1)
    wild = np.where(among[:, None], x, x + 3)
    both = clusters.cluster(wild.astype(np.float32), among, 4, 3, 1)
    np.testing.assert_array_equal(both.number[among], alone.number)
    np.testing.assert_allclose(both.distance[among], alone.distance, rtol=1e-3)
    assert metrics.adjusted_rand_score(both.number, blob) == 1.0


def test_too_few_crops_for_so_many_clusters():
    pytest.importorskip("sklearn", reason=SKLEARN)
    x = np.repeat(np.eye(3, dtype=np.float32), 10, axis=0)
    assert set(clusters.cluster(x, np.ones(30, bool), 99, 3, 0).number.tolist()) == {0, 1, 2}
    with pytest.raises(ValueError, match="clean.k is 4, and only 3 different crops are left to cluster"):
        clusters.cluster(x, np.ones(30, bool), 2, 4, 0)
    with pytest.raises(ValueError, match="clean.k is 2, and only 1 different"):
        clusters.cluster(x, np.arange(30) < 5, 2, 2, 0)


def test_pixels_are_area_means_in_the_order_of_the_crops():
    image = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    got = clusters.pixels(image, 4)
    means = image.reshape(3, 4, 2, 4, 2, 3).mean((2, 4)) / 255
    assert got.dtype == np.float32
    apart = 255 * np.abs(got - means.reshape(3, -1))  # in levels: rounded along each axis
    assert apart.max() <= 1.0001


def test_members_are_spread_from_typical_to_odd():
    distance = np.array([5.0, 1.0, 9.0, 3.0, 7.0, 0.0])
    members = np.array([0, 1, 2, 3, 4])
    assert clusters.spread(members, distance, 9).tolist() == [1, 3, 0, 4, 2]
    assert clusters.spread(members, distance, 3).tolist() == [1, 0, 2]
    assert clusters.spread(members, distance, 1).tolist() == [1]


# ------------------------------------------------------------------ cut out


def disc(h: int, w: int, centre: tuple[int, int], radius: int) -> tuple[np.ndarray, np.ndarray]:
    """A red disc on a green ground with a little noise, and which pixels it has."""
    y, x = np.mgrid[:h, :w]
    inside = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2
    photo = np.where(inside[..., None], (200, 40, 40), (40, 160, 60))
    noise = np.random.default_rng(0).integers(-8, 9, (h, w, 3))
    return (photo + noise).astype(np.uint8), inside


def test_a_disc_is_cut_out_to_the_pixel():
    pytest.importorskip("cv2", reason="opencv comes with the extra clean")
    photo, inside = disc(90, 120, (40, 60), 22)
    box = (35, 15, 85, 65)
    np.testing.assert_array_equal(segment.dog(photo, box), inside[15:65, 35:85])


def test_a_box_as_large_as_the_photo_still_has_a_ground():
    """The photo's rim counts as ground then."""
    pytest.importorskip("cv2", reason="opencv comes with the extra clean")
    photo, inside = disc(80, 80, (40, 40), 25)
    np.testing.assert_array_equal(segment.dog(photo, (0, 0, 80, 80)), inside)


def test_large_photos_are_cut_small_and_give_nearly_the_same():
    pytest.importorskip("cv2", reason="opencv comes with the extra clean")
    photo, inside = disc(600, 800, (300, 400), 150)
    got, truth = segment.dog(photo, (230, 130, 570, 470)), inside[130:470, 230:570]
    assert got.shape == (340, 340) and (got & truth).sum() / (got | truth).sum() > 0.95


def test_the_mask_is_no_matter_of_chance_or_thread():
    import concurrent.futures

    pytest.importorskip("cv2", reason="opencv comes with the extra clean")
    drawings = [toy.dogs(8).photos[i] for i in range(8)]
    alone = [segment.dog(p.read(), p.boxes[0]) for p in drawings]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        again = list(pool.map(lambda p: segment.dog(p.read(), p.boxes[0]), drawings))
    for a, b in zip(alone, again, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("box", [(5, 5, 6, 6), (0, 0, 2, 40), (0, 0, 1, 1)])
def test_where_nothing_can_be_told_everything_is_dog(box):
    pytest.importorskip("cv2", reason="opencv comes with the extra clean")
    flat = np.full((40, 40, 3), 90, np.uint8)
    got = segment.dog(flat, box)
    assert got.shape == (box[3] - box[1], box[2] - box[0]) and got.all()
    assert segment.dog(flat, (4, 4, 30, 30)).any()


def test_cut_out_holds_colours_and_where_they_are():
    pytest.importorskip("cv2", reason="opencv comes with the extra clean")
    photo, inside = disc(80, 80, (40, 40), 25)
    got = segment.cut_out(photo, (10, 10, 70, 70), size=60)
    np.testing.assert_array_equal(got[:, :, 3], inside[10:70, 10:70] * np.uint8(255))
    np.testing.assert_array_equal(got[:, :, :3], photo[10:70, 10:70] * inside[10:70, 10:70, None])
    assert segment.cut_out(photo, (10, 10, 70, 70), size=16).shape == (16, 16, 4)
    nothing = segment.cut_out(np.full((80, 80, 3), 90, np.uint8), (0, 0, 1, 1), size=60)
    np.testing.assert_array_equal(segment.told(np.stack([got, nothing])), [True, False])


# ------------------------------------------------------------------ without the packages


@pytest.mark.parametrize(
    ("module", "work", "package"),
    [("sklearn.cluster", "clustering", "scikit-learn"), ("cv2", "segmentation", "opencv-python-headless")],
)
def test_a_missing_package_is_named_with_its_extra(monkeypatch, module, work, package):
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not there
    with pytest.raises(
        optional.MissingExtra, match=rf"^{work} needs {package}, .*: pip install 'jaxdog\[clean\]'"
    ):
        optional.load(module, work)
