"""Flow matching: loss and solvers against closed forms of a Gaussian, guidance, a mixture that is learned."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxdog import types
from jaxdog.optim import ema, optimizers, schedules
from jaxdog.systems import flow, sampling

KEY = jax.random.key(0)
MEAN, STD = 0.3, 0.5  # of the Gaussian data
SHAPE, CLASSES = (2, 2, 3), 2


class Gaussian(nn.Module):
    """The velocity of N(MEAN, STD^2) per pixel, E[x1 - x0 | x_t], plus a parameter and one per label."""

    @nn.compact
    def __call__(self, x: jax.Array, time: jax.Array, label: jax.Array, train: bool) -> jax.Array:
        shift = self.param("shift", lambda key: jnp.zeros(()))
        of_label = self.param("of_label", lambda key: jnp.zeros(CLASSES + 1))[label][:, None, None, None]
        t = time[:, None, None, None]
        variance = (1 - t) ** 2 + (t * STD) ** 2
        return MEAN + (t * STD**2 - (1 - t)) / variance * (x - t * MEAN) + shift + of_label


def spec(**changes: Any) -> flow.FlowSpec:
    given = dict(
        network=Gaussian(),
        shape=SHAPE,
        classes=CLASSES,
        time="uniform",
        label_dropout=0.0,
        guidance=1.0,
        solver="heun",
        solver_steps=8,
        optimizer=optimizers.adam(schedules.constant(1, 1e-3), 0.9, 0.999, 1e-8, 0.0, 0),
        augment=(),
        ema_rule=ema.EMARule(0.0),
        extra_ema_decays=(),
        latent=lambda key: sampling.latent(key, math.prod(changes.get("shape", SHAPE))),
        postprocess=lambda image: image,
    )
    return flow.FlowSpec(**{**given, **changes})


def batch(image: jax.Array, label: jax.Array) -> types.Batch:
    b = len(label)
    return types.Batch(image, label, jnp.full((b, 2), 4), jnp.zeros(b, jnp.int32), jnp.zeros(b))


def gaussian_batch(b: int) -> types.Batch:
    image = MEAN + STD * jax.random.normal(jax.random.key(7), (b, *SHAPE))
    return batch(image, jnp.arange(b) % CLASSES)


def with_params(state: flow.State, **params: Any) -> flow.State:
    new = {**state.g.params, **{name: jnp.asarray(value) for name, value in params.items()}}
    return state.replace(g=state.g.replace(params=new), ema=ema.init(new, {}))


@functools.cache
def trained() -> tuple[types.System, flow.State]:
    system = flow.flow(spec())
    return system, system.init(KEY, gaussian_batch(4))


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_the_flow_of_a_gaussian_is_affine_and_solvers_have_their_order(solver: str, order: int) -> None:
    """The exact velocity carries x0 to MEAN + STD x0; halving the step divides the error by 2^order."""
    _, state = trained()
    x = jnp.linspace(-1.5, 1.5, 12).reshape(1, *SHAPE)
    velocity = flow.guided_velocity(spec(), state.ema.params, jnp.zeros(1, jnp.int32))
    error = [
        float(jnp.abs(flow.solve(velocity, x, solver, steps) - (MEAN + STD * x)).max()) for steps in (32, 64)
    ]
    assert error[1] < 0.05 and error[0] / error[1] == pytest.approx(2**order, rel=0.15)


def test_the_loss_of_the_exact_velocity_is_the_conditional_variance() -> None:
    """Var(x1 - x0 | x_t) = STD^2 / ((1 - t)^2 + t^2 STD^2) per pixel; an error of c adds c^2."""
    system, state = trained()
    t = (np.arange(10_000) + 0.5) / 10_000
    expected = np.mean(STD**2 / ((1 - t) ** 2 + (t * STD) ** 2))
    losses = {}
    for shift in (0.0, 0.5):
        _, scalars = system.step(with_params(state, shift=shift), gaussian_batch(8192), KEY)
        losses[shift] = float(scalars["loss/flow"])
    assert losses[0.0] == pytest.approx(expected, rel=0.03)
    assert losses[0.5] - losses[0.0] == pytest.approx(0.25, abs=0.02)


def test_samples_are_decoded_latents_and_are_clipped() -> None:
    system, state = trained()
    keys, label = sampling.image_keys(KEY, 5), jnp.arange(5) % CLASSES
    assert system.latent is not None and system.decode is not None
    z = system.latent(keys)
    image = system.sample(state, keys, label)
    np.testing.assert_array_equal(image, system.decode(state, z, label, keys))
    np.testing.assert_allclose(image, np.clip(MEAN + STD * z.reshape(5, *SHAPE), -1, 1), atol=0.02)
    np.testing.assert_allclose(system.sample(state, keys[2:3], label[2:3]), image[2:3], atol=1e-6)
    with pytest.raises(
        ValueError, match="z has 11 values per image, and must have 12, one for each of 2 x 2 x 3"
    ):
        system.decode(state, z[:, :11], label, keys)


def test_guidance_extrapolates_from_no_class_to_the_class() -> None:
    _, state = trained()
    params = with_params(state, of_label=[1.0, 2.0, 5.0]).ema.params
    x, label, t = jnp.zeros((2, *SHAPE)), jnp.array([0, 1]), jnp.float32(0.5)
    by_weight = {
        weight: flow.guided_velocity(spec(guidance=weight), params, label)(x, t) for weight in (0.0, 1.0, 3.0)
    }
    none, of_class = by_weight[0.0], by_weight[1.0]
    np.testing.assert_allclose(of_class[1] - of_class[0], 1.0, rtol=1e-5)
    np.testing.assert_allclose(none[1], none[0], rtol=1e-5)
    np.testing.assert_allclose(none[0] - of_class[0], 4.0, rtol=1e-5)
    np.testing.assert_allclose(by_weight[3.0], none + 3.0 * (of_class - none), rtol=1e-5)


@pytest.mark.parametrize(
    ("solver", "guidance", "calls"), [("euler", 1.0, 3), ("heun", 1.0, 6), ("heun", 2.0, 12)]
)
def test_the_stated_number_of_network_calls_is_made(solver: str, guidance: float, calls: int) -> None:
    rows: list[int] = []

    class Counting(Gaussian):
        def __call__(self, x: jax.Array, time: jax.Array, label: jax.Array, train: bool) -> jax.Array:
            rows.append(len(x))
            return super().__call__(x, time, label, train)

    of = spec(network=Counting(), solver=solver, guidance=guidance, solver_steps=3, label_dropout=0.1)
    _, state = trained()
    with jax.disable_jit():
        flow.decode(of, state, jnp.zeros((2, 12)), jnp.zeros(2, jnp.int32), sampling.image_keys(KEY, 2))
    assert sum(rows) / 2 == flow.network_calls(of) == calls


def test_dropped_labels_become_none() -> None:
    """A label that no image has gets no gradient, so Adam leaves its parameter as it is."""
    for dropout, unchanged in ((0.0, [2]), (1.0, [0, 1])):
        system = flow.flow(spec(label_dropout=dropout))
        state = with_params(trained()[1], shift=0.5)
        after, _ = system.step(state, gaussian_batch(64), KEY)
        moved = np.flatnonzero(np.asarray(after.g.params["of_label"]))
        assert sorted({0, 1, 2} - set(moved.tolist())) == unchanged


def test_times_are_uniform_or_logit_normal() -> None:
    for name, below in (("uniform", 1 / (1 + math.exp(-1.0))), ("logit_normal", 0.8413)):
        t = flow.TIMES[name](KEY, (20_000,))
        assert float(t.min()) >= 0.0 and float(t.max()) <= 1.0
        assert float(jnp.mean(t < 1 / (1 + math.exp(-1.0)))) == pytest.approx(below, abs=0.01)


def test_averages_follow_their_decays() -> None:
    system = flow.flow(spec(ema_rule=ema.EMARule(0.5), extra_ema_decays=(0.0, 0.9)))
    state = system.init(KEY, gaussian_batch(4))
    state = state.replace(g=state.g.replace(params={**state.g.params, "shift": jnp.float32(1.0)}))
    after, _ = system.step(state, gaussian_batch(64), KEY)
    new = float(after.g.params["shift"])
    found = [float(x.params["shift"]) for x in (after.ema, *after.extra_emas)]
    np.testing.assert_allclose(found, [0.5 * new, new, 0.1 * new], rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time": "cubic"}, "system.time is 'cubic'; choices: 'uniform', 'logit_normal'"),
        ({"solver": "rk4"}, "system.solver is 'rk4'; choices: 'euler', 'heun'"),
        ({"label_dropout": 1.5}, r"system.label_dropout is 1.5, and must lie in \[0, 1\]"),
        ({"guidance": 2.0}, "system.guidance is 2.0, which needs the velocity without a class"),
    ],
)
def test_wrong_values_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        flow.flow(spec(**changes))


class Perceptron(nn.Module):
    """A velocity in the plane."""

    @nn.compact
    def __call__(self, x: jax.Array, time: jax.Array, label: jax.Array, train: bool) -> jax.Array:
        one_hot = jax.nn.one_hot(label, CLASSES + 1)
        h = jnp.concatenate([x.reshape(len(x), -1), time[:, None], one_hot], 1)
        for i in range(2):
            h = nn.silu(nn.Dense(64, name=f"dense{i}")(h))
        return nn.Dense(2, name="last")(h).reshape(x.shape)


@pytest.mark.long
def test_a_mixture_is_learned_with_and_without_classes() -> None:
    """Two Gaussians of standard deviation 0.1 around (-0.6, 0) and (0.6, 0.3), a class each."""
    centers = jnp.array([[-0.6, 0.0], [0.6, 0.3]])
    adam = optimizers.adam(schedules.constant(1, 3e-3), 0.9, 0.999, 1e-8, 0.0, 0)
    of = spec(
        network=Perceptron(), shape=(1, 1, 2), label_dropout=0.3, optimizer=adam, ema_rule=ema.EMARule(0.99)
    )
    system = flow.flow(of)

    def draw(key: jax.Array) -> types.Batch:
        label_key, noise_key = jax.random.split(key)
        label = jax.random.randint(label_key, (512,), 0, CLASSES)
        x = centers[label] + 0.1 * jax.random.normal(noise_key, (512, 2))
        return batch(x[:, None, None, :], label)

    @jax.jit
    def train(state: flow.State, keys: jax.Array) -> flow.State:
        return jax.lax.scan(lambda state, key: (system.step(state, draw(key), KEY)[0], None), state, keys)[0]

    state = train(system.init(KEY, draw(KEY)), jax.random.split(jax.random.key(1), 1500))
    keys = sampling.image_keys(jax.random.key(2), 2000)
    for label in range(CLASSES):
        x = system.sample(state, keys, jnp.full(2000, label)).reshape(-1, 2)
        np.testing.assert_allclose(x.mean(0), centers[label], atol=0.05)
        np.testing.assert_allclose(x.std(0), 0.1, atol=0.04)
    x = system.sample(state, keys, jnp.full(2000, CLASSES)).reshape(-1, 2)
    near = jnp.linalg.norm(x[:, None] - centers[None], axis=-1) < 0.4
    assert float(near.any(1).mean()) > 0.9
    np.testing.assert_allclose(near.mean(0), 0.5, atol=0.08)
    assert optax.tree.norm(state.g.params) > 0
