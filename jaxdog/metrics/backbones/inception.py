"""The Inception network of 2015-12-05, of FID and MiFID, with batch norm folded into its kernels.

Modules have the names of the published TensorFlow graph. The path of a parameter, joined with "/", is its
name there, such as `mixed_9/tower_1/mixed/conv_1/kernel` [kh, kw, in, out] and `.../bias` [out]. The network
runs in float32 with matrix products at the highest precision, so that scores do not depend on the machine.
"""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdog.ops import pooling

Array = jax.Array

SIZE = 299  # px, height and width of the network's input
CLASSES = 1008  # of the softmax head, of which 1,000 are ImageNet's
POOLS = {"max": pooling.max_pool, "avg": pooling.avg_pool}
WIDTH = {"mixed_7": 768, "mixed_8": 1280, "pool_3": 2048}  # layer -> channels

# The whole network. A unit KHxKW:CHANNELS is a convolution + ReLU of stride 1 and padding SAME; a trailing
# "v" means padding VALID, a trailing "/2" stride 2 and VALID. "max/2", "max" and "avg" are 3x3 pools of
# stride 2 (VALID) or 1 (SAME, padding excluded). The units of a branch are applied in order. Units
# in brackets share their input, have the scope "mixed", and are concatenated. Branches are
# concatenated in the order written.
STEM = "3x3:32/2 3x3:32v 3x3:64 max/2 1x1:80 3x3:192v max/2"


def _block_35(pool: int) -> dict[str, str]:
    return {
        "": "1x1:64",
        "tower": "1x1:48 5x5:64",
        "tower_1": "1x1:64 3x3:96 3x3:96",
        "tower_2": f"avg 1x1:{pool}",
    }


def _block_17(c: int) -> dict[str, str]:
    return {
        "": "1x1:192",
        "tower": f"1x1:{c} 1x7:{c} 7x1:192",
        "tower_1": f"1x1:{c} 7x1:{c} 1x7:{c} 7x1:{c} 1x7:192",
        "tower_2": "avg 1x1:192",
    }


def _block_8(pool: str) -> dict[str, str]:
    return {
        "": "1x1:320",
        "tower": "1x1:384 [1x3:384 3x1:384]",
        "tower_1": "1x1:448 3x3:384 [1x3:384 3x1:384]",
        "tower_2": f"{pool} 1x1:192",
    }


BLOCKS = {
    "mixed": _block_35(32),
    "mixed_1": _block_35(64),
    "mixed_2": _block_35(64),
    "mixed_3": {"": "3x3:384/2", "tower": "1x1:64 3x3:96 3x3:96/2", "pool": "max/2"},
    "mixed_4": _block_17(128),
    "mixed_5": _block_17(160),
    "mixed_6": _block_17(160),
    "mixed_7": _block_17(192),
    "mixed_8": {
        "tower": "1x1:192 3x3:320/2",
        "tower_1": "1x1:192 1x7:192 7x1:192 3x3:192/2",
        "pool": "max/2",
    },
    "mixed_9": _block_8("avg"),
    "mixed_10": _block_8("max"),
}


class Unit(NamedTuple):
    """One word of a specification: a convolution (features > 0) or a pool."""

    name: str  # full name in the graph; "" for a pool
    kind: str  # "conv", "max" or "avg"
    kernel: tuple[int, int]
    features: int
    stride: int
    padding: str
    parallel: bool  # shares its input with the other units in brackets


def _units(prefix: str, spec: str) -> Iterator[Unit]:
    """The units of one branch; convolutions are numbered conv, conv_1, ... within their scope."""
    parallel, count = False, 0
    for word in spec.split():
        if word.startswith("["):
            parallel, count = True, 0
        body = word.strip("[]")
        valid = body.endswith(("/2", "v"))
        stride, padding = (2 if body.endswith("/2") else 1), ("VALID" if valid else "SAME")
        body = body.removesuffix("/2").removesuffix("v")
        if body in POOLS:
            yield Unit("", body, (3, 3), 0, stride, padding, False)
            continue
        shape, features = body.split(":")
        kh, kw = (int(side) for side in shape.split("x"))
        scope = [prefix] if prefix else []
        parts = [*scope, *(["mixed"] if parallel else []), f"conv_{count}" if count else "conv"]
        yield Unit("/".join(parts), "conv", (kh, kw), int(features), stride, padding, parallel)
        count += 1


def branches() -> Iterator[tuple[str, tuple[Unit, ...]]]:
    """(block, units of one branch), starting at the input; the block of the stem is ""."""
    yield "", tuple(_units("", STEM))
    for block, towers in BLOCKS.items():
        for tower, spec in towers.items():
            prefix = f"{block}/{tower}" if tower not in ("", "pool") else block
            yield block, tuple(_units(prefix, spec))


def shapes(head: bool = False) -> dict[str, tuple[int, ...]]:
    """Name -> shape of each parameter, in the order of the graph; with `head` also the classifier's."""
    shapes: dict[str, tuple[int, ...]] = {}
    c_in, block_out, current = 3, 0, ""
    for block, units in branches():
        if block != current:
            c_in, block_out, current = (block_out, 0, block)
        c = c_in
        for unit in units:
            if unit.kind == "conv":
                shapes[f"{unit.name}/kernel"] = (*unit.kernel, c, unit.features)
                shapes[f"{unit.name}/bias"] = (unit.features,)
                c = c if unit.parallel else unit.features
        parallel = sum(unit.features for unit in units if unit.parallel)
        block_out += parallel or c
    if head:
        shapes |= {"softmax/weights": (WIDTH["pool_3"], CLASSES), "softmax/biases": (CLASSES,)}
    return shapes


def _convolve(x: Array, kernel: Array, stride: int, padding: str) -> Array:
    """Convolution of [b, h, w, in] with [kh, kw, in, out], float32 at the highest precision."""
    cpu = partial(_convolve_on_cpu, stride=stride, padding=padding)
    return lax.platform_dependent(
        x, kernel, cpu=cpu, default=partial(_convolve_plain, stride=stride, padding=padding)
    )


def _convolve_plain(x: Array, kernel: Array, stride: int, padding: str) -> Array:
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=layout, precision=lax.Precision.HIGHEST
    )


def _convolve_on_cpu(x: Array, kernel: Array, stride: int, padding: str) -> Array:
    """The same convolution in forms that XLA's CPU backend runs faster: 1.5 times for the network.

    1x1 convolutions are matrix products, strided ones are products with gathered patches, VALID is a crop of
    SAME, and RGB images get a fourth channel of zeros.
    """
    kh, kw, c_in, c_out = kernel.shape
    if c_in == 3:
        x, kernel = (jnp.pad(y, [(0, int(i == axis)) for i in range(4)]) for y, axis in ((x, 3), (kernel, 2)))
        return _convolve_plain(x, kernel, stride, padding)
    if (kh, kw) == (1, 1):
        return jnp.dot(x, kernel[0, 0], precision=lax.Precision.HIGHEST)
    if stride > 1:
        rows, columns = (x.shape[1] - kh) // stride + 1, (x.shape[2] - kw) // stride + 1
        patches = [
            x[:, i : i + stride * (rows - 1) + 1 : stride, j : j + stride * (columns - 1) + 1 : stride]
            for i in range(kh)
            for j in range(kw)
        ]
        patches = jnp.concatenate(patches, axis=-1)
        return jnp.dot(patches, kernel.reshape(kh * kw * c_in, c_out), precision=lax.Precision.HIGHEST)
    y = _convolve_plain(x, kernel, 1, "SAME")
    if padding == "VALID":
        y = y[:, kh // 2 : y.shape[1] - kh // 2, kw // 2 : y.shape[2] - kw // 2]
    return y


class Conv(nn.Module):
    """y = relu(conv(x, kernel) + bias), float32 [b, h, w, c]."""

    unit: Unit

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kh, kw = self.unit.kernel
        c = self.unit.features
        kernel = self.param("kernel", nn.initializers.he_normal(), (kh, kw, x.shape[-1], c))
        bias = self.param("bias", nn.initializers.zeros_init(), (c,))
        x = _convolve(x, kernel, self.unit.stride, self.unit.padding)
        return nn.relu(x + bias[None, None, None, :])


class Inception(nn.Module):
    """[b, 299, 299, 3] in [-1, 1) -> "mixed_7" [b, 768], "mixed_8" [b, 1280], "pool_3" [b, 2048].

    All are spatial means. With `head`, also "logits" [b, 1008] of the softmax layer and "logits_no_bias",
    the input of the original Inception Score. Source: Szegedy et al. 2015, arXiv:1512.00567, as in the
    published graph. Unlike the paper's text, the last block has a max pool, and average pools exclude the
    padding.
    """

    head: bool = False

    @nn.compact
    def __call__(self, x: Array) -> dict[str, Array]:
        out: dict[str, Array] = {}
        for block in ("", *BLOCKS):
            x = jnp.concatenate([_run(units, x) for name, units in branches() if name == block], axis=-1)
            key = "pool_3" if block == "mixed_10" else block
            if key in WIDTH:
                out[key] = jnp.mean(x, axis=(1, 2))
        if self.head:
            weights, biases = Softmax(name="softmax")()
            out["logits_no_bias"] = jnp.dot(out["pool_3"], weights, precision=lax.Precision.HIGHEST)
            out["logits"] = out["logits_no_bias"] + biases[None, :]
        return out


class Softmax(nn.Module):
    """The parameters of the head, with their names in the graph."""

    @nn.compact
    def __call__(self) -> tuple[Array, Array]:
        shape = (WIDTH["pool_3"], CLASSES)
        weights = self.param("weights", nn.initializers.lecun_normal(), shape)
        return weights, self.param("biases", nn.initializers.zeros_init(), (CLASSES,))


def _run(units: tuple[Unit, ...], x: Array) -> Array:
    """One branch; parallel units are concatenated."""
    parallel: list[Array] = []
    for unit in units:
        if unit.kind == "conv":
            y = Conv(unit, name=unit.name)(x)
            parallel, x = ([*parallel, y], x) if unit.parallel else (parallel, y)
        else:
            x = POOLS[unit.kind](x, unit.stride, unit.padding)
    return jnp.concatenate(parallel, axis=-1) if parallel else x


def resize_matrix(size_in: int, size_out: int) -> np.ndarray:
    """[size_out, size_in] float32: TensorFlow 1's bilinear resize, row i interpolates around i * in / out.

    There is no half-pixel offset and no antialiasing. The source coordinate is i * float32(in / out) in
    float32, as in TensorFlow's kernel, and the upper neighbor is clamped to the last pixel.
    """
    scale = np.float32(size_in) / np.float32(size_out)
    source = np.arange(size_out, dtype=np.float32) * scale
    low = np.minimum(np.floor(source).astype(np.int64), size_in - 1)
    high = np.minimum(low + 1, size_in - 1)
    weight = source - low.astype(np.float32)
    rows = np.arange(size_out)
    matrix = np.zeros((size_out, size_in), np.float32)
    np.add.at(matrix, (rows, low), np.float32(1) - weight)
    np.add.at(matrix, (rows, high), weight)
    return matrix


def legacy_resize(image: Array, size: int | tuple[int, int] = SIZE) -> Array:
    """[b, h, w, c] in 0..255 -> [b, size, size, c] float32 in 0..255, TensorFlow 1's legacy bilinear resize.

    Two matrix products, along w and then along h. `size` may be (height, width).
    """
    height, width = (size, size) if isinstance(size, int) else size
    b, h, w, c = image.shape
    x = image.astype(jnp.float32)
    x = jnp.einsum("bhwc,Ww->bhWc", x, resize_matrix(w, width), precision=lax.Precision.HIGHEST)
    return jnp.einsum("bhWc,Hh->bHWc", x, resize_matrix(h, height), precision=lax.Precision.HIGHEST)


def preprocess(image: Array) -> Array:
    """[b, h, w, 3] in 0..255 -> the network's input [b, 299, 299, 3] in [-1, 0.9921875]."""
    return (legacy_resize(image, SIZE) - 128.0) / 128.0


def preprocess_pytorch(image: Array) -> Array:
    """The same as pytorch-fid: bilinear between pixel centers, without antialiasing, and in [-1, 1]."""
    return 2.0 * _resize(image, "linear", antialias=False) / 255.0 - 1.0


def preprocess_clean(image: Array) -> Array:
    """The same as clean-fid (Parmar et al. 2022, arXiv:2104.11222): Pillow's bicubic filter, on floats."""
    return (jnp.clip(_resize(image, "cubic", antialias=True), 0.0, 255.0) - 128.0) / 128.0


def _resize(image: Array, method: str, antialias: bool) -> Array:
    shape = (image.shape[0], SIZE, SIZE, image.shape[3])
    return jax.image.resize(
        image.astype(jnp.float32), shape, method, antialias=antialias, precision=lax.Precision.HIGHEST
    )
