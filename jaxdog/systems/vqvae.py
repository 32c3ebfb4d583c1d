"""VQ-VAE-2 (Razavi, van den Oord, Vinyals 2019): an autoencoder with discrete codes, and a prior over them.

It is trained in two phases. The first trains the autoencoder, images to codes of two levels and back. The
second keeps the autoencoder fixed and trains an autoregressive prior on the codes of each batch. Images are
sampled code by code and decoded.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxdog import types
from jaxdog.augment import transforms
from jaxdog.models import code_prior, vqvae
from jaxdog.optim import optimizers
from jaxdog.utils import errors

Array = types.Array
Key = types.Key

LEVELS = "top", "bottom"
PRIOR_SEED = 2000  # folded into the run's key for the prior's parameters


class VQVAESpec(NamedTuple):
    """Networks and hyperparameters of both phases."""

    autoencoder: vqvae.Autoencoder
    prior: Any  # with the interface described in `models.code_prior`
    size: int  # height and width of the images
    codebook_size: int  # of each level
    commitment: float  # weight of the commitment loss
    decay: float  # of the codebooks' moving averages, in [0, 1)
    dead_code_threshold: float  # in [0, 1), see `models.vqvae.update_codebook`
    temperature: float  # of sampled codes
    optimizer: optax.GradientTransformationExtraArgs  # of the autoencoder
    prior_optimizer: optax.GradientTransformationExtraArgs
    augment: Sequence[types.Augment]  # of real images, in order
    postprocess: Callable[[Array], Array]  # of sampled images


def map_sides(size: int) -> tuple[int, ...]:
    """Heights of the top and of the bottom map, for images of `size`."""
    return tuple(size // factor for factor in vqvae.DOWNSAMPLING)


def autoencoder(spec: VQVAESpec) -> types.System:
    """The first phase. Its samples are decoded from independent codes, drawn in proportion to their usage.

    Raises:
      UserError: a size that is not a multiple of 8, or a decay or threshold outside [0, 1).
    """
    if spec.size % vqvae.DOWNSAMPLING[0]:
        raise errors.UserError(
            f"system.resolution is {spec.size}, and must be a multiple of {vqvae.DOWNSAMPLING[0]}"
        )
    fractions = {"decay": spec.decay, "dead_code_threshold": spec.dead_code_threshold}
    for name, value in fractions.items():
        if not 0.0 <= value < 1.0:
            raise errors.UserError(f"system.{name} is {value}, and must lie in [0, 1)")
    return types.System(
        partial(_init, spec),
        partial(_step, spec),
        partial(_sample, spec),
        reconstruct=lambda state, batch, key: _reconstruct(
            spec, state.autoencoder.params, state.autoencoder.model_state, batch, key
        ),
    )


def prior(spec: VQVAESpec) -> types.System:
    """The second phase.

    Raises:
      UserError: a temperature that is not positive.
    """
    if not spec.temperature > 0.0:
        raise errors.UserError(f"system.temperature is {spec.temperature}, and must be above 0")
    return types.System(
        partial(_prior_init, spec),
        partial(_prior_step, spec),
        partial(_prior_sample, spec),
        reconstruct=lambda state, batch, key: _reconstruct(spec, state.params, state.codebooks, batch, key),
    )


# ------------------------------------------------------------------ the autoencoder


@struct.dataclass
class AutoencoderState:
    """Training state of the first phase."""

    step: Array  # [] int32, steps done
    autoencoder: types.PlayerState  # its model state: {"top", "bottom"}: vqvae.Codebook


def _init(spec: VQVAESpec, key: Key, batch: types.Batch) -> AutoencoderState:
    augment_key, params_key, *book_keys = jax.random.split(key, 4)
    example = transforms.apply_augments(spec.augment, augment_key, jax.tree.map(lambda x: x[:2], batch))
    codebooks = {
        level: vqvae.init_codebook(book_key, spec.codebook_size, spec.autoencoder.code_dim)
        for level, book_key in zip(LEVELS, book_keys, strict=True)
    }
    params = spec.autoencoder.init(params_key, example.image, *_codes(codebooks))["params"]
    player = types.PlayerState(params=params, model_state=codebooks, opt_state=spec.optimizer.init(params))
    return AutoencoderState(step=jnp.zeros((), jnp.int32), autoencoder=player)


def _codes(codebooks: types.PyTree) -> list[Array]:
    return [codebooks[level].code for level in LEVELS]


def _step(
    spec: VQVAESpec, state: AutoencoderState, batch: types.Batch, key: Key
) -> tuple[AutoencoderState, types.Scalars]:
    """One step of the autoencoder on squared error and commitment loss, and one update of the codebooks."""
    augment_key, *book_keys = jax.random.split(jax.random.fold_in(key, state.step), 3)
    image = transforms.apply_augments(spec.augment, augment_key, batch).image
    player = state.autoencoder

    def loss(params: types.PyTree) -> tuple[Array, tuple[vqvae.AutoencoderOutput, types.Scalars]]:
        output: Any = spec.autoencoder.apply({"params": params}, image, *_codes(player.model_state))
        error = jnp.mean(jnp.square(output.reconstruction - image))
        levels = {"top": output.top, "bottom": output.bottom}
        commitment = {level: jnp.mean(jnp.square(x.z - x.nearest)) for level, x in levels.items()}
        total = error + spec.commitment * (commitment["top"] + commitment["bottom"])
        scalars = {f"commitment/{level}": x for level, x in commitment.items()}
        return total, (output, {"loss/autoencoder": total, "loss/reconstruction": error, **scalars})

    (_, (output, scalars)), gradient = jax.value_and_grad(loss, has_aux=True)(player.params)
    codebooks = {}
    for level, quantized, book_key in zip(LEVELS, (output.top, output.bottom), book_keys, strict=True):
        codebooks[level], metrics = vqvae.update_codebook(
            player.model_state[level],
            quantized.z,
            quantized.index,
            spec.decay,
            spec.dead_code_threshold,
            book_key,
        )
        scalars |= {f"{name}/{level}": x for name, x in metrics._asdict().items()}
    scalars["grad_norm/autoencoder"] = optax.tree.norm(gradient)
    player = optimizers.apply_gradients(player, gradient, codebooks, spec.optimizer, jnp.max(batch.hours))
    return AutoencoderState(step=state.step + 1, autoencoder=player), scalars


def _sample(spec: VQVAESpec, state: AutoencoderState, key: Array, label: Array) -> Array:
    """Images [b, h, w, c] of independent codes, drawn in proportion to their usage, for keys [b]."""
    del label
    params, codebooks = state.autoencoder.params, state.autoencoder.model_state

    def draw(key: Key) -> Array:
        """The code indices [n] of one image."""
        maps = []
        for i, (level, side) in enumerate(zip(LEVELS, map_sides(spec.size), strict=True)):
            logits = jnp.log(codebooks[level].ema_count)
            maps.append(jax.random.categorical(jax.random.fold_in(key, i), logits, shape=(side**2,)))
        return jnp.concatenate(maps)

    return spec.postprocess(_decode(spec, params, codebooks, jax.vmap(draw)(key)))


def _decode(spec: VQVAESpec, params: types.PyTree, codebooks: types.PyTree, code: Array) -> Array:
    """Code indices [b, n], top before bottom, row by row -> images [b, s, s, 3] in [-1, 1]."""
    parts = jnp.split(code, [map_sides(spec.size)[0] ** 2], 1)
    maps = [
        codebooks[level].code[part].reshape(-1, side, side, spec.autoencoder.code_dim)
        for level, part, side in zip(LEVELS, parts, map_sides(spec.size), strict=True)
    ]
    image: Any = spec.autoencoder.apply({"params": params}, *maps, method="decode")
    return jnp.clip(image, -1.0, 1.0)


def _reconstruct(
    spec: VQVAESpec, params: types.PyTree, codebooks: types.PyTree, batch: types.Batch, key: Key
) -> tuple[Array, Array]:
    """The encoder's inputs and their reconstructions, both [b, s, s, 3] in [-1, 1]."""
    image = transforms.apply_augments(spec.augment, key, batch).image
    output: Any = spec.autoencoder.apply({"params": params}, image, *_codes(codebooks))
    return image, jnp.clip(output.reconstruction, -1.0, 1.0)


# ------------------------------------------------------------------ the prior


@struct.dataclass
class PriorState:
    """Training state of the second phase, and the fixed autoencoder."""

    step: Array  # [] int32, steps done, including those of the first phase
    prior: types.PlayerState
    params: types.PyTree  # of the autoencoder
    codebooks: types.PyTree


def transition(spec: VQVAESpec, seed: int, before: AutoencoderState) -> PriorState:
    """Initial state of the second phase: the trained autoencoder without its optimizer, and a new prior."""
    return _with_new_prior(spec, jax.random.fold_in(jax.random.key(seed), PRIOR_SEED), before)


def _prior_init(spec: VQVAESpec, key: Key, batch: types.Batch) -> PriorState:
    return _with_new_prior(spec, key, _init(spec, key, batch))


def _with_new_prior(spec: VQVAESpec, key: Key, before: AutoencoderState) -> PriorState:
    code, label = jnp.zeros((1, sum(spec.prior.lengths)), jnp.int32), jnp.zeros(1, jnp.int32)
    prior = optimizers.init_player(spec.prior.init(key, code, label, False), spec.prior_optimizer)
    return PriorState(
        step=before.step,
        prior=prior,
        params=before.autoencoder.params,
        codebooks=before.autoencoder.model_state,
    )


def encode(spec: VQVAESpec, params: types.PyTree, codebooks: types.PyTree, image: Array) -> Array:
    """Images [b, s, s, 3] -> code indices [b, n] int32: the top map row by row, then the bottom map."""
    levels: Any = spec.autoencoder.apply({"params": params}, image, *_codes(codebooks), method="encode")
    return jnp.concatenate([x.index.reshape(image.shape[0], -1) for x in levels], 1)


def _prior_step(
    spec: VQVAESpec, state: PriorState, batch: types.Batch, key: Key
) -> tuple[PriorState, types.Scalars]:
    """One step of the prior on the negative log-likelihood of the codes."""
    augment_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))
    image = transforms.apply_augments(spec.augment, augment_key, batch).image
    code = jax.lax.stop_gradient(encode(spec, state.params, state.codebooks, image))

    def loss(params: types.PyTree) -> tuple[Array, types.Scalars]:
        rngs = {"dropout": dropout_key}
        logits: Any = spec.prior.apply({"params": params}, code, batch.label, True, rngs=rngs)
        nll = code_prior.nll(logits, code)
        mean = jnp.mean(nll)
        bits = nll / jnp.log(2.0)
        parts = jnp.split(bits, [map_sides(spec.size)[0] ** 2], 1)
        scalars = {f"bits_per_code/{level}": jnp.mean(x) for level, x in zip(LEVELS, parts, strict=True)}
        scalars["bits_per_dim/prior"] = jnp.mean(jnp.sum(bits, 1)) / (3 * spec.size**2)
        return mean, {"loss/prior": mean, **scalars}

    (_, scalars), gradient = jax.value_and_grad(loss, has_aux=True)(state.prior.params)
    scalars["grad_norm/prior"] = optax.tree.norm(gradient)
    player = optimizers.apply_gradients(state.prior, gradient, {}, spec.prior_optimizer, jnp.max(batch.hours))
    return dataclasses.replace(state, step=state.step + 1, prior=player), scalars


def _prior_sample(spec: VQVAESpec, state: PriorState, key: Array, label: Array) -> Array:
    """Images [b, h, w, c] for keys [b] and labels [b]."""
    code = code_prior.sample_codes(spec.prior, state.prior.params, key, label, spec.temperature)
    return spec.postprocess(_decode(spec, state.params, state.codebooks, code))
