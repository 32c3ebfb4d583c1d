"""Every score of one set of features against another: on any devices, in any order, and in odd cases."""

from collections.abc import Iterator
from functools import partial

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from jaxdog import sharding
from jaxdog.evaluation import batching, metric_suite
from jaxdog.metrics import comparison, features, fid, kid, metric_table, mifid
from jaxdog.utils import errors

SPEC = features.FeatureSpec("inception", "published", "a" * 64, "64x64", "lanczos", "real dogs")
ALL = tuple(metric_table.METRICS)


def side(seed: int, n: int, shift: float = 0.0, source: str = "samples") -> features.Features:
    """Features like the network's: not negative, most of their spread in few directions."""
    generator = np.random.default_rng(seed)
    layers = {}
    for name, d in (("mixed_7", 768), ("pool_3", 2048), (features.LOGITS, 1008)):
        basis = np.random.default_rng(7).normal(size=(20, d))
        rows = generator.normal(size=(n, 20)) @ basis * 0.04 + 0.4 + shift
        layers[name] = (rows if name == features.LOGITS else np.maximum(rows, 0)).astype(np.float32)
    label = generator.permutation(np.arange(n, dtype=np.int32) % 3)
    spec = SPEC._replace(resampler="none", source=source)
    return features.Features(layers, spec, label, ("pug", "collie", "boxer"))


REAL, FAKE = side(0, 61)._replace(spec=SPEC), side(1, 45, shift=0.05)


def assert_close(score, expected, name):
    """Equal up to rounding, or both undefined (None)."""
    found, wanted = np.asarray(score, float), np.asarray(expected, float)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.fixture(scope="module")
def suite() -> metric_suite.MetricSuite:
    return metric_suite.MetricSuite(REAL, sharding.make_mesh())


@pytest.fixture(scope="module")
def result(suite: metric_suite.MetricSuite) -> metric_suite.Result:
    return suite.scores(FAKE, ALL)


@pytest.mark.long
def test_every_metric_is_a_plain_float_under_its_name(result, suite):
    assert set(result.scores) == {
        *("fid768", "fid2048", "mifid", "memorization_distance", "inception_score", "inception_score_std"),
        *("kid", "kid_std", "precision", "recall", "density", "coverage", "fid_infinity"),
    }
    assert all(type(x) is float for name, x in result.scores.items() if name != "kid_std")
    assert set(metric_table.METRICS) == {
        *("fid", "mifid", "isc", "kid", "prdc", "fid_infinity", "per_class"),
        "copies",
    }


@pytest.mark.long
def test_scores_are_those_of_their_layers(result):
    for name, layer in (("fid768", "mixed_7"), ("fid2048", "pool_3")):
        expected = fid.frechet_exact(REAL.layers[layer], FAKE.layers[layer])
        np.testing.assert_allclose(result.scores[name], expected, rtol=1e-4)
    near = mifid.memorization_distance(FAKE.layers["pool_3"], REAL.layers["pool_3"])
    np.testing.assert_allclose(result.scores["memorization_distance"], near, rtol=1e-4)
    assert near < 0.1 and result.scores["mifid"] > 10 * result.scores["fid2048"]


def test_each_class_has_its_scores(result):
    assert list(result.per_class) == ["pug", "collie", "boxer"]
    rows = [x.layers["pool_3"][x.label == 1] for x in (REAL, FAKE)]
    np.testing.assert_allclose(result.per_class["collie"]["fid2048"], fid.frechet_exact(*rows), rtol=1e-4)


@pytest.mark.long
def test_devices_padding_and_order_change_nothing(result):
    """45 rows on 4 devices are padded to 48; on one device they are not, and here they come backwards."""
    alone = metric_suite.MetricSuite(REAL, Mesh(np.array(jax.devices()[:1]), ("data",)))
    backwards = FAKE._replace(
        layers={name: x[::-1] for name, x in FAKE.layers.items()}, label=FAKE.label[::-1]
    )
    metrics = ("mifid", "prdc", "per_class")
    other = alone.scores(backwards, metrics)
    for name, x in other.scores.items():
        assert_close(x, result.scores[name], name)
    in_order = alone.scores(FAKE, ALL)
    for name, x in in_order.scores.items():
        assert_close(x, result.scores[name], name)


@pytest.mark.long
def test_matrices_may_be_factored_elsewhere(result, monkeypatch):
    """As where the devices are TPUs; the other scores stay on these."""
    host = Mesh(np.array(jax.devices()[2:3]), ("data",))
    monkeypatch.setattr(sharding, "factorization_mesh", lambda mesh: host)
    solved = metric_suite.MetricSuite(REAL, sharding.make_mesh())
    found = solved.scores(FAKE, ALL)
    factor = solved.real.derived("factor_pool_3", dict, dict)
    assert factor.r.sharding.mesh == host and solved.real.rows.x.sharding.mesh == sharding.make_mesh()
    assert found.scores.keys() == result.scores.keys() and found.per_class.keys() == result.per_class.keys()
    for name, score in result.scores.items():
        assert_close(found.scores[name], score, name)


@pytest.mark.long
def test_what_is_made_of_the_real_side_alone_is_kept_beside_it(tmp_path, result, caplog):
    """Made by one device, read by four; what is kept is used, and made again where it is damaged."""
    real, metrics = REAL._replace(file=tmp_path / "features-0.npz"), ("mifid", "prdc")
    metric_suite.MetricSuite(real, Mesh(np.array(jax.devices()[:1]), ("data",))).scores(FAKE, metrics)
    factors, radii = [f"features-0.factor_{x}.npz" for x in ("mixed_7", "pool_3")], "features-0.radius_3.npz"
    assert sorted(path.name for path in tmp_path.iterdir()) == [*factors, radii]
    again = metric_suite.MetricSuite(real, sharding.make_mesh()).scores(FAKE, metrics)
    for name, x in again.scores.items():
        assert_close(x, result.scores[name], name)

    np.savez(tmp_path / radii, radius=np.full(REAL.count, 1e3, np.float32))
    assert metric_suite.MetricSuite(real, sharding.make_mesh()).scores(FAKE, metrics).scores["density"] > 10
    (tmp_path / radii).write_bytes((tmp_path / radii).read_bytes()[:-40])
    mended = metric_suite.MetricSuite(real, sharding.make_mesh()).scores(FAKE, metrics)
    assert f"{radii} is damaged" in caplog.text
    np.testing.assert_allclose(mended.scores["density"], result.scores["density"], rtol=1e-5)


def test_copies_of_the_real_side_never_win(suite):
    found = suite.scores(REAL._replace(spec=FAKE.spec), ("mifid", "prdc"))
    assert found.scores["fid2048"] < 1e-3 and found.scores["memorization_distance"] < 1e-6
    assert found.scores["mifid"] > 10 and found.scores["precision"] == 1
    assert any("too similar to real ones" in warning for warning in found.warnings)


def test_random_weights_judge_no_distance():
    """Theirs are tiny for any images, so every first run would look like copies."""
    sides = [x._replace(spec=x.spec._replace(kind="random")) for x in (REAL, FAKE)]
    found = metric_suite.MetricSuite(sides[0], sharding.make_mesh(), eps=0.5).scores(
        sides[1], ("mifid", "per_class")
    )
    assert found.scores["memorization_distance"] < 0.1
    np.testing.assert_allclose(found.scores["random_mifid"], found.scores["random_fid2048"], rtol=1e-6)
    for row in found.per_class.values():
        np.testing.assert_allclose(row["random_mifid"], row["random_fid2048"], rtol=1e-6)
    text = "; ".join(found.warnings)
    assert "says nothing about copies" in text and "too similar" not in text and "is below" not in text


@pytest.mark.parametrize(
    "size, real, fake, subsets", [(9, 9, 9, 1), (9, 30, 9, 100), (9, 9, 30, 100), (20, 61, 39, 100)]
)
def test_kid_has_no_spread_where_subsets_share_most_of_a_side(size, real, fake, subsets, monkeypatch):
    monkeypatch.setattr(kid, "SUBSET_SIZE", min(size + 1, 20))
    drawn = []
    draw = kid.draw
    monkeypatch.setattr(kid, "draw", lambda *args: drawn.append(draw(*args)) or drawn[-1])
    sides = [features.select(REAL, np.arange(real)), features.select(FAKE, np.arange(fake))]
    found = metric_suite.MetricSuite(sides[0], sharding.make_mesh()).scores(sides[1], ("kid",))
    assert found.scores["kid_std"] is None and np.isfinite(found.scores["kid"])
    assert drawn[0].fake.shape == (subsets, size)
    assert any("KID has no standard deviation" in x for x in found.warnings)


def test_kid_has_a_spread_where_subsets_are_parts_of_both_sides(monkeypatch):
    monkeypatch.setattr(kid, "SUBSET_SIZE", 20)
    found = metric_suite.MetricSuite(REAL, sharding.make_mesh()).scores(FAKE, ("kid",))
    assert found.scores["kid_std"] > 1e-4 and not any("standard deviation" in x for x in found.warnings)


@pytest.mark.parametrize("n", [2, 3, 9])
def test_few_images_have_scores_and_warnings(suite, n):
    few = FAKE._replace(layers={name: x[:n] for name, x in FAKE.layers.items()}, label=FAKE.label[:n])
    found = suite.scores(few, ("mifid", "isc", "kid", "prdc", "per_class"))
    assert found.scores.pop("kid_std") is found.scores.pop("inception_score_std") is None
    assert any(f"each subset of {n} images holds all of 61 real or {n} gen" in x for x in found.warnings)
    assert all(np.isfinite(x) for x in found.scores.values())
    assert found.warnings[0].endswith(f"there are {n} generated images and 61 real images")
    assert any("subsets of" in warning for warning in found.warnings)
    assert all(x is None or np.isfinite(x) for row in found.per_class.values() for x in row.values())


def test_one_image_over_and_over(suite):
    found = {name: np.repeat(x[:1], 30, axis=0) for name, x in FAKE.layers.items()}
    scores = suite.scores(FAKE._replace(layers=found, label=None), ("mifid", "isc", "kid", "prdc")).scores
    assert scores.pop("kid_std") is None
    assert all(np.isfinite(x) for x in scores.values())
    np.testing.assert_allclose(scores["inception_score"], 1, rtol=1e-4)
    spread = np.trace(np.cov(REAL.layers["pool_3"].astype(np.float64), rowvar=False))
    gap = np.square(REAL.layers["pool_3"].mean(0) - found["pool_3"][0]).sum()
    np.testing.assert_allclose(scores["fid2048"], spread + gap, rtol=1e-4)


def test_features_of_zero_have_no_distance(suite):
    zero = {name: np.zeros_like(x) for name, x in FAKE.layers.items()}
    found = suite.scores(FAKE._replace(layers=zero))
    assert found.scores["mifid"] is None and found.scores["fid2048"] > 0
    assert any("all features of a side are zero" in warning for warning in found.warnings)


def test_what_cannot_be_scored_is_an_error_or_a_warning(suite):
    with pytest.raises(ValueError, match="'fids' is not a metric; choices: fid, mifid, isc, kid"):
        suite.scores(FAKE, ("fids",))
    with pytest.raises(ValueError, match="samples has 1 images; metrics need at least 2"):
        suite.scores(FAKE._replace(layers={name: x[:1] for name, x in FAKE.layers.items()}))
    with pytest.raises(ValueError, match="size is 64x64 .real. and 32x32"):
        suite.scores(FAKE._replace(spec=FAKE.spec._replace(size="32x32")))
    without = {name: x for name, x in FAKE.layers.items() if name != features.LOGITS}
    found = suite.scores(FAKE._replace(layers=without, class_names=()), ("isc", "per_class"))
    assert found.scores == {} and found.per_class == {}
    assert (
        "weights with a classifier" in found.warnings[1] and "labels of the same classes" in found.warnings[2]
    )


@pytest.mark.parametrize("network, width", [("dinov2", 1024), ("dinov2_small", 384)])
def test_dinov2_has_no_mifid(network, width):
    """No threshold on its distances is known; `eps` gives one."""
    generator = np.random.default_rng(0)
    spec, breeds = SPEC._replace(network=network), ("pug", "collie")
    real, fake = (
        features.Features({"class_token": generator.uniform(size=(n, width)).astype(np.float32)}, spec, label)
        for n, label in ((12, np.arange(12) % 2), (10, np.arange(10) % 2))
    )
    sides = [side._replace(class_names=breeds) for side in (real, fake)]
    found = metric_suite.MetricSuite(sides[0], sharding.make_mesh()).scores(
        sides[1], ("mifid", "prdc", "per_class")
    )
    prdc = {f"{name}_{network}" for name in ("precision", "recall", "density", "coverage")}
    assert set(found.scores) == {f"fd_{network}", "memorization_distance", *prdc}
    assert set(found.per_class["pug"]) == {f"fd_{network}", "memorization_distance"}
    expected = fid.frechet_exact(real.layers["class_token"], fake.layers["class_token"])
    np.testing.assert_allclose(found.scores[f"fd_{network}"], expected, rtol=1e-4)
    given = metric_suite.MetricSuite(sides[0], sharding.make_mesh(), eps=1.0).scores(sides[1])
    assert given.scores[f"mifid_{network}"] > found.scores[f"fd_{network}"]
    random = [side._replace(spec=spec._replace(kind="random")) for side in sides]
    found = metric_suite.MetricSuite(random[0], sharding.make_mesh()).scores(random[1])
    assert set(found.scores) == {f"random_fd_{network}", "memorization_distance"}


def test_the_private_networks_scores_have_its_name_and_threshold():
    generator = np.random.default_rng(0)
    rows = [{"final_mean": generator.uniform(size=(n, 4032)).astype(np.float32)} for n in (12, 10)]
    spec = SPEC._replace(network="nasnet")
    label, breeds = np.arange(10) % 2, ("pug", "collie")
    real = features.Features(rows[0], spec, np.arange(12) % 2, breeds)
    suite = metric_suite.MetricSuite(real, sharding.make_mesh())
    found = suite.scores(features.Features(rows[1], spec, label, breeds), ("mifid", "kid", "per_class"))
    names = {"fid_nasnet", "mifid_nasnet", "memorization_distance", "kid_nasnet", "kid_std_nasnet"}
    assert set(found.scores) == names and "fid_nasnet" in found.per_class["pug"]
    near = found.scores["memorization_distance"]
    assert 0.1 < near < 0.25  # penalized here, and not on the public leaderboard
    np.testing.assert_allclose(found.scores["mifid_nasnet"], found.scores["fid_nasnet"] / near, rtol=1e-5)


def test_every_row_of_the_table_has_its_function() -> None:
    """The table names functions as text; what they need has an explanation."""
    for name, metric in metric_table.METRICS.items():
        assert (metric.function() is None) == (name == "copies")
        assert metric.needs in metric_table.NEEDS
        assert comparison.available(metric.needs, REAL, FAKE, comparison.Images()) == (name != "copies")


def test_metrics_see_images_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call begins anew; without images, or where they cannot be read, there is a warning."""
    seen: list[tuple[int, ...]] = []

    def scores(compared: comparison.Comparison) -> comparison.Scores:
        assert compared.images.real is not None and compared.images.fake is not None
        for stream in (compared.images.real, compared.images.fake, compared.images.fake):
            seen.extend(batch.shape for batch in stream())
        return {"seen": float(len(seen))}

    def gone() -> Iterator[np.ndarray]:
        raise errors.UserError("photos/ does not exist")

    monkeypatch.setitem(metric_table.METRICS, "pixels", metric_table.Metric(scores, needs="images"))
    pixels = np.zeros((5, 8, 8, 3), np.uint8)
    stream = partial(batching.slices, pixels, 2)
    pair = metric_suite.MetricSuite(REAL, sharding.make_mesh())
    found = pair.scores(FAKE, ("pixels",), comparison.Images(stream, stream))
    assert found.scores == {"seen": 9.0} and seen[:3] == [(2, 8, 8, 3), (2, 8, 8, 3), (1, 8, 8, 3)]
    found = pair.scores(FAKE, ("pixels",), comparison.Images(None, stream))
    assert found.scores == {} and "no pixels: both sides must be images, not features" in found.warnings
    found = pair.scores(FAKE, ("pixels",), comparison.Images(gone, stream))
    assert "no pixels: the photos cannot be read (photos/ does not exist)" in found.warnings
