"""The variational autoencoder: terms of the bound against torch and closed forms, samples, networks."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import serialization

from jaxdog import types
from jaxdog.config import build, library
from jaxdog.models import dcgan
from jaxdog.optim import optimizers, schedules
from jaxdog.systems import sampling, vae
from jaxdog.training import warm_start
from jaxdog.utils import errors

KEY = jax.random.key(0)
SIZE, LATENT = 4, 48


class Encoder(nn.Module):
    """The same posterior for every image."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        mean = self.param("mean", lambda key: jnp.float32(0.3))
        logvar = self.param("logvar", lambda key: jnp.float32(-1.0))
        ones = jnp.ones((x.shape[0], LATENT))
        return mean * ones, logvar * ones


class Decoder(nn.Module):
    """The coordinates of the latent as pixels."""

    @nn.compact
    def __call__(self, z: jax.Array, label: jax.Array, train: bool, key: jax.Array) -> jax.Array:
        gain = self.param("gain", lambda key: jnp.float32(1.0))
        return gain * z.reshape(-1, SIZE, SIZE, 3)


def spec(**changes: Any) -> vae.VAESpec:
    adam = optimizers.adam(schedules.constant(1, 1e-3), 0.9, 0.999, 1e-8, 0.0, 0)
    given = dict(
        encoder=Encoder(),
        decoder=Decoder(),
        latent_dim=LATENT,
        likelihood="squares",
        kl_weight=0.5,
        encoder_optimizer=adam,
        g_optimizer=adam,
        augment=(),
        latent=lambda key: sampling.latent(key, LATENT),
        postprocess=lambda image: image,
    )
    return vae.VAESpec(**{**given, **changes})


def batch(b: int, size: int = SIZE) -> types.Batch:
    image = jax.random.uniform(jax.random.key(9), (b, size, size, 3), minval=-1.0)
    zero = jnp.zeros(b, jnp.int32)
    return types.Batch(image, zero, jnp.full((b, 2), size), zero, jnp.zeros(b))


# Terms of the bound ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch", reason="torch is the oracle (make oracles)")


def tensors(torch: Any, *x: Any) -> list[Any]:
    return [torch.tensor(np.asarray(one).copy(), requires_grad=True) for one in x]


@pytest.mark.oracle
def test_kl_divergence_and_its_gradient_equal_torch(torch: Any) -> None:
    mean, logvar = 2.0 * jax.random.normal(KEY, (5, 7)), jax.random.normal(jax.random.key(1), (5, 7))
    theirs = tensors(torch, mean, logvar)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(theirs[0], (0.5 * theirs[1]).exp()), normal(0.0, 1.0))
    expected.sum().backward()
    np.testing.assert_allclose(vae.kl_divergence(mean, logvar), expected.sum(1).detach(), rtol=1e-5)
    pull = jax.grad(lambda *x: jnp.sum(vae.kl_divergence(*x)), (0, 1))(mean, logvar)
    for ours, tensor in zip(pull, theirs, strict=True):
        np.testing.assert_allclose(ours, tensor.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.oracle
def test_likelihoods_equal_torch(torch: Any) -> None:
    reconstruction, image = jax.random.uniform(KEY, (2, 3, SIZE, SIZE, 3), minval=-1.0)
    p, x = tensors(torch, reconstruction, image)
    constant = 0.5 * np.log(np.pi) * 3 * SIZE**2  # of a normal density with variance 1/2
    log_prob = torch.distributions.Normal(p, 0.5**0.5).log_prob(x).sum((1, 2, 3)).detach()
    np.testing.assert_allclose(
        vae.squared_error(reconstruction, image), -log_prob.numpy() - constant, rtol=1e-4
    )
    entropy = torch.nn.functional.binary_cross_entropy((p + 1) / 2, (x + 1) / 2, reduction="none")
    np.testing.assert_allclose(
        vae.cross_entropy(reconstruction, image), entropy.sum((1, 2, 3)).detach(), rtol=1e-4
    )
    black = -jnp.ones((1, SIZE, SIZE, 3))
    np.testing.assert_allclose(vae.cross_entropy(black, black), 0.0, atol=1e-3)
    assert np.isfinite(jax.grad(lambda x: jnp.sum(vae.cross_entropy(x, -black)))(black)).all()


def test_a_step_has_the_gradients_of_the_closed_form() -> None:
    """With one posterior for all images, the expected squared error is that of its mean plus its variance."""
    system = vae.vae(spec())
    real = batch(2048)
    state = system.init(KEY, real)
    after, scalars = jax.jit(system.step)(state, real, KEY)
    m, c, d = 0.3, -1.0, LATENT
    kl = 0.5 * d * (m**2 + np.exp(c) - 1 - c)
    far = float(jnp.mean(jnp.sum(jnp.square(m - real.image), (1, 2, 3)))) + d * np.exp(c)
    np.testing.assert_allclose(scalars["loss/kl"], kl, rtol=1e-5)
    np.testing.assert_allclose(scalars["loss/reconstruction"], far, rtol=0.02)
    np.testing.assert_allclose(
        scalars["loss/vae"], scalars["loss/reconstruction"] + 0.5 * scalars["loss/kl"], rtol=1e-6
    )
    np.testing.assert_allclose(scalars["error/squared"] * d, scalars["loss/reconstruction"], rtol=1e-4)
    x = float(jnp.mean(real.image))
    to_mean = 2 * d * (m - x) + 0.5 * d * m
    to_logvar = d * np.exp(c) + 0.5 * 0.5 * d * (np.exp(c) - 1)
    np.testing.assert_allclose(scalars["grad_norm/encoder"], np.hypot(to_mean, to_logvar), rtol=0.03)
    to_gain = 2 * d * (m**2 + np.exp(c) - m * x)
    np.testing.assert_allclose(scalars["grad_norm/g"], to_gain, rtol=0.03)
    assert float(after.encoder.params["mean"]) < m and float(after.encoder.params["logvar"]) < c
    assert int(after.step) == 1


def test_each_step_draws_new_noise() -> None:
    system = vae.vae(spec())
    state, step = system.init(KEY, batch(8)), jax.jit(system.step)
    one, other = (step(state.replace(step=jnp.int32(i)), batch(8), KEY)[1] for i in (0, 1))
    assert float(one["loss/reconstruction"]) != float(other["loss/reconstruction"])
    np.testing.assert_array_equal(one["loss/kl"], other["loss/kl"])


# Samples ----------------------------------------------------------------------------------------------------


def small() -> tuple[vae.VAESpec, vae.State, types.Batch]:
    encoder = dcgan.Encoder(widths=(4, 6), size=8, latent_dim=3, batch_norms=(1,), spectral=True, pool=True)
    decoder = dcgan.Generator(widths=(6, 4), latent_dim=3, classes=1, size=8, spectral=True)
    given = spec(encoder=encoder, decoder=decoder, latent_dim=3, latent=lambda key: sampling.latent(key, 3))
    return given, jax.jit(vae.vae(given).init)(KEY, batch(4, 8)), batch(4, 8)


def test_samples_are_decoded_normals_and_reconstructions_decoded_means() -> None:
    given, state, real = small()
    keys = jax.random.split(KEY, 3)
    z = jnp.stack([jax.random.normal(key, (3,)) for key in keys])
    decoder = {"params": state.g.params, **state.g.model_state}
    decode = jax.jit(lambda z: given.decoder.apply(decoder, z, None, train=False))
    encoder = {"params": state.encoder.params, **state.encoder.model_state}
    model = vae.vae(given)
    drawn = jax.jit(model.sample)(state, keys, jnp.zeros(3, jnp.int32))
    np.testing.assert_allclose(drawn, decode(z), atol=1e-5)
    image, reconstruction = jax.jit(model.reconstruct)(state, real, KEY)  # pyright: ignore
    encode: Any = jax.jit(lambda image: given.encoder.apply(encoder, image, train=False))
    mean, logvar = encode(real.image)
    assert mean.shape == logvar.shape == (4, 3) and np.abs(mean - logvar).max() > 1e-3
    np.testing.assert_array_equal(image, real.image)
    np.testing.assert_allclose(reconstruction, decode(mean), atol=1e-5)


def test_each_step_updates_the_batch_statistics() -> None:
    given, state, real = small()
    after, _ = jax.jit(vae.vae(given).step)(state, real, KEY)
    for name in ("encoder", "g"):
        before, now = getattr(state, name).model_state, getattr(after, name).model_state
        assert set(before) == set(now)
        changed = jax.tree.map(lambda x, y: bool(np.any(np.asarray(x) != np.asarray(y))), before, now)
        assert all(jax.tree.leaves(changed)), name


# Warm start of a GAN with the decoder -----------------------------------------------------------------------


def shapes(name: str, variant: str) -> Any:
    config = build.check(library.load(name, variant))
    (phase,) = build.phases(config, 5)
    size = config.data.stored_resolution
    real = batch(2)._replace(image=jnp.zeros((2, size, size, 3)))
    return jax.eval_shape(phase.system.init, KEY, real)


@pytest.mark.parametrize("variant", ["full", "test"])
def test_the_decoder_is_the_generator_of_the_least_squares_gan(variant: str) -> None:
    ours, theirs = shapes("vae", variant), shapes("lsgan_sn", variant)
    chex.assert_trees_all_equal_shapes_and_dtypes(
        (ours.g.params, ours.g.model_state), (theirs.g.params, theirs.g.model_state)
    )
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), (theirs, ours))
    report = warm_start.transfer(zeros[0], serialization.to_state_dict(zeros[1])).report
    count = len(jax.tree.leaves((ours.g.params, ours.g.model_state)))
    assert {f"{player}: {count} of {count} arrays transferred" for player in ("g", "ema")} < set(report)
    trunk = {name: tree for name, tree in theirs.d.params.items() if name != "head"}
    own = {name: tree for name, tree in ours.encoder.params.items() if name != "latent"}
    chex.assert_trees_all_equal_shapes_and_dtypes(own, trunk)
    latent = ours.encoder.params["latent"]["kernel"]
    assert latent.shape[-1] == 2 * (128 if variant == "full" else 16)


# Settings ---------------------------------------------------------------------------------------------------


def test_errors_of_the_spec() -> None:
    with pytest.raises(ValueError, match="'hinge'; choices: 'squares', 'cross_entropy'"):
        vae.vae(spec(likelihood="hinge"))
    with pytest.raises(ValueError, match="system.kl_weight is -1.0, and must not be negative"):
        vae.vae(spec(kl_weight=-1.0))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "system.likelihood",
            "hinge",
            "config.system.likelihood is 'hinge'; choices: cross_entropy, squares",
        ),
        ("system.encoder.name", "vgg", "config.system.encoder.name is 'vgg'; choices: dcgan"),
        ("optimizer.d", {}, "config.optimizer.d is not a field of config.optimizer; fields: encoder, g"),
        ("discriminator.name", "dcgan", "this system has no discriminator"),
        ("ema.decay", 0.9, "config.ema.decay is 0.9; a variational autoencoder has none"),
        ("sample.batch_stats", "batch", "a variational autoencoder samples with running statistics"),
    ],
)
def test_errors_name_the_wrong_field(path: str, value: Any, message: str) -> None:
    config = library.load("vae:test")
    *inside, field = path.split(".")
    section = config
    for name in inside:
        section = section[name]
    with section.unlocked():
        section[field] = value
    with pytest.raises(errors.ConfigError, match=message):
        build.check(config)
