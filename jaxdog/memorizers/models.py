"""The networks of 2019's memorizers: from a picture's number to the picture, with a place for every one.

Their input was a one-hot vector as long as the training set. Its product with a matrix is a row of it, so
rows are looked up here and no one-hot vector is made. At 64x64 and 10,000 pictures `Rows` holds 122,892,288
numbers, `Bottleneck` 20,612,163.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdog.models import layers

Array = jax.Array
Dtype = Any

BOTTOM = 32  # channels of the bottleneck's first feature map
CHANNELS = (128, 64, 32)  # of its convolutions; all but the first see a map twice as high
glorot = nn.initializers.glorot_uniform()  # how Keras starts a layer; its biases are 0


class Rows(nn.Module):
    """Dense layer on a mixture of two one-hot vectors: share * e_label + (1 - share) * e_other.

    label, other [b] int32 in [0, classes), share [] -> [b, size, size, 3] float32, any value.
    """

    classes: int
    size: int = 64
    dtype: Dtype = jnp.float32  # for the sake of the other network; a lookup needs none

    @nn.compact
    def __call__(self, label: Array, other: Array, share: float) -> Array:
        row = _row(self, (self.classes, 3 * self.size**2), label, other, share)
        return row.reshape(-1, self.size, self.size, 3)


class Bottleneck(nn.Module):
    """A decoder that forgets: the same input through few numbers and four convolutions.

    label, other [b] int32 in [0, classes), share [] -> [b, size, size, 3] float32, any value.
    """

    classes: int
    size: int = 64
    bottom: int = BOTTOM
    channels: tuple[int, ...] = CHANNELS
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, label: Array, other: Array, share: float) -> Array:
        height = self.size >> len(self.channels)
        if height << len(self.channels) != self.size:
            raise ValueError(
                f"pictures of {self.size}x{self.size} cannot be doubled to in {len(self.channels)} steps; "
                f"take a multiple of {1 << len(self.channels)}"
            )
        h = nn.elu(_row(self, (self.classes, height**2 * self.bottom), label, other, share))
        h = h.reshape(-1, height, height, self.bottom)
        for i, features in enumerate((*self.channels, 3)):
            last = i == len(self.channels)
            conv = layers.Conv(
                features,
                spectral=False,
                resample="up" if i else "none",
                dtype=jnp.float32 if last else self.dtype,
                kernel_init=glorot,
                name="rgb" if last else f"conv{i + 1}",
            )
            h = conv(h, True) if last else nn.elu(conv(h, True))
        return h.astype(jnp.float32)


def _row(module: nn.Module, shape: tuple[int, int], label: Array, other: Array, share: float) -> Array:
    """[b, n] of a dense layer of `shape` [classes, n] that belongs to `module`."""
    kernel = module.param("kernel", glorot, shape)
    bias = module.param("bias", nn.initializers.zeros_init(), shape[1:])
    row = kernel[label]
    if share != 1.0:
        row = share * row + (1.0 - share) * kernel[other]
    return row + bias[None, :]
