"""Decoding in batches: any number of latents, the latents of sampling, batch statistics."""

import jax
import numpy as np
import pytest

from jaxdog.config import schema
from jaxdog.render import decoding
from jaxdog.systems import sampling
from jaxdog.utils import errors
from tests.render import fakes

KEY = jax.random.key(3)


@pytest.mark.parametrize("n", [1, 16, 37])
def test_decoded_latents_are_the_samples(n):
    system, keys, label = fakes.z_system(), sampling.image_keys(KEY, n), np.arange(n, dtype=np.int32) % 3
    images = decoding.sample(system, {}, keys, label)
    assert images.shape == (n, 8, 8, 3) and images.dtype == np.uint8
    z = decoding.latents(system, keys)
    np.testing.assert_array_equal(decoding.decode(system, {}, z, label, keys), images)
    many = decoding.sample(system, {}, sampling.image_keys(KEY, 40), np.arange(40, dtype=np.int32) % 3)
    np.testing.assert_array_equal(many[:n], images)


def test_synthesis_of_w_is_decoding():
    system, keys, label = fakes.w_system(), sampling.image_keys(KEY, 20), np.ones(20, np.int32)
    z = decoding.latents(system, keys)
    w = decoding.map_latents(system, {}, z, label, keys)
    assert w.shape == (20, 2, fakes.DIM)
    images = decoding.decode(system, {}, z, label, keys)
    np.testing.assert_array_equal(decoding.synthesize(system, {}, w, keys), images)


def test_a_key_is_repeated():
    keys = decoding.repeat_key(KEY, 3)
    assert keys.shape == (3,) and (jax.random.key_data(keys) == jax.random.key_data(KEY)[None]).all()


def test_batch_statistics_become_standing_statistics():
    sample = schema.Sample({}, batch_stats="batch", batch_size=64, truncation=0.5)
    fixed = decoding.fixed_statistics(sample)
    assert fixed.batch_stats == "standing" and fixed.truncation == 0.5
    assert fixed.num_standing_images == 1024 and fixed.num_standing_images % fixed.batch_size == 0
    for kind in ("running", "standing"):
        sample = schema.Sample({}, batch_stats=kind)
        assert decoding.fixed_statistics(sample) == sample


def test_systems_without_latents_are_named():
    with pytest.raises(errors.UserError, match="a latent needs a latent vector, which this system does not"):
        decoding.latents(fakes.without_latents(), KEY[None])
