"""Projection: the latent whose image is closest to a given image, found by gradient descent.

The procedure is that of Karras et al. 2020 (appendix D): Adam with a ramped learning rate, and noise on the
latent that decreases to zero, which helps to leave local minima. It starts from the mean of w. Systems
without w start from the best of several random latents z, and a penalty keeps the norm of z typical.

The paper's distance is LPIPS, which needs the weights of a VGG network trained on labeled images. Here it is
the squared error at several scales, which needs none; `features` adds another distance. Noise maps of the
generator are not optimized.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdog import types
from jaxdog.ops import resample2x
from jaxdog.render import decoding
from jaxdog.systems import sampling
from jaxdog.utils import errors, integers

Array = jax.Array

LEARNING_RATE = 0.1  # the largest; these four are the paper's
RAMP_UP, RAMP_DOWN = 0.05, 0.25  # fractions of the steps
NOISE, NOISE_END = 0.05, 0.75  # relative to the deviation of the latents; the fraction of steps with noise
NORM_WEIGHT = 0.1  # of the penalty on the norm of z
W_SAMPLES = 1000  # random latents per class, for the mean and deviation of w
Z_SAMPLES = 32  # random latents per class, the best of which is the start
SEARCH_FRACTION = 0.1  # of the steps, for each class if the class is unknown
SMALLEST = 4  # px, height of the coarsest scale

Features = Callable[[Array], Any]  # images [b, h, w, 3] in [-1, 1] -> a tree of arrays [b, ...]


class Projection(NamedTuple):
    """The result of `project`."""

    z: np.ndarray | None  # [latent_dim] float32; None if w was optimized
    w: np.ndarray | None  # [layers, k] float32; None if the system has no w
    label: int  # the class of the image
    image: np.ndarray  # [h, w, 3] uint8, generated from z and label, or from w
    target: np.ndarray  # [h, w, 3] uint8, the given image
    losses: np.ndarray  # [steps] float32, distance to the given image, without the penalty on the norm


def project(
    system: types.System,
    state: Any,
    image: np.ndarray,
    key: types.Key,
    label: int | None = None,
    classes: int = 1,
    steps: int = 500,
    features: Features | None = None,
) -> Projection:
    """Finds the latent whose image is closest to `image`: w if the system has it, else z.

    The result's image is `decode` of z and label, or `synthesize` of w, with `key` as noise key.

    Args:
      system: a system with a latent vector, which does not sample with batch statistics, and whose images are
        differentiable: without steps in `sample.postprocess`, which round.
      state: its state to sample from, after `prepare`.
      image: [h, w, 3] uint8, of the size of generated images.
      key: for all randomness.
      label: the class of the image; None: each class is tried for `SEARCH_FRACTION` of the steps.
      classes: number of classes; only used if `label` is None.
      steps: of gradient descent.
      features: adds the mean squared difference of each array that it returns to the loss.

    Raises:
      UserError: the system has no latent vector, its images do not depend smoothly on it, the image has
        another size, or a value is out of range.
    """
    decoding.require_latents(system, "projection")
    _check(system, state, image, label, classes, steps)
    target = jnp.asarray(image, jnp.float32) / 127.5 - 1.0
    search_key, final_key = jax.random.split(key)
    if label is None:
        search = _optimizer(system, features, max(1, round(SEARCH_FRACTION * steps)))
        label = _best_class(search, state, target, classes, key, search_key)
    run = _optimizer(system, features, steps)(state, target, jnp.array([label], jnp.int32), key, final_key)
    if not np.asarray(run.gradient).any():
        raise errors.UserError(
            "the images do not change with small changes of the latent, so that there is nothing to follow: "
            "steps in sample.postprocess round; sample without them"
        )
    latent, keys, one = np.asarray(run.latent), key[None], np.array([label], np.int32)
    losses = np.asarray(run.losses)[:, 0]
    if system.map_latents is None:
        found = decoding.decode(system, state, latent, one, keys)[0]
        return Projection(latent[0], None, label, found, image, losses)
    found = decoding.synthesize(system, state, latent, keys)[0]
    return Projection(None, latent[0], label, found, image, losses)


def distance(image: Array, target: Array) -> Array:
    """Squared error of images [b, h, w, 3] to a target [h, w, 3], averaged over pixels and scales: [b].

    Each scale halves the one before by averaging, down to `SMALLEST` pixels or an odd size.
    """
    difference, levels = image - target[None], []
    while True:
        levels.append(jnp.mean(jnp.square(difference), (1, 2, 3)))
        h, w = difference.shape[1:3]
        if h % 2 or w % 2 or min(h, w) < 2 * SMALLEST:
            return jnp.mean(jnp.stack(levels), 0)
        difference = resample2x.avg_pool(difference)


class _Space(NamedTuple):
    """What is optimized for labels [b]: w, or z."""

    start: Array  # [b, ...]
    scale: Array  # [b], root of the mean squared distance of random latents from their mean
    images: Callable[[Array], Array]  # [b, ...] -> [b, h, w, 3] in [-1, 1]
    penalty: Callable[[Array], Array]  # [b, ...] -> [b]


class _Run(NamedTuple):
    """The result of an optimization."""

    latent: Array  # [b, ...]
    final: Array  # [b], loss of `latent` without noise
    losses: Array  # [steps, b], before each step, with noise
    gradient: Array  # [b], largest absolute component in all steps, without the penalty


@functools.lru_cache(decoding.CACHED)
def _optimizer(system: types.System, features: Features | None, steps: int) -> Callable[..., _Run]:
    """(state, target [h, w, 3], label [b], noise_key, key) -> _Run, jitted; rows do not affect each other."""

    def loss(images: Array, target: Array) -> Array:
        total = distance(images, target)
        if features is not None:
            pairs = jax.tree.map(lambda x, y: jnp.square(x - y), features(images), features(target[None]))
            total += sum(x.reshape(x.shape[0], -1).mean(1) for x in jax.tree.leaves(pairs))
        return total

    @jax.jit
    def optimize(state: Any, target: Array, label: Array, noise_key: types.Key, key: types.Key) -> _Run:
        start_key, walk_key = jax.random.split(key)
        make = _z_space if system.map_latents is None else _w_space
        space = make(system, state, label, noise_key, start_key, lambda images: loss(images, target))
        adam, deltas = optax.scale_by_adam(), (1,) * (space.start.ndim - 1)

        def total(x: Array) -> tuple[Array, Array]:
            rows = loss(space.images(x), target)
            return jnp.sum(rows), rows

        def step(carry: tuple[Array, Any, Array], i: Array) -> tuple[tuple[Array, Any, Array], Array]:
            x, moments, largest = carry
            t = i / steps
            strength = NOISE * jnp.square(jnp.maximum(0.0, 1.0 - t / NOISE_END)) * space.scale
            noise = jax.random.normal(jax.random.fold_in(walk_key, i), _noise_shape(system, x))
            noise = jnp.broadcast_to(strength.reshape(-1, *deltas) * noise, x.shape)
            gradient, rows = jax.grad(total, has_aux=True)(x + noise)
            if system.map_latents is not None:  # the layers share one change
                gradient = jnp.broadcast_to(jnp.sum(gradient, 1, keepdims=True), x.shape)
            largest = jnp.maximum(largest, jnp.abs(gradient).reshape(len(x), -1).max(1))
            gradient += jax.grad(lambda x: jnp.sum(space.penalty(x)))(x)
            update: Any
            update, moments = adam.update(gradient, moments)
            return (x - learning_rate(t) * update, moments, largest), rows

        carry = space.start, adam.init(space.start), jnp.zeros(len(label))
        (x, _, largest), losses = jax.lax.scan(step, carry, jnp.arange(steps))
        return _Run(x, loss(space.images(x), target), losses, largest)

    return optimize


def learning_rate(t: Array) -> Array:
    """The learning rate at a fraction t of the steps: ramped up linearly, and down with a cosine."""
    down = 0.5 - 0.5 * jnp.cos(jnp.pi * jnp.minimum(1.0, (1.0 - t) / RAMP_DOWN))
    return LEARNING_RATE * down * jnp.minimum(1.0, t / RAMP_UP)


def _noise_shape(system: types.System, x: Array) -> tuple[int, ...]:
    return x.shape if system.map_latents is None else (x.shape[0], 1, *x.shape[2:])


def _w_space(
    system: types.System, state: Any, label: Array, noise_key: types.Key, key: types.Key, loss: Any
) -> _Space:
    """Starts from each class's mean of w."""
    del loss
    assert system.latent is not None and system.map_latents is not None and system.synthesize is not None
    map_latents, synthesize = system.map_latents, system.synthesize
    keys = sampling.image_keys(key, W_SAMPLES)
    z = system.latent(keys)

    def moments(one: Array) -> tuple[Array, Array]:
        w = map_latents(state, z, jnp.broadcast_to(one, (W_SAMPLES,)), keys)
        mean = jnp.mean(w, 0)
        squares = jnp.sum(jnp.square(w - mean[None]), (1, 2)) / w.shape[1]
        return mean, jnp.sqrt(jnp.mean(squares))

    mean, scale = jax.lax.map(moments, label)
    noise_keys = decoding.repeat_key(noise_key, len(label))
    return _Space(mean, scale, lambda w: synthesize(state, w, noise_keys), lambda w: jnp.zeros(len(label)))


def _z_space(
    system: types.System, state: Any, label: Array, noise_key: types.Key, key: types.Key, loss: Any
) -> _Space:
    """Starts from each class's best of `Z_SAMPLES` random latents."""
    assert system.latent is not None and system.decode is not None
    decode = system.decode
    z = system.latent(sampling.image_keys(key, Z_SAMPLES))
    typical = jnp.mean(jnp.sum(jnp.square(z), 1))

    def best(one: Array) -> Array:
        labels, keys = jnp.broadcast_to(one, (Z_SAMPLES,)), decoding.repeat_key(noise_key, Z_SAMPLES)
        return z[jnp.argmin(loss(decode(state, z, labels, keys)))]

    def penalty(z: Array) -> Array:
        return NORM_WEIGHT * jnp.square(jnp.sum(jnp.square(z), 1) / typical - 1.0)

    noise_keys = decoding.repeat_key(noise_key, len(label))
    return _Space(
        jax.lax.map(best, label),
        jnp.broadcast_to(jnp.sqrt(typical), label.shape),
        lambda z: decode(state, z, label, noise_keys),
        penalty,
    )


def _best_class(
    search: Callable[..., _Run],
    state: Any,
    target: Array,
    classes: int,
    key: types.Key,
    search_key: types.Key,
) -> int:
    """The class with the smallest loss after a short optimization."""
    rows = (
        -(-classes // decoding.BATCH_SIZE) * decoding.BATCH_SIZE if classes > decoding.BATCH_SIZE else classes
    )
    label = np.arange(rows, dtype=np.int32) % classes
    batches = label.reshape(-1, min(rows, decoding.BATCH_SIZE))
    final = [np.asarray(search(state, target, jnp.asarray(x), key, search_key).final) for x in batches]
    return int(np.argmin(np.concatenate(final)[:classes]))


def _check(
    system: types.System, state: Any, image: np.ndarray, label: int | None, classes: int, steps: int
) -> None:
    shape = decoding.image_shape(system, state)
    if image.shape != shape or image.dtype != np.uint8:
        h, w, c = shape
        raise errors.UserError(
            f"the image is {list(image.shape)} {image.dtype}, and must be [{h}, {w}, {c}] uint8 as the "
            "generated ones"
        )
    integers.check(steps, "steps", 1)
    if label is None and classes < 1:
        raise errors.UserError(f"classes is {classes}, and must be at least 1 if the class is unknown")
