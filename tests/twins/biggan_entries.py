"""Three entries of 2019 in PyTorch, of torch's own layers: the oracles of test_biggan_entries.py.

Submodules have our names. The order of the first layer's outputs is ours, channels last; the rest is theirs.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

Act = Callable[[Tensor], Tensor]


def conv(inputs: int, outputs: int, size: int = 3, bias: bool = False) -> nn.Module:
    return spectral_norm(nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=bias))


def linear(inputs: int, outputs: int, bias: bool = False) -> nn.Module:
    return spectral_norm(nn.Linear(inputs, outputs, bias=bias))


class Attention(nn.Module):
    def __init__(self, features: int):
        super().__init__()
        self.narrow, self.middle = features // 8, features // 2
        self.query, self.key = conv(features, self.narrow, 1), conv(features, self.narrow, 1)
        self.value, self.out = conv(features, self.middle, 1), conv(self.middle, features, 1)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        query = self.query(x).reshape(b, self.narrow, h * w)
        key = F.max_pool2d(self.key(x), 2).reshape(b, self.narrow, h * w // 4)
        value = F.max_pool2d(self.value(x), 2).reshape(b, self.middle, h * w // 4)
        weight = F.softmax(torch.einsum("bcq,bck->bqk", query, key), 2)
        seen = torch.einsum("bqk,bck->bcq", weight, value).reshape(b, self.middle, h, w)
        return x + self.gain * self.out(seen)


# Norms ------------------------------------------------------------------------------------------------------


def _wide(x: Tensor) -> Tensor:
    return x[:, :, None, None]


class JointNorm(nn.Module):
    """yabae's (offset 1, spectral norm, no bias) and tikutiku's (offset 0, no spectral norm, bias)."""

    def __init__(self, features: int, condition: int, offset: float, spectral: bool):
        super().__init__()
        self.bn = nn.BatchNorm2d(features, affine=False)
        dense = linear(condition, 2 * features) if spectral else nn.Linear(condition, 2 * features)
        self.gain_and_bias, self.offset = dense, offset

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        gain, bias = self.gain_and_bias(condition).chunk(2, 1)
        return (self.offset + _wide(gain)) * self.bn(x) + _wide(bias)


class BreedNorm(nn.Module):
    def __init__(self, features: int, classes: int):
        super().__init__()
        self.bn = nn.BatchNorm2d(features, affine=False)
        self.gain, self.bias = nn.Embedding(classes, features), nn.Embedding(classes, features)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return self.bn(x) * (1 + _wide(self.gain(label))) + _wide(self.bias(label))


class StyledNorm(nn.Module):
    """bestfitting's."""

    def __init__(self, features: int, classes: int, style: int):
        super().__init__()
        self.class_norm, self.style = BreedNorm(features, classes), linear(style, 2 * features, bias=True)

    def forward(self, x: Tensor, condition: tuple[Tensor, Tensor]) -> Tensor:
        label, style = condition
        gain, bias = self.style(style).chunk(2, 1)
        return _wide(gain) * self.class_norm(x, label) + _wide(bias)


# Generators -------------------------------------------------------------------------------------------------


class GeneratorBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, norm: Callable[[int], nn.Module], act: Act, bias: bool):
        super().__init__()
        self.norm1, self.norm2, self.act = norm(inputs), norm(outputs), act
        self.conv1, self.conv2 = conv(inputs, outputs, 3, bias), conv(outputs, outputs, 3, bias)
        self.shortcut = conv(inputs, outputs, 1, bias)

    def blurred(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor, condition) -> Tensor:
        h = F.interpolate(self.act(self.norm1(x, condition)), scale_factor=2)
        h = self.act(self.norm2(self.blurred(self.conv1(h)), condition))
        return self.conv2(h) + self.shortcut(F.interpolate(x, scale_factor=2))


class BlurredBlock(GeneratorBlock):
    def blurred(self, x: Tensor) -> Tensor:
        line = torch.tensor([1.0, 2.0, 1.0])
        kernel = (line[:, None] * line / 16).expand(x.shape[1], 1, 3, 3)
        return F.conv2d(x, kernel, padding=1, groups=x.shape[1])


class _Generator(nn.Module):
    """The first layer, the blocks by the heights of their outputs, attention at 32, the last layers."""

    act: Act
    bottom: int
    heights: Sequence[int]
    linear: nn.Module
    rgb: nn.Module

    def body(self, first: Tensor, conditions: Sequence) -> Tensor:
        h = self.linear(first).reshape(len(first), self.bottom, self.bottom, -1).permute(0, 3, 1, 2)
        for height, condition in zip(self.heights, conditions, strict=True):
            h = self.get_submodule(f"block{height}")(h, condition)
            h = self.get_submodule("attention32")(h) if height == 32 and hasattr(self, "attention32") else h
        h = self.get_submodule("norm")(h) if hasattr(self, "norm") else h
        return torch.tanh(self.rgb(self.act(h)))


class RalsGenerator(_Generator):
    """yabae's at 64x64; f are the channels of the last block."""

    act, bottom, heights = staticmethod(F.relu), 4, (8, 16, 32, 64)

    def __init__(self, f: int, latent_dim: int, shared_dim: int, classes: int):
        super().__init__()
        code = latent_dim // 5
        widths = [8 * f, 8 * f, 4 * f, 2 * f, f]
        self.embed = nn.Embedding(classes, shared_dim)
        self.linear = linear(code, widths[0] * 16)
        for height, before, after in zip(self.heights, widths[:-1], widths[1:], strict=True):
            block = GeneratorBlock(
                before, after, lambda c: JointNorm(c, shared_dim + code, 1.0, True), F.relu, False
            )
            self.add_module(f"block{height}", block)
        self.attention32 = Attention(2 * f)
        self.norm = nn.BatchNorm2d(f)
        self.rgb = conv(f, 3)

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        first, *codes = z.chunk(5, 1)
        breed = self.embed(label)
        return self.body(first, [torch.cat([breed, code], 1) for code in codes])


class LeakyGenerator(_Generator):
    """tikutiku's at 64x64."""

    act, bottom, heights = staticmethod(F.leaky_relu), 4, (8, 16, 32, 64)

    def __init__(self, f: int, latent_dim: int, classes: int):
        super().__init__()
        code, self.classes = latent_dim // 5, classes
        widths = [16 * f, 16 * f, 8 * f, 4 * f, 2 * f]
        self.linear = linear(code, widths[0] * 16, bias=True)
        for height, before, after in zip(self.heights, widths[:-1], widths[1:], strict=True):
            block = GeneratorBlock(
                before, after, lambda c: JointNorm(c, code + classes, 0.0, False), F.leaky_relu, False
            )
            self.add_module(f"block{height}", block)
        self.attention32 = Attention(4 * f)
        self.rgb = conv(2 * f, 3)

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        first, *codes = z.chunk(5, 1)
        breed = F.one_hot(label, self.classes).float()
        return self.body(first, [torch.cat([code, breed], 1) for code in codes])


class StyleGenerator(_Generator):
    """bestfitting's; the widths are of the first map and of each block's output."""

    act = staticmethod(F.relu)

    def __init__(self, bottom: int, widths: Sequence[int], latent_dim: int, classes: int, layers: int):
        super().__init__()
        self.bottom, self.layers = bottom, layers
        self.heights = [bottom * 2**i for i in range(1, len(widths))]
        self.linear = linear(latent_dim, widths[0] * bottom**2, bias=True)
        for i in range(layers):
            self.add_module(f"style{i + 1}", linear(latent_dim, latent_dim, bias=True))
        for height, before, after in zip(self.heights, widths[:-1], widths[1:], strict=True):
            block = BlurredBlock(before, after, lambda c: StyledNorm(c, classes, latent_dim), F.relu, True)
            self.add_module(f"block{height}", block)
        self.norm = nn.BatchNorm2d(widths[-1])
        self.rgb = conv(widths[-1], 3, bias=True)

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        style = z
        for i in range(self.layers):
            style = F.relu(self.get_submodule(f"style{i + 1}")(style))
        return self.body(z, [(label, style)] * len(self.heights))


# Discriminators ---------------------------------------------------------------------------------------------


class DiscriminatorBlock(nn.Module):
    def __init__(
        self, inputs: int, outputs: int, act: Act, preactivate: bool, down: bool, bias: bool = False
    ):
        super().__init__()
        self.act, self.preactivate, self.down = act, preactivate, down
        self.conv1, self.conv2 = conv(inputs, outputs, 3, bias), conv(outputs, outputs, 3, bias)
        self.shortcut = conv(inputs, outputs, 1, bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(self.act(self.conv1(self.act(x) if self.preactivate else x)))
        h = h + self.shortcut(x)
        return F.avg_pool2d(h, 2) if self.down else h


class RalsDiscriminator(nn.Module):
    """yabae's: minibatch stddev over groups of 4 before the last block, a second head for the breeds."""

    def __init__(self, f: int, classes: int):
        super().__init__()
        widths = [3, f, 2 * f, 4 * f, 8 * f]
        for i in range(4):
            self.add_module(
                f"block{i + 1}", DiscriminatorBlock(widths[i], widths[i + 1], F.relu, i > 0, True)
            )
        self.block5 = DiscriminatorBlock(8 * f + 1, 8 * f, F.relu, True, False)
        self.attention32 = Attention(f)
        self.linear, self.class_logits = linear(8 * f, 1), linear(8 * f, classes)
        self.embed = spectral_norm(nn.Embedding(classes, 8 * f))

    def with_spread(self, x: Tensor) -> Tensor:
        groups = x.view(4, -1, *x.shape[1:])
        groups -= groups.mean(0, keepdim=True)  # in place: x itself loses its groups' means
        spread = (groups.square().mean(0) + 1e-8).sqrt().flatten(1).mean(1).repeat(4)
        return torch.cat([x, spread[:, None, None, None].expand(-1, 1, *x.shape[2:])], 1)

    def forward(self, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        h = self.attention32(self.get_submodule("block1")(x))
        for i in range(2, 5):
            h = self.get_submodule(f"block{i}")(h)
        h = F.relu(self.block5(self.with_spread(h))).sum((2, 3))
        return self.linear(h)[:, 0] + (self.embed(label) * h).sum(1), self.class_logits(h)


class PlainDiscriminator(nn.Module):
    """tikutiku's at 64x64 (leaky, attention, no biases but the last) and bestfitting's at 96x96."""

    def __init__(self, f: int, classes: int, leaky: bool):
        super().__init__()
        widths = [3, f, 2 * f, 4 * f, 8 * f, 16 * f]
        self.act = (lambda x: F.leaky_relu(x, 0.2)) if leaky else F.relu
        for i in range(5):
            block = DiscriminatorBlock(
                widths[i], widths[i + 1], self.act, i > 0 or leaky, i < 4, bias=not leaky
            )
            self.add_module(f"block{i + 1}", block)
        if leaky:
            self.attention32 = Attention(f)
        embed = nn.Embedding(classes, widths[-1])
        self.linear, self.embed = linear(widths[-1], 1, bias=True), embed if leaky else spectral_norm(embed)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        h = self.get_submodule("block1")(x)
        h = self.get_submodule("attention32")(h) if hasattr(self, "attention32") else h
        for i in range(2, 6):
            h = self.get_submodule(f"block{i}")(h)
        h = self.act(h).sum((2, 3))
        return self.linear(h)[:, 0] + (self.embed(label) * h).sum(1)
