"""BigGAN (Brock, Donahue, Simonyan 2018) for small images: class-conditional generator and discriminator.

The options are those of the competition's BigGAN entries, which are configs in `configs/`.

At 64x64 with channels 32 (generator) and 64 (discriminator), latent 100, shared embedding 128 and 120
classes, the convolutions, dense layers and embeddings have 8,392,707 and 19,671,745 parameters, as published
by the competition's 5th place. These counts exclude the attention's gain (1 in each network) and the gain and
bias of the generator's last norm (128).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdog import types
from jaxdog.models import attention, heads, initializers, layers, norms
from jaxdog.ops import resample2x
from jaxdog.utils import errors

Array = jax.Array


class Shape(NamedTuple):
    """The architecture at one image size. Widths are in units of `channels`."""

    bottom_width: int  # height of the generator's first feature map
    g: tuple[int, ...]  # width of that map, then of each generator block, which doubles the height
    d: tuple[int, ...]  # width of each discriminator block
    halvings: int  # the number of discriminator blocks, from the first, that halve the height


SHAPES = {
    32: Shape(4, (4, 4, 4, 4), (4, 4, 4, 4), 2),
    64: Shape(4, (16, 16, 8, 4, 2), (1, 2, 4, 8, 16), 4),
    96: Shape(6, (16, 16, 8, 4, 2), (1, 2, 4, 8, 16), 4),
    128: Shape(4, (16, 16, 8, 4, 2, 1), (1, 2, 4, 8, 16, 16), 5),
    256: Shape(4, (16, 16, 8, 8, 4, 2, 1), (1, 2, 4, 8, 8, 16, 16), 6),
}


def shape_of(size: int) -> Shape:
    """The row of `SHAPES` for images of size x size."""
    if size not in SHAPES:
        raise errors.UserError(f"BigGAN at {size}x{size} is unknown; sizes: {', '.join(map(str, SHAPES))}")
    return SHAPES[size]


def sliced_orthogonal(key: Array, shape: tuple[int, ...]) -> Array:
    """Kernel [k, 2c] of a joint gain and bias: its first c rows are orthogonal, the others 0.

    An implementation of 2019 was meant to initialize the gains' kernel as orthogonal and that of the biases
    as 0, but sliced the wrong axis. For k <= c the whole kernel is orthogonal; for k > c the last k - c
    inputs have no effect at first.
    """
    k, c = shape[0], shape[1] // 2
    first = initializers.orthogonal(key, (min(k, c), shape[1]))
    return jnp.concatenate([first, jnp.zeros((k - min(k, c), shape[1]))])


CONDITION_INITS = {  # (kernel, bias)
    "orthogonal": (initializers.orthogonal, initializers.zero_bias),
    "sliced": (sliced_orthogonal, initializers.TorchDefault().bias),
}


class StyledNorm(nn.Module):
    """A conditional norm, then a gain and bias linear in a style: [b, h, w, c] -> [b, h, w, c].

    Called with (condition [b, n], style [b, k]). As in Karras et al. 2019, whose norm is unconditional, the
    style's gains start at 1 and its biases at 0.
    """

    norm: layers.MakeLayer

    @nn.compact
    def __call__(self, x: Array, condition: tuple[Array, Array], train: bool) -> Array:
        class_condition, style = condition
        c = x.shape[-1]
        x = self.norm(name="class_norm")(x, class_condition, train)
        identity = jnp.concatenate([jnp.ones(c), jnp.zeros(c)])
        both = layers.Dense(2 * c, bias_init=lambda key, shape: identity, name="style")(style, train)
        gain, bias = both[:, None, None, :c], both[:, None, None, c:]
        return (x.astype(jnp.float32) * gain + bias).astype(x.dtype)


class GeneratorBlock(nn.Module):
    """Residual block: [b, h, w, c], the condition of its norms -> [b, 2h, 2w, features]."""

    features: int
    conv: layers.MakeLayer
    norm: layers.MakeLayer
    act: Callable[[Array], Array]
    blur: bool = False

    @nn.compact
    def __call__(self, x: Array, condition: Any, train: bool) -> Array:
        h = self.act(self.norm(name="norm1")(x, condition, train))
        h = self.conv(self.features, resample="up", name="conv1")(h, train)
        h = resample2x.blur(h) if self.blur else h
        h = self.act(self.norm(name="norm2")(h, condition, train))
        h = self.conv(self.features, name="conv2")(h, train)
        return h + self.conv(self.features, kernel_size=1, resample="up", name="shortcut")(x, train)


class Generator(nn.Module):
    """z [b, latent_dim], label [b] int32 in [0, classes), train, key [b] -> [b, size, size, 3] in [-1, 1].

    Every norm is conditioned on the class, and on the block's slice of z if hierarchical. The class is given
    as a shared embedding, or as the one-hot label: then each norm has its own embeddings. With
    `style_layers`, that many dense layers map z to a style, whose gain and bias follow every norm.
    """

    channels: int
    latent_dim: int
    shared_dim: int  # of the shared embedding, if shared_embedding
    classes: int
    size: int = 64
    attention: tuple[int, ...] = ()  # heights of the maps that self-attention follows
    attention_key_ratio: int = 8
    hierarchical: bool = True
    shared_embedding: bool = True
    gain_offset: float = 1.0
    condition_spectral: bool = True  # spectral norm on the norms' dense layers
    condition_joint: bool = False  # a single dense layer for gain and bias
    condition_bias: bool = False
    condition_init: Literal["orthogonal", "sliced"] = "orthogonal"  # "sliced": see `sliced_orthogonal`
    style_layers: int = 0  # dense layers from z to the style; 0: no style
    blur: bool = False  # after each block's first convolution
    final_norm: bool = True  # batch norm before the last activation
    activation: layers.Activation = "relu"
    slope: float = 0.2
    conv_bias: bool = True
    linear_bias: bool = True
    class_scale: Any = 1.0  # [] in [0, 1], multiplies the class embedding or one-hot label
    dtype: layers.Dtype = jnp.float32

    def num_slices(self) -> int:
        """The number of slices of z: one for the first layer and one for each block, if hierarchical."""
        slices = len(shape_of(self.size).g) if self.hierarchical else 1
        if self.latent_dim % slices:
            raise errors.UserError(
                f"latent_dim {self.latent_dim} cannot be split into {slices} equal slices, "
                f"which a hierarchical generator of {self.size}x{self.size} needs; use a multiple of {slices}"
            )
        return slices

    @nn.compact
    def __call__(self, z: Array, label: Array, train: bool, key: Array | None = None) -> Array:
        shape = shape_of(self.size)
        heights = [shape.bottom_width * 2**i for i in range(1, len(shape.g))]
        attention.check_resolutions(self.attention, heights)
        act = layers.activation(self.activation, self.slope)
        first, conditions = self.conditions(z, label, train)
        if self.style_layers:
            style = z
            for i in range(self.style_layers):
                style = act(layers.Dense(self.latent_dim, name=f"style{i + 1}")(style, train))
            conditions = [(condition, style) for condition in conditions]
        width = shape.g[0] * self.channels
        bottom = shape.bottom_width
        linear = layers.Dense(width * bottom**2, self.linear_bias, dtype=self.dtype, name="linear")
        h = linear(first, train).reshape(-1, bottom, bottom, width)
        conv = partial(layers.Conv, use_bias=self.conv_bias, dtype=self.dtype)
        norm = self.norm()
        for height, multiple, condition in zip(heights, shape.g[1:], conditions, strict=True):
            block = GeneratorBlock(
                multiple * self.channels, conv, norm, act, self.blur, name=f"block{height}"
            )
            h = layers.checkpoint_block(block(h, condition, train))
            if height in self.attention:
                attend = attention.SelfAttention(
                    self.attention_key_ratio, self.dtype, name=f"attention{height}"
                )
                h = attend(h, train)
        if self.final_norm:
            h = norms.BatchNorm(affine=True, name="norm")(h, train)
        h = act(h).astype(jnp.float32)
        return jnp.tanh(layers.Conv(3, use_bias=self.conv_bias, name="rgb")(h, train))

    def norm(self) -> layers.MakeLayer:
        """(name=...) -> a norm of the blocks."""
        if self.condition_init not in CONDITION_INITS:
            raise errors.UserError(
                f"condition_init is {self.condition_init!r}; choices: {', '.join(sorted(CONDITION_INITS))}"
            )
        if self.condition_init == "sliced" and not self.condition_joint:
            raise errors.UserError("condition_init 'sliced' needs condition_joint, which is False")
        kernel_init, bias_init = CONDITION_INITS[self.condition_init]
        norm = partial(
            norms.ConditionalBatchNorm,
            gain_offset=self.gain_offset,
            spectral=self.condition_spectral,
            joint=self.condition_joint,
            use_bias=self.condition_bias,
            kernel_init=kernel_init,
            bias_init=bias_init,
        )
        return partial(StyledNorm, norm) if self.style_layers else norm

    def conditions(self, z: Array, label: Array, train: bool) -> tuple[Array, list[Any]]:
        """The input of the first dense layer, and the condition of each block.

        A class embedding precedes the block's slice of z, but a one-hot label follows it, as in the original
        implementations. The order matters for initializers that treat rows differently.
        """
        blocks = len(shape_of(self.size).g) - 1
        slices = self.num_slices()
        if self.shared_embedding:
            code = layers.Embed(self.classes, self.shared_dim, spectral=False, name="embed")(label, train)
        else:
            code = jax.nn.one_hot(label, self.classes)
        code = self.class_scale * code
        if slices == 1:
            return z, [code] * blocks
        first, *rest = jnp.split(z, slices, 1)
        pairs = [(code, part) if self.shared_embedding else (part, code) for part in rest]
        return first, [jnp.concatenate(pair, 1) for pair in pairs]


class DiscriminatorBlock(nn.Module):
    """Residual block: [b, h, w, c] -> [b, h, w, features], or [b, h/2, w/2, features] if `downsample`."""

    features: int
    conv: layers.MakeLayer
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
            x = self.conv(self.features, kernel_size=1, resample=resample, name="shortcut")(x, train)
        return h + x


class Discriminator(nn.Module):
    """x [b, size, size, 3] in [-1, 1], label [b] int32 in [0, classes), train -> DiscriminatorOutput.

    Projection discriminator (Miyato & Koyama 2018): linear(h) + <embed(label), h>, with h the last feature
    map, summed over height and width. For class heads see `heads.discriminator_head`.
    """

    channels: int
    classes: int
    size: int = 64
    attention: tuple[int, ...] = ()  # heights of the maps that self-attention follows
    attention_key_ratio: int = 8
    preactivate_first: bool = False  # whether the first block applies its activation to the image
    last_downsample: bool = False
    last_width: int = 0  # of the last block, in units of channels; 0: as in SHAPES
    mbstd_group_size: int = 0  # of minibatch standard deviation before the last block; 0: none
    mbstd_centered: bool = False  # see `layers.MinibatchStd`
    embed_spectral: bool = True
    head_bias: bool = True
    projection: bool = True
    class_head: heads.ClassHead = "none"
    activation: layers.Activation = "relu"
    slope: float = 0.2
    conv_bias: bool = True
    class_scale: Any = 1.0  # [] in [0, 1], multiplies the projection
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, label: Array, train: bool) -> types.DiscriminatorOutput:
        h = self.features(x, train).astype(jnp.float32).sum((1, 2))
        linear = partial(layers.Dense, use_bias=self.head_bias)
        embed = partial(layers.Embed, spectral=self.embed_spectral)
        return heads.discriminator_head(
            h,
            label,
            train,
            class_head=self.class_head,
            classes=self.classes,
            linear=linear,
            embed=embed if self.projection else None,
            class_scale=self.class_scale,
        )

    def features(self, x: Array, train: bool) -> Array:
        """The last feature map after its activation, [b, h, w, c]."""
        shape = shape_of(self.size)
        last = len(shape.d) - 1
        widths = [*shape.d[:last], self.last_width or shape.d[last]]
        halved = [i < shape.halvings or (i == last and self.last_downsample) for i in range(last + 1)]
        heights = [self.size >> sum(halved[: i + 1]) for i in range(last + 1)]
        attention.check_resolutions(self.attention, heights)
        conv = partial(layers.Conv, use_bias=self.conv_bias, dtype=self.dtype)
        act = layers.activation(self.activation, self.slope)
        h = x
        for i, multiple in enumerate(widths):
            if i == last and self.mbstd_group_size:
                h = layers.MinibatchStd(self.mbstd_group_size, self.mbstd_centered)(h)
            preactivate = i > 0 or self.preactivate_first
            block = DiscriminatorBlock(
                multiple * self.channels, conv, act, preactivate, halved[i], name=f"block{i + 1}"
            )
            h = layers.checkpoint_block(block(h, train))
            if heights[i] in self.attention and halved[i]:
                attend = attention.SelfAttention(
                    self.attention_key_ratio, self.dtype, name=f"attention{heights[i]}"
                )
                h = attend(h, train)
        return act(h)
