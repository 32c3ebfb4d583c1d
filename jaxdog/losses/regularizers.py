"""Regularizers: terms added to the loss of the discriminator or of the generator.

`apply_regularizers` sums them; `gan_steps.d_loss` and `gan_steps.g_loss` add the sum to the loss. A config
lists them in `system.d_regularizers` and `system.g_regularizers`: each name is a function in D_REGULARIZERS
or G_REGULARIZERS, and its fields are the function's arguments. All functions have the arguments

  weight: factor of the term; a pair (first, last) changes along half a cosine over training.
  interval: the term is computed only at every `interval`-th step of the player, and multiplied by `interval`,
    so that its mean over steps does not depend on it (lazy regularization, Karras et al. 2020, "Analyzing and
    Improving the Image Quality of StyleGAN", sec. 3.1).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdog import types
from jaxdog.ops import ramps, resample
from jaxdog.utils import errors

Array = types.Array
Key = types.Key
PyTree = types.PyTree
Images = tuple[Array, Array]  # image [b, h, w, c], label [b]
Weight = float | tuple

REAL, FAKE = 0, 1  # kinds of images

TINY = 1e-12  # added to a squared norm before the square root, whose derivative at 0 is infinite


class DRegularizerInputs(NamedTuple):
    """What a discriminator's regularizer may use."""

    logit: Callable[[Array, Array], Array]  # (image, label) -> [b], with the model state of this step
    real: Images  # as D sees them, after diffaugment
    fake: Images
    real_logit: Array  # [b], as in the adversarial loss
    fake_logit: Array  # [b]
    params: PyTree
    raw: tuple[Array, Array]  # the real and the generated images before diffaugment
    augment: Callable[[int, Array], Array]  # (REAL or FAKE, images) -> diffaugment's, with the same draws


class GRegularizerInputs(NamedTuple):
    """What a generator's regularizer may use."""

    synthesize: Callable[[Array], Array]  # latent [b, ..., k] -> image [b, h, w, c]
    latent: Array  # z [b, k], or w [b, layers, k] of a style-based generator
    params: PyTree


class Regularizer(NamedTuple):
    """A term of a player's loss."""

    value: Callable[[Key, Any, PyTree], tuple[Array, PyTree]]  # (key, inputs, state) -> (term [], new state)
    weight: Weight
    interval: int
    init_state: PyTree = ()


Regularizers = Mapping[str, Regularizer]


class RegularizerOutput(NamedTuple):
    """Result of `apply_regularizers`."""

    loss: Array | float  # [], the weighted sum of the terms that are computed at this step
    state: dict[str, PyTree]  # new states, by name
    scalars: types.Scalars  # "regularizer/NAME": the term without its weight, times its interval


def init_state(regularizers: Regularizers) -> dict[str, PyTree]:
    """States before the first step, by name."""
    return {name: jax.tree.map(jnp.asarray, row.init_state) for name, row in regularizers.items()}


def apply_regularizers(
    regularizers: Regularizers,
    key: Key,
    step: Array,
    inputs: DRegularizerInputs | GRegularizerInputs,
    state: Mapping[str, PyTree],
    progress: Array | float = 0.0,
) -> RegularizerOutput:
    """Sums a player's regularizers.

    Args:
      regularizers: the player's, by name.
      key: for regularizers that draw random numbers.
      step: [] int32, steps that this player has done.
      inputs: what the terms are functions of.
      state: of each regularizer, by name.
      progress: [], fraction of training done, for weights that change.

    Raises:
      UserError: an interval below 1.
    """
    loss: Array | float = 0.0
    new_state, scalars = dict(state), {}
    for i, (name, row) in enumerate(regularizers.items()):
        if row.interval < 1:
            raise errors.UserError(f"{name}.interval is {row.interval}, and must be at least 1")

        value, new_state[name] = _evaluate(row, jax.random.fold_in(key, i), step, inputs, state[name])
        loss += ramps.cosine_ramp(row.weight, progress) * row.interval * value
        scalars[f"regularizer/{name}"] = row.interval * value
    return RegularizerOutput(loss, new_state, scalars)


def _evaluate(
    row: Regularizer, key: Key, step: Array, inputs: DRegularizerInputs | GRegularizerInputs, state: PyTree
) -> tuple[Array, PyTree]:
    """The term and the new state; 0 and the old state between two intervals."""

    def compute() -> tuple[Array, PyTree]:
        return row.value(key, inputs, state)

    if row.interval == 1:
        return compute()
    return jax.lax.cond(step % row.interval == 0, compute, lambda: (jnp.zeros(()), state))


def _stateless(value: Callable[[Key, Any], Array]) -> Callable[[Key, Any, PyTree], tuple[Array, PyTree]]:
    """`Regularizer.value` of a term (key, inputs) -> [] without state."""
    return lambda key, inputs, state: (value(key, inputs), state)


# ------------------------------------------------------------------ gradient penalties of a discriminator


def _image_gradient(inputs: DRegularizerInputs, image: Array, label: Array) -> Array:
    """d logit / d image, [b, h, w, c]."""
    return jax.grad(lambda image: jnp.sum(inputs.logit(image, label)))(image)


def _norm(gradient: Array, axes: tuple[int, ...] = (1, 2, 3)) -> Array:
    return jnp.sqrt(jnp.sum(jnp.square(gradient), axes) + TINY)


def gradient_penalty(weight: Weight, interval: int, target: float) -> Regularizer:
    """WGAN-GP: E[(||dD(x)/dx|| - target)^2], x between real and fake images (Gulrajani et al. 2017, eq. 3).

    x = real + u (fake - real) with u ~ U[0, 1) per image, and the real image's label. The paper's weight is
    10, its target 1.
    """

    def value(key: Key, inputs: DRegularizerInputs) -> Array:
        (real, label), (fake, _) = inputs.real, inputs.fake
        u = jax.random.uniform(key, (real.shape[0], 1, 1, 1))
        gradient = _image_gradient(inputs, real + u * (fake - real), label)
        return jnp.mean(jnp.square(_norm(gradient) - target))

    return Regularizer(_stateless(value), weight, interval)


def dragan(weight: Weight, interval: int, noise_scale: float, target: float, per_pixel: bool) -> Regularizer:
    """DRAGAN: E[(||dD(x)/dx|| - target)^2], x near real images (Kodali et al. 2017, eq. 1 and sec. 3.3).

    x = real + v * noise_scale * std * u with u ~ U[0, 1) per value, v ~ U[0, 1) per image, and std that of
    all values in the batch. The paper's weight is 10, its target 1, its noise_scale 0.5.

    Args:
      weight, interval: see the module.
      noise_scale: scale of the perturbation, in standard deviations.
      target: target value of the norm.
      per_pixel: the variant of a Kaggle notebook of 2019, whose training collapsed: v is drawn per value
        instead of per image, and the norm is that of each pixel's three derivatives instead of the image's.
    """

    def value(key: Key, inputs: DRegularizerInputs) -> Array:
        real, label = inputs.real
        u_key, v_key = jax.random.split(key)
        noise = noise_scale * jnp.std(real) * jax.random.uniform(u_key, real.shape)
        v = jax.random.uniform(v_key, real.shape if per_pixel else (real.shape[0], 1, 1, 1))
        gradient = _image_gradient(inputs, real + v * noise, label)
        return jnp.mean(jnp.square(_norm(gradient, (3,) if per_pixel else (1, 2, 3)) - target))

    return Regularizer(_stateless(value), weight, interval)


def r1(weight: Weight, interval: int) -> Regularizer:
    """R1: 1/2 E[||dD(x)/dx||^2] at real images x (Mescheder et al. 2018, eq. 9); weight is the paper's gamma.

    With diffaugment T, D(x) is D(T(x)): the gradient is that of the image before T, as in StyleGAN2-ADA.
    `gan_steps.d_loss` adds weight * interval * R1 to D's loss at D's steps 0, interval, 2 interval, ...: the
    paper's interval is 1, StyleGAN2's 16 (lazy regularization).
    """
    return _zero_centered(weight, interval, REAL)


def r2(weight: Weight, interval: int) -> Regularizer:
    """R2: 1/2 E[||dD(x)/dx||^2] at generated images x (Mescheder et al. 2018, eq. 10); else as R1."""
    return _zero_centered(weight, interval, FAKE)


def _zero_centered(weight: Weight, interval: int, kind: int) -> Regularizer:
    def value(key: Key, inputs: DRegularizerInputs) -> Array:
        _, label = (inputs.real, inputs.fake)[kind]

        def total(image: Array) -> Array:
            return jnp.sum(inputs.logit(inputs.augment(kind, image), label))

        return 0.5 * jnp.mean(jnp.sum(jnp.square(jax.grad(total)(inputs.raw[kind])), (1, 2, 3)))

    return Regularizer(_stateless(value), weight, interval)


# ------------------------------------------------------------------ regularizers of a discriminator's logits


def consistency(weight: Weight, interval: int, shift: int, fake_weight: float) -> Regularizer:
    """E[(D(x) - D(T(x)))^2], T a random flip and shift: CR (Zhang et al. 2020) and bCR (Zhao et al. 2020).

    Args:
      weight, interval: see the module.
      shift: largest shift in pixels along each axis; the border is reflected.
      fake_weight: weight of the generated images' term relative to that of the real ones. 0: CR. 1: bCR.
    """

    def term(key: Key, inputs: DRegularizerInputs, images: Images, logit: Array) -> Array:
        image, label = images
        return jnp.mean(jnp.square(logit - inputs.logit(_flip_and_shift(key, image, shift), label)))

    def value(key: Key, inputs: DRegularizerInputs) -> Array:
        real_key, fake_key = jax.random.split(key)
        total = term(real_key, inputs, inputs.real, inputs.real_logit)
        if fake_weight:
            total += fake_weight * term(fake_key, inputs, inputs.fake, inputs.fake_logit)
        return total

    return Regularizer(_stateless(value), weight, interval)


def _flip_and_shift(key: Key, image: Array, shift: int) -> Array:
    """Flips each image with probability 1/2, then shifts it by up to `shift` pixels along each axis."""
    flip_key, shift_key = jax.random.split(key)
    flipped = resample.random_flip(flip_key, image, 0.5)
    return resample.random_shift(shift_key, flipped, (shift, shift), "reflect")


def lecam(weight: Weight, interval: int, decay: float) -> Regularizer:
    """LeCam: E[(D(x) - a_fake)^2] + E[(D(G(z)) - a_real)^2] (Tseng et al. 2021, eq. 5 and 6).

    a_real and a_fake are exponential moving averages of the logits with decay `decay`; they start at 0 and
    are updated before use.
    """

    def value(key: Key, inputs: DRegularizerInputs, state: PyTree) -> tuple[Array, PyTree]:
        current = {"real": jnp.mean(inputs.real_logit), "fake": jnp.mean(inputs.fake_logit)}
        current = jax.lax.stop_gradient(current)
        average = {name: decay * state[name] + (1.0 - decay) * current[name] for name in current}
        real_term = jnp.mean(jnp.square(inputs.real_logit - average["fake"]))
        return real_term + jnp.mean(jnp.square(inputs.fake_logit - average["real"])), average

    return Regularizer(value, weight, interval, {"real": jnp.zeros(()), "fake": jnp.zeros(())})


# ------------------------------------------------------------------ either player, and a generator


def orthogonal(weight: Weight, interval: int) -> Regularizer:
    """Sum over kernels W [inputs, outputs] of ||W^T W * (1 - I)||_F^2 (Brock et al. 2018, eq. 3).

    Class embeddings are among the kernels; the authors' code leaves out that of the generator.
    """

    def value(key: Key, inputs: DRegularizerInputs | GRegularizerInputs) -> Array:
        total = jnp.zeros(())
        for path, kernel in jax.tree_util.tree_leaves_with_path(inputs.params):
            if "kernel" in jax.tree_util.keystr(path[-1:]) and kernel.ndim > 1:
                matrix = kernel.reshape(-1, kernel.shape[-1])
                gram = jnp.matmul(matrix.T, matrix, precision=jax.lax.Precision.HIGHEST)
                total += jnp.sum(jnp.square(gram * (1.0 - jnp.eye(gram.shape[0]))))
        return total

    return Regularizer(_stateless(value), weight, interval)


def path_length(weight: Weight, interval: int, decay: float, batch_fraction: float) -> Regularizer:
    """E[(||J^T y|| - a)^2], J = d image / d latent, y ~ N(0, I) / side (Karras et al. 2020, eq. 4, app. B).

    For w [b, layers, k] the squared norm is averaged over layers, as in the authors' code.

    Args:
      weight, interval: see the module.
      decay: of the moving average a of the lengths, which starts at 0 and is updated before use.
      batch_fraction: fraction of the batch that is used, its first images (at least one).
    """

    def value(key: Key, inputs: GRegularizerInputs, average: PyTree) -> tuple[Array, PyTree]:
        n = max(1, round(batch_fraction * inputs.latent.shape[0]))

        def projected(latent: Array) -> Array:
            image = inputs.synthesize(latent)[:n]
            side = (image.shape[1] * image.shape[2]) ** 0.5
            return jnp.sum(image * jax.random.normal(key, image.shape)) / side

        gradient = jax.grad(projected)(inputs.latent)[:n]
        squares = jnp.sum(jnp.square(gradient), -1).reshape(n, -1)  # [n, layers]
        length = jnp.sqrt(jnp.mean(squares, 1) + TINY)
        average = decay * average + (1.0 - decay) * jax.lax.stop_gradient(jnp.mean(length))
        return jnp.mean(jnp.square(length - average)), average

    return Regularizer(value, weight, interval, jnp.zeros(()))


D_REGULARIZERS = {
    "gradient_penalty": gradient_penalty,
    "dragan": dragan,
    "r1": r1,
    "r2": r2,
    "consistency": consistency,
    "lecam": lecam,
    "orthogonal": orthogonal,
}
G_REGULARIZERS = {"orthogonal": orthogonal, "path_length": path_length}
