"""VQ-VAE-2 (Razavi, van den Oord, Vinyals 2019) at two levels: its codebooks and its autoencoder.

The bottom map has a quarter of the picture's height, the top one half of that. The top is quantised first,
and the bottom's encoder is told of it. Codebooks do not learn by gradients: they follow the encoder.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jax import lax

from jaxdog import types
from jaxdog.models import layers

Array = jax.Array
Dtype = Any

SHRUNK = 8, 4  # the picture's height over that of the top map, of the bottom map


# Codebooks --------------------------------------------------------------------------------------------------


@struct.dataclass
class Codebook:
    """Vectors, and the moving averages that they are made of: code = total / use."""

    code: Array  # [k, d] float32
    use: Array  # [k] float32, how often each is met, on a scale on which the mean over the codes is 1
    total: Array  # [k, d] float32, the sum of what was nearest to each, on the same scale


class Quantised(NamedTuple):
    """Vectors and the codes nearest to them."""

    z: Array  # [..., d] float32, what the encoder said
    index: Array  # [...] int32, of the nearest code
    nearest: Array  # [..., d] float32, that code; no gradient
    value: Array  # [..., d] float32, equal to `nearest`; its gradient goes to z as it is ("straight through")


class Told(NamedTuple):
    """What there is to report of a codebook's step."""

    perplexity: Array  # [] float32, of this batch's codes: 1, all are one code, to k, all are used equally
    used: Array  # [] float32, share of the codes that this batch met
    restarted: Array  # [] float32, codes that were set anew


def codebook(key: types.Key, codes: int, dim: int) -> Codebook:
    """A codebook of N(0, 1 / dim), all of it as if it had been used on average."""
    code = jax.random.normal(key, (codes, dim)) * dim**-0.5
    return Codebook(code=code, use=jnp.ones(codes), total=jnp.copy(code))


def quantise(z: Array, code: Array) -> Quantised:
    """z [..., d] with the nearest of code [k, d] by Euclidean distance; of equally near ones the first."""
    flat = lax.stop_gradient(z).reshape(-1, z.shape[-1])
    product = jnp.matmul(flat, code.T, precision=layers.HIGHEST)
    # |z|^2, the same for all codes, is left out.
    index = jnp.argmin(jnp.square(code).sum(-1)[None, :] - 2.0 * product, -1).astype(jnp.int32)
    nearest = lax.stop_gradient(code[index]).reshape(z.shape)
    return Quantised(z, index.reshape(z.shape[:-1]), nearest, z + lax.stop_gradient(nearest - z))


def moved(
    book: Codebook, z: Array, index: Array, decay: float, restart: float, key: types.Key
) -> tuple[Codebook, Told]:
    """The codebook after a batch of z [..., d], nearest to the codes `index` [...].

    Each code is the mean of what was nearest to it, in moving averages with `decay` (van den Oord et al.
    2017, equations 6 to 8 of appendix A.1). A code that was used less than `restart` times the mean becomes a
    vector drawn from the batch, as if used on average from then on: with no use at all that takes
    log(restart) / log(decay) steps. 0: never.
    """
    k, d = book.code.shape
    flat, at = z.reshape(-1, d).astype(jnp.float32), index.reshape(-1)
    n = at.shape[0]
    hits = jnp.zeros(k).at[at].add(1.0)
    sums = jnp.zeros((k, d)).at[at].add(flat)
    use = decay * book.use + (1.0 - decay) * hits * (k / n)
    total = decay * book.total + (1.0 - decay) * sums * (k / n)
    dead = use < restart
    drawn = flat[jax.random.randint(key, (k,), 0, n)]
    use, total = jnp.where(dead, 1.0, use), jnp.where(dead[:, None], drawn, total)
    code = total / jnp.maximum(use, 1e-30)[:, None]
    p = hits / n
    entropy = -jnp.sum(jnp.where(p > 0, p * jnp.log(jnp.maximum(p, 1e-30)), 0.0))
    told = Told(jnp.exp(entropy), jnp.mean(hits > 0), jnp.sum(dead).astype(jnp.float32))
    return Codebook(code=code, use=use, total=total), told


# The autoencoder --------------------------------------------------------------------------------------------


def _conv(features: int, size: int = 3, resample: str = "none", **named: Any) -> layers.Conv:
    """A convolution with bias that starts as torch's."""
    init = layers.TorchDefault("out" if resample == "transposed" else "in")
    return layers.Conv(
        features,
        size,
        spectral=False,
        resample=resample,
        kernel_init=init.kernel,
        bias_init=init.bias,
        **named,
    )


class Residual(nn.Module):
    """x + conv1x1(relu(conv3x3(relu(x)))), [b, h, w, c] -> [b, h, w, c]."""

    hidden: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        h = _conv(self.hidden, dtype=self.dtype, name="conv0")(nn.relu(x), True)
        return x + _conv(x.shape[-1], 1, dtype=self.dtype, name="conv1")(nn.relu(h), True)


class Down(nn.Module):
    """[b, h, w, c] -> [b, h / 2^times, w / 2^times, channels], after a ReLU."""

    times: int
    channels: int
    residual_layers: int
    residual_channels: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        h = x
        for i in range(self.times):
            width = self.channels if i else self.channels // 2
            h = nn.relu(_conv(width, 4, "strided", dtype=self.dtype, name=f"down{i}")(h, True))
        h = _conv(self.channels, dtype=self.dtype, name="conv")(h, True)
        for i in range(self.residual_layers):
            h = Residual(self.residual_channels, self.dtype, name=f"residual{i}")(h)
        return nn.relu(h)


class Up(nn.Module):
    """[b, h, w, c] -> [b, 2^times h, 2^times w, features]."""

    times: int
    features: int
    channels: int
    residual_layers: int
    residual_channels: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        h = _conv(self.channels, dtype=self.dtype, name="conv")(x, True)
        for i in range(self.residual_layers):
            h = Residual(self.residual_channels, self.dtype, name=f"residual{i}")(h)
        for i in range(self.times):
            width = self.channels // 2 if i < self.times - 1 else self.features
            h = _conv(width, 4, "transposed", dtype=self.dtype, name=f"up{i}")(nn.relu(h), True)
        return h


class Coded(NamedTuple):
    """A picture's way through the autoencoder."""

    picture: Array  # [b, s, s, 3] float32, any value
    top: Quantised  # [b, s/8, s/8]
    bottom: Quantised  # [b, s/4, s/4]


class Autoencoder(nn.Module):
    """Pictures [b, s, s, 3] in [-1, 1] to codes of two levels and back; s is a multiple of 8.

    The codes [k, code_dim] of both codebooks are arguments: they are no parameters.
    """

    channels: int  # of the encoders' and decoders' maps
    residual_layers: int  # of each encoder and decoder
    residual_channels: int  # within a residual layer
    code_dim: int
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        sizes: dict[str, Any] = dict(
            channels=self.channels,
            residual_layers=self.residual_layers,
            residual_channels=self.residual_channels,
            dtype=self.dtype,
        )
        conv: Callable[..., layers.Conv] = partial(_conv, dtype=self.dtype)
        self.encode_bottom = Down(2, **sizes)
        self.encode_top = Down(1, **sizes)
        self.to_top = conv(self.code_dim, 1)
        self.decode_top = Up(1, self.code_dim, **sizes)
        self.to_bottom = conv(self.code_dim, 1)
        self.widen_top = conv(self.code_dim, 4, "transposed")
        self.decode_bottom = Up(2, 3, **sizes)

    def __call__(self, image: Array, top: Array, bottom: Array) -> Coded:
        """image [b, s, s, 3]; top, bottom: the codes [k, code_dim] of the two codebooks."""
        coded = self.encode(image, top, bottom)
        return Coded(self.decode(coded[0].value, coded[1].value), *coded)

    def encode(self, image: Array, top: Array, bottom: Array) -> tuple[Quantised, Quantised]:
        """The two levels, the top first."""
        if image.shape[1] % SHRUNK[0] or image.shape[2] % SHRUNK[0]:
            raise ValueError(
                f"pictures of {image.shape[1]}x{image.shape[2]} have no top map: their sides must be "
                f"multiples of {SHRUNK[0]}"
            )
        low = self.encode_bottom(image)
        upper = quantise(self.to_top(self.encode_top(low), True).astype(jnp.float32), top)
        both = jnp.concatenate([self.decode_top(upper.value).astype(low.dtype), low], -1)
        return upper, quantise(self.to_bottom(both, True).astype(jnp.float32), bottom)

    def decode(self, top: Array, bottom: Array) -> Array:
        """top [b, s/8, s/8, code_dim], bottom [b, s/4, s/4, code_dim] -> [b, s, s, 3] float32, any value."""
        wide = self.widen_top(top, True)
        both = jnp.concatenate([wide, bottom.astype(wide.dtype)], -1)
        return self.decode_bottom(both).astype(jnp.float32)
