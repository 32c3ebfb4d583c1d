"""Layers against closed forms, properties, lax and torch."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxdog.models import layers

KEY = jax.random.key(0)


def normal(i: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(i), shape)


def to_torch(x: jax.Array):
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    return torch.tensor(np.asarray(x))


# Spectral norm ----------------------------------------------------------------------------------------------


def iterate(layer: nn.Module, variables, x: jax.Array, n: int):
    """The variables after n power iterations."""
    for _ in range(n):
        _, new = layer.apply(variables, x, True, mutable=[layers.SPECTRAL])
        variables = {**variables, **new}
    return variables


def effective(layer: nn.Module, variables, inputs: int) -> jax.Array:
    """The matrix [inputs, features] that a Dense layer without bias multiplies by."""
    return layer.apply(variables, jnp.eye(inputs), False)


def test_iterations_make_the_top_singular_value_one():
    layer = layers.Dense(5, bias=False, kernel_init=nn.initializers.normal(1.0))
    variables = layer.init(KEY, jnp.zeros((1, 7)), True)
    converged = iterate(layer, variables, jnp.zeros((1, 7)), 60)
    top = jnp.linalg.svd(effective(layer, converged, 7), compute_uv=False)[0]
    chex.assert_trees_all_close(top, 1.0, atol=1e-5)
    assert abs(float(jnp.linalg.svd(effective(layer, variables, 7), compute_uv=False)[0]) - 1) > 1e-3
    moved = jax.tree.map(lambda p: p + 0.5 * normal(7, *p.shape), converged["params"])
    top = jnp.linalg.svd(effective(layer, {**converged, "params": moved}, 7), compute_uv=False)[0]
    assert abs(float(top) - 1) > 1e-3


@pytest.mark.parametrize("kind", ["conv", "dense", "embed"])
def test_spectral_norm_agrees_with_torch(kind):
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    init = nn.initializers.normal(1.0)
    if kind == "conv":
        layer, x = layers.Conv(4, 3, bias=False, kernel_init=init), normal(8, 1, 5, 5, 3)
        twin = torch.nn.Conv2d(3, 4, 3, padding=1, bias=False)
    elif kind == "dense":
        layer, x = layers.Dense(4, bias=False, kernel_init=init), normal(8, 2, 3)
        twin = torch.nn.Linear(3, 4, bias=False)
    else:
        layer, x = layers.Embed(6, 4, kernel_init=init), jnp.array([2, 5])
        twin = torch.nn.Embedding(6, 4)
    variables = layer.init(KEY, x, True)
    order = {"conv": (3, 2, 0, 1), "dense": (1, 0), "embed": (0, 1)}[kind]
    weight = np.asarray(variables["params"]["kernel"]).transpose(order)
    twin.weight.data = torch.tensor(weight.copy())
    twin = torch.nn.utils.spectral_norm(twin, n_power_iterations=1, eps=1e-8)
    twin.weight_u = torch.tensor(np.asarray(variables["spectral"]["u"]))
    twin.train()
    for _ in range(3):
        y, new = layer.apply(variables, x, True, mutable=[layers.SPECTRAL])
        variables = {**variables, **new}
        pre = to_torch(x.transpose(0, 3, 1, 2) if kind == "conv" else x)
        expected = twin(pre).detach().numpy()
    got = np.asarray(y).transpose(0, 3, 1, 2) if kind == "conv" else np.asarray(y)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(variables["spectral"]["u"], twin.weight_u.numpy(), rtol=1e-5, atol=1e-6)

    def loss(params):
        return jnp.sum(jnp.square(layer.apply({**variables, "params": params}, x, False)))

    gradient = np.asarray(jax.grad(loss)(variables["params"])["kernel"]).transpose(order)
    twin.eval()
    # torch's own eval mode computes with the weight of the last training call: ask for the current one.
    hook = next(iter(twin._forward_pre_hooks.values()))
    twin.weight = hook.compute_weight(twin, do_power_iteration=False)
    pre = to_torch(x.transpose(0, 3, 1, 2) if kind == "conv" else x)
    forward = torch.nn.functional
    y = {
        "conv": lambda: forward.conv2d(pre, twin.weight, padding=1),
        "dense": lambda: forward.linear(pre, twin.weight),
        "embed": lambda: forward.embedding(pre, twin.weight),
    }[kind]()
    y.square().sum().backward()
    np.testing.assert_allclose(gradient, twin.weight_orig.grad.numpy(), rtol=1e-4, atol=1e-4)


def test_spectral_vectors_move_only_in_training_and_if_mutable():
    layer, x = layers.Dense(4, kernel_init=nn.initializers.normal(1.0)), jnp.zeros((1, 3))
    variables = layer.init(KEY, x, True)
    stored = variables["spectral"]
    _, frozen = layer.apply(variables, x, False, mutable=[layers.SPECTRAL])
    chex.assert_trees_all_equal(frozen["spectral"], stored)
    y = layer.apply(variables, normal(9, 1, 3), True)
    chex.assert_trees_all_equal(y, layer.apply(variables, normal(9, 1, 3), False))
    _, moved = layer.apply(variables, x, True, mutable=[layers.SPECTRAL])
    assert float(jnp.abs(moved["spectral"]["u"] - stored["u"]).max()) > 1e-4


def test_no_gradient_flows_through_the_spectral_vectors():
    layer, x = layers.Dense(4, bias=False, kernel_init=nn.initializers.normal(1.0)), normal(10, 2, 3)
    variables = layer.init(KEY, x, True)
    u, v = variables["spectral"]["u"], variables["spectral"]["v"]  # by_hand reads them when it is called

    def ours(kernel):
        return jnp.sum(jnp.sin(layer.apply({**variables, "params": {"kernel": kernel}}, x, True)))

    def by_hand(kernel):
        return jnp.sum(jnp.sin(x @ (kernel / (v @ kernel @ u))))

    kernel = variables["params"]["kernel"]
    chex.assert_trees_all_close(jax.grad(ours)(kernel), jax.grad(by_hand)(kernel), rtol=1e-5)

    def moving(kernel):
        y, new = layer.apply({**variables, "params": {"kernel": kernel}}, x, True, mutable=[layers.SPECTRAL])
        return jnp.sum(jnp.sin(y)), new["spectral"]

    gradient, new = jax.grad(moving, has_aux=True)(kernel)
    u, v = new["u"], new["v"]
    chex.assert_trees_all_close(gradient, jax.grad(by_hand)(kernel), rtol=1e-5)
    spectral = jax.grad(lambda s: jnp.sum(layer.apply({**variables, "spectral": s}, x, True)))
    chex.assert_trees_all_equal(spectral(variables["spectral"]), {"u": jnp.zeros(4), "v": jnp.zeros(3)})


def test_shortened_spectral_vectors_do_not_change_the_layer():
    """An average of unit vectors is shorter than 1; sigma must not shrink with it."""
    layer, x = layers.Dense(4), normal(11, 2, 3)
    variables = layer.init(KEY, x, True)
    short = {**variables, "spectral": jax.tree.map(lambda s: 0.7 * s, variables["spectral"])}
    chex.assert_trees_all_close(layer.apply(short, x, False), layer.apply(variables, x, False), rtol=1e-6)


def test_layers_without_spectral_norm_have_no_state():
    for layer, x in [
        (layers.Conv(2, spectral=False), jnp.zeros((1, 4, 4, 3))),
        (layers.Dense(2, spectral=False), jnp.zeros((1, 3))),
        (layers.Embed(5, 2, spectral=False), jnp.zeros((1,), jnp.int32)),
    ]:
        assert set(layer.init(KEY, x, True)) == {"params"}


@pytest.mark.parametrize(("inputs", "features"), [(3, 4), (2, 30)])
def test_initial_kernels_are_orthogonal_as_in_torch(inputs, features):
    """As torch's orthogonal_ on [out, in * kh * kw]: orthonormal rows, or columns if those are fewer."""
    kernel = layers.Conv(features).init(KEY, jnp.zeros((1, 4, 4, inputs)), True)["params"]["kernel"]
    matrix = kernel.reshape(-1, features)
    small = matrix.T @ matrix if features <= matrix.shape[0] else matrix @ matrix.T
    chex.assert_trees_all_close(small, jnp.eye(small.shape[0]), atol=1e-5)


# Batch norm -------------------------------------------------------------------------------------------------


def test_batch_norm_agrees_with_torch():
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    twin = torch.nn.BatchNorm2d(3, affine=True)
    layer = layers.BatchNorm(affine=True)
    variables = layer.init(KEY, jnp.zeros((2, 4, 5, 3)), True)
    gain, bias = 1 + 0.3 * normal(12, 3), normal(13, 3)
    variables = {**variables, "params": {"gain": gain, "bias": bias}}
    twin.weight.data, twin.bias.data = to_torch(gain), to_torch(bias)
    for i in range(3):
        x = 2 * normal(20 + i, 2, 4, 5, 3) + 1
        y, new = layer.apply(variables, x, True, mutable=[layers.BATCH_STATS])
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
    origin, mean, var = layers.moments(x)
    np.testing.assert_allclose(origin + mean, np.asarray(x, np.float64).mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(var, np.asarray(x, np.float64).var((0, 1, 2)), rtol=1e-4)


def test_batch_norm_under_sharding_uses_the_whole_batch():
    devices = jax.devices()
    if len(devices) < 2:
        pytest.skip("one device only")
    layer, x = layers.BatchNorm(), normal(15, 8, 3, 3, 2)
    variables = layer.init(KEY, x, True)
    mesh = Mesh(np.array(devices), ("data",))
    sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    run = jax.jit(lambda x: layer.apply(variables, x, True, mutable=[layers.BATCH_STATS]))
    chex.assert_trees_all_close(run(sharded), run(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_conditional_gain_and_bias(joint, offset):
    layer = layers.ConditionalBatchNorm(gain_offset=offset, joint=joint, spectral=False)
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
    layer = layers.ConditionalBatchNorm(bias=True, spectral=False)
    variables = layer.init(KEY, x, condition, True)
    assert set(variables["params"]["gain"]) == {"kernel", "bias"} and "spectral" not in variables
    assert "spectral" in layers.ConditionalBatchNorm().init(KEY, x, condition, True)


# Attention --------------------------------------------------------------------------------------------------


def test_attention_starts_as_the_identity_and_rounds_its_widths_down():
    layer, x = layers.SelfAttention(), normal(18, 2, 4, 4, 16)
    variables = layer.init(KEY, x, True)
    chex.assert_trees_all_equal(layer.apply(variables, x, True), x)
    with pytest.raises(ValueError, match="attention over 7 channels: key_ratio is 8"):
        layer.init(KEY, jnp.zeros((1, 4, 4, 7)), True)
    uneven = layer.init(KEY, jnp.zeros((1, 4, 4, 19)), True)["params"]
    assert uneven["query"]["kernel"].shape[-1] == 2 and uneven["value"]["kernel"].shape[-1] == 9


def test_attention_by_hand_for_each_pixel():
    layer, x = layers.SelfAttention(key_ratio=4), normal(19, 2, 4, 4, 8)
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


def test_activations():
    x = jnp.array([-2.0, 0.0, 3.0])
    chex.assert_trees_all_close(layers.activation("relu")(x), jnp.array([0.0, 0.0, 3.0]))
    chex.assert_trees_all_close(layers.activation("leaky_relu", 0.1)(x), jnp.array([-0.2, 0.0, 3.0]))
    with pytest.raises(ValueError, match="activation 'gelu' is unknown; choose relu or leaky_relu"):
        layers.activation("gelu")


# Convolutions that change the height ------------------------------------------------------------------------

# Of each: kernel size, the input's height, torch's layer and its stride and padding, its weight's axes.
RESAMPLING = {
    "strided": (4, 6, "Conv2d", (2, 1), (3, 2, 0, 1)),
    "transposed": (4, 5, "ConvTranspose2d", (2, 1), (2, 3, 0, 1)),
    "expand": (4, 1, "ConvTranspose2d", (1, 0), (2, 3, 0, 1)),
    "collapse": (3, 3, "Conv2d", (1, 0), (3, 2, 0, 1)),
}


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
        y, new = layer.apply({"params": params, **spectral}, x, True, mutable=[layers.SPECTRAL])
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
    with pytest.raises(ValueError, match="expand begins with pictures of 1x1, got 2x3"):
        layers.Conv(2, 4, resample="expand").init(KEY, jnp.zeros((1, 2, 3, 2)), True)
    with pytest.raises(ValueError, match="a kernel of 4x4 cannot collapse 2x3"):
        layers.Conv(2, 4, resample="collapse").init(KEY, jnp.zeros((1, 2, 3, 2)), True)


@pytest.mark.parametrize(("fan", "kind"), [("in", "Conv2d"), ("out", "ConvTranspose2d")])
def test_torchs_starting_weights(fan, kind):
    """Kernel and bias are uniform within 1 / sqrt(fan), which torch reads from the weight's second axis."""
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    init = layers.TorchDefault(fan)
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
    ours = np.asarray(layers.TorchDefault().kernel(KEY, (24, 64)))
    np.testing.assert_allclose(np.abs(ours).max(), np.abs(dense).max(), rtol=0.05)


# Style and statistics ---------------------------------------------------------------------------------------


def test_pixel_norm_agrees_with_torch():
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    x = normal(42, 2, 3, 4, 5).at[0, 0, 0].set(1e-5)  # so small that eps is seen
    pre = to_torch(x.transpose(0, 3, 1, 2))
    expected = pre * torch.rsqrt(pre.square().mean(1, keepdim=True) + 1e-8)
    got = layers.PixelNorm()(x)
    np.testing.assert_allclose(got.transpose(0, 3, 1, 2), expected.numpy(), rtol=1e-5)
    sizes = jnp.mean(jnp.square(got), -1)
    chex.assert_trees_all_close(sizes.at[0, 0, 0].set(1.0), jnp.ones(sizes.shape), atol=1e-5)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("group", [0, 4])
def test_minibatch_deviation_agrees_with_torch(group, centred):
    """torch's program of 2019, whose in-place subtraction `centred` repeats."""
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    x = 3.0 + normal(43, 8, 3, 3, 5)
    pre = to_torch(x.transpose(0, 3, 1, 2)).clone()
    grouped = pre.reshape(group or 8, -1, 5, 3, 3)
    if centred:
        grouped -= grouped.mean(0, keepdim=True)  # a view: `pre` changes too
    deviation = grouped - grouped.mean(0, keepdim=True)
    std = torch.sqrt(deviation.square().mean(0) + 1e-8).mean((1, 2, 3))  # [8 / group]
    channel = std.repeat(group or 8)[:, None, None, None].expand(8, 1, 3, 3)
    expected = torch.cat([pre, channel], 1).numpy()
    got = layers.MinibatchStd(group, centred)(x)
    np.testing.assert_allclose(got.transpose(0, 3, 1, 2), expected, rtol=1e-4, atol=1e-5)
    assert len(np.unique(np.asarray(got[..., -1]).round(6))) == (2 if group else 1)


def test_minibatch_deviation_needs_whole_groups():
    with pytest.raises(ValueError, match="a batch of 6 cannot be cut into groups of 4"):
        layers.MinibatchStd(4)(jnp.zeros((6, 2, 2, 1)))


def test_noise_is_of_a_picture_and_a_place():
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
