"""DCGAN (Radford, Metz, Chintala 2016) for small images, with the variations of several competition entries.

The generator has transposed convolutions, the discriminator strided ones. Norms, spectral norm, the
discriminator's first and last layers and class conditioning (Odena et al. 2017: an embedding concatenated
with z, a class head) are options. Initialization is torch's default, as in those entries, or the paper's.
"""

from functools import partial
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdog import types
from jaxdog.models import heads, initializers, layers, norms, resolutions
from jaxdog.ops import resample2x
from jaxdog.utils import errors

Array = jax.Array

NORMS = ("batch", "pixel")
# (kernel size, resampling, fan of torch's default initialization).
UPSAMPLINGS = {"transposed": (4, "transposed", "out"), "nearest": (3, "up", "in")}


class Normal(NamedTuple):
    """The paper's initialization: kernel N(0, 0.02^2), bias 0."""

    fan: str = "in"  # not used

    def kernel(self, key: Array, shape: tuple[int, ...]) -> Array:
        """[..., in, out]."""
        return 0.02 * jax.random.normal(key, shape)

    def bias(self, key: Array, shape: tuple[int, ...]) -> Array:
        """[out], for a kernel of `shape` [..., in, out]."""
        return initializers.zero_bias(key, shape)


INITIALIZERS = {"torch": initializers.TorchDefault, "normal": Normal}


def _initializer(name: str, fan: str) -> initializers.TorchDefault | Normal:
    """The initializers named `name`; fan is "out" for transposed convolutions."""
    if name not in INITIALIZERS:
        raise errors.UserError(f"initializer is {name!r}; choices: {', '.join(sorted(INITIALIZERS))}")
    return INITIALIZERS[name](fan)


def _check_indices(field: str, indices: tuple[int, ...], widths: tuple[int, ...]) -> None:
    unknown = [i for i in indices if not 0 <= i < len(widths)]
    if unknown:
        raise errors.UserError(f"{field} names convolution {unknown[0]}; there are 0 to {len(widths) - 1}")


class Generator(nn.Module):
    """z [b, latent_dim], label [b] int32 in [0, classes), train, key [b] -> [b, size, size, 3] in [-1, 1].

    The smallest map is a transposed convolution of z. Each width after the first doubles the height, by a 4x4
    transposed convolution or by nearest upsampling and a 3x3 convolution. With `embed_dim`, a class embedding
    that starts as N(0, 1) is concatenated before z; otherwise the generator is unconditional.
    """

    widths: tuple[int, ...]  # channels of the smallest map, then of each larger one
    latent_dim: int
    classes: int
    size: int = 64
    upsampling: Literal["transposed", "nearest"] = "transposed"
    norm: Literal["batch", "pixel"] = "batch"  # before each activation; or after each but the first
    spectral: bool = False
    rgb_bias: bool = True  # of the last convolution; the others have no bias
    extra_convs: tuple[int, ...] = ()  # indices, from 0, of the maps followed by an extra 3x3 convolution
    rgb_upsample: bool = False  # whether the last convolution doubles the height (4x4) or not (3x3)
    activation: layers.Activation = "relu"
    slope: float = 0.2  # of a leaky ReLU
    embed_dim: int = 0  # of the class embedding; 0: unconditional
    initializer: Literal["torch", "normal"] = "torch"
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, z: Array, label: Array, train: bool, key: Array | None = None) -> Array:
        if self.norm not in NORMS:
            raise errors.UserError(f"norm is {self.norm!r}; choices: {', '.join(NORMS)}")
        if self.upsampling not in UPSAMPLINGS:
            raise errors.UserError(f"upsampling is {self.upsampling!r}; choices: {', '.join(UPSAMPLINGS)}")
        # In torch all are transposed convolutions, with a 3x3 kernel rotated by 180 degrees.
        init = _initializer(self.initializer, "out")
        conv = partial(
            layers.Conv,
            spectral=self.spectral,
            kernel_init=init.kernel,
            bias_init=init.bias,
            dtype=self.dtype,
        )
        act = layers.activation(self.activation, self.slope)
        bottom = resolutions.bottom_width(self.size, len(self.widths) - 1 + self.rgb_upsample)
        if self.embed_dim:
            embed = layers.Embed(
                self.classes, self.embed_dim, False, nn.initializers.normal(1.0), name="embed"
            )
            z = jnp.concatenate([embed(label, train), z], 1)

        def layer(
            h: Array, i: int, kernel_size: int, resample: str, fan: str = "out", suffix: str = ""
        ) -> Array:
            name, kernel_init = f"{i}{suffix}", _initializer(self.initializer, fan).kernel
            convolve = conv(
                self.widths[i],
                kernel_size,
                use_bias=False,
                resample=resample,
                kernel_init=kernel_init,
                name=f"conv{name}",
            )
            h = convolve(h, train)
            if self.norm == "batch":
                h = norms.BatchNorm(affine=True, name=f"norm{name}")(h, train)
            h = act(h)
            return layers.checkpoint_block(norms.PixelNorm()(h) if self.norm == "pixel" and i else h)

        _check_indices("extra_convs", self.extra_convs, self.widths)
        h = layer(z[:, None, None, :], 0, bottom, "expand")
        for i in range(len(self.widths)):
            h = layer(h, i, *UPSAMPLINGS[self.upsampling]) if i else h
            h = layer(h, i, 3, "none", suffix="_again") if i in self.extra_convs else h
        kernel_size, resample = (4, "transposed") if self.rgb_upsample else (3, "none")
        rgb = conv(3, kernel_size, use_bias=self.rgb_bias, resample=resample, dtype=jnp.float32, name="rgb")
        return jnp.tanh(rgb(h.astype(jnp.float32), train))


class Trunk(nn.Module):
    """Strided convolutions, [b, size, size, 3] in [-1, 1] -> [b, h, w, widths[-1]]."""

    widths: tuple[int, ...]  # channels after each convolution; each halves the height, see `stem`
    size: int = 64
    stem: Literal["strided", "none"] = "strided"  # the first convolution: 4x4 with stride 2, or 3x3
    batch_norms: tuple[int, ...] = ()  # indices, from 0, of the convolutions followed by batch norm
    extra_convs: tuple[int, ...] = ()  # indices of those followed by an extra 3x3 convolution and batch norm
    spectral: bool = False  # of all convolutions but the first
    pool: bool = False  # 2x2 max pooling before the last activation
    slope: float = 0.2  # of the leaky ReLUs
    dtype: layers.Dtype = jnp.float32

    def features(self, x: Array, train: bool, initializer: str = "torch", dropout: float = 0.0) -> Array:
        """The last map after its activation, [b, h, w, widths[-1]].

        initializer: a key of INITIALIZERS.
        dropout: rate of the dropout after each activation.
        """
        self._check()
        act = layers.activation("leaky_relu", self.slope)
        h = x
        for i, width in enumerate(self.widths):
            resample = "strided" if i else self.stem
            conv = layers.Conv(
                width,
                4 if resample == "strided" else 3,
                use_bias=False,
                spectral=self.spectral and i > 0,
                resample=resample,
                dtype=self.dtype,
                kernel_init=_initializer(initializer, "in").kernel,
                name=f"conv{i}",
            )
            h = conv(h, train)
            if i in self.batch_norms:
                h = norms.BatchNorm(affine=True, name=f"norm{i}")(h, train)
            if self.pool and i == len(self.widths) - 1:
                h = resample2x.max_pool(h)
            h = layers.checkpoint_block(act(h))
            if i in self.extra_convs:
                extra_conv = layers.Conv(
                    width,
                    use_bias=False,
                    spectral=self.spectral,
                    dtype=self.dtype,
                    kernel_init=_initializer(initializer, "in").kernel,
                    name=f"conv{i}_again",
                )
                h = norms.BatchNorm(affine=True, name=f"norm{i}_again")(extra_conv(h, train), train)
                h = act(h)
            if dropout:
                h = nn.Dropout(dropout, deterministic=not train, name=f"dropout{i}")(h)
        return h

    def _check(self) -> None:
        if self.stem not in ("strided", "none"):
            raise errors.UserError(f"stem is {self.stem!r}; choices: strided, none")
        _check_indices("batch_norms", self.batch_norms, self.widths)
        _check_indices("extra_convs", self.extra_convs, self.widths)


class Discriminator(Trunk, kw_only=True):
    """x [b, size, size, 3] in [-1, 1], label [b], train -> DiscriminatorOutput.

    Only the class head sees the label. Training with dropout needs an rng named "dropout". No
    convolution has a bias, except the last one if `head_bias`.
    """

    classes: int
    minibatch_std: bool = False  # of the whole batch, before the last convolution
    dropout: float = 0.0  # rate of the dropout after each activation
    head_bias: bool = False  # of the last convolution
    class_head: heads.ClassHead = "none"
    initializer: Literal["torch", "normal"] = "torch"

    @nn.compact
    def __call__(self, x: Array, label: Array, train: bool) -> types.DiscriminatorOutput:
        h = self.features(x, train, self.initializer, self.dropout).astype(jnp.float32)
        if self.minibatch_std:
            h = layers.MinibatchStd()(h)

        linear = partial(
            layers.Conv,
            kernel_size=h.shape[1],
            use_bias=self.head_bias,
            spectral=self.spectral,
            resample="collapse",
            kernel_init=_initializer(self.initializer, "in").kernel,
            bias_init=_initializer(self.initializer, "in").bias,
        )
        return heads.discriminator_head(
            h,
            label,
            train,
            class_head=self.class_head,
            classes=self.classes,
            linear=linear,
            logit_name="head",
        )


class Encoder(Trunk, kw_only=True):
    """x [b, size, size, 3] in [-1, 1], train -> (mean, log variance) of the latent, both [b, latent_dim].

    The discriminator's trunk, with the same parameter names, and a different last convolution.
    """

    latent_dim: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> tuple[Array, Array]:
        h = self.features(x, train).astype(jnp.float32)
        init = initializers.TorchDefault()
        head = layers.Conv(
            2 * self.latent_dim,
            h.shape[1],
            spectral=False,
            resample="collapse",
            kernel_init=init.kernel,
            bias_init=init.bias,
            name="latent",
        )
        mean, logvar = jnp.split(head(h, train)[:, 0, 0], 2, -1)
        return mean, logvar
