"""Self-attention, pixel by pixel."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog.models import attention

KEY = jax.random.key(0)


def normal(i: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(i), shape)


@pytest.mark.long
def test_attention_starts_as_the_identity_and_rounds_its_widths_down():
    layer, x = attention.SelfAttention(), normal(18, 2, 4, 4, 16)
    variables = layer.init(KEY, x, True)
    chex.assert_trees_all_equal(layer.apply(variables, x, True), x)
    with pytest.raises(ValueError, match="attention over 7 channels with key_ratio 8 needs at least 8"):
        layer.init(KEY, jnp.zeros((1, 4, 4, 7)), True)
    uneven = layer.init(KEY, jnp.zeros((1, 4, 4, 19)), True)["params"]
    assert uneven["query"]["kernel"].shape[-1] == 2 and uneven["value"]["kernel"].shape[-1] == 9


def test_attention_by_hand_for_each_pixel():
    layer, x = attention.SelfAttention(key_ratio=4), normal(19, 2, 4, 4, 8)
    variables = layer.init(KEY, x, True)
    variables["params"]["gain"] = jnp.array(0.7)
    got = np.asarray(layer.apply(variables, x, True), np.float64)
    kernels = {
        name: np.asarray(variables["params"][name]["kernel"], np.float64)[0, 0]
        for name in ("query", "key", "value", "out")
    }
    # Of the orthogonal kernels all singular values are 1, so they are their own spectral norms.
    for b, pixels in enumerate(np.asarray(x, np.float64)):
        key = np.stack(
            [
                (pixels[i : i + 2, j : j + 2].reshape(4, 8) @ kernels["key"]).max(0)
                for i in (0, 2)
                for j in (0, 2)
            ]
        )
        value = np.stack(
            [
                (pixels[i : i + 2, j : j + 2].reshape(4, 8) @ kernels["value"]).max(0)
                for i in (0, 2)
                for j in (0, 2)
            ]
        )
        for i in range(4):
            for j in range(4):
                weight = np.exp(key @ (pixels[i, j] @ kernels["query"]))
                seen = (weight / weight.sum()) @ value
                expected = pixels[i, j] + 0.7 * seen @ kernels["out"]
                np.testing.assert_allclose(got[b, i, j], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_scaled_dot_products_of_what_is_seen(dtype):
    """Query by query and head by head; keys that are not seen do not count, whatever they are."""
    query, key, value = (normal(30 + i, 2, 5, 3, 4).astype(dtype) for i in range(3))
    got, causal = attention.dot_product(query, key, value), np.tri(5, dtype=bool)
    assert got.dtype == dtype
    masked = attention.dot_product(query, key, value, causal)
    chex.assert_trees_all_equal(masked[:, -1], got[:, -1])
    hidden = attention.dot_product(query, key.at[:, 3:].set(9.0), value.at[:, 3:].set(9.0), causal)
    chex.assert_trees_all_equal(hidden[:, :3], masked[:, :3])
    q, k, v = (np.asarray(x, np.float64) for x in (query, key, value))
    for m in range(5):
        for head in range(3):
            weight = np.exp(k[0, : m + 1, head] @ q[0, m, head] / 2.0)
            expected = (weight / weight.sum()) @ v[0, : m + 1, head]
            tolerance = 1e-5 if dtype == np.float32 else 0.03
            np.testing.assert_allclose(
                np.asarray(masked[0, m, head], np.float64), expected, tolerance, tolerance
            )
