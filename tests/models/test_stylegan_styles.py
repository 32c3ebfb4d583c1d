"""StyleGAN's styles: mixing, truncation, the running mean of w, path lengths, class conditioning."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog import types
from jaxdog.losses import regularizers
from jaxdog.models import stylegan
from jaxdog.optim import ema
from jaxdog.systems import gan, gan_forward
from tests.models import networks
from tests.models.test_stylegan import (
    CLASSES,
    KEY,
    KEYS,
    LABEL,
    LATENT,
    STYLE,
    B,
    discriminator,
    generator,
    latents,
    pictures,
    started,
)
from tests.systems import test_gan

# Mixing and truncation --------------------------------------------------------------------------------------


def unmapped(**fields: Any) -> Any:
    """A generator whose w is z, brought to a mean square of 1."""
    return generator(**{**dict(mapping_layers=0, latent_dim=STYLE, size=16), **fields})


def unit(z: jax.Array) -> np.ndarray:
    return np.asarray(z / jnp.sqrt(jnp.square(z).mean(-1, keepdims=True) + 1e-8))


def test_style_mixing_switches_latents_at_a_random_layer_per_image() -> None:
    n = 2000
    z, keys = jax.random.normal(KEY, (n, STYLE)), jax.random.split(jax.random.key(3), n)
    label = jnp.zeros(n, jnp.int32)
    net = unmapped(style_mixing_prob=0.9)
    variables = {stylegan.AVERAGES: {"w": jnp.zeros(STYLE)}, "params": {}}
    w = np.asarray(networks.apply(net, variables, z, label, True, keys, method="map_latents"))
    assert w.shape == (n, 6, STYLE)
    own = np.abs(w - unit(z)[:, None]).max(2) < 1e-5
    assert own[:, 0].all()
    first = own.sum(1)
    np.testing.assert_array_equal(own, np.arange(6) < first[:, None])  # one crossing, no way back
    shares = np.bincount(first, minlength=7)[1:] / n
    np.testing.assert_allclose(shares, [0.18] * 5 + [0.1], atol=0.035)
    mixed = w[first < 6]
    second = mixed[:, -1]
    for i, picture in zip(first[first < 6], mixed, strict=True):
        np.testing.assert_array_equal(picture[i:], np.broadcast_to(picture[-1], (6 - i, STYLE)))
    # Another latent of the same kind, not the first one again.
    np.testing.assert_allclose(np.square(second).mean(1), 1.0, rtol=1e-4)
    np.testing.assert_allclose(second.mean(0), 0.0, atol=0.12)
    assert abs(np.corrcoef(second.ravel(), mixed[:, 0].ravel())[0, 1]) < 0.05


def test_style_mixing_uses_each_images_own_key_and_only_happens_in_training() -> None:
    z = latents(STYLE)
    net = unmapped(style_mixing_prob=1.0, truncation_psi=1.0)
    variables = {stylegan.AVERAGES: {"w": jnp.zeros(STYLE)}, "params": {}}
    w = np.asarray(networks.apply(net, variables, z, LABEL, True, KEYS, method="map_latents"))
    alone = networks.apply(net, variables, z[3:4], LABEL[3:4], True, KEYS[3:4], method="map_latents")
    np.testing.assert_allclose(alone[0], w[3], atol=1e-6)
    assert (np.abs(w[:, -1] - w[:, 0]).max(1) > 1e-2).all()
    still = networks.apply(net, variables, z, LABEL, False, KEYS, method="map_latents")
    np.testing.assert_allclose(still, np.repeat(unit(z)[:, None], 6, 1), atol=1e-6)
    none = networks.apply(
        unmapped(style_mixing_prob=0.0), variables, z, LABEL, True, KEYS, method="map_latents"
    )
    np.testing.assert_allclose(none, still, atol=1e-6)


def test_both_styles_affect_a_mixed_image() -> None:
    """Coarse layers see the first latent, fine ones the second."""
    net = generator(style_mixing_prob=1.0)
    variables = started(net, latents(), LABEL, False, KEYS)
    w = networks.apply(net, variables, latents(), LABEL, True, KEYS, method="map_latents")

    def pull(w: jax.Array) -> jax.Array:
        return jax.grad(lambda w: jnp.square(net.apply(variables, w, True, KEYS, method="synthesize")).sum())(
            w
        )

    assert (np.abs(jax.jit(pull)(w)).max((0, 2)) > 1e-4).all()


def test_psi_interpolates_from_the_mean_image_to_the_image_itself() -> None:
    net, z = generator(modulation="demodulated", truncation_cutoff=8, embed_dim=3), latents()
    variables = started(net, z, LABEL, False, KEYS)
    same = jnp.broadcast_to(KEYS[:1], KEYS.shape)  # of noise
    drawn = jax.jit(
        lambda truncation_psi, keys: net.clone(truncation_psi=truncation_psi).apply(
            variables, z, LABEL, False, keys
        )
    )
    mean, whole = drawn(0.0, same), drawn(1.0, KEYS)
    np.testing.assert_allclose(mean, np.broadcast_to(mean[:1], mean.shape), atol=1e-6)

    @jax.jit
    def pictures() -> tuple[jax.Array, jax.Array]:
        w = jnp.broadcast_to(variables[stylegan.AVERAGES]["w"], (B, 4, STYLE))
        painted = net.apply(variables, w, False, same, method="synthesize")
        return painted, net.apply(variables, z, LABEL, True, KEYS)

    of_mean, trained = map(np.asarray, pictures())
    np.testing.assert_allclose(mean, of_mean.clip(-1, 1), atol=1e-5)
    np.testing.assert_allclose(whole, trained.clip(-1, 1), atol=1e-5)
    assert np.abs(whole[0] - whole[1]).max() > 0.01


def test_psi_works_up_to_a_height() -> None:
    net, z = unmapped(truncation_psi=0.7, truncation_cutoff=8), latents(STYLE)
    mean = jnp.arange(STYLE) / STYLE
    w = networks.apply(
        net, {stylegan.AVERAGES: {"w": mean}, "params": {}}, z, LABEL, False, KEYS, method="map_latents"
    )
    pulled = 0.3 * np.asarray(mean) + 0.7 * unit(z)
    np.testing.assert_allclose(w[:, :4], np.repeat(pulled[:, None], 4, 1), atol=1e-6)
    np.testing.assert_allclose(w[:, 4:], np.repeat(unit(z)[:, None], 2, 1), atol=1e-6)


def test_the_mean_moves_in_training_passes_that_may_move_it() -> None:
    net, z = unmapped(style_mixing_prob=1.0, size=4), latents(STYLE)
    variables = started(net, z, LABEL, True, KEYS)
    old = jnp.arange(STYLE) / STYLE
    for train in (True, False):
        _, new = jax.jit(
            lambda old, train=train: net.apply(
                {**variables, stylegan.AVERAGES: {"w": old}}, z, LABEL, train, KEYS,
                method="map_latents", mutable=[stylegan.AVERAGES],
            )
        )(old)  # fmt: skip
        expected = 0.9 * np.asarray(old) + 0.1 * unit(z).mean(0) if train else old
        np.testing.assert_allclose(new[stylegan.AVERAGES]["w"], expected, atol=1e-6)


@pytest.mark.long
def test_the_mean_goes_with_the_generators_state_and_into_its_average() -> None:
    """One step of a GAN: moved once, by the generator's pass; the average has the network's own."""
    g = generator(size=4)
    rules = test_gan.spec(generator=g, latent_dim=LATENT, ema_rule=ema.EMARule(0.5, batch_stats="copy"))
    played, batch = gan.gan(rules), test_gan.batch(B)
    state = jax.jit(played.init)(KEY, batch)
    after, _ = jax.jit(played.step)(state, batch, KEY)
    mean = np.asarray(after.g.model_state[stylegan.AVERAGES]["w"])
    # By hand: the latents of the generator's step.
    g_key = jax.random.split(jax.random.fold_in(KEY, 0))[1]
    noise = jax.random.split(jax.random.split(g_key, 5)[1], 1)[0]
    z = jax.random.normal(jax.random.split(noise, 3)[0], (B, LATENT))
    w = networks.apply(
        g, {"params": state.g.params, **state.g.model_state}, z, LABEL, True, KEYS, method="map_latents"
    )
    np.testing.assert_allclose(mean, 0.1 * np.asarray(w)[:, 0].mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(after.ema.model_state[stylegan.AVERAGES]["w"], mean)


# Images ---------------------------------------------------------------------------------------------------


def test_images_are_clipped_only_when_sampling() -> None:
    net, z = generator(truncation_psi=1.0, size=4), latents()
    variables = started(net, z, LABEL, False, KEYS)
    loud = jax.tree_util.tree_map_with_path(
        lambda path, x: 50.0 * x if "rgb4" in jax.tree_util.keystr(path) else x, variables
    )
    both = jax.jit(lambda: [net.apply(loud, z, LABEL, train, KEYS) for train in (True, False)])
    trained, sampled = map(np.asarray, both())
    assert np.abs(trained).max() > 2 and np.abs(sampled).max() == 1
    np.testing.assert_allclose(sampled, trained.clip(-1, 1), atol=1e-4)


def test_an_image_depends_on_its_own_key() -> None:
    net, z = generator(modulation="demodulated"), latents()
    variables = started(net, z, LABEL, False, KEYS)
    draw = jax.jit(lambda z, label, keys: net.apply(variables, z, label, False, keys))
    base, other = (np.asarray(draw(z, LABEL, keys)) for keys in (KEYS, KEYS.at[1].set(jax.random.key(99))))
    alone = draw(z[2:3], LABEL[2:3], KEYS[2:3])
    moved = np.abs(other - base).max((1, 2, 3))
    assert moved[1] > 1e-2 and not moved[[0, *range(2, B)]].any()
    np.testing.assert_allclose(alone[0], base[2], atol=1e-5)


def test_labels_have_an_effect_if_there_is_an_embedding() -> None:
    other = (LABEL + 1) % CLASSES
    for embed_dim in (0, 4):
        net = generator(embed_dim=embed_dim, size=4)
        variables = started(net, latents(), LABEL, False, KEYS)
        both = jax.jit(
            lambda x, net=net, v=variables: net.apply(v, latents(), x, True, KEYS, method="map_latents")
        )
        assert (np.abs(both(LABEL) - both(other)).max() > 1e-3) == (embed_dim > 0)
    for projection in (False, True):
        judge = discriminator(projection=projection, size=4)
        variables = started(judge, pictures(4), LABEL, False)
        both = jax.jit(lambda x, net=judge, v=variables: net.apply(v, pictures(4), x, False).logit)
        assert (np.abs(both(LABEL) - both(other)).max() > 1e-3) == projection


@pytest.mark.long
def test_path_lengths_are_of_the_derivatives_by_w() -> None:
    """Karras et al. 2020, eq. 4, on what a GAN gives to the regularizer; gradients against differences."""
    net = generator(modulation="demodulated", style_mixing_prob=0.9, size=4)
    rules = test_gan.spec(generator=net, latent_dim=LATENT)
    variables = started(net, latents(), LABEL, False, KEYS)
    g = types.PlayerState(variables["params"], {stylegan.AVERAGES: variables[stylegan.AVERAGES]}, ())
    label = test_gan.batch(B).label

    def inputs_at(params: Any) -> regularizers.GRegularizerInputs:
        return gan_forward.g_regularizer_inputs(rules, g, params, KEY, label)

    inputs = inputs_at(g.params)
    image = jax.jit(lambda: gan_forward.generate(rules, g, g.params, KEY, label, update_state=False).image)()
    assert inputs.latent.shape == (B, 2, STYLE)
    np.testing.assert_allclose(inputs.synthesize(inputs.latent), image, atol=1e-5)

    noise = np.asarray(jax.random.normal(KEY, image.shape)) / 4
    render, w = jax.jit(inputs.synthesize), np.asarray(inputs.latent)
    squares = np.zeros(B)
    for i in np.ndindex(2, STYLE):
        step = np.zeros_like(w)
        step[:, *i] = 1e-2
        rise = np.asarray(render(w + step)) - np.asarray(render(w - step))
        squares += (np.sum(rise * noise, (1, 2, 3)) / 2e-2) ** 2 / 2  # the mean of two layers
    regularizer = regularizers.path_length(1.0, 1, 0.0, 1.0)
    value, mean = jax.jit(lambda: regularizer.value(KEY, inputs, jnp.zeros(())))()
    np.testing.assert_allclose(mean, np.sqrt(squares).mean(), rtol=1e-2)
    np.testing.assert_allclose(value, np.sqrt(squares).var(), rtol=5e-2)

    def penalty(params: Any) -> jax.Array:
        return regularizer.value(KEY, inputs_at(params), jnp.zeros(()))[0]

    gradient = jax.jit(jax.grad(penalty))(g.params)
    for part in ("mapping", "synthesis"):
        largest = max(float(np.abs(x).max()) for x in jax.tree.leaves(gradient[part]))
        assert np.isfinite(largest) and largest > 1e-6
