"""VQ-VAE-2's two phases: a training step against torch, the prior's likelihood, samples."""

from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog import types
from jaxdog.config import build, library
from jaxdog.models import code_prior, transformer_prior, vqvae
from jaxdog.optim import optimizers, schedules
from jaxdog.systems import vqvae as vqvae_system
from jaxdog.utils import errors

KEY = jax.random.key(0)
SIZE, CODES, DIM, CLASSES, B = 16, 6, 4, 3, 4
DECAY = 0.9


def adam(rate: float = 3e-4) -> Any:
    return optimizers.adam(schedules.constant(1, rate), 0.9, 0.999, 1e-8, 0.0, 0)


def spec(**changes: Any) -> vqvae_system.VQVAESpec:
    lengths = tuple(side**2 for side in vqvae_system.map_sides(SIZE))
    given = dict(
        autoencoder=vqvae.Autoencoder(channels=6, residual_layers=1, residual_channels=3, code_dim=DIM),
        prior=transformer_prior.Transformer(lengths, CODES, CLASSES, width=8, layers=1, heads=2, dropout=0.0),
        size=SIZE,
        codebook_size=CODES,
        commitment=0.25,
        decay=DECAY,
        dead_code_threshold=0.0,
        temperature=1.0,
        optimizer=adam(),
        prior_optimizer=adam(),
        augment=(),
        postprocess=lambda image: image,
    )
    return vqvae_system.VQVAESpec(**{**given, **changes})


def batch(b: int = B, key: Any = KEY) -> types.Batch:
    image = jax.random.uniform(key, (b, SIZE, SIZE, 3), minval=-1.0)
    zero = jnp.zeros(b, jnp.int32)
    return types.Batch(image, jnp.arange(b) % CLASSES, jnp.full((b, 2), SIZE), zero, jnp.zeros(b))


decode = jax.jit(vqvae_system._decode, static_argnums=0)


@partial(jax.jit, static_argnums=0)
def autoencode(given: vqvae_system.VQVAESpec, params: Any, codebooks: Any) -> Any:
    """The autoencoder's output for the batch."""
    codes = [codebooks[level].code for level in vqvae_system.LEVELS]
    return given.autoencoder.apply({"params": params}, batch().image, *codes)


# The autoencoder against torch ------------------------------------------------------------------------------


def torch_twin(torch: Any) -> Any:
    """The networks in torch's own layers, under our names."""
    nn, relu = torch.nn, torch.nn.functional.relu

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv0, self.conv1 = nn.Conv2d(6, 3, 3, 1, 1), nn.Conv2d(3, 6, 1)

        def forward(self, x: Any) -> Any:
            return x + self.conv1(relu(self.conv0(relu(x))))

    class Map(nn.Module):
        """`Downsampler`, with strided convolutions first, or `Upsampler`, with transposed ones last."""

        def __init__(self, first: int, down: tuple[int, ...] = (), up: tuple[int, ...] = ()) -> None:
            super().__init__()
            self.downs, self.ups, c = len(down), len(up), first
            for i, width in enumerate(down):
                setattr(self, f"down{i}", nn.Conv2d(c, width, 4, 2, 1))
                c = width
            self.conv = nn.Conv2d(c, 6, 3, 1, 1)
            self.residual0 = Residual()
            c = 6
            for i, width in enumerate(up):
                setattr(self, f"up{i}", nn.ConvTranspose2d(c, width, 4, 2, 1))
                c = width

        def forward(self, x: Any) -> Any:
            for i in range(self.downs):
                x = relu(getattr(self, f"down{i}")(x))
            x = self.residual0(self.conv(x))
            for i in range(self.ups):
                x = getattr(self, f"up{i}")(relu(x))
            return relu(x) if self.downs else x

    class Twin(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode_bottom, self.encode_top = Map(3, down=(3, 6)), Map(6, down=(3,))
            self.to_top, self.to_bottom = nn.Conv2d(6, DIM, 1), nn.Conv2d(6 + DIM, DIM, 1)
            self.decode_top, self.decode_bottom = Map(DIM, up=(DIM,)), Map(2 * DIM, up=(3, 3))
            self.widen_top = nn.ConvTranspose2d(DIM, DIM, 4, 2, 1)

        def forward(self, image: Any, top: Any, bottom: Any) -> tuple[Any, Any, list[Any]]:
            """Reconstruction, sum of the commitment losses, z of both levels."""
            low = self.encode_bottom(image)
            z_top = self.to_top(self.encode_top(low))
            q_top, far_top = nearest(z_top, top)
            z_bottom = self.to_bottom(torch.cat([self.decode_top(q_top), low], 1))
            q_bottom, far_bottom = nearest(z_bottom, bottom)
            reconstruction = self.decode_bottom(torch.cat([self.widen_top(q_top), q_bottom], 1))
            return reconstruction, far_top + far_bottom, [z_top, z_bottom]

    def nearest(z: Any, code: Any) -> tuple[Any, Any]:
        flat = z.permute(0, 2, 3, 1)
        nearest_code = code[torch.cdist(flat.reshape(-1, DIM), code).argmin(1)].reshape(flat.shape)
        far = (flat - nearest_code).square().mean()
        return (flat + (nearest_code - flat).detach()).permute(0, 3, 1, 2), far

    return Twin()


@pytest.fixture(scope="module")
def first() -> tuple[
    vqvae_system.VQVAESpec, vqvae_system.AutoencoderState, vqvae_system.AutoencoderState, types.Scalars
]:
    """Spec and initial state of the first phase, state and scalars after one step."""
    given = spec()
    phase = vqvae_system.autoencoder(given)
    state = jax.jit(phase.init)(KEY, batch())
    return given, state, *jax.jit(phase.step)(state, batch(), KEY)


@pytest.mark.oracle
def test_a_step_of_the_autoencoder_equals_torch(first: Any) -> None:
    torch = pytest.importorskip("torch", reason="torch is the oracle (make oracles)")
    twins = pytest.importorskip("tests.twins.transfer")
    _, state, after, scalars = first
    twin, net = torch_twin(torch), state.autoencoder
    assert twins.starts_as_torch(net.params, torch_twin(torch)) > 0
    twins.load(twin, {"params": net.params})
    image = twins.first(batch().image)
    codes = [torch.tensor(np.asarray(net.model_state[level].code).copy()) for level in vqvae_system.LEVELS]
    reconstruction, far, z = twin(image, *codes)
    error = (reconstruction - image).square().mean()
    optimizer = torch.optim.Adam(twin.parameters(), lr=3e-4)
    (error + 0.25 * far).backward()
    optimizer.step()
    np.testing.assert_allclose(scalars["loss/reconstruction"], error.item(), rtol=1e-4)
    np.testing.assert_allclose(scalars["loss/autoencoder"], (error + 0.25 * far).item(), rtol=1e-4)
    norm = np.sqrt(sum(float(p.grad.square().sum()) for p in twin.parameters()))
    np.testing.assert_allclose(scalars["grad_norm/autoencoder"], norm, rtol=1e-3)
    # Adam's first step is the sign of the gradient; its first moment has the gradient itself.
    mu = jax.tree.map(lambda x: x / 0.1, after.autoencoder.opt_state[0].mu)
    twins.close(mu, twins.gradients(twin), rtol=1e-3)
    for level, seen in zip(vqvae_system.LEVELS, z, strict=True):
        z_level = jnp.asarray(twins.last(seen))
        index = vqvae.quantize(z_level, net.model_state[level].code).index
        expected, _ = vqvae.update_codebook(net.model_state[level], z_level, index, DECAY, 0.0, KEY)
        chex.assert_trees_all_close(after.autoencoder.model_state[level], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.long
def test_both_levels_affect_the_image(first: Any) -> None:
    given, state, *_ = first
    books, n = state.autoencoder.model_state, sum(side**2 for side in vqvae_system.map_sides(SIZE))
    params, places = state.autoencoder.params, (0, 3, 4, n - 1)  # first and last of either level
    codes = np.zeros((5, n), np.int32)
    codes[np.arange(4), places] = 1
    *others, zero = decode(given, params, books, codes)
    for place, image in zip(places, others, strict=True):
        changed = np.abs(image - zero).sum(-1)
        assert changed.max() > 1e-4
        rows, columns = np.nonzero(changed > 1e-7)
        corner = (rows.min(), columns.min()) if place in (0, 4) else (rows.max(), columns.max())
        assert corner == ((0, 0) if place in (0, 4) else (SIZE - 1, SIZE - 1))


# The first phase --------------------------------------------------------------------------------------------


@pytest.mark.long
def test_samples_without_a_prior_follow_the_usage_of_codes(first: Any) -> None:
    given, state, *_ = first
    net, n = state.autoencoder, sum(side**2 for side in vqvae_system.map_sides(SIZE))
    book = net.model_state["top"]
    alone = {
        level: net.model_state[level].replace(ema_count=jnp.zeros(CODES).at[4].set(1.0))
        for level in vqvae_system.LEVELS
    }
    assert book.ema_count.shape == (CODES,)
    drawn = jax.jit(vqvae_system.autoencoder(given).sample)(
        state.replace(autoencoder=net.replace(model_state=alone)), jax.random.split(KEY, 2), jnp.arange(2)
    )
    expected = decode(given, net.params, net.model_state, jnp.full((2, n), 4))
    np.testing.assert_allclose(drawn, expected, atol=1e-5)


@pytest.mark.long
def test_reconstructions_are_clipped_outputs_of_the_autoencoder(first: Any) -> None:
    given, state, *_ = first
    image, reconstruction = jax.jit(vqvae_system.autoencoder(given).reconstruct)(state, batch(), KEY)  # pyright: ignore
    output = autoencode(given, state.autoencoder.params, state.autoencoder.model_state)
    np.testing.assert_array_equal(image, batch().image)
    np.testing.assert_allclose(reconstruction, np.clip(output.reconstruction, -1.0, 1.0), atol=1e-5)


# The prior's phase ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def second(
    first: Any,
) -> tuple[vqvae_system.VQVAESpec, vqvae_system.PriorState, vqvae_system.PriorState, types.Scalars]:
    given, _, before, _ = first
    phase = vqvae_system.prior(given)
    state = vqvae_system.transition(given, 0, before)
    return given, state, *jax.jit(phase.step)(state, batch(), KEY)


@pytest.mark.long
def test_the_prior_is_trained_on_codes_of_a_fixed_autoencoder(first: Any, second: Any) -> None:
    before = first[2]
    given, state, after, scalars = second
    assert int(state.step) == 1 and int(after.step) == 2
    for same in (state, after):
        chex.assert_trees_all_equal(
            (same.params, same.codebooks), (before.autoencoder.params, before.autoencoder.model_state)
        )
    output = autoencode(given, state.params, before.autoencoder.model_state)
    code = jnp.concatenate([output.top.index.reshape(B, -1), output.bottom.index.reshape(B, -1)], 1)
    apply = jax.jit(lambda params: given.prior.apply({"params": params}, code, batch().label, False))
    logits: Any = apply(state.prior.params)
    p = np.take_along_axis(np.asarray(jax.nn.softmax(logits), np.float64), np.asarray(code)[..., None], -1)
    bits = -np.log2(p[..., 0])
    n = vqvae_system.map_sides(SIZE)[0] ** 2
    np.testing.assert_allclose(scalars["loss/prior"], bits.mean() * np.log(2), rtol=1e-5)
    np.testing.assert_allclose(scalars["bits_per_code/top"], bits[:, :n].mean(), rtol=1e-5)
    np.testing.assert_allclose(scalars["bits_per_code/bottom"], bits[:, n:].mean(), rtol=1e-5)
    np.testing.assert_allclose(scalars["bits_per_dim/prior"], bits.sum(1).mean() / (3 * SIZE**2), rtol=1e-5)


@pytest.mark.long
def test_each_image_is_sampled_from_its_own_key(second: Any) -> None:
    given, state, *_ = second
    sample = jax.jit(vqvae_system.prior(given).sample)
    keys, label = jax.random.split(KEY, 4), jnp.array([0, 1, 2, 0])
    together = sample(state, keys, label)
    np.testing.assert_allclose(sample(state, keys[2:3], label[2:3])[0], together[2], atol=1e-4)
    assert np.abs(together[0] - together[3]).max() > 1e-2
    code = jax.jit(code_prior.sample_codes, static_argnums=0)(
        given.prior, state.prior.params, keys, label, 1.0
    )
    np.testing.assert_allclose(decode(given, state.params, state.codebooks, code), together, atol=1e-4)


# Settings ---------------------------------------------------------------------------------------------------


def test_errors_of_the_spec() -> None:
    for changes, message in (
        ({"size": 20}, "system.resolution is 20, and must be a multiple of 8"),
        ({"decay": 1.0}, r"system.decay is 1.0, and must lie in \[0, 1\)"),
        ({"dead_code_threshold": -0.1}, "system.dead_code_threshold is -0.1"),
    ):
        with pytest.raises(ValueError, match=message):
            vqvae_system.autoencoder(spec(**changes))
    with pytest.raises(ValueError, match="system.temperature is 0.0, and must be above 0"):
        vqvae_system.prior(spec(temperature=0.0))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("system.autoencoder_steps", 8, r"must lie in \(0, config.train.steps = 8\)"),
        ("system.prior.name", "lstm", "config.system.prior.name is 'lstm'; choices: pixelcnn, transformer"),
        (
            "system.prior.depth",
            3,
            "config.system.prior.depth is not a field of config.system.prior; did you mean width.",
        ),
        ("generator.name", "biggan", "config.generator.name is 'biggan'; choices: vqvae"),
        ("discriminator.name", "biggan", "this system has no discriminator"),
        (
            "optimizer.g",
            {},
            "config.optimizer.g is not a field of config.optimizer; fields: autoencoder, prior",
        ),
        ("ema.decay", 0.9, "config.ema.decay is 0.9; an autoencoder with codes has none"),
        ("sample.truncation", 0.5, "config.sample.truncation is 0.5; an autoencoder with codes has none"),
        (
            "sample.batch_stats",
            "batch",
            "config.sample.batch_stats is 'batch'; an autoencoder with codes samples with",
        ),
    ],
)
def test_errors_name_the_wrong_field(path: str, value: Any, message: str) -> None:
    config = library.load("vqvae2:test")
    *inside, field = path.split(".")
    section = config
    for name in inside:
        section = section[name]
    with section.unlocked():
        section[field] = value
    with pytest.raises(errors.ConfigError, match=message):
        build.check(config)
