"""The DCGANs of 2019 in PyTorch, submodules by our names: the oracles of test_dcgan.py.

"turns" has transposed and plain convolutions in turn.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sn(module: nn.Module, spectral: bool) -> nn.Module:
    return nn.utils.spectral_norm(module) if spectral else module


class Generator(nn.Module):
    """Of transposed convolutions, as one entry each; "nearest" has plain ones."""

    def __init__(self, entry: str, widths: Sequence[int], latent_dim: int, classes: int):
        super().__init__()
        self.spectral, self.knows, self.count = entry == "spectral", entry == "classifier", len(widths)
        transposed = nn.ConvTranspose2d
        if self.knows:
            self.embed = nn.Embedding(classes, 2)
        first = (latent_dim + 2, widths[0], 2) if self.knows else (latent_dim, widths[0], 4)
        self.conv0 = sn(transposed(*first, 1, 0, bias=False), self.spectral)
        for i, (a, b) in enumerate(zip(widths, widths[1:], strict=False), 1):
            up = sn(transposed(a, b, 4, 2, 1, bias=False), self.spectral)
            if entry == "nearest":
                up = nn.Conv2d(a, b, 3, 1, 1, bias=False)
            self.add_module(f"conv{i}", up)
        self.nearest = entry == "nearest"
        if not self.spectral:
            for i, a in enumerate(widths):
                self.add_module(f"norm{i}", nn.BatchNorm2d(a))
        for i in (1, 2) if entry == "turns" else ():
            self.add_module(f"conv{i}_again", transposed(widths[i], widths[i], 3, 1, 1, bias=False))
            self.add_module(f"norm{i}_again", nn.BatchNorm2d(widths[i]))
        last = (4, 2, 1) if self.knows else (3, 1, 1)
        self.rgb = sn(transposed(widths[-1], 3, *last, bias=not self.spectral), self.spectral)

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        z = torch.cat([self.embed(label), z], 1) if self.knows else z
        h = z[:, :, None, None]
        for i in range(self.count):
            if self.nearest and i:
                h = F.interpolate(h, scale_factor=2)
            h = getattr(self, f"conv{i}")(h)
            if self.spectral:
                h = F.leaky_relu(h)
                h = h if i == 0 else h / (h.square().mean(1, keepdim=True) + 1e-8).sqrt()
            else:
                h = getattr(self, f"norm{i}")(h).relu()
            if hasattr(self, f"conv{i}_again"):
                h = getattr(self, f"norm{i}_again")(getattr(self, f"conv{i}_again")(h)).relu()
        return self.rgb(h).tanh()


class Discriminator(nn.Module):
    """The same four; gives [b, 1], or [b, 1 + classes] with the breeds' logits."""

    def __init__(self, entry: str, widths: Sequence[int], size: int, classes: int):
        super().__init__()
        self.spectral, self.knows, self.count = entry == "spectral", entry == "classifier", len(widths)
        first = (3, 1, 1) if entry == "plain" else (4, 2, 1)
        self.conv0 = nn.Conv2d(3, widths[0], *first, bias=False)
        for i, (a, b) in enumerate(zip(widths, widths[1:], strict=False), 1):
            self.add_module(f"conv{i}", sn(nn.Conv2d(a, b, 4, 2, 1, bias=False), self.spectral))
        for i in {"spectral": (1, 2), "classifier": (1, 2, 3)}.get(entry, (2, 3)):
            self.add_module(f"norm{i}", nn.BatchNorm2d(widths[i]))
        for i in (1, 2) if entry == "turns" else ():
            again = nn.Conv2d(widths[i], widths[i], 3, 1, 1, bias=False)
            self.add_module(f"conv{i}_again", again)
            self.add_module(f"norm{i}_again", nn.BatchNorm2d(widths[i]))
        halvings = len(widths) - (entry == "plain") + self.spectral
        side = size >> halvings
        c = widths[-1] + self.spectral
        self.head = sn(nn.Conv2d(c, 1, side, 1, 0, bias=entry == "turns"), self.spectral)
        if self.knows:
            self.class_logits = nn.Conv2d(c, classes, side, 1, 0, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for i in range(self.count):
            h = getattr(self, f"conv{i}")(h)
            if hasattr(self, f"norm{i}"):
                h = getattr(self, f"norm{i}")(h)
            if self.spectral and i == self.count - 1:
                h = F.max_pool2d(h, 2)
            h = F.leaky_relu(h, 0.2)
            if hasattr(self, f"conv{i}_again"):
                h = getattr(self, f"norm{i}_again")(getattr(self, f"conv{i}_again")(h))
                h = F.leaky_relu(h, 0.2)
        if self.spectral:
            std = ((h - h.mean(0, keepdim=True)).square().mean(0) + 1e-8).sqrt().mean()
            h = torch.cat([h, std.expand(h.shape[0], 1, *h.shape[2:])], 1)
        heads = [self.head(h), self.class_logits(h)] if self.knows else [self.head(h)]
        return torch.cat(heads, 1).flatten(1)
