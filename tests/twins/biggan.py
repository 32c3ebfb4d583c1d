"""A plain BigGAN in PyTorch: what jaxdog's step is timed against, and the oracle of its tests.

Eager mode and PyTorch's own layers, no tricks. The nets are those of `jaxdog.models.biggan` with its
defaults; in evaluation mode spectral norm uses its stored vectors, so that outputs can be compared.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SpectralNorm(nn.Module):
    """weight / sigma after one power iteration in training mode, with the stored vectors otherwise."""

    def __init__(self, weight: Tensor, eps: float = 1e-8):
        super().__init__()
        self.eps = eps
        self.register_buffer("u", F.normalize(torch.randn(weight.shape[0]), dim=0))
        self.register_buffer("v", F.normalize(weight.detach().flatten(1).T @ self.u, dim=0))

    def forward(self, weight: Tensor) -> Tensor:
        # In float32, whatever the layers around it compute in.
        with torch.autocast(weight.device.type, enabled=False):
            matrix = weight.flatten(1)
            if self.training:
                with torch.no_grad():
                    self.v = F.normalize(matrix.T @ self.u, dim=0, eps=self.eps)
                    self.u = F.normalize(matrix @ self.v, dim=0, eps=self.eps)
            return weight / torch.dot(self.u, matrix @ self.v)


class Conv(nn.Conv2d):
    """Spectral-normed convolution with "same" padding."""

    def __init__(self, inputs: int, outputs: int, size: int = 3, bias: bool = True):
        super().__init__(inputs, outputs, size, padding=size // 2, bias=bias)
        nn.init.orthogonal_(self.weight)
        self.spectral = SpectralNorm(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.spectral(self.weight), self.bias)


class Linear(nn.Linear):
    """Spectral-normed matrix product."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True):
        super().__init__(inputs, outputs, bias)
        nn.init.orthogonal_(self.weight)
        self.spectral = SpectralNorm(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.spectral(self.weight), self.bias)


class Embedding(nn.Embedding):
    """Spectral-normed table."""

    def __init__(self, classes: int, features: int):
        super().__init__(classes, features)
        nn.init.orthogonal_(self.weight)
        self.spectral = SpectralNorm(self.weight)

    def forward(self, label: Tensor) -> Tensor:
        return F.embedding(label, self.spectral(self.weight))


class ConditionalBatchNorm(nn.Module):
    def __init__(self, features: int, condition: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(features, affine=False)
        self.gain = Linear(condition, features, bias=False)
        self.bias = Linear(condition, features, bias=False)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        gain, bias = 1 + self.gain(condition), self.bias(condition)
        return self.norm(x) * gain[:, :, None, None] + bias[:, :, None, None]


class SelfAttention(nn.Module):
    def __init__(self, features: int, key_ratio: int):
        super().__init__()
        self.query = Conv(features, features // key_ratio, 1, bias=False)
        self.key = Conv(features, features // key_ratio, 1, bias=False)
        self.value = Conv(features, features // 2, 1, bias=False)
        self.out = Conv(features // 2, features, 1, bias=False)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        query = self.query(x).flatten(2)
        key = F.max_pool2d(self.key(x), 2).flatten(2)
        value = F.max_pool2d(self.value(x), 2).flatten(2)
        weight = torch.softmax(query.transpose(1, 2) @ key, -1)
        seen = (value @ weight.transpose(1, 2)).reshape(b, -1, h, w)
        return x + self.gain * self.out(seen)


class GeneratorBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, condition: int):
        super().__init__()
        self.norm1 = ConditionalBatchNorm(inputs, condition)
        self.conv1 = Conv(inputs, outputs)
        self.norm2 = ConditionalBatchNorm(outputs, condition)
        self.conv2 = Conv(outputs, outputs)
        self.shortcut = Conv(inputs, outputs, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = F.relu(self.norm1(x, condition))
        h = self.conv1(F.interpolate(h, scale_factor=2))
        h = self.conv2(F.relu(self.norm2(h, condition)))
        return h + self.shortcut(F.interpolate(x, scale_factor=2))


class Generator(nn.Module):
    """64x64, hierarchical latent in 5 slices, shared class embedding, attention at 32x32."""

    def __init__(self, channels: int, latent_dim: int, embed_dim: int, classes: int, key_ratio: int):
        super().__init__()
        self.slice = latent_dim // 5
        condition = embed_dim + self.slice
        widths = [channels * multiple for multiple in (16, 16, 8, 4, 2)]
        self.embed = nn.Embedding(classes, embed_dim)
        nn.init.orthogonal_(self.embed.weight)
        self.linear = Linear(self.slice, widths[0] * 16)
        pairs = zip(widths[:-1], widths[1:], strict=True)
        self.blocks = nn.ModuleList([GeneratorBlock(a, b, condition) for a, b in pairs])
        self.attention = SelfAttention(widths[3], key_ratio)
        self.norm = nn.BatchNorm2d(widths[-1])
        self.rgb = Conv(widths[-1], 3)

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        first, *codes = z.split(self.slice, 1)
        breed = self.embed(label)
        h = self.linear(first).reshape(len(z), -1, 4, 4)
        if self.rgb.weight.is_contiguous(memory_format=torch.channels_last):
            h = h.contiguous(memory_format=torch.channels_last)
        for i, (block, code) in enumerate(zip(self.blocks, codes, strict=True)):
            h = block(h, torch.cat([breed, code], 1))
            if i == 2:
                h = self.attention(h)
        return torch.tanh(self.rgb(F.relu(self.norm(h))))


class DiscriminatorBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, preactivate: bool, downsample: bool):
        super().__init__()
        self.preactivate, self.downsample = preactivate, downsample
        self.conv1 = Conv(inputs, outputs)
        self.conv2 = Conv(outputs, outputs)
        self.shortcut = Conv(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.relu(x) if self.preactivate else x)
        h = self.conv2(F.relu(h))
        x = self.shortcut(x)
        if self.downsample:
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        return h + x


class Discriminator(nn.Module):
    """64x64, projection on the class, attention at 32x32."""

    def __init__(self, channels: int, classes: int, key_ratio: int):
        super().__init__()
        widths = [3, *(channels * multiple for multiple in (1, 2, 4, 8, 16))]
        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        blocks = [DiscriminatorBlock(a, b, i > 0, i < 4) for i, (a, b) in enumerate(pairs)]
        self.blocks = nn.ModuleList(blocks)
        self.attention = SelfAttention(channels, key_ratio)
        self.linear = Linear(widths[-1], 1)
        self.embed = Embedding(classes, widths[-1])

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i == 0:
                x = self.attention(x)
        h = F.relu(x).sum((2, 3))
        return self.linear(h)[:, 0] + (self.embed(label) * h).sum(1)
