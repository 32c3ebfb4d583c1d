"""Independent implementations that tests compare with; a test that needs a missing one skips and says so."""

import importlib
import types
import warnings
from typing import Any

import pytest


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
