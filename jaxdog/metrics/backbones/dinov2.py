"""DINOv2's vision transformers of patch size 14 (Oquab et al. 2023, arXiv:2304.07193), at 224 px.

Their class token is the feature of FD-DINOv2 (Stein et al. 2023, arXiv:2306.04675), which agrees with people
better than FID does. Images are resized as in that paper's code: to 224 x 224 with Pillow's bicubic filter,
then standardized. The network runs in float32 with matrix products at the highest precision, so that scores
do not depend on the machine.

All blocks have the same shapes. Their parameters are stacked, [depth, ...], and one block is compiled.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdog.models import attention

Array = jax.Array

SIZE = 224  # px, height and width of the network's input
PATCH = 14  # px
GRID = SIZE // PATCH  # patches in each row and column
TRAINED_GRID = 37  # of the published position embeddings: trained at 518 px
MLP_RATIO = 4
EPSILON = 1e-6  # of all layer norms
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # for input in [0, 1]
LAYER = "class_token"
HIGHEST = lax.Precision.HIGHEST
PILLOW_BITS = 22  # Pillow rounds the weights of its filters to this many bits after the point
HALF = 11  # and they are multiplied in two halves, whose sums are exact in float32


class Plan(NamedTuple):
    """The size of a transformer."""

    width: int  # channels of a token
    depth: int  # blocks
    heads: int

    @property
    def flops(self) -> int:
        """Operations for one image of 224 px: two for each product in a matrix multiplication."""
        n, d = GRID * GRID + 1, self.width
        block = n * (4 + 2 * MLP_RATIO) * d * d + 2 * n * n * d
        return 2 * (self.depth * block + (n - 1) * PATCH * PATCH * 3 * d)


SMALL, BASE, LARGE = Plan(384, 12, 6), Plan(768, 12, 12), Plan(1024, 24, 16)


def shapes(plan: Plan) -> dict[str, tuple[int, ...]]:
    """Name -> shape of all parameters; those of the blocks are stacked."""
    d, hidden = plan.width, MLP_RATIO * plan.width
    block = {
        "norm1/scale": (d,),
        "norm1/bias": (d,),
        "qkv/kernel": (d, 3 * d),  # query, key and value, each with its heads one after the other
        "qkv/bias": (3 * d,),
        "attention_out/kernel": (d, d),
        "attention_out/bias": (d,),
        "layer_scale1": (d,),
        "norm2/scale": (d,),
        "norm2/bias": (d,),
        "fc1/kernel": (d, hidden),
        "fc1/bias": (hidden,),
        "fc2/kernel": (hidden, d),
        "fc2/bias": (d,),
        "layer_scale2": (d,),
    }
    return {
        "patch/kernel": (PATCH * PATCH * 3, d),
        "patch/bias": (d,),
        "class_token": (d,),
        "position": (GRID * GRID + 1, d),  # at 224 px, the class token's first
        **{f"blocks/{name}": (plan.depth, *shape) for name, shape in block.items()},
        "norm/scale": (d,),
        "norm/bias": (d,),
    }


class Block(nn.Module):
    """[b, n, d] -> [b, n, d]: attention and a perceptron, each normalized before and scaled after."""

    plan: Plan

    @nn.compact
    def __call__(self, x: Array, _: None) -> tuple[Array, None]:
        d = self.plan.width
        x = x + self._scaled("layer_scale1", self._attention(_norm("norm1")(x)))
        hidden = jax.nn.gelu(_dense(MLP_RATIO * d, "fc1")(_norm("norm2")(x)), approximate=False)
        x = x + self._scaled("layer_scale2", _dense(d, "fc2")(hidden))
        self.sow("intermediates", "block", x)
        return x, None

    def _scaled(self, name: str, x: Array) -> Array:
        return x * self.param(name, nn.initializers.ones, x.shape[-1:])[None, None, :]

    def _attention(self, x: Array) -> Array:
        b, n, d = x.shape
        qkv = _dense(3 * d, "qkv")(x).reshape(b, n, 3, self.plan.heads, d // self.plan.heads)
        query, key, value = (qkv[:, :, i] for i in range(3))
        with jax.default_matmul_precision("highest"):
            mixed = attention.dot_product(query, key, value)
        return _dense(d, "attention_out")(mixed.reshape(b, n, d))


class DINOv2(nn.Module):
    """[b, 224, 224, 3], standardized -> "class_token" [b, width], after the last layer norm."""

    plan: Plan = LARGE

    @nn.compact
    def __call__(self, x: Array) -> dict[str, Array]:
        b, d = x.shape[0], self.plan.width
        patches = x.reshape(b, GRID, PATCH, GRID, PATCH, 3).swapaxes(2, 3).reshape(b, GRID * GRID, -1)
        token = self.param("class_token", nn.initializers.zeros, (d,))
        position = self.param("position", nn.initializers.zeros, (GRID * GRID + 1, d))
        first = jnp.broadcast_to(token[None, None, :], (b, 1, d))
        x = jnp.concatenate([first, _dense(d, "patch")(patches)], axis=1) + position[None, :, :]
        blocks = nn.scan(
            Block,
            variable_axes={"params": 0, "intermediates": 0},
            split_rngs={"params": True},
            length=self.plan.depth,
        )
        x, _ = blocks(self.plan, name="blocks")(x, None)
        return {LAYER: _norm("norm")(x[:, 0])}


def _dense(features: int, name: str) -> nn.Dense:
    return nn.Dense(features, precision=HIGHEST, name=name)


def _norm(name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=EPSILON, use_fast_variance=False, name=name)


# --- preprocessing ---------------------------------------------------------------------------------------


def preprocess(image: Array) -> Array:
    """[b, h, w, 3] in 0..255 -> the network's input [b, 224, 224, 3]; floats are rounded to uint8 first."""
    resized = resize(image, SIZE).astype(jnp.float32) / 255
    mean, std = (jnp.asarray(x, jnp.float32)[None, None, None, :] for x in (MEAN, STD))
    return (resized - mean) / std


def resize(image: Array, size: int) -> Array:
    """[b, h, w, c] in 0..255 -> [b, size, size, c] int32 in 0..255, bit for bit as Pillow's bicubic filter.

    Each row is filtered and rounded to 8 bits, then each column. Pillow 13 takes the columns first where it
    reduces the height by more than the width; earlier ones, with which the scores were published, do not.
    """
    x = jnp.clip(jnp.round(image.astype(jnp.float32)), 0, 255)
    x = _filter(x, "bhwc,iw->bhic", _bicubic(image.shape[2], size))
    return _filter(x.astype(jnp.float32), "bhwc,ih->biwc", _bicubic(image.shape[1], size))


def _filter(x: Array, axes: str, weight: np.ndarray) -> Array:
    """One pass: sums of 8-bit values times weights of 22 bits after the point, rounded to 8 bits."""
    low = (weight + (1 << HALF - 1)) % (1 << HALF) - (1 << HALF - 1)
    high, low = (
        jnp.einsum(axes, x, half.astype(np.float32), precision=HIGHEST).astype(jnp.int32)
        for half in ((weight - low) >> HALF, low)
    )
    total = (high << HALF) + low + (1 << PILLOW_BITS - 1)
    return jnp.clip(total >> PILLOW_BITS, 0, 255)


def _bicubic(n: int, size: int) -> np.ndarray:
    """[size, n] int32: the weight of each of n inputs in each output, of Pillow's 8-bit bicubic filter."""
    scale = n / size
    stretch = max(scale, 1.0)  # of the filter, against aliasing
    center = (np.arange(size) + 0.5) * scale
    first = np.maximum(np.trunc(center - 2 * stretch + 0.5), 0)
    end = np.minimum(np.trunc(center + 2 * stretch + 0.5), n)
    at = np.arange(n)[None, :]
    weight = cubic((at - center[:, None] + 0.5) / stretch, -0.5)
    weight = np.where((at >= first[:, None]) & (at < end[:, None]), weight, 0.0)
    weight /= weight.sum(axis=1, keepdims=True)
    scaled = weight * (1 << PILLOW_BITS)
    return np.trunc(scaled + np.where(scaled < 0, -0.5, 0.5)).astype(np.int32)


def cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic kernel with parameter a (-0.5 in Pillow, -0.75 in PyTorch), zero outside (-2, 2)."""
    x = np.abs(x)
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
