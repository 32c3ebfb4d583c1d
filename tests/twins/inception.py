"""The Inception of 2015-12-05 written a second time, in torch, block by block, under the names of the
published state dict. Written out in full on purpose: it shares no table with the port it checks."""

import torch
import torch.nn.functional as F
from torch import nn


class BasicConv(nn.Module):
    def __init__(self, c_in, c_out, **kwargs):
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, bias=False, **kwargs)
        self.bn = nn.BatchNorm2d(c_out, eps=1e-3)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


def average(x):
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class Block35(nn.Module):
    def __init__(self, c, pool):
        super().__init__()
        self.branch1x1 = BasicConv(c, 64, kernel_size=1)
        self.branch5x5_1 = BasicConv(c, 48, kernel_size=1)
        self.branch5x5_2 = BasicConv(48, 64, kernel_size=5, padding=2)
        self.branch3x3dbl_1 = BasicConv(c, 64, kernel_size=1)
        self.branch3x3dbl_2 = BasicConv(64, 96, kernel_size=3, padding=1)
        self.branch3x3dbl_3 = BasicConv(96, 96, kernel_size=3, padding=1)
        self.branch_pool = BasicConv(c, pool, kernel_size=1)

    def forward(self, x):
        five = self.branch5x5_2(self.branch5x5_1(x))
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, three, self.branch_pool(average(x))], 1)


class Down35(nn.Module):
    def __init__(self):
        super().__init__()
        self.branch3x3 = BasicConv(288, 384, kernel_size=3, stride=2)
        self.branch3x3dbl_1 = BasicConv(288, 64, kernel_size=1)
        self.branch3x3dbl_2 = BasicConv(64, 96, kernel_size=3, padding=1)
        self.branch3x3dbl_3 = BasicConv(96, 96, kernel_size=3, stride=2)

    def forward(self, x):
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), three, F.max_pool2d(x, 3, stride=2)], 1)


class Block17(nn.Module):
    def __init__(self, c):
        super().__init__()
        wide, tall = {"kernel_size": (1, 7), "padding": (0, 3)}, {"kernel_size": (7, 1), "padding": (3, 0)}
        self.branch1x1 = BasicConv(768, 192, kernel_size=1)
        self.branch7x7_1 = BasicConv(768, c, kernel_size=1)
        self.branch7x7_2 = BasicConv(c, c, **wide)
        self.branch7x7_3 = BasicConv(c, 192, **tall)
        self.branch7x7dbl_1 = BasicConv(768, c, kernel_size=1)
        self.branch7x7dbl_2 = BasicConv(c, c, **tall)
        self.branch7x7dbl_3 = BasicConv(c, c, **wide)
        self.branch7x7dbl_4 = BasicConv(c, c, **tall)
        self.branch7x7dbl_5 = BasicConv(c, 192, **wide)
        self.branch_pool = BasicConv(768, 192, kernel_size=1)

    def forward(self, x):
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        twice = self.branch7x7dbl_5(self.branch7x7dbl_4(twice))
        return torch.cat([self.branch1x1(x), seven, twice, self.branch_pool(average(x))], 1)


class Down17(nn.Module):
    def __init__(self):
        super().__init__()
        self.branch3x3_1 = BasicConv(768, 192, kernel_size=1)
        self.branch3x3_2 = BasicConv(192, 320, kernel_size=3, stride=2)
        self.branch7x7x3_1 = BasicConv(768, 192, kernel_size=1)
        self.branch7x7x3_2 = BasicConv(192, 192, kernel_size=(1, 7), padding=(0, 3))
        self.branch7x7x3_3 = BasicConv(192, 192, kernel_size=(7, 1), padding=(3, 0))
        self.branch7x7x3_4 = BasicConv(192, 192, kernel_size=3, stride=2)

    def forward(self, x):
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        three = self.branch3x3_2(self.branch3x3_1(x))
        return torch.cat([three, self.branch7x7x3_4(seven), F.max_pool2d(x, 3, stride=2)], 1)


class Block8(nn.Module):
    def __init__(self, c, pool):
        super().__init__()
        wide, tall = {"kernel_size": (1, 3), "padding": (0, 1)}, {"kernel_size": (3, 1), "padding": (1, 0)}
        self.pool = pool
        self.branch1x1 = BasicConv(c, 320, kernel_size=1)
        self.branch3x3_1 = BasicConv(c, 384, kernel_size=1)
        self.branch3x3_2a = BasicConv(384, 384, **wide)
        self.branch3x3_2b = BasicConv(384, 384, **tall)
        self.branch3x3dbl_1 = BasicConv(c, 448, kernel_size=1)
        self.branch3x3dbl_2 = BasicConv(448, 384, kernel_size=3, padding=1)
        self.branch3x3dbl_3a = BasicConv(384, 384, **wide)
        self.branch3x3dbl_3b = BasicConv(384, 384, **tall)
        self.branch_pool = BasicConv(c, 192, kernel_size=1)

    def forward(self, x):
        three = self.branch3x3_1(x)
        twice = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pair = [self.branch3x3_2a(three), self.branch3x3_2b(three)]
        pair_twice = [self.branch3x3dbl_3a(twice), self.branch3x3dbl_3b(twice)]
        return torch.cat([self.branch1x1(x), *pair, *pair_twice, self.branch_pool(self.pool(x))], 1)


class Twin(nn.Module):
    """[b, 3, 299, 299] in [-1, 1) -> mixed_7, mixed_8, pool_3 (spatial means), logits."""

    def __init__(self):
        super().__init__()
        self.Conv2d_1a_3x3 = BasicConv(3, 32, kernel_size=3, stride=2)
        self.Conv2d_2a_3x3 = BasicConv(32, 32, kernel_size=3)
        self.Conv2d_2b_3x3 = BasicConv(32, 64, kernel_size=3, padding=1)
        self.Conv2d_3b_1x1 = BasicConv(64, 80, kernel_size=1)
        self.Conv2d_4a_3x3 = BasicConv(80, 192, kernel_size=3)
        self.Mixed_5b = Block35(192, 32)
        self.Mixed_5c = Block35(256, 64)
        self.Mixed_5d = Block35(288, 64)
        self.Mixed_6a = Down35()
        self.Mixed_6b = Block17(128)
        self.Mixed_6c = Block17(160)
        self.Mixed_6d = Block17(160)
        self.Mixed_6e = Block17(192)
        self.Mixed_7a = Down17()
        self.Mixed_7b = Block8(1280, average)
        self.Mixed_7c = Block8(2048, lambda x: F.max_pool2d(x, 3, stride=1, padding=1))
        self.fc = nn.Linear(2048, 1008)

    def forward(self, x):
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, stride=2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(x, 3, stride=2))))
        mixed_7 = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        mixed_8 = self.Mixed_7a(mixed_7)
        pool_3 = self.Mixed_7c(self.Mixed_7b(mixed_8)).mean((2, 3))
        means = {"mixed_7": mixed_7.mean((2, 3)), "mixed_8": mixed_8.mean((2, 3)), "pool_3": pool_3}
        return {**means, "logits": self.fc(pool_3)}


def random_twin(seed: int) -> Twin:
    """A twin whose batch statistics, scales and shifts are random as well, and whose signal neither dies nor
    grows: kernels of He's variance, statistics near those of the data."""
    torch.manual_seed(seed)
    net = Twin().eval()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, BasicConv):
                nn.init.kaiming_normal_(module.conv.weight)
                module.bn.weight.uniform_(0.7, 1.3)
                module.bn.bias.uniform_(-0.2, 0.3)
                module.bn.running_mean.uniform_(-0.3, 0.3)
                module.bn.running_var.uniform_(0.6, 1.6)
    return net
