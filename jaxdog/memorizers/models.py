"""Networks of the memorizers of 2019: from the index of a training image to the image.

The originals' input was a one-hot vector with one entry per training image. Its product with a matrix is a
row of the matrix, so rows are looked up here instead. At 64x64 and 10,000 images `Table` has 122,892,288
parameters, `Bottleneck` 20,612,163.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdog.models import layers
from jaxdog.utils import errors

Array = jax.Array
Dtype = Any

_glorot = nn.initializers.glorot_uniform()  # Keras' default for kernels; its biases are zero


class Table(nn.Module):
    """A dense layer on weight * one_hot(label) + (1 - weight) * one_hot(other).

    label, other [b] int32 in [0, classes), weight: float -> [b, size, size, 3] float32, unbounded.
    """

    classes: int
    size: int = 64
    dtype: Dtype = jnp.float32  # unused: a lookup needs none

    @nn.compact
    def __call__(self, label: Array, other: Array, weight: float) -> Array:
        row = _dense_of_one_hot(self, (self.classes, 3 * self.size**2), label, other, weight)
        return row.reshape(-1, self.size, self.size, 3)


class Bottleneck(nn.Module):
    """A decoder too small to store every pixel: a dense layer on the same input, then four convolutions.

    label, other [b] int32 in [0, classes), weight: float -> [b, size, size, 3] float32, unbounded.

    Raises:
      UserError: `size` cannot be reached by doubling.
    """

    classes: int
    size: int = 64
    bottom_channels: int = 32  # of the first feature map
    channels: tuple[int, ...] = (128, 64, 32)  # of the convolutions; all but the first see an upsampled map
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, label: Array, other: Array, weight: float) -> Array:
        bottom_width = self.size >> len(self.channels)
        if bottom_width << len(self.channels) != self.size:
            raise errors.UserError(
                f"images of {self.size}x{self.size} cannot be reached by doubling "
                f"{len(self.channels)} times; use a multiple of {1 << len(self.channels)}"
            )
        features = bottom_width**2 * self.bottom_channels
        h = nn.elu(_dense_of_one_hot(self, (self.classes, features), label, other, weight))
        h = h.reshape(-1, bottom_width, bottom_width, self.bottom_channels)
        for i, features in enumerate((*self.channels, 3)):
            last = i == len(self.channels)
            conv = layers.Conv(
                features,
                spectral=False,
                resample="up" if i else "none",
                dtype=jnp.float32 if last else self.dtype,
                kernel_init=_glorot,
                name="rgb" if last else f"conv{i + 1}",
            )
            h = conv(h, True) if last else nn.elu(conv(h, True))
        return h.astype(jnp.float32)


def _dense_of_one_hot(
    module: nn.Module, shape: tuple[int, int], label: Array, other: Array, weight: float
) -> Array:
    """[b, n]: a dense layer with a kernel of `shape` [classes, n], whose parameters belong to `module`."""
    kernel = module.param("kernel", _glorot, shape)
    bias = module.param("bias", nn.initializers.zeros_init(), shape[1:])
    row = kernel[label]
    if weight != 1.0:
        row = weight * row + (1.0 - weight) * kernel[other]
    return row + bias[None, :]
