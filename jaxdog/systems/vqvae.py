"""VQ-VAE-2 (Razavi, van den Oord, Vinyals 2019): pictures become codes, then what follows what is learnt.

Two phases. The autoencoder's: pictures to codes of two levels and back. The prior's: the autoencoder stands
still and turns each batch into codes, which the prior learns to predict one after the other; pictures are
drawn code by code and decoded. Read downwards: the settings, the first phase, the second.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxdog import types
from jaxdog.augment import transforms
from jaxdog.models import transformer_prior, vqvae
from jaxdog.optim import optimizers

Array = types.Array
Key = types.Key

LEVELS = "top", "bottom"
PRIOR = 2000  # what the run's key is folded with for the prior's parameters


class Game(NamedTuple):
    """What stays fixed in both phases."""

    autoencoder: vqvae.Autoencoder
    prior: Any  # priors.Transformer, or what speaks as it does
    size: int  # of the pictures, pixels on a side
    codes: int  # of each codebook
    commitment: float  # weight of the encoder's squared distance to its codes
    decay: float  # of the codebooks' moving averages
    restart: float  # a code used less than so many times the mean begins anew
    temperature: float  # of drawn codes
    optimizer: optax.GradientTransformationExtraArgs  # of the autoencoder
    prior_optimizer: optax.GradientTransformationExtraArgs
    augment: Sequence[types.Augment]  # applied to the real pictures, in order
    finish: Callable[[Array], Array]  # what happens to a generated picture when it is sampled


def sides(size: int) -> tuple[int, ...]:
    """Heights of the top and of the bottom map of pictures of `size`."""
    return tuple(size // shrunk for shrunk in vqvae.SHRUNK)


def autoencoder(game: Game) -> types.System:
    """The first phase. Its samples are codes drawn each on its own, as often as it is used, and decoded."""
    if game.size % vqvae.SHRUNK[0]:
        raise ValueError(f"game.size is {game.size}, and must be a multiple of {vqvae.SHRUNK[0]}")
    for name, share in (("game.decay", game.decay), ("game.restart", game.restart)):
        if not 0.0 <= share < 1.0:
            raise ValueError(f"{name} is {share}, and must lie in [0, 1)")
    return types.System(
        partial(_init, game),
        partial(_step, game),
        partial(_sample, game),
        reconstruct=lambda state, batch, key: _reconstruct(game, *_parts(state.autoencoder), batch, key),
    )


def prior(game: Game) -> types.System:
    """The second phase."""
    if not game.temperature > 0.0:
        raise ValueError(f"game.temperature is {game.temperature}, and must be above 0")
    return types.System(
        partial(_prior_init, game),
        partial(_prior_step, game),
        partial(_prior_sample, game),
        reconstruct=lambda state, batch, key: _reconstruct(game, state.params, state.books, batch, key),
    )


def enter(game: Game, seed: int, before: "Coding") -> "Predicting":
    """The first state of the prior's phase: the autoencoder as it was learnt, without its optimiser."""
    net = _prior_net(game, jax.random.fold_in(jax.random.key(seed), PRIOR))
    params, books = _parts(before.autoencoder)
    return Predicting(step=before.step, prior=net, params=params, books=books)


# ------------------------------------------------------------------ the autoencoder


@struct.dataclass
class Coding:
    """What the first phase changes."""

    step: Array  # [] int32, steps done
    autoencoder: types.Net  # its stats: {"top", "bottom"}: vqvae.Codebook


def _parts(net: types.Net) -> tuple[types.PyTree, types.PyTree]:
    return net.params, net.stats


def _init(game: Game, key: Key, batch: types.Batch) -> Coding:
    augment_key, net_key, *book_keys = jax.random.split(key, 4)
    few = transforms.applied(game.augment, augment_key, jax.tree.map(lambda x: x[:2], batch))
    dim = game.autoencoder.code_dim
    books = {x: vqvae.codebook(k, game.codes, dim) for x, k in zip(LEVELS, book_keys, strict=True)}
    params = game.autoencoder.init(net_key, few.image, *_codes(books))["params"]
    net = types.Net(params=params, stats=books, opt=game.optimizer.init(params))
    return Coding(step=jnp.zeros((), jnp.int32), autoencoder=net)


def _codes(books: types.PyTree) -> list[Array]:
    return [books[level].code for level in LEVELS]


def _step(game: Game, state: Coding, batch: types.Batch, key: Key) -> tuple[Coding, types.Scalars]:
    """One step of the autoencoder on squared errors and commitment, one of the codebooks' averages."""
    augment_key, *book_keys = jax.random.split(jax.random.fold_in(key, state.step), 3)
    image = transforms.applied(game.augment, augment_key, batch).image
    net = state.autoencoder

    def loss(params: types.PyTree) -> tuple[Array, tuple[vqvae.Coded, types.Scalars]]:
        coded: Any = game.autoencoder.apply({"params": params}, image, *_codes(net.stats))
        error = jnp.mean(jnp.square(coded.picture - image))
        levels = {"top": coded.top, "bottom": coded.bottom}
        far = {level: jnp.mean(jnp.square(x.z - x.nearest)) for level, x in levels.items()}
        total = error + game.commitment * (far["top"] + far["bottom"])
        parts = {f"commitment/{level}": x for level, x in far.items()}
        return total, (coded, {"loss/autoencoder": total, "loss/reconstruction": error, **parts})

    (_, (coded, scalars)), gradient = jax.value_and_grad(loss, has_aux=True)(net.params)
    books = {}
    for level, seen, book_key in zip(LEVELS, (coded.top, coded.bottom), book_keys, strict=True):
        books[level], told = vqvae.moved(
            net.stats[level], seen.z, seen.index, game.decay, game.restart, book_key
        )
        scalars |= {f"{name}/{level}": x for name, x in told._asdict().items()}
    scalars["grad_norm/autoencoder"] = optax.tree.norm(gradient)
    net = optimizers.moved(net, gradient, books, game.optimizer, jnp.max(batch.hours))
    return Coding(step=state.step + 1, autoencoder=net), scalars


def _sample(game: Game, state: Coding, key: Array, label: Array) -> Array:
    del label
    params, books = _parts(state.autoencoder)

    def one(key: Key) -> Array:
        """Codes [n] of one picture."""
        parts = [
            jax.random.categorical(jax.random.fold_in(key, i), jnp.log(books[level].use), shape=(side**2,))
            for i, (level, side) in enumerate(zip(LEVELS, sides(game.size), strict=True))
        ]
        return jnp.concatenate(parts)

    return game.finish(_decoded(game, params, books, jax.vmap(one)(key)))


def _decoded(game: Game, params: types.PyTree, books: types.PyTree, code: Array) -> Array:
    """Codes [b, n], top before bottom, row by row -> pictures [b, s, s, 3] in [-1, 1]."""
    parts = jnp.split(code, [sides(game.size)[0] ** 2], 1)
    maps = [
        books[level].code[part].reshape(-1, side, side, game.autoencoder.code_dim)
        for level, part, side in zip(LEVELS, parts, sides(game.size), strict=True)
    ]
    picture: Any = game.autoencoder.apply({"params": params}, *maps, method="decode")
    return jnp.clip(picture, -1.0, 1.0)


def _reconstruct(
    game: Game, params: types.PyTree, books: types.PyTree, batch: types.Batch, key: Key
) -> tuple[Array, Array]:
    """Pictures as the encoder sees them, and what comes back, both [b, s, s, 3] in [-1, 1]."""
    image = transforms.applied(game.augment, key, batch).image
    coded: Any = game.autoencoder.apply({"params": params}, image, *_codes(books))
    return image, jnp.clip(coded.picture, -1.0, 1.0)


# ------------------------------------------------------------------ the prior


@struct.dataclass
class Predicting:
    """What the second phase changes, and the autoencoder, which it does not."""

    step: Array  # [] int32, steps done, those of the first phase too
    prior: types.Net
    params: types.PyTree  # of the autoencoder
    books: types.PyTree


def _prior_net(game: Game, key: Key) -> types.Net:
    code, label = jnp.zeros((1, sum(game.prior.lengths)), jnp.int32), jnp.zeros(1, jnp.int32)
    params = game.prior.init(key, code, label, False)["params"]
    return types.Net(params=params, stats={}, opt=game.prior_optimizer.init(params))


def _prior_init(game: Game, key: Key, batch: types.Batch) -> Predicting:
    before = _init(game, key, batch)
    params, books = _parts(before.autoencoder)
    return Predicting(step=before.step, prior=_prior_net(game, key), params=params, books=books)


def sequence(game: Game, params: types.PyTree, books: types.PyTree, image: Array) -> Array:
    """Pictures [b, s, s, 3] -> their codes [b, n] int32: the top map's row by row, then the bottom's."""
    seen: Any = game.autoencoder.apply({"params": params}, image, *_codes(books), method="encode")
    return jnp.concatenate([x.index.reshape(image.shape[0], -1) for x in seen], 1)


def _prior_step(
    game: Game, state: Predicting, batch: types.Batch, key: Key
) -> tuple[Predicting, types.Scalars]:
    """One step on the codes' log-likelihood; bits are those of one code, log2(codes) if nothing is known."""
    augment_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))
    image = transforms.applied(game.augment, augment_key, batch).image
    code = jax.lax.stop_gradient(sequence(game, state.params, state.books, image))

    def loss(params: types.PyTree) -> tuple[Array, types.Scalars]:
        rngs = {"dropout": dropout_key}
        logits: Any = game.prior.apply({"params": params}, code, batch.label, True, rngs=rngs)
        nats = transformer_prior.nats(logits, code)
        mean = jnp.mean(nats)
        bits = nats / jnp.log(2.0)
        parts = jnp.split(bits, [sides(game.size)[0] ** 2], 1)
        scalars = {f"bits_per_code/{level}": jnp.mean(x) for level, x in zip(LEVELS, parts, strict=True)}
        scalars["bits_per_dim/prior"] = jnp.mean(jnp.sum(bits, 1)) / (3 * game.size**2)
        return mean, {"loss/prior": mean, **scalars}

    (_, scalars), gradient = jax.value_and_grad(loss, has_aux=True)(state.prior.params)
    scalars["grad_norm/prior"] = optax.tree.norm(gradient)
    net = optimizers.moved(state.prior, gradient, {}, game.prior_optimizer, jnp.max(batch.hours))
    return Predicting(step=state.step + 1, prior=net, params=state.params, books=state.books), scalars


def _prior_sample(game: Game, state: Predicting, key: Array, label: Array) -> Array:
    """Pictures [b, h, w, c], one key [b] and one breed [b] each."""
    code = transformer_prior.draw(game.prior, state.prior.params, key, label, game.temperature)
    return game.finish(_decoded(game, state.params, state.books, code))
