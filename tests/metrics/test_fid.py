"""FID by triangular factors against scipy's matrix square root, closed forms, and on one and four devices."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdog.metrics import features as feature_sets
from jaxdog.metrics import fid

scipy_linalg = pytest.importorskip("scipy.linalg", reason="scipy is the oracle of these tests")


def official(real: np.ndarray, fake: np.ndarray) -> float:
    """The textbook formula in float64: covariances with ddof 1 and a matrix square root."""
    real, fake = np.asarray(real, np.float64), np.asarray(fake, np.float64)
    gap = real.mean(0) - fake.mean(0)
    one, two = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    # A singular product is on the edge of what sqrtm can do; its spectrum gives the same trace.
    if min(len(real), len(fake)) > real.shape[1]:
        root = np.trace(scipy_linalg.sqrtm(one @ two)).real
    else:
        root = np.sqrt(np.maximum(np.linalg.eigvals(one @ two).real, 0)).sum()
    return float(gap @ gap + np.trace(one) + np.trace(two) - 2 * root)


def features(seed: int, n: int, d: int, shift: float = 0.0) -> np.ndarray:
    """Correlated and non-negative with a decaying spectrum, like features of a network."""
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(d, d)) * np.geomspace(1, 0.02, d)[:, None] / np.sqrt(d)
    rows = generator.normal(size=(n, d)) @ mixing * 2 + 0.4 + shift * generator.normal(size=(1, d))
    return np.maximum(rows, 0).astype(np.float32)


CASES = [
    (900, 700, 64, 0.05),
    (600, 600, 128, 0.0),
    (5000, 300, 96, 0.1),
    (90, 400, 128, 0.05),
    (60, 50, 160, 0.0),
]


@pytest.mark.parametrize("seed, case", list(enumerate(CASES)))
def test_equals_the_matrix_square_root(seed, case):
    n, m, d, shift = case
    real, fake = features(seed, n, d), features(seed + 100, m, d, shift)
    expected = official(real, fake)
    ours = jax.jit(lambda a, b: fid.frechet(fid.factor(a, block=256), fid.factor(b, block=256)))(real, fake)
    assert expected > 0.01
    np.testing.assert_allclose(float(ours), expected, rtol=1e-4)
    np.testing.assert_allclose(fid.frechet_exact(real, fake), expected, rtol=1e-6)


def test_gaussians_of_known_distance():
    """Diagonal covariances: the distance is |m1 - m2|^2 + sum (s1 - s2)^2, here made exact by whitening."""
    generator = np.random.default_rng(0)
    n, d = 400, 16
    rows = generator.normal(size=(n, d))
    rows = rows - rows.mean(0)
    rows = rows @ np.linalg.inv(np.linalg.cholesky(np.cov(rows, rowvar=False))).T
    s1, s2, gap = generator.uniform(0.5, 2, (3, d))
    ours = fid.frechet(fid.factor(jnp.asarray(rows * s1)), fid.factor(jnp.asarray(rows * s2 + gap)))
    np.testing.assert_allclose(ours, np.sum(gap**2) + np.sum((s1 - s2) ** 2), rtol=1e-5)


def test_factor_is_the_covariance_at_any_block():
    rows = features(3, 500, 40)
    for block in (64, 100, 500, 4096):
        made = fid.factor(jnp.asarray(rows), block=block)
        assert made.r.shape == (40, 40) and float(made.n) == 500
        np.testing.assert_allclose(
            made.r.T @ made.r, np.cov(rows.astype(np.float64), rowvar=False), atol=2e-6
        )
    assert fid.factor(jnp.asarray(rows[:30]), block=8).r.shape == (30, 40)


def test_rows_of_weight_zero_are_ignored():
    rows = features(4, 300, 32)
    padded = np.concatenate([rows, np.full((41, 32), 1e3, np.float32)])
    weight = jnp.arange(341) < 300
    plain, masked = (
        fid.factor(jnp.asarray(rows), block=128),
        fid.factor(jnp.asarray(padded), weight, block=128),
    )
    assert float(masked.n) == 300
    np.testing.assert_allclose(masked.mean, plain.mean, atol=1e-6)
    np.testing.assert_allclose(masked.r.T @ masked.r, plain.r.T @ plain.r, atol=1e-5)


def test_equal_sets_are_at_distance_zero():
    made = fid.factor(jnp.asarray(features(5, 3000, 64)))
    assert abs(float(fid.frechet(made, made))) < 1e-4


def test_float32_is_accurate_where_covariances_would_not_be():
    """A far mean and a flat spectrum over 3 decades: a product of float32 covariances loses 1e-2 here."""
    generator = np.random.default_rng(7)
    scale = np.geomspace(1, 1e-3, 200)[None, :]
    real, fake = (generator.normal(size=(1500, 200)) * scale * s + 30 for s in (1.0, 1.05))
    real, fake = real.astype(np.float32), fake.astype(np.float32)
    ours = fid.frechet(fid.factor(jnp.asarray(real)), fid.factor(jnp.asarray(fake)))
    np.testing.assert_allclose(float(ours), official(real, fake), rtol=1e-4)


def test_one_device_and_four_agree():
    real, fake = features(8, 1024, 48), features(9, 512, 48, 0.1)

    def score(a, b):
        return fid.frechet(fid.factor(a, block=200), fid.factor(b, block=200))

    rows = NamedSharding(Mesh(np.array(jax.devices()), "data"), P("data"))
    spread = [jax.device_put(a, rows) for a in (real, fake)]
    np.testing.assert_allclose(jax.jit(score)(*spread), jax.jit(score)(real, fake), rtol=1e-5)


def test_block_must_be_positive():
    with pytest.raises(ValueError, match="block is 0, and must be at least 1"):
        fid.factor(jnp.ones((4, 2)), block=0)


def test_extrapolation_removes_the_bias_of_few_samples():
    """Two halves of one distribution: the distance at n is bias alone, its limit nearly 0."""
    real = fid.factor(jnp.asarray(features(0, 4000, 24)))
    fake = jnp.asarray(features(0, 5000, 24)[4000:])  # same mixing, other rows
    found = jax.jit(lambda real, fake, key: fid.extrapolate(real, fake, key, smallest=100, points=12))(
        real, fake, jax.random.key(0)
    )
    here = fid.frechet(real, fid.factor(fake))
    assert found.r2 > 0.9 and found.slope > 0
    assert abs(found.at_infinity) < 0.5 * here
    with pytest.raises(ValueError, match="needs at least 20 images, not 19"):
        fid.extrapolate(real, fake[:19], jax.random.key(0))


def moments(rows: np.ndarray) -> feature_sets.Moments:
    rows = rows.astype(np.float64)
    return feature_sets.Moments(rows.mean(0), np.cov(rows, rowvar=False), 0)


@pytest.mark.parametrize("seed, case", list(enumerate(CASES)))
def test_moments_are_as_accurate_as_features(seed, case):
    """Of either side or of both, with more and with fewer images than features."""
    n, m, d, shift = case
    real, fake = features(seed, n, d), features(seed + 100, m, d, shift)
    expected = official(real, fake)
    for sides in ((True, True), (True, False), (False, True)):
        ours = fid.frechet(
            *(
                fid.factor_of_moments(moments(x), "x") if known else fid.factor(jnp.asarray(x))
                for x, known in zip((real, fake), sides, strict=True)
            )
        )
        np.testing.assert_allclose(float(ours), expected, rtol=1e-4)


def test_equal_moments_have_no_distance():
    """Rounding makes some eigenvalues negative, as there are fewer images than features."""
    made = moments(features(0, 30, 96))
    assert np.linalg.eigvalsh(made.covariance)[0] < 0
    one = fid.factor_of_moments(made, "x")
    assert abs(float(fid.frechet(one, one))) < 2e-5 and float(one.n) == 0


def test_covariances_have_no_negative_eigenvalues():
    covariance = np.diag([1.0, 0.5, -0.01])
    with pytest.raises(ValueError, match="has the eigenvalue -0.01 beside 1, and none"):
        fid.factor_of_moments(feature_sets.Moments(np.zeros(3), covariance, 0), "x.npz")


@pytest.mark.oracle
def test_moments_against_pytorch_fid():
    """Its function, on 768 features of more and of fewer images."""
    pytest.importorskip("torch", reason="pytorch-fid imports torch")
    score = pytest.importorskip("pytorch_fid.fid_score", reason="pytorch-fid is an oracle (make oracles)")
    for n, m in ((1200, 1000), (1200, 160)):
        both = [moments(features(n, n, 768)), moments(features(m, m, 768, 0.05))]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scipy's, of an argument that it will drop
            expected = score.calculate_frechet_distance(*(x for side in both for x in side[:2]))
        ours = fid.frechet(*(fid.factor_of_moments(side, "x") for side in both))
        np.testing.assert_allclose(float(ours), expected, rtol=1e-4)
