"""The two-player game: a discriminator tells real from generated, a generator learns to fool it.

Read downwards: the state, the settings, one step of each player, the whole step, sampling.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct

from jaxdog import ema, losses, sampling, system

Array = system.Array
Key = system.Key
PyTree = system.PyTree
Loss = Callable[[PyTree, Any], tuple[Array, tuple[PyTree, system.Scalars]]]

CHOICES = {
    "sample_norm": ("running", "batch", "refreshed"),
    "judge": ("jointly", "apart"),
    "fakes": ("fresh", "reused"),
    "fake_labels": ("uniform", "real"),
}


@struct.dataclass
class State:
    """Everything that training changes."""

    step: Array  # [] int32, steps done
    g: system.Net
    d: system.Net
    ema: ema.Average  # of the generator


class Game(NamedTuple):
    """What stays fixed: the two networks, how they learn, and how pictures are drawn."""

    generator: nn.Module  # (z [b, latent_dim], label [b], train, key [b]) -> [b, h, w, c] in [-1, 1]
    discriminator: nn.Module  # (image, label [b], train) -> system.Verdict
    latent_dim: int
    classes: int
    loss: losses.Loss
    g_optimizer: optax.GradientTransformationExtraArgs
    d_optimizer: optax.GradientTransformationExtraArgs
    augment: Sequence[system.Augment]  # applied to the real pictures, in order
    d_steps: int  # discriminator steps per generator step
    accumulate: int  # batches whose gradients are averaged for one optimiser step
    judge: str  # real and generated pictures go through the discriminator "jointly" or "apart"
    fakes: str  # the generator learns from "fresh" latents or "reused" ones of the discriminator's last step
    fake_labels: str  # breeds of generated pictures: "uniform", or those of the "real" ones beside them
    g_reals: bool  # a relativistic generator step gets real pictures of its own
    breeds: float  # weight of the breeds' cross-entropy: of real ones for the one, of fakes for the other
    ema_decay: float | Array
    ema_start: int  # steps before which the average is pegged to the generator
    ema_stats: str  # "average" | "copy"
    latent: Callable[[Array], Array]  # key [b] -> z [b, latent_dim], for sampling
    sample_norm: str  # "running" | "batch" | "refreshed": which batch statistics sampling uses
    refresh: tuple[int, int]  # "refreshed": over so many batches of so many pictures
    finish: Callable[[Array], Array]  # what happens to a generated picture when it is sampled


class _Keys(NamedTuple):
    """One batch's randomness."""

    augment: Key
    noise: Key
    loss: Key


def gan(game: Game) -> system.System:
    """The game as pure functions. One `step` takes `batches(game)` real batches at once."""
    for name, choices in CHOICES.items():
        if getattr(game, name) not in choices:
            raise ValueError(f"{name} is {getattr(game, name)!r}; choices: {', '.join(map(repr, choices))}")
    for name, count in (("d_steps", game.d_steps), ("accumulate", game.accumulate)):
        if count < 1:
            raise ValueError(f"game.{name} is {count}, and must be at least 1")
    prepare = partial(_refresh, game) if game.sample_norm == "refreshed" else None
    return system.System(partial(_init, game), partial(_step, game), partial(_sample, game), prepare)


def batches(game: Game) -> int:
    """How many real batches one step consumes."""
    return (game.d_steps + (game.loss.relative and game.g_reals)) * game.accumulate


def _init(game: Game, key: Key, batch: system.Batch) -> State:
    g_key, d_key, augment_key = jax.random.split(key, 3)
    few = _augmented(game, augment_key, jax.tree.map(lambda x: x[:2], batch))
    z, keys = jnp.zeros((few.label.shape[0], game.latent_dim)), jax.random.split(key, few.label.shape[0])
    g = _net(game.generator.init(g_key, z, few.label, train=False, key=keys), game.g_optimizer)
    d = _net(game.discriminator.init(d_key, few.image, few.label, train=False), game.d_optimizer)
    return State(step=jnp.zeros((), jnp.int32), g=g, d=d, ema=ema.start(g.params, g.stats))


def _net(variables: PyTree, optimizer: optax.GradientTransformation) -> system.Net:
    stats = {name: tree for name, tree in variables.items() if name != "params"}
    return system.Net(params=variables["params"], stats=stats, opt=optimizer.init(variables["params"]))


def _forward(
    module: nn.Module, params: PyTree, stats: PyTree, *inputs: Array, update: bool, **named: Any
) -> tuple[Any, PyTree]:
    """A training pass and the statistics after it: new ones if `update`, else `stats` as they are."""
    mutable: Any = list(stats) if update else False
    out: Any = module.apply({"params": params, **stats}, *inputs, train=True, mutable=mutable, **named)
    return out if update else (out, stats)


def _fakes(
    game: Game, net: system.Net, params: PyTree, key: Key, real: system.Batch, update: bool
) -> tuple[Array, Array, PyTree]:
    """As many generated pictures as real ones, their breeds [b], and the generator's statistics after it."""
    z_key, label_key, noise_key = jax.random.split(key, 3)
    b = real.label.shape[0]
    z = jax.random.normal(z_key, (b, game.latent_dim))
    label = jax.random.randint(label_key, (b,), 0, game.classes)
    label = real.label if game.fake_labels == "real" else label
    keys = jax.random.split(noise_key, b)
    image, stats = _forward(game.generator, params, net.stats, z, label, update=update, key=keys)
    return image, label, stats


def _learn(
    net: system.Net,
    optimizer: optax.GradientTransformationExtraArgs,
    loss: Loss,
    batches: Any,
    accumulate: int,
    hours: Array | float = 0.0,
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
    updates, opt = optimizer.update(gradient, net.opt, net.params, hours=hours)
    scalars = {**scalars, "grad_norm": optax.tree.norm(gradient)}
    return system.Net(optax.apply_updates(net.params, updates), stats, opt), scalars


def _judge(
    game: Game, params: PyTree, stats: PyTree, real: tuple[Array, Array], fake: tuple[Array, Array]
) -> tuple[system.Verdict, system.Verdict, PyTree]:
    """Verdicts on (image, label) of both kinds, and the discriminator's statistics after them."""
    if game.judge == "apart":
        of_real, stats = _forward(game.discriminator, params, stats, *real, update=True)
        of_fake, stats = _forward(game.discriminator, params, stats, *fake, update=True)
        return of_real, of_fake, stats
    # One call on both halves: spectral norm iterates once per discriminator step.
    both = (jnp.concatenate(pair) for pair in zip(real, fake, strict=True))
    verdict, stats = _forward(game.discriminator, params, stats, *both, update=True)
    of_real, of_fake = (jax.tree.map(lambda x, i=i: jnp.split(x, 2)[i], verdict) for i in range(2))
    return of_real, of_fake, stats


def _breed_loss(game: Game, verdict: system.Verdict, label: Array) -> tuple[Array | float, system.Scalars]:
    """The breeds' weighted cross-entropy, and what there is to report of it."""
    if not game.breeds:
        return 0.0, {}
    if verdict.breeds is None:
        raise ValueError(f"game.breeds is {game.breeds}, but this discriminator does not classify")
    entropy = jnp.mean(optax.losses.softmax_cross_entropy_with_integer_labels(verdict.breeds, label))
    right = jnp.mean(jnp.argmax(verdict.breeds, -1) == label)
    return game.breeds * entropy, {"loss/breed": entropy, "accuracy/breed": right}


def _d_step(
    game: Game, g: system.Net, d: system.Net, batch: system.Batch, keys: _Keys
) -> tuple[system.Net, system.Scalars]:
    """The discriminator learns from `batch` [accumulate, b, ...]; the generator is only read."""

    def loss(
        params: PyTree, inputs: tuple[system.Batch, _Keys]
    ) -> tuple[Array, tuple[PyTree, system.Scalars]]:
        real, keys = inputs
        real = _augmented(game, keys.augment, real)
        image, label, _ = _fakes(game, g, g.params, keys.noise, real, update=False)
        image = jax.lax.stop_gradient(image)
        of_real, of_fake, stats = _judge(game, params, d.stats, (real.image, real.label), (image, label))
        terms = game.loss.d(keys.loss, of_real.logit, of_fake.logit)
        real_loss, fake_loss = (jnp.mean(term) for term in terms)
        breed_loss, breeds = _breed_loss(game, of_real, real.label)
        total = real_loss + fake_loss + breed_loss
        scalars = {
            "loss/d": total,
            "loss/d_real": real_loss,
            "loss/d_fake": fake_loss,
            "logit/real": jnp.mean(of_real.logit),
            "logit/fake": jnp.mean(of_fake.logit),
            **{f"{name}_real": x for name, x in breeds.items()},
        }
        return total, (stats, scalars)

    d, scalars = _learn(d, game.d_optimizer, loss, (batch, keys), game.accumulate, jnp.max(batch.hours))
    return d, {_named(name, "d"): value for name, value in scalars.items()}


def _g_step(
    game: Game, g: system.Net, d: system.Net, batch: system.Batch, keys: _Keys
) -> tuple[system.Net, system.Scalars]:
    """The generator learns from the discriminator, whose spectral norm stays as the last step left it."""

    def loss(
        params: PyTree, inputs: tuple[system.Batch, _Keys]
    ) -> tuple[Array, tuple[PyTree, system.Scalars]]:
        real, keys = inputs
        image, label, stats = _fakes(game, g, params, keys.noise, real, update=True)
        verdict, _ = _forward(game.discriminator, d.params, d.stats, image, label, update=False)
        logit = verdict.logit
        if game.loss.relative:
            real = _augmented(game, keys.augment, real)
            of_real, _ = _forward(game.discriminator, d.params, d.stats, real.image, real.label, update=False)
            logit = of_real.logit
        adversarial = jnp.mean(game.loss.g(keys.loss, logit, verdict.logit))
        breed_loss, breeds = _breed_loss(game, verdict, label)
        scalars = {"loss/g": adversarial + breed_loss, **{f"{name}_fake": x for name, x in breeds.items()}}
        return adversarial + breed_loss, (stats, scalars)

    g, scalars = _learn(g, game.g_optimizer, loss, (batch, keys), game.accumulate, jnp.max(batch.hours))
    return g, {_named(name, "g"): value for name, value in scalars.items()}


def _named(scalar: str, player: str) -> str:
    return f"grad_norm/{player}" if scalar == "grad_norm" else scalar


def _augmented(game: Game, key: Key, batch: system.Batch) -> system.Batch:
    for i, augment in enumerate(game.augment):
        batch = augment(jax.random.fold_in(key, i), batch)
    return batch


def _step(game: Game, state: State, batch: system.Batch, key: Key) -> tuple[State, system.Scalars]:
    """`d_steps` discriminator steps, one generator step, one update of the average."""
    d_key, g_key = jax.random.split(jax.random.fold_in(key, state.step))
    parts = _parts(batch, batches(game) // game.accumulate, game.accumulate)
    d, scalars = state.d, {}
    for i in range(game.d_steps):
        part = jax.tree.map(lambda x, i=i: x[i], parts)
        keys = _keys(game, jax.random.fold_in(d_key, i))
        d, scalars = _d_step(game, state.g, d, part, keys)
    last = jax.tree.map(lambda x: x[-1], parts)  # of its own, or that of the last discriminator step
    fresh = _keys(game, g_key)._replace(loss=keys.loss)
    g, g_scalars = _g_step(
        game, state.g, d, last, fresh._replace(noise=keys.noise) if game.fakes == "reused" else fresh
    )
    step = state.step + 1
    average = ema.update(state.ema, g.params, g.stats, step, game.ema_decay, game.ema_start, game.ema_stats)
    return State(step=step, g=g, d=d, ema=average), {**scalars, **g_scalars}


def _keys(game: Game, key: Key) -> _Keys:
    """Keys [accumulate] of each kind."""
    return _Keys(*(jax.random.split(part, game.accumulate) for part in jax.random.split(key, 3)))


def _parts(batch: system.Batch, steps: int, accumulate: int) -> system.Batch:
    """[steps * accumulate * b, ...] -> [steps, accumulate, b, ...].

    Neighbours go to different parts, so that a batch sharded over devices stays sharded along b.
    """

    def split(x: Array) -> Array:
        x = x.reshape(-1, steps, accumulate, *x.shape[1:])
        return jnp.moveaxis(x, 0, 2)

    return jax.tree.map(split, batch)


def _sample(game: Game, state: State, key: Array, label: Array) -> Array:
    """Pictures [b, h, w, c] of the averaged generator, one key [b] and one breed [b] each."""
    variables = {"params": state.ema.params, **state.ema.stats}
    train = game.sample_norm == "batch"
    return game.finish(_picture(game, variables, key, label, train=train))


def _picture(game: Game, variables: PyTree, key: Array, label: Array, **options: Any) -> Any:
    return game.generator.apply(variables, game.latent(key), label, key=key, **options)


def _refresh(game: Game, state: Any, key: Key) -> Any:
    """The state with the average's statistics moved by forward passes over fresh pictures, breeds uniform."""
    count, b = game.refresh

    def one(stats: PyTree, key: Key) -> tuple[PyTree, None]:
        label_key, z_key = jax.random.split(key)
        label = jax.random.randint(label_key, (b,), 0, game.classes)
        keys = sampling.image_keys(z_key, b)
        _, moved = _picture(
            game, {"params": state.ema.params, **stats}, keys, label, train=True, mutable=list(stats)
        )
        return moved, None

    stats, _ = jax.lax.scan(one, state.ema.stats, jax.random.split(key, count))
    return state.replace(ema=ema.Average(state.ema.params, stats))
