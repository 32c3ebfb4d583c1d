"""Small systems in closed form: images of 8x8 whose pixels are linear in the latent."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxdog import types
from jaxdog.systems import sampling

DIM, SIZE = 6, 8


def _refuse(*args: Any) -> Any:
    raise AssertionError("images of a trained state need no training")


def latent(key: jax.Array) -> jax.Array:
    return sampling.latent(key, DIM)


def basis() -> jax.Array:
    """[DIM, SIZE, SIZE, 3]: orthogonal images, smooth in the rows."""
    y = jnp.linspace(0.0, jnp.pi, SIZE)
    waves = jnp.stack([jnp.cos(k * y) for k in range(DIM)])
    colors = jnp.asarray([[1.0, 0.5, -0.5], [0.5, 1.0, 0.5]])[jnp.arange(DIM) % 2]
    return jnp.broadcast_to(waves[:, :, None, None] * colors[:, None, None, :], (DIM, SIZE, SIZE, 3))


def linear(label: jax.Array, x: jax.Array, noise: jax.Array | float = 0.0) -> jax.Array:
    """Images 0.1 (sum_i x_i basis_i) + 0.2 label + noise."""
    images = 0.1 * jnp.einsum("bi,ihwc->bhwc", x, basis(), precision="highest")
    shift = (0.2 * label + noise)[:, None, None, None]
    return images + jnp.broadcast_to(shift, images.shape)


def z_system() -> types.System:
    """`decode` is `linear` plus 0.05 times one normal number per key; the state is not used."""

    def decode(state: Any, z: jax.Array, label: jax.Array, key: jax.Array) -> jax.Array:
        del state
        return linear(label, z, 0.05 * jax.vmap(jax.random.normal)(key))

    def sample(state: Any, key: jax.Array, label: jax.Array) -> jax.Array:
        return decode(state, latent(key), label, key)

    return types.System(_refuse, _refuse, sample, latent=latent, decode=decode)


def w_system() -> types.System:
    """w [b, 2, DIM] = z + label / 2 in both layers; the image is linear in their mean."""

    def map_latents(state: Any, z: jax.Array, label: jax.Array, key: jax.Array) -> jax.Array:
        del state, key
        return jnp.broadcast_to((z + 0.5 * label[:, None])[:, None], (len(z), 2, DIM))

    def synthesize(state: Any, w: jax.Array, key: jax.Array) -> jax.Array:
        del state, key
        return linear(jnp.zeros(len(w)), w.mean(1))

    def decode(state: Any, z: jax.Array, label: jax.Array, key: jax.Array) -> jax.Array:
        return synthesize(state, map_latents(state, z, label, key), key)

    def sample(state: Any, key: jax.Array, label: jax.Array) -> jax.Array:
        return decode(state, latent(key), label, key)

    return types.System(
        _refuse,
        _refuse,
        sample,
        latent=latent,
        decode=decode,
        map_latents=map_latents,
        synthesize=synthesize,
    )


def without_latents() -> types.System:
    """Samples gray images, darker for each class, without a latent vector."""

    def sample(state: Any, key: jax.Array, label: jax.Array) -> jax.Array:
        del state, key
        return jnp.broadcast_to((-0.1 * label)[:, None, None, None], (len(label), SIZE, SIZE, 3))

    return types.System(_refuse, _refuse, sample)
