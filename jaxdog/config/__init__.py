"""Configs. A config file imports what it needs from here; see `configs/biggan.py`."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxdog.config.resolve import Config, derive, experiment, load_sibling, smoke_test

__all__ = ["Config", "derive", "experiment", "load_sibling", "smoke_test"]


def __getattr__(name: str) -> Any:
    """Imports `resolve`, and with it JAX, when one of its names is used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("jaxdog.config.resolve"), name)
