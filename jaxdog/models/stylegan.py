"""StyleGAN (Karras et al. 2019) or, with other settings, StyleGAN2 (Karras et al. 2020, config F).

A mapping network computes w from z, and w modulates every layer of the synthesis network. `modulation` is:
  adain        2019: adaptive instance norm, whose gain and bias are linear in w. The image is made from the
               last features. The networks may grow progressively, as those of `progan.py`.
  demodulated  2020: w scales the input channels of each kernel, which is then divided by its norm for each
               output channel. The image is the sum of the images of all resolutions (skip connections).

The discriminator is plain (2019) or residual (2020). All layers have an equalized learning rate. Resampling
includes a blur with the filter (1, 2, 1). Together with nearest upsampling or average pooling it is the
filter (1, 3, 3, 1) of 2020; resampled convolutions of the two papers differ only at the border.

A network at size x size has the layers of all resolutions from 4 up to size.
"""

import math
from functools import partial
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxdog import types
from jaxdog.models import layers, norms, resolutions
from jaxdog.ops import conv, resample2x
from jaxdog.utils import errors

Array = jax.Array

AVERAGES = "w_avg"  # the collection that holds the running mean of w
STYLE_MIXING_FOLD = 2_000_000  # folded into keys for style mixing; `layers.Noise` folds in 1,000,000

_normal = nn.initializers.normal(1.0)
_leaky = layers.activation("leaky_relu", 0.2)
_conv = partial(layers.Conv, spectral=False, equalized_lr=True, kernel_init=_normal)
_dense = partial(layers.Dense, spectral=False, equalized_lr=True)
_linear = partial(_dense, gain=1.0, kernel_init=_normal)  # no activation follows


class Gains(NamedTuple):
    """Where the gain sqrt(2) of a leaky ReLU is applied: to the kernel before it or to its output."""

    kernel: float
    after: float

    def act(self, x: Array) -> Array:
        """The leaky ReLU of x, times its gain."""
        return self.after * _leaky(x)


EARLY, LATE = Gains(layers.RELU_GAIN, 1.0), Gains(1.0, layers.RELU_GAIN)  # 2019, 2020
MODULATIONS = {"adain": EARLY, "demodulated": LATE}


# The generator's layers -------------------------------------------------------------------------------------


class Mapping(nn.Module):
    """z [b, n], label [b] int32 in [0, classes) -> w [b, features] float32.

    A class embedding of `embed_dim` is concatenated with z (0: unconditional), and both are normalized to a
    mean square of 1. The layers learn at `lr_multiplier` times the optimizer's learning rate.
    """

    features: int
    depth: int
    lr_multiplier: float
    classes: int
    embed_dim: int
    gains: Gains

    @nn.compact
    def __call__(self, z: Array, label: Array, train: bool) -> Array:
        w = z.astype(jnp.float32)
        if self.embed_dim:
            embed = layers.Embed(self.classes, self.embed_dim, False, kernel_init=_normal, name="embed")
            w = jnp.concatenate([w, embed(label, train)], 1)
        w = norms.PixelNorm()(w)
        dense = partial(_dense, self.features, gain=self.gains.kernel, lr_multiplier=self.lr_multiplier)
        for i in range(self.depth):
            layer = dense(kernel_init=nn.initializers.normal(1.0 / self.lr_multiplier), name=f"dense{i + 1}")
            w = self.gains.act(layer(w, train))
        return w


class AdaIN(nn.Module):
    """Adaptive instance norm (Karras et al. 2019, eq. 1): [b, h, w, c], w [b, k] -> [b, h, w, c].

    Each channel of each image is normalized over its pixels, then multiplied by a gain, 1 + linear(w), and
    shifted by a bias, linear(w).
    """

    epsilon: float = 1e-8

    @nn.compact
    def __call__(self, x: Array, w: Array, train: bool) -> Array:
        c = x.shape[-1]
        style = _linear(2 * c, name="style")(w, train)[:, None, None, :]
        deviation = x.astype(jnp.float32) - x.astype(jnp.float32).mean((1, 2), keepdims=True)
        normalized = deviation * lax.rsqrt(jnp.square(deviation).mean((1, 2), keepdims=True) + self.epsilon)
        return (normalized * (1.0 + style[..., :c]) + style[..., c:]).astype(x.dtype)


class ModulatedConv(nn.Module):
    """Modulated convolution (Karras et al. 2020): [b, h, w, c], w [b, k] -> [b, h', w', features].

    Input channel i of the kernel is scaled by s_i = 1 + linear(w)_i (eq. 1); `demodulate` then normalizes the
    kernel of each output channel to 1 (eq. 3). Scaling the features before and after the convolution is
    equivalent, and all images share one kernel.
    """

    features: int
    kernel_size: int = 3
    resample: str = "none"  # as in layers.Conv
    demodulate: bool = True
    use_bias: bool = False
    dtype: layers.Dtype = jnp.float32
    epsilon: float = 1e-8

    @nn.compact
    def __call__(self, x: Array, w: Array, train: bool) -> Array:
        c = x.shape[-1]
        scale = 1.0 + _linear(c, name="style")(w, train)
        kernel = self.param("kernel", _normal, (self.kernel_size, self.kernel_size, c, self.features))
        kernel = kernel / math.sqrt(self.kernel_size**2 * c)
        x = (x * scale[:, None, None, :]).astype(self.dtype)
        y = conv.conv2d(x, kernel.astype(self.dtype), self.resample)
        if self.demodulate:
            squares = jnp.square(scale) @ jnp.square(kernel).sum((0, 1))  # [b, features]
            y = y * lax.rsqrt(squares + self.epsilon)[:, None, None, :].astype(self.dtype)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros_init(), (self.features,))[None, None, None, :]
        return y


class Layer(nn.Module):
    """A synthesis layer: [b, h, w, c], w [b, k], key [b] -> [b, h', w', features].

    Modulated convolution, noise, bias, leaky ReLU; or convolution, noise, bias, leaky ReLU, AdaIN.
    """

    features: int
    index: int  # among the network's layers, from 0
    resample: str  # "none", "up" or "": no convolution (the first layer of 2019)
    modulation: str
    dtype: layers.Dtype

    @nn.compact
    def __call__(self, x: Array, w: Array, key: Array, train: bool) -> Array:
        adain = self.modulation == "adain"
        conv: dict[str, Any] = dict(features=self.features, resample=self.resample, dtype=self.dtype)
        if not adain:
            x = ModulatedConv(**conv, name="conv")(x, w, train)
        elif self.resample:
            x = _conv(**conv, use_bias=False, name="conv")(x, train)
        if self.resample == "up":
            x = resample2x.blur(x)
        x = layers.Noise(self.index, shared=not adain, name="noise")(x, key)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        x = MODULATIONS[self.modulation].act(x + bias.astype(x.dtype)[None, None, None, :])
        return AdaIN(name="adain")(x, w, train) if adain else x


class Synthesis(nn.Module):
    """w [b, layers, k], key [b] -> [b, size, size, 3] float32, not clipped to [-1, 1].

    Resolution 4 * 2^i uses w of index 2 i and 2 i + 1. With skip connections, the image of a resolution
    shares its w with the first convolution of the next resolution, as in 2020.
    """

    channels: int
    size: int
    full_width_resolution: int
    modulation: str
    alpha: Any  # None or [] float32 in [0, 1]: the last resolution fades in
    dtype: layers.Dtype

    @nn.compact
    def __call__(self, w: Array, key: Array, train: bool) -> Array:
        table = resolutions.widths(self.channels, self.size, self.full_width_resolution)
        adain = self.modulation == "adain"
        start = nn.initializers.ones_init() if adain else _normal
        constant = self.param("constant", start, (resolutions.BOTTOM,) * 2 + (table[resolutions.BOTTOM],))
        constant = constant.astype(self.dtype)
        h = jnp.broadcast_to(constant[None], (w.shape[0], *constant.shape))
        before, image = h, jnp.zeros(())
        for i, (height, features) in enumerate(table.items()):
            before, first = h, 2 * i - (not adain)  # 2020 has one layer at 4x4, 2019 two
            for index in range(max(first, 0), first + 2):
                resample = "up" if i and index == first else "none" if index or not adain else ""
                layer = Layer(features, index, resample, self.modulation, self.dtype, name=f"layer{index}")
                h = layers.checkpoint_block(layer(h, w[:, index], key, train))
            if not adain:
                rgb = ModulatedConv(3, 1, demodulate=False, use_bias=True, name=f"rgb{height}")
                skip = rgb(h.astype(jnp.float32), w[:, 2 * i + 1], train)
                image = skip + resample2x.blur(resample2x.upsample_nearest(image)) if i else skip
        return self._faded_image(h, before, train) if adain else image

    def _faded_image(self, h: Array, before: Array, train: bool) -> Array:
        """The image of the last features h, faded in over that of the previous resolution."""
        image = self._to_rgb(h, self.size, train)
        if self.alpha is None or self.size == resolutions.BOTTOM:
            return image
        lower = resample2x.upsample_nearest(self._to_rgb(before, self.size // 2, train))
        return resolutions.fade_in(image, lower, self.alpha)

    def _to_rgb(self, h: Array, size: int, train: bool) -> Array:
        return _conv(3, kernel_size=1, gain=1.0, name=f"rgb{size}")(h.astype(jnp.float32), train)


# The two players --------------------------------------------------------------------------------------------


class Generator(nn.Module):
    """z [b, latent_dim], label [b] int32 in [0, classes), train, key [b] -> [b, size, size, 3].

    Images are clipped to [-1, 1] if `train` is False; in training they are not bounded.

    The call is `synthesize(map_latents(z, ...), ...)`. Both are methods for `apply(..., method=...)`: path
    length regularization (Karras et al. 2020, eq. 4) needs the derivatives of `synthesize` with respect to w.

    In training, `map_latents` mixes the styles of two latents and updates the running mean of w, in the
    collection `AVERAGES`, if that is mutable. Otherwise it applies the truncation trick:
    w' = mean + truncation_psi * (w - mean).
    """

    channels: int
    latent_dim: int
    classes: int
    w_dim: int
    mapping_layers: int
    mapping_lr_multiplier: float  # of the optimizer's learning rate
    embed_dim: int  # of the class embedding; 0: unconditional
    modulation: Literal["adain", "demodulated"]  # w scales normalized maps, or demodulated kernels
    full_width_resolution: int  # see `resolutions.widths`
    style_mixing_prob: float  # in [0, 1], probability that a training image mixes two latents
    truncation_psi: float  # 0: the mean image; 1: no truncation
    truncation_cutoff: int  # the highest resolution whose w are truncated
    w_avg_beta: float  # decay of the running mean of w, per step
    size: int = 64
    alpha: Any = None  # None or [] float32 in [0, 1]: the last resolution fades in
    dtype: layers.Dtype = jnp.float32

    def setup(self) -> None:
        if self.modulation not in MODULATIONS:
            raise errors.UserError(
                f"modulation is {self.modulation!r}; choices: {', '.join(sorted(MODULATIONS))}"
            )
        if self.modulation != "adain" and self.alpha is not None:
            raise errors.UserError(
                f"modulation {self.modulation!r} does not fade in: set system.fade to zeros, or use adain"
            )
        gains = MODULATIONS[self.modulation]
        self.mapping = Mapping(
            self.w_dim, self.mapping_layers, self.mapping_lr_multiplier, self.classes, self.embed_dim, gains
        )
        self.synthesis = Synthesis(
            self.channels, self.size, self.full_width_resolution, self.modulation, self.alpha, self.dtype
        )
        self.mean = self.variable(AVERAGES, "w", jnp.zeros, (self.w_dim,))

    def __call__(self, z: Array, label: Array, train: bool, key: Array | None = None) -> Array:
        if key is None:
            raise errors.UserError("this generator adds noise maps and needs `key`, a random key per image")
        image = self.synthesize(self.map_latents(z, label, train, key), train, key)
        return image if train else jnp.clip(image, -1.0, 1.0)

    def map_latents(self, z: Array, label: Array, train: bool, key: Array) -> Array:
        """The w of each layer, [b, layers, w_dim] float32."""
        heights = resolutions.up_to(self.size)
        w = self.mapping(z, label, train)
        if train:
            if self.is_mutable_collection(AVERAGES) and not self.is_initializing():
                now = lax.stop_gradient(w).mean(0)
                self.mean.value = self.w_avg_beta * self.mean.value + (1.0 - self.w_avg_beta) * now
            return self._mix_styles(w, label, key, 2 * len(heights))
        mean = self.mean.value[None]
        truncated = mean + self.truncation_psi * (w - mean)
        per_layer = [
            truncated if height <= self.truncation_cutoff else w for height in heights for _ in (0, 1)
        ]
        return jnp.stack(per_layer, 1)

    def _mix_styles(self, w: Array, label: Array, key: Array, count: int) -> Array:
        """Style mixing (Karras et al. 2019, sec. 3.1): w [b, k] -> [b, count, k].

        From a random layer on, an image has the w of a second latent of the same class.
        """

        def draw(key: Array) -> tuple[Array, Array]:
            z_key, mix_key, first_key = jax.random.split(jax.random.fold_in(key, STYLE_MIXING_FOLD), 3)
            mixed = jax.random.bernoulli(mix_key, self.style_mixing_prob)
            first = jnp.where(mixed, jax.random.randint(first_key, (), 1, count), count)
            return jax.random.normal(z_key, (self.latent_dim,)), first

        z, first = jax.vmap(draw)(key)
        second = self.mapping(z, label, True)
        before = jnp.arange(count)[None, :, None] < first[:, None, None]
        return jnp.where(before, w[:, None, :], second[:, None, :])

    def synthesize(self, w: Array, train: bool, key: Array) -> Array:
        """w [b, layers, w_dim] -> images [b, size, size, 3], not clipped to [-1, 1]."""
        return self.synthesis(w, key, train)


class DiscriminatorBlock(nn.Module):
    """[b, h, w, c] -> [b, h/2, w/2, features]; `residual` scales the sum by sqrt(1/2) (2020, fig. 7)."""

    features: int
    residual: bool
    dtype: layers.Dtype

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        gains = LATE if self.residual else EARLY
        conv = partial(_conv, gain=gains.kernel, dtype=self.dtype)
        h = gains.act(conv(x.shape[-1], name="conv1")(x, train))
        h = gains.act(conv(self.features, resample="down", name="conv2")(resample2x.blur(h), train))
        if not self.residual:
            return h
        shortcut = conv(self.features, kernel_size=1, use_bias=False, resample="down", name="shortcut")
        return (h + shortcut(resample2x.blur(x), train)) * math.sqrt(0.5)


class Discriminator(nn.Module):
    """x [b, size, size, 3], label [b] int32 in [0, classes), train -> DiscriminatorOutput.

    Minibatch standard deviation precedes the last convolution. `projection` adds <embed(label), h> / sqrt(c)
    to the logit, with h [b, c] the last features (Miyato & Koyama 2018); without it the discriminator is
    unconditional.
    """

    channels: int
    classes: int
    residual: bool
    projection: bool
    mbstd_group_size: int  # 0: the whole batch
    full_width_resolution: int  # see `resolutions.widths`
    size: int = 64
    alpha: Any = None  # None or [] float32 in [0, 1]: the first block fades in
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, label: Array, train: bool) -> types.DiscriminatorOutput:
        gains = LATE if self.residual else EARLY
        table = resolutions.widths(self.channels, self.size, self.full_width_resolution)
        conv = partial(_conv, gain=gains.kernel, dtype=self.dtype)

        def from_rgb(x: Array, height: int) -> Array:
            return gains.act(conv(table[height], kernel_size=1, name=f"rgb{height}")(x, train))

        h = from_rgb(x, self.size)
        bottom, *larger = table
        for height in reversed(larger):
            block = DiscriminatorBlock(table[height // 2], self.residual, self.dtype, name=f"block{height}")
            h = layers.checkpoint_block(block(h, train))
            if self.alpha is not None and height == self.size:
                h = resolutions.fade_in(h, from_rgb(resample2x.avg_pool(x), height // 2), self.alpha)
        h = layers.MinibatchStd(self.mbstd_group_size)(h)
        h = gains.act(conv(self.channels, name="conv")(h, train))
        h = gains.act(conv(self.channels, kernel_size=bottom, resample="collapse", name="collapse")(h, train))
        h = h[:, 0, 0].astype(jnp.float32)
        logit = _linear(1, name="score")(h, train)[:, 0]
        if self.projection:
            embed = layers.Embed(self.classes, self.channels, False, kernel_init=_normal, name="embed")
            logit = logit + jnp.sum(embed(label, train) * h, -1) / math.sqrt(self.channels)
        return types.DiscriminatorOutput(logit)
