"""Projection finds latents: closed forms on linear systems, and the images of a small GAN."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog.models import dcgan
from jaxdog.ops import postprocess
from jaxdog.optim import ema
from jaxdog.render import decoding, projection
from jaxdog.systems import gan, gan_spec, sampling
from jaxdog.utils import errors
from tests.render import fakes
from tests.systems import test_gan

KEY = jax.random.key(5)
Z = np.asarray([[0.5, -1.1, 1.7, 0.2, -0.8, 1.0]], np.float32)  # of a typical norm


def image_of(system, label=0, z=Z):
    return decoding.decode(system, {}, z, np.array([label], np.int32), KEY[None])[0]


# ------------------------------------------------------------------ the distance


def test_the_distance_is_the_mean_over_scales():
    image = np.random.default_rng(0).standard_normal((2, 16, 16, 3)).astype(np.float32)
    target = np.random.default_rng(1).standard_normal((16, 16, 3)).astype(np.float32)
    difference, levels = image - target, []
    for size in (16, 8, 4):
        means = difference.reshape(2, size, 16 // size, size, 16 // size, 3).mean((2, 4))
        levels.append(np.square(means).mean((1, 2, 3)))
    found = projection.distance(jnp.asarray(image), jnp.asarray(target))
    np.testing.assert_allclose(found, np.mean(levels, 0), rtol=1e-5)


def test_images_of_any_size_have_a_distance():
    for shape in ((2, 2, 3), (9, 12, 3), (12, 20, 3)):
        found = projection.distance(jnp.ones((1, *shape)), jnp.zeros(shape))
        np.testing.assert_allclose(found, [1.0], rtol=1e-6)


def test_the_learning_rate_is_ramped_up_and_down():
    rate = projection.learning_rate(jnp.asarray([0.0, 0.025, 0.05, 0.5, 0.75, 0.875, 1.0]))
    np.testing.assert_allclose(rate, [0.0, 0.05, 0.1, 0.1, 0.1, 0.05, 0.0], atol=1e-7)


# ------------------------------------------------------------------ linear systems


def test_the_latent_of_a_linear_system_is_found():
    system = fakes.z_system()
    found = projection.project(system, {}, image_of(system), KEY, label=0, steps=200)
    assert found.z is not None and found.w is None and found.label == 0
    assert found.losses.shape == (200,) and found.losses[-1] < 1e-4 < found.losses[0]
    np.testing.assert_allclose(found.z, Z[0], atol=0.1)
    assert np.abs(found.image.astype(int) - image_of(system)).max() <= 2
    np.testing.assert_array_equal(found.image, image_of(system, z=found.z[None]))


def test_the_norm_of_z_stays_typical():
    system = fakes.z_system()
    image = image_of(system, z=8.0 * Z)  # far outside, and clipped
    found = projection.project(system, {}, image, KEY, label=0, steps=200)
    assert 1.0 < np.linalg.norm(found.z) / fakes.DIM**0.5 < 3.0 < np.linalg.norm(8.0 * Z) / fakes.DIM**0.5


def test_w_is_found_from_its_mean():
    system = fakes.w_system()
    found = projection.project(system, {}, image_of(system, 1), KEY, label=1, steps=200)
    assert found.z is None and found.w is not None and found.w.shape == (2, fakes.DIM)
    np.testing.assert_array_equal(found.w[0], found.w[1])  # one change for all layers
    np.testing.assert_allclose(found.w[0], Z[0] + 0.5, atol=0.1)
    one = projection.project(system, {}, image_of(system, 1), KEY, label=1, steps=1)
    np.testing.assert_allclose(one.w, np.full((2, fakes.DIM), 0.5), atol=0.2)  # the learning rate starts at 0


@pytest.mark.parametrize("classes", [3, 20])
def test_an_unknown_class_is_found(classes):
    """The latent cannot make up for a wrong class: the basis does not contain gray."""
    system = fakes.z_system()
    for label in (0, 2):
        found = projection.project(system, {}, image_of(system, label), KEY, None, classes, steps=100)
        assert found.label == label and found.losses[-1] < 1e-3


def test_features_are_part_of_the_loss():
    system = fakes.z_system()

    def means(image):
        return {"mean": 2.0 * image.mean(1)}

    with_features, without = (
        projection.project(system, {}, image_of(system), KEY, 0, steps=100, features=features)
        for features in (means, None)
    )
    assert with_features.losses[0] > without.losses[0]
    assert with_features.losses[-1] < 0.2 * with_features.losses[0]


def test_equal_keys_give_equal_results():
    system = fakes.z_system()
    first, second = (projection.project(system, {}, image_of(system), KEY, 0, steps=20) for _ in range(2))
    np.testing.assert_array_equal(first.z, second.z)


# ------------------------------------------------------------------ a GAN


@pytest.fixture(scope="module")
def untrained():
    """A system with a conditional DCGAN of 16x16 pixels, and its state to sample from."""
    generator = dcgan.Generator((16, 8), latent_dim=8, classes=3, size=16, embed_dim=4)
    spec = test_gan.spec(generator=generator, latent=partial(sampling.latent, dim=8))
    variables = generator.init(jax.random.key(1), jnp.zeros((1, 8)), jnp.zeros(1, jnp.int32), train=False)
    params = jax.tree.map(lambda x: 2.0 * x, variables["params"])  # more contrast
    averages = ema.EMA(params, {name: x for name, x in variables.items() if name != "params"})
    return gan.gan(spec), gan_spec.State(jnp.int32(0), None, None, averages, ())


def test_an_image_of_a_gan_is_found_again(untrained):
    system, state = untrained
    keys = sampling.image_keys(jax.random.key(7), 64)
    images = decoding.sample(system, state, keys, np.ones(64, np.int32))
    found = projection.project(system, state, images[0], KEY, label=1, steps=150)

    def error(image):
        return np.square(image.astype(float) - images[0]).mean((-3, -2, -1))

    assert np.median(error(images[1:])) > 30
    assert error(found.image) < 0.02 * np.median(error(images[1:]))
    again = decoding.decode(system, state, found.z[None], np.array([1], np.int32), KEY[None])[0]
    np.testing.assert_array_equal(again, found.image)


# ------------------------------------------------------------------ errors


def rounded():
    system = fakes.z_system()
    return system._replace(decode=lambda *args: postprocess.quantize(system.decode(*args)))


@pytest.mark.parametrize(
    ("system", "image", "options", "message"),
    [
        (fakes.without_latents(), np.zeros((8, 8, 3), np.uint8), {}, "projection needs a latent vector"),
        (fakes.z_system(), np.zeros((9, 8, 3), np.uint8), {}, r"\[9, 8, 3\] uint8, and must be \[8, 8, 3\]"),
        (fakes.z_system(), np.zeros((8, 8, 3)), {}, "float64, and must be"),
        (fakes.z_system(), np.zeros((8, 8, 3), np.uint8), {"steps": 0}, "steps is 0"),
        (fakes.z_system(), np.zeros((8, 8, 3), np.uint8), {"label": None, "classes": 0}, "classes is 0"),
        (rounded(), np.zeros((8, 8, 3), np.uint8), {"steps": 5}, "steps in sample.postprocess round"),
    ],
)
def test_wrong_input_is_named(system, image, options, message):
    with pytest.raises(errors.UserError, match=message):
        projection.project(system, {}, image, KEY, **{"label": 0, **options})
