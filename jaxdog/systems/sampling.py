"""Inputs of a generator at sampling time (keys, latents, labels), and its output as uint8.

Key, latent and label of image i depend on (key, i) only: they are the same for any batch size, number of
devices and number of images.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxdog.utils import errors

Array = jax.Array
Key = jax.Array

LABEL_POLICIES = ("uniform", "balanced", "skip_collapsed")
MIN_RESAMPLED = 0.01  # truncation of rejection sampling: of a thousand draws, 8 are within

# "skip_collapsed": a class has collapsed if the `diversity` of its images is too low, as in two competition
# entries.
IMAGES_PER_CLASS = 6
MIN_DIVERSITY = 0.95  # the entries rounded to one decimal and required at least 1.0


def image_keys(key: Key, indices: int | Array) -> Array:
    """One typed key per image, [n]: the image's index folded into `key`.

    `indices` is the number n of images 0 .. n-1, or their indices [n] int.
    """
    if isinstance(indices, int):
        indices = jnp.arange(indices)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, indices)


def latent(keys: Array, dim: int, truncation: float = 0.0, method: str = "resample") -> Array:
    """Latents [b, dim] float32 from N(0, I), one key per image.

    With a truncation above 0, |z| <= truncation.

    method:
      threshold  clips to [-truncation, truncation], so that values outside accumulate at the two bounds
      resample   rejection sampling: redraws values outside until they are inside (the truncation trick of
                 BigGAN, Brock et al. 2018, sec. 3.1)
      truncnorm  the same distribution by the inverse CDF: a single draw, fast for any truncation

    Raises:
      UserError: an unknown method, or a truncation that `check_truncation` refuses.
    """
    if method not in TRUNCATION_METHODS:
        raise errors.UserError(
            f"truncation method {method!r} is unknown; choices: {', '.join(TRUNCATION_METHODS)}"
        )
    check_truncation(truncation, method)
    if truncation == 0.0:
        return jax.vmap(lambda key: jax.random.normal(key, (dim,)))(keys)
    return jax.vmap(lambda key: TRUNCATION_METHODS[method](key, dim, truncation))(keys)


def check_truncation(truncation: float, method: str, name: str = "truncation") -> None:
    """Raises UserError, which calls it `name`, for a truncation that is negative, or too small to draw."""
    if not truncation >= 0.0:
        raise errors.UserError(f"{name} must be 0 (none) or positive, got {truncation}")
    if method == "resample" and 0.0 < truncation < MIN_RESAMPLED:
        raise errors.UserError(
            f"{name} is {truncation:g}, and must be 0 (none) or at least {MIN_RESAMPLED} with the method "
            "resample, which redraws each number until it is inside; the method truncnorm has the same "
            "distribution, and no such limit"
        )


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


TRUNCATION_METHODS: dict[str, Callable[[Key, int, float], Array]] = {
    "threshold": _threshold,
    "resample": _resample,
    "truncnorm": _truncnorm,
}


def labels(n: int, classes: int, policy: str, key: Key, exclude_classes: Sequence[int] = ()) -> Array:
    """Labels of images 0 .. n-1, [n] int32 in [0, classes), none of them in `exclude_classes`.

    policy:
      uniform         drawn independently and uniformly
      balanced        cycles through the classes: counts differ by at most one; `key` is not used
      skip_collapsed  as uniform; the caller adds the collapsed classes to `exclude_classes`, see `diversity`

    Raises:
      UserError: an unknown policy, or no class is left.
    """
    if policy not in LABEL_POLICIES:
        raise errors.UserError(f"label policy {policy!r} is unknown; choices: {', '.join(LABEL_POLICIES)}")
    if classes < 1:
        raise errors.UserError(f"labels need at least 1 class, got {classes}")
    allowed = [label for label in range(classes) if label not in exclude_classes]
    if not allowed or any(not 0 <= label < classes for label in exclude_classes):
        raise errors.UserError(
            f"exclude_classes is {list(exclude_classes)}; there are classes 0 to {classes - 1}, and one must "
            "remain"
        )
    if policy == "balanced":
        index = jnp.arange(n, dtype=jnp.int32) % len(allowed)
    else:
        keys = image_keys(key, n)
        index = jax.vmap(lambda key: jax.random.randint(key, (), 0, len(allowed), jnp.int32))(keys)
    return jnp.asarray(allowed, jnp.int32)[index]


def diversity(image: Array) -> Array:
    """How much the images of each row differ, [n, k, h, w, c] in [-1, 1] -> [n].

    Squared differences of consecutive images are summed over channels, averaged over pixels, summed over the
    row and divided by k, as in two competition entries.
    """
    _, k, h, w, _ = image.shape
    return jnp.sum(jnp.square(image[:, 1:] - image[:, :-1]), (1, 2, 3, 4)) / (h * w * k)


def to_uint8(image: Array) -> Array:
    """Image in [-1, 1] -> uint8, rounded to nearest and clipped: the exact inverse of x / 127.5 - 1."""
    return jnp.clip(jnp.round(127.5 * (image + 1.0)), 0.0, 255.0).astype(jnp.uint8)
