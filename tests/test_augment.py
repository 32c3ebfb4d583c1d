import jax
import jax.numpy as jnp
import numpy as np

from jaxdog import augment

KEY = jax.random.key(3)


def pictures(b: int) -> jax.Array:
    return jnp.arange(b * 4 * 6 * 3, dtype=jnp.float32).reshape(b, 4, 6, 3) / 1000


def test_flip_mirrors_each_picture_left_to_right_or_not_at_all():
    image = pictures(64)
    got = np.asarray(jax.jit(augment.flip)(KEY, image))
    kept = np.array([np.array_equal(a, b) for a, b in zip(got, image, strict=True)])
    mirrored = np.array([np.array_equal(a, b[:, ::-1]) for a, b in zip(got, image, strict=True)])
    assert (kept ^ mirrored).all()
    assert 16 < mirrored.sum() < 48  # 64 fair coins: 4 standard deviations


def test_flip_probabilities():
    image = pictures(8)
    np.testing.assert_array_equal(augment.flip(KEY, image, p=0.0), image)
    np.testing.assert_array_equal(augment.flip(KEY, image, p=1.0), image[:, :, ::-1])
    np.testing.assert_array_equal(augment.flip(KEY, augment.flip(KEY, image)), image)


def test_flip_of_another_key_flips_others():
    image = pictures(64)
    assert not np.array_equal(augment.flip(KEY, image), augment.flip(jax.random.key(4), image))


def test_uniform_noise_adds_at_most_scale_to_every_value_of_its_own():
    image = pictures(16)
    added = np.asarray(augment.uniform_noise(KEY, image, 1 / 128) - image)
    assert added.min() > -1e-6 and added.max() < 1 / 128 + 1e-6
    assert abs(added.mean() - 1 / 256) < 1e-3 / 4
    assert np.unique(np.asarray(augment.uniform_noise(KEY, image * 0, 1.0))).size > 0.99 * image.size


def test_the_dtype_stays():
    image = pictures(2).astype(jnp.bfloat16)
    assert augment.uniform_noise(KEY, image, 0.1).dtype == jnp.bfloat16
    assert augment.flip(KEY, image).dtype == jnp.bfloat16
