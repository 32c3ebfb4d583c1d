"""Independent implementations that tests compare with; a test that needs a missing one skips and says so."""

import importlib
import types
import warnings
from typing import Any

import numpy as np
import pytest

from jaxdog.metrics.backbones import inception_weights


def _torch_with_operators() -> Any:
    """torch with the operators that builds of torchvision for GPU look for, and a torch for CPU lacks.

    Declaring them is enough.
    """
    torch = pytest.importorskip("torch", reason="torch is an oracle (make oracles)")
    for operator in ("nms", "qnms"):
        try:
            torch.library.define(f"torchvision::{operator}", "(Tensor x) -> Tensor")
        except RuntimeError:  # there already
            pass
    return torch


def torchvision_transforms() -> tuple[Any, types.ModuleType]:
    """torch, and torchvision's transforms."""
    torch = _torch_with_operators()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reason = "torchvision is an oracle (make oracles)"
        return torch, pytest.importorskip("torchvision.transforms", reason=reason)


def torch_fidelity(module: str) -> tuple[Any, types.ModuleType]:
    """torch, and one module of torch-fidelity, which imports torchvision for other purposes."""
    torch = _torch_with_operators()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("torch_fidelity", reason="torch-fidelity is an oracle (make oracles)")
        return torch, importlib.import_module(f"torch_fidelity.{module}")


def transformers() -> tuple[Any, types.ModuleType]:
    """torch, and transformers, which imports torchvision."""
    torch = _torch_with_operators()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch, pytest.importorskip("transformers", reason="transformers is an oracle (make oracles)")


def inception_state(params: Any) -> dict[str, Any]:
    """Inception's weights by the names of pytorch-fid and torch-fidelity; batch norms are identities.

    The classifier is zero.
    """
    torch = pytest.importorskip("torch", reason="torch is an oracle (make oracles)")
    scale = np.sqrt(1 + inception_weights.BATCH_NORM_EPSILON)
    state = {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    for unit, prefix in inception_weights.torch_names().items():
        kernel, bias = (torch.from_numpy(np.array(params[unit][leaf])) for leaf in ("kernel", "bias"))
        state[f"{prefix}.conv.weight"] = kernel.permute(3, 2, 0, 1).contiguous()
        state[f"{prefix}.bn.weight"] = torch.full_like(bias, scale)
        state[f"{prefix}.bn.bias"] = bias
        state[f"{prefix}.bn.running_mean"] = torch.zeros_like(bias)
        state[f"{prefix}.bn.running_var"] = torch.ones_like(bias)
    return state
