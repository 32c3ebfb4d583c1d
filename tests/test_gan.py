"""The two-player step on small networks: who changes when, accumulation, averages, sampling."""

from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxdog import losses, sampling, system
from jaxdog.models import layers
from jaxdog.systems import gan

Z, CLASSES = 4, 3


class Painter(nn.Module):
    """A generator of 4x4 pictures with a batch norm and spectral norm."""

    @nn.compact
    def __call__(self, z: jax.Array, label: jax.Array, train: bool, key: jax.Array) -> jax.Array:
        h = layers.Dense(8, name="first")(jnp.concatenate([z, jax.nn.one_hot(label, CLASSES)], 1), train)
        h = layers.BatchNorm(name="norm")(h[:, None, None, :], train)[:, 0, 0]
        return jnp.tanh(layers.Dense(48, name="last")(h, train)).reshape(-1, 4, 4, 3)


class Judge(nn.Module):
    """A discriminator with spectral norm and no batch norm."""

    @nn.compact
    def __call__(self, x: jax.Array, label: jax.Array, train: bool) -> system.Verdict:
        h = jnp.concatenate([x.reshape(x.shape[0], -1), jax.nn.one_hot(label, CLASSES)], 1)
        h = nn.relu(layers.Dense(8, name="first")(h, train))
        return system.Verdict(layers.Dense(1, name="last")(h, train)[:, 0])


def game(**changes: Any) -> gan.Game:
    default = gan.Game(
        generator=Painter(),
        discriminator=Judge(),
        latent_dim=Z,
        classes=CLASSES,
        loss=losses.non_saturating(),
        g_optimizer=optax.sgd(0.1),
        d_optimizer=optax.sgd(0.1),
        augment=(),
        d_steps=1,
        accumulate=1,
        judge="jointly",
        fakes="fresh",
        fake_labels="uniform",
        g_reals=False,
        breeds=0.0,
        ema_decay=0.5,
        ema_start=0,
        ema_stats="average",
        latent=partial(sampling.latent, dim=Z),
        sample_norm="running",
        refresh=(2, 4),
        finish=lambda image: image,
    )
    return default._replace(**changes)


def batch(b: int, seed: int = 0) -> system.Batch:
    image_key, label_key = jax.random.split(jax.random.key(seed))
    image = jax.random.uniform(image_key, (b, 4, 4, 3), minval=-1.0)
    label = jax.random.randint(label_key, (b,), 0, CLASSES)
    return system.Batch(image, label, jnp.full((b, 2), 4), jnp.zeros(b, jnp.int32), jnp.zeros(b))


def start(played: system.System, b: int = 8) -> gan.State:
    return played.init(jax.random.key(1), batch(b))


@pytest.fixture(scope="module")
def plain() -> system.System:
    played = gan.gan(game())
    return played._replace(step=jax.jit(played.step))


def test_a_step_moves_every_parameter_and_counts(plain: system.System) -> None:
    state = start(plain)
    after, scalars = plain.step(state, batch(8), jax.random.key(2))
    assert after.step == 1 and all(np.isfinite(x) for x in scalars.values())
    moved = jax.tree.map(
        lambda old, new: not np.array_equal(old, new),
        (state.g.params, state.d.params, state.ema.params),
        (after.g.params, after.d.params, after.ema.params),
    )
    assert all(jax.tree.leaves(moved)), moved


def test_same_key_same_step_and_another_step_number_other_noise(plain: system.System) -> None:
    state = start(plain)
    one, _ = plain.step(state, batch(8), jax.random.key(2))
    two, _ = plain.step(state, batch(8), jax.random.key(2))
    chex.assert_trees_all_equal(one, two)
    _, later = plain.step(state.replace(step=jnp.int32(5)), batch(8), jax.random.key(2))
    _, now = plain.step(state, batch(8), jax.random.key(2))
    assert later["logit/fake"] != now["logit/fake"]


def test_spectral_norm_iterates_once_for_each_network_and_step(plain: system.System) -> None:
    """After a step, u is one power iteration of the parameters that the step began with."""
    state = start(plain)
    after, _ = plain.step(state, batch(8), jax.random.key(2))
    for before, net in ((state.d, after.d), (state.g, after.g)):
        kernel = np.asarray(before.params["first"]["kernel"])
        v = kernel @ np.asarray(before.stats[layers.SPECTRAL]["first"]["u"])
        v /= np.linalg.norm(v)
        u = v @ kernel
        u /= np.linalg.norm(u)
        np.testing.assert_allclose(net.stats[layers.SPECTRAL]["first"]["u"], u, atol=1e-6)
        np.testing.assert_allclose(net.stats[layers.SPECTRAL]["first"]["v"], v, atol=1e-6)


def test_running_statistics_come_from_the_generator_step_alone(plain: system.System) -> None:
    state = start(plain)
    after, _ = plain.step(state, batch(8), jax.random.key(2))
    before, now = (x.g.stats["batch_stats"]["norm"]["mean"] for x in (state, after))
    _, g_key = jax.random.split(jax.random.fold_in(jax.random.key(2), 0))
    noise = gan._keys(game(), g_key).noise[0]
    _, _, stats = gan._fakes(game(), state.g, state.g.params, noise, batch(8), update=True)
    np.testing.assert_allclose(now, stats["batch_stats"]["norm"]["mean"], rtol=1e-5)
    assert not np.array_equal(before, now)


def test_accumulation_equals_one_large_batch() -> None:
    """Same pictures and noise, in one batch or in 4: same discriminator (it has no batch norm)."""
    large, small = game(), game(accumulate=4)
    state = start(gan.gan(large))
    real, noise = batch(16), batch(16, seed=9)

    def loss(params: Any, inputs: tuple[system.Batch, system.Batch]) -> Any:
        (image, label, *_), (other, other_label, *_) = inputs
        verdict, stats = Judge().apply(
            {"params": params, **state.d.stats},
            jnp.concatenate([image, other]),
            jnp.concatenate([label, other_label]),
            train=True,
            mutable=list(state.d.stats),
        )
        terms = large.loss.d(jax.random.key(0), *jnp.split(verdict.logit, 2))
        return jnp.mean(terms[0] + terms[1]), (stats, {"loss": jnp.mean(terms[0] + terms[1])})

    def learn(played: gan.Game) -> tuple[system.Net, system.Scalars]:
        parts = [gan._parts(x, 1, played.accumulate) for x in (real, noise)]
        first = jax.tree.map(lambda x: x[0], tuple(parts))
        return gan._learn(state.d, played.d_optimizer, loss, first, played.accumulate)

    one, one_scalars = learn(large)
    four, four_scalars = learn(small)
    chex.assert_trees_all_close(one, four, atol=1e-6)
    chex.assert_trees_all_close(one_scalars, four_scalars, rtol=1e-5)


def test_several_discriminator_steps_use_different_parts_of_the_batch() -> None:
    played = gan.gan(game(d_steps=2))
    state = start(played)
    after, _ = jax.jit(played.step)(state, batch(16), jax.random.key(2))
    assert after.step == 1
    parts = gan._parts(batch(16), 2, 1)
    chex.assert_shape(parts.image, (2, 1, 8, 4, 4, 3))
    assert not np.array_equal(parts.image[0], parts.image[1])
    whole = np.sort(np.asarray(parts.image).reshape(16, -1), axis=0)
    np.testing.assert_array_equal(whole, np.sort(np.asarray(batch(16).image).reshape(16, -1), axis=0))


def test_average_is_the_mean_of_old_average_and_new_parameters(plain: system.System) -> None:
    state = start(plain)
    after, _ = plain.step(state, batch(8), jax.random.key(2))
    expected = jax.tree.map(lambda a, b: 0.5 * (a + b), state.ema.params, after.g.params)
    chex.assert_trees_all_close(after.ema.params, expected, rtol=1e-5)


def test_augmentations_change_what_the_discriminator_sees() -> None:
    black = gan.gan(
        game(augment=(lambda key, batch: batch._replace(image=jnp.full_like(batch.image, -1.0)),))
    )
    state = start(black)
    one, _ = jax.jit(black.step)(state, batch(8, seed=1), jax.random.key(2))
    two, _ = jax.jit(black.step)(state, batch(8, seed=1)._replace(image=batch(8, 5).image), jax.random.key(2))
    chex.assert_trees_all_close(one.d.params, two.d.params, atol=1e-7)


def test_picture_is_the_same_in_any_batch(plain: system.System) -> None:
    state = start(plain)
    keys, label = sampling.image_keys(jax.random.key(3), 6), jnp.arange(6) % CLASSES
    whole = plain.sample(state, keys, label)
    chex.assert_shape(whole, (6, 4, 4, 3))
    np.testing.assert_allclose(plain.sample(state, keys[4:5], label[4:5]), whole[4:5], atol=1e-6)


def test_batch_statistics_at_sampling_depend_on_the_batch() -> None:
    played = gan.gan(game(sample_norm="batch"))
    state = start(played)
    keys, label = sampling.image_keys(jax.random.key(3), 6), jnp.arange(6) % CLASSES
    whole = played.sample(state, keys, label)
    assert not np.allclose(played.sample(state, keys[3:], label[3:]), whole[3:], atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample_norm": "mean"}, "sample_norm is 'mean'; choices: 'running', 'batch', 'refreshed'"),
        ({"d_steps": 0}, "game.d_steps is 0, and must be at least 1"),
        ({"accumulate": 0}, "game.accumulate is 0, and must be at least 1"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gan.gan(game(**changes))
