"""Spectral norm against torch, singular values and a gradient by hand."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog.models import layers, spectral_norm

KEY = jax.random.key(0)


def normal(i: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(i), shape)


def to_torch(x: jax.Array):
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    return torch.tensor(np.asarray(x))


def iterate(layer: nn.Module, variables, x: jax.Array, n: int):
    """The variables after n power iterations."""
    for _ in range(n):
        _, new = layer.apply(variables, x, True, mutable=[spectral_norm.SPECTRAL])
        variables = {**variables, **new}
    return variables


def effective(layer: nn.Module, variables, inputs: int) -> jax.Array:
    """The matrix [inputs, features] that a Dense layer without bias multiplies by."""
    return layer.apply(variables, jnp.eye(inputs), False)


def test_iterations_make_the_top_singular_value_one():
    layer = layers.Dense(5, use_bias=False, kernel_init=nn.initializers.normal(1.0))
    variables = layer.init(KEY, jnp.zeros((1, 7)), True)
    converged = iterate(layer, variables, jnp.zeros((1, 7)), 60)
    top = jnp.linalg.svd(effective(layer, converged, 7), compute_uv=False)[0]
    chex.assert_trees_all_close(top, 1.0, atol=1e-5)
    assert abs(float(jnp.linalg.svd(effective(layer, variables, 7), compute_uv=False)[0]) - 1) > 1e-3
    moved = jax.tree.map(lambda p: p + 0.5 * normal(7, *p.shape), converged["params"])
    top = jnp.linalg.svd(effective(layer, {**converged, "params": moved}, 7), compute_uv=False)[0]
    assert abs(float(top) - 1) > 1e-3


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["conv", "dense", "embed"])
def test_spectral_norm_agrees_with_torch(kind):
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    init = nn.initializers.normal(1.0)
    if kind == "conv":
        layer, x = layers.Conv(4, 3, use_bias=False, kernel_init=init), normal(8, 1, 5, 5, 3)
        twin = torch.nn.Conv2d(3, 4, 3, padding=1, bias=False)
    elif kind == "dense":
        layer, x = layers.Dense(4, use_bias=False, kernel_init=init), normal(8, 2, 3)
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
        y, new = layer.apply(variables, x, True, mutable=[spectral_norm.SPECTRAL])
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
    _, frozen = layer.apply(variables, x, False, mutable=[spectral_norm.SPECTRAL])
    chex.assert_trees_all_equal(frozen["spectral"], stored)
    y = layer.apply(variables, normal(9, 1, 3), True)
    chex.assert_trees_all_equal(y, layer.apply(variables, normal(9, 1, 3), False))
    _, moved = layer.apply(variables, x, True, mutable=[spectral_norm.SPECTRAL])
    assert float(jnp.abs(moved["spectral"]["u"] - stored["u"]).max()) > 1e-4


def test_no_gradient_flows_through_the_spectral_vectors():
    layer, x = layers.Dense(4, use_bias=False, kernel_init=nn.initializers.normal(1.0)), normal(10, 2, 3)
    variables = layer.init(KEY, x, True)
    u, v = variables["spectral"]["u"], variables["spectral"]["v"]  # by_hand reads them when it is called

    def ours(kernel):
        return jnp.sum(jnp.sin(layer.apply({**variables, "params": {"kernel": kernel}}, x, True)))

    def by_hand(kernel):
        return jnp.sum(jnp.sin(x @ (kernel / (v @ kernel @ u))))

    kernel = variables["params"]["kernel"]
    chex.assert_trees_all_close(jax.grad(ours)(kernel), jax.grad(by_hand)(kernel), rtol=1e-5)

    def moving(kernel):
        y, new = layer.apply(
            {**variables, "params": {"kernel": kernel}}, x, True, mutable=[spectral_norm.SPECTRAL]
        )
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
