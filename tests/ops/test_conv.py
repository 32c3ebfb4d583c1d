"""Convolutions, resampling and their derivatives against lax's own."""

import re
from functools import cache, partial

import chex
import jax
import jax.numpy as jnp
import pytest
from jax import lax

from jaxdog.ops import conv, conv_cpu, resample2x, winograd


def normal(i: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(i), shape)


def plain(x: jax.Array, kernel: jax.Array, resample: str) -> jax.Array:
    """What `conv` computes, in the words of lax."""
    if resample == "up":
        x = jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)
    y = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    if resample == "down":
        y = lax.reduce_window(y, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4
    return y


def test_resampling_of_one_cell():
    cell = jnp.array([[1.0, 2.0], [3.0, 6.0]])[None, :, :, None]
    chex.assert_trees_all_close(resample2x.avg_pool(cell), jnp.full((1, 1, 1, 1), 3.0))
    chex.assert_trees_all_close(resample2x.max_pool(cell), jnp.full((1, 1, 1, 1), 6.0))
    rows = [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 6, 6], [3, 3, 6, 6]]
    chex.assert_trees_all_close(resample2x.upsample_nearest(cell)[0, :, :, 0], jnp.array(rows, jnp.float32))


def test_pooling_undoes_upsampling():
    x = normal(1, 2, 4, 6, 3)
    chex.assert_trees_all_close(resample2x.avg_pool(resample2x.upsample_nearest(x)), x)


def test_blur_spreads_a_point_and_sees_zeros_outside():
    point = jnp.zeros((1, 5, 5, 2)).at[0, 2, 1].set(jnp.array([16.0, -16.0])).at[0, 0, 4].set(16.0)
    got = resample2x.blur(point)
    spread = jnp.array([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]])
    chex.assert_trees_all_close(got[0, 1:4, 0:3], jnp.stack([spread, -spread], -1))
    chex.assert_trees_all_close(got[0, :2, 3:, 1], spread[1:, :2])


def test_max_pool_sends_the_gradient_to_the_maximum():
    x = normal(2, 1, 4, 4, 2)
    gradient = jax.grad(lambda x: resample2x.max_pool(x).sum())(x)
    assert int((gradient != 0).sum()) == 2 * 2 * 2
    chex.assert_trees_all_close((gradient * x).sum(), resample2x.max_pool(x).sum(), rtol=1e-6)


def test_odd_sides_cannot_be_halved():
    with pytest.raises(ValueError, match="even height and width, got 3x4"):
        resample2x.avg_pool(jnp.zeros((1, 3, 4, 1)))
    with pytest.raises(ValueError, match="even height and width, got 4x5"):
        conv.conv2d(jnp.zeros((1, 4, 5, 1)), jnp.zeros((3, 3, 1, 1)), "down")
    with pytest.raises(ValueError, match="resample is 'twice'; choices: none, up, down"):
        conv.conv2d(jnp.zeros((1, 4, 4, 1)), jnp.zeros((3, 3, 1, 1)), "twice")


LARGE, MANY = (pytest.param(name, marks=pytest.mark.long) for name in ("large maps", "many channels"))


@pytest.fixture(params=("maps", "small deep maps", LARGE, MANY, "maps on a GPU"))
def maps(request, monkeypatch):
    """What maps count as: small, large, of many channels, on a GPU: these have forms of their own."""
    if request.param == "maps on a GPU":
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    if request.param == "small deep maps":
        monkeypatch.setattr(conv_cpu, "PATCHES_MAX_PIXELS", 1000)
        monkeypatch.setattr(conv_cpu, "PATCHES_MIN_CHANNEL_PRODUCT", 1)
    if request.param == "large maps":
        monkeypatch.setattr(conv_cpu, "WEIGHT_GRAD_CHUNK", 1)
        monkeypatch.setattr(jax, "device_count", lambda: 1)
    if request.param == "many channels":
        monkeypatch.setattr(conv_cpu, "WINOGRAD_MIN_CHANNELS", 1)
        monkeypatch.setattr(conv_cpu, "WINOGRAD_MIN_OUTPUTS", 1)
        monkeypatch.setattr(winograd, "MIN_TILES", 1)
        monkeypatch.setattr(jax, "device_count", lambda: 1)


@pytest.mark.parametrize("resample", conv.RESAMPLE)
@pytest.mark.parametrize(
    ("size", "c", "k"), [(1, 3, 2), (3, 2, 3), (3, 4, 5), (3, 3, 40), (4, 2, 2), (4, 5, 4)]
)
@pytest.mark.usefixtures("maps")
def test_conv_and_all_its_derivatives_are_those_of_lax(size, c, k, resample):
    ours = derivatives(partial(conv.conv2d, resample=resample), size, c, k)
    chex.assert_trees_all_close(ours, plain_derivatives(resample, size, c, k), rtol=1e-4, atol=2e-5)


def derivatives(convolve, size, c, k):
    """The values of (x, kernel) -> y, and its first and second derivatives."""
    x, kernel = normal(3, 2, 4, 8, c), normal(4, size, size, c, k) / (size * c**0.5)

    def once(x, kernel):
        return jnp.sum(jnp.sin(convolve(x, kernel)))

    def twice(x, kernel):  # its gradient has the second derivatives by x, by the kernel, and by both
        gradients = jax.grad(once, argnums=(0, 1))(x, kernel)
        return sum(jnp.mean(jnp.square(g)) for g in gradients)

    def everything(x, kernel):
        return [convolve(x, kernel)] + [jax.grad(f, argnums=(0, 1))(x, kernel) for f in (once, twice)]

    return jax.jit(everything)(x, kernel)


@cache
def plain_derivatives(name, size, c, k):
    """Those of lax, which are the same for all kinds of maps."""
    stride_two = {"strided": plain_strided, "transposed": plain_transposed}
    return derivatives(stride_two.get(name) or partial(plain, resample=name), size, c, k)


def plain_strided(x: jax.Array, kernel: jax.Array) -> jax.Array:
    pads = ((1, 1), (1, 1))
    return lax.conv_general_dilated(x, kernel, (2, 2), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def plain_transposed(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The vector-Jacobian product of a strided convolution, by definition its transpose."""
    b, h, w, c = x.shape
    big = jnp.zeros((b, 2 * h, 2 * w, kernel.shape[-1]))
    return jax.vjp(lambda y: plain_strided(y, kernel.swapaxes(2, 3)), big)[1](x)[0]


@pytest.mark.parametrize(("c", "k"), [(3, 2), (5, 4), (3, 40)])
@pytest.mark.parametrize("name", ["strided", "transposed"])
@pytest.mark.usefixtures("maps")
def test_stride_two_and_all_its_derivatives_are_those_of_lax(name, c, k):
    ours = derivatives({"strided": conv.strided, "transposed": conv.transposed}[name], 4, c, k)
    chex.assert_trees_all_close(ours, plain_derivatives(name, 4, c, k), rtol=1e-4, atol=2e-5)


@pytest.mark.oracle
def test_stride_two_is_torchs():
    torch = pytest.importorskip("torch", reason="torch is an oracle (make oracles)")
    x, kernel = normal(5, 2, 6, 4, 3), normal(6, 4, 4, 3, 5)
    pixels = torch.tensor(jax.device_get(x)).permute(0, 3, 1, 2)
    weight = torch.tensor(jax.device_get(kernel))
    down = torch.nn.functional.conv2d(pixels, weight.permute(3, 2, 0, 1), stride=2, padding=1)
    up = torch.nn.functional.conv_transpose2d(pixels, weight.permute(2, 3, 0, 1), stride=2, padding=1)
    for ours, theirs in ((conv.strided, down), (conv.transposed, up)):
        chex.assert_trees_all_close(ours(x, kernel), theirs.permute(0, 2, 3, 1).numpy(), atol=1e-4)
    with pytest.raises(ValueError, match="even height and width, got 5x4"):
        conv.strided(x[:, :5], kernel)


def test_small_maps_of_many_channels_are_matrix_products_of_kernels_as_they_are():
    if jax.default_backend() != "cpu":
        pytest.skip("a matter of the CPU backend")

    def loss(x, kernel):
        return jnp.sum(jnp.square(conv.conv2d(x, kernel)))

    x, kernel = normal(5, 2, 4, 4, 512), normal(6, 3, 3, 512, 512)
    text = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(x, kernel).as_text()
    assert "stablehlo.convolution(" not in text and text.count("stablehlo.dot_general") == 3
    assert not re.search(r"stablehlo.(transpose|reverse).*3x3x512x512", text)


@pytest.mark.parametrize("derivative", [1, 2])
@pytest.mark.parametrize("resample", conv.RESAMPLE)
def test_loops_on_cpu_see_the_fast_order_only(resample, derivative):
    """Other orders of dimensions are 5 to 200 times slower in a loop's body; dilation is slow anywhere.

    The second derivative is that of penalties on slopes: R1, R2, gradient penalty, DRAGAN.
    """
    if jax.default_backend() != "cpu":
        pytest.skip("a matter of the CPU backend")

    def body(carry, _):
        def loss(x, kernel):
            return jnp.sum(jnp.square(conv.conv2d(x, kernel, resample)))

        def steep(x, kernel):
            return jnp.sum(jnp.square(jax.grad(loss)(x, kernel)))

        return jax.grad(steep if derivative == 2 else loss, argnums=(0, 1))(*carry), None

    start = normal(5, 2, 8, 8, 4), normal(6, 3, 3, 4, 5)
    text = jax.jit(lambda *carry: lax.scan(body, carry, length=3)[0]).lower(*start).as_text()
    convolutions = [line for line in text.splitlines() if "stablehlo.convolution(" in line]
    assert len(convolutions) >= 3
    assert all("dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]" in line for line in convolutions)
    assert not any("dilate = [2, 2]" in line for line in convolutions)


@pytest.mark.parametrize(("c", "k"), [(3, 4), (4, 3), (5, 4)])
def test_conv_computes_in_the_dtype_it_is_given(c, k):
    x, kernel = normal(7, 2, 4, 4, c), normal(8, 3, 3, c, k) / 5
    for resample in conv.RESAMPLE:
        y = conv.conv2d(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16), resample)
        assert y.dtype == jnp.bfloat16
        chex.assert_trees_all_close(y.astype(jnp.float32), plain(x, kernel, resample), atol=0.05)


@pytest.mark.parametrize(("c", "k"), [(16, 3), (3, 16), (3, 32)])
def test_no_shape_is_left_to_xla_unchanged(c, k):
    """Of three channels, XLA's convolutions for CPUs are slow."""
    if jax.default_backend() != "cpu":
        pytest.skip("a matter of the CPU backend")
    text = jax.jit(conv.conv2d).lower(normal(5, 2, 8, 8, c), normal(6, 3, 3, c, k)).as_text()
    shapes = re.findall(r"stablehlo.convolution\(.*x([0-9]+)xf32>, tensor<.*x([0-9]+)xf32>\)", text)
    assert shapes == ([] if k == 3 else [("4", "32")])
