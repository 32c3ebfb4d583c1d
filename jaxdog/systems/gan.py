"""The two-player game: a discriminator tells real from generated, a generator learns to fool it.

Read downwards: the state, the settings, one step of each player, the whole step, sampling.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct

from jaxdog import ema, losses, system

Array = system.Array
Key = system.Key
PyTree = system.PyTree


class Augment(Protocol):
    """One random change of pictures: (key, [b, h, w, c]) -> [b, h, w, c]."""

    def __call__(self, key: Key, image: Array, /) -> Array: ...


@struct.dataclass
class State:
    """Everything that training changes."""

    step: Array  # [] int32, steps done
    g: system.Net
    d: system.Net
    ema: ema.Average  # of the generator


class Game(NamedTuple):
    """What stays fixed: the two networks, how they learn, and how pictures are drawn."""

    generator: nn.Module  # (z [b, latent_dim], label [b], train) -> [b, h, w, c] in [-1, 1]
    discriminator: nn.Module  # (image, label [b], train) -> [b] float32
    latent_dim: int
    classes: int
    loss: losses.Loss
    g_optimizer: optax.GradientTransformation
    d_optimizer: optax.GradientTransformation
    augment: Sequence[Augment]  # applied to the real pictures, in order
    d_steps: int  # discriminator steps per generator step
    accumulate: int  # batches whose gradients are averaged for one optimiser step
    ema_decay: float
    ema_start: int  # steps before which the average is pegged to the generator
    ema_stats: str  # "average" | "copy"
    latent: Callable[[Array], Array]  # key [b] -> z [b, latent_dim], for sampling
    sample_norm: str  # "running" | "batch": which batch statistics sampling uses


def gan(game: Game) -> system.System:
    """The game as three pure functions. One `step` takes `d_steps * accumulate` real batches at once."""
    if game.sample_norm not in ("running", "batch"):
        raise ValueError(f"sample.norm is {game.sample_norm!r}; choices: 'running', 'batch'")
    for name, count in (("d_steps", game.d_steps), ("accumulate", game.accumulate)):
        if count < 1:
            raise ValueError(f"game.{name} is {count}, and must be at least 1")
    return system.System(init=partial(_init, game), step=partial(_step, game), sample=partial(_sample, game))


def _init(game: Game, key: Key, batch: system.Batch) -> State:
    g_key, d_key = jax.random.split(key)
    image, label = batch.image[:2], batch.label[:2]
    z = jnp.zeros((image.shape[0], game.latent_dim))
    g = _net(game.generator.init(g_key, z, label, train=False), game.g_optimizer)
    d = _net(game.discriminator.init(d_key, image, label, train=False), game.d_optimizer)
    return State(step=jnp.zeros((), jnp.int32), g=g, d=d, ema=ema.start(g.params, g.stats))


def _net(variables: PyTree, optimizer: optax.GradientTransformation) -> system.Net:
    stats = {name: tree for name, tree in variables.items() if name != "params"}
    return system.Net(params=variables["params"], stats=stats, opt=optimizer.init(variables["params"]))


def _forward(
    module: nn.Module, params: PyTree, stats: PyTree, *inputs: Array, update: bool
) -> tuple[Array, PyTree]:
    """A training pass and the statistics after it: new ones if `update`, else `stats` as they are."""
    variables = {"params": params, **stats}
    out: Any = module.apply(variables, *inputs, train=True, mutable=list(stats) if update else False)
    return out if update else (out, stats)


def _noise(game: Game, key: Key, b: int) -> tuple[Array, Array]:
    """Latents [b, latent_dim] and uniform breeds [b] for training."""
    z_key, label_key = jax.random.split(key)
    z = jax.random.normal(z_key, (b, game.latent_dim))
    return z, jax.random.randint(label_key, (b,), 0, game.classes)


def _learn(
    net: system.Net,
    optimizer: optax.GradientTransformation,
    loss: Callable[[PyTree, Any], tuple[Array, tuple[PyTree, system.Scalars]]],
    batches: Any,
    accumulate: int,
) -> tuple[system.Net, system.Scalars]:
    """One optimiser step on the mean loss over `accumulate` batches (leading axis of `batches`).

    Each batch starts from the same `net.stats` and what they become is averaged, so that spectral norm
    iterates once and its sigma is one number for the whole step: the result is that of one large batch.
    """
    grad = jax.value_and_grad(loss, has_aux=True)

    def one(batch: Any) -> tuple[PyTree, PyTree, system.Scalars]:
        (_, (stats, scalars)), gradient = grad(net.params, batch)
        return gradient, stats, scalars

    if accumulate == 1:
        gradient, stats, scalars = one(jax.tree.map(lambda x: x[0], batches))
    else:
        first = jax.tree.map(lambda x: x[0], batches)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(one, first))

        def add(total: PyTree, batch: Any) -> tuple[PyTree, None]:
            return jax.tree.map(jnp.add, total, one(batch)), None

        total, _ = jax.lax.scan(add, zeros, batches)
        gradient, stats, scalars = jax.tree.map(lambda x: x / accumulate, total)
    updates, opt = optimizer.update(gradient, net.opt, net.params)
    scalars = {**scalars, "grad_norm": optax.tree.norm(gradient)}
    return system.Net(optax.apply_updates(net.params, updates), stats, opt), scalars


def _d_step(
    game: Game, g: system.Net, d: system.Net, batch: system.Batch, key: Key
) -> tuple[system.Net, system.Scalars]:
    """The discriminator learns from `batch` [accumulate, b, ...]; the generator is only read."""

    def loss(params: PyTree, inputs: tuple[system.Batch, Key]) -> tuple[Array, tuple[PyTree, system.Scalars]]:
        real, key = inputs
        augment_key, noise_key = jax.random.split(key)
        image = _augmented(game, augment_key, real.image)
        z, label = _noise(game, noise_key, image.shape[0])
        fake, _ = _forward(game.generator, g.params, g.stats, z, label, update=False)
        # One call on both halves: spectral norm iterates once per discriminator step.
        images = jnp.concatenate([image, jax.lax.stop_gradient(fake)])
        labels = jnp.concatenate([real.label, label])
        logit, stats = _forward(game.discriminator, params, d.stats, images, labels, update=True)
        real_logit, fake_logit = jnp.split(logit, 2)
        real_loss, fake_loss = (jnp.mean(term) for term in game.loss.d(real_logit, fake_logit))
        total = real_loss + fake_loss
        scalars = {
            "loss/d": total,
            "loss/d_real": real_loss,
            "loss/d_fake": fake_loss,
            "logit/real": jnp.mean(real_logit),
            "logit/fake": jnp.mean(fake_logit),
        }
        return total, (stats, scalars)

    keys = jax.random.split(key, game.accumulate)
    d, scalars = _learn(d, game.d_optimizer, loss, (batch, keys), game.accumulate)
    return d, {_named(name, "d"): value for name, value in scalars.items()}


def _g_step(game: Game, g: system.Net, d: system.Net, key: Key, b: int) -> tuple[system.Net, system.Scalars]:
    """The generator learns from the discriminator, whose spectral norm stays as the last step left it."""

    def loss(params: PyTree, key: Key) -> tuple[Array, tuple[PyTree, system.Scalars]]:
        z, label = _noise(game, key, b)
        fake, stats = _forward(game.generator, params, g.stats, z, label, update=True)
        logit, _ = _forward(game.discriminator, d.params, d.stats, fake, label, update=False)
        total = jnp.mean(game.loss.g(logit))
        return total, (stats, {"loss/g": total})

    keys = jax.random.split(key, game.accumulate)
    g, scalars = _learn(g, game.g_optimizer, loss, keys, game.accumulate)
    return g, {_named(name, "g"): value for name, value in scalars.items()}


def _named(scalar: str, player: str) -> str:
    return f"grad_norm/{player}" if scalar == "grad_norm" else scalar


def _augmented(game: Game, key: Key, image: Array) -> Array:
    for i, augment in enumerate(game.augment):
        image = augment(jax.random.fold_in(key, i), image)
    return image


def _step(game: Game, state: State, batch: system.Batch, key: Key) -> tuple[State, system.Scalars]:
    """`d_steps` discriminator steps, one generator step, one update of the average."""
    d_key, g_key = jax.random.split(jax.random.fold_in(key, state.step))
    b = batch.label.shape[0] // (game.d_steps * game.accumulate)
    parts = _parts(batch, game.d_steps, game.accumulate)
    d, scalars = state.d, {}
    for i in range(game.d_steps):
        part = jax.tree.map(lambda x, i=i: x[i], parts)
        d, scalars = _d_step(game, state.g, d, part, jax.random.fold_in(d_key, i))
    g, g_scalars = _g_step(game, state.g, d, g_key, b)
    step = state.step + 1
    average = ema.update(state.ema, g.params, g.stats, step, game.ema_decay, game.ema_start, game.ema_stats)
    return State(step=step, g=g, d=d, ema=average), {**scalars, **g_scalars}


def _parts(batch: system.Batch, d_steps: int, accumulate: int) -> system.Batch:
    """[d_steps * accumulate * b, ...] -> [d_steps, accumulate, b, ...].

    Neighbours go to different parts, so that a batch sharded over devices stays sharded along b.
    """

    def split(x: Array) -> Array:
        x = x.reshape(-1, d_steps, accumulate, *x.shape[1:])
        return jnp.moveaxis(x, 0, 2)

    return jax.tree.map(split, batch)


def _sample(game: Game, state: State, key: Array, label: Array) -> Array:
    """Pictures [b, h, w, c] of the averaged generator, one key [b] and one breed [b] each."""
    variables = {"params": state.ema.params, **state.ema.stats}
    image: Any = game.generator.apply(variables, game.latent(key), label, train=game.sample_norm == "batch")
    return image
