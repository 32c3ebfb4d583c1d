"""BigGAN (Brock, Donahue, Simonyan 2018) for small pictures: class-conditional generator and discriminator.

The options are those of the competition's entries that were BigGANs; `configs/` says which had which.

At 64x64 with channels 32 (generator) and 64 (discriminator), latent 100, embedding 128, 120 classes, the
convolutions, dense layers and embeddings hold 8,392,707 and 19,671,745 numbers, as in the competition's 5th
place. Those published counts leave out the attention's gain (1 number in each net) and the gain and bias of
the generator's last norm (128).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdog import types
from jaxdog.models import heads, layers

Array = jax.Array
Dtype = Any
Layer = Callable[..., Any]  # makes a module


class Shape(NamedTuple):
    """Widths of both networks for one picture size, in units of `channels`."""

    bottom: int  # height of the generator's first feature map
    g: tuple[int, ...]  # width of that map, then of each block's output; each block doubles the height
    d: tuple[int, ...]  # width of each discriminator block's output
    halvings: int  # how many of the discriminator's blocks, from the first, halve the height


SHAPES = {
    32: Shape(4, (4, 4, 4, 4), (4, 4, 4, 4), 2),
    64: Shape(4, (16, 16, 8, 4, 2), (1, 2, 4, 8, 16), 4),
    96: Shape(6, (16, 16, 8, 4, 2), (1, 2, 4, 8, 16), 4),
    128: Shape(4, (16, 16, 8, 4, 2, 1), (1, 2, 4, 8, 16, 16), 5),
}


def shape_of(size: int) -> Shape:
    """The row of `SHAPES` for pictures of size x size."""
    if size not in SHAPES:
        raise ValueError(f"BigGAN at {size}x{size} is unknown; sizes: {', '.join(map(str, SHAPES))}")
    return SHAPES[size]


def _check_attention(attention: tuple[int, ...], heights: list[int]) -> None:
    strange = [size for size in attention if size not in heights]
    if strange:
        raise ValueError(
            f"no block ends at attention height {strange[0]}; heights: {', '.join(map(str, heights))}"
        )


def sliced_orthogonal(key: Array, shape: tuple[int, ...]) -> Array:
    """Kernel [k, 2c] of a joint gain and bias: its first c rows orthogonal, the others 0.

    A program of 2019 meant to start the gains orthogonal and the biases at 0, but cut along the conditions:
    where there are at most c of them the whole kernel is orthogonal, where there are more the last ones have
    no effect at first.
    """
    k, c = shape[0], shape[1] // 2
    first = layers.orthogonal(key, (min(k, c), shape[1]))
    return jnp.concatenate([first, jnp.zeros((k - min(k, c), shape[1]))])


CONDITION_INITS = {  # of the kernel and of the bias
    "orthogonal": (layers.orthogonal, layers.zero_bias),
    "sliced": (sliced_orthogonal, layers.TorchDefault().bias),
}


class StyledNorm(nn.Module):
    """A conditional norm, then gain and bias linear in a style: [b, h, w, c], (condition, style) -> same.

    The dense layer of the style [b, k] starts with biases 1 for the gains and 0 for the biases (Karras et
    al. 2019, whose norm has no condition of its own).
    """

    norm: Layer

    @nn.compact
    def __call__(self, x: Array, condition: tuple[Array, Array], train: bool) -> Array:
        breed, style = condition
        c = x.shape[-1]
        x = self.norm(name="breed")(x, breed, train)
        start = jnp.concatenate([jnp.ones(c), jnp.zeros(c)])
        both = layers.Dense(2 * c, bias_init=lambda key, shape: start, name="style")(style, train)
        gain, bias = both[:, None, None, :c], both[:, None, None, c:]
        return (x.astype(jnp.float32) * gain + bias).astype(x.dtype)


class GeneratorBlock(nn.Module):
    """Residual block: [b, h, w, c], what its norms are conditioned on -> [b, 2h, 2w, features]."""

    features: int
    conv: Layer
    norm: Layer
    act: Callable[[Array], Array]
    blur: bool = False

    @nn.compact
    def __call__(self, x: Array, condition: Any, train: bool) -> Array:
        h = self.act(self.norm(name="norm1")(x, condition, train))
        h = self.conv(self.features, resample="up", name="conv1")(h, train)
        h = layers.blur(h) if self.blur else h
        h = self.act(self.norm(name="norm2")(h, condition, train))
        h = self.conv(self.features, name="conv2")(h, train)
        return h + self.conv(self.features, size=1, resample="up", name="shortcut")(x, train)


class Generator(nn.Module):
    """z [b, latent_dim], label [b] int32 in [0, classes), train, key [b] -> [b, size, size, 3] in [-1, 1].

    Every norm is conditioned on the class (a shared learnt embedding, or the one-hot label itself: then the
    dense layers of each norm are embeddings of its own), joined by this block's slice of z if hierarchical.
    With `style_layers`, that many dense layers make a style of z, whose gain and bias follow on every norm.
    """

    channels: int
    latent_dim: int
    embed_dim: int  # ignored if not shared_embedding
    classes: int
    size: int = 64
    attention: tuple[int, ...] = ()  # heights after which self-attention follows
    attention_key_ratio: int = 8
    hierarchical: bool = True
    shared_embedding: bool = True
    gain_offset: float = 1.0
    condition_spectral: bool = True  # spectral norm on the norms' dense layers
    condition_joint: bool = False  # one dense layer for gain and bias
    condition_bias: bool = False
    condition_init: str = "orthogonal"  # "sliced": see sliced_orthogonal; with torch's default for the bias
    style_layers: int = 0  # dense layers from z to the style; 0: no style
    blur: bool = False  # after each block's first convolution
    final_norm: bool = True  # batch norm with affine before the last activation
    activation: str = "relu"
    slope: float = 0.2
    conv_bias: bool = True
    linear_bias: bool = True
    told: Any = 1.0  # [] in [0, 1], share of what the norms are told of breeds
    dtype: Dtype = jnp.float32

    def slots(self) -> int:
        """How many slices z is cut into: one for the first layer and one for each block."""
        slots = len(shape_of(self.size).g) if self.hierarchical else 1
        if self.latent_dim % slots:
            raise ValueError(
                f"latent_dim {self.latent_dim} cannot be cut into {slots} equal slices, "
                f"which a hierarchical generator at {self.size}x{self.size} needs; take a multiple of {slots}"
            )
        return slots

    @nn.compact
    def __call__(self, z: Array, label: Array, train: bool, key: Array | None = None) -> Array:
        shape = shape_of(self.size)
        heights = [shape.bottom * 2**i for i in range(1, len(shape.g))]
        _check_attention(self.attention, heights)
        act = layers.activation(self.activation, self.slope)
        first, conditions = self.conditions(z, label, train)
        if self.style_layers:
            style = z
            for i in range(self.style_layers):
                style = act(layers.Dense(self.latent_dim, name=f"style{i + 1}")(style, train))
            conditions = [(condition, style) for condition in conditions]
        width = shape.g[0] * self.channels
        linear = layers.Dense(width * shape.bottom**2, self.linear_bias, dtype=self.dtype, name="linear")
        h = linear(first, train).reshape(-1, shape.bottom, shape.bottom, width)
        conv = partial(layers.Conv, bias=self.conv_bias, dtype=self.dtype)
        norm = self.norm()
        for height, multiple, condition in zip(heights, shape.g[1:], conditions, strict=True):
            block = GeneratorBlock(
                multiple * self.channels, conv, norm, act, self.blur, name=f"block{height}"
            )
            h = layers.handed(block(h, condition, train))
            if height in self.attention:
                attend = layers.SelfAttention(self.attention_key_ratio, self.dtype, name=f"attention{height}")
                h = attend(h, train)
        if self.final_norm:
            h = layers.BatchNorm(affine=True, name="norm")(h, train)
        h = act(h).astype(jnp.float32)
        return jnp.tanh(layers.Conv(3, bias=self.conv_bias, name="rgb")(h, train))

    def norm(self) -> Layer:
        """Makes the norms of the blocks."""
        if self.condition_init not in CONDITION_INITS:
            raise ValueError(
                f"condition_init is {self.condition_init!r}; choices: {', '.join(sorted(CONDITION_INITS))}"
            )
        if self.condition_init == "sliced" and not self.condition_joint:
            raise ValueError("condition_init 'sliced' cuts a joint kernel, but condition_joint is False")
        kernel_init, bias_init = CONDITION_INITS[self.condition_init]
        norm = partial(
            layers.ConditionalBatchNorm,
            gain_offset=self.gain_offset,
            spectral=self.condition_spectral,
            joint=self.condition_joint,
            bias=self.condition_bias,
            kernel_init=kernel_init,
            bias_init=bias_init,
        )
        return partial(StyledNorm, norm) if self.style_layers else norm

    def conditions(self, z: Array, label: Array, train: bool) -> tuple[Array, list[Any]]:
        """(input of the first dense layer, the condition of each block).

        A learnt breed comes before the block's slice of z, a one-hot one after it, as 2019 had them: where
        an initialiser looks at rows, the order matters.
        """
        blocks = len(shape_of(self.size).g) - 1
        slots = self.slots()
        if self.shared_embedding:
            breed = layers.Embed(self.classes, self.embed_dim, spectral=False, name="embed")(label, train)
        else:
            breed = jax.nn.one_hot(label, self.classes)
        breed = self.told * breed
        if slots == 1:
            return z, [breed] * blocks
        first, *codes = jnp.split(z, slots, 1)
        pairs = [(breed, code) if self.shared_embedding else (code, breed) for code in codes]
        return first, [jnp.concatenate(pair, 1) for pair in pairs]


class DiscriminatorBlock(nn.Module):
    """Residual block: [b, h, w, c] -> [b, h, w, features], or half the height and width if downsample."""

    features: int
    conv: Layer
    act: Callable[[Array], Array]
    preactivate: bool
    downsample: bool

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        h = self.act(x) if self.preactivate else x
        h = self.conv(self.features, name="conv1")(h, train)
        resample = "down" if self.downsample else "none"
        h = self.conv(self.features, resample=resample, name="conv2")(self.act(h), train)
        if self.downsample or x.shape[-1] != self.features:
            x = self.conv(self.features, size=1, resample=resample, name="shortcut")(x, train)
        return h + x


class Discriminator(nn.Module):
    """x [b, size, size, 3] in [-1, 1], label [b] int32 in [0, classes), train -> system.Verdict.

    Projection discriminator (Miyato & Koyama 2018): linear(h) + <embed(label), h>, with h the last feature
    map, summed over height and width. Other ways to know breeds are those of `heads.verdict`.
    """

    channels: int
    classes: int
    size: int = 64
    attention: tuple[int, ...] = ()  # heights after which self-attention follows
    attention_key_ratio: int = 8
    preactivate_first: bool = False  # True: the first block's nonlinearity sees the picture itself
    last_downsample: bool = False
    last_width: int = 0  # of the last block's output, in units of channels; 0: as in SHAPES
    stddev_group: int = 0  # the last block sees the spread within groups of so many pictures; 0: it does not
    stddev_centred: bool = False  # it sees its other features without their group's mean
    embed_spectral: bool = True
    head_bias: bool = True
    projection: bool = True
    breed_head: str = "none"  # one of heads.BREED_HEADS
    activation: str = "relu"
    slope: float = 0.2
    conv_bias: bool = True
    told: Any = 1.0  # [] in [0, 1], share of the projection
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, label: Array, train: bool) -> types.Verdict:
        h = self.features(x, train).astype(jnp.float32).sum((1, 2))
        linear = partial(layers.Dense, bias=self.head_bias)
        embed = partial(layers.Embed, spectral=self.embed_spectral)
        return heads.verdict(
            h,
            label,
            train,
            breed_head=self.breed_head,
            classes=self.classes,
            linear=linear,
            embed=embed if self.projection else None,
            told=self.told,
        )

    def features(self, x: Array, train: bool) -> Array:
        """The last feature map after its activation, [b, h, w, c]."""
        shape = shape_of(self.size)
        last = len(shape.d) - 1
        widths = [*shape.d[:last], self.last_width or shape.d[last]]
        halved = [i < shape.halvings or (i == last and self.last_downsample) for i in range(last + 1)]
        heights = [self.size >> sum(halved[: i + 1]) for i in range(last + 1)]
        _check_attention(self.attention, heights)
        conv = partial(layers.Conv, bias=self.conv_bias, dtype=self.dtype)
        act = layers.activation(self.activation, self.slope)
        h = x
        for i, multiple in enumerate(widths):
            if i == last and self.stddev_group:
                h = layers.MinibatchStd(self.stddev_group, self.stddev_centred)(h)
            preactivate = i > 0 or self.preactivate_first
            block = DiscriminatorBlock(
                multiple * self.channels, conv, act, preactivate, halved[i], name=f"block{i + 1}"
            )
            h = layers.handed(block(h, train))
            if heights[i] in self.attention and halved[i]:
                attend = layers.SelfAttention(
                    self.attention_key_ratio, self.dtype, name=f"attention{heights[i]}"
                )
                h = attend(h, train)
        return act(h)
