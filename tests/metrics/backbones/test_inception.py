"""The Inception port: its table of layers, its resize, its two ways to convolve, and known outputs."""

import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from PIL import Image

from jaxdog.metrics.backbones import inception, inception_weights


def test_table_of_layers():
    """94 convolutions in the order of the graph; sizes and counts as published for the network."""
    shapes = inception.shapes()
    kernels = {name: shape for name, shape in shapes.items() if name.endswith("/kernel")}
    assert len(kernels) == 94 and len(shapes) == 188
    # Published with batch norm beside the kernels: four numbers for each channel.
    assert sum(int(np.prod(shape)) + 4 * shape[-1] for shape in kernels.values()) == 21_820_000
    assert list(kernels)[:6] == [
        *(f"{name}/kernel" for name in ("conv", "conv_1", "conv_2", "conv_3", "conv_4"))
    ] + ["mixed/conv/kernel"]
    assert list(kernels)[-1] == "mixed_10/tower_2/conv/kernel"
    expected = {
        "mixed/tower/conv_1": (5, 5, 48, 64),
        "mixed_3/conv": (3, 3, 288, 384),
        "mixed_6/tower_1/conv_3": (7, 1, 160, 160),
        "mixed_8/tower/conv_1": (3, 3, 192, 320),
        "mixed_9/tower/mixed/conv_1": (3, 1, 384, 384),
        "mixed_10/tower_1/conv": (1, 1, 2048, 448),
    }
    assert {name: shapes[f"{name}/kernel"] for name in expected} == expected


def test_parameters_carry_the_names_of_the_graph():
    net = inception.Inception(head=True)
    image = jax.ShapeDtypeStruct((2, 299, 299, 3), jnp.float32)
    out, made = jax.eval_shape(net.init_with_output, jax.random.key(0), image)
    flat = {"/".join(path): leaf.shape for path, leaf in traverse_util.flatten_dict(made["params"]).items()}
    assert flat == inception.shapes(head=True)
    widths = inception.WIDTH | {"logits": 1008, "logits_no_bias": 1008}
    assert {name: x.shape for name, x in out.items()} == {name: (2, width) for name, width in widths.items()}


CONVOLUTIONS = [
    ((1, 1), 1, "SAME", 8),
    ((3, 3), 1, "VALID", 9),
    ((3, 3), 2, "VALID", 8),
    ((3, 3), 2, "VALID", 9),
    ((5, 5), 1, "SAME", 9),
    ((1, 7), 1, "SAME", 8),
]


@pytest.mark.parametrize("kernel, stride, padding, size", CONVOLUTIONS)
def test_convolution_for_cpu_is_the_plain_one(kernel, stride, padding, size):
    k1, k2 = jax.random.split(jax.random.key(size))
    x, k = jax.random.normal(k1, (2, size, size + 2, 5)), jax.random.normal(k2, (*kernel, 5, 4))
    plain = inception._convolve_plain(x, k, stride, padding)
    np.testing.assert_allclose(inception._convolve_on_cpu(x, k, stride, padding), plain, atol=1e-4)


def legacy_pixel(image: np.ndarray, i: int, j: int, size: int) -> np.ndarray:
    """One pixel of TensorFlow 1's bilinear resize as its kernel computes it: x first, then y."""
    h, w, _ = image.shape
    y, x = (
        np.float32(i) * (np.float32(h) / np.float32(size)),
        np.float32(j) * (np.float32(w) / np.float32(size)),
    )
    top, left = int(y), int(x)
    bottom, right = min(top + 1, h - 1), min(left + 1, w - 1)
    dy, dx = y - np.float32(top), x - np.float32(left)
    above = image[top, left] + (image[top, right] - image[top, left]) * dx
    below = image[bottom, left] + (image[bottom, right] - image[bottom, left]) * dx
    return above + (below - above) * dy


@pytest.mark.parametrize("h, w, size", [(64, 64, 299), (7, 5, 13), (20, 31, 8), (6, 6, 6)])
def test_legacy_resize_pixel_by_pixel(h, w, size):
    image = np.random.default_rng(0).integers(0, 256, (1, h, w, 3)).astype(np.uint8)
    ours = np.asarray(inception.legacy_resize(jnp.asarray(image), size))[0]
    assert ours.dtype == np.float32 and ours.shape == (size, size, 3)
    some = range(0, size, 7) if size > 50 else range(size)
    for i in (*some, size - 1):
        for j in (*some, size - 1):
            np.testing.assert_allclose(
                ours[i, j], legacy_pixel(image[0].astype(np.float32), i, j, size), atol=1e-4
            )


def test_resize_is_not_the_half_pixel_one():
    image = jax.random.uniform(jax.random.key(0), (1, 16, 16, 3)) * 255
    other = jax.image.resize(image, (1, 40, 40, 3), "bilinear")
    assert float(jnp.mean(jnp.abs(inception.legacy_resize(image, 40) - other))) > 5


def test_input_range():
    """Exactly -1 for black and 127/128 for white, not 1."""
    flat = jnp.stack([jnp.zeros((4, 4, 3)), jnp.full((4, 4, 3), 255)]).astype(jnp.uint8)
    out = inception.preprocess(flat)
    assert out.shape == (2, 299, 299, 3)
    np.testing.assert_allclose(out[0], -1, atol=0)
    np.testing.assert_allclose(out[1], 0.9921875, atol=1e-6)


@pytest.fixture(scope="module")
def fitted(real_data):
    return inception_weights.load(real_data / "inception")


@pytest.fixture(scope="module")
def apply():
    return jax.jit(
        lambda params, x: inception.Inception(head="softmax" in params).apply({"params": params}, x)
    )


def test_real_dogs(real_data, fitted, apply):
    """An independent implementation's features of eight photos."""
    with np.load(real_data / "inception" / "port_check.npz") as stored:
        check = {name: stored[name] for name in stored.files}
    x = inception.preprocess(jnp.asarray(check["images"]))
    np.testing.assert_allclose(x[:1], check["resized"], atol=1e-5)
    out = apply(fitted.params, x)
    np.testing.assert_allclose(out["mixed_7"], check["mixed_7_mean"], atol=1e-4)
    np.testing.assert_allclose(out["mixed_8"], check["mixed_8_mean"], atol=1e-4)
    np.testing.assert_allclose(out["pool_3"], check["pool_3_fitted"], atol=1e-3)


def elefant(real_data: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """A image as the network's input, 256x256 and not resized, and the published network's pool_3."""
    image = np.asarray(Image.open(real_data / "golden" / "elefant.jpg").convert("RGB"), np.float32)
    expected = np.load(real_data / "golden" / "elefant_inception_output.npy")
    return (2 * image / 255 - 1)[None], expected.reshape(-1)


def test_elefant_with_fitted_kernels(real_data, fitted, apply):
    image, expected = elefant(real_data)
    ours = np.asarray(apply(fitted.params, image)["pool_3"])[0]
    assert np.corrcoef(ours, expected)[0, 1] > 0.97


@pytest.mark.parametrize("variable", ["JAXDOG_INCEPTION_PTH", "JAXDOG_INCEPTION_PB"])
def test_elefant_with_published_weights(real_data, apply, variable):
    if variable not in os.environ:
        pytest.skip(f"{variable} does not name the published file")
    loaded = inception_weights.load(os.environ[variable])
    assert loaded.kind == "published"
    image, expected = elefant(real_data)
    ours = np.asarray(apply(loaded.params, image)["pool_3"])[0]
    assert np.mean(np.abs(ours - expected)) < 1e-5


@pytest.mark.parametrize("size", [64, 299, 400])
def test_the_resize_of_clean_fid(size):
    """Pillow's bicubic filter on each channel as floats; JAX rounds positions to float32."""
    image = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    ours = np.asarray(inception.preprocess_clean(jnp.asarray(image)))
    for i, channel in ((0, 0), (1, 2)):
        plane = Image.fromarray(image[i, :, :, channel].astype(np.float32))
        resized = np.asarray(plane.resize((299, 299), Image.Resampling.BICUBIC)).clip(0, 255)
        np.testing.assert_allclose(128 * ours[i, :, :, channel] + 128, resized, atol=8e-3)


@pytest.mark.parametrize("size", [64, 299, 400])
def test_the_resize_of_pytorch_fid(size):
    """Weights of the two nearest pixel centers along each axis, in [-1, 1], within float32."""
    image = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), np.uint8)
    center = np.clip((np.arange(299) + 0.5) * size / 299 - 0.5, 0, size - 1)
    low = np.minimum(center.astype(int), size - 2)
    matrix = np.zeros((299, size))
    matrix[np.arange(299), low], matrix[np.arange(299), low + 1] = 1 - (center - low), center - low
    expected = np.einsum("ih,hwc,jw->ijc", matrix, image[0] / 127.5 - 1, matrix, optimize=True)
    np.testing.assert_allclose(inception.preprocess_pytorch(jnp.asarray(image))[0], expected, atol=1e-4)
