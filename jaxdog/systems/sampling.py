"""What goes into a generator at sampling time: keys, latents, breeds; and what comes out as a PNG's bytes.

Everything is indexed by picture: picture i depends on (key, i) only, so it is the same at any batch
size, any number of devices and any number of pictures asked for.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

Array = jax.Array
Key = jax.Array

POLICIES = ("uniform", "balanced", "varied")

# What "varied" asks of a breed, as two entries of 2019 did.
PICTURES = 6  # of each breed, drawn one by one
LEAST_SPREAD = 0.95  # there rounded to one decimal, and to be at least 1.0


def image_keys(key: Key, indices: int | Array) -> Array:
    """One typed key per picture, [n]: the picture's index folded into `key`.

    `indices` is how many (0 .. n-1) or the indices themselves, [n] int.
    """
    if isinstance(indices, int):
        indices = jnp.arange(indices)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, indices)


def latent(keys: Array, dim: int, truncation: float = 0.0, method: str = "resample") -> Array:
    """Latents, [b, dim] float32, one key per picture; N(0, 1), cut at |z| <= truncation when that is not 0.

    method:
      threshold   the normal clamped to [-t, t]: what lies outside gathers on the two edges
      resample    each coordinate outside is drawn again until it is inside (BigGAN, arXiv 1809.11096,
                  section 3.1): a truncated normal; what the first draw put inside stays as it was
      truncnorm   the same distribution by its inverse CDF: one draw, cheap at any t
    """
    if method not in METHODS:
        raise ValueError(f"truncation method {method!r} is unknown; choices: {', '.join(METHODS)}")
    if not truncation >= 0.0:
        raise ValueError(f"truncation must be 0 (none) or positive, got {truncation}")
    if truncation == 0.0:
        return jax.vmap(lambda key: jax.random.normal(key, (dim,)))(keys)
    return jax.vmap(lambda key: METHODS[method](key, dim, truncation))(keys)


def _threshold(key: Key, dim: int, truncation: float) -> Array:
    return jnp.clip(jax.random.normal(key, (dim,)), -truncation, truncation)


def _resample(key: Key, dim: int, truncation: float) -> Array:
    def outside(carry: tuple[Array, Array]) -> Array:
        return jnp.any(jnp.abs(carry[1]) > truncation)

    def redraw(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        i, z = carry
        fresh = jax.random.normal(jax.random.fold_in(key, i), (dim,))
        return i + 1, jnp.where(jnp.abs(z) > truncation, fresh, z)

    return jax.lax.while_loop(outside, redraw, (jnp.int32(0), jax.random.normal(key, (dim,))))[1]


def _truncnorm(key: Key, dim: int, truncation: float) -> Array:
    return jax.random.truncated_normal(key, -truncation, truncation, (dim,))


METHODS: dict[str, Callable[[Key, int, float], Array]] = {
    "threshold": _threshold,
    "resample": _resample,
    "truncnorm": _truncnorm,
}


def labels(n: int, classes: int, policy: str, key: Key, without: Sequence[int] = ()) -> Array:
    """The breeds of pictures 0 .. n-1, [n] int32 in [0, classes), none of those in `without`.

    policy:
      uniform    each drawn on its own, all breeds equally likely
      balanced   one of each in order, and again: counts differ by at most one; `key` is not used
      varied     as uniform; `without` is to have those breeds too whose pictures look alike (see `spread`)
    """
    if policy not in POLICIES:
        raise ValueError(f"label policy {policy!r} is unknown; choices: {', '.join(POLICIES)}")
    if classes < 1:
        raise ValueError(f"labels need at least 1 class, got {classes}")
    kept = [breed for breed in range(classes) if breed not in without]
    if not kept or any(not 0 <= breed < classes for breed in without):
        raise ValueError(
            f"labels without {list(without)}: there are breeds 0 to {classes - 1}, and one must stay"
        )
    if policy == "balanced":
        drawn = jnp.arange(n, dtype=jnp.int32) % len(kept)
    else:
        drawn = jax.vmap(lambda key: jax.random.randint(key, (), 0, len(kept), jnp.int32))(image_keys(key, n))
    return jnp.asarray(kept, jnp.int32)[drawn]


def spread(image: Array) -> Array:
    """How much the pictures of each row differ, [n, k, h, w, c] in [-1, 1] -> [n].

    The squared difference of each picture to the next, summed over channels and averaged over pixels, is
    summed up and divided by k, as two entries of 2019 had it.
    """
    _, k, h, w, _ = image.shape
    return jnp.sum(jnp.square(image[:, 1:] - image[:, :-1]), (1, 2, 3, 4)) / (h * w * k)


def to_uint8(image: Array) -> Array:
    """Picture in [-1, 1] -> uint8, rounded to the nearest level and clipped; undoes x / 127.5 - 1 exactly."""
    return jnp.clip(jnp.round(127.5 * (image + 1.0)), 0.0, 255.0).astype(jnp.uint8)
