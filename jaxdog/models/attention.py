"""Self-attention over feature maps (Zhang et al. 2019), and scaled dot products. NHWC."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxdog.models import initializers, layers
from jaxdog.ops import matmul, resample2x
from jaxdog.utils import errors

Array = jax.Array


class SelfAttention(nn.Module):
    """x + gain * attention(x), with a learned gain from 0: [b, h, w, c] -> [b, h, w, c].

    As in the authors' code and in BigGAN: query and key have c / key_ratio channels, the value c / 2, both
    rounded down; key and value are max-pooled 2x2; a 1x1 convolution follows; logits are not scaled. The
    softmax is float32. The key has no bias, which would add the same value to all logits of a query.
    """

    key_ratio: int = 8
    dtype: layers.Dtype = jnp.float32
    use_bias: bool = False
    kernel_init: layers.Init = initializers.orthogonal
    bias_init: layers.Init = initializers.zero_bias

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        b, h, w, c = x.shape
        _check_channels(c, self.key_ratio, max(self.key_ratio, 2))

        def project(y: Array, features: int, name: str) -> Array:
            use_bias = self.use_bias and name != "key"
            conv = partial(
                layers.Conv,
                kernel_size=1,
                dtype=self.dtype,
                kernel_init=self.kernel_init,
                bias_init=self.bias_init,
            )
            return conv(features, use_bias=use_bias, name=name)(y, train)

        query = project(x, c // self.key_ratio, "query").reshape(b, h * w, -1)
        key = resample2x.max_pool(project(x, c // self.key_ratio, "key")).reshape(b, h * w // 4, -1)
        value = resample2x.max_pool(project(x, c // 2, "value")).reshape(b, h * w // 4, -1)
        logits = matmul.matmul(query, matmul.transpose_last(key)).astype(jnp.float32)
        weights = jnp.exp(logits - lax.stop_gradient(logits.max(-1, keepdims=True)))
        attended = matmul.matmul(weights.astype(self.dtype), value)
        # The softmax is normalized last: c / 2 divisions per pixel instead of h * w / 4.
        attended = attended / weights.sum(-1, keepdims=True).astype(self.dtype)
        gain = self.param("gain", nn.initializers.zeros_init(), ())
        return x + gain.astype(x.dtype) * project(attended.reshape(b, h, w, c // 2), c, "out")


class WholeAttention(nn.Module):
    """x + gain * attention(x) without pooling, with a learned gain from 0: [b, h, w, c] -> [b, h, w, c].

    As in the first version of the paper (arXiv 1805.08318v1, eq. 1 and 2): query and key have c / key_ratio
    channels, the value c, and no convolution follows. The softmax is float32. The key has no bias.
    """

    key_ratio: int = 8
    dtype: layers.Dtype = jnp.float32
    use_bias: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        b, h, w, c = x.shape
        _check_channels(c, self.key_ratio, self.key_ratio)

        def project(features: int, name: str) -> Array:
            conv = layers.Conv(
                features,
                kernel_size=1,
                use_bias=self.use_bias and name != "key",
                dtype=self.dtype,
                kernel_init=nn.initializers.lecun_uniform(),
                name=name,
            )
            return conv(x, train).reshape(b, h * w, features)

        query, key = project(c // self.key_ratio, "query"), project(c // self.key_ratio, "key")
        weights = jax.nn.softmax(matmul.matmul(query, matmul.transpose_last(key)).astype(jnp.float32), -1)
        attended = matmul.matmul(weights.astype(self.dtype), project(c, "value")).reshape(x.shape)
        return x + self.param("gain", nn.initializers.zeros_init(), ()).astype(x.dtype) * attended


def dot_product(query: Array, key: Array, value: Array, seen: Any = None) -> Array:
    """Attention by scaled dot products with a float32 softmax (Vaswani et al. 2017, eq. 1).

    Args:
      query: [b, m, heads, d].
      key: [b, n, heads, d].
      value: [b, n, heads, d].
      seen: bool [m, n], which keys a query may attend to, at least one; None: all.

    Returns [b, m, heads, d].
    """
    logit = jnp.einsum("bmhd,bnhd->bhmn", query, key).astype(jnp.float32) * query.shape[-1] ** -0.5
    if seen is not None:
        logit = jnp.where(seen, logit, -jnp.inf)
    weight = nn.softmax(logit, -1).astype(value.dtype)
    return jnp.einsum("bhmn,bnhd->bmhd", weight, value)


def check_resolutions(attention: tuple[int, ...], heights: list[int]) -> None:
    """Raises UserError if one of the `attention` heights is not among the feature maps' `heights`."""
    unknown = [height for height in attention if height not in heights]
    if unknown:
        raise errors.UserError(
            f"no feature map has attention height {unknown[0]}; heights: {', '.join(map(str, heights))}"
        )


def _check_channels(c: int, key_ratio: int, least: int) -> None:
    if c < least:
        raise errors.UserError(
            f"attention over {c} channels with key_ratio {key_ratio} needs at least {least} channels"
        )
