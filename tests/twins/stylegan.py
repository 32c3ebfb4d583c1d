"""The networks of `models/stylegan.py` as torch functions of a flat dict of tensors, by the papers' formulas.

Modulated kernels are made for each image and used in groups (Karras et al. 2020, sec. 2.2), images are
enlarged and features halved by filters of (1, 3, 3, 1) at stride 2; ours does neither.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import torch
from torch.nn import functional

Tensors = dict[str, torch.Tensor]
ROOT2 = math.sqrt(2)


def _order(name: str, ndim: int) -> tuple[int, ...]:
    """Axes of our array in torch's order."""
    return {4: (3, 2, 0, 1), 3: (2, 0, 1)}.get(ndim, tuple(range(ndim)))  # 3: the constant


def tensors(params: Any) -> Tensors:
    """Our tree as torch's leaves, by names such as "synthesis/layer1/conv/kernel"."""
    made = {}
    for path, array in jax.tree_util.tree_leaves_with_path(params):
        name, value = jax.tree_util.keystr(path, simple=True, separator="/"), np.asarray(array)
        value = value.transpose(_order(name, value.ndim))
        made[name] = torch.nn.Parameter(torch.tensor(value.copy()))
    return made


def gradients(params: Any, values: Tensors) -> Any:
    """torch's gradients as a tree like `params`; zeros where none came."""

    def back(path: Any, array: Any) -> np.ndarray:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        grad = values[name].grad
        value = np.zeros(values[name].shape, np.float32) if grad is None else grad.numpy()
        return value.transpose(np.argsort(_order(name, value.ndim)))

    return jax.tree_util.tree_map_with_path(back, params)


# Parts ------------------------------------------------------------------------------------------------------


def act(x: torch.Tensor) -> torch.Tensor:
    return functional.leaky_relu(x, 0.2)


def dense(p: Tensors, name: str, x: torch.Tensor, gain: float = 1.0, rate: float = 1.0) -> torch.Tensor:
    weight = p[f"{name}/kernel"]
    return x @ weight * (gain * rate / math.sqrt(len(weight))) + rate * p[f"{name}/bias"]


def conv(p: Tensors, name: str, x: torch.Tensor, gain: float, bias: bool = True) -> torch.Tensor:
    """Square, of the size of its kernel, zeros around those that are 3x3."""
    weight = p[f"{name}/kernel"]
    pad = 1 if weight.shape[-1] == 3 else 0
    scaled = weight * (gain / math.sqrt(weight[0].numel()))
    return functional.conv2d(x, scaled, p[f"{name}/bias"] if bias else None, padding=pad)


def filtered(x: torch.Tensor, taps: Sequence[float], stride: int = 1) -> torch.Tensor:
    """Each channel filtered along both axes with one zero around, the taps' sum being 1."""
    line = torch.tensor(taps) / sum(taps)
    kernel = torch.outer(line, line).expand(x.shape[1], 1, -1, -1)
    return functional.conv2d(x, kernel, padding=1, stride=stride, groups=x.shape[1])


def doubled(x: torch.Tensor) -> torch.Tensor:
    """A zero after each pixel, then (1, 3, 3, 1) along both axes, the brightness kept."""
    line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
    kernel = torch.outer(line, line).expand(x.shape[1], 1, -1, -1)
    return functional.conv_transpose2d(x, kernel, stride=2, padding=1, groups=x.shape[1])


def nearest(x: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(x, scale_factor=2)


def modulated(
    p: Tensors, name: str, x: torch.Tensor, w: torch.Tensor, up: bool = False, demodulate: bool = True
) -> torch.Tensor:
    """Karras et al. 2020, eq. 1 to 3: a kernel for each image, all images as groups of one."""
    b, c, h, _ = x.shape
    weight = p[f"{name}/kernel"] / math.sqrt(p[f"{name}/kernel"][0].numel())
    own = weight[None] * (1 + dense(p, f"{name}/style", w))[:, None, :, None, None]
    if demodulate:
        own = own / torch.sqrt((own**2).sum((2, 3, 4), keepdim=True) + 1e-8)
    x = nearest(x) if up else x
    y = functional.conv2d(
        x.reshape(1, b * c, *x.shape[2:]), own.flatten(0, 1), groups=b, padding=weight.shape[-1] // 2
    )
    return y.reshape(b, -1, *x.shape[2:])


def adain(p: Tensors, name: str, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Karras et al. 2019, eq. 1."""
    scale, shift = dense(p, f"{name}/style", w)[:, :, None, None].chunk(2, 1)
    return functional.instance_norm(x, eps=1e-8) * (1 + scale) + shift


# Networks ---------------------------------------------------------------------------------------------------


def mapping(p: Tensors, z: torch.Tensor, label: torch.Tensor, rate: float) -> torch.Tensor:
    """-> w [b, k]. Where the factor sqrt(2) stands makes a difference to the biases: late ones, 2020."""
    late = "synthesis/rgb4/style/kernel" in p
    if "mapping/embed/kernel" in p:
        z = torch.cat([z, p["mapping/embed/kernel"][label]], 1)
    w = z / torch.sqrt((z**2).mean(1, keepdim=True) + 1e-8)
    for i in range(sum(name.startswith("mapping/dense") for name in p) // 2):
        w = act(dense(p, f"mapping/dense{i + 1}", w, 1.0 if late else ROOT2, rate)) * (ROOT2 if late else 1)
    return w


def paint_2019(
    p: Tensors, w: torch.Tensor, noise: list[torch.Tensor], alpha: float | None = None
) -> torch.Tensor:
    """w [b, layers, k], a map for each layer -> [b, 3, size, size]."""
    p = {name.removeprefix("synthesis/"): x for name, x in p.items()}
    count = w.shape[1]
    h = p["constant"].expand(len(w), -1, -1, -1)
    before = h
    for i in range(count):
        before = h if i == count - 2 else before
        if i and i % 2 == 0:
            h = filtered(conv(p, f"layer{i}/conv", nearest(h), ROOT2, False), (1.0, 2.0, 1.0))
        elif i:
            h = conv(p, f"layer{i}/conv", h, ROOT2, False)
        h = h + p[f"layer{i}/noise/weight"][:, None, None] * noise[i]
        h = adain(p, f"layer{i}/adain", act(h + p[f"layer{i}/bias"][:, None, None]), w[:, i])
    size = h.shape[-1]
    image = conv(p, f"rgb{size}", h, 1.0)
    return (
        image
        if alpha is None
        else alpha * image + (1 - alpha) * nearest(conv(p, f"rgb{size // 2}", before, 1.0))
    )


def paint_2020(p: Tensors, w: torch.Tensor, noise: list[torch.Tensor]) -> torch.Tensor:
    """w [b, layers, k], a map for each layer but the last -> [b, 3, size, size]."""
    p = {name.removeprefix("synthesis/"): x for name, x in p.items()}
    h = p["constant"].expand(len(w), -1, -1, -1)
    image = torch.zeros(())
    for i in range(w.shape[1] - 1):
        up = i % 2 == 1
        h = modulated(p, f"layer{i}/conv", h, w[:, i], up)
        h = filtered(h, (1.0, 2.0, 1.0)) if up else h
        h = h + p[f"layer{i}/noise/weight"] * noise[i]
        h = ROOT2 * act(h + p[f"layer{i}/bias"][:, None, None])
        if not up:
            name = f"rgb{h.shape[-1]}"
            rgb = modulated(p, name, h, w[:, i + 1], demodulate=False) + p[f"{name}/bias"][:, None, None]
            image = rgb + doubled(image) if i else rgb
    return image


def judge(
    p: Tensors, x: torch.Tensor, label: torch.Tensor, group: int, alpha: float | None = None
) -> torch.Tensor:
    """-> logits [b]; residual where there are shortcuts, projecting where there are breeds' vectors."""
    late = any("shortcut" in name for name in p)
    gain = 1.0 if late else ROOT2

    def on(x: torch.Tensor) -> torch.Tensor:
        return act(x) * (ROOT2 if late else 1.0)

    h, size = on(conv(p, f"rgb{x.shape[-1]}", x, gain)), x.shape[-1]
    while size > 4:
        name = f"block{size}"
        y = on(conv(p, f"{name}/conv1", h, gain))
        y = filtered(y, (1.0, 2.0, 1.0))
        y = functional.avg_pool2d(conv(p, f"{name}/conv2", y, gain, False), 2)
        y = on(y + p[f"{name}/conv2/bias"][:, None, None])
        if late:
            skip = conv(p, f"{name}/shortcut", filtered(h, (1.0, 3.0, 3.0, 1.0), 2), gain, False)
            y = (y + skip) / ROOT2
        h = y
        if alpha is not None and size == x.shape[-1]:
            small = on(conv(p, f"rgb{size // 2}", functional.avg_pool2d(x, 2), gain))
            h = alpha * h + (1 - alpha) * small
        size //= 2
    groups = h.reshape(group, -1, *h.shape[1:])
    spread = torch.sqrt(groups.var(0, unbiased=False) + 1e-8).mean((1, 2, 3))
    h = torch.cat([h, spread.repeat(group)[:, None, None, None].expand(-1, 1, 4, 4)], 1)
    h = on(conv(p, "collapse", on(conv(p, "conv", h, gain)), gain))[:, :, 0, 0]
    logit = dense(p, "score", h)[:, 0]
    if "embed/kernel" in p:
        logit = logit + (p["embed/kernel"][label] * h).sum(1) / math.sqrt(h.shape[1])
    return logit
