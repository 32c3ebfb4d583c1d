"""Configs as JSON: the `config.json` of a run, and records back to nested dicts.

A run is what it learns from which photos: `check_same` compares the fields that determine what is learned,
and `data.dataset_info` the content of the photos.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from jaxdog.config import build, schema
from jaxdog.utils import errors, files, untrusted

NAME = "config.json"  # in the folder of a run
REMEDY = "Delete it, and run jaxdog train with the config of this run, which writes it again"  # if damaged
# Sections that may change when a run resumes.
CHANGEABLE = ("parallel", "train", "checkpoint", "eval", "sample", "submit", "name")
# Fields of config.data that say where the photos are and how they are read, and not which they are.
PLACES = ("path", "archives", "classes", "cache_dir", "workers", "select.from_csv.path")
# Fields of config.eval that are paths, or one of the words of `NO_PATHS`.
WEIGHTS, NO_PATHS = ("weights", "nasnet_weights", "dinov2_weights"), ("published", "random")


def find(folder: pathlib.Path) -> pathlib.Path:
    """The config.json of a run's folder; raises MissingFileError if there is none."""
    path = folder / NAME
    if not path.is_file():
        raise errors.MissingFileError(f"{path} does not exist: {folder} is not the folder of a run")
    return path


def load(folder: pathlib.Path) -> build.Config:
    """The config that a run saved in its folder. Raises MissingFileError if there is none, or UserError."""
    path = find(folder)
    try:
        return from_json(untrusted.read_json(path, REMEDY))
    except errors.UserError:
        raise
    except (ValueError, TypeError) as error:
        raise errors.ConfigError(f"{path} is not a config: {error}") from error


def check(config: build.Config, folder: pathlib.Path) -> schema.Experiment:
    """`build.check` of the config that a run saved in its folder, whose errors name the file."""
    try:
        return build.check(config)
    except errors.UserError as error:
        raise errors.ConfigError(f"{folder / NAME} cannot be used: {error}") from error


def from_json(value: Any) -> build.Config:
    """The config in a JSON value; fields that a later version has added get their defaults.

    Raises ConfigError if a field is unknown, missing or of the wrong type.
    """
    section = lists_to_tuples(value)
    return build.Config(build.tree_of(section).fill(section, "config"))


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


def check_same(folder: pathlib.Path, config: schema.Experiment) -> None:
    """Raises ConfigError, naming the fields, if the run in a folder learns something else than `config`."""
    try:
        given = load(folder).to_dict()
    except errors.MissingFileError:
        return
    now = to_dict(config)
    given |= {name: now[name] for name in CHANGEABLE}  # whose old values may be invalid
    old, new = flatten(to_json(check(build.Config(given), folder))), flatten(to_json(config))
    changed = [
        f"{name} is {new.get(name)!r}, was {old.get(name)!r}"
        for name in sorted(old.keys() | new.keys())
        if name.split(".")[0] not in CHANGEABLE
        and name.removeprefix("data.") not in PLACES
        and _differs(name, old.get(name), new.get(name))
    ]
    if changed:
        raise errors.ConfigError(
            f"{folder} holds a run with another config: {'; '.join(changed)}. Use another work folder "
            f"or the old values; sections that may change: {', '.join(CHANGEABLE)}"
        )


def _differs(name: str, old: Any, new: Any) -> bool:
    if name == "init_from":  # whether there was a source matters, not where it is now
        return bool(old) != bool(new)
    return old != new


def absolute(config: schema.Experiment) -> schema.Experiment:
    """The config with absolute paths, which hold from any folder.

    Those that start with ~ do so already, and the cache may be anywhere: its files are made again.
    """

    def change(field: str, path: str) -> str:
        keep = not path or path.startswith("~") or field == "cache_dir"
        return path if keep else str(pathlib.Path(path).absolute())

    return with_paths(config, change)


def with_paths(config: schema.Experiment, change: Callable[[str, str], str]) -> schema.Experiment:
    """The config with `change(field, path)` in place of each path: of photos, tables, weights, other runs."""
    data, scoring = config.data, config.eval
    select = {
        name: {k: change("select", x) if k == "path" else x for k, x in step.items()}
        for name, step in data.select.items()
    }
    places = {name: change(name, getattr(data, name)) for name in ("path", "archives", "cache_dir")}
    weights = {name: getattr(scoring, name) for name in WEIGHTS}
    weights = {name: x if x in NO_PATHS else change(name, x) for name, x in weights.items()}
    return config._replace(
        data=data._replace(select=select, **places),
        eval=scoring._replace(**weights),
        init_from=change("init_from", config.init_from),
    )


def write(folder: pathlib.Path, config: schema.Experiment) -> None:
    """Writes config.json atomically, as other processes may be reading it."""
    files.write_text(folder / NAME, json.dumps(to_json(config), indent=2) + "\n")


def to_json(config: schema.Experiment) -> dict[str, Any]:
    """The fields of a checked config as JSON holds them, with lists in place of tuples."""
    return json.loads(json.dumps(to_dict(config)))


def to_dict(config: schema.Experiment) -> dict[str, Any]:
    """The fields of a checked config as nested dicts, the inverse of `build.check`."""
    return _plain(config)


def _plain(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        value = value._asdict()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return {name: _plain(x) for name, x in value.items()} if isinstance(value, Mapping) else value
