"""GANs on small networks: updates, gradient accumulation, EMAs, sampling, and the options of a step."""

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
from jaxdog.losses import adversarial, class_loss, regularizers
from jaxdog.models import layers, norms, spectral_norm
from jaxdog.optim import ema, optimizers
from jaxdog.systems import gan, gan_forward, gan_spec, gan_steps, sampling
from tests.models import networks

Z, CLASSES = 4, 3


class Generator(nn.Module):
    """A generator of 4x4 images with batch norm and spectral norm."""

    spectral: bool = True

    @nn.compact
    def __call__(self, z: jax.Array, label: jax.Array, train: bool, key: jax.Array) -> jax.Array:
        dense = partial(layers.Dense, spectral=self.spectral)
        h = dense(8, name="first")(jnp.concatenate([z, jax.nn.one_hot(label, CLASSES)], 1), train)
        h = norms.BatchNorm(name="norm")(h[:, None, None, :], train)[:, 0, 0]
        return jnp.tanh(dense(48, name="last")(h, train)).reshape(-1, 4, 4, 3)


class Discriminator(nn.Module):
    """A discriminator with spectral norm and no batch norm."""

    spectral: bool = True
    norm: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, label: jax.Array, train: bool) -> types.DiscriminatorOutput:
        h = jnp.concatenate([x.reshape(x.shape[0], -1), jax.nn.one_hot(label, CLASSES)], 1)
        dense = partial(layers.Dense, spectral=self.spectral)
        h = dense(8, name="first")(h, train)
        h = norms.BatchNorm(name="norm")(h, train) if self.norm else h
        return types.DiscriminatorOutput(dense(1, name="last")(nn.relu(h), train)[:, 0])


class StyledGenerator(Generator):
    """A generator with the methods of `types.StyleBased`."""

    def map_latents(self, z: jax.Array, label: jax.Array, train: bool, key: jax.Array) -> jax.Array:
        raise NotImplementedError

    def synthesize(self, w: jax.Array, train: bool, key: jax.Array) -> jax.Array:
        raise NotImplementedError


class LinearDiscriminator(nn.Module):
    """A discriminator of brightness and label, with the same class logits for every image."""

    @nn.compact
    def __call__(self, x: jax.Array, label: jax.Array, train: bool) -> types.DiscriminatorOutput:
        weight = self.param("weight", lambda key: jnp.array([1.0, 10.0]))
        guess = self.param("guess", nn.initializers.zeros_init(), (CLASSES,))
        logit = weight[0] * x.mean((1, 2, 3)) + weight[1] * label**2
        return types.DiscriminatorOutput(logit, jnp.broadcast_to(guess[None], (x.shape[0], CLASSES)))


def spec(**changes: Any) -> gan_spec.GANSpec:
    default = gan_spec.GANSpec(
        generator=Generator(),
        discriminator=Discriminator(),
        latent_dim=Z,
        classes=CLASSES,
        loss=adversarial.non_saturating(),
        g_optimizer=optax.sgd(0.1),
        d_optimizer=optax.sgd(0.1),
        augment=(),
        d_regularizers={},
        g_regularizers={},
        diffaugment=(),
        augment_p_controller=diffaugment.fixed(1.0),
        num_d_steps=1,
        grad_accumulation_steps=1,
        split_d=False,
        reuse_latents=False,
        g_step_groups=1,
        fake_label_source="uniform",
        g_fresh_reals=False,
        class_loss=None,
        ema_rule=ema.EMARule(0.5),
        extra_ema_decays=(),
        class_transition=(0.0, 0.0),
        num_steps=100,
        latent=partial(sampling.latent, dim=Z),
        sample_batch_stats="running",
        num_standing_batches=2,
        standing_batch_size=4,
        postprocess=lambda image: image,
        remat=False,
        axis=None,
    )
    return default._replace(**changes)


def batch(b: int, seed: int = 0) -> types.Batch:
    image_key, label_key = jax.random.split(jax.random.key(seed))
    image = jax.random.uniform(image_key, (b, 4, 4, 3), minval=-1.0)
    label = jax.random.randint(label_key, (b,), 0, CLASSES)
    return types.Batch(image, label, jnp.full((b, 2), 4), jnp.zeros(b, jnp.int32), jnp.zeros(b))


def init(system: types.System, b: int = 8) -> gan_spec.State:
    return jax.jit(system.init)(jax.random.key(1), batch(b))


def perturbed(state: gan_spec.State) -> gan_spec.State:
    """Kernels that are not orthogonal: for orthogonal ones, one power iteration suffices."""

    def perturb(net: types.PlayerState) -> types.PlayerState:
        return net.replace(params=networks.stirred(net.params, 1.0, seed=4))

    return state.replace(g=perturb(state.g), d=perturb(state.d))


@pytest.fixture(scope="module")
def plain() -> types.System:
    system = gan.gan(spec())
    return system._replace(step=jax.jit(system.step))


def test_a_step_changes_every_parameter_and_increments_the_step(plain: types.System) -> None:
    state = init(plain)
    after, scalars = plain.step(state, batch(8), jax.random.key(2))
    assert after.step == 1 and all(np.isfinite(x) for x in scalars.values())
    moved = jax.tree.map(
        lambda old, new: not np.array_equal(old, new),
        (state.g.params, state.d.params, state.ema.params),
        (after.g.params, after.d.params, after.ema.params),
    )
    assert all(jax.tree.leaves(moved)), moved


def test_a_step_is_a_function_of_key_and_step_number(plain: types.System) -> None:
    state = init(plain)
    one, _ = plain.step(state, batch(8), jax.random.key(2))
    two, _ = plain.step(state, batch(8), jax.random.key(2))
    chex.assert_trees_all_equal(one, two)
    _, later = plain.step(state.replace(step=jnp.int32(5)), batch(8), jax.random.key(2))
    _, now = plain.step(state, batch(8), jax.random.key(2))
    assert later["logit/fake"] != now["logit/fake"]


def test_spectral_norm_does_one_power_iteration_per_network_and_step(plain: types.System) -> None:
    """After a step, u is the result of one power iteration with the parameters before it."""
    state = perturbed(init(plain))
    after, _ = plain.step(state, batch(8), jax.random.key(2))
    for before, net in ((state.d, after.d), (state.g, after.g)):
        kernel = np.asarray(before.params["first"]["kernel"])
        v = kernel @ np.asarray(before.model_state[spectral_norm.SPECTRAL]["first"]["u"])
        v /= np.linalg.norm(v)
        u = v @ kernel
        u /= np.linalg.norm(u)
        np.testing.assert_allclose(net.model_state[spectral_norm.SPECTRAL]["first"]["u"], u, atol=1e-6)
        np.testing.assert_allclose(net.model_state[spectral_norm.SPECTRAL]["first"]["v"], v, atol=1e-6)


def test_running_statistics_come_from_the_generator_step_alone(plain: types.System) -> None:
    state = init(plain)
    after, _ = plain.step(state, batch(8), jax.random.key(2))
    before, now = (x.g.model_state["batch_stats"]["norm"]["mean"] for x in (state, after))
    _, g_key = jax.random.split(jax.random.fold_in(jax.random.key(2), 0))
    key = gan_steps.batch_keys(spec(), g_key).latent[0]
    fakes = gan_forward.generate(spec(), state.g, state.g.params, key, batch(8).label, update_state=True)
    np.testing.assert_allclose(now, fakes.model_state["batch_stats"]["norm"]["mean"], rtol=1e-5)
    assert not np.array_equal(before, now)


@pytest.mark.parametrize("name", ["r1", "r2"])
def test_penalties_pass_through_diffaugment(name: str) -> None:
    """The logit is the mean of 48 values, and T(x) = 3 x: every derivative is 3 / 48."""
    penalty = regularizers.D_REGULARIZERS[name](1.0, 1)
    triple = lambda key, image, p: 3.0 * image  # noqa: E731
    changes = {
        "discriminator": LinearDiscriminator(),
        "diffaugment": (triple,),
        "d_regularizers": {name: penalty},
    }
    *_, scalars = one_step(changes)
    np.testing.assert_allclose(scalars[f"regularizer/{name}/d"], 0.5 * 48 * (3 / 48) ** 2, rtol=1e-5)
    assert -1.0 <= float(scalars["augment_r_t"]) <= 1.0


@pytest.mark.long
@pytest.mark.parametrize("steps", [1, 4])
def test_ada_counts_all_images_of_an_update(steps: int) -> None:
    for target, expected in ((-2.0, 16 / 100), (2.0, 0.0)):  # r_t is between -1 and 1
        changes = {"augment_p_controller": diffaugment.ada(target, kimg=0.1, limit=1.0)}
        color = partial(diffaugment.color, brightness=0.1, saturation=0.1, contrast=0.1)
        system = gan.gan(spec(**changes, diffaugment=(color,), grad_accumulation_steps=steps))
        state, scalars = jax.jit(system.step)(init(system), batch(16), jax.random.key(2))
        assert float(scalars["augment_p"]) == pytest.approx(expected)
        assert float(state.d.regularizer_state["augment_p"]) == pytest.approx(expected)


@pytest.mark.long
def test_accumulation_equals_one_large_batch() -> None:
    """The same images and latents in 1 batch or in 4 give the same discriminator (without batch norm)."""
    large, small = spec(), spec(grad_accumulation_steps=4)
    state = init(gan.gan(large))
    real, noise = batch(16), batch(16, seed=9)

    def loss(params: Any, inputs: tuple[types.Batch, types.Batch]) -> Any:
        (image, label, *_), (other, other_label, *_) = inputs
        output, model_state = Discriminator().apply(
            {"params": params, **state.d.model_state},
            jnp.concatenate([image, other]),
            jnp.concatenate([label, other_label]),
            train=True,
            mutable=list(state.d.model_state),
        )
        terms = large.loss.d(jax.random.key(0), *jnp.split(output.logit, 2))
        return jnp.mean(terms[0] + terms[1]), (model_state, {}, {"loss": jnp.mean(terms[0] + terms[1])})

    def learn(system: gan_spec.GANSpec) -> tuple[types.PlayerState, types.Scalars]:
        first = tuple(gan_steps.split_microbatches(system, x)[0] for x in (real, noise))
        return optimizers.accumulate_and_apply(
            state.d, system.d_optimizer, loss, first, system.grad_accumulation_steps
        )

    one, one_scalars = learn(large)
    four, four_scalars = learn(small)
    chex.assert_trees_all_close(one, four, atol=1e-6)
    chex.assert_trees_all_close(one_scalars, four_scalars, rtol=1e-5)


def test_several_d_steps_use_different_real_batches() -> None:
    system = gan.gan(spec(num_d_steps=2))
    state = init(system)
    after, _ = jax.jit(system.step)(state, batch(16), jax.random.key(2))
    assert after.step == 1
    parts = np.stack([x.image for x in gan_steps.split_microbatches(spec(num_d_steps=2), batch(16))])
    chex.assert_shape(parts, (2, 1, 8, 4, 4, 3))
    assert not np.array_equal(parts[0], parts[1])
    whole = np.sort(parts.reshape(16, -1), axis=0)
    np.testing.assert_array_equal(whole, np.sort(np.asarray(batch(16).image).reshape(16, -1), axis=0))


def test_ema_of_decay_one_half_is_the_mean_of_old_ema_and_new_parameters(plain: types.System) -> None:
    state = init(plain)
    after, _ = plain.step(state, batch(8), jax.random.key(2))
    expected = jax.tree.map(lambda a, b: 0.5 * (a + b), state.ema.params, after.g.params)
    chex.assert_trees_all_close(after.ema.params, expected, rtol=1e-5)


def test_augmentations_change_the_input_of_the_discriminator() -> None:
    black = gan.gan(
        spec(augment=(lambda key, batch: batch._replace(image=jnp.full_like(batch.image, -1.0)),))
    )
    state = init(black)
    one, _ = jax.jit(black.step)(state, batch(8, seed=1), jax.random.key(2))
    two, _ = jax.jit(black.step)(state, batch(8, seed=1)._replace(image=batch(8, 5).image), jax.random.key(2))
    chex.assert_trees_all_close(one.d.params, two.d.params, atol=1e-7)


def test_an_image_does_not_depend_on_its_batch(plain: types.System) -> None:
    state = init(plain)
    keys, label = sampling.image_keys(jax.random.key(3), 6), jnp.arange(6) % CLASSES
    whole = plain.sample(state, keys, label)
    chex.assert_shape(whole, (6, 4, 4, 3))
    np.testing.assert_allclose(plain.sample(state, keys[4:5], label[4:5]), whole[4:5], atol=1e-6)


def test_batch_statistics_at_sampling_depend_on_the_batch() -> None:
    system = gan.gan(spec(sample_batch_stats="batch"))
    state = init(system)
    keys, label = sampling.image_keys(jax.random.key(3), 6), jnp.arange(6) % CLASSES
    whole = system.sample(state, keys, label)
    assert not np.allclose(system.sample(state, keys[3:], label[3:]), whole[3:], atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"sample_batch_stats": "mean"},
            "sample_batch_stats is 'mean'; choices: 'running', 'batch', 'standing'",
        ),
        ({"num_d_steps": 0}, "system.num_d_steps is 0, and must be at least 1"),
        ({"grad_accumulation_steps": 0}, "system.grad_accumulation_steps is 0, and must be at least 1"),
        (
            {"generator": StyledGenerator(), "sample_batch_stats": "batch"},
            "sample.batch_stats is 'batch'; a style-based generator has no batch norm: 'running'",
        ),
        (
            {"generator": StyledGenerator(), "sample_batch_stats": "standing"},
            "sample.batch_stats is 'standing'; a style-based generator",
        ),
    ],
)
def test_invalid_values_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gan.gan(spec(**changes))


def test_latents_of_d_do_not_go_with_the_labels_of_another_batch() -> None:
    """Neither does it depend on `remat` or accumulation, which need a second pass, what G gets."""
    changes = {"reuse_latents": True, "g_fresh_reals": True, "fake_label_source": "real", "loss": LOGIT_LOSS}
    with pytest.raises(ValueError, match="system.reuse_latents and system.g_fresh_reals are True, and"):
        gan.gan(spec(**changes))
    for name, value in (("reuse_latents", False), ("g_fresh_reals", False), ("fake_label_source", "uniform")):
        gan.gan(spec(**{**changes, name: value}))


# Options of a step ------------------------------------------------------------------------------------------

LOGIT_LOSS = adversarial.Loss(
    d=lambda key, real, fake: (real, fake),
    g=lambda key, real, fake: real + 0.0 * fake,
    needs_real_logits=True,
)  # its values are the logits that each player gets


def one_step(changes: dict[str, Any], b: int = 8) -> tuple[gan_spec.State, gan_spec.State, types.Scalars]:
    """(state before, state after, scalars) of one step with these changes of the spec."""
    system = gan.gan(spec(**changes))
    state = init(system)
    return state, *jax.jit(system.step)(state, batch(b), jax.random.key(2))


def test_groups_of_the_g_step_have_batch_statistics_of_their_own() -> None:
    normed = spec(discriminator=Discriminator(norm=True), g_step_groups=2)
    d = init(gan.gan(normed)).d
    image, label, *_ = batch(8)
    apply = partial(gan_forward.discriminate_frozen, d=d, dropout_key=jax.random.key(0))
    both = apply(normed, images=(image, label)).logit
    alone = normed._replace(g_step_groups=1)
    for group in (slice(0, None, 2), slice(1, None, 2)):
        expected = apply(alone, images=(image[group], label[group])).logit
        np.testing.assert_allclose(both[group], expected, rtol=1e-5, atol=1e-6)
    assert not np.allclose(both, apply(alone, images=(image, label)).logit, atol=1e-3)
    with pytest.raises(ValueError, match="system.g_step_groups is 2, and must divide the 7 images"):
        apply(normed, images=(image[:7], label[:7]))


@pytest.mark.long
def test_split_d_matters_only_for_layers_that_mix_images() -> None:
    together, alone = ({"split_d": split, "generator": Generator(False)} for split in (False, True))
    plain = {"discriminator": Discriminator(spectral=False)}
    _, one, scalars = one_step({**together, **plain})
    _, two, others = one_step({**alone, **plain})
    chex.assert_trees_all_close((one, scalars), (two, others), rtol=1e-4, atol=1e-6)
    normed = {"discriminator": Discriminator(spectral=False, norm=True)}
    _, _, scalars = one_step({**together, **normed})
    _, _, others = one_step({**alone, **normed})
    assert abs(scalars["loss/d"] - others["loss/d"]) > 1e-3


def test_split_d_does_two_power_iterations() -> None:
    system = gan.gan(spec(split_d=True))
    before = perturbed(init(system))
    now, _ = jax.jit(system.step)(before, batch(8), jax.random.key(2))
    kernel = np.asarray(before.d.params["first"]["kernel"])
    u = np.asarray(before.d.model_state[spectral_norm.SPECTRAL]["first"]["u"])
    for _ in range(2):
        v = kernel @ u / np.linalg.norm(kernel @ u)
        u, once = v @ kernel / np.linalg.norm(v @ kernel), u
    assert not np.allclose(u, once, atol=1e-2)
    np.testing.assert_allclose(now.d.model_state[spectral_norm.SPECTRAL]["first"]["u"], u, atol=1e-6)


def test_split_d_updates_running_statistics_twice() -> None:
    """With real images first."""
    changes = {
        "split_d": True,
        "discriminator": Discriminator(spectral=False, norm=True),
        "generator": Generator(False),
    }
    before, now, _ = one_step(changes)
    d_key, _ = jax.random.split(jax.random.fold_in(jax.random.key(2), 0))
    keys = gan_steps.batch_keys(spec(), jax.random.fold_in(d_key, 0))
    real = batch(8)
    image, label, _ = gan_forward.generate(
        spec(**changes), before.g, before.g.params, keys.latent[0], real.label, update_state=False
    )
    mean = 0.0
    for seen, labels in ((real.image, real.label), (image, label)):
        h = jnp.concatenate([seen.reshape(8, -1), jax.nn.one_hot(labels, CLASSES)], 1)
        mean = 0.9 * mean + 0.1 * (h @ before.d.params["first"]["kernel"]).mean(0)
    np.testing.assert_allclose(now.d.model_state["batch_stats"]["norm"]["mean"], mean, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("reuse", [True, False])
def test_reused_latents_are_those_of_the_last_d_step(reuse: bool) -> None:
    """A discriminator that is not updated has the same logits for them again."""
    shown = adversarial.Loss(d=lambda key, real, fake: (real, fake), g=lambda key, real, fake: fake)
    plain = {
        "generator": Generator(False),
        "discriminator": Discriminator(False),
        "d_optimizer": optax.sgd(0.0),
    }
    _, _, scalars = one_step({**plain, "reuse_latents": reuse, "loss": shown, "num_d_steps": 2}, b=16)
    assert np.isclose(scalars["loss/g"], scalars["logit/fake"], atol=1e-5) == reuse


@pytest.mark.long
@pytest.mark.parametrize("num_d_steps", [1, 2])
def test_one_forward_pass_of_the_generator_serves_both_players(num_d_steps: int, monkeypatch) -> None:
    """The result is that of two passes."""
    changes = {"generator": Generator(False), "reuse_latents": True, "num_d_steps": num_d_steps}
    passes = []
    generate = gan_forward.generate

    def counted(*given: Any, **named: Any) -> Any:
        passes.append(named)
        return generate(*given, **named)

    monkeypatch.setattr(gan_forward, "generate", counted)
    _, shared, scalars = one_step(changes, b=8 * num_d_steps)
    assert len(passes) == num_d_steps
    monkeypatch.setattr(
        gan_forward, "generate_with_vjp", lambda spec, g, key, real_label: partial(counted, spec, g)
    )
    passes.clear()
    _, apart, others = one_step(changes, b=8 * num_d_steps)
    assert len(passes) == num_d_steps + 1
    chex.assert_trees_all_close((shared, scalars), (apart, others), rtol=1e-5, atol=1e-6)


def test_fake_labels_may_be_those_of_the_real_batch() -> None:
    real = batch(30)._replace(label=jnp.arange(30, dtype=jnp.int32) % 2)
    drawn = []
    for labels in ("real", "uniform"):
        system = spec(fake_label_source=labels)
        state = init(gan.gan(system))
        image, label, _ = gan_forward.generate(
            system, state.g, state.g.params, jax.random.key(6), real.label, update_state=False
        )
        keys = jax.random.split(jax.random.split(jax.random.key(6), 3)[2], 30)
        z = jax.random.normal(jax.random.split(jax.random.key(6), 3)[0], (30, Z))
        expected: Any = Generator().apply(
            {"params": state.g.params, **state.g.model_state}, z, label, train=True, key=keys
        )
        np.testing.assert_allclose(image, expected, atol=1e-5)
        drawn.append(np.bincount(label, minlength=CLASSES))
    np.testing.assert_array_equal(drawn[0], [15, 15, 0])
    assert drawn[1].sum() == 30 and drawn[1][2] > 0


@pytest.mark.parametrize("num_d_steps", [1, 2])
@pytest.mark.parametrize("own", [True, False])
def test_a_relativistic_generator_may_use_a_separate_real_batch(num_d_steps: int, own: bool) -> None:
    changes = {
        "loss": LOGIT_LOSS,
        "g_fresh_reals": own,
        "num_d_steps": num_d_steps,
        "discriminator": LinearDiscriminator(),
    }
    still = {"d_optimizer": optax.sgd(0.0)}
    count = num_d_steps + own
    assert gan_spec.num_real_microbatches(spec(**changes)) == count
    assert gan_spec.num_real_microbatches(spec(**changes, grad_accumulation_steps=3)) == 3 * count
    other_loss = spec(g_fresh_reals=True, num_d_steps=num_d_steps)  # not relativistic
    assert gan_spec.num_real_microbatches(other_loss) == num_d_steps
    _, _, scalars = one_step({**changes, **still}, b=8 * count)
    parts = gan_steps.split_microbatches(spec(**changes), batch(8 * count))
    expected = [float(part.image.mean() + 10 * (part.label**2).mean()) for part in parts]
    np.testing.assert_allclose(scalars["logit/real"], expected[num_d_steps - 1], rtol=1e-4)
    np.testing.assert_allclose(scalars["loss/g"], expected[-1], rtol=1e-4)


def test_class_loss_of_real_images_for_d_and_of_generated_ones_for_g() -> None:
    """For logits that start at 0 and are the same for all images, entropies and gradient are closed forms."""
    plain = {
        "discriminator": LinearDiscriminator(),
        "d_optimizer": optax.sgd(1.0),
        "fake_label_source": "real",
    }
    _, now, scalars = one_step({**plain, "class_loss": class_loss.cross_entropy(0.3)})
    _, _, without = one_step(plain)
    shares = np.bincount(batch(8).label, minlength=CLASSES) / 8
    guess = -0.3 * (1 / CLASSES - shares)
    np.testing.assert_allclose(now.d.params["guess"], guess, atol=1e-6)
    np.testing.assert_allclose(scalars["loss/class_real"], np.log(CLASSES), rtol=1e-6)
    np.testing.assert_allclose(scalars["accuracy/class_real"], shares[0], rtol=1e-6)
    np.testing.assert_allclose(scalars["loss/d"] - without["loss/d"], 0.3 * np.log(CLASSES), rtol=1e-3)
    entropy = np.log(np.exp(guess).sum()) - shares @ guess
    np.testing.assert_allclose(scalars["loss/class_fake"], entropy, rtol=1e-5)
    np.testing.assert_allclose(scalars["accuracy/class_fake"], shares[np.argmax(guess)], rtol=1e-6)
    np.testing.assert_allclose(scalars["loss/g"] - without["loss/g"], 0.3 * entropy, rtol=1e-3)
    assert not any("class" in name for name in without)


@pytest.mark.long
def test_class_loss_may_apply_to_generated_images_in_the_d_step() -> None:
    """Real and generated images each have the full weight and their own labels."""
    real = batch(8)._replace(label=jnp.zeros(8, jnp.int32))
    changes: dict[str, Any] = {"discriminator": LinearDiscriminator(), "d_optimizer": optax.sgd(1.0)}
    both, real_alone = (
        gan.gan(spec(**changes, class_loss=class_loss.cross_entropy(0.3, x))) for x in ("both", "real")
    )
    state, key = init(both), jax.random.key(2)
    now, scalars = jax.jit(both.step)(state, real, key)
    d_key, _ = jax.random.split(jax.random.fold_in(key, 0))
    latent_key = gan_steps.batch_keys(spec(), jax.random.fold_in(d_key, 0)).latent[0]
    drawn = np.bincount(gan_forward.sample_latents(spec(), latent_key, real.label)[1], minlength=CLASSES) / 8
    assert drawn[0] < 1.0
    np.testing.assert_allclose(now.d.params["guess"], -0.3 * (2 / CLASSES - drawn - [1, 0, 0]), atol=1e-6)
    _, others = jax.jit(real_alone.step)(state, real, key)
    np.testing.assert_allclose(scalars["loss/d"] - others["loss/d"], 0.3 * np.log(CLASSES), rtol=1e-3)
    np.testing.assert_allclose(scalars["loss/class_real"], np.log(CLASSES), rtol=1e-6)


class RandomDiscriminator(nn.Module):
    """A discriminator whose logits are random numbers of the stream that dropout uses."""

    @nn.compact
    def __call__(self, x: jax.Array, label: jax.Array, train: bool) -> types.DiscriminatorOutput:
        weight = self.param("weight", nn.initializers.ones_init(), ())
        drawn = jax.random.uniform(self.make_rng("dropout"), label.shape) if train else jnp.zeros(label.shape)
        return types.DiscriminatorOutput(weight * drawn)


@pytest.mark.parametrize("split_d", [True, False])
def test_dropout_differs_between_calls_of_the_discriminator(split_d: bool) -> None:
    system = gan.gan(
        spec(
            discriminator=RandomDiscriminator(),
            loss=adversarial.wasserstein(),
            split_d=split_d,
            num_d_steps=2,
        )
    )
    state: Any = init(system)
    step = jax.jit(system.step)
    once, twice, later = (
        step(state.replace(step=jnp.int32(i)), batch(16), jax.random.key(2))[1] for i in (3, 3, 4)
    )
    chex.assert_trees_all_equal(once, twice)
    drawn = [once["logit/real"], once["logit/fake"], -once["loss/g"], later["logit/real"], -later["loss/g"]]
    assert len({round(float(x), 5) for x in drawn}) == len(drawn)


def test_a_class_loss_needs_a_class_head() -> None:
    with pytest.raises(ValueError, match="needs a discriminator with class_head='linear' for 3 classes"):
        one_step({"class_loss": class_loss.cross_entropy(0.1)})


def test_standing_statistics_are_those_of_new_images() -> None:
    """The mean of the first layer over z ~ N(0, I) and uniform labels, computed separately."""
    system = gan.gan(
        spec(
            generator=Generator(False),
            sample_batch_stats="standing",
            num_standing_batches=120,
            standing_batch_size=64,
        )
    )
    assert system.prepare is not None and gan.gan(spec()).prepare is None
    state = init(system)
    ready = jax.jit(system.prepare)(state, jax.random.key(5))
    first = state.ema.params["first"]
    expected = np.asarray(first["kernel"])[Z:].mean(0) + np.asarray(first["bias"])
    found = ready.ema.model_state["batch_stats"]["norm"]
    np.testing.assert_allclose(found["mean"], expected, atol=0.12)
    kernel = np.asarray(first["kernel"])
    spread = np.square(kernel[:Z]).sum(0) + kernel[Z:].var(0)
    np.testing.assert_allclose(found["var"], spread, rtol=0.2)
    assert not np.allclose(state.ema.model_state["batch_stats"]["norm"]["mean"], expected, atol=0.12)
    chex.assert_trees_all_equal((ready.g, ready.d, ready.ema.params), (state.g, state.d, state.ema.params))
    keys = sampling.image_keys(jax.random.key(3), 2)
    chex.assert_shape(system.sample(ready, keys, jnp.zeros(2, jnp.int32)), (2, 4, 4, 3))


class DropoutDiscriminator(nn.Module):
    """A discriminator whose logits are normal random numbers plus an unused weight."""

    @nn.compact
    def __call__(self, x: jax.Array, label: jax.Array, train: bool) -> types.DiscriminatorOutput:
        weight = self.param("weight", nn.initializers.zeros_init(), ())
        drawn = jax.random.normal(self.make_rng("dropout"), label.shape) if train else jnp.zeros(label.shape)
        return types.DiscriminatorOutput(drawn + weight)


@pytest.mark.parametrize("split_d", [False, True])
def test_dropout_differs_between_real_and_generated_images_players_and_steps(split_d: bool) -> None:
    """Means of 8 logits: of real and of generated images, in the G step, in the next step."""
    system = gan.gan(
        spec(
            discriminator=DropoutDiscriminator(), loss=LOGIT_LOSS, split_d=split_d, d_optimizer=optax.sgd(0.0)
        )
    )
    step = jax.jit(system.step)
    state, one = step(init(system), batch(8), jax.random.key(2))
    _, two = step(state, batch(8), jax.random.key(2))
    names = ("logit/real", "logit/fake", "loss/g")  # LOGIT_LOSS: G's loss is the real logits in the G step
    means = [float(scalars[name]) for scalars in (one, two) for name in names]
    assert len(set(means)) == 6 and max(map(abs, means)) < 2.0


def test_extra_emas_have_their_own_decays() -> None:
    """The one with the decay of the first EMA equals it."""
    system = gan.gan(spec(extra_ema_decays=(0.5, 0.0, 0.9)))
    step, state = jax.jit(system.step), init(system)
    first = state.ema.params
    state, _ = step(state, batch(8, 0), jax.random.key(2))
    before = jax.tree.map(jnp.copy, state.g.params)
    state, _ = step(state, batch(8, 1), jax.random.key(2))
    chex.assert_trees_all_equal(state.extra_emas[0], state.ema)
    chex.assert_trees_all_close(state.extra_emas[1].params, state.g.params)
    expected = jax.tree.map(lambda a, b, c: 0.81 * a + 0.09 * b + 0.1 * c, first, before, state.g.params)
    chex.assert_trees_all_close(state.extra_emas[2].params, expected, rtol=1e-5, atol=1e-6)


class ScaledGenerator(Generator):
    """A generator with a class_scale."""

    class_scale: Any = 1.0

    @nn.compact
    def __call__(self, z: jax.Array, label: jax.Array, train: bool, key: jax.Array | None = None) -> Any:
        own = self.param("own", nn.initializers.ones_init(), (CLASSES,))
        image = Generator(name="generator")(z, label * 0, train, key)
        return image + self.class_scale * own[label][:, None, None, None]


class ScaledDiscriminator(Discriminator):
    """A discriminator with a class_scale."""

    class_scale: Any = 1.0


class MultiHingeDiscriminator(ScaledDiscriminator):
    """A discriminator whose field says what its head is."""

    class_head: str = "multi_hinge"


def test_class_scale_rises_between_the_fractions_of_class_transition() -> None:
    system = gan.gan(
        spec(
            generator=ScaledGenerator(),
            discriminator=ScaledDiscriminator(),
            class_transition=(0.2, 0.4),
            num_steps=10,
        )
    )
    state = init(system)
    keys = sampling.image_keys(jax.random.key(5), 1)
    keys = jnp.concatenate([keys, keys])
    for step, apart in ((0, 0.0), (2, 0.0), (3, 0.5), (4, 1.0), (10, 1.0)):
        params = {**state.ema.params, "own": jnp.arange(CLASSES, dtype=jnp.float32)}
        now = state.replace(step=jnp.int32(step), ema=state.ema.replace(params=params))
        one, other = system.sample(now, keys, jnp.array([0, 1]))
        np.testing.assert_allclose(other - one, apart, atol=1e-5)


@pytest.mark.parametrize("ramp", [(0.5, 0.2), (0.1, 1.2), (0.3,)])
def test_a_class_transition_must_rise_within_training(ramp: Any) -> None:
    with pytest.raises(ValueError, match=r"class_transition is .* must be \(0, 0\) or"):
        gan.gan(spec(class_transition=ramp))


def test_the_class_loss_rises_with_the_class_scale() -> None:
    changes = {
        "generator": ScaledGenerator(),
        "discriminator": ScaledDiscriminator(),
        "class_transition": (0.2, 0.4),
        "num_steps": 10,
        "class_loss": class_loss.cross_entropy(2.0),
    }
    for step, weight in ((0, 0.0), (3, 1.0), (4, 2.0), (9, 2.0)):
        loss = gan_spec.at_step(spec(**changes), jnp.int32(step)).class_loss
        assert loss is not None
        np.testing.assert_allclose(loss.weight, weight, rtol=1e-6)


def test_a_multi_hinge_head_cannot_be_unconditional_at_first() -> None:
    head = MultiHingeDiscriminator()
    with pytest.raises(ValueError, match="class_transition is .* discriminator.class_head 'multi_hinge'"):
        gan.gan(spec(generator=ScaledGenerator(), discriminator=head, class_transition=(0.1, 0.2)))


def test_a_class_transition_needs_networks_with_a_class_scale() -> None:
    with pytest.raises(ValueError, match="Generator has no class_scale"):
        gan.gan(spec(class_transition=(0.1, 0.2)))
