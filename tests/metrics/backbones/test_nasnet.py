"""NASNet-A: its layers, both depthwise convolutions, pools at the borders, its input."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from jaxdog.metrics.backbones import nasnet

TINY = nasnet.Plan(cells=2, filters=4, stem=5)


def test_table_of_layers():
    """Sizes, counts and second inputs as published for NASNet-A-Large."""
    shapes, units = nasnet.shapes(), list(nasnet.units())
    # Published with batch norm beside the kernels: four numbers for each channel.
    kernels = sum(int(np.prod(shape)) for name, shape in shapes.items() if not name.endswith("/biases"))
    assert kernels + 4 * sum(unit.c_out for unit in units) == 84_916_818
    assert len(units) == 1 + 22 + 17 + 2 * 4 + 2 * 5 * 22  # conv0, entries, fits, separables
    assert next(iter(shapes)) == "conv0/weights"
    expected = {
        "conv0/weights": (3, 3, 3, 96),
        "cell_stem_0/comb_iter_0/right/separable_7x7_1/pointwise_weights": (1, 1, 96, 42),
        "cell_stem_1/path2_conv/weights": (1, 1, 96, 42),
        "cell_1/prev_1x1/weights": (1, 1, 336, 168),
        "reduction_cell_1/comb_iter_4/left/separable_3x3_2/depthwise_weights": (3, 3, 672, 1),
        "cell_12/path1_conv/weights": (1, 1, 2016, 336),
        "cell_17/comb_iter_1/left/separable_5x5_1/biases": (672,),
    }
    assert {name: shapes[name] for name in expected} == expected
    names = ["conv0", *(cell.name for cell in nasnet.cells())]
    second = {cell.name: names[cell.previous] for cell in nasnet.cells()}
    assert second["cell_0"] == "cell_stem_0" and second["cell_1"] == "cell_stem_1"
    assert (
        second["reduction_cell_0"] == second["cell_6"] == "cell_4" and second["cell_7"] == "reduction_cell_0"
    )
    mobile = {cell.name: names[cell.previous] for cell in nasnet.cells(nasnet.LARGE._replace(skip=False))}
    assert mobile["reduction_cell_0"] == "cell_4" and mobile["cell_6"] == "cell_5"


@pytest.mark.long
@pytest.mark.parametrize("skip", [True, False])
def test_parameters_carry_the_names_of_the_graph(skip):
    plan = TINY._replace(skip=skip)
    image = jax.ShapeDtypeStruct((2, 75, 75, 3), jnp.float32)
    out, made = jax.eval_shape(nasnet.NASNet(plan).init_with_output, jax.random.key(0), image)
    flat: dict[str, Any] = traverse_util.flatten_dict(made["params"], sep="/")  # pyright: ignore
    assert {name: leaf.shape for name, leaf in flat.items()} == nasnet.shapes(plan)
    assert {name: x.shape for name, x in out.items()} == {"final_mean": (2, 24 * plan.filters)}
    assert nasnet.WIDTH == {"final_mean": 24 * nasnet.LARGE.filters}


@pytest.mark.parametrize(
    "size, kernel, stride", [((8, 9), 3, 1), ((8, 9), 5, 2), ((9, 7), 7, 2), ((3, 2), 7, 1)]
)
def test_depthwise_for_cpu_is_the_plain_one(size, kernel, stride):
    k1, k2 = jax.random.split(jax.random.key(kernel))
    x, k = jax.random.normal(k1, (2, *size, 5)), jax.random.normal(k2, (kernel, kernel, 5, 1))
    plain, on_cpu = (
        jax.jit(convolve, static_argnums=2)(x, k, stride)
        for convolve in (nasnet._depthwise_plain, nasnet._depthwise_on_cpu)
    )
    np.testing.assert_allclose(on_cpu, plain, atol=1e-5)


@pytest.mark.parametrize("size, first", [(7, -1), (8, 0)])
def test_pools_at_the_border(size, first):
    """Pixels outside are excluded, unlike in Keras; even sizes are padded at the end."""
    x = -jnp.arange(1.0, size + 1)[None, :, None, None] * jnp.ones((1, 1, size, 2))
    starts = range(first, size, 2)
    inside = [[-float(i + 1) for i in range(start, start + 3) if 0 <= i < size] for start in starts][
        : -(-size // 2)
    ]

    def rows(op, include_padding):
        branch = nasnet.Branch(op, 0, 2, ())
        return np.asarray(nasnet._side(branch, x, include_padding)[0, :, 1, 0])  # column 1 touches no border

    np.testing.assert_allclose(rows("avg", False), [np.mean(row) for row in inside], rtol=1e-6)
    np.testing.assert_allclose(rows("avg", True), [np.sum(row) / 3 for row in inside], rtol=1e-6)
    np.testing.assert_array_equal(rows("max", False), [max(row) for row in inside])
    np.testing.assert_array_equal(rows("max", True), [max(row) if len(row) == 3 else 0 for row in inside])


def test_input_range():
    """Exactly -1 for black and 1 for white."""
    flat = jnp.stack([jnp.zeros((4, 4, 3)), jnp.full((4, 4, 3), 255)]).astype(jnp.uint8)
    out = nasnet.preprocess(flat)
    assert out.shape == (2, 331, 331, 3) and out.dtype == jnp.float32
    np.testing.assert_allclose(out[0], -1, atol=0)
    np.testing.assert_allclose(out[1], 1, atol=1e-6)


@pytest.mark.oracle
def test_input_against_tensorflow():
    tf = pytest.importorskip("tensorflow", reason="its legacy resize is the reference")
    image = np.random.default_rng(0).integers(0, 256, (2, 64, 48, 3)).astype(np.float32)
    resized = tf.compat.v1.image.resize_bilinear(image, (331, 331)).numpy()
    np.testing.assert_allclose(nasnet.preprocess(jnp.asarray(image)), (resized / 255 - 0.5) * 2, atol=1e-6)
