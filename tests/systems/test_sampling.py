"""Latents against their distributions, labels against their counts, uint8 against all 256 levels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxdog.systems import sampling

KEY = jax.random.key(7)


def draw(n: int, dim: int, truncation: float, method: str) -> np.ndarray:
    return np.asarray(sampling.latent(sampling.image_keys(KEY, n), dim, truncation, method))


def test_keys_depend_on_the_index_only():
    keys = sampling.image_keys(KEY, 6)
    some = sampling.image_keys(KEY, jnp.array([4, 1]))
    assert (jax.random.key_data(some) == jax.random.key_data(keys)[jnp.array([4, 1])]).all()
    assert len(np.unique(np.asarray(jax.random.key_data(keys)), axis=0)) == 6


@pytest.mark.parametrize("method", sampling.TRUNCATION_METHODS)
def test_a_latent_is_the_same_at_any_batch_size(method):
    together = draw(12, 5, 0.6, method)
    keys = sampling.image_keys(KEY, jnp.arange(7, 10))
    np.testing.assert_array_equal(sampling.latent(keys, 5, 0.6, method), together[7:10])


def test_untruncated_latents_are_normal():
    z = draw(100, 200, 0.0, "resample")
    assert z.shape == (100, 200) and z.dtype == np.float32
    assert scipy.stats.kstest(z.ravel(), "norm").pvalue > 1e-3


@pytest.mark.parametrize("method", ["resample", "truncnorm"])
@pytest.mark.parametrize("t", [0.1, 0.5, 2.0])
def test_resampling_and_truncnorm_are_the_truncated_normal(method, t):
    z = draw(100, 200, t, method).ravel()
    assert np.abs(z).max() <= t
    assert scipy.stats.kstest(z, scipy.stats.truncnorm(-t, t).cdf).pvalue > 1e-3


def test_resampling_keeps_values_in_range():
    z, plain = draw(50, 40, 0.8, "resample"), draw(50, 40, 0.0, "resample")
    inside = np.abs(plain) <= 0.8
    assert 0.3 < inside.mean() < 0.9
    np.testing.assert_array_equal(z[inside], plain[inside])
    assert (z[~inside] != plain[~inside]).all()


def test_threshold_clamps():
    z, plain = draw(50, 40, 0.8, "threshold"), draw(50, 40, 0.0, "threshold")
    np.testing.assert_array_equal(z, np.clip(plain, -0.8, 0.8))
    assert np.mean(np.abs(z) == np.float32(0.8)) == pytest.approx(0.4237, abs=0.05)  # P(|z| > 0.8)


def test_latents_are_the_same_inside_jit():
    keys = sampling.image_keys(KEY, 3)
    inside = jax.jit(lambda keys: sampling.latent(keys, 4, 0.5, "resample"))(keys)
    np.testing.assert_allclose(inside, sampling.latent(keys, 4, 0.5, "resample"), rtol=1e-6)


@pytest.mark.parametrize("truncation", [-0.1, float("nan")])
def test_a_truncation_below_zero_is_refused(truncation):
    with pytest.raises(ValueError, match="truncation must be 0 .* or positive, got"):
        draw(1, 2, truncation, "resample")


def test_rejection_does_not_go_on_for_hours():
    with pytest.raises(
        ValueError, match="truncation is 1e-09, and must be 0 .none. or at least 0.01 .* truncnorm"
    ):
        draw(1, 2, 1e-9, "resample")
    assert np.abs(draw(4, 8, 1e-3, "truncnorm")).max() <= 1e-3
    assert np.abs(draw(2, 8, 0.01, "resample")).max() <= 0.01


def test_an_unknown_method_names_the_choices():
    with pytest.raises(ValueError, match="'clip' is unknown; choices: threshold, resample, truncnorm"):
        draw(1, 2, 1.0, "clip")


@pytest.mark.parametrize("n", [1, 119, 120, 250])
def test_balanced_labels_differ_by_at_most_one(n):
    label = np.asarray(sampling.labels(n, 120, "balanced", KEY))
    assert label.dtype == np.int32 and label.shape == (n,)
    counts = np.bincount(label, minlength=120)
    assert counts.max() - counts.min() <= 1 and len(counts) == 120
    np.testing.assert_array_equal(label[: min(n, 120)], np.arange(min(n, 120)))  # one class after the other


def test_uniform_labels_are_uniform_and_do_not_depend_on_their_number():
    label = np.asarray(sampling.labels(6000, 12, "uniform", KEY))
    assert label.dtype == np.int32
    counts = np.bincount(label, minlength=12)
    assert len(counts) == 12 and scipy.stats.chisquare(counts).pvalue > 1e-3
    assert len(np.unique(np.diff(label))) > 12  # not in order
    np.testing.assert_array_equal(sampling.labels(50, 12, "uniform", KEY), label[:50])
    assert (np.asarray(sampling.labels(50, 12, "uniform", jax.random.key(8))) != label[:50]).any()


def test_wrong_labels_are_refused():
    with pytest.raises(ValueError, match="'fair' is unknown; choices: uniform, balanced"):
        sampling.labels(3, 2, "fair", KEY)
    with pytest.raises(ValueError, match="at least 1 class, got 0"):
        sampling.labels(3, 0, "balanced", KEY)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_to_uint8_undoes_the_scaling_of_every_level(wrap):
    levels = np.arange(256, dtype=np.uint8)
    image = wrap(lambda x: x.astype(jnp.float32) / 127.5 - 1.0)(levels)
    found = wrap(sampling.to_uint8)(image)
    assert found.dtype == jnp.uint8
    np.testing.assert_array_equal(found, levels)


def test_to_uint8_rounds_and_clips():
    step = 2 / 255
    image = jnp.array([-3.0, -1.0, -1 + 0.4 * step, -1 + 0.6 * step, 1 - 0.4 * step, 1.0, 3.0])
    np.testing.assert_array_equal(sampling.to_uint8(image), [0, 0, 0, 1, 255, 255, 255])


@pytest.mark.parametrize("policy", sampling.LABEL_POLICIES)
def test_classes_can_be_excluded(policy):
    drawn = np.asarray(sampling.labels(300, 5, policy, KEY, exclude_classes=(1, 4)))
    np.testing.assert_array_equal(np.unique(drawn), [0, 2, 3])
    assert np.bincount(drawn).max() < 2 * 100
    for excluded in ((5,), (0, 1, 2, 3, 4)):
        with pytest.raises(ValueError, match="there are classes 0 to 4, and one must remain"):
            sampling.labels(3, 5, policy, KEY, excluded)


def test_diversity_is_of_consecutive_images() -> None:
    """5 differences of 6 images, each summed over channels and averaged over pixels, divided by 6."""
    image = np.random.default_rng(0).uniform(-1, 1, (3, 6, 4, 5, 3)).astype(np.float32)
    expected = [
        sum(np.sum((row[k] - row[k + 1]) ** 2) / (4 * 5) for k in range(5)) / sampling.IMAGES_PER_CLASS
        for row in image
    ]
    np.testing.assert_allclose(sampling.diversity(jnp.asarray(image)), expected, rtol=1e-5)


def test_skip_collapsed_is_uniform_over_the_other_classes() -> None:
    found = sampling.labels(500, 5, "skip_collapsed", KEY, (1, 3))
    np.testing.assert_array_equal(found, sampling.labels(500, 5, "uniform", KEY, (1, 3)))
