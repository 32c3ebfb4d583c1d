"""The networks of `models/progan.py` as torch functions of a flat dict of tensors in torch's layouts."""

import math
from typing import Any

import jax
import numpy as np
import torch
from torch.nn import functional

Tensors = dict[str, torch.Tensor]


def _order(name: str) -> tuple[int, ...]:
    """Axes of our array in torch's order."""
    if not name.endswith("kernel") or name.startswith("embed"):
        return ()
    return (2, 3, 0, 1) if name.startswith("expand") else (3, 2, 0, 1)


def tensors(params: Any) -> Tensors:
    """Our tree as torch's leaves, by names such as "block8/conv1/kernel"."""
    made = {}
    for path, array in jax.tree_util.tree_leaves_with_path(params):
        name, value = jax.tree_util.keystr(path, simple=True, separator="/"), np.asarray(array)
        value = value.transpose(_order(name) or range(value.ndim))
        made[name] = torch.nn.Parameter(torch.tensor(value.copy()))
    return made


def arrays(params: Any, values: Tensors) -> Any:
    """Values by torch's names and layouts, as a tree like `params`."""

    def back(path: Any, array: Any) -> np.ndarray:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        value = values[name].detach().numpy()
        return value.transpose(np.argsort(_order(name) or range(value.ndim)))

    return jax.tree_util.tree_map_with_path(back, params)


def conv(p: Tensors, name: str, x: torch.Tensor, pad: int = 0) -> torch.Tensor:
    weight = p[f"{name}/kernel"]
    scale = math.sqrt(2 / weight[0].numel())
    return functional.conv2d(x, weight * scale, p[f"{name}/bias"], padding=pad)


def act(x: torch.Tensor) -> torch.Tensor:
    return functional.leaky_relu(x, 0.2)


def pixel_norm(x: torch.Tensor) -> torch.Tensor:
    return x / torch.sqrt((x**2).mean(1, keepdim=True) + 1e-8)


def double(x: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(x, scale_factor=2)


def sizes(size: int) -> list[int]:
    return [8 << i for i in range(int(math.log2(size)) - 2)]


def generate(
    p: Tensors, z: torch.Tensor, label: torch.Tensor, classes: int, size: int, alpha: float | None
) -> torch.Tensor:
    """-> [b, 3, size, size]."""
    code = torch.cat([functional.one_hot(label, classes).float(), z], 1)[:, :, None, None]
    weight = p["expand/kernel"]
    h = act(functional.conv_transpose2d(code, weight * math.sqrt(2 / weight.shape[0]), p["expand/bias"]))
    h = pixel_norm(act(conv(p, "conv", h, 1)))
    before = h
    for s in sizes(size):
        before = h
        h = pixel_norm(act(conv(p, f"block{s}/conv1", double(h), 1)))
        h = pixel_norm(act(conv(p, f"block{s}/conv2", h, 1)))
    image = conv(p, f"rgb{size}", h)
    if alpha is not None and size > 4:
        image = alpha * image + (1 - alpha) * conv(p, f"rgb{size // 2}", double(before))
    return torch.tanh(image)


def judge(p: Tensors, x: torch.Tensor, label: torch.Tensor, size: int, alpha: float | None) -> torch.Tensor:
    """-> [b]. Shortens the embedding's rows in place, as torch does."""
    h = conv(p, f"rgb{size}", x)
    for s in reversed(sizes(size)):
        h = act(conv(p, f"block{s}/conv1", h, 1))
        h = functional.avg_pool2d(act(conv(p, f"block{s}/conv2", h, 1)), 2)
        if alpha is not None and s == size:
            h = alpha * h + (1 - alpha) * conv(p, f"rgb{s // 2}", functional.avg_pool2d(x, 2))
    spread = torch.sqrt(h.var(0, unbiased=False) + 1e-8).mean()
    h = torch.cat([h, spread.expand(len(h), 1, 4, 4)], 1)
    h = act(conv(p, "collapse", act(conv(p, "conv", h, 1))))
    breed = functional.embedding(label, p["embed/kernel"], max_norm=1.0)
    return act(conv(p, "score", h))[:, 0, 0, 0] + (breed * h[:, :, 0, 0]).sum(1)
