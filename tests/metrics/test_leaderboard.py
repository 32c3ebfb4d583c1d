"""Places among the entries of 2019, and the scores that have none."""

import csv

import pytest

from jaxdog.metrics import leaderboard

SCORES = {
    **{"mifid": 15.79, "network": "inception", "weights_kind": "published", "size": "64x64"},
    **{"real": 20_579, "samples": 10_000, "real_source": "kaggle-20579-0123456789abcdef"},
    "resampler": "tf1-bilinear",
}


def test_the_boards_have_all_entries():
    public, private = map(leaderboard.load, leaderboard.BOARDS)
    assert (
        len(public.kept) + len(public.disqualified) == 1666 and len(private.kept) == len(public.kept) == 1171
    )
    for board in (public, private):
        assert list(board.kept) == sorted(board.kept) and [x for x, _ in board.known] == sorted(
            x for x, _ in board.known
        )
        assert all(score in board.kept for score, _ in board.known)
    with pytest.raises(ValueError, match="final is not a leaderboard; choices: public, private"):
        leaderboard.load("final")


@pytest.mark.parametrize("name, column", [("public", "public_score"), ("private", "private_score")])
def test_the_numbers_are_those_of_the_competition(name, column, real_data):
    with (real_data / "golden" / "competition_results.csv").open() as file:
        rows = list(csv.DictReader(file))
    scores = sorted(round(float(row[column]), 2) for row in rows if float(row["private_score"]) < 999_999)
    assert leaderboard.load(name).kept == pytest.approx(scores, abs=0.011)


def test_places_are_counted_from_one():
    board = leaderboard.Board((10.0, 20.0, 20.0, 30.0), (5.0, 25.0), ())
    found = [leaderboard.place(x, board) for x in (1, 10.0, 20.0, 20.01, 31)]
    assert [(x.rank, x.rank_of_kept) for x in found] == [(1, 1), (2, 1), (3, 2), (5, 4), (7, 5)]
    assert found[0].entries == 6 and found[0].kept == 4 and found[0].before is found[0].after is None


def test_the_winner_was_first_on_the_private_board():
    found = leaderboard.place(55.42, leaderboard.load("private"))
    assert found.rank == 1 and found.before is None and found.after is not None
    assert found.after.config == "leaky_biggan"
    second = leaderboard.place(58, leaderboard.load("private"))
    assert (second.before or found.after).config == "leaky_biggan" and second.after is not None
    assert second.after.config == "rals_ac_biggan"


def test_a_score_of_the_competition_has_its_place():
    found = leaderboard.standing(SCORES)["leaderboard"]
    better = [x for x in leaderboard.load().kept if x < 15.79]
    assert found["rank_of_kept"] == len(better) + 1 and found["entries"] == 1666
    assert f"{found['rank_of_kept']:,} of the 1,171 entries that were not disqualified" in found["text"]
    assert (
        "before BigGAN with an auxiliary classifier, 2nd place (15.82) and after BigGAN on" in found["text"]
    )


DOGS = tuple(f"n020{i:05}-dog" for i in range(120))


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"weights_kind": "fitted", "mifid_approx": 15.8}, "published weights, and these are fitted ones"),
        ({"weights_kind": "random"}, "these are random ones"),
        ({"network": "nasnet"}, "photos were never published"),
        ({"network": "inception_pytorch"}, "these are scores of inception_pytorch"),
        ({"real": 18_547}, "all 20,579 of the competition, and these are 18,547 others"),
        ({"real_source": "folder-cats-01"}, "these are 20,579 others"),
        ({"size": "128x128"}, "its images have 64x64 pixels, and these 128x128"),
        ({"resampler": "box"}, "by lanczos or tf1-bilinear, and these were resized by box"),
        ({"resampler": "none"}, "by lanczos or tf1-bilinear, and these were not resized"),
        ({"samples": 5_000}, "it scored 10,000 images, and these are 5,000"),
        ({"mifid": None}, "MiFID is undefined"),
    ],
)
def test_other_scores_have_no_place_and_a_reason(change, reason):
    found = leaderboard.standing({**SCORES, **change})["leaderboard"]
    assert found["rank"] is None and found["text"].startswith("no place on the leaderboard of 2019: ")
    assert reason in found["text"]


def test_the_threshold_and_the_names_of_breeds_count():
    assert "has the threshold 0.1, and this one 0.2" in leaderboard.why_not(SCORES, eps=0.2)
    folder = {**SCORES, "real_source": "folder-dogs-01", "real": 20_580}
    assert leaderboard.why_not(folder, DOGS, eps=0.1) == ""
    assert "others" in leaderboard.why_not(folder, DOGS[1:])
    assert leaderboard.standing({name: x for name, x in SCORES.items() if name != "mifid"}) == {}
