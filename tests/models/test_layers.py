"""Layers against closed forms and torch."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog.models import initializers, layers, spectral_norm

KEY = jax.random.key(0)


def normal(i: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(i), shape)


def to_torch(x: jax.Array):
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    return torch.tensor(np.asarray(x))


@pytest.mark.parametrize(("inputs", "features"), [(3, 4), (2, 30)])
def test_initial_kernels_are_orthogonal_as_in_torch(inputs, features):
    """As torch's orthogonal_ on [out, in * kh * kw]: orthonormal rows, or columns if those are fewer."""
    kernel = layers.Conv(features).init(KEY, jnp.zeros((1, 4, 4, inputs)), True)["params"]["kernel"]
    matrix = kernel.reshape(-1, features)
    small = matrix.T @ matrix if features <= matrix.shape[0] else matrix @ matrix.T
    chex.assert_trees_all_close(small, jnp.eye(small.shape[0]), atol=1e-5)


def test_activations():
    x = jnp.array([-2.0, 0.0, 3.0])
    chex.assert_trees_all_close(layers.activation("relu")(x), jnp.array([0.0, 0.0, 3.0]))
    chex.assert_trees_all_close(layers.activation("leaky_relu", 0.1)(x), jnp.array([-0.2, 0.0, 3.0]))
    with pytest.raises(ValueError, match="activation 'gelu' is unknown; choose relu or leaky_relu"):
        layers.activation("gelu")


# Of each: kernel size, the input's height, torch's layer and its stride and padding, its weight's axes.
RESAMPLING = {
    "strided": (4, 6, "Conv2d", (2, 1), (3, 2, 0, 1)),
    "transposed": (4, 5, "ConvTranspose2d", (2, 1), (2, 3, 0, 1)),
    "expand": (4, 1, "ConvTranspose2d", (1, 0), (2, 3, 0, 1)),
    "collapse": (3, 3, "Conv2d", (1, 0), (3, 2, 0, 1)),
}


@pytest.mark.oracle
@pytest.mark.parametrize("resample", RESAMPLING)
def test_resampling_and_its_spectral_norm_agree_with_torch(resample):
    """Widths differ: a norm of the matrix along the other axis would have vectors of other lengths."""
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    size, height, kind, (stride, padding), order = RESAMPLING[resample]
    layer = layers.Conv(5, size, True, resample=resample, kernel_init=nn.initializers.normal(1.0))
    x = normal(40, 2, height, height, 3)
    variables = layer.init(KEY, x, True)
    variables["params"]["bias"] = normal(41, 5)
    twin = getattr(torch.nn, kind)(3, 5, size, stride, padding)
    twin.weight.data = torch.tensor(np.asarray(variables["params"]["kernel"]).transpose(order).copy())
    twin.bias.data = to_torch(variables["params"]["bias"])
    twin = torch.nn.utils.spectral_norm(twin, n_power_iterations=1)
    assert twin.weight_u.shape == variables["spectral"]["u"].shape == (5,)
    twin.weight_u = to_torch(variables["spectral"]["u"])
    pre = to_torch(x.transpose(0, 3, 1, 2)).requires_grad_()

    def loss(params, x, spectral):
        y, new = layer.apply({"params": params, **spectral}, x, True, mutable=[spectral_norm.SPECTRAL])
        return jnp.sum(jnp.sin(y)), (y, new)

    spectral = {"spectral": variables["spectral"]}
    for _ in range(2):
        grad = jax.grad(loss, argnums=(0, 1), has_aux=True)
        (gradients, pull), (y, spectral) = grad(variables["params"], x, spectral)
        for tensor in (twin.weight_orig, twin.bias, pre):
            tensor.grad = None
        expected = twin(pre)
        expected.sin().sum().backward()
    assert y.shape[1] == {"strided": 3, "transposed": 10, "expand": 4, "collapse": 1}[resample]
    np.testing.assert_allclose(y.transpose(0, 3, 1, 2), expected.detach().numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(spectral["spectral"]["u"], twin.weight_u.numpy(), rtol=1e-4, atol=1e-5)
    kernel = np.asarray(gradients["kernel"]).transpose(order)
    np.testing.assert_allclose(kernel, twin.weight_orig.grad.numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(gradients["bias"], twin.bias.grad.numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(pull.transpose(0, 3, 1, 2), pre.grad.numpy(), rtol=1e-4, atol=1e-5)


def test_expanding_and_collapsing_need_their_heights():
    with pytest.raises(ValueError, match="'expand' needs maps of 1x1, got 2x3"):
        layers.Conv(2, 4, resample="expand").init(KEY, jnp.zeros((1, 2, 3, 2)), True)
    with pytest.raises(ValueError, match="'collapse' needs maps of the kernel's size, 4x4, got 2x3"):
        layers.Conv(2, 4, resample="collapse").init(KEY, jnp.zeros((1, 2, 3, 2)), True)


@pytest.mark.oracle
@pytest.mark.parametrize(("fan", "kind"), [("in", "Conv2d"), ("out", "ConvTranspose2d")])
def test_torchs_starting_weights(fan, kind):
    """Kernel and bias are uniform within 1 / sqrt(fan), which torch reads from the weight's second axis."""
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    init = initializers.TorchDefault(fan)
    twin = getattr(torch.nn, kind)(24, 64, 4)
    shape = (4, 4, 24, 64)
    bound = 1 / np.sqrt(16 * (24 if fan == "in" else 64))
    for ours, theirs in (
        (init.kernel(KEY, shape), twin.weight.detach().numpy()),
        (init.bias(KEY, shape), twin.bias.detach().numpy()),
    ):
        assert ours.size == theirs.size
        for x in (np.asarray(ours), theirs):
            assert 0.8 * bound < x.max() <= bound and -bound <= x.min() < -0.8 * bound
            assert abs(x.std() * np.sqrt(3) / bound - 1) < 0.25
    dense = torch.nn.Linear(24, 64).weight.detach().numpy()
    ours = np.asarray(initializers.TorchDefault().kernel(KEY, (24, 64)))
    np.testing.assert_allclose(np.abs(ours).max(), np.abs(dense).max(), rtol=0.05)


@pytest.mark.oracle
@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("group", [0, 4])
def test_minibatch_deviation_agrees_with_torch(group, centered):
    """torch's program of 2019, whose in-place subtraction `centered` repeats."""
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    x = 3.0 + normal(43, 8, 3, 3, 5)
    pre = to_torch(x.transpose(0, 3, 1, 2)).clone()
    grouped = pre.reshape(group or 8, -1, 5, 3, 3)
    if centered:
        grouped -= grouped.mean(0, keepdim=True)  # a view: `pre` changes too
    deviation = grouped - grouped.mean(0, keepdim=True)
    std = torch.sqrt(deviation.square().mean(0) + 1e-8).mean((1, 2, 3))  # [8 / group]
    channel = std.repeat(group or 8)[:, None, None, None].expand(8, 1, 3, 3)
    expected = torch.cat([pre, channel], 1).numpy()
    got = layers.MinibatchStd(group, centered)(x)
    np.testing.assert_allclose(got.transpose(0, 3, 1, 2), expected, rtol=1e-4, atol=1e-5)
    assert len(np.unique(np.asarray(got[..., -1]).round(6))) == (2 if group else 1)


def test_minibatch_deviation_needs_whole_groups():
    with pytest.raises(ValueError, match="a batch of 6 cannot be split into groups of 4"):
        layers.MinibatchStd(4)(jnp.zeros((6, 2, 2, 1)))


def test_noise_depends_on_the_image_and_the_position():
    x, keys = normal(44, 3, 16, 16, 4), jax.random.split(KEY, 3)
    layer = layers.Noise(2)
    variables = layer.init(KEY, x, keys)
    chex.assert_trees_all_equal(layer.apply(variables, x, keys), x)  # weights begin at 0
    variables = {"params": {"weight": jnp.array([1.0, 2.0, 0.0, -1.0])}}
    added = layer.apply(variables, x, keys) - x
    one_map = added[..., 0]
    chex.assert_trees_all_close(added[..., 1], 2 * one_map, atol=1e-5)
    chex.assert_trees_all_close(added[..., 3], -one_map, atol=1e-5)
    assert not np.asarray(added[..., 2]).any()
    assert abs(float(one_map.mean())) < 0.15 and abs(float(one_map.std()) - 1) < 0.15
    assert abs(np.corrcoef(one_map[0].ravel(), one_map[1].ravel())[0, 1]) < 0.3
    alone = layer.apply(variables, x[1:2], keys[1:2]) - x[1:2]
    chex.assert_trees_all_close(alone[0], added[1], atol=1e-6)
    elsewhere = layers.Noise(3).apply(variables, x, keys) - x
    assert abs(np.corrcoef(one_map[0].ravel(), elsewhere[0, ..., 0].ravel())[0, 1]) < 0.3
