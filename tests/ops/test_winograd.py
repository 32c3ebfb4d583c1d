"""Winograd's convolutions against lax's own, and what they save."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxdog.ops import conv, winograd

ONE = ((1, 1), (1, 1))


def normal(i: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(i), shape)


def plain(x: jax.Array, kernel: jax.Array, pads=ONE, stride: int = 1) -> jax.Array:
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def close(ours: jax.Array, expected: jax.Array) -> None:
    chex.assert_trees_all_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.fixture(params=(1, 10_000), ids=("a few", "all at once"))
def tiles(request, monkeypatch):
    monkeypatch.setattr(winograd, "MIN_TILES", request.param)


@pytest.mark.parametrize(
    ("size", "pads"), [(3, ONE), (3, ((2, 0), (0, 2))), (3, ((0, 0), (0, 0))), (2, ((1, 0), (0, 1)))]
)
@pytest.mark.usefixtures("tiles")
def test_stride_one_and_its_gradients_are_those_of_lax(size, pads):
    x, kernel = normal(0, 3, 6, 8, 5), normal(1, size, size, 5, 4)
    y, back = jax.vjp(lambda x, kernel: plain(x, kernel, pads), x, kernel)
    g = normal(2, *y.shape)
    of_x, of_kernel = back(g)
    around = tuple((size - 1 - before, size - 1 - after) for before, after in pads)
    close(winograd.conv(x, kernel, pads), y)
    close(winograd.input_grad(g, kernel, around), of_x)
    close(winograd.weight_grad(x, g, pads), of_kernel)


@pytest.mark.usefixtures("tiles")
def test_stride_two_and_its_gradients_are_those_of_lax():
    x, kernel = normal(0, 3, 8, 12, 5), normal(1, 4, 4, 5, 4)
    y, back = jax.vjp(lambda x, kernel: plain(x, kernel, ONE, 2), x, kernel)
    g = normal(2, *y.shape)
    of_x, of_kernel = back(g)
    close(winograd.strided(x, kernel), y)
    close(winograd.strided_input_grad(g, kernel), of_x)
    close(winograd.strided_weight_grad(x, g), of_kernel)


@pytest.mark.parametrize("axis", [0, 2])
def test_sums_are_products_with_a_small_matrix(axis):
    matrix, parts = np.array([[0, -1, 0.5], [2, 0, 1]]), normal(0, 3, 4, 5)
    expected = jnp.moveaxis(jnp.einsum("ij,jbc->ibc", matrix, parts), 0, axis)
    close(winograd.combine(matrix, list(parts), axis), expected)


@pytest.mark.parametrize(
    ("function", "kernel", "stride", "share"), [("conv", 3, 1, 4 / 9), ("strided", 4, 2, 9 / 16)]
)
def test_the_products_are_fewer(function, kernel, stride, share, monkeypatch):
    monkeypatch.setattr(winograd, "MIN_TILES", 10_000)
    x, taps = jnp.zeros((4, 16, 16, 128)), jnp.zeros((kernel, kernel, 128, 128))
    pads = (ONE,) if function == "conv" else ()
    ours = jax.jit(lambda x, taps: getattr(winograd, function)(x, taps, *pads)).lower(x, taps)
    direct = 2 * 4 * (16 // stride) ** 2 * kernel**2 * 128 * 128
    counted = ours.compile().cost_analysis()["flops"] / direct
    assert share < counted < 1.2 * share


@pytest.mark.parametrize("name", ["conv2d", "strided", "transposed"])
def test_many_channels_on_one_cpu_are_worth_it(name, monkeypatch):
    if jax.default_backend() != "cpu":
        pytest.skip("a matter of the CPU backend")
    size = 3 if name == "conv2d" else 4

    def convolutions(devices: int, side: int, channels: int) -> int:
        monkeypatch.setattr(jax, "device_count", lambda: devices)
        x, kernel = jnp.zeros((4, side, side, channels)), jnp.zeros((size, size, channels, channels))

        def loss(x, kernel):
            return jnp.sum(jnp.square(getattr(conv, name)(x, kernel)))

        text = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(x, kernel).as_text()
        return text.count("stablehlo.convolution(")

    assert convolutions(1, 16, 128) == 0
    assert convolutions(4, 16, 128) > 0  # kernels' gradients would travel before they are added up
    assert convolutions(1, 16, 8) > 0
    assert convolutions(1, 6, 128) > 0  # no whole tiles of 2x2 for one of them, too few for all
