"""Evaluation against the same scores computed plainly in numpy, at any batch size and number of devices."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from jaxdog import sharding, types
from jaxdog.evaluation import evaluate, feature_extractor, generation, metric_suite
from jaxdog.metrics import features, fid
from jaxdog.metrics.backbones import inception_weights

REAL = np.random.default_rng(0).integers(0, 256, (7, 16, 16, 3), np.uint8)
LABEL = np.array([0, 1, 2, 0, 1], np.int32)
KEY = jax.random.key(3)


def sample(state: jax.Array, keys: jax.Array, label: jax.Array) -> jax.Array:
    """Noise whose mean depends on the class and on the state."""
    noise = jax.vmap(lambda key: jax.random.uniform(key, (16, 16, 3), minval=-0.5, maxval=0.5))(keys)
    return noise + state + 0.1 * label[:, None, None, None]


DRAWN = types.System(lambda *_: None, lambda *_: (None, {}), sample)


@pytest.fixture(scope="module")
def network() -> inception_weights.Weights:
    return inception_weights.random()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("features")


def make(
    network: inception_weights.Weights,
    cache: pathlib.Path,
    batch_size: int,
    mesh: Mesh,
    images: np.ndarray = REAL,
) -> evaluate.Evaluator:
    extractor = feature_extractor.FeatureExtractor("inception", network, mesh, batch_size)
    label = np.arange(len(images), dtype=np.int32) % 3
    spec = extractor.spec("16x16", "lanczos", "noise")

    def compute() -> features.Features:
        return features.Features(extractor.extract(images), spec, label, ("a", "b", "c"))

    path = features.cache_path(cache, "noise", spec)
    return evaluate.Evaluator(extractor, feature_extractor.cached(path, compute), mesh)


@pytest.fixture(scope="module")
def four(network: inception_weights.Weights, cache: pathlib.Path) -> evaluate.Evaluator:
    return make(network, cache, 4, sharding.make_mesh())


@pytest.fixture(scope="module")
def scores(four: evaluate.Evaluator) -> dict[str, Any]:
    return four.score_system(DRAWN, jnp.float32(0.1), KEY, LABEL)


def samples(batch_size: int = 4) -> np.ndarray:
    return generation.generate(DRAWN, jnp.float32(0.1), KEY, LABEL, sharding.make_mesh(), batch_size)


@pytest.mark.long
def test_scores_equal_a_plain_computation(network: inception_weights.Weights, scores: dict[str, Any]) -> None:
    take = jax.jit(features.inception_features)
    real, fake = (
        {name: np.asarray(x, np.float64) for name, x in take(network.params, images).items()}
        for images in (REAL, samples())
    )
    for name, layer in (("random_fid768", "mixed_7"), ("random_fid2048", "pool_3")):
        np.testing.assert_allclose(scores[name], fid.frechet_exact(real[layer], fake[layer]), rtol=1e-3)
    unit = [x["pool_3"] / np.linalg.norm(x["pool_3"], axis=1, keepdims=True) for x in (fake, real)]
    distance = np.mean(np.min(1 - np.abs(unit[0] @ unit[1].T), axis=1))
    np.testing.assert_allclose(scores["memorization_distance"], distance, rtol=1e-3, atol=1e-6)
    # Random weights have no threshold.
    np.testing.assert_allclose(scores["random_mifid"], scores["random_fid2048"], rtol=1e-6)


def test_scores_include_their_origin(scores: dict[str, Any], network: inception_weights.Weights) -> None:
    assert (scores["samples"], scores["real"], scores["resampler"]) == (5, 7, "lanczos")
    assert scores["weights_sha256"] == network.sha256 and scores["weights_kind"] == "random"


def test_images_on_disk_score_like_images_in_graph(four: evaluate.Evaluator, scores: dict[str, Any]) -> None:
    written = four.score_images(samples(), LABEL)
    for name in ("random_fid768", "random_fid2048", "memorization_distance"):
        np.testing.assert_allclose(written[name], scores[name], rtol=1e-5)


@pytest.mark.long
def test_one_device_and_another_batch_size_change_nothing(
    network: inception_weights.Weights, cache: pathlib.Path, scores: dict[str, Any]
) -> None:
    alone = make(network, cache, 3, Mesh(np.array(jax.devices()[:1]), ("data",)))
    other = alone.score_system(DRAWN, jnp.float32(0.1), KEY, LABEL)
    for name in ("random_fid768", "random_fid2048", "memorization_distance"):
        # The distance is 1 - cosine. A cosine near 1 is rounded at least three times (two norms, a product),
        # by eps / 2 each, in both computations.
        np.testing.assert_allclose(other[name], scores[name], rtol=1e-5, atol=3 * np.finfo(np.float32).eps)


@pytest.mark.parametrize("n, passes", [(6, [2, 2, 2]), (5, [5]), (2, [2]), (1, [1])])
def test_generated_images_pass_the_network_in_chunks(
    network: inception_weights.Weights, n: int, passes: list[int]
) -> None:
    """On CPUs, where that is fast; a rest would be another program."""
    alone = Mesh(np.array(jax.devices()[:1]), ("data",))
    extractor, seen = feature_extractor.FeatureExtractor("inception", network, alone, 2), []

    def looked(_: Any, x: jax.Array) -> dict[str, jax.Array]:
        seen.append(len(x))
        return {"pool_3": x}

    extractor._features = looked
    drawn = jnp.arange(n * 12, dtype=jnp.uint8).reshape(n, 2, 2, 3)
    found = np.concatenate([part["pool_3"] for part in extractor._forward_in_chunks(drawn)])
    assert seen == passes
    np.testing.assert_array_equal(found, drawn)


@pytest.mark.parametrize("n, lines", [(12, 2), (4, 1), (3, 0)])
def test_the_cost_of_many_features_is_told_once(
    network: inception_weights.Weights, n: int, lines: int, monkeypatch: Any, caplog: Any
) -> None:
    """FLOPs before the first batch, seconds after the second one, if there are as many."""
    monkeypatch.setattr(feature_extractor, "LONG", 4 * features.NETWORKS["inception"].flops)
    caplog.set_level("INFO", logger="jaxdog")
    alone = Mesh(np.array(jax.devices()[:1]), ("data",))
    extractor = feature_extractor.FeatureExtractor("inception", network, alone, 4)
    seen: list[int] = []

    def looked(_: Any, x: jax.Array) -> dict[str, jax.Array]:
        seen.append(len(caplog.messages))
        return {"pool_3": x}

    extractor._features = looked
    drawn = np.arange(n * 12, dtype=np.uint8).reshape(n, 2, 2, 3)
    for _ in range(2):
        np.testing.assert_array_equal(extractor.extract(drawn)["pool_3"], drawn)
    assert len(caplog.messages) == lines and seen[0] == min(lines, 1)
    if lines == 2:
        assert (
            caplog.messages[0] == "features of 12 images by inception: 11.1 GFLOPs each, 0.133 TFLOPs in all"
        )
        assert "s per image on this CPU" in caplog.messages[1]


def test_images_do_not_depend_on_the_batch_size() -> None:
    np.testing.assert_array_equal(samples(4), samples(8))
    assert len(samples()) == len(LABEL) and samples().dtype == np.uint8


def test_real_side_is_read_from_its_cache(
    network: inception_weights.Weights, cache: pathlib.Path, four: evaluate.Evaluator
) -> None:
    """Same key, other images: what comes back is what the first evaluator kept."""
    again = make(network, cache, 4, sharding.make_mesh(), images=np.zeros_like(REAL))
    np.testing.assert_array_equal(again.real.layers["pool_3"], four.real.layers["pool_3"])
    assert again.real.class_names == ("a", "b", "c")


@pytest.mark.long
def test_weights_with_a_classifier_give_the_inception_score(
    network: inception_weights.Weights, cache: pathlib.Path
) -> None:
    """From images to the score of the logits without bias; the real side keeps none."""
    generator = np.random.default_rng(0)
    kernel = generator.normal(size=(2048, 1008)).astype(np.float32) * 0.01
    head = {"weights": kernel, "biases": 100 * generator.normal(size=1008).astype(np.float32)}
    whole = network._replace(params={**network.params, "softmax": head}, sha256="with a head")
    evaluator = make(whole, cache, 4, sharding.make_mesh())
    fake = evaluator.features_of(samples(), LABEL)
    assert features.LOGITS not in evaluator.real.layers
    logits = fake.layers["pool_3"].astype(np.float64) @ kernel
    np.testing.assert_allclose(
        fake.layers[features.LOGITS], logits, rtol=1e-3, atol=1e-3 * np.abs(logits).max()
    )
    scores = evaluator.score(fake, ("isc",))
    np.testing.assert_allclose(scores["random_inception_score"], 1, rtol=1e-4)
    assert "5 splits of one image each" in scores["warnings"][1]


def flat(state: jax.Array, keys: jax.Array, label: jax.Array) -> jax.Array:
    """Noise less the mean of its batch, none for the classes up to `state`."""
    assert keys.shape == label.shape == (1,)  # so that the mean is one image's
    noise = jax.vmap(lambda key: jax.random.normal(key, (8, 8, 3)))(keys)
    noise = noise - noise.mean((0, 1, 2), keepdims=True) + 0.1 * state
    return jnp.where((label > state)[:, None, None, None], noise, 0.5)


@pytest.mark.parametrize(("upto", "found"), [(-1, ()), (1, (0, 1)), (4, ())])
def test_collapsed_classes_are_found_unless_all_are(upto: int, found: tuple[int, ...]) -> None:
    drawn = types.System(DRAWN.init, DRAWN.step, flat)
    assert generation.collapsed_classes(drawn, jnp.int32(upto), KEY, 5, sharding.make_mesh()) == found


def test_classes_collapse_in_the_prepared_state() -> None:
    drawn = types.System(DRAWN.init, DRAWN.step, flat, lambda state, key: state + 2)
    assert generation.collapsed_classes(drawn, jnp.int32(-1), KEY, 5, sharding.make_mesh()) == (0, 1)


def test_scores_of_two_networks_are_one_line() -> None:
    """Names that both have get the suffix of the other network; nothing of Inception's changes."""
    ours = {
        **{
            "fid2048": 1.0,
            "mifid": 2.0,
            "memorization_distance": 0.3,
            "per_class": {"pug": {"fid2048": 4.0}},
        },
        **{"warnings": ("few images",), "samples": 5, "real": 7, "resampler": "lanczos"},
        **{"network": "inception", "weights_kind": "published", "weights_sha256": "a"},
    }
    theirs = {
        **{"fd_dinov2_other": 5.0, "precision_dinov2_other": 0.5, "memorization_distance": 0.6},
        **{"val_fd_dinov2_other": 7.0, "val_memorization_distance": 0.7},
        "per_class": {"pug": {"fd_dinov2_other": 6.0, "memorization_distance": 0.1}},
        **{"warnings": ("few images", "too similar"), "samples": 5, "real": 7, "resampler": "lanczos"},
        **{"network": "dinov2", "weights_kind": "other", "weights_sha256": "b"},
    }
    merged = evaluate.merge(ours, theirs)
    assert {name: merged[name] for name in ours if name not in ("warnings", "per_class")} == {
        name: x for name, x in ours.items() if name not in ("warnings", "per_class")
    }
    assert {name: x for name, x in merged.items() if name not in ours} == {
        **{"fd_dinov2_other": 5.0, "precision_dinov2_other": 0.5, "memorization_distance_dinov2": 0.6},
        **{"val_fd_dinov2_other": 7.0, "val_memorization_distance_dinov2": 0.7},
        **{"weights_kind_dinov2": "other", "weights_sha256_dinov2": "b"},
    }
    assert merged["per_class"] == {
        "pug": {"fid2048": 4.0, "fd_dinov2_other": 6.0, "memorization_distance_dinov2": 0.1}
    }
    assert merged["warnings"] == ("few images", "dinov2: too similar")
    assert features.other_distances(merged) == ("fd_dinov2_other",)
    assert evaluate.metrics_of("dinov2", ("mifid", "isc", "prdc")) == ("mifid", "prdc")
    assert evaluate.metrics_of("inception", ("mifid", "isc")) == ("mifid", "isc")


def test_warnings_of_held_out_photos_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Suite:
        def __init__(self, real: features.Features, *_: Any):
            self.count = real.count

        def scores(self, *_: Any) -> metric_suite.Result:
            return metric_suite.Result({"mifid": 1.0}, {}, ("too similar", f"{self.count} real images"))

    monkeypatch.setattr(metric_suite, "MetricSuite", Suite)
    spec = features.FeatureSpec("inception", "random", "0", "8x8", "none", "noise")
    side = features.Features({"pool_3": np.zeros((4, 2), np.float32)}, spec)
    extractor: Any = None
    held_out = np.array([True, False, True, False])
    found = evaluate.Evaluator(extractor, side, sharding.make_mesh(), held_out=held_out).score(side)
    assert found["warnings"] == ("too similar", "4 real images", "held-out photos: 2 real images")
