"""The variational autoencoder: the bound's parts against torch and closed forms; its networks."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import serialization

from jaxdog import types
from jaxdog.config import build, schema
from jaxdog.models import dcgan
from jaxdog.optim import optimizers
from jaxdog.systems import sampling, vae
from jaxdog.training import warm_start
from tests.config import test_build

KEY = jax.random.key(0)
SIZE, LATENT = 4, 48


class Reader(nn.Module):
    """Says the same of every picture."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        mean = self.param("mean", lambda key: jnp.float32(0.3))
        logvar = self.param("logvar", lambda key: jnp.float32(-1.0))
        ones = jnp.ones((x.shape[0], LATENT))
        return mean * ones, logvar * ones


class Painter(nn.Module):
    """A latent's coordinates as pixels."""

    @nn.compact
    def __call__(self, z: jax.Array, label: jax.Array, train: bool, key: jax.Array) -> jax.Array:
        gain = self.param("gain", lambda key: jnp.float32(1.0))
        return gain * z.reshape(-1, SIZE, SIZE, 3)


def game(**changes: Any) -> vae.Game:
    adam = optimizers.adam(optimizers.constant(1, 1e-3), 0.9, 0.999, 1e-8, 0.0, 0)
    given = dict(
        encoder=Reader(),
        decoder=Painter(),
        latent_dim=LATENT,
        likelihood="squares",
        kl_weight=0.5,
        encoder_optimizer=adam,
        g_optimizer=adam,
        augment=(),
        latent=lambda key: sampling.latent(key, LATENT),
        finish=lambda image: image,
    )
    return vae.Game(**{**given, **changes})


def batch(b: int, size: int = SIZE) -> types.Batch:
    image = jax.random.uniform(jax.random.key(9), (b, size, size, 3), minval=-1.0)
    zero = jnp.zeros(b, jnp.int32)
    return types.Batch(image, zero, jnp.full((b, 2), size), zero, jnp.zeros(b))


# The parts of the bound -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch", reason="torch is the oracle (make oracles)")


def tensors(torch: Any, *x: Any) -> list[Any]:
    return [torch.tensor(np.asarray(one).copy(), requires_grad=True) for one in x]


def test_divergence_and_its_gradient_are_those_of_torch(torch: Any) -> None:
    mean, logvar = 2.0 * jax.random.normal(KEY, (5, 7)), jax.random.normal(jax.random.key(1), (5, 7))
    theirs = tensors(torch, mean, logvar)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(theirs[0], (0.5 * theirs[1]).exp()), normal(0.0, 1.0))
    expected.sum().backward()
    np.testing.assert_allclose(vae.divergence(mean, logvar), expected.sum(1).detach(), rtol=1e-5)
    pull = jax.grad(lambda *x: jnp.sum(vae.divergence(*x)), (0, 1))(mean, logvar)
    for ours, tensor in zip(pull, theirs, strict=True):
        np.testing.assert_allclose(ours, tensor.grad, rtol=1e-4, atol=1e-6)


def test_likelihoods_are_those_of_torch(torch: Any) -> None:
    picture, image = jax.random.uniform(KEY, (2, 3, SIZE, SIZE, 3), minval=-1.0)
    p, x = tensors(torch, picture, image)
    constant = 0.5 * np.log(np.pi) * 3 * SIZE**2  # of a normal density with variance 1/2
    log_prob = torch.distributions.Normal(p, 0.5**0.5).log_prob(x).sum((1, 2, 3)).detach()
    np.testing.assert_allclose(vae.squares(picture, image), -log_prob.numpy() - constant, rtol=1e-4)
    entropy = torch.nn.functional.binary_cross_entropy((p + 1) / 2, (x + 1) / 2, reduction="none")
    np.testing.assert_allclose(vae.cross_entropy(picture, image), entropy.sum((1, 2, 3)).detach(), rtol=1e-4)
    black = -jnp.ones((1, SIZE, SIZE, 3))
    np.testing.assert_allclose(vae.cross_entropy(black, black), 0.0, atol=1e-3)
    assert np.isfinite(jax.grad(lambda x: jnp.sum(vae.cross_entropy(x, -black)))(black)).all()


def test_a_step_goes_down_the_bound_in_closed_form() -> None:
    """One posterior for all: the expected squares are those to its mean, plus its variance per pixel."""
    played = vae.vae(game())
    real = batch(2048)
    state = played.init(KEY, real)
    after, scalars = jax.jit(played.step)(state, real, KEY)
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


def test_noise_is_another_one_at_each_step() -> None:
    played = vae.vae(game())
    state, step = played.init(KEY, batch(8)), jax.jit(played.step)
    one, other = (step(state.replace(step=jnp.int32(i)), batch(8), KEY)[1] for i in (0, 1))
    assert float(one["loss/reconstruction"]) != float(other["loss/reconstruction"])
    np.testing.assert_array_equal(one["loss/kl"], other["loss/kl"])


# Pictures ---------------------------------------------------------------------------------------------------


def small() -> tuple[vae.Game, vae.State, types.Batch]:
    encoder = dcgan.Encoder(widths=(4, 6), size=8, latent_dim=3, normed=(1,), spectral=True, pool=True)
    decoder = dcgan.Generator(widths=(6, 4), latent_dim=3, classes=1, size=8, spectral=True)
    played = game(encoder=encoder, decoder=decoder, latent_dim=3, latent=lambda key: sampling.latent(key, 3))
    return played, jax.jit(vae.vae(played).init)(KEY, batch(4, 8)), batch(4, 8)


def test_samples_are_decoded_normals_and_reconstructions_decoded_means() -> None:
    played, state, real = small()
    keys = jax.random.split(KEY, 3)
    z = jnp.stack([jax.random.normal(key, (3,)) for key in keys])
    decoder = {"params": state.g.params, **state.g.stats}
    decode = jax.jit(lambda z: played.decoder.apply(decoder, z, None, train=False))
    said = {"params": state.encoder.params, **state.encoder.stats}
    model = vae.vae(played)
    drawn = jax.jit(model.sample)(state, keys, jnp.zeros(3, jnp.int32))
    np.testing.assert_allclose(drawn, decode(z), atol=1e-5)
    image, back = jax.jit(model.reconstruct)(state, real, KEY)  # pyright: ignore
    encode: Any = jax.jit(lambda image: played.encoder.apply(said, image, train=False))
    mean, logvar = encode(real.image)
    assert mean.shape == logvar.shape == (4, 3) and np.abs(mean - logvar).max() > 1e-3
    np.testing.assert_array_equal(image, real.image)
    np.testing.assert_allclose(back, decode(mean), atol=1e-5)


def test_norms_move_with_each_step() -> None:
    played, state, real = small()
    after, _ = jax.jit(vae.vae(played).step)(state, real, KEY)
    for name in ("encoder", "g"):
        before, now = getattr(state, name).stats, getattr(after, name).stats
        assert set(before) == set(now)
        moved = jax.tree.map(lambda x, y: bool(np.any(np.asarray(x) != np.asarray(y))), before, now)
        assert all(jax.tree.leaves(moved)), name


# A game may begin with its decoder --------------------------------------------------------------------------


def shapes(name: str, variant: str) -> Any:
    config = build.check(test_build.load(test_build.ROOT / "configs" / f"{name}.py").get_config(variant))
    (phase,) = build.phases(config, 5)
    size = config.data.store_size
    real = batch(2)._replace(image=jnp.zeros((2, size, size, 3)))
    return jax.eval_shape(phase.system.init, KEY, real)


@pytest.mark.parametrize("variant", ["full", "test"])
def test_the_decoder_is_the_generator_of_the_least_squares_game(variant: str) -> None:
    ours, theirs = shapes("vae", variant), shapes("lsgan_sn", variant)
    chex.assert_trees_all_equal_shapes_and_dtypes(
        (ours.g.params, ours.g.stats), (theirs.g.params, theirs.g.stats)
    )
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), (theirs, ours))
    told = warm_start.begin(zeros[0], serialization.to_state_dict(zeros[1])).report
    count = len(jax.tree.leaves((ours.g.params, ours.g.stats)))
    assert {f"{player}: {count} of {count} arrays taken" for player in ("g", "ema")} < set(told)
    trunk = {name: tree for name, tree in theirs.d.params.items() if name != "head"}
    own = {name: tree for name, tree in ours.encoder.params.items() if name != "latent"}
    chex.assert_trees_all_equal_shapes_and_dtypes(own, trunk)
    latent = ours.encoder.params["latent"]["kernel"]
    assert latent.shape[-1] == 2 * (128 if variant == "full" else 16)


# Settings ---------------------------------------------------------------------------------------------------


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match="'hinge'; choices: 'squares', 'cross_entropy'"):
        vae.vae(game(likelihood="hinge"))
    with pytest.raises(ValueError, match="game.kl_weight is -1.0, and must not be negative"):
        vae.vae(game(kl_weight=-1.0))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("game.likelihood", "hinge", "config.game.likelihood is 'hinge'; choices: cross_entropy, squares"),
        ("game.encoder.name", "vgg", "config.game.encoder.name is 'vgg'; choices: dcgan"),
        ("optimizer.d", {}, "config.optimizer.d is no field of config.optimizer; fields: encoder, g"),
        ("discriminator.name", "dcgan", "this game has no discriminator"),
        ("ema.decay", 0.9, "config.ema.decay is 0.9; a variational autoencoder has none"),
        ("sample.norm", "batch", "a variational autoencoder samples with running statistics"),
    ],
)
def test_wrong_fields_are_named(path: str, value: Any, message: str) -> None:
    config = test_build.load(test_build.ROOT / "configs" / "vae.py").get_config("test")
    *inside, field = path.split(".")
    section = config
    for name in inside:
        section = section[name]
    with section.unlocked():
        section[field] = value
    with pytest.raises(schema.ConfigError, match=message):
        build.check(config)
