"""Flow matching with straight paths (Lipman et al. 2023; Liu et al. 2023; Tong et al. 2024).

A network learns the velocity that carries noise to images. With noise x0 ~ N(0, I), a real image x1 and a
time t in [0, 1], the path is x_t = (1 - t) x0 + t x1 (Liu et al. 2023, eq. 1), and the regression target is
its velocity x1 - x0. Images are sampled by solving dx/dt = v(x, t) from noise at t = 0 to t = 1.

Classes are left out at random in training, so that one network gives the velocity with and without a class,
which classifier-free guidance combines (Ho and Salimans 2022).
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct

from jaxdog import types
from jaxdog.augment import transforms
from jaxdog.optim import ema, optimizers
from jaxdog.utils import errors

Array = types.Array
Key = types.Key
PyTree = types.PyTree
EMA = ema.EMA
Velocity = Callable[[Array, Array], Array]  # (x [b, h, w, c], t []) -> dx/dt [b, h, w, c]


@struct.dataclass
class State:
    """Training state."""

    step: Array  # [] int32, steps done
    g: types.PlayerState  # the velocity network
    ema: EMA  # of the network
    extra_emas: tuple[EMA, ...]  # further ones


class FlowSpec(NamedTuple):
    """Network and hyperparameters."""

    # (x [b, h, w, c], t [b], label [b] in [0, classes], train) -> [b, h, w, c]; the label `classes` is none.
    network: nn.Module
    shape: tuple[int, int, int]  # h, w, c of an image
    classes: int
    time: str  # a key of TIMES
    label_dropout: float  # probability that the class of a training image is left out
    guidance: float  # weight w of v(x, none) + w (v(x, class) - v(x, none)); 1: the class's velocity
    solver: str  # a key of SOLVERS
    solver_steps: int
    optimizer: optax.GradientTransformationExtraArgs
    augment: Sequence[types.Augment]  # of real images, in order
    ema_rule: ema.EMARule
    extra_ema_decays: tuple[float, ...]
    latent: Callable[[Array], Array]  # key [b] -> noise [b, h * w * c]
    postprocess: Callable[[Array], Array]  # of sampled images


def flow(spec: FlowSpec) -> types.System:
    """Flow matching as a system; its latent is the noise.

    Raises UserError for an unknown solver or distribution of times, or a value out of range.
    """
    for name, choices in (("time", TIMES), ("solver", SOLVERS)):
        if getattr(spec, name) not in choices:
            raise errors.UserError(
                f"system.{name} is {getattr(spec, name)!r}; choices: {', '.join(map(repr, choices))}"
            )
    if not 0.0 <= spec.label_dropout <= 1.0:
        raise errors.UserError(f"system.label_dropout is {spec.label_dropout}, and must lie in [0, 1]")
    if spec.guidance != 1.0 and not spec.label_dropout:
        raise errors.UserError(
            f"system.guidance is {spec.guidance}, which needs the velocity without a class: set "
            "system.label_dropout above 0, such as 0.1, or guidance to 1"
        )
    return types.System(
        init=partial(_init, spec),
        step=partial(_step, spec),
        sample=lambda state, key, label: decode(spec, state, spec.latent(key), label, key),
        latent=spec.latent,
        decode=partial(decode, spec),
    )


# ------------------------------------------------------------------ training


def _logit_normal(key: Key, shape: tuple[int, ...]) -> Array:
    return jax.nn.sigmoid(jax.random.normal(key, shape))


# Distributions of training times: uniform, or more in the middle (Esser et al. 2024, sec. 3.1; m = 0, s = 1).
TIMES: dict[str, Callable[[Key, tuple[int, ...]], Array]] = {
    "uniform": jax.random.uniform,
    "logit_normal": _logit_normal,
}


def _init(spec: FlowSpec, key: Key, batch: types.Batch) -> State:
    x = jnp.zeros((2, *spec.shape))
    variables: Any = spec.network.init(key, x, jnp.zeros(2), jnp.zeros(2, jnp.int32), train=False)
    g = optimizers.init_player(variables, spec.optimizer)
    emas = tuple(ema.init(g.params, {}) for _ in _ema_rules(spec))
    return State(jnp.zeros((), jnp.int32), g, emas[0], emas[1:])


def _ema_rules(spec: FlowSpec) -> list[ema.EMARule]:
    return ema.rules(spec.ema_rule, spec.extra_ema_decays)


def _step(spec: FlowSpec, state: State, batch: types.Batch, key: Key) -> tuple[State, types.Scalars]:
    """One step on the conditional flow-matching loss (Lipman et al. 2023, eq. 9)."""
    keys = jax.random.split(jax.random.fold_in(key, state.step), 5)
    batch = transforms.apply_augments(spec.augment, keys[0], batch)
    b = batch.label.shape[0]
    noise, t = jax.random.normal(keys[1], batch.image.shape), TIMES[spec.time](keys[2], (b,))
    is_dropped = jax.random.bernoulli(keys[3], spec.label_dropout, (b,))
    label = jnp.where(is_dropped, spec.classes, batch.label)
    along = t[:, None, None, None]
    x, target = (1.0 - along) * noise + along * batch.image, batch.image - noise

    def loss(params: PyTree) -> Array:
        rngs = {"dropout": keys[4]}
        velocity: Any = spec.network.apply({"params": params}, x, t, label, train=True, rngs=rngs)
        return jnp.mean(jnp.square(velocity - target))

    value, gradient = jax.value_and_grad(loss)(state.g.params)
    g = optimizers.apply_gradients(state.g, gradient, {}, spec.optimizer, jnp.max(batch.hours))
    emas = ema.update_all((state.ema, *state.extra_emas), g.params, {}, state.step + 1, _ema_rules(spec))
    scalars = {"loss/flow": value, "grad_norm/g": optax.tree.norm(gradient)}
    return State(state.step + 1, g, emas[0], emas[1:]), scalars


# ------------------------------------------------------------------ sampling


def _euler(velocity: Velocity, x: Array, t: Array, dt: float) -> Array:
    return x + dt * velocity(x, t)


def _heun(velocity: Velocity, x: Array, t: Array, dt: float) -> Array:
    start = velocity(x, t)
    end = velocity(x + dt * start, t + dt)
    return x + 0.5 * dt * (start + end)


# Name -> (one step, its velocities): explicit methods of first and second order.
SOLVERS: dict[str, tuple[Callable[[Velocity, Array, Array, float], Array], int]] = {
    "euler": (_euler, 1),
    "heun": (_heun, 2),
}


def solve(velocity: Velocity, x: Array, solver: str, steps: int) -> Array:
    """The solution at t = 1 of dx/dt = velocity(x, t) from x at t = 0, in equal steps."""
    advance, _ = SOLVERS[solver]
    dt = 1.0 / steps
    times = dt * jnp.arange(steps)
    return jax.lax.scan(lambda x, t: (advance(velocity, x, t, dt), None), x, times)[0]


def network_calls(spec: FlowSpec) -> int:
    """How often the network is applied to sample an image; with guidance twice for each velocity."""
    return spec.solver_steps * SOLVERS[spec.solver][1] * (1 if spec.guidance == 1.0 else 2)


def guided_velocity(spec: FlowSpec, params: PyTree, label: Array) -> Velocity:
    """The velocity for labels [b] with classifier-free guidance."""
    apply: Any = partial(spec.network.apply, {"params": params}, train=False)

    def velocity(x: Array, t: Array) -> Array:
        time = jnp.full(label.shape, t)
        if spec.guidance == 1.0:
            return apply(x, time, label)
        both = jnp.concatenate([label, jnp.full_like(label, spec.classes)])
        twice = apply(jnp.concatenate([x, x]), jnp.concatenate([time, time]), both)
        of_class, of_none = jnp.split(twice, 2)
        return of_none + spec.guidance * (of_class - of_none)

    return velocity


def decode(spec: FlowSpec, state: State, z: Array, label: Array, key: Array) -> Array:
    """Images [b, h, w, c] in [-1, 1], from noise z [b, h * w * c] for labels [b]; `key` is not used."""
    del key
    if z.shape[1] != math.prod(spec.shape):
        raise errors.UserError(
            f"z has {z.shape[1]} values per image, and must have {math.prod(spec.shape)}, one for each of "
            f"{' x '.join(map(str, spec.shape))}"
        )
    velocity = guided_velocity(spec, state.ema.params, label)
    x = solve(velocity, z.reshape(-1, *spec.shape), spec.solver, spec.solver_steps)
    return spec.postprocess(jnp.clip(x, -1.0, 1.0))
