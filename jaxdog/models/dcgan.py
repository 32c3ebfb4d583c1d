"""DCGAN (Radford, Metz, Chintala 2016) for small pictures, as entries of 2019 varied it.

Transposed convolutions up, strided ones down. What the entries chose otherwise from each other is a field:
which norm and where, spectral norm, how the discriminator begins and ends. Breeds are an option on both
sides (Odena, Olah, Shlens 2017): a vector beside z, a second head. Weights start as torch's own, which is
what those programs did, or as the paper's.
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdog import types
from jaxdog.models import heads, layers

Array = jax.Array
Dtype = Any

NORMS = ("batch", "pixel")
# A kernel's size, what it does, and by which of its sides torch starts it.
UPSAMPLINGS = {"transposed": (4, "transposed", "out"), "nearest": (3, "up", "in")}


class Normal(NamedTuple):
    """How the paper starts a layer: kernel N(0, 0.02), bias 0."""

    fan: str = "in"  # makes no difference here

    def kernel(self, key: Array, shape: tuple[int, ...]) -> Array:
        """[..., in, out]."""
        return 0.02 * jax.random.normal(key, shape)

    def bias(self, key: Array, shape: tuple[int, ...]) -> Array:
        """[out] of a kernel of `shape` [..., in, out]."""
        return layers.zero_bias(key, shape)


STARTS = {"torch": layers.TorchDefault, "normal": Normal}


def _start(name: str, fan: str) -> layers.TorchDefault | Normal:
    """The initialisers called `name`; fan "out" for transposed convolutions."""
    if name not in STARTS:
        raise ValueError(f"start is {name!r}; choices: {', '.join(sorted(STARTS))}")
    return STARTS[name](fan)


def _check_places(field: str, places: tuple[int, ...], widths: tuple[int, ...]) -> None:
    strange = [i for i in places if not 0 <= i < len(widths)]
    if strange:
        raise ValueError(f"{field} names convolution {strange[0]}; there are 0 to {len(widths) - 1}")


class Generator(nn.Module):
    """z [b, latent_dim], label [b] int32 in [0, classes), train, key [b] -> [b, size, size, 3] in [-1, 1].

    The smallest map is one transposed convolution of z; each width after the first doubles the height, by a
    4x4 transposed convolution, or by nearest neighbours and a 3x3 convolution. With `embed_dim` a learnt
    vector of the breed, N(0, 1) at first, stands before z; else z alone is looked at.
    """

    widths: tuple[int, ...]  # channels of the smallest map, then of each larger one
    latent_dim: int
    classes: int
    size: int = 64
    upsampling: str = "transposed"  # a key of UPSAMPLINGS
    norm: str = "batch"  # "batch": with affine, before each activation; "pixel": after each but the first
    spectral: bool = False
    rgb_bias: bool = True  # of the last convolution, the only one that may have a bias
    repeated: tuple[int, ...] = ()  # the maps, from 0, that a 3x3 convolution of the same width follows
    rgb_up: bool = False  # the last convolution is 4x4 and doubles the height, as the paper's; else 3x3
    activation: str = "relu"
    slope: float = 0.2  # of a leaky activation
    embed_dim: int = 0  # of the breed's vector; 0: none
    start: str = "torch"  # a key of STARTS
    dtype: Dtype = jnp.float32

    def bottom(self) -> int:
        """The height of the smallest map."""
        doublings = len(self.widths) - 1 + self.rgb_up
        times = 2**doublings
        if self.size % times:
            raise ValueError(
                f"{len(self.widths)} widths double the height {doublings} times, and "
                f"size {self.size} is no multiple of {times}"
            )
        return self.size // times

    @nn.compact
    def __call__(self, z: Array, label: Array, train: bool, key: Array | None = None) -> Array:
        if self.norm not in NORMS:
            raise ValueError(f"norm is {self.norm!r}; choices: {', '.join(NORMS)}")
        if self.upsampling not in UPSAMPLINGS:
            raise ValueError(f"upsampling is {self.upsampling!r}; choices: {', '.join(UPSAMPLINGS)}")
        # In torch all of these are transposed, the last too: its 3x3 kernel is ours turned by 180 degrees.
        init = _start(self.start, "out")
        conv = partial(
            layers.Conv,
            spectral=self.spectral,
            kernel_init=init.kernel,
            bias_init=init.bias,
            dtype=self.dtype,
        )
        act = layers.activation(self.activation, self.slope)
        height = self.bottom()
        if self.embed_dim:
            embed = layers.Embed(
                self.classes, self.embed_dim, False, nn.initializers.normal(1.0), name="embed"
            )
            z = jnp.concatenate([embed(label, train), z], 1)

        def layer(h: Array, i: int, size: int, resample: str, fan: str = "out", suffix: str = "") -> Array:
            name, kernel_init = f"{i}{suffix}", _start(self.start, fan).kernel
            own = conv(
                self.widths[i],
                size,
                bias=False,
                resample=resample,
                kernel_init=kernel_init,
                name=f"conv{name}",
            )
            h = own(h, train)
            if self.norm == "batch":
                h = layers.BatchNorm(affine=True, name=f"norm{name}")(h, train)
            h = act(h)
            return layers.handed(layers.PixelNorm()(h) if self.norm == "pixel" and i else h)

        _check_places("repeated", self.repeated, self.widths)
        h = layer(z[:, None, None, :], 0, height, "expand")
        for i in range(len(self.widths)):
            h = layer(h, i, *UPSAMPLINGS[self.upsampling]) if i else h
            h = layer(h, i, 3, "none", suffix="_again") if i in self.repeated else h
        size, resample = (4, "transposed") if self.rgb_up else (3, "none")
        rgb = conv(3, size, bias=self.rgb_bias, resample=resample, dtype=jnp.float32, name="rgb")
        return jnp.tanh(rgb(h.astype(jnp.float32), train))


class Trunk(nn.Module):
    """Strided convolutions, [b, size, size, 3] in [-1, 1] -> [b, h, w, widths[-1]]."""

    widths: tuple[int, ...]  # channels after each convolution; each halves the height, but perhaps the first
    size: int = 64
    stem: str = "strided"  # the first convolution: 4x4 of stride 2, or "none": 3x3, the height stays
    normed: tuple[int, ...] = ()  # the convolutions, from 0, that a batch norm with affine follows
    repeated: tuple[int, ...] = ()  # those that a 3x3 one of the same width and such a norm follow
    spectral: bool = False  # on all convolutions but the first
    pool: bool = False  # 2x2 maxima between the last map and its activation
    slope: float = 0.2  # of the leaky activation
    dtype: Dtype = jnp.float32

    def features(self, x: Array, train: bool, start: str = "torch", dropout: float = 0.0) -> Array:
        """The last map after its activation, [b, h, w, widths[-1]].

        start: a key of STARTS.
        dropout: share of the features that is dropped after each activation in training.
        """
        self._check()
        act = layers.activation("leaky_relu", self.slope)
        h = x
        for i, width in enumerate(self.widths):
            resample = "strided" if i else self.stem
            conv = layers.Conv(
                width,
                4 if resample == "strided" else 3,
                bias=False,
                spectral=self.spectral and i > 0,
                resample=resample,
                dtype=self.dtype,
                kernel_init=_start(start, "in").kernel,
                name=f"conv{i}",
            )
            h = conv(h, train)
            if i in self.normed:
                h = layers.BatchNorm(affine=True, name=f"norm{i}")(h, train)
            if self.pool and i == len(self.widths) - 1:
                h = layers.max_pool(h)
            h = layers.handed(act(h))
            if i in self.repeated:
                again = layers.Conv(
                    width,
                    bias=False,
                    spectral=self.spectral,
                    dtype=self.dtype,
                    kernel_init=_start(start, "in").kernel,
                    name=f"conv{i}_again",
                )
                h = layers.BatchNorm(affine=True, name=f"norm{i}_again")(again(h, train), train)
                h = act(h)
            if dropout:
                h = nn.Dropout(dropout, deterministic=not train, name=f"dropout{i}")(h)
        return h

    def _check(self) -> None:
        if self.stem not in ("strided", "none"):
            raise ValueError(f"stem is {self.stem!r}; choices: strided, none")
        _check_places("normed", self.normed, self.widths)
        _check_places("repeated", self.repeated, self.widths)


class Discriminator(Trunk, kw_only=True):
    """x [b, size, size, 3] in [-1, 1], label [b], train -> system.Verdict.

    The label is looked at by `breed_head` alone. One that drops features in training draws random numbers
    called "dropout". No convolution but perhaps the last has a bias.
    """

    classes: int
    minibatch_std: bool = False  # the whole batch's, as a channel before the last convolution
    dropout: float = 0.0  # share of the features that is dropped after each activation
    head_bias: bool = False  # of the last convolution
    breed_head: str = "none"  # one of heads.BREED_HEADS
    start: str = "torch"  # a key of STARTS

    @nn.compact
    def __call__(self, x: Array, label: Array, train: bool) -> types.Verdict:
        h = self.features(x, train, self.start, self.dropout).astype(jnp.float32)
        if self.minibatch_std:
            h = layers.MinibatchStd()(h)

        linear = partial(
            layers.Conv,
            size=h.shape[1],
            bias=self.head_bias,
            spectral=self.spectral,
            resample="collapse",
            kernel_init=_start(self.start, "in").kernel,
            bias_init=_start(self.start, "in").bias,
        )
        return heads.verdict(
            h,
            label,
            train,
            breed_head=self.breed_head,
            classes=self.classes,
            linear=linear,
            score="head",
        )


class Encoder(Trunk, kw_only=True):
    """x [b, size, size, 3] in [-1, 1], train -> (mean, log variance) of its latent, [b, latent_dim] both.

    The discriminator's trunk, its parameters under the same names, with another last convolution.
    """

    latent_dim: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> tuple[Array, Array]:
        h = self.features(x, train).astype(jnp.float32)
        init = layers.TorchDefault()
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
