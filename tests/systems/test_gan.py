"""The two-player step on small networks: who changes when, accumulation, averages, sampling, other rules."""

from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxdog import types
from jaxdog.augment import diffaugment
from jaxdog.losses import adversarial, class_loss
from jaxdog.models import layers
from jaxdog.optim import ema, optimizers
from jaxdog.systems import gan, sampling

Z, CLASSES = 4, 3


class Painter(nn.Module):
    """A generator of 4x4 pictures with a batch norm and spectral norm."""

    spectral: bool = True

    @nn.compact
    def __call__(self, z: jax.Array, label: jax.Array, train: bool, key: jax.Array) -> jax.Array:
        dense = partial(layers.Dense, spectral=self.spectral)
        h = dense(8, name="first")(jnp.concatenate([z, jax.nn.one_hot(label, CLASSES)], 1), train)
        h = layers.BatchNorm(name="norm")(h[:, None, None, :], train)[:, 0, 0]
        return jnp.tanh(dense(48, name="last")(h, train)).reshape(-1, 4, 4, 3)


class Judge(nn.Module):
    """A discriminator with spectral norm and no batch norm."""

    spectral: bool = True
    norm: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, label: jax.Array, train: bool) -> types.Verdict:
        h = jnp.concatenate([x.reshape(x.shape[0], -1), jax.nn.one_hot(label, CLASSES)], 1)
        dense = partial(layers.Dense, spectral=self.spectral)
        h = dense(8, name="first")(h, train)
        h = layers.BatchNorm(name="norm")(h, train) if self.norm else h
        return types.Verdict(dense(1, name="last")(nn.relu(h), train)[:, 0])


class Reader(nn.Module):
    """A discriminator that sees brightness and label, and guesses the same breeds for any picture."""

    @nn.compact
    def __call__(self, x: jax.Array, label: jax.Array, train: bool) -> types.Verdict:
        weight = self.param("weight", lambda key: jnp.array([1.0, 10.0]))
        guess = self.param("guess", nn.initializers.zeros_init(), (CLASSES,))
        logit = weight[0] * x.mean((1, 2, 3)) + weight[1] * label**2
        return types.Verdict(logit, jnp.broadcast_to(guess[None], (x.shape[0], CLASSES)))


def game(**changes: Any) -> gan.Game:
    default = gan.Game(
        generator=Painter(),
        discriminator=Judge(),
        latent_dim=Z,
        classes=CLASSES,
        loss=adversarial.non_saturating(),
        g_optimizer=optax.sgd(0.1),
        d_optimizer=optax.sgd(0.1),
        augment=(),
        d_penalties={},
        g_penalties={},
        changes=(),
        control=diffaugment.fixed(1.0),
        d_steps=1,
        accumulate=1,
        judge="jointly",
        fakes="fresh",
        fake_labels="uniform",
        g_reals=False,
        breed_loss=None,
        average=ema.Rule(0.5),
        tracks=(),
        label_ramp=(0.0, 0.0),
        steps=100,
        latent=partial(sampling.latent, dim=Z),
        sample_norm="running",
        refresh=(2, 4),
        finish=lambda image: image,
        remat=False,
        axis=None,
    )
    return default._replace(**changes)


def batch(b: int, seed: int = 0) -> types.Batch:
    image_key, label_key = jax.random.split(jax.random.key(seed))
    image = jax.random.uniform(image_key, (b, 4, 4, 3), minval=-1.0)
    label = jax.random.randint(label_key, (b,), 0, CLASSES)
    return types.Batch(image, label, jnp.full((b, 2), 4), jnp.zeros(b, jnp.int32), jnp.zeros(b))


def start(played: types.System, b: int = 8) -> gan.State:
    return played.init(jax.random.key(1), batch(b))


def stirred(state: gan.State) -> gan.State:
    """Kernels that are not orthogonal any more: to those that are, one power iteration is as good as two."""

    def stir(net: types.Net) -> types.Net:
        leaves, tree = jax.tree.flatten(net.params)
        keys = jax.random.split(jax.random.key(4), len(leaves))
        moved = [x + jax.random.normal(key, x.shape) for x, key in zip(leaves, keys, strict=True)]
        return net.replace(params=jax.tree.unflatten(tree, moved))

    return state.replace(g=stir(state.g), d=stir(state.d))


@pytest.fixture(scope="module")
def plain() -> types.System:
    played = gan.gan(game())
    return played._replace(step=jax.jit(played.step))


def test_a_step_moves_every_parameter_and_counts(plain: types.System) -> None:
    state = start(plain)
    after, scalars = plain.step(state, batch(8), jax.random.key(2))
    assert after.step == 1 and all(np.isfinite(x) for x in scalars.values())
    moved = jax.tree.map(
        lambda old, new: not np.array_equal(old, new),
        (state.g.params, state.d.params, state.ema.params),
        (after.g.params, after.d.params, after.ema.params),
    )
    assert all(jax.tree.leaves(moved)), moved


def test_same_key_same_step_and_another_step_number_other_noise(plain: types.System) -> None:
    state = start(plain)
    one, _ = plain.step(state, batch(8), jax.random.key(2))
    two, _ = plain.step(state, batch(8), jax.random.key(2))
    chex.assert_trees_all_equal(one, two)
    _, later = plain.step(state.replace(step=jnp.int32(5)), batch(8), jax.random.key(2))
    _, now = plain.step(state, batch(8), jax.random.key(2))
    assert later["logit/fake"] != now["logit/fake"]


def test_spectral_norm_iterates_once_for_each_network_and_step(plain: types.System) -> None:
    """After a step, u is one power iteration of the parameters that the step began with."""
    state = stirred(start(plain))
    after, _ = plain.step(state, batch(8), jax.random.key(2))
    for before, net in ((state.d, after.d), (state.g, after.g)):
        kernel = np.asarray(before.params["first"]["kernel"])
        v = kernel @ np.asarray(before.stats[layers.SPECTRAL]["first"]["u"])
        v /= np.linalg.norm(v)
        u = v @ kernel
        u /= np.linalg.norm(u)
        np.testing.assert_allclose(net.stats[layers.SPECTRAL]["first"]["u"], u, atol=1e-6)
        np.testing.assert_allclose(net.stats[layers.SPECTRAL]["first"]["v"], v, atol=1e-6)


def test_running_statistics_come_from_the_generator_step_alone(plain: types.System) -> None:
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

    def loss(params: Any, inputs: tuple[types.Batch, types.Batch]) -> Any:
        (image, label, *_), (other, other_label, *_) = inputs
        verdict, stats = Judge().apply(
            {"params": params, **state.d.stats},
            jnp.concatenate([image, other]),
            jnp.concatenate([label, other_label]),
            train=True,
            mutable=list(state.d.stats),
        )
        terms = large.loss.d(jax.random.key(0), *jnp.split(verdict.logit, 2))
        return jnp.mean(terms[0] + terms[1]), (stats, {}, {"loss": jnp.mean(terms[0] + terms[1])})

    def learn(played: gan.Game) -> tuple[types.Net, types.Scalars]:
        parts = [gan._parts(x, 1, played.accumulate) for x in (real, noise)]
        first = jax.tree.map(lambda x: x[0], tuple(parts))
        return optimizers.learn(state.d, played.d_optimizer, loss, first, played.accumulate)

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


def test_average_is_the_mean_of_old_average_and_new_parameters(plain: types.System) -> None:
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


def test_picture_is_the_same_in_any_batch(plain: types.System) -> None:
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


# Other rules ------------------------------------------------------------------------------------------------

SEEN = adversarial.Loss(
    d=lambda key, real, fake: (real, fake), g=lambda key, real, fake: real + 0.0 * fake, relative=True
)  # its scalars are the logits that each player was shown


def after(changes: dict[str, Any], b: int = 8) -> tuple[gan.State, gan.State, types.Scalars]:
    """(state before, state after, scalars) of one step of a game with these changes."""
    played = gan.gan(game(**changes))
    state = start(played)
    return state, *jax.jit(played.step)(state, batch(b), jax.random.key(2))


def test_apart_and_jointly_differ_only_in_what_the_batch_shares() -> None:
    together, alone = ({"judge": judge, "generator": Painter(False)} for judge in ("jointly", "apart"))
    plain = {"discriminator": Judge(spectral=False)}
    _, one, scalars = after({**together, **plain})
    _, two, others = after({**alone, **plain})
    chex.assert_trees_all_close((one, scalars), (two, others), rtol=1e-4, atol=1e-6)
    normed = {"discriminator": Judge(spectral=False, norm=True)}
    _, _, scalars = after({**together, **normed})
    _, _, others = after({**alone, **normed})
    assert abs(scalars["loss/d"] - others["loss/d"]) > 1e-3


def test_apart_the_spectral_norm_iterates_for_each_verdict() -> None:
    played = gan.gan(game(judge="apart"))
    before = stirred(start(played))
    now, _ = jax.jit(played.step)(before, batch(8), jax.random.key(2))
    kernel = np.asarray(before.d.params["first"]["kernel"])
    u = np.asarray(before.d.stats[layers.SPECTRAL]["first"]["u"])
    for _ in range(2):
        v = kernel @ u / np.linalg.norm(kernel @ u)
        u, once = v @ kernel / np.linalg.norm(v @ kernel), u
    assert not np.allclose(u, once, atol=1e-2)
    np.testing.assert_allclose(now.d.stats[layers.SPECTRAL]["first"]["u"], u, atol=1e-6)


def test_apart_a_batch_norm_keeps_what_it_saw_last() -> None:
    """Its running mean has moved twice, by the real pictures first."""
    changes = {
        "judge": "apart",
        "discriminator": Judge(spectral=False, norm=True),
        "generator": Painter(False),
    }
    before, now, _ = after(changes)
    d_key, _ = jax.random.split(jax.random.fold_in(jax.random.key(2), 0))
    keys = gan._keys(game(), jax.random.fold_in(d_key, 0))
    real = batch(8)
    image, label, _ = gan._fakes(
        game(**changes), before.g, before.g.params, keys.noise[0], real, update=False
    )
    mean = 0.0
    for seen, breed in ((real.image, real.label), (image, label)):
        h = jnp.concatenate([seen.reshape(8, -1), jax.nn.one_hot(breed, CLASSES)], 1)
        mean = 0.9 * mean + 0.1 * (h @ before.d.params["first"]["kernel"]).mean(0)
    np.testing.assert_allclose(now.d.stats["batch_stats"]["norm"]["mean"], mean, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("fakes", "same"), [("reused", True), ("fresh", False)])
def test_reused_fakes_are_those_of_the_last_discriminator_step(fakes: str, same: bool) -> None:
    """A discriminator that does not learn says the same of them again."""
    shown = adversarial.Loss(d=lambda key, real, fake: (real, fake), g=lambda key, real, fake: fake)
    plain = {"generator": Painter(False), "discriminator": Judge(False), "d_optimizer": optax.sgd(0.0)}
    _, _, scalars = after({**plain, "fakes": fakes, "loss": shown, "d_steps": 2}, b=16)
    assert np.isclose(scalars["loss/g"], scalars["logit/fake"], atol=1e-5) == same


@pytest.mark.parametrize("d_steps", [1, 2])
def test_one_pass_of_the_generator_serves_both_players(d_steps: int, monkeypatch) -> None:
    """And gives what two passes would."""
    changes = {"generator": Painter(False), "fakes": "reused", "d_steps": d_steps}
    passes = []
    fakes = gan._fakes

    def counted(*given: Any, **named: Any) -> Any:
        passes.append(named)
        return fakes(*given, **named)

    monkeypatch.setattr(gan, "_fakes", counted)
    _, shared, scalars = after(changes, b=8 * d_steps)
    assert len(passes) == d_steps
    monkeypatch.setattr(gan, "_once", lambda game, net, key, real: partial(counted, game, net, update=True))
    passes.clear()
    _, apart, others = after(changes, b=8 * d_steps)
    assert len(passes) == d_steps + 1
    chex.assert_trees_all_close((shared, scalars), (apart, others), rtol=1e-5, atol=1e-6)


def test_fakes_may_have_the_labels_of_the_real_pictures() -> None:
    real = batch(30)._replace(label=jnp.arange(30, dtype=jnp.int32) % 2)
    drawn = []
    for labels in ("real", "uniform"):
        played = game(fake_labels=labels)
        state = start(gan.gan(played))
        image, label, _ = gan._fakes(played, state.g, state.g.params, jax.random.key(6), real, update=False)
        keys = jax.random.split(jax.random.split(jax.random.key(6), 3)[2], 30)
        z = jax.random.normal(jax.random.split(jax.random.key(6), 3)[0], (30, Z))
        painted: Any = Painter().apply(
            {"params": state.g.params, **state.g.stats}, z, label, train=True, key=keys
        )
        np.testing.assert_allclose(image, painted, atol=1e-5)
        drawn.append(np.bincount(label, minlength=CLASSES))
    np.testing.assert_array_equal(drawn[0], [15, 15, 0])
    assert drawn[1].sum() == 30 and drawn[1][2] > 0


@pytest.mark.parametrize("d_steps", [1, 2])
@pytest.mark.parametrize("own", [True, False])
def test_a_relativistic_generator_may_get_real_pictures_of_its_own(d_steps: int, own: bool) -> None:
    changes = {"loss": SEEN, "g_reals": own, "d_steps": d_steps, "discriminator": Reader()}
    still = {"d_optimizer": optax.sgd(0.0)}
    count = d_steps + own
    assert gan.batches(game(**changes)) == count
    assert gan.batches(game(**changes, accumulate=3)) == 3 * count
    assert gan.batches(game(g_reals=True, d_steps=d_steps)) == d_steps  # not a relativistic one
    _, _, scalars = after({**changes, **still}, b=8 * count)
    parts = gan._parts(batch(8 * count), count, 1)
    expected = [float(parts.image[i].mean() + 10 * (parts.label[i] ** 2).mean()) for i in range(count)]
    np.testing.assert_allclose(scalars["logit/real"], expected[d_steps - 1], rtol=1e-4)
    np.testing.assert_allclose(scalars["loss/g"], expected[-1], rtol=1e-4)


def test_classifier_learns_from_real_pictures_and_the_generator_is_told_about_its_own() -> None:
    """Of a guess that starts at 0 and is the same for all, entropies and gradient are closed forms."""
    plain = {"discriminator": Reader(), "d_optimizer": optax.sgd(1.0), "fake_labels": "real"}
    _, now, scalars = after({**plain, "breed_loss": class_loss.cross_entropy(0.3)})
    _, _, without = after(plain)
    shares = np.bincount(batch(8).label, minlength=CLASSES) / 8
    guess = -0.3 * (1 / CLASSES - shares)
    np.testing.assert_allclose(now.d.params["guess"], guess, atol=1e-6)
    np.testing.assert_allclose(scalars["loss/breed_real"], np.log(CLASSES), rtol=1e-6)
    np.testing.assert_allclose(scalars["accuracy/breed_real"], shares[0], rtol=1e-6)
    np.testing.assert_allclose(scalars["loss/d"] - without["loss/d"], 0.3 * np.log(CLASSES), rtol=1e-3)
    entropy = np.log(np.exp(guess).sum()) - shares @ guess
    np.testing.assert_allclose(scalars["loss/breed_fake"], entropy, rtol=1e-5)
    np.testing.assert_allclose(scalars["accuracy/breed_fake"], shares[np.argmax(guess)], rtol=1e-6)
    np.testing.assert_allclose(scalars["loss/g"] - without["loss/g"], 0.3 * entropy, rtol=1e-3)
    assert not any("breed" in name for name in without)


def test_classifier_may_learn_from_generated_pictures_too() -> None:
    """Each kind has the full weight, and its own breeds."""
    real = batch(8)._replace(label=jnp.zeros(8, jnp.int32))
    changes: dict[str, Any] = {"discriminator": Reader(), "d_optimizer": optax.sgd(1.0)}
    both, real_alone = (
        gan.gan(game(**changes, breed_loss=class_loss.cross_entropy(0.3, x))) for x in ("both", "real")
    )
    state, key = start(both), jax.random.key(2)
    now, scalars = jax.jit(both.step)(state, real, key)
    d_key, _ = jax.random.split(jax.random.fold_in(key, 0))
    noise = gan._keys(game(), jax.random.fold_in(d_key, 0)).noise[0]
    drawn = np.bincount(gan._drawn(game(), noise, real)[1], minlength=CLASSES) / 8
    assert drawn[0] < 1.0
    np.testing.assert_allclose(now.d.params["guess"], -0.3 * (2 / CLASSES - drawn - [1, 0, 0]), atol=1e-6)
    _, others = jax.jit(real_alone.step)(state, real, key)
    np.testing.assert_allclose(scalars["loss/d"] - others["loss/d"], 0.3 * np.log(CLASSES), rtol=1e-3)
    np.testing.assert_allclose(scalars["loss/breed_real"], np.log(CLASSES), rtol=1e-6)


class Dice(nn.Module):
    """A discriminator whose logits are numbers drawn as those that say which features are dropped."""

    @nn.compact
    def __call__(self, x: jax.Array, label: jax.Array, train: bool) -> types.Verdict:
        weight = self.param("weight", nn.initializers.ones_init(), ())
        drawn = jax.random.uniform(self.make_rng("dropout"), label.shape) if train else jnp.zeros(label.shape)
        return types.Verdict(weight * drawn)


@pytest.mark.parametrize("judge", ["apart", "jointly"])
def test_dropped_features_are_drawn_for_each_verdict_anew(judge: str) -> None:
    played = gan.gan(game(discriminator=Dice(), loss=adversarial.wasserstein(), judge=judge, d_steps=2))
    state: Any = start(played)
    step = jax.jit(played.step)
    once, twice, later = (
        step(state.replace(step=jnp.int32(i)), batch(16), jax.random.key(2))[1] for i in (3, 3, 4)
    )
    chex.assert_trees_all_equal(once, twice)
    drawn = [once["logit/real"], once["logit/fake"], -once["loss/g"], later["logit/real"], -later["loss/g"]]
    assert len({round(float(x), 5) for x in drawn}) == len(drawn)


def test_a_classifier_is_needed_for_the_loss_of_breeds() -> None:
    with pytest.raises(ValueError, match="needs a discriminator with breed_head='linear' for 3 breeds"):
        after({"breed_loss": class_loss.cross_entropy(0.1)})


def test_refreshed_statistics_are_those_of_fresh_pictures() -> None:
    """The mean of the first layer over z ~ N(0, 1) and uniform breeds, by hand."""
    played = gan.gan(game(generator=Painter(False), sample_norm="refreshed", refresh=(120, 64)))
    assert played.prepare is not None and gan.gan(game()).prepare is None
    state = start(played)
    ready = jax.jit(played.prepare)(state, jax.random.key(5))
    first = state.ema.params["first"]
    expected = np.asarray(first["kernel"])[Z:].mean(0) + np.asarray(first["bias"])
    found = ready.ema.stats["batch_stats"]["norm"]
    np.testing.assert_allclose(found["mean"], expected, atol=0.12)
    kernel = np.asarray(first["kernel"])
    spread = np.square(kernel[:Z]).sum(0) + kernel[Z:].var(0)
    np.testing.assert_allclose(found["var"], spread, rtol=0.2)
    assert not np.allclose(state.ema.stats["batch_stats"]["norm"]["mean"], expected, atol=0.12)
    chex.assert_trees_all_equal((ready.g, ready.d, ready.ema.params), (state.g, state.d, state.ema.params))
    keys = sampling.image_keys(jax.random.key(3), 2)
    chex.assert_shape(played.sample(ready, keys, jnp.zeros(2, jnp.int32)), (2, 4, 4, 3))


class Dropper(nn.Module):
    """A discriminator of nothing but its own random numbers, and a weight that is not used."""

    @nn.compact
    def __call__(self, x: jax.Array, label: jax.Array, train: bool) -> types.Verdict:
        weight = self.param("weight", nn.initializers.zeros_init(), ())
        drawn = jax.random.normal(self.make_rng("dropout"), label.shape) if train else jnp.zeros(label.shape)
        return types.Verdict(drawn + weight)


@pytest.mark.parametrize("judge", ["jointly", "apart"])
def test_what_a_discriminator_drops_is_another_for_each_verdict(judge: str) -> None:
    """Those of real and generated pictures, of the generator's step, of the next step: means of 8 numbers."""
    played = gan.gan(game(discriminator=Dropper(), loss=SEEN, judge=judge, d_optimizer=optax.sgd(0.0)))
    step = jax.jit(played.step)
    state, one = step(start(played), batch(8), jax.random.key(2))
    _, two = step(state, batch(8), jax.random.key(2))
    names = ("logit/real", "logit/fake", "loss/g")  # SEEN shows the generator's verdict of real pictures
    means = [float(scalars[name]) for scalars in (one, two) for name in names]
    assert len(set(means)) == 6 and max(map(abs, means)) < 2.0


def test_tracks_are_averages_of_other_decays() -> None:
    """The one of the same decay equals the average, the others do what theirs say."""
    played = gan.gan(game(tracks=(0.5, 0.0, 0.9)))
    step, state = jax.jit(played.step), start(played)
    first = state.ema.params
    state, _ = step(state, batch(8, 0), jax.random.key(2))
    before = jax.tree.map(jnp.copy, state.g.params)
    state, _ = step(state, batch(8, 1), jax.random.key(2))
    chex.assert_trees_all_equal(state.tracks[0], state.ema)
    chex.assert_trees_all_close(state.tracks[1].params, state.g.params)
    expected = jax.tree.map(lambda a, b, c: 0.81 * a + 0.09 * b + 0.1 * c, first, before, state.g.params)
    chex.assert_trees_all_close(state.tracks[2].params, expected, rtol=1e-5, atol=1e-6)


class Told(Painter):
    """A generator that can be told of breeds bit by bit."""

    told: Any = 1.0

    @nn.compact
    def __call__(self, z: jax.Array, label: jax.Array, train: bool, key: jax.Array | None = None) -> Any:
        own = self.param("own", nn.initializers.ones_init(), (CLASSES,))
        image = Painter(name="painter")(z, label * 0, train, key)
        return image + self.told * own[label][:, None, None, None]


class ToldJudge(Judge):
    """A discriminator that can be told of breeds bit by bit."""

    told: Any = 1.0


def test_breeds_come_in_between_the_shares_of_the_ramp() -> None:
    played = gan.gan(game(generator=Told(), discriminator=ToldJudge(), label_ramp=(0.2, 0.4), steps=10))
    state = start(played)
    keys = sampling.image_keys(jax.random.key(5), 1)
    keys = jnp.concatenate([keys, keys])
    for step, apart in ((0, 0.0), (2, 0.0), (3, 0.5), (4, 1.0), (10, 1.0)):
        params = {**state.ema.params, "own": jnp.arange(CLASSES, dtype=jnp.float32)}
        now = state.replace(step=jnp.int32(step), ema=state.ema.replace(params=params))
        one, other = played.sample(now, keys, jnp.array([0, 1]))
        np.testing.assert_allclose(other - one, apart, atol=1e-5)


@pytest.mark.parametrize("ramp", [(0.5, 0.2), (0.1, 1.2), (0.3,)])
def test_a_ramp_must_rise_within_the_run(ramp: Any) -> None:
    with pytest.raises(ValueError, match=r"label_ramp is .* must be \(0, 0\) or"):
        gan.gan(game(label_ramp=ramp))


def test_a_ramp_needs_networks_that_can_be_told_bit_by_bit() -> None:
    with pytest.raises(ValueError, match="Painter cannot be told of breeds bit by bit"):
        gan.gan(game(label_ramp=(0.1, 0.2)))
