"""DCGAN with spectral norm, StyleGAN's noise and self-modulated batch norm, a competition entry.

Each of the generator's convolutions is followed by a noise map (Karras et al. 2019), a leaky ReLU, pixel norm
(Karras et al. 2018) and batch norm whose gain and bias are functions of z (Chen et al. 2019). There is no
mapping network, style mixing or progressive growing. The discriminator has no normalization layers. Only the
self-modulation has biases.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdog import types
from jaxdog.models import initializers, layers, norms, resolutions
from jaxdog.utils import errors

Array = jax.Array

kaiming = nn.initializers.variance_scaling(2.0, "fan_in", "uniform")  # torch's kaiming_uniform_


class SelfModulatedBatchNorm(nn.Module):
    """Self-modulated batch norm (Chen et al. 2019, sec. 2): [b, h, w, c], z [b, k] -> [b, h, w, c].

    Gain and bias are float32 networks of z with one hidden layer each. No 1 is added to the gain.
    """

    @nn.compact
    def __call__(self, x: Array, z: Array, train: bool) -> Array:
        c = x.shape[-1]

        def network(name: str) -> Array:
            dense = partial(layers.Dense, c, spectral=False, kernel_init=kaiming)
            hidden = dense(bias_init=initializers.TorchDefault().bias, name=f"{name}_hidden")(z, train)
            return dense(use_bias=False, name=name)(nn.relu(hidden), train)[:, None, None, :]

        y = norms.BatchNorm(name="norm")(x, train).astype(jnp.float32)
        return (network("gain") * y + network("bias")).astype(x.dtype)


class Generator(nn.Module):
    """z [b, latent_dim], label [b] (not used), train, key [b] -> [b, size, size, 3] in [-1, 1].

    The smallest map is a dense layer of z; each width after the first doubles the height.
    """

    widths: tuple[int, ...]  # channels of the smallest map, then of each larger one
    latent_dim: int
    classes: int
    size: int = 64
    slope: float = 0.2
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, z: Array, label: Array, train: bool, key: Array | None = None) -> Array:
        if key is None:
            raise errors.UserError("this generator adds noise maps and needs `key`, a random key per image")
        bottom = resolutions.bottom_width(self.size, len(self.widths) - 1)
        act = layers.activation("leaky_relu", self.slope)
        dense = layers.Dense(
            bottom**2 * self.widths[0],
            use_bias=False,
            dtype=self.dtype,
            kernel_init=initializers.TorchDefault().kernel,
            name="linear",
        )

        def style(h: Array, index: int) -> Array:
            h = act(layers.Noise(index, name=f"noise{index}")(h, key))
            norm = SelfModulatedBatchNorm(name=f"modulated{index}")
            return layers.checkpoint_block(norm(norms.PixelNorm()(h), z, train))

        h = style(dense(z, train).reshape(-1, bottom, bottom, self.widths[0]), 0)
        for i, width in enumerate(self.widths):
            if i:
                h = _conv(width, "transposed", self.dtype, f"up{i}")(h, train)
                h = style(h, 2 * i)
            h = style(_conv(width, "none", self.dtype, f"conv{i}")(h, train), 2 * i + 1)
        # A transposed convolution in torch; its 3x3 kernel is this one rotated by 180 degrees.
        rgb = layers.Conv(
            3,
            use_bias=False,
            dtype=jnp.float32,
            kernel_init=initializers.TorchDefault("out").kernel,
            name="rgb",
        )
        return jnp.tanh(rgb(h.astype(jnp.float32), train))


class Discriminator(nn.Module):
    """x [b, size, size, 3] in [-1, 1], label [b] (not used), train -> DiscriminatorOutput."""

    widths: tuple[int, ...]  # channels at full height, then after each halving
    classes: int
    size: int = 64
    slope: float = 0.2
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, label: Array, train: bool) -> types.DiscriminatorOutput:
        resolutions.bottom_width(self.size, len(self.widths) - 1)  # raises if size is not divisible
        act = layers.activation("leaky_relu", self.slope)
        h = x
        for i, width in enumerate(self.widths):
            if i:
                h = act(_conv(width, "strided", self.dtype, f"down{i}")(h, train))
            h = layers.checkpoint_block(act(_conv(width, "none", self.dtype, f"conv{i}")(h, train)))
        h = h.reshape(h.shape[0], -1).astype(jnp.float32)
        head = layers.Dense(1, use_bias=False, kernel_init=initializers.TorchDefault().kernel, name="head")
        return types.DiscriminatorOutput(head(h, train)[:, 0])


def _conv(width: int, resample: str, dtype: layers.Dtype, name: str) -> layers.Conv:
    fan = "out" if resample == "transposed" else "in"
    kernel_size = 3 if resample == "none" else 4
    init = initializers.TorchDefault(fan).kernel
    return layers.Conv(width, kernel_size, False, resample=resample, dtype=dtype, kernel_init=init, name=name)
