"""What a player pays beside its loss: penalties on gradients, logits, kernels and paths.

A factory function makes a `Penalty`; its parameters are the fields of a config's row. All have

  weight: factor of the value; of a pair, half a cosine from the first to the last number over the run.
  every: steps from one computation to the next (lazy regularisation, Karras et al. 2020, sec. 3.1); what is
    computed is multiplied by it, so that the mean over steps does not depend on it.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdog import types
from jaxdog.ops import ramps, resample

Array = types.Array
Key = types.Key
PyTree = types.PyTree
Pictures = tuple[Array, Array]  # image [b, h, w, c], label [b]

TINY = 1e-12  # below the root of a squared norm, whose slope at 0 has no end


class Judged(NamedTuple):
    """What a discriminator's penalty looks at."""

    logit: Callable[[Array, Array], Array]  # (image, label) -> [b], with the statistics of this step
    real: Pictures
    fake: Pictures
    of_real: Array  # [b], what the loss has seen
    of_fake: Array  # [b]
    params: PyTree


class Made(NamedTuple):
    """What a generator's penalty looks at."""

    render: Callable[[Array], Array]  # latent [b, ..., k] -> image [b, h, w, c]
    latent: Array  # [b, k], or [b, layers, k] where each layer has its own
    params: PyTree


class Penalty(NamedTuple):
    """`value(key, seen, memory)` is a mean over the batch [] and what the memory becomes."""

    value: Callable[[Key, Any, PyTree], tuple[Array, PyTree]]
    weight: float | tuple
    every: int
    memory: PyTree = ()  # before the first step


Penalties = Mapping[str, Penalty]


def start(penalties: Penalties) -> dict[str, PyTree]:
    """The memories before the first step."""
    return {name: jax.tree.map(jnp.asarray, penalty.memory) for name, penalty in penalties.items()}


def pay(
    penalties: Penalties,
    key: Key,
    step: Array,
    seen: Any,
    memory: Mapping[str, PyTree],
    done: Array | float = 0.0,
) -> tuple[Array | float, dict[str, PyTree], types.Scalars]:
    """What is due at `step` [] int32: the weighted sum, the memories after it, and each one's value.

    done: share of the run that is over [], for weights that change.
    """
    total: Array | float = 0.0
    after, scalars = dict(memory), {}
    for i, (name, penalty) in enumerate(penalties.items()):
        if penalty.every < 1:
            raise ValueError(f"{name}.every is {penalty.every}, and must be at least 1")

        def due(penalty: Penalty = penalty, i: int = i, name: str = name) -> tuple[Array, PyTree]:
            return penalty.value(jax.random.fold_in(key, i), seen, memory[name])

        if penalty.every == 1:
            value, after[name] = due()
        else:
            kept = (jnp.zeros(()), memory[name])
            value, after[name] = jax.lax.cond(step % penalty.every == 0, due, lambda kept=kept: kept)
        total += ramps.at(penalty.weight, done) * penalty.every * value
        scalars[f"penalty/{name}"] = penalty.every * value
    return total, after, scalars


# ------------------------------------------------------------------ a discriminator's slopes


def _slope(judged: Judged, image: Array, label: Array) -> Array:
    """d logit / d image, [b, h, w, c]."""
    return jax.grad(lambda image: jnp.sum(judged.logit(image, label)))(image)


def _norm(slope: Array, axes: tuple[int, ...] = (1, 2, 3)) -> Array:
    return jnp.sqrt(jnp.sum(jnp.square(slope), axes) + TINY)


def gradient_penalty(weight: float | tuple, every: int, target: float) -> Penalty:
    """E (|| d D(x) / dx || - target)^2 between real and generated pictures (Gulrajani et al. 2017, eq. 3).

    x lies anywhere on the line from a picture to its neighbour of the other kind, one place per picture, and
    is judged as of the real one's breed. The paper's weight is 10, its target 1.
    """

    def value(key: Key, judged: Judged, memory: PyTree) -> tuple[Array, PyTree]:
        (real, label), (fake, _) = judged.real, judged.fake
        share = jax.random.uniform(key, (real.shape[0], 1, 1, 1))
        slope = _slope(judged, real + share * (fake - real), label)
        return jnp.mean(jnp.square(_norm(slope) - target)), memory

    return Penalty(value, weight, every)


def dragan(weight: float | tuple, every: int, spread: float, target: float, per_pixel: bool) -> Penalty:
    """E (|| d D(x) / dx || - target)^2 around real pictures (Kodali et al. 2017, eq. 1 and sec. 3.3).

    x is a real picture moved some way towards itself plus spread * std * U[0, 1) noise, std being that of all
    numbers in the batch. The paper's weight is 10, its target 1, its spread 0.5.

    Args:
      per_pixel: as a kernel of 2019 had it, whose dogs collapsed: the way is drawn for each number instead of
        each picture, and the norm is that of each pixel's three slopes instead of the picture's.
    """

    def value(key: Key, judged: Judged, memory: PyTree) -> tuple[Array, PyTree]:
        real, label = judged.real
        noise_key, way_key = jax.random.split(key)
        noise = spread * jnp.std(real) * jax.random.uniform(noise_key, real.shape)
        way = jax.random.uniform(way_key, real.shape if per_pixel else (real.shape[0], 1, 1, 1))
        slope = _slope(judged, real + way * noise, label)
        return jnp.mean(jnp.square(_norm(slope, (3,) if per_pixel else (1, 2, 3)) - target)), memory

    return Penalty(value, weight, every)


def r1(weight: float | tuple, every: int) -> Penalty:
    """1/2 E || d D(x) / dx ||^2 at real pictures (Mescheder et al. 2018, eq. 9); weight is their gamma."""
    return _flat(weight, every, lambda judged: judged.real)


def r2(weight: float | tuple, every: int) -> Penalty:
    """1/2 E || d D(x) / dx ||^2 at generated pictures (Mescheder et al. 2018, eq. 10)."""
    return _flat(weight, every, lambda judged: judged.fake)


def _flat(weight: float | tuple, every: int, of: Callable[[Judged], Pictures]) -> Penalty:
    def value(key: Key, judged: Judged, memory: PyTree) -> tuple[Array, PyTree]:
        return 0.5 * jnp.mean(jnp.sum(jnp.square(_slope(judged, *of(judged))), (1, 2, 3))), memory

    return Penalty(value, weight, every)


# ------------------------------------------------------------------ a discriminator's logits


def consistency(weight: float | tuple, every: int, shift: int, fakes: float) -> Penalty:
    """E (D(x) - D(T(x)))^2, T a mirror and a small shift: CR and bCR (Zhang et al. 2020; Zhao et al. 2020).

    Args:
      shift: pixels at most, each way; what comes in is reflected.
      fakes: weight of generated pictures' term relative to the real ones'. 0: CR. 1: bCR.
    """

    def term(key: Key, judged: Judged, pictures: Pictures, logit: Array) -> Array:
        image, label = pictures
        return jnp.mean(jnp.square(logit - judged.logit(_moved(key, image, shift), label)))

    def value(key: Key, judged: Judged, memory: PyTree) -> tuple[Array, PyTree]:
        real_key, fake_key = jax.random.split(key)
        total = term(real_key, judged, judged.real, judged.of_real)
        if fakes:
            total += fakes * term(fake_key, judged, judged.fake, judged.of_fake)
        return total, memory

    return Penalty(value, weight, every)


def _moved(key: Key, image: Array, shift: int) -> Array:
    """Each picture mirrored with probability 1/2, then moved by up to `shift` pixels each way."""
    flip_key, shift_key = jax.random.split(key)
    return resample.shifted(shift_key, resample.mirrored(flip_key, image, 0.5), (shift, shift), "reflect")


def lecam(weight: float | tuple, every: int, decay: float) -> Penalty:
    """E (D(x) - a_fake)^2 + E (D(G(z)) - a_real)^2 (Tseng et al. 2021, eq. 5 and 6).

    a_real and a_fake are moving averages, of decay `decay`, of the logits of either kind; they start at 0 and
    are moved before they are used.
    """

    def value(key: Key, judged: Judged, memory: PyTree) -> tuple[Array, PyTree]:
        of = jax.lax.stop_gradient({"real": jnp.mean(judged.of_real), "fake": jnp.mean(judged.of_fake)})
        mean = {name: decay * memory[name] + (1.0 - decay) * of[name] for name in of}
        real = jnp.mean(jnp.square(judged.of_real - mean["fake"]))
        return real + jnp.mean(jnp.square(judged.of_fake - mean["real"])), mean

    return Penalty(value, weight, every, {"real": jnp.zeros(()), "fake": jnp.zeros(())})


# ------------------------------------------------------------------ kernels, paths


def orthogonal(weight: float | tuple, every: int) -> Penalty:
    """Sum over kernels of || W^T W * (1 - I) ||_F^2, rows of W being inputs (Brock et al. 2018, eq. 3)."""

    def value(key: Key, seen: Judged | Made, memory: PyTree) -> tuple[Array, PyTree]:
        total = jnp.zeros(())
        for path, kernel in jax.tree_util.tree_leaves_with_path(seen.params):
            if "kernel" in jax.tree_util.keystr(path[-1:]) and kernel.ndim > 1:
                flat = kernel.reshape(-1, kernel.shape[-1])
                gram = jnp.matmul(flat.T, flat, precision=jax.lax.Precision.HIGHEST)
                total += jnp.sum(jnp.square(gram * (1.0 - jnp.eye(gram.shape[0]))))
        return total, memory

    return Penalty(value, weight, every)


def path_length(weight: float | tuple, every: int, decay: float, share: float) -> Penalty:
    """E (|| J^T y || - a)^2, J = d image / d latent, y ~ N(0, I) / side (Karras et al. 2020, eq. 4, app. B).

    Where each layer has a latent of its own, the squared norm is the mean of theirs: the paper's program.

    Args:
      decay: of the moving average a of the lengths, which starts at 0 and is moved before it is used.
      share: of the batch that is looked at, from its beginning; at least one picture.
    """

    def value(key: Key, made: Made, memory: PyTree) -> tuple[Array, PyTree]:
        few = max(1, round(share * made.latent.shape[0]))

        def dot(latent: Array) -> Array:
            image = made.render(latent)[:few]
            side = (image.shape[1] * image.shape[2]) ** 0.5
            return jnp.sum(image * jax.random.normal(key, image.shape)) / side

        slope = jax.grad(dot)(made.latent)[:few]
        squares = jnp.sum(jnp.square(slope), -1).reshape(few, -1)  # [few, layers]
        length = jnp.sqrt(jnp.mean(squares, 1) + TINY)
        mean = decay * memory + (1.0 - decay) * jax.lax.stop_gradient(jnp.mean(length))
        return jnp.mean(jnp.square(length - mean)), mean

    return Penalty(value, weight, every, jnp.zeros(()))


OF_D = {
    "gradient_penalty": gradient_penalty,
    "dragan": dragan,
    "r1": r1,
    "r2": r2,
    "consistency": consistency,
    "lecam": lecam,
    "orthogonal": orthogonal,
}
OF_G = {"orthogonal": orthogonal, "path_length": path_length}
