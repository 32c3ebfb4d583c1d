"""Independent implementations that tests compare with; a test that needs a missing one skips and says so."""

import importlib
import types
import warnings
from typing import Any

import pytest


def torch_fidelity(module: str) -> tuple[Any, types.ModuleType]:
    """torch, and one module of torch-fidelity.

    torchvision, which torch-fidelity imports for other purposes, looks for operators that its builds for GPU
    lack beside a torch for CPU; declaring them is enough.
    """
    torch = pytest.importorskip("torch", reason="torch is an oracle (make oracles)")
    for operator in ("nms", "qnms"):
        try:
            torch.library.define(f"torchvision::{operator}", "(Tensor x) -> Tensor")
        except RuntimeError:  # there already
            pass
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("torch_fidelity", reason="torch-fidelity is an oracle (make oracles)")
        return torch, importlib.import_module(f"torch_fidelity.{module}")
