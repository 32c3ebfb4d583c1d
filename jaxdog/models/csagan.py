"""Conditional SAGAN of a Kaggle notebook of 2019: a DCGAN with self-attention and class conditioning.

Every convolution has spectral norm. In the generator, a class embedding is concatenated with z, and the norms
are conditional; in the discriminator, the class is a fourth channel of the image. Initialization is torch's
default.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdog import types
from jaxdog.models import attention, initializers, layers, norms, resolutions
from jaxdog.utils import errors

Array = jax.Array

PLANES = "planes"  # the collection that holds the discriminator's plane of each class


def drop_channels(x: Array, key: Array, layer_index: int, rate: float) -> Array:
    """Spatial dropout of x [b, h, w, c], key [b]: drops whole channels with probability `rate`.

    Tompson et al. 2015, sec. 3.2; torch's Dropout2d. Layers with different `layer_index` drop different
    channels.
    """
    # Offset, since rejection sampling already uses fold_in(key, 0), fold_in(key, 1), ..., and `layers.Noise`
    # uses 1,000,000 and above.
    keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(key, 2_000_000 + layer_index)
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate, (x.shape[-1],)))(keys)
    return x * (kept / (1.0 - rate)).astype(x.dtype)[:, None, None, :]


def _attention(height: int, dtype: layers.Dtype) -> attention.SelfAttention:
    start = initializers.TorchDefault()
    return attention.SelfAttention(
        8, dtype, use_bias=True, kernel_init=start.kernel, bias_init=start.bias, name=f"attention{height}"
    )


def _check_dropout(dropout: tuple[float, ...], widths: tuple[int, ...]) -> None:
    if dropout and len(dropout) != len(widths):
        raise errors.UserError(
            f"dropout has {len(dropout)} rates for {len(widths)} widths; give one each, or none"
        )


class Generator(nn.Module):
    """z [b, latent_dim], label [b] int32 in [0, classes), train, key [b] -> [b, size, size, 3] in [-1, 1].

    The smallest map is a transposed convolution of z and the class embedding scaled to length 1; each
    width after the first doubles the height. In training with dropout, `key` is required.
    """

    widths: tuple[int, ...]  # channels of the smallest map, then of each larger one
    latent_dim: int
    classes: int
    size: int = 64
    dropout: tuple[float, ...] = ()  # rate of the channel dropout after each width; (): none
    attention: tuple[int, ...] = ()  # heights of the maps that self-attention follows
    slope: float = 0.05  # of all leaky ReLUs
    dtype: layers.Dtype = jnp.float32

    def heights(self) -> list[int]:
        """The heights of the maps."""
        bottom = resolutions.bottom_width(self.size, len(self.widths) - 1)
        _check_dropout(self.dropout, self.widths)
        heights = [bottom << i for i in range(len(self.widths))]
        attention.check_resolutions(self.attention, heights)
        return heights

    @nn.compact
    def __call__(self, z: Array, label: Array, train: bool, key: Array | None = None) -> Array:
        heights, condition = self.heights(), jax.nn.one_hot(label, self.classes)
        act = layers.activation("leaky_relu", self.slope)
        conv = partial(layers.Conv, use_bias=False, kernel_init=initializers.TorchDefault("out").kernel)
        norm = partial(
            norms.ConditionalBatchNorm,
            spectral=False,
            joint=True,
            base_affine=True,
            kernel_init=nn.initializers.zeros_init(),
        )
        embed = layers.Embed(self.classes, self.latent_dim, False, nn.initializers.normal(1.0), name="embed")(
            label, train
        )
        h = jnp.concatenate([z, norms.l2_normalize(embed)], 1)[:, None, None, :]
        for i, (height, width) in enumerate(zip(heights, self.widths, strict=True)):
            kernel_size, resample = (4, "transposed") if i else (height, "expand")
            h = conv(width, kernel_size, resample=resample, dtype=self.dtype, name=f"conv{i}")(h, train)
            h = act(norm(name=f"norm{i}")(h, condition, train))
            h = layers.checkpoint_block(h)
            if train and self.dropout and self.dropout[i]:
                if key is None:
                    raise errors.UserError(
                        "this generator has dropout and needs `key`, a random key per image"
                    )
                h = drop_channels(h, key, i, self.dropout[i])
            if height in self.attention:
                h = _attention(height, self.dtype)(h, train)
        # A transposed convolution in torch; its 3x3 kernel is this one rotated by 180 degrees.
        h = conv(3, 3, name="small")(h.astype(jnp.float32), train)
        h = act(norm(name="small_norm")(h, condition, train))
        last = layers.Conv(3, use_bias=False, kernel_init=initializers.TorchDefault().kernel, name="rgb")
        return jnp.tanh(last(h, train))


class Discriminator(nn.Module):
    """x [b, size, size, 3] in [-1, 1], label [b] int32 in [0, classes), train -> DiscriminatorOutput.

    Each class is a fixed random plane of signs. The original was meant to learn the planes, but divided each
    element by its own magnitude, which leaves only its sign and no gradient.

    Training with dropout needs an rng named "dropout".
    """

    widths: tuple[int, ...]  # channels after each convolution; each halves the height
    classes: int
    size: int = 64
    dropout: tuple[float, ...] = ()  # rate of the dropout after each width; (): none
    attention: tuple[int, ...] = ()  # heights of the maps that self-attention follows
    slope: float = 0.2  # of the leaky ReLUs
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, label: Array, train: bool) -> types.DiscriminatorOutput:
        planes = self.variable(PLANES, "sign", self._signs).value
        h = self.features(jnp.concatenate([x, planes[label][..., None]], -1), train)
        h = layers.MinibatchStd()(h.astype(jnp.float32))
        start = initializers.TorchDefault().kernel
        head = layers.Conv(1, h.shape[1], False, resample="collapse", kernel_init=start, name="head")
        return types.DiscriminatorOutput(head(h, train)[:, 0, 0, 0])

    def _signs(self) -> Array:
        shape = (self.classes, self.size, self.size)
        return jax.random.rademacher(self.make_rng("params"), shape, jnp.float32)

    def features(self, x: Array, train: bool) -> Array:
        """The last map, [b, h, w, widths[-1]]."""
        _check_dropout(self.dropout, self.widths)
        heights = [self.size >> i for i in range(1, len(self.widths) + 1)]
        attention.check_resolutions(self.attention, heights)
        act, start = layers.activation("leaky_relu", self.slope), initializers.TorchDefault().kernel
        h = x
        for i, (height, width) in enumerate(zip(heights, self.widths, strict=True)):
            conv = layers.Conv(
                width, 4, False, resample="strided", dtype=self.dtype, kernel_init=start, name=f"conv{i}"
            )
            h = act(norms.BatchNorm(affine=True, name=f"norm{i}")(conv(h, train), train))
            h = layers.checkpoint_block(h)
            if self.dropout and self.dropout[i]:
                h = nn.Dropout(self.dropout[i], deterministic=not train)(h)
            if height in self.attention:
                h = _attention(height, self.dtype)(h, train)
        return h
