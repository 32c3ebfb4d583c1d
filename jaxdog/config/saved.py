"""Configs as JSON: the `config.json` of a run, and records back to nested dicts."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from jaxdog.config import build, schema
from jaxdog.utils import errors, files

NAME = "config.json"  # in the folder of a run
REMEDY = "Delete it, and run jaxdog train with the config of this run, which writes it again"  # if damaged


def load(folder: pathlib.Path) -> build.Config:
    """The config that a run saved in its folder. Raises MissingFileError if there is none, or UserError."""
    path = folder / NAME
    if not path.is_file():
        raise errors.MissingFileError(f"{path} does not exist: {folder} is not the folder of a run")
    try:
        return build.Config(lists_to_tuples(files.read_json(path, REMEDY)))
    except errors.UserError:
        raise
    except (ValueError, TypeError) as error:
        raise errors.ConfigError(f"{path} is not a config: {error}") from error


def lists_to_tuples(value: Any) -> Any:
    """A JSON value with tuples, which configs hold, in place of lists."""
    if isinstance(value, dict):
        return {name: lists_to_tuples(x) for name, x in value.items()}
    return tuple(lists_to_tuples(x) for x in value) if isinstance(value, list) else value


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """The fields of a config, read from JSON, by their dotted names."""
    if not isinstance(tree, dict):
        return {prefix[:-1]: tree}
    return {name: x for key, sub in tree.items() for name, x in flatten(sub, f"{prefix}{key}.").items()}


def to_dict(config: schema.Experiment) -> dict[str, Any]:
    """The fields of a checked config as nested dicts, the inverse of `build.check`."""
    return _plain(config)


def _plain(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        value = value._asdict()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return {name: _plain(x) for name, x in value.items()} if isinstance(value, Mapping) else value
