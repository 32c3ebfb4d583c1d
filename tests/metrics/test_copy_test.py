"""The copy test: statistics against SciPy, thresholds on the submissions of 2019, copies and drawings."""

import csv
import functools
import pathlib
import tarfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog.data import crop_dataset, crop_recipes, photos, sources, toy
from jaxdog.memorizers import baselines
from jaxdog.metrics import copy_search, copy_test

find = functools.partial(jax.jit, static_argnames=("candidates", "block", "batch"))(copy_search.find)


def match(likeness: Any) -> copy_search.Match:
    """Matches with these similarities; image i resembles a quarter of photo 2 i."""
    n = len(likeness)
    window = np.broadcast_to(np.array([0, 0.5, 0.5, 1], np.float32), (n, 4))
    return copy_search.Match(
        2 * np.arange(n), window, np.arange(n) % 2 == 1, np.asarray(likeness, np.float32)
    )  # pyright: ignore


def mixed(n: int, copied: int, low: float = 0.3, high: float = 0.98) -> np.ndarray:
    return np.where(np.arange(n) < copied, high, low)


# ------------------------------------------------------------------ the share of copies


@pytest.mark.oracle
def test_probabilities_equal_scipy():
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    for k, n, p in [(0, 5, 0.1), (1, 5, 0.1), (5, 5, 0.1), (30, 1000, 0.02), (400, 10_000, 0.02)]:
        assert copy_test._log_binomial_tail(k, n, p) == pytest.approx(
            stats.binom.logsf(k - 1, n, p), rel=1e-9, abs=1e-12
        )
    for share, n in [(0.0, 50), (0.01, 2000), (0.5, 10)]:
        interval = stats.binomtest(round(share * n), n).proportion_ci(2 * stats.norm.cdf(3) - 1, "wilson")
        assert copy_test._wilson_upper(share, n) == pytest.approx(interval.high, rel=1e-9)


@pytest.mark.parametrize(
    ("n", "copied", "expected"),
    [
        (10_000, 10_000, True),
        (10_000, 500, True),
        (10_000, 150, False),  # 1.5 %, as among photos that were never seen
        (2000, 22, False),
        (2000, 200, True),
        (64, 40, True),
        (64, 3, False),
        (3, 3, True),  # three of three cannot be chance
        (3, 1, False),
    ],
)
def test_more_copies_than_near_duplicates_among_photos_are_copies(n, copied, expected):
    found = copy_test.copy_test(match(mixed(n, copied)), mixed(2000, 20))
    assert found.is_copy == expected == bool(found.reasons)
    assert found.copied_share == pytest.approx(copied / n) and found.baseline_share == pytest.approx(0.01)
    if expected:
        assert f"{copied} of {n} images" in found.reasons[0] and "1.0%" in found.reasons[0]


@pytest.mark.oracle
def test_the_null_hypothesis_includes_near_duplicates_and_a_small_baseline():
    images = match(mixed(1000, 60))
    assert copy_test.copy_test(images, mixed(2000, 20)).is_copy
    assert not copy_test.copy_test(images, mixed(2000, 120)).is_copy
    assert not copy_test.copy_test(images, mixed(50, 0)).is_copy  # nobody knows yet how common twins are
    assert not copy_test.copy_test(match(mixed(10_000, 80)), mixed(10_000, 0)).is_copy  # below 1 %


def test_evidence_is_sorted_by_similarity_and_describes_the_window():
    likeness = np.array([0.2, 0.97, 0.5, 0.91])
    found = copy_test.copy_test(
        match(likeness), mixed(500, 0), distances=np.array([0.3, 0.1, 0.2, 0.15]), max_evidence=3
    )
    assert [row.image for row in found.evidence] == [1, 3, 2] and [row.photo for row in found.evidence] == [
        2,
        6,
        4,
    ]
    first = found.evidence[0]
    assert first.view == "rows 0% to 50%, columns 50% to 100%, mirrored" and first.mirrored
    assert first.similarity == pytest.approx(0.97) and first.distance == 0.1
    assert not found.evidence[2].mirrored and found.evidence[2].view.endswith("100%")
    whole = match(likeness)._replace(window=jnp.tile(jnp.array([[0.001, 0, 1, 0.999]]), (4, 1)))
    found = copy_test.copy_test(whole, mixed(500, 0))
    assert [row.view for row in found.evidence] == ["whole, mirrored", "whole, mirrored", "whole", "whole"]
    assert found.evidence[0].distance is None


def test_without_images_or_baseline_there_is_no_test():
    with pytest.raises(ValueError, match="there are 0 images and 5 baseline photos"):
        copy_test.copy_test(match([]), mixed(5, 0))
    with pytest.raises(ValueError, match="there are 3 images and 0 baseline photos"):
        copy_test.copy_test(match(mixed(3, 0)), np.zeros(0))


# ------------------------------------------------------------------ the rules of 2019


def test_a_small_distance_is_evidence_with_published_weights_only():
    honest = match(mixed(100, 0)), mixed(500, 0)
    assert not copy_test.copy_test(
        *honest, mean_distances=copy_test.DistanceEvidence(public=0.1501, private=0.2502)
    ).is_copy
    near = copy_test.copy_test(*honest, mean_distances=copy_test.DistanceEvidence(public=0.1499))
    assert near.is_copy and "0.1499 is below 0.15 (public leaderboard)" in near.reasons[0] and not near.notes
    near = copy_test.copy_test(*honest, mean_distances=copy_test.DistanceEvidence(public=0.16, private=0.24))
    assert near.is_copy and "0.2400 is below 0.25 (private leaderboard)" in near.reasons[0]
    as_real = copy_test.copy_test(
        *honest, mean_distances=copy_test.DistanceEvidence(public=0.13, real_distance=0.131)
    )
    assert not as_real.is_copy and "0.1300 is below 0.15" in as_real.notes[0]
    assert "real photos are as close to each other (0.1310)" in as_real.notes[0]
    assert copy_test.copy_test(
        *honest, mean_distances=copy_test.DistanceEvidence(public=0.1, real_distance=0.131)
    ).is_copy
    fitted = copy_test.copy_test(
        *honest, mean_distances=copy_test.DistanceEvidence(public=0.12, weights_kind="fitted")
    )
    assert (
        not fitted.is_copy
        and not fitted.reasons
        and "published weights, and these are fitted" in fitted.notes[0]
    )


def test_a_small_distance_is_evidence_at_64_pixels_only():
    honest = match(mixed(100, 0)), mixed(500, 0)
    large = copy_test.DistanceEvidence(public=0.12, real_distance=0.2, size="128x128")
    found = copy_test.copy_test(*honest, mean_distances=large)
    assert not found.is_copy and "is for images of 64x64, and these are 128x128" in found.notes[0]
    assert copy_test.copy_test(*honest, mean_distances=large._replace(size="64x64")).is_copy


def test_the_rules_on_every_submission_of_2019(real_data):
    """Each rule by itself, and both, catch 446 of the 498 labeled cheats and none of the 497 honest ones."""
    with open(real_data / "golden" / "competition_results.csv") as file:
        submissions = list(csv.DictReader(file))
    honest = match(mixed(20, 0)), mixed(500, 0)

    def is_copy(row: dict[str, str], *boards: str) -> bool:
        distance: dict[str, Any] = {board: float(row[f"distance_{board}"]) for board in boards}
        return copy_test.copy_test(*honest, mean_distances=copy_test.DistanceEvidence(**distance)).is_copy

    for boards in (("public",), ("private",)):
        caught = {name: [0, 0] for name in ("honest", "cheat")}
        for row in submissions:
            if row["labels"] in ("non-mem", "mgan", "sup", "aug", "ae"):
                count = caught["honest" if row["labels"] == "non-mem" else "cheat"]
                count[0] += is_copy(row, *boards)
                count[1] += 1
        assert caught == {"honest": [0, 497], "cheat": [446, 498]}, boards


# ------------------------------------------------------------------ features


def test_authentic_against_loops():
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(40, 5)), rng.normal(size=(25, 5))
    fake[:5] = real[3:8] + 1e-3
    want = []
    for row in fake:
        i = int(np.argmin(np.linalg.norm(real - row, axis=1)))
        others = np.delete(real, i, axis=0)
        want.append(np.linalg.norm(real[i] - row) > np.linalg.norm(others - real[i], axis=1).min())
    got = jax.jit(copy_test.authentic, static_argnames="block")(fake, real, block=16)
    np.testing.assert_array_equal(got, want)
    assert not got[:5].any() and got[5:].any()


# ------------------------------------------------------------------ drawn dogs, honest and not


@pytest.fixture(scope="module")
def drawn() -> tuple[photos.Source, np.ndarray, np.ndarray]:
    """Photos, their views for the search, and the similarity of each to another one."""
    source = toy.dogs(64, 0)
    known = np.stack([crop_recipes.squash(photo.read(), size=64)[0].image for photo in source.photos])
    alone = find(known, known, np.arange(64, dtype=np.int32), np.arange(64, dtype=np.int32))
    return source, known, np.asarray(alone.similarity)


def run_test(drawn: tuple, image: np.ndarray) -> copy_test.CopyTestResult:
    _, known, baseline = drawn
    found = find(image, known, np.arange(64, dtype=np.int32), np.full(64, -1, np.int32))
    return copy_test.copy_test(found, baseline)


@pytest.mark.long
def test_cheats_are_found_and_the_evidence_names_their_photos(drawn):
    made = [baselines.memorizer(drawn[0], "corner", 64), baselines.imitation(drawn[0], n=64)]
    for cheat in made:
        found = run_test(drawn, cheat.image)
        assert found.is_copy and found.copied_share > 0.9
        for row in found.evidence:
            assert row.photo == cheat.photo[row.image]
            shown = copy_search.matched_crop(drawn[1][row.photo], row.window, row.mirrored)
            assert np.abs(shown.astype(float) - cheat.image[row.image]).mean() < 12


@pytest.mark.long
def test_a_generator_that_copies_half_is_copying(drawn):
    others = toy.dogs(64, 5).photos
    image = np.stack([crop_recipes.squash(photo.read(), size=64)[0].image for photo in others])
    image[::2] = baselines.memorizer(drawn[0], "corner", 32).image
    assert run_test(drawn, image).is_copy


@pytest.mark.long
def test_new_drawings_are_not_copies(drawn):
    image = np.stack(
        [crop_recipes.squash(photo.read(), size=64)[0].image for photo in toy.dogs(64, 5).photos]
    )
    found = run_test(drawn, image)
    assert not found.is_copy and not found.reasons and found.evidence
    image[:2] = drawn[1][:2]  # two photos that happen to be the same
    found = run_test(drawn, image)
    assert not found.is_copy and {row.image for row in found.evidence[:2]} == {0, 1}


# ------------------------------------------------------------------ real dogs


@pytest.mark.slow
def test_real_cheats_are_found_and_real_photos_are_not(real_data: pathlib.Path, tmp_path: pathlib.Path):
    """Every third photo of the set; one in eight of these is held out, the others are the training photos."""
    with tarfile.open(real_data / "stanford_dogs" / "images.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    every = sources.folder(tmp_path / "Images").photos[::3]
    held, known = (
        photos.Source(
            name, ("dog",), [p._replace(label=0) for i, p in enumerate(every) if (i % 8 == 0) == out]
        )
        for name, out in (("held", True), ("known", False))
    )
    squash = functools.partial(crop_recipes.squash, size=64)
    honest, photo = (crop_dataset.load(source, squash, "squash", tmp_path).image for source in (held, known))
    rows = np.arange(0, len(photo), len(photo) // 500, dtype=np.int32)[:500]
    baseline = np.asarray(find(photo[rows], photo, own=rows).similarity)

    def verdict(image: np.ndarray) -> copy_test.CopyTestResult:
        return copy_test.copy_test(find(image, photo), baseline)

    found = verdict(honest)
    assert not found.is_copy and found.copied_share < 0.03
    for cheat in (
        *(baselines.memorizer(known, name, 400) for name in baselines.MEMORIZERS),
        *(baselines.imitation(known, name, 400) for name in baselines.IMITATIONS),
    ):
        found = verdict(cheat.image)
        assert found.is_copy and found.copied_share > 0.7
        assert np.mean([row.photo == cheat.photo[row.image] for row in found.evidence]) > 0.8
