"""The memorizers' networks against torch and Keras' initialization."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog.memorizers import models

N, SIZE = 6, 8
KEY = jax.random.key(0)


@pytest.mark.parametrize(("net", "count"), [(models.Table, 122_892_288), (models.Bottleneck, 20_612_163)])
def test_parameter_counts_of_2019(net, count):
    label = jnp.zeros(1, jnp.int32)
    shapes = jax.eval_shape(lambda key: net(10_000).init(key, label, label, 1.0), KEY)
    assert sum(math.prod(x.shape) for x in jax.tree.leaves(shapes)) == count


@pytest.mark.long
def test_weights_start_as_in_keras():
    label = jnp.zeros(1, jnp.int32)
    params: Any = models.Table(40, SIZE).init(KEY, label, label, 1.0)["params"]
    limit = math.sqrt(6 / (40 + 3 * SIZE**2))
    assert 0.95 * limit < float(jnp.abs(params["kernel"]).max()) <= limit
    assert not params["bias"].any()
    params = models.Bottleneck(40, 16, 4, (8, 6, 4)).init(KEY, label, label, 1.0)["params"]
    kernel = params["conv2"]["kernel"]
    limit = math.sqrt(6 / (9 * 8 + 9 * 6))
    assert kernel.shape == (3, 3, 8, 6) and 0.9 * limit < float(jnp.abs(kernel).max()) <= limit


@pytest.mark.oracle
def test_the_bottleneck_equals_torch():
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    net = models.Bottleneck(N, 16, 4, (8, 6, 5))
    label, other = jnp.asarray([0, 3, 5]), jnp.asarray([1, 1, 2])
    params = net.init(KEY, label, label, 1.0)["params"]
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    params = jax.tree.unflatten(
        tree, [p + 0.2 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)]
    )
    target = jax.random.normal(jax.random.key(2), (3, 16, 16, 3))

    @jax.jit
    def ours(params):
        def loss(params):
            image: Any = net.apply({"params": params}, label, other, 0.75)
            return jnp.sum(image * target), image

        return jax.grad(loss, has_aux=True)(params)

    gradient, image = ours(params)
    theirs = {
        jax.tree_util.keystr(path): torch.tensor(np.asarray(x)).requires_grad_()
        for path, x in jax.tree_util.tree_leaves_with_path(params)
    }
    vectors = 0.75 * torch.eye(N)[[0, 3, 5]] + 0.25 * torch.eye(N)[[1, 1, 2]]
    h = torch.nn.functional.elu(vectors @ theirs["['kernel']"] + theirs["['bias']"])
    h = h.reshape(3, 2, 2, 4).permute(0, 3, 1, 2)
    for i, name in enumerate(("conv1", "conv2", "conv3", "rgb")):
        if i:
            h = torch.nn.functional.interpolate(h, scale_factor=2, mode="nearest")
        kernel = theirs[f"['{name}']['kernel']"].permute(3, 2, 0, 1)
        h = torch.nn.functional.conv2d(h, kernel, theirs[f"['{name}']['bias']"], padding=1)
        h = h if name == "rgb" else torch.nn.functional.elu(h)
    np.testing.assert_allclose(image, h.detach().permute(0, 2, 3, 1), rtol=1e-4, atol=1e-4)
    (h.permute(0, 2, 3, 1) * torch.tensor(np.asarray(target))).sum().backward()
    for path, got in jax.tree_util.tree_leaves_with_path(gradient):
        expected = theirs[jax.tree_util.keystr(path)].grad.numpy()
        assert np.abs(got - expected).max() <= 1e-4 * np.abs(expected).max(), path


def test_a_bottleneck_must_reach_the_size():
    label = jnp.zeros(1, jnp.int32)
    with pytest.raises(
        ValueError, match=r"images of 20x20 cannot be reached by doubling 3 times; .* multiple of 8"
    ):
        models.Bottleneck(3, 20).init(KEY, label, label, 1.0)
