"""The U-Net: shapes, what its output depends on, and what it refuses."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog.models import unet
from tests.models import networks

KEY = jax.random.key(0)
SMALL = dict(size=8, classes=3, channels=4, multipliers=(1, 2), blocks=1, attention=(4,), head_channels=4)


def inputs(b: int = 2, size: int = 8) -> tuple[jax.Array, jax.Array, jax.Array]:
    return jax.random.normal(KEY, (b, size, size, 3)), jnp.linspace(0.1, 0.9, b), jnp.arange(b)


def test_the_output_is_zero_at_first_and_depends_on_all_inputs_later() -> None:
    net = unet.UNet(**SMALL)
    image, time, label = inputs()
    variables = networks.init(net, image, time, label, train=False)
    apply = jax.jit(lambda params, *x: net.apply({"params": params}, *x, train=False))
    out = apply(variables["params"], image, time, label)
    assert out.shape == image.shape and out.dtype == jnp.float32 and not out.any()
    params = networks.drawn(net, image, time, label)["params"]
    base = apply(params, image, time, label)
    for changed in ((image + 0.1, time, label), (image, time + 0.05, label), (image, time, label + 2)):
        assert not np.allclose(apply(params, *changed), base, atol=1e-4)
    first = apply(params, image[:1], time[:1], label[:1])
    np.testing.assert_allclose(first, base[:1], atol=1e-5)  # an image does not depend on its batch


def test_bfloat16_is_close_and_its_output_is_float32() -> None:
    image, time, label = inputs()
    net, rough = unet.UNet(**SMALL), unet.UNet(**SMALL, dtype=jnp.bfloat16)
    params = networks.drawn(net, image, time, label)["params"]
    single, half = (
        networks.apply(each, {"params": params}, image, time, label, train=False) for each in (net, rough)
    )
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, single, atol=0.1 * float(jnp.abs(single).max()))


def test_time_features_are_cosines_and_sines() -> None:
    time = jnp.array([0.0, 0.25])
    features = np.asarray(unet.time_features(time, 6))
    frequency = 10_000.0 ** -(np.arange(3) / 3)
    np.testing.assert_allclose(features[0], [1, 1, 1, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(features[1, :3], np.cos(250.0 * frequency), atol=1e-4)
    np.testing.assert_allclose(features[1, 3:], np.sin(250.0 * frequency), atol=1e-4)


def test_attention_is_the_softmax_of_scaled_products() -> None:
    layer = unet.Attention(head_channels=2)
    x = jax.random.normal(KEY, (1, 2, 2, 4))
    params = jax.device_get(networks.stirred(layer.init(KEY, x, train=False)["params"], 0.1, seed=0))
    normed = np.asarray(unet.group_norm(4, "norm").apply({"params": params["norm"]}, x)).reshape(4, 4)
    dense = {
        name: normed @ params[name]["kernel"] + params[name]["bias"] for name in ("query", "key", "value")
    }
    heads = []
    for head in (slice(0, 2), slice(2, 4)):
        logit = dense["query"][:, head] @ dense["key"][:, head].T / np.sqrt(2.0)
        weight = np.exp(logit) / np.exp(logit).sum(1, keepdims=True)
        heads.append(weight @ dense["value"][:, head])
    out = np.concatenate(heads, 1) @ params["out"]["kernel"] + params["out"]["bias"]
    got = layer.apply({"params": params}, x, train=False)
    np.testing.assert_allclose(got, np.asarray(x) + out.reshape(1, 2, 2, 4), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"multipliers": (1, 2, 2, 2, 2)}, r"halves maps 4 times, and 8 is no multiple of 16"),
        ({"attention": (5,)}, "no feature map has attention height 5; heights: 8, 4"),
        ({"head_channels": 3}, "maps of 4 channels cannot be split into heads of head_channels = 3"),
    ],
)
def test_impossible_sizes_are_refused(changes: dict[str, Any], message: str) -> None:
    net = unet.UNet(**{**SMALL, **changes})
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: net.init(KEY, *inputs(), train=False))
