"""The verdict: arithmetic against scipy, the rules of 2019 on its submissions, cheats and honest pictures."""

import csv
import functools
import pathlib
import tarfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog.data import cropping, photos, sources, toy
from jaxdog.memorizers import baselines
from jaxdog.metrics import copy_search, copy_test

find = functools.partial(jax.jit, static_argnames=("candidates", "block", "batch"))(copy_search.find)


def match(likeness: Any) -> copy_search.Match:
    """Findings with these likenesses; picture i resembles a quarter of photo 2 i."""
    n = len(likeness)
    window = np.broadcast_to(np.array([0, 0.5, 0.5, 1], np.float32), (n, 4))
    return copy_search.Match(
        2 * np.arange(n), window, np.arange(n) % 2 == 1, np.asarray(likeness, np.float32)
    )  # pyright: ignore


def mixed(n: int, copied: int, low: float = 0.3, high: float = 0.98) -> np.ndarray:
    return np.where(np.arange(n) < copied, high, low)


# ------------------------------------------------------------------ the share of copies


def test_chances_are_scipys():
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    for k, n, p in [(0, 5, 0.1), (1, 5, 0.1), (5, 5, 0.1), (30, 1000, 0.02), (400, 10_000, 0.02)]:
        assert copy_test._log_tail(k, n, p) == pytest.approx(
            stats.binom.logsf(k - 1, n, p), rel=1e-9, abs=1e-12
        )
    for share, n in [(0.0, 50), (0.01, 2000), (0.5, 10)]:
        interval = stats.binomtest(round(share * n), n).proportion_ci(2 * stats.norm.cdf(3) - 1, "wilson")
        assert copy_test._upper(share, n) == pytest.approx(interval.high, rel=1e-9)


@pytest.mark.parametrize(
    ("n", "copied", "accused"),
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
def test_accused_when_there_are_more_copies_than_twins_among_photos(n, copied, accused):
    found = copy_test.verdict(match(mixed(n, copied)), mixed(2000, 20))
    assert found.accused == accused == bool(found.reasons)
    assert found.copied_share == pytest.approx(copied / n) and found.baseline_share == pytest.approx(0.01)
    if accused:
        assert f"{copied} of {n} pictures" in found.reasons[0] and "1.0%" in found.reasons[0]


def test_a_set_full_of_twins_excuses_twins_and_a_small_baseline_excuses_more():
    pictures = match(mixed(1000, 60))
    assert copy_test.verdict(pictures, mixed(2000, 20)).accused
    assert not copy_test.verdict(pictures, mixed(2000, 120)).accused
    assert not copy_test.verdict(pictures, mixed(50, 0)).accused  # nobody knows yet how common twins are
    assert not copy_test.verdict(match(mixed(10_000, 80)), mixed(10_000, 0)).accused  # below 1 %


def test_evidence_is_the_most_alike_first_and_says_where_to_look():
    likeness = np.array([0.2, 0.97, 0.5, 0.91])
    found = copy_test.verdict(
        match(likeness), mixed(500, 0), distances=np.array([0.3, 0.1, 0.2, 0.15]), rows=3
    )
    assert [row.image for row in found.evidence] == [1, 3, 2] and [row.photo for row in found.evidence] == [
        2,
        6,
        4,
    ]
    first = found.evidence[0]
    assert first.view == "rows 0% to 50%, columns 50% to 100%, mirrored" and first.mirrored
    assert first.likeness == pytest.approx(0.97) and first.distance == 0.1
    assert not found.evidence[2].mirrored and found.evidence[2].view.endswith("100%")
    whole = match(likeness)._replace(window=jnp.tile(jnp.array([[0.001, 0, 1, 0.999]]), (4, 1)))
    found = copy_test.verdict(whole, mixed(500, 0))
    assert [row.view for row in found.evidence] == ["whole, mirrored", "whole, mirrored", "whole", "whole"]
    assert found.evidence[0].distance is None


def test_without_pictures_or_baseline_there_is_no_verdict():
    with pytest.raises(ValueError, match="a verdict on 0 pictures with a baseline of 5 photos"):
        copy_test.verdict(match([]), mixed(5, 0))
    with pytest.raises(ValueError, match="a verdict on 3 pictures with a baseline of 0 photos"):
        copy_test.verdict(match(mixed(3, 0)), np.zeros(0))


# ------------------------------------------------------------------ the rules of 2019


def test_a_small_distance_accuses_with_the_published_network_only():
    honest = match(mixed(100, 0)), mixed(500, 0)
    assert not copy_test.verdict(*honest, public=0.1501, private=0.2502).accused
    near = copy_test.verdict(*honest, public=0.1499)
    assert near.accused and "0.1499 is below 0.15 (public leaderboard)" in near.reasons[0] and not near.notes
    near = copy_test.verdict(*honest, public=0.16, private=0.24)
    assert near.accused and "0.2400 is below 0.25 (private leaderboard)" in near.reasons[0]
    as_real = copy_test.verdict(*honest, public=0.13, unseen=0.131)
    assert not as_real.accused and "0.1300 is below 0.15" in as_real.notes[0]
    assert "real photos lie as near to each other (0.1310)" in as_real.notes[0]
    assert copy_test.verdict(*honest, public=0.1, unseen=0.131).accused
    told = copy_test.verdict(*honest, public=0.12, weights="fitted")
    assert not told.accused and not told.reasons and "these weights are fitted" in told.notes[0]


def test_the_rules_on_every_submission_of_2019(real_data):
    """Each rule by itself, and both, catch 446 of the 498 labelled cheats and none of the 497 honest ones."""
    with open(real_data / "golden" / "competition_results.csv") as file:
        submissions = list(csv.DictReader(file))
    honest = match(mixed(20, 0)), mixed(500, 0)

    def accused(row: dict[str, str], *boards: str) -> bool:
        distance: dict[str, Any] = {board: float(row[f"distance_{board}"]) for board in boards}
        return copy_test.verdict(*honest, **distance).accused

    for boards in (("public",), ("private",)):
        caught = {name: [0, 0] for name in ("honest", "cheat")}
        for row in submissions:
            if row["labels"] in ("non-mem", "mgan", "sup", "aug", "ae"):
                count = caught["honest" if row["labels"] == "non-mem" else "cheat"]
                count[0] += accused(row, *boards)
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
    """Photos, what the search knows of them, and the likeness of each to another one."""
    source = toy.dogs(64, 0)
    known = np.stack([cropping.squash(photo.read(), size=64)[0] for photo in source.photos])
    alone = find(known, known, np.arange(64, dtype=np.int32), np.arange(64, dtype=np.int32))
    return source, known, np.asarray(alone.likeness)


def judge(drawn: tuple, image: np.ndarray) -> copy_test.Verdict:
    _, known, baseline = drawn
    found = find(image, known, np.arange(64, dtype=np.int32), np.full(64, -1, np.int32))
    return copy_test.verdict(found, baseline)


def test_cheats_are_accused_and_the_evidence_names_their_photos(drawn):
    made = [baselines.memorizer(drawn[0], "corner", 64), baselines.imitation(drawn[0], n=64)]
    for cheat in made:
        found = judge(drawn, cheat.image)
        assert found.accused and found.copied_share > 0.9
        for row in found.evidence:
            assert row.photo == cheat.photo[row.image]
            shown = copy_search.part_of(drawn[1][row.photo], row.window, row.mirrored)
            assert np.abs(shown.astype(float) - cheat.image[row.image]).mean() < 12


def test_a_generator_that_copies_half_is_accused(drawn):
    others = toy.dogs(64, 5).photos
    image = np.stack([cropping.squash(photo.read(), size=64)[0] for photo in others])
    image[::2] = baselines.memorizer(drawn[0], "corner", 32).image
    assert judge(drawn, image).accused


def test_new_drawings_are_not_accused(drawn):
    image = np.stack([cropping.squash(photo.read(), size=64)[0] for photo in toy.dogs(64, 5).photos])
    found = judge(drawn, image)
    assert not found.accused and not found.reasons and found.evidence
    image[:2] = drawn[1][:2]  # two photos that happen to be the same
    found = judge(drawn, image)
    assert not found.accused and {row.image for row in found.evidence[:2]} == {0, 1}


# ------------------------------------------------------------------ real dogs


@pytest.mark.slow
def test_real_cheats_are_accused_and_real_photos_are_not(real_data: pathlib.Path, tmp_path: pathlib.Path):
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
    squash = functools.partial(cropping.squash, size=64)
    honest, photo = (photos.crops(source, squash, "squash", tmp_path).image for source in (held, known))
    rows = np.arange(0, len(photo), len(photo) // 500, dtype=np.int32)[:500]
    baseline = np.asarray(find(photo[rows], photo, own=rows).likeness)

    def verdict(image: np.ndarray) -> copy_test.Verdict:
        return copy_test.verdict(find(image, photo), baseline)

    found = verdict(honest)
    assert not found.accused and found.copied_share < 0.03
    for cheat in (
        *(baselines.memorizer(known, name, 400) for name in baselines.MEMORIZERS),
        *(baselines.imitation(known, name, 400) for name in baselines.IMITATIONS),
    ):
        found = verdict(cheat.image)
        assert found.accused and found.copied_share > 0.7
        assert np.mean([row.photo == cheat.photo[row.image] for row in found.evidence]) > 0.8
