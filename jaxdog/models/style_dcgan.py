"""A spectral-normed DCGAN with parts of StyleGAN and a self-modulated batch norm, an entry of 2019.

After each of the generator's convolutions: a noise map (Karras et al. 2019), leaky ReLU, pixel norm (Karras
et al. 2018), batch norm whose gain and bias are functions of z (Chen et al. 2019). There is no mapping
network, no style mixing, no progressive growing. The discriminator has convolutions only. No bias but those
inside the self-modulation.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdog import types
from jaxdog.models import layers

Array = jax.Array
Dtype = Any

kaiming = nn.initializers.variance_scaling(2.0, "fan_in", "uniform")  # torch's kaiming_uniform_


class SelfModulatedBatchNorm(nn.Module):
    """Batch norm whose gain and bias are each a network of one hidden layer: [b, h, w, c], z [b, k] -> as x.

    "On Self Modulation for Generative Adversarial Networks" (Chen et al. 2019), sec. 2; no 1 is added to the
    gain. The networks are float32.
    """

    @nn.compact
    def __call__(self, x: Array, z: Array, train: bool) -> Array:
        c = x.shape[-1]

        def network(name: str) -> Array:
            dense = partial(layers.Dense, c, spectral=False, kernel_init=kaiming)
            hidden = dense(bias_init=layers.TorchDefault().bias, name=f"{name}_hidden")(z, train)
            return dense(bias=False, name=name)(nn.relu(hidden), train)[:, None, None, :]

        y = layers.BatchNorm(name="norm")(x, train).astype(jnp.float32)
        return (network("gain") * y + network("bias")).astype(x.dtype)


class Generator(nn.Module):
    """z [b, latent_dim], label [b] (not looked at), train, key [b] -> [b, size, size, 3] in [-1, 1].

    A dense layer makes the smallest map; each width after the first doubles the height.
    """

    widths: tuple[int, ...]  # channels of the smallest map, then of each larger one
    latent_dim: int
    classes: int
    size: int = 64
    slope: float = 0.2
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, z: Array, label: Array, train: bool, key: Array | None = None) -> Array:
        if key is None:
            raise ValueError("this generator draws noise maps: it needs a key for each picture")
        bottom = _bottom(self.size, self.widths)
        act = layers.activation("leaky_relu", self.slope)
        dense = layers.Dense(
            bottom**2 * self.widths[0],
            bias=False,
            dtype=self.dtype,
            kernel_init=layers.TorchDefault().kernel,
            name="linear",
        )

        def styled(h: Array, place: int) -> Array:
            h = act(layers.Noise(place, name=f"noise{place}")(h, key))
            modulated = SelfModulatedBatchNorm(name=f"modulated{place}")
            return layers.handed(modulated(layers.PixelNorm()(h), z, train))

        h = styled(dense(z, train).reshape(-1, bottom, bottom, self.widths[0]), 0)
        for i, width in enumerate(self.widths):
            if i:
                h = _conv(width, "transposed", self.dtype, f"up{i}")(h, train)
                h = styled(h, 2 * i)
            h = styled(_conv(width, "none", self.dtype, f"conv{i}")(h, train), 2 * i + 1)
        # In torch a transposed convolution, whose 3x3 kernel is ours turned by 180 degrees.
        rgb = layers.Conv(
            3, bias=False, dtype=jnp.float32, kernel_init=layers.TorchDefault("out").kernel, name="rgb"
        )
        return jnp.tanh(rgb(h.astype(jnp.float32), train))


class Discriminator(nn.Module):
    """x [b, size, size, 3] in [-1, 1], label [b] (not looked at), train -> system.Verdict."""

    widths: tuple[int, ...]  # channels at full height, then of each half
    classes: int
    size: int = 64
    slope: float = 0.2
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, label: Array, train: bool) -> types.Verdict:
        _bottom(self.size, self.widths)
        act = layers.activation("leaky_relu", self.slope)
        h = x
        for i, width in enumerate(self.widths):
            if i:
                h = act(_conv(width, "strided", self.dtype, f"down{i}")(h, train))
            h = layers.handed(act(_conv(width, "none", self.dtype, f"conv{i}")(h, train)))
        h = h.reshape(h.shape[0], -1).astype(jnp.float32)
        head = layers.Dense(1, bias=False, kernel_init=layers.TorchDefault().kernel, name="head")
        return types.Verdict(head(h, train)[:, 0])


def _conv(width: int, resample: str, dtype: Dtype, name: str) -> layers.Conv:
    fan = "out" if resample == "transposed" else "in"
    size = 3 if resample == "none" else 4
    init = layers.TorchDefault(fan).kernel
    return layers.Conv(width, size, False, resample=resample, dtype=dtype, kernel_init=init, name=name)


def _bottom(size: int, widths: tuple[int, ...]) -> int:
    """The height of the smallest map; each width but one is a factor of 2."""
    times = 2 ** (len(widths) - 1)
    if size % times:
        raise ValueError(f"{len(widths)} widths need a size that is a multiple of {times}, not {size}")
    return size // times
