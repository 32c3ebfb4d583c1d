"""VQ-VAE-2's codebooks against a plain loop, and the shapes of its autoencoder."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog.models import vqvae

KEY = jax.random.key(0)
CODES, DIM = 6, 4
DECAY, THRESHOLD = 0.9, 0.05


# Codebooks --------------------------------------------------------------------------------------------------


def test_quantize_finds_the_nearest_code() -> None:
    z, code = jax.random.normal(KEY, (3, 5, DIM)), jax.random.normal(jax.random.key(1), (CODES, DIM))
    quantized = vqvae.quantize(z, code)
    distance = np.square(np.asarray(z)[:, :, None] - np.asarray(code)).sum(-1)
    np.testing.assert_array_equal(quantized.index, distance.argmin(-1))
    np.testing.assert_array_equal(quantized.nearest, code[quantized.index])
    np.testing.assert_allclose(quantized.value, quantized.nearest, atol=1e-6)
    twice = vqvae.quantize(z, jnp.concatenate([code, code]))  # the first of equal ones
    np.testing.assert_array_equal(twice.index, quantized.index)


def test_gradients_are_straight_through_and_do_not_reach_the_codes() -> None:
    z, code = jax.random.normal(KEY, (7, DIM)), jax.random.normal(jax.random.key(1), (CODES, DIM))

    def loss(z: Any, code: Any) -> Any:
        quantized = vqvae.quantize(z, code)
        return jnp.sum(jnp.sin(quantized.value)) + jnp.sum(quantized.nearest**3)

    to_z, to_code = jax.grad(loss, (0, 1))(z, code)
    np.testing.assert_allclose(to_z, np.cos(vqvae.quantize(z, code).nearest), rtol=1e-5)
    assert not to_code.any()


def test_codes_are_moving_averages_as_in_a_plain_loop() -> None:
    """Appendix A.1 of van den Oord et al. 2017, code by code, with unscaled counts."""
    book = vqvae.init_codebook(KEY, CODES, DIM)
    n = 15
    counts, sums = np.full(CODES, n / CODES), np.asarray(book.code, np.float64) * n / CODES
    update = jax.jit(vqvae.update_codebook, static_argnums=(3, 4))
    code = np.asarray(book.code, np.float64)
    for step in range(4):
        z = jax.random.normal(jax.random.key(step), (3, 5, DIM))
        quantized = vqvae.quantize(z, book.code)
        book, metrics = update(book, z, quantized.index, DECAY, 0.0, KEY)
        flat = np.asarray(z, np.float64).reshape(n, DIM)
        at = [int(np.argmin([np.sum((x - e) ** 2) for e in code])) for x in flat]
        for i in range(CODES):
            mine = [x for x, j in zip(flat, at, strict=True) if j == i]
            counts[i] = DECAY * counts[i] + (1 - DECAY) * len(mine)
            sums[i] = DECAY * sums[i] + (1 - DECAY) * (np.sum(mine, 0) if mine else 0.0)
            code[i] = sums[i] / counts[i]
        np.testing.assert_allclose(book.code, code, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(book.ema_count * n / CODES, counts, rtol=1e-5)
        frequency = np.bincount(at, minlength=CODES) / n
        perplexity = np.exp(-sum(p * np.log(p) for p in frequency if p > 0))
        np.testing.assert_allclose(metrics.perplexity, perplexity, rtol=1e-5)
        np.testing.assert_allclose(metrics.used, np.mean(frequency > 0), rtol=1e-6)
        assert metrics.restarted == 0


def test_perplexity_is_the_number_of_equally_used_codes() -> None:
    book, z = vqvae.init_codebook(KEY, CODES, DIM), jnp.zeros((12, DIM))
    for index, codes in ((jnp.zeros(12, jnp.int32), 1), (jnp.arange(12) % 3, 3), (jnp.arange(12) % CODES, 6)):
        metrics = vqvae.update_codebook(book, z, index, DECAY, 0.0, KEY)[1]
        np.testing.assert_allclose([metrics.perplexity, metrics.used], [codes, codes / CODES], rtol=1e-5)


def test_dead_codes_restart_at_a_vector_of_the_batch() -> None:
    """Only code 0 is used; the others restart as soon as 0.9^t < 0.05."""
    book = vqvae.init_codebook(KEY, CODES, DIM)
    update = jax.jit(vqvae.update_codebook, static_argnums=(3, 4))
    begin, due = book.code, int(np.ceil(np.log(THRESHOLD) / np.log(DECAY)))
    for step in range(1, due + 1):
        z = 5.0 + jax.random.normal(jax.random.key(step), (10, DIM))
        book, metrics = update(book, z, jnp.zeros(10, jnp.int32), DECAY, THRESHOLD, jax.random.key(step))
        assert metrics.restarted == (CODES - 1 if step == due else 0), step
        if step < due:
            np.testing.assert_allclose(book.code[1:], begin[1:], rtol=1e-4, atol=1e-6)
    for code in np.asarray(book.code[1:]):
        assert np.abs(np.asarray(z) - code).max(1).min() < 1e-6
    assert np.abs(np.asarray(z) - np.asarray(book.code[0])).max(1).min() > 0.05  # it is a mean
    np.testing.assert_allclose(book.ema_count[1:], 1.0)
    assert len(np.unique(np.asarray(book.code), axis=0)) > 2  # not all at one vector
    _, metrics = update(book, z, jnp.zeros(10, jnp.int32), DECAY, THRESHOLD, KEY)
    assert metrics.restarted == 0  # they restart with average usage


def test_without_a_threshold_unused_codes_stay() -> None:
    book = vqvae.init_codebook(KEY, CODES, DIM)
    begin = book.code
    z, at = jnp.ones((10, DIM)), jnp.zeros(10, jnp.int32)
    book, _ = jax.lax.scan(
        lambda b, _: (vqvae.update_codebook(b, z, at, DECAY, 0.0, KEY)[0], None), book, length=200
    )
    np.testing.assert_allclose(book.code[1:], begin[1:], rtol=1e-3)
    np.testing.assert_allclose(book.code[0], 1.0, rtol=1e-5)


# Autoencoder ------------------------------------------------------------------------------------------------


def test_shapes_of_the_paper() -> None:
    net = vqvae.Autoencoder(channels=128, residual_layers=2, residual_channels=64, code_dim=64)
    image, code = jnp.zeros((2, 64, 64, 3)), jnp.zeros((512, 64))
    output, variables = jax.eval_shape(lambda: net.init_with_output(KEY, image, code, code))
    assert output.top.index.shape == (2, 8, 8) and output.bottom.index.shape == (2, 16, 16)
    assert output.top.z.shape[-1] == 64 and output.reconstruction.shape == image.shape
    assert variables["params"]["encode_bottom"]["down1"]["kernel"].shape == (4, 4, 64, 128)
    with pytest.raises(ValueError, match="images are 20x20, and their sides must be multiples of 8"):
        jax.eval_shape(lambda: net.init(KEY, jnp.zeros((2, 20, 20, 3)), code, code))
