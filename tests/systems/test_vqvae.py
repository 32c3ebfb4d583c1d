"""VQ-VAE-2: codebooks against a plain loop, the autoencoder and a whole step against torch, both phases."""

from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog import types
from jaxdog.config import build, schema
from jaxdog.models import transformer_prior, vqvae
from jaxdog.optim import optimizers
from jaxdog.systems import vqvae as systems
from tests.config import test_build

KEY = jax.random.key(0)
SIZE, CODES, DIM, CLASSES, B = 16, 6, 4, 3, 4
DECAY, RESTART = 0.9, 0.05


def adam(rate: float = 3e-4) -> Any:
    return optimizers.adam(optimizers.constant(1, rate), 0.9, 0.999, 1e-8, 0.0, 0)


def game(**changes: Any) -> systems.Game:
    lengths = tuple(side**2 for side in systems.sides(SIZE))
    given = dict(
        autoencoder=vqvae.Autoencoder(channels=6, residual_layers=1, residual_channels=3, code_dim=DIM),
        prior=transformer_prior.Transformer(lengths, CODES, CLASSES, width=8, layers=1, heads=2, dropout=0.0),
        size=SIZE,
        codes=CODES,
        commitment=0.25,
        decay=DECAY,
        restart=0.0,
        temperature=1.0,
        optimizer=adam(),
        prior_optimizer=adam(),
        augment=(),
        finish=lambda image: image,
    )
    return systems.Game(**{**given, **changes})


def batch(b: int = B, key: Any = KEY) -> types.Batch:
    image = jax.random.uniform(key, (b, SIZE, SIZE, 3), minval=-1.0)
    zero = jnp.zeros(b, jnp.int32)
    return types.Batch(image, jnp.arange(b) % CLASSES, jnp.full((b, 2), SIZE), zero, jnp.zeros(b))


decode = jax.jit(systems._decoded, static_argnums=0)


@partial(jax.jit, static_argnums=0)
def through(played: systems.Game, params: Any, books: Any) -> Any:
    """The batch's way through an autoencoder."""
    codes = [books[level].code for level in systems.LEVELS]
    return played.autoencoder.apply({"params": params}, batch().image, *codes)


# Codebooks --------------------------------------------------------------------------------------------------


def test_the_nearest_code_is_found() -> None:
    z, code = jax.random.normal(KEY, (3, 5, DIM)), jax.random.normal(jax.random.key(1), (CODES, DIM))
    found = vqvae.quantise(z, code)
    distance = np.square(np.asarray(z)[:, :, None] - np.asarray(code)).sum(-1)
    np.testing.assert_array_equal(found.index, distance.argmin(-1))
    np.testing.assert_array_equal(found.nearest, code[found.index])
    np.testing.assert_allclose(found.value, found.nearest, atol=1e-6)
    twice = vqvae.quantise(z, jnp.concatenate([code, code]))  # of equal ones the first
    np.testing.assert_array_equal(twice.index, found.index)


def test_gradients_go_straight_through_to_the_encoder_and_not_to_the_codes() -> None:
    z, code = jax.random.normal(KEY, (7, DIM)), jax.random.normal(jax.random.key(1), (CODES, DIM))

    def loss(z: Any, code: Any) -> Any:
        found = vqvae.quantise(z, code)
        return jnp.sum(jnp.sin(found.value)) + jnp.sum(found.nearest**3)

    to_z, to_code = jax.grad(loss, (0, 1))(z, code)
    np.testing.assert_allclose(to_z, np.cos(vqvae.quantise(z, code).nearest), rtol=1e-5)
    assert not to_code.any()


def test_codes_follow_what_is_nearest_as_in_a_plain_loop() -> None:
    """Appendix A.1 of van den Oord et al. 2017, code by code, on counts as they are."""
    book = vqvae.codebook(KEY, CODES, DIM)
    n = 15
    counts, sums = np.full(CODES, n / CODES), np.asarray(book.code, np.float64) * n / CODES
    move = jax.jit(vqvae.moved, static_argnums=(3, 4))
    code = np.asarray(book.code, np.float64)
    for step in range(4):
        z = jax.random.normal(jax.random.key(step), (3, 5, DIM))
        found = vqvae.quantise(z, book.code)
        book, told = move(book, z, found.index, DECAY, 0.0, KEY)
        flat = np.asarray(z, np.float64).reshape(n, DIM)
        at = [int(np.argmin([np.sum((x - e) ** 2) for e in code])) for x in flat]
        for i in range(CODES):
            mine = [x for x, j in zip(flat, at, strict=True) if j == i]
            counts[i] = DECAY * counts[i] + (1 - DECAY) * len(mine)
            sums[i] = DECAY * sums[i] + (1 - DECAY) * (np.sum(mine, 0) if mine else 0.0)
            code[i] = sums[i] / counts[i]
        np.testing.assert_allclose(book.code, code, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(book.use * n / CODES, counts, rtol=1e-5)
        share = np.bincount(at, minlength=CODES) / n
        perplexity = np.exp(-sum(p * np.log(p) for p in share if p > 0))
        np.testing.assert_allclose(told.perplexity, perplexity, rtol=1e-5)
        np.testing.assert_allclose(told.used, np.mean(share > 0), rtol=1e-6)
        assert told.restarted == 0


def test_perplexity_is_the_number_of_codes_used_evenly() -> None:
    book, z = vqvae.codebook(KEY, CODES, DIM), jnp.zeros((12, DIM))
    for index, codes in ((jnp.zeros(12, jnp.int32), 1), (jnp.arange(12) % 3, 3), (jnp.arange(12) % CODES, 6)):
        told = vqvae.moved(book, z, index, DECAY, 0.0, KEY)[1]
        np.testing.assert_allclose([told.perplexity, told.used], [codes, codes / CODES], rtol=1e-5)


def test_a_code_that_is_not_used_begins_anew_at_a_vector_of_the_batch() -> None:
    """Code 0 alone is used; the others fade until 0.9^t < 0.05, and then are near the batch."""
    book = vqvae.codebook(KEY, CODES, DIM)
    move = jax.jit(vqvae.moved, static_argnums=(3, 4))
    begin, due = book.code, int(np.ceil(np.log(RESTART) / np.log(DECAY)))
    for step in range(1, due + 1):
        z = 5.0 + jax.random.normal(jax.random.key(step), (10, DIM))
        book, told = move(book, z, jnp.zeros(10, jnp.int32), DECAY, RESTART, jax.random.key(step))
        assert told.restarted == (CODES - 1 if step == due else 0), step
        if step < due:
            np.testing.assert_allclose(book.code[1:], begin[1:], rtol=1e-4, atol=1e-6)
    for code in np.asarray(book.code[1:]):
        assert np.abs(np.asarray(z) - code).max(1).min() < 1e-6
    assert np.abs(np.asarray(z) - np.asarray(book.code[0])).max(1).min() > 0.05  # it is a mean
    np.testing.assert_allclose(book.use[1:], 1.0)
    assert len(np.unique(np.asarray(book.code), axis=0)) > 2  # not all at one vector
    _, told = move(book, z, jnp.zeros(10, jnp.int32), DECAY, RESTART, KEY)
    assert told.restarted == 0  # they get their time


def test_without_restarts_unused_codes_stay() -> None:
    book = vqvae.codebook(KEY, CODES, DIM)
    begin = book.code
    z, at = jnp.ones((10, DIM)), jnp.zeros(10, jnp.int32)
    book, _ = jax.lax.scan(lambda b, _: (vqvae.moved(b, z, at, DECAY, 0.0, KEY)[0], None), book, length=200)
    np.testing.assert_allclose(book.code[1:], begin[1:], rtol=1e-3)
    np.testing.assert_allclose(book.code[0], 1.0, rtol=1e-5)


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
        """`Down` or `Up`: strided convolutions before, or transposed ones after, the residual layers."""

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
            """The picture, the summed commitments, z of both levels."""
            low = self.encode_bottom(image)
            z_top = self.to_top(self.encode_top(low))
            q_top, far_top = nearest(z_top, top)
            z_bottom = self.to_bottom(torch.cat([self.decode_top(q_top), low], 1))
            q_bottom, far_bottom = nearest(z_bottom, bottom)
            picture = self.decode_bottom(torch.cat([self.widen_top(q_top), q_bottom], 1))
            return picture, far_top + far_bottom, [z_top, z_bottom]

    def nearest(z: Any, code: Any) -> tuple[Any, Any]:
        flat = z.permute(0, 2, 3, 1)
        found = code[torch.cdist(flat.reshape(-1, DIM), code).argmin(1)].reshape(flat.shape)
        far = (flat - found).square().mean()
        return (flat + (found - flat).detach()).permute(0, 3, 1, 2), far

    return Twin()


@pytest.fixture(scope="module")
def first() -> tuple[systems.Game, systems.Coding, systems.Coding, types.Scalars]:
    """A game, its first state, and state and scalars after one step."""
    played = game()
    phase = systems.autoencoder(played)
    state = jax.jit(phase.init)(KEY, batch())
    return played, state, *jax.jit(phase.step)(state, batch(), KEY)


def test_a_step_of_the_autoencoder_is_that_of_torch(first: Any) -> None:
    torch = pytest.importorskip("torch", reason="torch is the oracle (make oracles)")
    twins = pytest.importorskip("tests.torch_twins")
    _, state, after, scalars = first
    twin, net = torch_twin(torch), state.autoencoder
    assert twins.starts_as_torch(net.params, torch_twin(torch)) > 0
    twins.load(twin, {"params": net.params})
    image = twins.first(batch().image)
    codes = [torch.tensor(np.asarray(net.stats[level].code).copy()) for level in systems.LEVELS]
    picture, far, z = twin(image, *codes)
    error = (picture - image).square().mean()
    optimiser = torch.optim.Adam(twin.parameters(), lr=3e-4)
    (error + 0.25 * far).backward()
    optimiser.step()
    np.testing.assert_allclose(scalars["loss/reconstruction"], error.item(), rtol=1e-4)
    np.testing.assert_allclose(scalars["loss/autoencoder"], (error + 0.25 * far).item(), rtol=1e-4)
    norm = np.sqrt(sum(float(p.grad.square().sum()) for p in twin.parameters()))
    np.testing.assert_allclose(scalars["grad_norm/autoencoder"], norm, rtol=1e-3)
    # Adam's first step is the sign of the gradient: the optimiser's memory tells the gradient itself.
    mu = jax.tree.map(lambda x: x / 0.1, after.autoencoder.opt[0].mu)
    twins.close(mu, twins.gradients(twin), rtol=1e-3)
    for level, seen in zip(systems.LEVELS, z, strict=True):
        found = jnp.asarray(twins.last(seen))
        index = vqvae.quantise(found, net.stats[level].code).index
        expected, _ = vqvae.moved(net.stats[level], found, index, DECAY, 0.0, KEY)
        chex.assert_trees_all_close(after.autoencoder.stats[level], expected, rtol=1e-3, atol=1e-4)


def test_maps_of_the_paper() -> None:
    net = vqvae.Autoencoder(channels=128, residual_layers=2, residual_channels=64, code_dim=64)
    image, code = jnp.zeros((2, 64, 64, 3)), jnp.zeros((512, 64))
    coded, variables = jax.eval_shape(lambda: net.init_with_output(KEY, image, code, code))
    assert coded.top.index.shape == (2, 8, 8) and coded.bottom.index.shape == (2, 16, 16)
    assert coded.top.z.shape[-1] == 64 and coded.picture.shape == image.shape
    assert variables["params"]["encode_bottom"]["down1"]["kernel"].shape == (4, 4, 64, 128)
    with pytest.raises(ValueError, match="20x20 have no top map: their sides must be multiples of 8"):
        jax.eval_shape(lambda: net.init(KEY, jnp.zeros((2, 20, 20, 3)), code, code))


def test_both_levels_matter_to_the_picture(first: Any) -> None:
    played, state, *_ = first
    books, n = state.autoencoder.stats, sum(side**2 for side in systems.sides(SIZE))
    params, places = state.autoencoder.params, (0, 3, 4, n - 1)  # first and last of either level
    codes = np.zeros((5, n), np.int32)
    codes[np.arange(4), places] = 1
    *others, zero = decode(played, params, books, codes)
    for place, picture in zip(places, others, strict=True):
        changed = np.abs(picture - zero).sum(-1)
        assert changed.max() > 1e-4
        rows, columns = np.nonzero(changed > 1e-7)
        corner = (rows.min(), columns.min()) if place in (0, 4) else (rows.max(), columns.max())
        assert corner == ((0, 0) if place in (0, 4) else (SIZE - 1, SIZE - 1))


# The first phase --------------------------------------------------------------------------------------------


def test_pictures_before_there_is_a_prior_are_made_of_the_codes_in_use(first: Any) -> None:
    played, state, *_ = first
    net, n = state.autoencoder, sum(side**2 for side in systems.sides(SIZE))
    book = net.stats["top"]
    alone = {level: net.stats[level].replace(use=jnp.zeros(CODES).at[4].set(1.0)) for level in systems.LEVELS}
    assert book.use.shape == (CODES,)
    drawn = jax.jit(systems.autoencoder(played).sample)(
        state.replace(autoencoder=net.replace(stats=alone)), jax.random.split(KEY, 2), jnp.arange(2)
    )
    expected = decode(played, net.params, net.stats, jnp.full((2, n), 4))
    np.testing.assert_allclose(drawn, expected, atol=1e-5)


def test_reconstructions_are_the_autoencoders_pictures_cut_to_the_range(first: Any) -> None:
    played, state, *_ = first
    image, back = jax.jit(systems.autoencoder(played).reconstruct)(state, batch(), KEY)  # pyright: ignore
    coded = through(played, state.autoencoder.params, state.autoencoder.stats)
    np.testing.assert_array_equal(image, batch().image)
    np.testing.assert_allclose(back, np.clip(coded.picture, -1.0, 1.0), atol=1e-5)


# The prior's phase ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def second(first: Any) -> tuple[systems.Game, systems.Predicting, systems.Predicting, types.Scalars]:
    played, _, before, _ = first
    phase = systems.prior(played)
    state = systems.enter(played, 0, before)
    return played, state, *jax.jit(phase.step)(state, batch(), KEY)


def test_the_prior_learns_the_codes_of_an_autoencoder_that_stands_still(first: Any, second: Any) -> None:
    before = first[2]
    played, state, after, scalars = second
    assert int(state.step) == 1 and int(after.step) == 2
    for same in (state, after):
        chex.assert_trees_all_equal(
            (same.params, same.books), (before.autoencoder.params, before.autoencoder.stats)
        )
    coded = through(played, state.params, before.autoencoder.stats)
    code = jnp.concatenate([coded.top.index.reshape(B, -1), coded.bottom.index.reshape(B, -1)], 1)
    apply = jax.jit(lambda params: played.prior.apply({"params": params}, code, batch().label, False))
    logits: Any = apply(state.prior.params)
    p = np.take_along_axis(np.asarray(jax.nn.softmax(logits), np.float64), np.asarray(code)[..., None], -1)
    bits = -np.log2(p[..., 0])
    n = systems.sides(SIZE)[0] ** 2
    np.testing.assert_allclose(scalars["loss/prior"], bits.mean() * np.log(2), rtol=1e-5)
    np.testing.assert_allclose(scalars["bits_per_code/top"], bits[:, :n].mean(), rtol=1e-5)
    np.testing.assert_allclose(scalars["bits_per_code/bottom"], bits[:, n:].mean(), rtol=1e-5)
    np.testing.assert_allclose(scalars["bits_per_dim/prior"], bits.sum(1).mean() / (3 * SIZE**2), rtol=1e-5)


def test_pictures_are_drawn_code_by_code_each_from_its_own_key(second: Any) -> None:
    played, state, *_ = second
    sample = jax.jit(systems.prior(played).sample)
    keys, label = jax.random.split(KEY, 4), jnp.array([0, 1, 2, 0])
    together = sample(state, keys, label)
    np.testing.assert_allclose(sample(state, keys[2:3], label[2:3])[0], together[2], atol=1e-4)
    assert np.abs(together[0] - together[3]).max() > 1e-2
    code = jax.jit(transformer_prior.draw, static_argnums=0)(
        played.prior, state.prior.params, keys, label, 1.0
    )
    np.testing.assert_allclose(decode(played, state.params, state.books, code), together, atol=1e-4)


# Settings ---------------------------------------------------------------------------------------------------


def test_wrong_settings_are_named() -> None:
    for changes, message in (
        ({"size": 20}, "game.size is 20, and must be a multiple of 8"),
        ({"decay": 1.0}, r"game.decay is 1.0, and must lie in \[0, 1\)"),
        ({"restart": -0.1}, "game.restart is -0.1"),
    ):
        with pytest.raises(ValueError, match=message):
            systems.autoencoder(game(**changes))
    with pytest.raises(ValueError, match="game.temperature is 0.0, and must be above 0"):
        systems.prior(game(temperature=0.0))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("game.autoencoder_steps", 8, r"must lie in \(0, config.train.steps = 8\)"),
        ("game.prior.name", "lstm", "config.game.prior.name is 'lstm'; choices: pixelcnn, transformer"),
        ("game.prior.depth", 3, "config.game.prior.depth is no field of config.game.prior; fields: dropout"),
        ("generator.name", "biggan", "config.generator.name is 'biggan'; choices: vqvae"),
        ("discriminator.name", "biggan", "this game has no discriminator"),
        ("optimizer.g", {}, "config.optimizer.g is no field of config.optimizer; fields: autoencoder, prior"),
        ("ema.decay", 0.9, "config.ema.decay is 0.9; an autoencoder with codes has none"),
        ("sample.truncation", 0.5, "config.sample.truncation is 0.5; an autoencoder with codes has none"),
        ("sample.norm", "batch", "config.sample.norm is 'batch'; an autoencoder with codes samples with"),
    ],
)
def test_wrong_fields_are_named(path: str, value: Any, message: str) -> None:
    config = test_build.load(test_build.ROOT / "configs" / "vqvae2.py").get_config("test")
    *inside, field = path.split(".")
    section = config
    for name in inside:
        section = section[name]
    with section.unlocked():
        section[field] = value
    with pytest.raises(schema.ConfigError, match=message):
        build.check(config)
