"""VQ-VAE-2 (Razavi, van den Oord, Vinyals 2019) with two levels: codebooks and autoencoder.

The bottom map has a quarter of the image's height, the top map an eighth. The top is quantized first, and the
bottom's codes are computed from the features and the decoded top. Codebooks are not trained by gradients:
they are moving averages of the encoder's outputs.
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
from jaxdog.models import initializers, layers
from jaxdog.utils import errors

Array = jax.Array
Dtype = Any

DOWNSAMPLING = 8, 4  # height of the image divided by that of the top map, of the bottom map


# ------------------------------------------------------------------------------------- codebooks


@struct.dataclass
class Codebook:
    """Code vectors and the moving averages that define them: code = ema_sum / ema_count."""

    code: Array  # [k, d] float32
    ema_count: Array  # [k] float32, usage of each code, scaled so that the mean over codes is 1
    ema_sum: Array  # [k, d] float32, sum of the vectors assigned to each code, on the same scale


class Quantized(NamedTuple):
    """Vectors and their nearest codes."""

    z: Array  # [..., d] float32, the encoder's output
    index: Array  # [...] int32, of the nearest code
    nearest: Array  # [..., d] float32, that code, without gradient
    value: Array  # [..., d] float32, equal to `nearest`; its gradient is copied to z ("straight-through")


class CodebookMetrics(NamedTuple):
    """Scalars of a codebook update."""

    perplexity: Array  # [] float32, of the batch's codes: from 1 (a single code) to k (all equally often)
    used: Array  # [] float32, fraction of the codes that occur in the batch
    restarted: Array  # [] float32, number of codes that were reinitialized


def init_codebook(key: types.Key, size: int, dim: int) -> Codebook:
    """A codebook of `size` vectors from N(0, 1 / dim), each with average usage."""
    code = jax.random.normal(key, (size, dim)) * dim**-0.5
    return Codebook(code=code, ema_count=jnp.ones(size), ema_sum=jnp.copy(code))


def quantize(z: Array, code: Array) -> Quantized:
    """The code of [k, d] nearest to each vector of z [..., d] in Euclidean distance; ties go to the first."""
    flat = lax.stop_gradient(z).reshape(-1, z.shape[-1])
    product = jnp.matmul(flat, code.T, precision=lax.Precision.HIGHEST)
    # |z|^2 is the same for all codes and is omitted.
    index = jnp.argmin(jnp.square(code).sum(-1)[None, :] - 2.0 * product, -1).astype(jnp.int32)
    nearest = lax.stop_gradient(code[index]).reshape(z.shape)
    return Quantized(z, index.reshape(z.shape[:-1]), nearest, z + lax.stop_gradient(nearest - z))


def update_codebook(
    book: Codebook, z: Array, index: Array, decay: float, dead_code_threshold: float, key: types.Key
) -> tuple[Codebook, CodebookMetrics]:
    """The codebook after a batch (van den Oord et al. 2017, equations 6 to 8 of appendix A.1).

    Args:
      book: the codebook before.
      z: [..., d], the encoder's outputs.
      index: [...], their nearest codes.
      decay: of the moving averages.
      dead_code_threshold: codes used less than this times the mean are replaced by random vectors of the
        batch, with average usage (code restarts). An unused code is replaced after log(threshold) /
        log(decay) steps. 0: never.
      key: for the random vectors.
    """
    k, d = book.code.shape
    flat, assigned = z.reshape(-1, d).astype(jnp.float32), index.reshape(-1)
    n = assigned.shape[0]
    count = jnp.zeros(k).at[assigned].add(1.0)
    vector_sum = jnp.zeros((k, d)).at[assigned].add(flat)
    ema_count = decay * book.ema_count + (1.0 - decay) * count * (k / n)
    ema_sum = decay * book.ema_sum + (1.0 - decay) * vector_sum * (k / n)
    dead = ema_count < dead_code_threshold
    random_vectors = flat[jax.random.randint(key, (k,), 0, n)]
    ema_count = jnp.where(dead, 1.0, ema_count)
    ema_sum = jnp.where(dead[:, None], random_vectors, ema_sum)
    code = ema_sum / jnp.maximum(ema_count, 1e-30)[:, None]
    p = count / n
    entropy = -jnp.sum(jnp.where(p > 0, p * jnp.log(jnp.maximum(p, 1e-30)), 0.0))
    metrics = CodebookMetrics(
        perplexity=jnp.exp(entropy),
        used=jnp.mean(count > 0),
        restarted=jnp.sum(dead).astype(jnp.float32),
    )
    return Codebook(code=code, ema_count=ema_count, ema_sum=ema_sum), metrics


# ------------------------------------------------------------------------------------- autoencoder


def _conv(features: int, kernel_size: int = 3, resample: str = "none", **settings: Any) -> layers.Conv:
    """A convolution with torch's default initialization."""
    init = initializers.TorchDefault("out" if resample == "transposed" else "in")
    return layers.Conv(
        features,
        kernel_size,
        spectral=False,
        resample=resample,
        kernel_init=init.kernel,
        bias_init=init.bias,
        **settings,
    )


class ResidualLayer(nn.Module):
    """x + conv1x1(relu(conv3x3(relu(x)))), [b, h, w, c] -> [b, h, w, c]."""

    channels: int  # of the 3x3 convolution
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        h = _conv(self.channels, dtype=self.dtype, name="conv0")(nn.relu(x), True)
        return x + _conv(x.shape[-1], 1, dtype=self.dtype, name="conv1")(nn.relu(h), True)


class Downsampler(nn.Module):
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
            h = ResidualLayer(self.residual_channels, self.dtype, name=f"residual{i}")(h)
        return nn.relu(h)


class Upsampler(nn.Module):
    """[b, h, w, c] -> [b, 2^times h, 2^times w, features] float32; `dtype` is that of the layers before."""

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
            h = ResidualLayer(self.residual_channels, self.dtype, name=f"residual{i}")(h)
        for i in range(self.times):
            last = i == self.times - 1
            width, dtype = (self.features, jnp.float32) if last else (self.channels // 2, self.dtype)
            h = _conv(width, 4, "transposed", dtype=dtype, name=f"up{i}")(nn.relu(h).astype(dtype), True)
        return h


class AutoencoderOutput(NamedTuple):
    """A reconstruction and the codes of both levels."""

    reconstruction: Array  # [b, s, s, 3] float32, unbounded
    top: Quantized  # [b, s/8, s/8]
    bottom: Quantized  # [b, s/4, s/4]


class Autoencoder(nn.Module):
    """Images [b, s, s, 3] in [-1, 1] to codes of two levels and back; s is a multiple of 8.

    The codes [k, code_dim] of both codebooks are arguments, because they are not parameters.

    Raises:
      UserError: a height or width that is not a multiple of 8.
    """

    channels: int  # of the encoders' and decoders' feature maps
    residual_layers: int  # of each encoder and decoder
    residual_channels: int  # inside a residual layer
    code_dim: int
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        settings: dict[str, Any] = dict(
            channels=self.channels,
            residual_layers=self.residual_layers,
            residual_channels=self.residual_channels,
            dtype=self.dtype,
        )
        conv: Callable[..., layers.Conv] = partial(_conv, dtype=self.dtype)
        self.encode_bottom = Downsampler(2, **settings)
        self.encode_top = Downsampler(1, **settings)
        self.to_top = conv(self.code_dim, 1)
        self.decode_top = Upsampler(1, self.code_dim, **settings)
        self.to_bottom = conv(self.code_dim, 1)
        self.widen_top = conv(self.code_dim, 4, "transposed")
        self.decode_bottom = Upsampler(2, 3, **settings)

    def __call__(self, image: Array, top: Array, bottom: Array) -> AutoencoderOutput:
        """Encodes and decodes image [b, s, s, 3]; top, bottom: the codes [k, code_dim] of the codebooks."""
        levels = self.encode(image, top, bottom)
        return AutoencoderOutput(self.decode(levels[0].value, levels[1].value), *levels)

    def encode(self, image: Array, top: Array, bottom: Array) -> tuple[Quantized, Quantized]:
        """The quantized top and bottom maps."""
        if image.shape[1] % DOWNSAMPLING[0] or image.shape[2] % DOWNSAMPLING[0]:
            raise errors.UserError(
                f"images are {image.shape[1]}x{image.shape[2]}, and their sides must be multiples of "
                f"{DOWNSAMPLING[0]}"
            )
        features = self.encode_bottom(image)
        quantized_top = quantize(self.to_top(self.encode_top(features), True).astype(jnp.float32), top)
        decoded_top = self.decode_top(quantized_top.value).astype(features.dtype)
        both = jnp.concatenate([decoded_top, features], -1)
        return quantized_top, quantize(self.to_bottom(both, True).astype(jnp.float32), bottom)

    def decode(self, top: Array, bottom: Array) -> Array:
        """top [b, s/8, s/8, code_dim], bottom [b, s/4, s/4, code_dim] -> [b, s, s, 3] float32, unbounded."""
        upsampled = self.widen_top(top, True)
        both = jnp.concatenate([upsampled, bottom.astype(upsampled.dtype)], -1)
        return self.decode_bottom(both).astype(jnp.float32)
