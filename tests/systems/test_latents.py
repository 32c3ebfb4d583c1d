"""Sampling is the composition of its parts: equal programs, so equal bits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog import types
from jaxdog.config import build, library
from jaxdog.data import batches
from jaxdog.systems import sampling

KEYS = sampling.image_keys(jax.random.key(3), 4)
LABEL = jnp.array([0, 1, 2, 0], jnp.int32)


def last_system(name: str) -> tuple[types.System, Any]:
    """The system of a config's last phase, and a function that makes its initial state."""
    config = build.check(library.load(name, "test"))
    phase, side = build.phases(config, 3)[-1], config.data.stored_resolution

    def init() -> Any:
        data = batches.make_data(jnp.zeros((1, side, side, 3), jnp.uint8), jnp.zeros(1, jnp.int32))
        batch = batches.batch(data, jax.random.key(0), 0, phase.batch_size)
        return phase.system.init(jax.random.key(0), batch)

    return phase.system, init


def program(function: Any, *args: Any) -> str:
    return str(jax.make_jaxpr(function)(*args))


@pytest.mark.parametrize("name", ["biggan", "vae", "stylegan2"])
def test_sampling_decodes_latents(name):
    system, init = last_system(name)

    def composed(state, key, label):
        return system.decode(state, system.latent(key), label, key)

    state = jax.eval_shape(init)
    assert program(composed, state, KEYS, LABEL) == program(system.sample, state, KEYS, LABEL)


def test_decoding_maps_and_synthesizes():
    system, init = last_system("stylegan2")

    def composed(state, z, label, key):
        return system.synthesize(state, system.map_latents(state, z, label, key), key)

    state, z = jax.eval_shape(init), system.latent(KEYS)
    assert program(composed, state, z, LABEL, KEYS) == program(system.decode, state, z, LABEL, KEYS)


@pytest.mark.long
@pytest.mark.parametrize("name", ["progan", "stylegan"])
def test_growing_networks_decode_latents_at_the_step_of_the_state(name):
    """Their programs differ, as each function computes the fade of the newest blocks from the step."""
    system, init = last_system(name)
    state = jax.jit(init)()
    z = system.latent(KEYS)
    image = jax.jit(system.sample)(state, KEYS, LABEL)
    np.testing.assert_allclose(jax.jit(system.decode)(state, z, LABEL, KEYS), image, atol=1e-5)
    if system.map_latents is not None:
        w = jax.jit(system.map_latents)(state, z, LABEL, KEYS)
        np.testing.assert_allclose(jax.jit(system.synthesize)(state, w, KEYS), image, atol=1e-5)
    assert np.std(image) > 1e-3


def test_other_systems_say_so():
    for name in ("biggan", "vae", "progan"):
        system, _ = last_system(name)
        assert system.map_latents is None and system.synthesize is None
    for name in ("vqvae2", "memorizer"):
        system, _ = last_system(name)
        assert system.latent is None and system.decode is None
