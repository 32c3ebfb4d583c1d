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

from jaxdog import types
from jaxdog.augment import diffaugment, transforms
from jaxdog.losses import adversarial, class_loss, regularizers
from jaxdog.models import layers
from jaxdog.ops import ramps
from jaxdog.optim import ema, optimizers
from jaxdog.systems import sampling

Array = types.Array
Key = types.Key
PyTree = types.PyTree
Average = ema.Average

DiffAugment = Callable[[Key, Array, Array], Array]  # (key, image, p) -> image
Draw = Callable[..., tuple[Array, Array, PyTree]]  # the last arguments of `_fakes`, but for `update`
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
    g: types.Net
    d: types.Net
    ema: Average  # of the generator
    tracks: tuple[Average, ...]  # further ones


class Game(NamedTuple):
    """What stays fixed: the two networks, how they learn, and how pictures are drawn."""

    # (z [b, latent_dim], label [b], train, key [b]) -> [b, h, w, c] in [-1, 1]. One that has the methods
    # `styles` (of the same -> [b, layers, k]) and `paint` (styles, train, key -> pictures) composes them.
    generator: nn.Module
    discriminator: nn.Module  # (image, label [b], train) -> system.Verdict; may draw numbers called "dropout"
    latent_dim: int
    classes: int
    loss: adversarial.Loss
    g_optimizer: optax.GradientTransformationExtraArgs
    d_optimizer: optax.GradientTransformationExtraArgs
    augment: Sequence[types.Augment]  # applied to the real pictures, in order
    d_penalties: regularizers.Penalties
    g_penalties: regularizers.Penalties
    changes: Sequence[DiffAugment]  # applied to what the discriminator sees of either kind, in order
    control: diffaugment.Control  # of its probability
    d_steps: int  # discriminator steps per generator step
    accumulate: int  # batches whose gradients are averaged for one optimiser step
    judge: str  # real and generated pictures go through the discriminator "jointly" or "apart"
    fakes: str  # the generator learns from "fresh" latents or "reused" ones of the discriminator's last step
    fake_labels: str  # breeds of generated pictures: "uniform", or those of the "real" ones beside them
    g_reals: bool  # a relativistic generator step gets real pictures of its own
    breed_loss: class_loss.BreedLoss | None  # what breeds teach both players, beside that
    average: ema.Rule  # of the generator
    tracks: tuple[float, ...]  # decays of further averages
    label_ramp: tuple[float, float]  # shares of the run between which breeds come in
    steps: int  # of the run, for what changes on the way
    latent: Callable[[Array], Array]  # key [b] -> z [b, latent_dim], for sampling
    sample_norm: str  # "running" | "batch" | "refreshed": which batch statistics sampling uses
    refresh: tuple[int, int]  # "refreshed": over so many batches of so many pictures
    finish: Callable[[Array], Array]  # what happens to a generated picture when it is sampled
    remat: bool  # backward passes make the inside of each block again in place of keeping it
    axis: str | None  # of the devices, where each takes its step on its own pictures; None: all as one


class _Keys(NamedTuple):
    """One batch's randomness."""

    augment: Key
    noise: Key
    change: Key  # of what either kind goes through before the discriminator
    drop: Key  # of the discriminator, where it drops features
    loss: Key
    penalty: Key


def gan(game: Game) -> types.System:
    """The game as pure functions. One `step` takes `batches(game)` real batches at once."""
    for name, choices in CHOICES.items():
        if getattr(game, name) not in choices:
            raise ValueError(f"{name} is {getattr(game, name)!r}; choices: {', '.join(map(repr, choices))}")
    for name, count in (("d_steps", game.d_steps), ("accumulate", game.accumulate)):
        if count < 1:
            raise ValueError(f"game.{name} is {count}, and must be at least 1")
    _check_ramp(game)
    prepare = partial(_refresh, game) if game.sample_norm == "refreshed" else None
    return types.System(
        partial(_init, game),
        partial(_step, game),
        partial(_sample, game),
        prepare,
        apart=game.axis is not None,
    )


def _check_ramp(game: Game) -> None:
    ramp = game.label_ramp
    if len(ramp) != 2 or not (ramp == (0.0, 0.0) or 0.0 <= ramp[0] < ramp[1] <= 1.0):
        raise ValueError(
            f"game.label_ramp is {ramp}, and must be (0, 0) or two shares that rise within [0, 1]"
        )
    for network in (game.generator, game.discriminator):
        if ramp[1] and not hasattr(network, "told"):
            kind = f"{type(network).__module__}.{type(network).__name__}"
            raise ValueError(f"game.label_ramp is {ramp}, but {kind} cannot be told of breeds bit by bit")


def batches(game: Game) -> int:
    """How many real batches one step consumes."""
    return (game.d_steps + (game.loss.relative and game.g_reals)) * game.accumulate


def _init(game: Game, key: Key, batch: types.Batch) -> State:
    g_key, d_key, augment_key = jax.random.split(key, 3)
    few = transforms.applied(game.augment, augment_key, jax.tree.map(lambda x: x[:2], batch))
    z, keys = jnp.zeros((few.label.shape[0], game.latent_dim)), jax.random.split(key, few.label.shape[0])
    g_memory = {"paid": regularizers.start(game.g_penalties)}
    d_memory = {"paid": regularizers.start(game.d_penalties), "p": game.control.memory}
    g = game.generator.init(g_key, z, few.label, train=False, key=keys)
    d = game.discriminator.init(d_key, few.image, few.label, train=False)
    g, d = _net(g, game.g_optimizer, g_memory), _net(d, game.d_optimizer, d_memory)
    averages = [ema.start(g.params, g.stats) for _ in range(1 + len(game.tracks))]
    return State(step=jnp.zeros((), jnp.int32), g=g, d=d, ema=averages[0], tracks=tuple(averages[1:]))


def _net(variables: PyTree, optimizer: optax.GradientTransformation, memory: PyTree) -> types.Net:
    stats = {name: tree for name, tree in variables.items() if name != "params"}
    return types.Net(variables["params"], stats, optimizer.init(variables["params"]), memory)


def _forward(
    game: Game, module: nn.Module, params: PyTree, stats: PyTree, *inputs: Array, update: bool, **named: Any
) -> tuple[Any, PyTree]:
    """A training pass and the statistics after it: new ones if `update`, else `stats` as they are."""
    mutable: Any = list(stats) if update else False
    apply: Any = partial(module.apply, train=True, mutable=mutable, **named)
    if game.remat:
        apply = jax.checkpoint(apply, policy=jax.checkpoint_policies.save_only_these_names(layers.BLOCK))
    out: Any = apply({"params": params, **stats}, *inputs)
    return out if update else (out, stats)


def _fakes(
    game: Game, net: types.Net, params: PyTree, key: Key, real: types.Batch, update: bool
) -> tuple[Array, Array, PyTree]:
    """As many generated pictures as real ones, their breeds [b], and the generator's statistics after it."""
    z, label, keys = _drawn(game, key, real)
    image, stats = _forward(game, game.generator, params, net.stats, z, label, update=update, key=keys)
    return image, label, stats


def _once(game: Game, net: types.Net, key: Key, real: types.Batch) -> Draw:
    """`_fakes` that are made now: the pass that made them is the one that the generator learns through."""

    def forward(params: PyTree) -> tuple[Array, tuple[Array, PyTree]]:
        image, label, stats = _fakes(game, net, params, key, real, update=True)
        return image, (label, stats)

    image, pull, rest = jax.vjp(forward, net.params, has_aux=True)
    again = jax.custom_vjp(lambda params: image)
    again.defvjp(lambda params: (image, None), lambda _, slope: pull(slope))
    return lambda params, key, real: (again(params), *rest)


def _drawn(game: Game, key: Key, real: types.Batch) -> tuple[Array, Array, Array]:
    """What generated pictures are made of: latents [b, latent_dim], breeds [b], keys [b]."""
    z_key, label_key, noise_key = jax.random.split(key, 3)
    b = real.label.shape[0]
    z = jax.random.normal(z_key, (b, game.latent_dim))
    label = jax.random.randint(label_key, (b,), 0, game.classes)
    label = real.label if game.fake_labels == "real" else label
    return types.shared_out((z, label, jax.random.split(noise_key, b)))


def _made(game: Game, net: types.Net, params: PyTree, key: Key, real: types.Batch) -> regularizers.Made:
    """The pictures of `_fakes` once more, as a function of their latents, or of the styles made of these."""
    z, label, keys = _drawn(game, key, real)
    passed = partial(_forward, game, game.generator, params, net.stats, update=False, key=keys)
    if not hasattr(game.generator, "paint"):
        return regularizers.Made(lambda z: passed(z, label)[0], z, params)
    styles, _ = passed(z, label, method="styles")
    return regularizers.Made(lambda styles: passed(styles, method="paint")[0], styles, params)


def _verdict(
    game: Game, params: PyTree, stats: PyTree, image: Array, label: Array, key: Key, update: bool
) -> tuple[types.Verdict, PyTree]:
    """What the discriminator says in training; `key` is for the features that it drops, if it does."""
    rngs = {"dropout": key}
    return _forward(game, game.discriminator, params, stats, image, label, update=update, rngs=rngs)


def _judge(
    game: Game, params: PyTree, stats: PyTree, real: tuple[Array, Array], fake: tuple[Array, Array], key: Key
) -> tuple[types.Verdict, types.Verdict, PyTree]:
    """Verdicts on (image, label) of both kinds, and the discriminator's statistics after them."""
    if game.judge == "apart":
        keys = jax.random.split(key)
        of_real, stats = _verdict(game, params, stats, *real, keys[0], update=True)
        of_fake, stats = _verdict(game, params, stats, *fake, keys[1], update=True)
        return of_real, of_fake, stats
    # One call on both kinds: spectral norm iterates once per discriminator step.
    image, label = (types.in_turn(*pair) for pair in zip(real, fake, strict=True))
    verdict, stats = _verdict(game, params, stats, image, label, key, update=True)
    of_real, of_fake = (jax.tree.map(lambda x, i=i: types.every_other(x)[i], verdict) for i in range(2))
    return of_real, of_fake, stats


def _breed_loss(
    game: Game, verdict: types.Verdict, label: Array, kind: str
) -> tuple[Array | float, types.Scalars]:
    """What breeds teach, weighted, and what there is to report of it; kind: "real" | "fake" pictures."""
    loss = game.breed_loss
    if loss is None:
        return 0.0, {}
    heard = loss.heard(verdict, game.classes)
    mean = jnp.mean(loss.real(*heard, label))
    right = jnp.mean(jnp.argmax(heard[0][:, : game.classes], -1) == label)
    return loss.weight * mean, {f"loss/breed_{kind}": mean, f"accuracy/breed_{kind}": right}


def _d_step(
    game: Game, draw: Draw, d: types.Net, batch: types.Batch, keys: _Keys, step: Array, i: int
) -> tuple[types.Net, types.Scalars]:
    """Its step number i learns from `batch` [accumulate, b, ...] and what is drawn: (key, batch) -> fakes."""

    def loss(params: PyTree, inputs: tuple[types.Batch, _Keys]) -> tuple[Array, optimizers.Aux]:
        batch, keys = inputs
        batch = transforms.applied(game.augment, keys.augment, batch)
        image, label, _ = draw(keys.noise, batch)
        real = _changed(game, d, keys.change, 0, step, batch.image), batch.label
        fake = _changed(game, d, keys.change, 1, step, jax.lax.stop_gradient(image)), label
        of_real, of_fake, stats = _judge(game, params, d.stats, real, fake, keys.drop)

        def logit(image: Array, label: Array) -> Array:
            drop = jax.random.fold_in(keys.drop, 2)  # 0 and 1 are those of a split
            return _verdict(game, params, stats, image, label, drop, update=False)[0].logit

        judged = regularizers.Judged(logit, real, fake, of_real.logit, of_fake.logit, params)
        turn = step * game.d_steps + i
        owing = game.d_penalties, keys.penalty, turn, judged, d.memory["paid"]
        due, paid, owed = regularizers.pay(*owing, step / game.steps)
        memory = {"paid": paid, "p": game.control.after(d.memory["p"], of_real.logit)}
        terms = game.loss.d(keys.loss, of_real.logit, of_fake.logit)
        real_loss, fake_loss = (jnp.mean(term) for term in terms)
        breed_loss, told = _breed_loss(game, of_real, batch.label, "real")
        if game.breed_loss and game.breed_loss.fake:
            heard = game.breed_loss.heard(of_fake, game.classes)
            breed_loss += game.breed_loss.weight * jnp.mean(game.breed_loss.fake(*heard, label))
        total = real_loss + fake_loss + breed_loss + due
        scalars = {
            "loss/d": total,
            "loss/d_real": real_loss,
            "loss/d_fake": fake_loss,
            "logit/real": jnp.mean(of_real.logit),
            "logit/fake": jnp.mean(of_fake.logit),
            **told,
            **{f"{name}/d": x for name, x in owed.items()},
            **({"augment_p": game.control.p(step, memory["p"])} if game.changes else {}),
        }
        return total, (stats, memory, scalars)

    d, scalars = optimizers.learn(
        d, game.d_optimizer, loss, (batch, keys), game.accumulate, jnp.max(batch.hours), game.axis
    )
    return d, {_named(name, "d"): value for name, value in scalars.items()}


def _g_step(
    game: Game, g: types.Net, draw: Draw, d: types.Net, batch: types.Batch, keys: _Keys, step: Array
) -> tuple[types.Net, types.Scalars]:
    """The generator learns from the discriminator, whose spectral norm stays as the last step left it."""

    def loss(params: PyTree, inputs: tuple[types.Batch, _Keys]) -> tuple[Array, optimizers.Aux]:
        real, keys = inputs

        def logit(kind: int, image: Array, label: Array) -> types.Verdict:
            image = _changed(game, d, keys.change, kind, step, image)
            drop = jax.random.fold_in(keys.drop, kind)
            return _verdict(game, d.params, d.stats, image, label, drop, update=False)[0]

        image, label, stats = draw(params, keys.noise, real)
        verdict = logit(1, image, label)
        of_real = verdict.logit
        if game.loss.relative:
            real = transforms.applied(game.augment, keys.augment, real)
            of_real = logit(0, real.image, real.label).logit
        adversarial_loss = jnp.mean(game.loss.g(keys.loss, of_real, verdict.logit))
        breed_loss, told = _breed_loss(game, verdict, label, "fake")
        made = _made(game, g, params, keys.noise, real)
        owing = game.g_penalties, keys.penalty, step, made, g.memory["paid"]
        due, paid, owed = regularizers.pay(*owing, step / game.steps)
        total = adversarial_loss + breed_loss + due
        scalars = {
            "loss/g": total,
            **told,
            **{f"{name}/g": x for name, x in owed.items()},
        }
        return total, (stats, {"paid": paid}, scalars)

    g, scalars = optimizers.learn(
        g, game.g_optimizer, loss, (batch, keys), game.accumulate, jnp.max(batch.hours), game.axis
    )
    return g, {_named(name, "g"): value for name, value in scalars.items()}


def _named(scalar: str, player: str) -> str:
    return f"grad_norm/{player}" if scalar == "grad_norm" else scalar


def _changed(game: Game, d: types.Net, key: Key, kind: int, step: Array, image: Array) -> Array:
    """Pictures as the discriminator sees them; kind 0: real, 1: generated."""
    p = game.control.p(step, d.memory["p"])
    for i, change in enumerate(game.changes):
        image = change(jax.random.fold_in(key, 2 * i + kind), image, p)
    return image


def _step(game: Game, state: State, batch: types.Batch, key: Key) -> tuple[State, types.Scalars]:
    """`d_steps` discriminator steps, one generator step, one update of the average."""
    game = _told(game, state.step)
    key = key if game.axis is None else jax.random.fold_in(key, jax.lax.axis_index(game.axis))
    d_key, g_key = jax.random.split(jax.random.fold_in(key, state.step))
    parts = _parts(batch, batches(game) // game.accumulate, game.accumulate)
    d, scalars = state.d, {}
    seen = partial(_fakes, game, state.g, state.g.params, update=game.fakes == "reused")  # the same to both
    draw = partial(_fakes, game, state.g, update=True)
    # One pass of the generator serves both players, unless its memory is what is to be saved.
    shared = game.fakes == "reused" and game.accumulate == 1 and not game.remat
    for i in range(game.d_steps):
        part = jax.tree.map(lambda x, i=i: x[i], parts)
        keys = _keys(game, jax.random.fold_in(d_key, i))
        if shared and i == game.d_steps - 1:
            draw = _once(game, state.g, keys.noise[0], jax.tree.map(lambda x: x[0], part))
            seen = partial(draw, state.g.params)
        d, scalars = _d_step(game, seen, d, part, keys, state.step, i)
    last = jax.tree.map(lambda x: x[-1], parts)  # of its own, or that of the last discriminator step
    fresh = _keys(game, g_key)._replace(loss=keys.loss)
    fresh = fresh._replace(noise=keys.noise) if game.fakes == "reused" else fresh
    g, g_scalars = _g_step(game, state.g, draw, d, last, fresh, state.step)
    step = state.step + 1
    average = ema.update(state.ema, g.params, g.stats, step, game.average)
    tracks = tuple(
        ema.update(track, g.params, g.stats, step, game.average._replace(decay=decay))
        for track, decay in zip(state.tracks, game.tracks, strict=True)
    )
    return State(step=step, g=g, d=d, ema=average, tracks=tracks), {**scalars, **g_scalars}


def _told(game: Game, step: Array) -> Game:
    """The game as it is at `step`: both networks are told of breeds as much as `label_ramp` has it.

    Shahbazi et al. 2022: with few pictures of each breed, networks that know breeds from the start collapse.
    """
    begin, end = game.label_ramp
    if end == 0.0:
        return game
    told = ramps.ramp(begin, end, step / game.steps)
    return game._replace(
        generator=game.generator.clone(told=told), discriminator=game.discriminator.clone(told=told)
    )


def _keys(game: Game, key: Key) -> _Keys:
    """Keys [accumulate] of each kind."""
    return _Keys(
        *(jax.random.split(part, game.accumulate) for part in jax.random.split(key, len(_Keys._fields)))
    )


def _parts(batch: types.Batch, steps: int, accumulate: int) -> types.Batch:
    """[steps * accumulate * b, ...] -> [steps, accumulate, b, ...].

    Neighbours go to different parts, so that a batch sharded over devices stays sharded along b.
    """

    if batch.label.shape[0] % (steps * accumulate):
        raise ValueError(
            f"each device has {batch.label.shape[0]} pictures of a step, which cannot be cut into {steps} x "
            f"{accumulate} equal batches; make game.batch_size a multiple of the devices"
        )

    def split(x: Array) -> Array:
        x = x.reshape(-1, steps, accumulate, *x.shape[1:])
        return jnp.moveaxis(x, 0, 2)

    return jax.tree.map(split, batch)


def _sample(game: Game, state: State, key: Array, label: Array) -> Array:
    """Pictures [b, h, w, c] of the averaged generator, one key [b] and one breed [b] each."""
    game, variables = _told(game, state.step), {"params": state.ema.params, **state.ema.stats}
    train = game.sample_norm == "batch"
    return game.finish(_picture(game, variables, key, label, train=train))


def _picture(game: Game, variables: PyTree, key: Array, label: Array, **options: Any) -> Any:
    return game.generator.apply(variables, game.latent(key), label, key=key, **options)


def _refresh(game: Game, state: Any, key: Key) -> Any:
    """The state with the average's statistics moved by forward passes over fresh pictures, breeds uniform."""
    game, (count, b) = _told(game, state.step), game.refresh

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
