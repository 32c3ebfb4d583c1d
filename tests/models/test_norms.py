"""Normalization layers against torch and closed forms."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxdog.models import norms

KEY = jax.random.key(0)


def normal(i: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(i), shape)


def to_torch(x: jax.Array):
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    return torch.tensor(np.asarray(x))


@pytest.mark.oracle
def test_batch_norm_agrees_with_torch():
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    twin = torch.nn.BatchNorm2d(3, affine=True)
    layer = norms.BatchNorm(affine=True)
    variables = layer.init(KEY, jnp.zeros((2, 4, 5, 3)), True)
    gain, bias = 1 + 0.3 * normal(12, 3), normal(13, 3)
    variables = {**variables, "params": {"gain": gain, "bias": bias}}
    twin.weight.data, twin.bias.data = to_torch(gain), to_torch(bias)
    for i in range(3):
        x = 2 * normal(20 + i, 2, 4, 5, 3) + 1
        y, new = layer.apply(variables, x, True, mutable=[norms.BATCH_STATS])
        variables = {**variables, **new}
        expected = twin(to_torch(x.transpose(0, 3, 1, 2)))
        np.testing.assert_allclose(y.transpose(0, 3, 1, 2), expected.detach().numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(variables["batch_stats"]["mean"], twin.running_mean.numpy(), rtol=1e-5)
    np.testing.assert_allclose(variables["batch_stats"]["var"], twin.running_var.numpy(), rtol=1e-5)
    twin.eval()
    x = normal(30, 2, 4, 5, 3)
    expected = twin(to_torch(x.transpose(0, 3, 1, 2))).detach().numpy()
    np.testing.assert_allclose(
        layer.apply(variables, x, False).transpose(0, 3, 1, 2), expected, rtol=1e-4, atol=1e-5
    )


def test_variance_of_a_far_mean_does_not_cancel():
    x = 3000.0 + normal(14, 4, 8, 8, 2)
    origin, mean, var = norms.moments(x)
    np.testing.assert_allclose(origin + mean, np.asarray(x, np.float64).mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(var, np.asarray(x, np.float64).var((0, 1, 2)), rtol=1e-4)


def test_batch_norm_under_sharding_uses_the_whole_batch():
    devices = jax.devices()
    if len(devices) < 2:
        pytest.skip("one device only")
    layer, x = norms.BatchNorm(), normal(15, 8, 3, 3, 2)
    variables = layer.init(KEY, x, True)
    mesh = Mesh(np.array(devices), ("data",))
    sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    run = jax.jit(lambda x: layer.apply(variables, x, True, mutable=[norms.BATCH_STATS]))
    chex.assert_trees_all_close(run(sharded), run(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_conditional_gain_and_bias(joint, offset):
    layer = norms.ConditionalBatchNorm(gain_offset=offset, joint=joint, spectral=False)
    x, condition = normal(16, 2, 3, 3, 4), normal(17, 2, 5)
    variables = layer.init(KEY, x, condition, True)
    params = variables["params"]
    if joint:
        gain, bias = jnp.split(condition @ params["gain_and_bias"]["kernel"], 2, 1)
    else:
        gain, bias = condition @ params["gain"]["kernel"], condition @ params["bias"]["kernel"]
    plain = (x - x.mean((0, 1, 2), keepdims=True)) / jnp.sqrt(x.var((0, 1, 2), keepdims=True) + 1e-5)
    expected = (offset + gain)[:, None, None, :] * plain + bias[:, None, None, :]
    chex.assert_trees_all_close(layer.apply(variables, x, condition, True), expected, rtol=1e-4, atol=1e-5)


def test_conditional_norm_options_show_in_the_parameters():
    x, condition = jnp.zeros((2, 3, 3, 4)), jnp.zeros((2, 5))
    layer = norms.ConditionalBatchNorm(use_bias=True, spectral=False)
    variables = layer.init(KEY, x, condition, True)
    assert set(variables["params"]["gain"]) == {"kernel", "bias"} and "spectral" not in variables
    assert "spectral" in norms.ConditionalBatchNorm().init(KEY, x, condition, True)


@pytest.mark.oracle
def test_pixel_norm_agrees_with_torch():
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    x = normal(42, 2, 3, 4, 5).at[0, 0, 0].set(1e-5)  # so small that eps is seen
    pre = to_torch(x.transpose(0, 3, 1, 2))
    expected = pre * torch.rsqrt(pre.square().mean(1, keepdim=True) + 1e-8)
    got = norms.PixelNorm()(x)
    np.testing.assert_allclose(got.transpose(0, 3, 1, 2), expected.numpy(), rtol=1e-5)
    sizes = jnp.mean(jnp.square(got), -1)
    chex.assert_trees_all_close(sizes.at[0, 0, 0].set(1.0), jnp.ones(sizes.shape), atol=1e-5)
