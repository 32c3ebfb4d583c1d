"""SAGAN and three entries of 2019 like it in PyTorch: the oracles of test_sagan.py and test_csagan.py.

Submodules have our names. The order of the first layer's outputs is ours, channels last. Keys have the bias
that ours leave out, as a buffer.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm


def conv(inputs: int, outputs: int, size: int = 3) -> nn.Module:
    return spectral_norm(nn.Conv2d(inputs, outputs, size, padding=size // 2))


def _wide(x: Tensor) -> Tensor:
    return x[:, :, None, None]


class Attention(nn.Module):
    """Over maps pooled by 2; without biases in the paper's program, with them in two entries."""

    def __init__(self, features: int, bias: bool):
        super().__init__()

        def project(inputs: int, outputs: int, bias: bool) -> nn.Module:
            return spectral_norm(nn.Conv2d(inputs, outputs, 1, bias=bias))

        self.query, self.key = project(features, features // 8, bias), project(features, features // 8, False)
        self.value, self.out = project(features, features // 2, bias), project(features // 2, features, bias)
        self.register_buffer("shift", bias * torch.randn(features // 8, 1, 1))
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x).flatten(2)
        key = F.max_pool2d(self.key(x) + self.shift, 2).flatten(2)
        value = F.max_pool2d(self.value(x), 2).flatten(2)
        weight = torch.softmax(query.transpose(1, 2) @ key, -1)
        seen = (value @ weight.transpose(1, 2)).reshape(len(x), -1, *x.shape[2:])
        return x + self.gain * self.out(seen)


class WholeAttention(nn.Module):
    """The residual kernel's. It normalised over the first of its two maps, which makes that one our key."""

    def __init__(self, features: int):
        super().__init__()
        self.query = spectral_norm(nn.Conv2d(features, features // 8, 1))
        self.key = spectral_norm(nn.Conv2d(features, features // 8, 1, bias=False))
        self.value = spectral_norm(nn.Conv2d(features, features, 1))
        self.register_buffer("shift", torch.randn(features // 8, 1, 1))
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        first, second = (self.key(x) + self.shift).flatten(2), self.query(x).flatten(2)
        weight = torch.softmax(first.transpose(1, 2) @ second, 1)
        return x + self.gain * (self.value(x).flatten(2) @ weight).reshape(x.shape)


class BreedNorm(nn.Module):
    """A batch norm, with affine if `own`, then a gain and a bias of each breed."""

    def __init__(self, features: int, classes: int, own: bool):
        super().__init__()
        self.gain_and_bias = nn.Embedding(classes, 2 * features)  # gains less 1
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("var", torch.ones(features))
        self.base_gain = nn.Parameter(torch.ones(features)) if own else None
        self.base_bias = nn.Parameter(torch.zeros(features)) if own else None

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        gain, bias = self.gain_and_bias(label).chunk(2, 1)
        x = F.batch_norm(x, self.mean, self.var, self.base_gain, self.base_bias, self.training, 0.1)
        return (1.0 + _wide(gain)) * x + _wide(bias)


# Residual networks ------------------------------------------------------------------------------------------


class GeneratorBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, classes: int, own: bool):
        super().__init__()
        self.norm1, self.norm2 = BreedNorm(inputs, classes, own), BreedNorm(outputs, classes, own)
        self.conv1, self.conv2 = conv(inputs, outputs), conv(outputs, outputs)
        self.shortcut = conv(inputs, outputs, 1)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        h = F.interpolate(F.relu(self.norm1(x, label)), scale_factor=2)
        h = self.conv2(F.relu(self.norm2(self.conv1(h), label)))
        return h + self.shortcut(F.interpolate(x, scale_factor=2))


class Generator(nn.Module):
    """entry: "paper", "residual" (whole attention, latents of length 1) or "hinge" (no last norm)."""

    def __init__(self, entry: str, widths: Sequence[int], latent_dim: int, classes: int, height: int):
        super().__init__()
        self.entry, self.heights, self.at = entry, [8 << i for i in range(len(widths) - 1)], height
        self.linear = spectral_norm(nn.Linear(latent_dim, widths[0] * 16))
        for i, block in enumerate(self.heights):
            own = entry == "hinge"
            self.add_module(f"block{block}", GeneratorBlock(widths[i], widths[i + 1], classes, own))
            if block == height:
                c = widths[i + 1]
                attention = WholeAttention(c) if entry == "residual" else Attention(c, entry == "hinge")
                self.add_module(f"attention{height}", attention)
        if entry != "hinge":
            self.norm = nn.BatchNorm2d(widths[-1])
        self.rgb = conv(widths[-1], 3)

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        z = F.normalize(z) if self.entry == "residual" else z
        h = self.linear(z).reshape(len(z), 4, 4, -1).permute(0, 3, 1, 2)
        for height in self.heights:
            h = self.get_submodule(f"block{height}")(h, label)
            h = self.get_submodule(f"attention{height}")(h) if height == self.at else h
        return torch.tanh(self.rgb(h if self.entry == "hinge" else F.relu(self.norm(h))))


class FirstBlock(nn.Module):
    def __init__(self, outputs: int):
        super().__init__()
        self.conv1, self.conv2, self.shortcut = conv(3, outputs), conv(outputs, outputs), conv(3, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.avg_pool2d(self.conv2(F.relu(self.conv1(x))), 2)
        return h + self.shortcut(F.avg_pool2d(x, 2))


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, down: bool, in_place: bool):
        super().__init__()
        self.down, self.in_place = down, in_place
        self.conv1 = conv(inputs, outputs)
        if not in_place:
            self.conv2 = conv(outputs, outputs)
        if down or inputs != outputs:
            self.shortcut = conv(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.in_place:
            h = F.leaky_relu(x, 0.2, inplace=True)  # x itself has changed now
            h = F.leaky_relu(self.conv1(h), 0.2, inplace=True)
        else:
            h = self.conv2(F.relu(self.conv1(F.relu(x))))
        x = self.shortcut(x) if hasattr(self, "shortcut") else x
        return F.avg_pool2d(h, 2) + F.avg_pool2d(x, 2) if self.down else h + x


class Discriminator(nn.Module):
    def __init__(
        self, entry: str, widths: Sequence[int], halvings: int, classes: int, size: int, height: int
    ):
        super().__init__()
        heights = [size >> min(i, halvings) for i in range(1, len(widths) + 1)]
        self.order = []
        for i, c in enumerate(widths):
            down, before = i < halvings, widths[i - 1]
            block = Block(before, c, down, entry == "hinge") if i else FirstBlock(c)
            self.order.append(f"block{i + 1}")
            self.add_module(self.order[-1], block)
            if heights[i] == height and down:
                attention = WholeAttention(c) if entry == "residual" else Attention(c, entry == "hinge")
                self.order.append(f"attention{height}")
                self.add_module(self.order[-1], attention)
        self.linear = spectral_norm(nn.Linear(widths[-1], 1, bias=entry != "hinge"))
        self.embed = spectral_norm(nn.Embedding(classes, widths[-1]))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        for name in self.order:
            x = self.get_submodule(name)(x)
        h = F.relu(x).sum((2, 3))
        return self.linear(h)[:, 0] + (self.embed(label) * h).sum(1)


# Networks of transposed convolutions ------------------------------------------------------------------------


class ConvGenerator(nn.Module):
    """mpalermo's. `kept` [b, c, 1, 1] says which channels of each map are kept, and what they are times."""

    kept: Sequence[Tensor]

    def __init__(self, widths: Sequence[int], latent_dim: int, classes: int):
        super().__init__()
        self.count = len(widths)
        self.embed = nn.Embedding(classes, latent_dim)
        for i, c in enumerate(widths):
            up = (widths[i - 1], c, 4, 2, 1) if i else (2 * latent_dim, c, 4, 1, 0)
            self.add_module(f"conv{i}", spectral_norm(nn.ConvTranspose2d(*up, bias=False)))
            self.add_module(f"norm{i}", BreedNorm(c, classes, True))
        self.add_module(f"attention{4 << (self.count - 1)}", Attention(widths[-1], True))
        self.small = spectral_norm(nn.ConvTranspose2d(widths[-1], 3, 3, 1, 1, bias=False))
        self.small_norm = BreedNorm(3, classes, True)
        self.rgb = spectral_norm(nn.Conv2d(3, 3, 3, 1, 1, bias=False))

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        h = _wide(torch.cat([z, F.normalize(self.embed(label))], 1))
        for i in range(self.count):
            h = self.get_submodule(f"conv{i}")(h)
            h = F.leaky_relu(self.get_submodule(f"norm{i}")(h, label), 0.05)
            h = h * self.kept[i] if self.training else h
        h = self.get_submodule(f"attention{4 << (self.count - 1)}")(h)
        return torch.tanh(self.rgb(F.leaky_relu(self.small_norm(self.small(h), label), 0.05)))


class ConvDiscriminator(nn.Module):
    """mpalermo's. `planes` [classes, size, size]: each breed's numbers; `kept`: what features are times."""

    kept: Sequence[Tensor]
    planes: Tensor

    def __init__(self, widths: Sequence[int], size: int):
        super().__init__()
        self.count, self.at = len(widths), size // 2
        for i, c in enumerate(widths):
            before = widths[i - 1] if i else 4
            self.add_module(f"conv{i}", spectral_norm(nn.Conv2d(before, c, 4, 2, 1, bias=False)))
            self.add_module(f"norm{i}", nn.BatchNorm2d(c))
        self.add_module(f"attention{self.at}", Attention(widths[0], True))
        self.head = spectral_norm(nn.Conv2d(widths[-1] + 1, 1, size >> len(widths), bias=False))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        plane = F.normalize(self.planes[label][:, None], dim=1)
        h = torch.cat([x, plane], 1)
        for i in range(self.count):
            h = self.get_submodule(f"norm{i}")(self.get_submodule(f"conv{i}")(h))
            h = F.leaky_relu(h, 0.2)
            h = self.get_submodule(f"attention{self.at}")(h) if i == 0 else h * self.kept[i]
        std = ((h - h.mean(0)).square().mean(0) + 1e-8).sqrt().mean()
        return self.head(torch.cat([h, std.expand(len(h), 1, *h.shape[2:])], 1)).flatten()
