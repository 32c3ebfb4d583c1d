"""The Inception Score against closed forms, scipy and torch-fidelity."""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog.metrics import features, inception_score
from tests import oracles


def compared(label: np.ndarray | None, logits: np.ndarray, warn: Any = pytest.fail) -> Any:
    """What `scores` uses of a comparison."""
    spec = features.FeatureSpec("inception", "published", "0", "64x64", "none", "test")
    fake = features.Features({features.LOGITS: logits}, spec, label, ())
    devices = SimpleNamespace(jitted=lambda function, count: lambda x, n: function(jnp.asarray(x), n))
    return SimpleNamespace(fake=fake, devices=devices, warn=warn, metric_name=lambda name: name)


LOGITS = np.random.default_rng(0).normal(size=(203, 50)).astype(np.float32) * 4


def official(logits: np.ndarray, splits: int) -> tuple[float, float]:
    """The definition, in float64."""
    p = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    scores = []
    for i in range(splits):
        part = p[i * len(p) // splits : (i + 1) * len(p) // splits]
        scores.append(np.exp(np.mean(np.sum(part * np.log(part / part.mean(0)[None, :]), axis=1))))
    return float(np.mean(scores)), float(np.std(scores))


@pytest.mark.parametrize("splits", [1, 7, 10])
def test_equals_the_definition(splits):
    found = jax.jit(inception_score.inception_score, static_argnums=1)(LOGITS, splits)
    np.testing.assert_allclose(found, official(LOGITS, splits), rtol=1e-5, atol=1e-6)


def test_confident_and_balanced_predictions_score_the_number_of_classes():
    sure = jnp.tile(60.0 * jnp.eye(12), (10, 1))
    np.testing.assert_allclose(inception_score.inception_score(sure, 10), (12, 0), atol=1e-4)
    one_class = jnp.zeros((20, 12)).at[:, 3].set(60.0)
    np.testing.assert_allclose(inception_score.inception_score(one_class, 2), (1, 0), atol=1e-6)


@pytest.mark.oracle
def test_equals_torch_fidelity():
    torch, metrics = oracles.torch_fidelity("metric_isc")
    theirs = metrics.isc_features_to_metric(torch.from_numpy(LOGITS), splits=10, shuffle=False)
    ours = inception_score.inception_score(jnp.asarray(LOGITS), 10)
    np.testing.assert_allclose(ours, tuple(theirs.values()), rtol=1e-5)


def test_images_sorted_by_class_are_shuffled():
    """In one folder per class, each of ten splits would have one of ten classes, and the score 1."""
    label = np.repeat(np.arange(10), 100).astype(np.int32)
    logits = 20.0 * np.eye(10, dtype=np.float32)[label]
    score = lambda label, rows: inception_score.scores(compared(label, rows))["inception_score"]  # noqa: E731
    assert score(label, logits) > 9.0
    order = np.random.default_rng(0).permutation(1000)
    for mixed in (label[order], None):  # the order of the images counts, as the splits are consecutive
        plain = inception_score.inception_score(jnp.asarray(logits[order])).mean
        assert score(mixed, logits[order]) == pytest.approx(float(plain))
    assert score(np.zeros(1000, np.int32), logits) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("count", [20, 29, 990, 1000])
def test_few_images_bound_the_score(count: int) -> None:
    """Sure predictions, of a class for each image: the score of a split is its number of images."""
    warnings: list[str] = []
    logits = 60.0 * np.eye(count, 1008, dtype=np.float32)
    found = inception_score.scores(compared(None, logits, warnings.append))
    assert found["inception_score"] == pytest.approx(count / 10, rel=1e-5)
    assert found["inception_score_std"] is not None
    assert [f"it is at most {count / 10:g}, the" in text for text in warnings] == [True] * (count < 1000)


@pytest.mark.parametrize("count", [3, 10, 15, 19])
def test_splits_of_one_image_have_no_spread(count: int) -> None:
    warnings: list[str] = []
    found = inception_score.scores(compared(None, np.zeros((count, 1008), np.float32), warnings.append))
    assert (
        found == {"inception_score": pytest.approx(1.0), "inception_score_std": None} and len(warnings) == 1
    )


def test_more_splits_than_images_is_an_error():
    with pytest.raises(ValueError, match="splits is 10, and must be from 1 to the number of images, 3"):
        inception_score.inception_score(jnp.zeros((3, 5)), 10)
