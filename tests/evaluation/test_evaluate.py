"""Evaluation against the same scores computed plainly in numpy, at any batch size and number of devices."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from jaxdog import sharding, types
from jaxdog.data import photos
from jaxdog.evaluation import evaluate
from jaxdog.metrics import features, fid
from jaxdog.metrics.backbones import inception_weights

REAL = np.random.default_rng(0).integers(0, 256, (7, 16, 16, 3), np.uint8)
LABEL = np.array([0, 1, 2, 0, 1], np.int32)
KEY = jax.random.key(3)


def sample(state: jax.Array, keys: jax.Array, label: jax.Array) -> jax.Array:
    """Noise whose mean depends on the breed and on the state."""
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
    over: Mesh,
    images: np.ndarray = REAL,
) -> evaluate.Evaluator:
    extractor = evaluate.Extractor("inception", network, over, batch_size)
    label = np.arange(len(images), dtype=np.int32) % 3
    whole = photos.Crops(images, label, label, np.full((len(label), 2), 64), label, (), ("a", "b", "c"), ())
    about = extractor.about("16x16", "lanczos", "noise")
    return evaluate.Evaluator(
        extractor, evaluate.real_side(extractor, lambda: whole, about, "noise", cache), over
    )


@pytest.fixture(scope="module")
def four(network: inception_weights.Weights, cache: pathlib.Path) -> evaluate.Evaluator:
    return make(network, cache, 4, sharding.mesh())


@pytest.fixture(scope="module")
def scores(four: evaluate.Evaluator) -> dict[str, Any]:
    return four.score_system(DRAWN, jnp.float32(0.1), KEY, LABEL)


def pictures(batch_size: int = 4) -> np.ndarray:
    return evaluate.generate(DRAWN, jnp.float32(0.1), KEY, LABEL, sharding.mesh(), batch_size)


def test_scores_equal_a_plain_computation(network: inception_weights.Weights, scores: dict[str, Any]) -> None:
    take = jax.jit(features.features)
    real, fake = (
        {name: np.asarray(x, np.float64) for name, x in take(network.params, images).items()}
        for images in (REAL, pictures())
    )
    for name, layer in (("rfid768", "mixed_7"), ("rfid2048", "pool_3")):
        np.testing.assert_allclose(scores[name], fid.frechet_exact(real[layer], fake[layer]), rtol=1e-3)
    unit = [x["pool_3"] / np.linalg.norm(x["pool_3"], axis=1, keepdims=True) for x in (fake, real)]
    distance = np.mean(np.min(1 - np.abs(unit[0] @ unit[1].T), axis=1))
    np.testing.assert_allclose(scores["memorization_distance"], distance, rtol=1e-3, atol=1e-6)
    expected = scores["rfid2048"] / (distance if distance < 0.1 else 1.0)
    np.testing.assert_allclose(scores["rmifid"], expected, rtol=1e-3)


def test_scores_tell_how_they_were_made(scores: dict[str, Any], network: inception_weights.Weights) -> None:
    assert (scores["samples"], scores["real"], scores["resampler"]) == (5, 7, "lanczos")
    assert scores["weights_sha256"] == network.sha256 and scores["weights_kind"] == "random"


def test_pictures_on_disk_score_like_pictures_in_graph(
    four: evaluate.Evaluator, scores: dict[str, Any]
) -> None:
    written = four.score_images(pictures(), LABEL)
    for name in ("rfid768", "rfid2048", "memorization_distance"):
        np.testing.assert_allclose(written[name], scores[name], rtol=1e-5)


def test_one_device_and_another_batch_size_change_nothing(
    network: inception_weights.Weights, cache: pathlib.Path, scores: dict[str, Any]
) -> None:
    alone = make(network, cache, 3, Mesh(np.array(jax.devices()[:1]), ("data",)))
    other = alone.score_system(DRAWN, jnp.float32(0.1), KEY, LABEL)
    for name in ("rfid768", "rfid2048", "memorization_distance"):  # the last: 1 - a cosine, both float32
        np.testing.assert_allclose(other[name], scores[name], rtol=1e-5, atol=np.finfo(np.float32).eps)


@pytest.mark.parametrize("n, passes", [(6, [2, 2, 2]), (5, [5]), (2, [2]), (1, [1])])
def test_drawn_pictures_are_looked_at_a_few_at_a_time(
    network: inception_weights.Weights, n: int, passes: list[int]
) -> None:
    """On CPUs, where that is fast; a rest would be another program."""
    alone = Mesh(np.array(jax.devices()[:1]), ("data",))
    extractor, seen = evaluate.Extractor("inception", network, alone, 2), []

    def looked(_: Any, x: jax.Array) -> dict[str, jax.Array]:
        seen.append(len(x))
        return {"features": x}

    extractor._features = looked
    drawn = jnp.arange(n * 12, dtype=jnp.uint8).reshape(n, 2, 2, 3)
    found = np.concatenate([part["features"] for part in extractor._of_drawn(drawn)])
    assert seen == passes
    np.testing.assert_array_equal(found, drawn)


def test_pictures_do_not_depend_on_the_batch_size() -> None:
    np.testing.assert_array_equal(pictures(4), pictures(8))
    assert len(pictures()) == len(LABEL) and pictures().dtype == np.uint8


def test_real_side_is_read_from_its_cache(
    network: inception_weights.Weights, cache: pathlib.Path, four: evaluate.Evaluator
) -> None:
    """Same key, other pictures: what comes back is what the first evaluator kept."""
    again = make(network, cache, 4, sharding.mesh(), images=np.zeros_like(REAL))
    np.testing.assert_array_equal(again.real.found["pool_3"], four.real.found["pool_3"])
    assert again.real.breeds == ("a", "b", "c")


def test_rows_come_in_blocks_of_one_size_and_all_of_them() -> None:
    rows = list(evaluate.blocks(7, 3))
    assert [x.tolist() for x in rows] == [[0, 1, 2], [3, 4, 5], [6, 6, 6]]


def test_weights_with_a_classifier_give_the_inception_score(
    network: inception_weights.Weights, cache: pathlib.Path
) -> None:
    """From pictures to the score of the logits without bias; the real side keeps none."""
    generator = np.random.default_rng(0)
    kernel = generator.normal(size=(2048, 1008)).astype(np.float32) * 0.01
    head = {"weights": kernel, "biases": 100 * generator.normal(size=1008).astype(np.float32)}
    whole = network._replace(params={**network.params, "softmax": head}, sha256="with a head")
    evaluator = make(whole, cache, 4, sharding.mesh())
    fake = evaluator.features_of(pictures(), LABEL)
    assert features.LOGITS not in evaluator.real.found
    logits = fake.found["pool_3"].astype(np.float64) @ kernel
    np.testing.assert_allclose(
        fake.found[features.LOGITS], logits, rtol=1e-3, atol=1e-3 * np.abs(logits).max()
    )
    scores = evaluator.score(fake, ("is",))
    np.testing.assert_allclose(scores["rinception_score"], 1, rtol=1e-4)  # five splits of one picture each
    assert "5 splits, one for each picture" in scores["warnings"][1]


def flat(state: jax.Array, keys: jax.Array, label: jax.Array) -> jax.Array:
    """Noise less the mean of its batch, none for the breeds up to `state`."""
    assert keys.shape == label.shape == (1,)  # so that the mean is one picture's
    noise = jax.vmap(lambda key: jax.random.normal(key, (8, 8, 3)))(keys)
    noise = noise - noise.mean((0, 1, 2), keepdims=True) + 0.1 * state
    return jnp.where((label > state)[:, None, None, None], noise, 0.5)


@pytest.mark.parametrize(("upto", "found"), [(-1, ()), (1, (0, 1)), (4, ())])
def test_breeds_whose_pictures_are_alike_are_found_unless_all_are(upto: int, found: tuple[int, ...]) -> None:
    drawn = types.System(DRAWN.init, DRAWN.step, flat)
    assert evaluate.alike(drawn, jnp.int32(upto), KEY, 5, sharding.mesh()) == found


def test_pictures_are_alike_in_the_state_that_they_are_drawn_from() -> None:
    drawn = types.System(DRAWN.init, DRAWN.step, flat, lambda state, key: state + 2)
    assert evaluate.alike(drawn, jnp.int32(-1), KEY, 5, sharding.mesh()) == (0, 1)
