"""Configs. A config file imports what it needs from here; see `configs/biggan.py`."""

from jaxdog.config.resolve import Config, derive, experiment, load_sibling, smoke_test

__all__ = ["Config", "derive", "experiment", "load_sibling", "smoke_test"]
