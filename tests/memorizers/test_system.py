"""Training and sampling of memorizers against torch with Keras' rules."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog import types
from jaxdog.memorizers import models, system
from jaxdog.optim import optimizers
from jaxdog.systems import sampling

N, SIZE, BATCH = 6, 8, 4
KEY = jax.random.key(0)
SCHEDULES = {
    "d": system.LossSchedule((0.5, 0.1), (0.53,), 2, False),
    "g": system.LossSchedule((5.0, 1.0), (25.0,), 1, False),
}


def memorizer_spec(player: str = "d", **fields) -> system.MemorizerSpec:
    """Of `N` small images: the discriminator, or the generator distilled from it."""
    given = dict(
        player=player,
        network=models.Table(N, SIZE),
        teacher=models.Table(N, SIZE) if player == "g" else None,
        output="linear" if player == "g" else "sigmoid",
        classes=N,
        batch_size=BATCH,
        schedule=SCHEDULES[player],
        optimizer=optimizers.scale_by_keras_adam(0.9, 0.999, 1e-7),
        blend_weight=1.0,
    )
    return system.MemorizerSpec(**{**given, **fields})


def batch(*label: int) -> types.Batch:
    """Images that depend on their indices only."""
    image = np.random.default_rng(1).integers(0, 256, (N, SIZE, SIZE, 3))[list(label)] / 127.5 - 1.0
    b = len(label)
    original_size, zero = jnp.full((b, 2), SIZE, jnp.int32), jnp.zeros(b, jnp.int32)
    return types.Batch(
        jnp.asarray(image, jnp.float32), jnp.asarray(label, jnp.int32), original_size, zero, jnp.zeros(b)
    )


# Training ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="torch is the oracle")


def keras_adam(torch, parameters, rates):
    """A function that does one step of Keras 2.2's Adam on the gradients in `parameters`."""
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]

    def step(t: int) -> None:
        rate = rates[t - 1] * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        with torch.no_grad():
            for p, (m, v) in zip(parameters, moments, strict=True):
                m.copy_(0.9 * m + 0.1 * p.grad)
                v.copy_(0.999 * v + 0.001 * p.grad**2)
                p.sub_(rate * m / (v.sqrt() + 1e-7))

    return step


def twin(torch, params):
    """A dense layer on one-hot vectors with our weights."""
    dense = torch.nn.Linear(N, 3 * SIZE**2)
    with torch.no_grad():
        dense.weight.copy_(torch.tensor(np.asarray(params["kernel"]).T.copy()))
        dense.bias.copy_(torch.tensor(np.asarray(params["bias"])))
    return dense


ORDER = [(0, 1, 2, 3), (4, 5, 0, 1), (2, 3, 4, 5), (5, 3, 1, 0)]  # images 4 and 5 have no gradient at first


@pytest.mark.oracle
def test_the_discriminator_learns_as_in_keras(torch):
    """Four steps on one-hot vectors; the rate is lowered after the second epoch of two updates."""
    spec = memorizer_spec(schedule=system.LossSchedule((0.5, 0.1), (0.9,), 1, False))
    memorizer = system.memorizer(spec)
    state = memorizer.init(KEY, batch(0))
    dense = twin(torch, state.net.params)
    adam = keras_adam(torch, list(dense.parameters()), [0.5, 0.5, 0.1, 0.1])
    step = jax.jit(memorizer.step)
    for t, label in enumerate(ORDER, 1):
        real = batch(*label)
        probability = torch.sigmoid(dense(torch.eye(N)[list(label)]))
        target = torch.tensor(np.asarray(real.image).reshape(BATCH, -1)) / 2 + 0.5
        loss = torch.nn.functional.binary_cross_entropy(probability.clamp(1e-7, 1 - 1e-7), target)
        dense.zero_grad()
        loss.backward()
        adam(t)
        state, scalars = step(state, real, KEY)
        np.testing.assert_allclose(scalars["loss/d"], loss.item(), rtol=1e-5)
        np.testing.assert_allclose(state.net.params["kernel"], dense.weight.detach().T, rtol=1e-3, atol=2e-5)
        np.testing.assert_allclose(state.net.params["bias"], dense.bias.detach(), rtol=1e-3, atol=2e-5)
        np.testing.assert_allclose(scalars["rate/d"], [0.5, 0.5, 0.1, 0.1][t - 1])
    assert int(state.step) == 4 and int(state.schedule.epochs) == 2


@pytest.mark.oracle
def test_the_generator_learns_from_the_frozen_discriminator_as_in_keras(torch):
    first = system.memorizer(memorizer_spec()).init(jax.random.key(5), batch(0)).replace(step=jnp.asarray(7))
    spec = memorizer_spec("g")
    state = system.transition(spec, 3, first)
    assert int(state.step) == 7
    chex.assert_trees_all_equal(state.teacher_params, first.net.params)
    teacher, dense = twin(torch, first.net.params), twin(torch, state.net.params)
    adam = keras_adam(torch, list(dense.parameters()), [5.0] * 4)
    step = jax.jit(system.memorizer(spec).step)
    for t, label in enumerate(ORDER, 1):
        vectors = torch.eye(N)[list(label)]
        loss = (255 * torch.sigmoid(teacher(vectors)).detach() - dense(vectors)).square().mean()
        dense.zero_grad()
        loss.backward()
        adam(t)
        state, scalars = step(state, batch(*label), KEY)
        np.testing.assert_allclose(scalars["loss/g"], loss.item(), rtol=1e-5)
        np.testing.assert_allclose(state.net.params["kernel"], dense.weight.detach().T, rtol=1e-4, atol=1e-4)
    chex.assert_trees_all_equal(state.teacher_params, first.net.params)
    output = dense(torch.eye(N)).detach().numpy().reshape(N, SIZE, SIZE, 3)
    image = system.memorizer(spec).sample(state, sampling.image_keys(KEY, N), jnp.arange(N))
    off = np.asarray(sampling.to_uint8(image)).astype(int) - np.clip(output, 0, 255).astype(np.uint8)
    assert np.abs(off).max() <= 1 and (off != 0).mean() < 0.01  # truncated; rounding may cross a level


def test_cross_entropy_is_flat_where_keras_clips():
    slope = jax.vmap(jax.grad(lambda x: system.cross_entropy(x, jnp.asarray(0.5))))
    assert slope(jnp.asarray([-17.0, 17.0])).tolist() == [0.0, 0.0]
    assert float(jax.nn.sigmoid(jnp.asarray(-system.LOGIT_LIMIT))) == pytest.approx(1e-7, rel=1e-4)


def test_an_unknown_output_is_rejected():
    with pytest.raises(ValueError, match="output is 'tanh'; choices: sigmoid, linear"):
        system.memorizer(memorizer_spec(output="tanh"))


# The learning-rate schedule ---------------------------------------------------------------------------------


def fit_loop(schedule: system.LossSchedule, losses: list[list[float]]) -> list[float]:
    """The rate of each epoch in a loop over Keras' `fit`; `losses` of the updates of each epoch."""
    rates, level, epoch, length = [], 0, 0, schedule.interval
    while epoch < len(losses):
        rates += [schedule.rates[level]] * min(length, len(losses) - epoch)
        epoch += length
        if epoch <= len(losses):
            last = float(np.mean(losses[epoch - 1]))
            for i, limit in enumerate(schedule.thresholds):
                if last < limit:
                    level = max(level, i + 1)
        length = 2 * length if schedule.doubling else length
    return rates


@pytest.mark.parametrize("doubling", [False, True])
@pytest.mark.parametrize("interval", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_rates_are_lowered_as_in_a_loop_over_fit(interval, doubling, seed):
    schedule = system.LossSchedule((5.0, 1.0, 0.5), (25.0, 1.5), interval, doubling)
    random = np.random.default_rng(seed)
    losses = (np.geomspace(60, 0.5, 24)[:, None] * random.uniform(0.3, 2.0, (24, 3))).astype(np.float32)
    zero = jnp.zeros((), jnp.int32)
    start = system.ScheduleState(level=zero, epochs=zero, updates=zero, loss_sum=jnp.zeros(()))

    def advance(state, loss):
        rate = jnp.asarray(schedule.rates)[state.level]
        return system.advance_schedule(schedule, 3, state, loss), rate

    end, rates = jax.lax.scan(advance, start, jnp.asarray(losses.reshape(-1)))
    expected = np.repeat(fit_loop(schedule, losses.tolist()), 3)
    np.testing.assert_allclose(rates, expected)
    assert len(set(expected)) > 1 and int(end.epochs) == 24 and int(end.updates) == 0


def test_the_rate_never_rises_again():
    schedule = system.LossSchedule((5.0, 1.0, 0.5), (25.0, 1.5), 1, False)
    zero = jnp.zeros((), jnp.int32)
    state = system.ScheduleState(level=zero, epochs=zero, updates=zero, loss_sum=jnp.zeros(()))
    levels = []
    for loss in (30.0, 1.0, 99.0):
        state = system.advance_schedule(schedule, 1, state, jnp.asarray(loss))
        levels.append(int(state.level))
    assert levels == [0, 2, 2]  # below both thresholds at once


# Sampling ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0.7, 1.0])
def test_samples_are_blended_with_another_image(weight):
    """Flat images of levels so far apart that a blend identifies the other image."""
    spec = memorizer_spec("g", blend_weight=weight)
    memorizer = system.memorizer(spec)
    state = memorizer.init(KEY, batch(0))
    level = 60.0 + 20.0 * jnp.arange(N)
    params = {"kernel": jnp.tile(level[:, None], (1, 3 * SIZE**2)), "bias": jnp.full(3 * SIZE**2, 0.25)}
    state = state.replace(net=state.net.replace(params=params))
    keys, label = sampling.image_keys(KEY, 60), jnp.full(60, 2)
    shown = np.asarray(sampling.to_uint8(memorizer.sample(state, keys, label)))[:, 0, 0, 0]
    possible = np.floor(weight * level[:, None] + (1 - weight) * level[None, :] + 0.25)[label]  # [60, N]
    assert np.all((shown[:, None] == possible).any(1))
    others = (shown[:, None] == possible).argmax(1)
    assert set(others.tolist()) == (set(range(N)) if weight < 1 else {0})


@pytest.mark.parametrize("weight", [0.7, 1.0])
def test_imitations_are_blended_with_another_image(weight):
    imitation, image = system.imitation(N, SIZE, weight), batch(*range(N)).image
    state, scalars = imitation.step(imitation.init(KEY, batch(0)), batch(*range(N)), KEY)
    assert float(scalars["copied"]) == 1.0
    keys, label = sampling.image_keys(KEY, 60), jnp.full(60, 2)
    shown = imitation.sample(state, keys, label)
    possible = weight * image[label][:, None] + (1 - weight) * image[None]  # [60, N, s, s, 3]
    off = jnp.abs(shown[:, None] - possible).max((2, 3, 4))
    assert float(off.min(1).max()) < 1e-6
    assert set(off.argmin(1).tolist()) == (set(range(N)) if weight < 1 else {0})
