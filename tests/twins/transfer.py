"""Weights and gradients between our trees and torch modules whose parts have our names.

Only for twins made of torch's own layers, spectral norm included (`torch.nn.utils.spectral_norm`).
"""

from typing import Any

import jax
import numpy as np
import torch

# Axes of torch's weight in the order of our kernel [kh, kw, in, out], [in, out] or [classes, out].
ORDER = {
    torch.nn.Conv2d: (2, 3, 1, 0),
    torch.nn.ConvTranspose2d: (2, 3, 0, 1),
    torch.nn.Linear: (1, 0),
    torch.nn.Embedding: (0, 1),
}
# Norms with affine, and our name of torch's weight; a GroupNorm of one group is a layer norm over c, h, w.
NORMS = {torch.nn.BatchNorm2d: "gain", torch.nn.GroupNorm: "scale"}


def _kernel(module: Any, weight: np.ndarray) -> np.ndarray:
    """torch's weight as our kernel."""
    kernel = weight.transpose(ORDER[type(module)])
    # A transposed convolution that keeps the height is a convolution with the turned kernel.
    turned = (
        isinstance(module, torch.nn.ConvTranspose2d) and module.stride == (1, 1) and module.padding != (0, 0)
    )
    return kernel[::-1, ::-1] if turned else kernel


def _bias(module: Any) -> torch.Tensor | None:
    return getattr(module, "bias", None)  # embeddings have none


def _weight(module: Any, kernel: Any) -> torch.Tensor:
    kernel = np.asarray(kernel)
    inverse = np.argsort(ORDER[type(module)])
    turned = (
        isinstance(module, torch.nn.ConvTranspose2d) and module.stride == (1, 1) and module.padding != (0, 0)
    )
    return torch.tensor((kernel[::-1, ::-1] if turned else kernel).transpose(inverse).copy())


def load(module: torch.nn.Module, variables: Any) -> None:
    """Copies our parameters, and the vectors of our spectral norms, into a torch module."""
    _load(module, variables["params"], variables.get("spectral", {}))


def _load(module: Any, params: Any, spectral: Any) -> None:
    if type(module) in ORDER:
        normed = hasattr(module, "weight_orig")
        assert normed == ("u" in spectral), (module, spectral)
        (module.weight_orig if normed else module.weight).data = _weight(module, params["kernel"])
        if normed:
            module.weight_u = torch.tensor(np.asarray(spectral["u"]))
        assert (_bias(module) is not None) == ("bias" in params), module
        if _bias(module) is not None:
            module.bias.data = torch.tensor(np.asarray(params["bias"]))
    elif type(module) in NORMS:
        if module.affine:
            module.weight.data = torch.tensor(np.asarray(params[NORMS[type(module)]]))
            module.bias.data = torch.tensor(np.asarray(params["bias"]))
    else:
        own = dict(module.named_parameters(recurse=False))
        for name, value in own.items():
            value.data = torch.tensor(np.asarray(params[name]))
        children = {name for name, child in module.named_children() if any(True for _ in child.parameters())}
        assert set(params) == children | set(own), set(params) ^ (children | set(own))
        for name in children:
            _load(getattr(module, name), params[name], spectral.get(name, {}))


def gradients(module: Any) -> dict[str, Any]:
    """torch's gradients as a tree like our parameters."""
    if type(module) in ORDER:
        weight = module.weight_orig if hasattr(module, "weight_orig") else module.weight
        found = {"kernel": _kernel(module, weight.grad.numpy())}
        return found if _bias(module) is None else {**found, "bias": module.bias.grad.numpy()}
    if type(module) in NORMS:
        names = {NORMS[type(module)]: module.weight, "bias": module.bias} if module.affine else {}
        return {name: value.grad.numpy() for name, value in names.items() if value.grad is not None}
    found = {name: value.grad.numpy() for name, value in module.named_parameters(recurse=False)}
    inner = {name: gradients(child) for name, child in module.named_children()}
    return {**found, **{name: tree for name, tree in inner.items() if tree}}


def spectral_vectors(module: torch.nn.Module) -> dict[str, np.ndarray]:
    """u of every spectral norm, by the name of its layer."""
    return {
        name.removesuffix(".weight_u"): value.numpy()
        for name, value in module.named_buffers()
        if name.endswith("weight_u")
    }


def first(x: jax.Array) -> torch.Tensor:
    """[b, h, w, c] -> [b, c, h, w]."""
    return torch.tensor(np.asarray(x).transpose(0, 3, 1, 2).copy())


def last(x: torch.Tensor) -> np.ndarray:
    """[b, c, h, w] -> [b, h, w, c]."""
    return x.detach().numpy().transpose(0, 2, 3, 1)


def close(got: Any, expected: Any, rtol: float = 1e-4) -> None:
    """Each array within rtol of its largest entry, or of a hundredth of the largest of all."""
    pairs = list(zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(expected), strict=True))
    floor = 1e-2 * max(float(np.abs(theirs).max()) for _, theirs in pairs)
    for (path, ours), theirs in pairs:
        scale = max(float(np.abs(theirs).max()), floor)
        difference = float(np.abs(np.asarray(ours) - theirs).max())
        assert difference <= rtol * scale, (jax.tree_util.keystr(path), difference / scale)


def starts_as_torch(params: Any, module: Any, path: str = "") -> int:
    """Checks our starting kernels and biases against the bounds of torch's own; how many were checked.

    torch's layers start uniform within 1 / sqrt(fan_in), the fan as torch reads its weight.
    """
    if type(module) not in ORDER:
        return sum(
            starts_as_torch(params[name], child, f"{path}/{name}")
            for name, child in module.named_children()
            if name in params
        )
    weight = module.weight_orig if hasattr(module, "weight_orig") else module.weight
    bound = 1.0 / np.sqrt(torch.nn.init._calculate_fan_in_and_fan_out(weight)[0])
    torchs = weight.detach().numpy()  # the twin's own start, before anything was copied into it
    for name, x in [("torch", torchs), *((name, np.asarray(x)) for name, x in params.items())]:
        assert np.abs(x).max() <= bound * (1 + 1e-6), (path, name)
        if x.size >= 100:
            assert np.abs(x).max() > 0.95 * bound, (path, name)
            assert abs(x.std() * np.sqrt(3) / bound - 1) < 0.15, (path, name)
    return len(params)
