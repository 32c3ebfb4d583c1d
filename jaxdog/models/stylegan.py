"""StyleGAN (Karras et al. 2019), and with other settings StyleGAN2 (Karras et al. 2020, config F).

A mapping network makes w of z; in every layer of the synthesis network w says what the features look like.
`modulation` says how:
  adain        2019: each channel is normalised within its picture and gets its gain and bias from w; the
               picture is made of the last features. The network may grow, as those of `progan.py` do.
  demodulated  2020: w scales the inputs of each convolution's kernel, whose norm is then divided out; the
               pictures that the features of all heights make are added up.

The discriminator is plain (2019) or residual (2020). Every kernel is equalised. Around a change of the height
lies a blur of (1, 2, 1); with the nearest neighbour, or the mean, it is 2020's filter of (1, 3, 3, 1), so
that the two papers' resampled convolutions differ along the border only.

A network at size x size has the layers of all heights from 4 up to its own.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxdog import types
from jaxdog.models import layers
from jaxdog.ops import conv

Array = jax.Array
Dtype = Any

BOTTOM = 4  # height of the smallest map
AVERAGES = "averages"  # the generator's collection that holds the running mean of w
MIX = 2_000_000  # folded into a picture's key where its second style is drawn; `layers.Noise` has 1,000,000

_normal = nn.initializers.normal(1.0)
_leaky = layers.activation("leaky_relu", 0.2)
_conv = partial(layers.Conv, spectral=False, equalised=True, kernel_init=_normal)
_dense = partial(layers.Dense, spectral=False, equalised=True)
_linear = partial(_dense, gain=1.0, kernel_init=_normal)  # nothing follows that would halve the variance


class Gains(NamedTuple):
    """Where the factor sqrt(2) is that makes up for a leaky ReLU."""

    kernel: float  # of the layer before it
    after: float  # of what comes out

    def act(self, x: Array) -> Array:
        """The leaky ReLU of x."""
        return self.after * _leaky(x)


EARLY, LATE = Gains(layers.RELU_GAIN, 1.0), Gains(1.0, layers.RELU_GAIN)  # 2019, 2020
MODULATIONS = {"adain": EARLY, "demodulated": LATE}


def widths(channels: int, size: int, wide_to: int) -> dict[int, int]:
    """The channels of the maps of each height 4, 8, ..., size.

    Up to the height `wide_to` they are `channels`; above, half as many at each height. ValueError for a size
    that is not among them, or too large for so few channels.
    """
    heights = [BOTTOM << i for i in range(max(size // BOTTOM, 1).bit_length())]
    if heights[-1] != size:
        raise ValueError(f"a StyleGAN of {size}x{size} is unknown; sizes: 4, 8, 16, ...")
    found = {height: channels * wide_to // max(height, wide_to) for height in heights}
    if found[size] < 1:
        raise ValueError(f"{channels} channels are too few for {size}x{size}: nothing is left of them")
    return found


def _faded(new: Array, old: Array, alpha: Array | float) -> Array:
    return alpha * new + (1.0 - alpha) * old


# The generator's layers -------------------------------------------------------------------------------------


class Mapping(nn.Module):
    """z [b, n], label [b] int32 in [0, classes) -> w [b, features] float32.

    The breed is a learnt vector of `embed_dim` beside z; 0: it is not looked at. Both together are brought to
    a mean square of 1. The layers learn at `rate` times the optimiser's rate.
    """

    features: int
    depth: int
    rate: float
    classes: int
    embed_dim: int
    gains: Gains

    @nn.compact
    def __call__(self, z: Array, label: Array, train: bool) -> Array:
        w = z.astype(jnp.float32)
        if self.embed_dim:
            embed = layers.Embed(self.classes, self.embed_dim, False, kernel_init=_normal, name="embed")
            w = jnp.concatenate([w, embed(label, train)], 1)
        w = layers.PixelNorm()(w)
        dense = partial(_dense, self.features, gain=self.gains.kernel, rate=self.rate)
        for i in range(self.depth):
            layer = dense(kernel_init=nn.initializers.normal(1.0 / self.rate), name=f"dense{i + 1}")
            w = self.gains.act(layer(w, train))
        return w


class AdaIN(nn.Module):
    """Each channel of each picture brought to a mean and a deviation: [b, h, w, c], w [b, k] -> [b, h, w, c].

    They are linear in w: deviations about 1 and means about 0 (Karras et al. 2019, eq. 1).
    """

    eps: float = 1e-8

    @nn.compact
    def __call__(self, x: Array, w: Array, train: bool) -> Array:
        c = x.shape[-1]
        style = _linear(2 * c, name="style")(w, train)[:, None, None, :]
        deviation = x.astype(jnp.float32) - x.astype(jnp.float32).mean((1, 2), keepdims=True)
        unit = deviation * lax.rsqrt(jnp.square(deviation).mean((1, 2), keepdims=True) + self.eps)
        return (unit * (1.0 + style[..., :c]) + style[..., c:]).astype(x.dtype)


class ModulatedConv(nn.Module):
    """A convolution whose kernel each picture scales: [b, h, w, c], w [b, k] -> [b, h', w', features].

    The kernel's input i is scaled by s_i, linear in w and about 1 (Karras et al. 2020, eq. 1); `demodulate`
    then brings the kernel of each output to norm 1 (eq. 3). Here the features are scaled instead, before and
    after, which is the same, and lets all pictures share one kernel.
    """

    features: int
    size: int = 3
    resample: str = "none"  # as in layers.Conv
    demodulate: bool = True
    bias: bool = False
    dtype: Dtype = jnp.float32
    eps: float = 1e-8

    @nn.compact
    def __call__(self, x: Array, w: Array, train: bool) -> Array:
        c = x.shape[-1]
        scale = 1.0 + _linear(c, name="style")(w, train)
        kernel = self.param("kernel", _normal, (self.size, self.size, c, self.features))
        kernel = kernel / math.sqrt(self.size**2 * c)
        x = (x * scale[:, None, None, :]).astype(self.dtype)
        y = conv.conv2d(x, kernel.astype(self.dtype), self.resample)
        if self.demodulate:
            squares = jnp.square(scale) @ jnp.square(kernel).sum((0, 1))  # [b, features]
            y = y * lax.rsqrt(squares + self.eps)[:, None, None, :].astype(self.dtype)
        if self.bias:
            y = y + self.param("bias", nn.initializers.zeros_init(), (self.features,))[None, None, None, :]
        return y


class Layer(nn.Module):
    """A convolution under a style, noise, bias, leaky ReLU: [b, h, w, c], w [b, k], key [b] -> features.

    With AdaIN the style comes last, and without a convolution the layer begins with the noise.
    """

    features: int
    place: int  # among the network's layers, from 0
    resample: str  # "none" | "up" | "": no convolution
    modulation: str
    dtype: Dtype

    @nn.compact
    def __call__(self, x: Array, w: Array, key: Array, train: bool) -> Array:
        adain = self.modulation == "adain"
        conv: dict[str, Any] = dict(features=self.features, resample=self.resample, dtype=self.dtype)
        if not adain:
            x = ModulatedConv(**conv, name="conv")(x, w, train)
        elif self.resample:
            x = _conv(**conv, bias=False, name="conv")(x, train)
        if self.resample == "up":
            x = layers.blur(x)
        x = layers.Noise(self.place, shared=not adain, name="noise")(x, key)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        x = MODULATIONS[self.modulation].act(x + bias.astype(x.dtype)[None, None, None, :])
        return AdaIN(name="adain")(x, w, train) if adain else x


class Synthesis(nn.Module):
    """w [b, layers, k], key [b] -> [b, size, size, 3] float32, not held within [-1, 1].

    The w of layer 2 i and 2 i + 1 are those of the height 4 * 2^i. Where the pictures of all heights are
    added up, each of them shares its w with the first convolution of the next height, as in 2020.
    """

    channels: int
    size: int
    wide_to: int
    modulation: str
    alpha: Any  # None | [] float32 in [0, 1]
    dtype: Dtype

    @nn.compact
    def __call__(self, w: Array, key: Array, train: bool) -> Array:
        wide = widths(self.channels, self.size, self.wide_to)
        adain = self.modulation == "adain"
        start = nn.initializers.ones_init() if adain else _normal
        constant = self.param("constant", start, (BOTTOM, BOTTOM, wide[BOTTOM])).astype(self.dtype)
        h = jnp.broadcast_to(constant[None], (w.shape[0], *constant.shape))
        before, image = h, jnp.zeros(())
        for i, (height, features) in enumerate(wide.items()):
            before, first = h, 2 * i - (not adain)  # 2020 has no layer before the first convolution
            for place in range(max(first, 0), first + 2):
                kind = "up" if i and place == first else "none" if place or not adain else ""
                layer = Layer(features, place, kind, self.modulation, self.dtype, name=f"layer{place}")
                h = layers.handed(layer(h, w[:, place], key, train))
            if not adain:
                rgb = ModulatedConv(3, 1, demodulate=False, bias=True, name=f"rgb{height}")
                part = rgb(h.astype(jnp.float32), w[:, 2 * i + 1], train)
                image = part + layers.blur(layers.upsample_nearest(image)) if i else part
        return self._last(h, before, train) if adain else image

    def _last(self, h: Array, before: Array, train: bool) -> Array:
        """The picture of the last features; faded with that of the features one height below."""
        image = self._rgb(h, self.size, train)
        if self.alpha is None or self.size == BOTTOM:
            return image
        lower = layers.upsample_nearest(self._rgb(before, self.size // 2, train))
        return _faded(image, lower, self.alpha)

    def _rgb(self, h: Array, size: int, train: bool) -> Array:
        return _conv(3, size=1, gain=1.0, name=f"rgb{size}")(h.astype(jnp.float32), train)


# The two players --------------------------------------------------------------------------------------------


class Generator(nn.Module):
    """z [b, latent_dim], label [b] int32 in [0, classes), train, key [b] -> [b, size, size, 3].

    Nothing holds the pictures within [-1, 1] while training; otherwise they are cut there.

    It is `paint(styles(z, ...), ...)`, and both can be called by themselves (`apply(..., method="paint")`):
    path length regularisation (Karras et al. 2020, eq. 4) is about the derivatives of `paint` by w.

    While training, `styles` mixes the styles of two latents, and moves the running mean of w, which the
    collection `AVERAGES` holds, where that is mutable. Otherwise it pulls w towards that mean, to `psi` of
    its distance: the mean picture at 0, as mapped at 1.
    """

    channels: int
    latent_dim: int
    classes: int
    style_dim: int  # numbers of w
    mapping_layers: int
    mapping_rate: float  # share of the optimiser's learning rate
    embed_dim: int  # of the breed's vector beside z; 0: breeds are not looked at
    modulation: str  # "adain" | "demodulated"
    wide_to: int  # see `widths`
    mixing: float  # probability that a picture has the styles of two latents
    psi: float
    psi_to: int  # height of the last maps whose w are pulled towards the mean
    mean_decay: float  # of the running mean of w, for each step
    size: int = 64
    alpha: Any = None  # None | [] float32 in [0, 1]: the newest layers fade in
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        if self.modulation not in MODULATIONS:
            raise ValueError(f"modulation is {self.modulation!r}; choices: {', '.join(sorted(MODULATIONS))}")
        if self.modulation != "adain" and self.alpha is not None:
            raise ValueError(
                f"modulation {self.modulation!r} does not fade in: set game.fade to zeros, or take adain"
            )
        gains = MODULATIONS[self.modulation]
        self.mapping = Mapping(
            self.style_dim, self.mapping_layers, self.mapping_rate, self.classes, self.embed_dim, gains
        )
        self.synthesis = Synthesis(
            self.channels, self.size, self.wide_to, self.modulation, self.alpha, self.dtype
        )
        self.mean = self.variable(AVERAGES, "w", jnp.zeros, (self.style_dim,))

    def __call__(self, z: Array, label: Array, train: bool, key: Array | None = None) -> Array:
        if key is None:
            raise ValueError("this generator draws noise maps: it needs a key for each picture")
        image = self.paint(self.styles(z, label, train, key), train, key)
        return image if train else jnp.clip(image, -1.0, 1.0)

    def styles(self, z: Array, label: Array, train: bool, key: Array) -> Array:
        """The w of each layer, [b, layers, style_dim] float32."""
        count = 2 * len(widths(self.channels, self.size, self.wide_to))
        w = self.mapping(z, label, train)
        if train:
            if self.is_mutable_collection(AVERAGES) and not self.is_initializing():
                now = lax.stop_gradient(w).mean(0)
                self.mean.value = self.mean_decay * self.mean.value + (1.0 - self.mean_decay) * now
            return self._mixed(w, label, key, count)
        mean = self.mean.value[None]
        pulled = mean + self.psi * (w - mean)
        heights = [BOTTOM << (i // 2) for i in range(count)]
        return jnp.stack([pulled if height <= self.psi_to else w for height in heights], 1)

    def _mixed(self, w: Array, label: Array, key: Array, count: int) -> Array:
        """From a layer on that is drawn for each picture, the w of another latent of the same breed."""

        def draw(key: Array) -> tuple[Array, Array]:
            z_key, coin, place = jax.random.split(jax.random.fold_in(key, MIX), 3)
            mixed = jax.random.bernoulli(coin, self.mixing)
            first = jnp.where(mixed, jax.random.randint(place, (), 1, count), count)
            return jax.random.normal(z_key, (self.latent_dim,)), first

        z, first = jax.vmap(draw)(key)
        second = self.mapping(z, label, True)
        own = jnp.arange(count)[None, :, None] < first[:, None, None]
        return jnp.where(own, w[:, None, :], second[:, None, :])

    def paint(self, w: Array, train: bool, key: Array) -> Array:
        """The pictures [b, size, size, 3] of w [b, layers, style_dim], not held within [-1, 1]."""
        return self.synthesis(w, key, train)


class DiscriminatorBlock(nn.Module):
    """[b, h, w, c] -> [b, h / 2, w / 2, features]; `residual` halves the sum's variance (2020, fig. 7)."""

    features: int
    residual: bool
    dtype: Dtype

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        gains = LATE if self.residual else EARLY
        conv = partial(_conv, gain=gains.kernel, dtype=self.dtype)
        h = gains.act(conv(x.shape[-1], name="conv1")(x, train))
        h = gains.act(conv(self.features, resample="down", name="conv2")(layers.blur(h), train))
        if not self.residual:
            return h
        shortcut = conv(self.features, size=1, bias=False, resample="down", name="shortcut")
        return (h + shortcut(layers.blur(x), train)) * math.sqrt(0.5)


class Discriminator(nn.Module):
    """x [b, size, size, 3], label [b] int32 in [0, classes), train -> system.Verdict.

    The mirror of the generator; before the last convolution it sees the spread within groups of pictures.
    `projection` adds <embed(label), h> / sqrt(c) to the logit, h [b, c] being the last features (Miyato &
    Koyama 2018); without it the breed is not looked at.
    """

    channels: int
    classes: int
    residual: bool
    projection: bool
    stddev_group: int  # pictures of a group; 0: the whole batch
    wide_to: int  # see `widths`
    size: int = 64
    alpha: Any = None  # None | [] float32 in [0, 1]: the newest block fades in
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, label: Array, train: bool) -> types.Verdict:
        gains = LATE if self.residual else EARLY
        wide = widths(self.channels, self.size, self.wide_to)
        conv = partial(_conv, gain=gains.kernel, dtype=self.dtype)

        def seen(x: Array, height: int) -> Array:
            return gains.act(conv(wide[height], size=1, name=f"rgb{height}")(x, train))

        h = seen(x, self.size)
        for height in list(wide)[:0:-1]:
            block = DiscriminatorBlock(wide[height // 2], self.residual, self.dtype, name=f"block{height}")
            h = layers.handed(block(h, train))
            if self.alpha is not None and height == self.size:
                h = _faded(h, seen(layers.avg_pool(x), height // 2), self.alpha)
        h = layers.MinibatchStd(self.stddev_group)(h)
        h = gains.act(conv(self.channels, name="conv")(h, train))
        h = gains.act(conv(self.channels, size=BOTTOM, resample="collapse", name="collapse")(h, train))
        h = h[:, 0, 0].astype(jnp.float32)
        logit = _linear(1, name="score")(h, train)[:, 0]
        if self.projection:
            embed = layers.Embed(self.classes, self.channels, False, kernel_init=_normal, name="embed")
            logit = logit + jnp.sum(embed(label, train) * h, -1) / math.sqrt(self.channels)
        return types.Verdict(logit)
