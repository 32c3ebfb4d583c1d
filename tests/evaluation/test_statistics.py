"""Scores against statistics of other programs: what mean and covariance give, and what they do not."""

import pathlib

import numpy as np
import pytest

import jaxdog
from jaxdog.evaluation import score_files, score_table
from jaxdog.metrics import features, fid
from jaxdog.metrics.backbones import inception_weights
from jaxdog.utils import errors
from tests.fuzz import samples

GENERATOR = np.random.default_rng(0)
SPEC = features.FeatureSpec("inception", "published", "0" * 64, "32x32", "none", "ours")


def rows(n: int, d: int) -> np.ndarray:
    return GENERATOR.gamma(2, 0.2, size=(n, d)).astype(np.float32)


WIDTH = {"mixed_7": 8, "pool_3": 16}  # in place of Inception's, for speed
REAL = {name: rows(40, d) for name, d in WIDTH.items()}
FAKE = {name: rows(30, d) for name, d in {**WIDTH, features.LOGITS: 1008}.items()}


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("inception", "inception_pytorch", "inception_clean"):
        network = features.NETWORKS[name]._replace(width=WIDTH)
        monkeypatch.setitem(features.NETWORKS, name, network)


@pytest.fixture
def place(tmp_path: pathlib.Path) -> pathlib.Path:
    """Saved features of both sides, and the same real side as others would save it."""
    features.save(tmp_path / "real_features.npz", features.Features(REAL, SPEC))
    features.save(tmp_path / "fake.npz", features.Features(FAKE, SPEC))
    for name, layer in (("real", "pool_3"), ("real_small", "mixed_7")):
        x = REAL[layer].astype(np.float64)
        np.savez_compressed(tmp_path / f"{name}.npz", mu=x.mean(0), sigma=np.cov(x, rowvar=False))
    return tmp_path


def expected(layer: str) -> float:
    return fid.frechet_exact(REAL[layer], FAKE[layer])


def test_fid_is_that_of_the_features(place):
    found = jaxdog.score(place / "real.npz", place / "fake.npz")
    np.testing.assert_allclose(found["fid2048"], expected("pool_3"), rtol=1e-4)
    assert set(found) & {"fid768", "mifid", "memorization_distance", "kid", "precision"} == set()
    assert found["inception_score"] > 0  # of the generated images alone
    assert (found["real"], found["samples"], found["network"]) == ("unknown", 30, "inception")
    notes = "\n".join(found["warnings"])
    assert "real.npz does not say how its features were made: it is taken for a file of pytorch-fid" in notes
    assert "mean and covariance give fid, isc, not mifid, kid, prdc, which need features" in notes
    small = jaxdog.score(place / "real_small.npz", place / "fake.npz", metrics="fid")
    np.testing.assert_allclose(small["fid768"], expected("mixed_7"), rtol=1e-4)
    assert "fid2048" not in small and "unknown" in score_table.table(small)


def test_the_generated_side_or_both_may_be_statistics(place):
    swapped = jaxdog.score(place / "fake.npz", place / "real.npz")
    np.testing.assert_allclose(swapped["fid2048"], expected("pool_3"), rtol=1e-4)
    (place / "stats.pkl").write_bytes(samples.stylegan_pickle(d=16))
    both = jaxdog.score(place / "real.npz", place / "stats.pkl")
    assert both["fid2048_pytorch"] > 0 and both["network"] == "inception_pytorch" and both["samples"] == 20
    both = jaxdog.score(place / "real.npz", place / "stats.pkl", network="inception")
    generated, _, _ = samples.moments(16)
    np.testing.assert_allclose(both["fid2048"], fid.frechet_exact(REAL["pool_3"], generated), rtol=1e-4)


@pytest.mark.parametrize("metric", ["mifid", "kid", "prdc", "copies", "per_class"])
def test_what_needs_features_is_an_error(metric, place):
    message = rf"{metric} cannot be computed: .* real.npz .pytorch-fid. has only the mean and the covariance "
    message += "of pool_3. Metrics that can be computed: fid, isc, fid_infinity"
    with pytest.raises(ValueError, match=message):
        jaxdog.score(place / "real.npz", place / "fake.npz", metrics=("fid", metric))


def test_the_weights_of_two_files_are_those_that_are_given(place, monkeypatch):
    """Nothing in the files tells, so that scores of other weights must not have the published names."""
    both = (place / "real.npz", place / "real.npz")
    assert "fid2048_pytorch" in jaxdog.score(*both)
    with pytest.raises(ValueError, match="No Inception weights at .*nowhere"):
        jaxdog.score(*both, weights=str(place / "nowhere"))
    with pytest.raises(ValueError, match="cannot be compared with features of random weights"):
        jaxdog.score(*both, weights="random")
    fitted = inception_weights.Weights({}, "fitted", "1" * 64, "a test")
    monkeypatch.setattr(score_files.networks, "load", lambda *_: fitted)
    found = jaxdog.score(*both, weights="fitted.npz")
    assert "fid2048_pytorch_approx" in found and "fid2048_pytorch" not in found
    assert (found["weights_kind"], found["weights_sha256"]) == ("fitted", "1" * 64)


@pytest.mark.parametrize("options", [{"metrics": "kid"}, {"metrics": "fid,copies"}, {"weights": "random"}])
def test_what_cannot_be_is_said_before_features_are_computed(options, place, monkeypatch):
    monkeypatch.setattr(score_files.networks, "load", lambda *_: pytest.fail("it goes on"))
    images = np.zeros((4, 8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="cannot be com(puted: both sides|pared with)"):
        jaxdog.score(place / "real.npz", images, **options)


def test_layers_that_differ_are_named(place):
    message = "of the same layer, .* real_small.npz .* covariance of mixed_7 and real.npz .* of pool_3"
    with pytest.raises(ValueError, match=message):
        jaxdog.score(place / "real_small.npz", place / "real.npz", network="inception", metrics="fid")


def test_half_a_file_of_statistics_is_named(place):
    np.savez(place / "half.npz", mu=np.zeros(16))
    with pytest.raises(ValueError, match="half.npz cannot be read as statistics.* it has no sigma"):
        jaxdog.score(place / "half.npz", place / "fake.npz")


def test_a_format_without_a_file_is_an_error(place):
    with pytest.raises(ValueError, match="save_as is 'pytorch-fid', but no file is to be saved"):
        jaxdog.score(place / "real.npz", place / "fake.npz", save_as="pytorch-fid")


def test_features_in_a_file_give_the_other_metrics(place):
    (place / "stats.pkl").write_bytes(samples.stylegan_pickle(d=16, all_features=True))
    found = jaxdog.score(place / "stats.pkl", place / "fake.npz", metrics=("mifid", "prdc"))
    assert {"fid2048", "mifid", "precision"} <= set(found) and found["real"] == 20
    assert any("taken for a file of StyleGAN" in note for note in found["warnings"])
    with pytest.raises(
        ValueError, match="does not have all features that .* would hold; --save-as pytorch-fid"
    ):
        jaxdog.score(
            place / "stats.pkl", place / "fake.npz", metrics="fid", save_real=str(place / "again.npz")
        )


def test_mifid_says_where_it_would_have_stood(place):
    found = jaxdog.score(place / "real_features.npz", place / "fake.npz", metrics="mifid")
    text = (
        "no place on the leaderboard of 2019: its real photos are all 20,579 of the competition, and these "
    )
    text += "are 40"
    assert found["leaderboard"] == {"rank": None, "text": f"{text} others"}
    assert f"\n\n{text} others" in score_table.table(found)
    assert "leaderboard" not in jaxdog.score(place / "real_features.npz", place / "fake.npz", metrics="fid")


def test_the_network_must_match(place):
    with pytest.raises(ValueError, match="statistics of 16 features, and the network nasnet has 4032"):
        jaxdog.score(place / "real.npz", place / "fake.npz", network="nasnet")
    np.savez(place / "early.npz", mu=np.zeros(192), sigma=np.eye(192))
    with pytest.raises(
        ValueError, match="early.npz has statistics of 192 features.*early layers of Inception"
    ):
        jaxdog.score(place / "early.npz", place / "fake.npz")
    with pytest.raises(ValueError, match="holds features of the fake images, so n cannot select"):
        jaxdog.score(place / "fake.npz", place / "real.npz", n=3)


def test_features_are_saved_as_pytorch_fid_saves_them(place):
    found = jaxdog.score(
        place / "real_features.npz",
        place / "fake.npz",
        metrics="fid",
        save_real=str(place / "mu_sigma.npz"),
        save_as="pytorch-fid",
    )
    assert any(
        "are of the network inception, and those of pytorch-fid are of" in x for x in found["warnings"]
    )
    with np.load(place / "mu_sigma.npz") as ours, np.load(place / "real.npz") as theirs:
        assert set(ours) == set(theirs)
        for name in theirs:
            np.testing.assert_allclose(ours[name], theirs[name], atol=1e-12)
    with pytest.raises(ValueError, match="save_as is 'torch'; choices: jaxdog, pytorch-fid"):
        jaxdog.score(place / "fake.npz", place / "fake.npz", save_as="torch")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"network": "nasnet"},
            "network is nasnet, but the real side is .* features of network inception: leave",
        ),
        ({"size": 64}, "size is 64x64, but the real side is a file of features of size 32x32"),
        ({"resampler": "box"}, "resampler is box, but the real side is a file of features of resampler none"),
        (
            {"weights": "random"},
            "weights is random, but the real side is a file of features of weights published",
        ),
    ],
)
def test_options_that_saved_features_contradict_are_an_error(options, message, place, monkeypatch):
    monkeypatch.setattr(score_files.networks, "load", lambda *_: pytest.fail("it goes on"))
    for fake in (place / "fake.npz", np.zeros((4, 8, 8, 3), np.uint8)):
        with pytest.raises(errors.UserError, match=message):
            jaxdog.score(place / "real_features.npz", fake, **options)


@pytest.mark.parametrize(
    ("saved", "side", "sha256", "message"),
    [
        ("real", 32, "1" * 64, "sha256 is 0+ .real. and 1+ .generated."),
        ("real", 8, "0" * 64, "size is 32x32 .real. and 8x8 .generated."),
        ("fake", 8, "1" * 64, "sha256 is 1+ .real. and 0+ .generated."),
    ],
)
def test_images_that_cannot_be_compared_are_found_before_their_features(
    saved, side, sha256, message, place, monkeypatch
):
    weights = inception_weights.Weights({}, "published", sha256, "a test")
    monkeypatch.setattr(score_files.networks, "load", lambda *_: weights)
    extractor = score_files.feature_extractor.FeatureExtractor
    monkeypatch.setattr(extractor, "extract_batches", lambda *_: pytest.fail("it goes on"))
    sides = [place / "real_features.npz", GENERATOR.integers(0, 256, (4, side, side, 3), np.uint8)]
    with pytest.raises(errors.UserError, match=f"cannot be compared: {message}"):
        jaxdog.score(*(sides if saved == "real" else sides[::-1]), cache_dir=str(place))


def test_too_few_images_for_a_metric_are_found_before_their_features(place, monkeypatch):
    monkeypatch.setattr(score_files.networks, "load", lambda *_: pytest.fail("it goes on"))
    images = np.zeros((19, 8, 8, 3), np.uint8)
    with pytest.raises(errors.UserError, match="are 19 generated images, and fid_infinity needs at least 20"):
        jaxdog.score(place / "real_features.npz", images, metrics="mifid,fid_infinity")


def test_options_that_do_nothing_are_among_the_warnings(place):
    sides = place / "real_features.npz", place / "fake.npz"
    found = jaxdog.score(*sides, metrics="fid", eps=0.2)["warnings"]
    assert "eps is 0.2, and has no effect without the metric mifid or per_class" in found
    assert not any("eps" in text for text in jaxdog.score(*sides, metrics="fid")["warnings"])
    spec = SPEC._replace(network="dinov2_small")
    for name, n in (("a", 12), ("b", 10)):
        features.save(place / f"{name}.npz", features.Features({"class_token": rows(n, 384)}, spec))
    found = jaxdog.score(place / "a.npz", place / "b.npz", metrics="mifid")
    assert "fd_dinov2_small" in found and "mifid" not in found
    assert any("no MiFID: the network dinov2_small has no threshold" in text for text in found["warnings"])
