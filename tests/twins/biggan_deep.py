"""A plain BigGAN-deep in PyTorch, of the layers of the plain BigGAN: the oracle of test_biggan_deep.py.

Submodules have our names, so that weights can be copied by them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.twins import biggan as plain


class GeneratorBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, condition: int, up: bool):
        super().__init__()
        narrow = inputs // 4
        self.outputs, self.up = outputs, up
        for i, width in enumerate((inputs, narrow, narrow, narrow), 1):
            self.add_module(f"norm{i}", plain.ConditionalBatchNorm(width, condition))
        self.conv1, self.conv2 = plain.Conv(inputs, narrow, 1), plain.Conv(narrow, narrow)
        self.conv3, self.conv4 = plain.Conv(narrow, narrow), plain.Conv(narrow, outputs, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = self.conv1(F.relu(self.norm1(x, condition)))
        h = F.relu(self.norm2(h, condition))
        h = self.conv2(F.interpolate(h, scale_factor=2) if self.up else h)
        h = self.conv3(F.relu(self.norm3(h, condition)))
        h = self.conv4(F.relu(self.norm4(h, condition)))
        kept = x[:, : self.outputs]
        return h + (F.interpolate(kept, scale_factor=2) if self.up else kept)


class Generator(nn.Module):
    """64x64, attention at 32x32."""

    def __init__(
        self, channels: int, latent_dim: int, shared_dim: int, classes: int, key_ratio: int, rgb_width: int
    ):
        super().__init__()
        condition = latent_dim + shared_dim
        widths = [channels * multiple for multiple in (16, 16, 8, 4, 2)]
        self.embed = nn.Embedding(classes, shared_dim)
        self.linear = plain.Linear(condition, widths[0] * 16)
        for height, before, after in zip((8, 16, 32, 64), widths[:-1], widths[1:], strict=True):
            self.add_module(f"to{height}_1", GeneratorBlock(before, before, condition, up=False))
            self.add_module(f"to{height}_2", GeneratorBlock(before, after, condition, up=True))
        self.attention = plain.SelfAttention(widths[3], key_ratio)
        self.norm = nn.BatchNorm2d(widths[-1])
        self.rgb = plain.Conv(widths[-1], rgb_width)

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        condition = torch.cat([z, self.embed(label)], 1)
        h = self.linear(condition).reshape(len(z), -1, 4, 4)
        for height in (8, 16, 32, 64):
            for i in (1, 2):
                h = self.get_submodule(f"to{height}_{i}")(h, condition)
            h = self.attention(h) if height == 32 else h
        return torch.tanh(self.rgb(F.relu(self.norm(h)))[:, :3])


class DiscriminatorBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, down: bool):
        super().__init__()
        narrow = outputs // 4
        self.down = down
        self.conv1, self.conv2 = plain.Conv(inputs, narrow, 1), plain.Conv(narrow, narrow)
        self.conv3, self.conv4 = plain.Conv(narrow, narrow), plain.Conv(narrow, outputs, 1)
        if outputs > inputs:
            self.shortcut = plain.Conv(inputs, outputs - inputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.conv3(F.relu(self.conv2(F.relu(self.conv1(F.relu(x)))))))
        if self.down:
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        if hasattr(self, "shortcut"):
            x = torch.cat([x, self.shortcut(x)], 1)
        return self.conv4(h) + x


class Discriminator(nn.Module):
    """64x64, attention at 32x32."""

    def __init__(self, channels: int, classes: int, key_ratio: int):
        super().__init__()
        widths = [channels * multiple for multiple in (1, 2, 4, 8, 16)]
        self.stem = plain.Conv(3, widths[0])
        for i, (before, after) in enumerate(zip(widths[:-1], widths[1:], strict=True), 1):
            self.add_module(f"pair{i}_1", DiscriminatorBlock(before, after, down=True))
            self.add_module(f"pair{i}_2", DiscriminatorBlock(after, after, down=False))
        self.attention = plain.SelfAttention(widths[1], key_ratio)
        self.linear = plain.Linear(widths[-1], 1)
        self.embed = plain.Embedding(classes, widths[-1])

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        h = self.stem(x)
        for i in range(1, 5):
            for j in (1, 2):
                h = self.get_submodule(f"pair{i}_{j}")(h)
            h = self.attention(h) if i == 1 else h
        h = F.relu(h).sum((2, 3))
        return self.linear(h)[:, 0] + (self.embed(label) * h).sum(1)
