"""The configs that come with jaxdog, by name; and configs with overrides, as the command line loads them.

    config = library.load("biggan", overrides=["train.max_hours=2"])
    config = library.load("my_configs/wide.py", "test", data="photos/", resolution=128)

`names`, `find` and `describe` do not import JAX.
"""

import ast
import difflib
import inspect
import os
import pathlib
import re
import runpy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections

from jaxdog.config import places
from jaxdog.utils import errors

Config = ml_collections.ConfigDict
Overrides = Mapping[str, Any] | Sequence[str]
SWEEP = "sample.sweep"  # a section that is replaced as a whole


def names() -> tuple[str, ...]:
    """The names of all configs that come with jaxdog, sorted."""
    return tuple(sorted(path.stem for path in places.folder().glob("*.py") if not path.stem.startswith("_")))


def find(name_or_path: str | os.PathLike) -> pathlib.Path:
    """The file of a config.

    Args:
      name_or_path: a name in `names()`, or the path of a Python file.

    Raises errors.MissingFileError if there is no such file, or no config of this name; it suggests others.
    """
    given = os.fspath(name_or_path)
    path = pathlib.Path(given).expanduser()
    if path.is_dir() and given not in names():
        raise errors.ConfigError(
            f"{given} is a folder, and a config is a Python file or one of {', '.join(names())}. To resume a "
            "run with jaxdog train, give the config that it was started with, and its folder as --workdir"
        )
    if path.is_file() and path.suffix != ".py" and given not in names():
        raise errors.ConfigError(
            f"{given} is not a Python file; a config of your own is a file with get_config(), for which "
            "jaxdog configs NAME > my_config.py is a start"
        )
    if given.endswith(".py") or path.name != given:
        if path.is_file():
            return path
        raise errors.MissingFileError(
            f"the config cannot be read: {path} does not exist. Configs that come with jaxdog are loaded by "
            f"name: {', '.join(names())}"
        )
    if given in names():
        return places.folder() / f"{given}.py"
    near = difflib.get_close_matches(given, names(), n=3, cutoff=0.5)
    raise errors.MissingFileError(
        f"no config is called {given!r}; {'similar' if near else 'names'}: {', '.join(near or names())}. "
        "A config of your own is given as a path that ends in .py"
    )


def describe(name_or_path: str | os.PathLike) -> str:
    """The first line of a config's docstring, read without running the file; "" if it has none."""
    tree = ast.parse(find(name_or_path).read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").partition("\n")[0]


def load(
    name_or_path: str | os.PathLike,
    variant: str = "full",
    overrides: Overrides = (),
    data: str | os.PathLike | None = None,
    resolution: int | None = None,
) -> Config:
    """A config, with changes.

    Args:
      name_or_path: a name in `names()`, or the path of a Python file with get_config(); "biggan:test" is the
        same as "biggan" with variant "test".
      variant: the argument of get_config; "full": none is passed. "test": the same experiment, tiny, on drawn
        dogs, if the file has that variant. Other variants than "full" are part of the config's name.
      overrides: changed fields, as words of the command line (["train.steps=500"]) or as a dictionary
        ({"train.steps": 500} or {"train": {"steps": 500}}).
      data: a folder of photos to train on, see `with_data`; None: the config's photos.
      resolution: side of the images in pixels, see `resizing.with_resolution`; None: the config's.

    Raises errors.UserError if there is no such config, field or choice.
    """
    given = os.fspath(name_or_path)
    head, colon, tail = given.rpartition(":")
    if colon and len(head) > 1 and tail.isidentifier():  # not the colon of C:\
        given, variant = head, tail
    path = find(given)
    functions = runpy.run_path(str(path))
    if "get_config" not in functions:
        raise errors.ConfigError(f"{path} is not a config: it has no function get_config()")
    config = _variant(functions["get_config"], variant, path)
    return change(config, overrides, data, resolution)


def _variant(get_config: Callable[..., Config], variant: str, path: pathlib.Path) -> Config:
    """A variant of a config, with its name, so that it gets another work folder."""
    if variant == "full":
        return _checked(get_config(), path)
    if not inspect.signature(get_config).parameters:
        raise errors.ConfigError(
            f"{path} has no variant {variant!r}: its get_config() takes no argument. Leave out ':{variant}'"
        )
    config = _checked(get_config(variant), path)
    if not str(config.name).endswith(f"_{variant}"):
        config.name = f"{config.name}_{variant}"
    return config


def _checked(config: Any, path: pathlib.Path) -> Config:
    """What get_config() has returned; raises errors.ConfigError unless it is a config with a name."""
    if isinstance(config, Config) and isinstance(config.get("name"), str):
        return config
    what = "a config without a name" if isinstance(config, Config) else f"a {type(config).__name__}"
    raise errors.ConfigError(
        f"get_config() of {path} returned {what}, and must return a config, as resolve.experiment and "
        "resolve.derive make it: jaxdog configs NAME shows one"
    )


def change(
    config: Config,
    overrides: Overrides = (),
    data: str | os.PathLike | None = None,
    resolution: int | None = None,
) -> Config:
    """A config, which is left unchanged, with the changes described at `load`."""
    if data is not None:
        config = with_data(config, data)
    if resolution is not None:
        from jaxdog.config import resizing  # not at the top: it imports JAX

        config = resizing.with_resolution(config, resolution)
    return override(config, overrides)


def with_data(config: Config, data: str | os.PathLike) -> Config:
    """The config for the photos in a folder, with as many classes as it has; its name gets the folder's.

    Photos that the config drops by name are those of its own data set, so none is dropped.
    """
    path = pathlib.Path(data).expanduser()
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise errors.MissingFileError(
            f"{path} {what}; it should be a folder of photos, or of one folder per class"
        )
    from jaxdog.config import resolve  # not at the top: it imports JAX
    from jaxdog.data import listing

    name = f"{config.name}_{listing.printable(path.resolve().name)}"
    others = {"source": "folder", "path": str(path), "classes": 0, "select": {"drop": None}}
    return resolve.derive(config, name=name, data=others)


# ------------------------------------------------------------------ overrides


def override(config: Config, overrides: Overrides) -> Config:
    """The config with changed fields.

    A section that holds rows of a table may get new ones, as with {"data.select.hold_out.every": 10}. None
    removes a row, and {} all rows. A section whose `name` changes gets the defaults of its new name.

    Args:
      config: unchanged.
      overrides: as for `load`. A word may also begin with "config." or "--config.".

    Raises errors.ConfigError if a field does not exist, naming those that do, a value is not of its type, or
    config.sample.sweep chooses the field.
    """
    if isinstance(overrides, str):
        raise errors.ConfigError(f"overrides is {overrides!r}, and must be a list of such words")
    values = overrides if isinstance(overrides, Mapping) else _parsed(config, overrides)
    values = {name: x.item() if getattr(x, "ndim", 1) == 0 else x for name, x in values.items()}  # of NumPy
    for name in values:
        _check_path(config, name)
    if not values:
        return config
    from jaxdog.config import resolve  # not at the top: it imports JAX

    changes = _nested(_whole(config, values))
    _check_swept(config, changes)
    return resolve.derive(config, **changes)


def _check_swept(config: Config, changes: Mapping[str, Any]) -> None:
    """Raises errors.ConfigError for a change of a field of config.sample whose value the sweep chooses."""
    sample = changes.get("sample")
    if not isinstance(sample, Mapping):
        return
    sweep = sample.get("sweep", _current(config, SWEEP))
    for name in sample if isinstance(sweep, Mapping | Config) else ():
        if name in sweep:
            raise errors.ConfigError(
                f"config.sample.{name} would have no effect: config.{SWEEP} tries {sweep[name]} and chooses "
                f"the best. Take it out of the sweep as well: --config.{SWEEP}.{name}=None"
            )


def _whole(config: Config, values: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides with whole sweeps in place of their rows, and None for each row of a section set to {}."""
    whole: dict[str, Any] = {}
    for name, value in values.items():
        head, _, row = name.rpartition(".")
        old, rows = _current(config, name), whole.get(SWEEP, _current(config, SWEEP))
        rows = rows.to_dict() if isinstance(rows, Config) else rows
        if head == SWEEP and isinstance(rows, Mapping | None):
            rows = {**(rows or {}), row: value}
            whole[head] = {name: x for name, x in rows.items() if x is not None}
        else:
            clears = value == {} and isinstance(old, Config) and name != SWEEP
            whole[name] = dict.fromkeys(old) if clears else value
    return whole


def _nested(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """{"a.b": 1, "a": {"c": 2}} -> {"a": {"b": 1, "c": 2}}."""
    tree: dict[str, Any] = {}
    for name, value in overrides.items():
        *sections, field = name.split(".")
        place = tree
        for section in sections:
            inner = place.get(section)
            if not isinstance(inner, Mapping | None):
                raise errors.ConfigError(
                    f"config.{name} cannot be set, since {section} is set to {inner!r}; leave one of them out"
                )
            place[section] = {**(inner or {})}  # a copy; None: it was removed before
            place = place[section]
        both_sections = isinstance(value, Mapping) and isinstance(place.get(field), dict)
        place[field] = {**place[field], **value} if both_sections else value
    return tree


def _parsed(config: Config, words: Sequence[str]) -> dict[str, Any]:
    """{"train.steps": 3} from ["--config.train.steps=3"]; values are read as those that they replace."""
    parts = [split_word(word) for word in words]
    for name, _ in parts:
        _check_path(config, name)
    values: dict[str, Any] = {}
    for name, given in parts:
        old = _current(config, name)
        if isinstance(given, bool) and not isinstance(old, bool):
            raise errors.ConfigError(f"config.{name} gets no value; write --config.{name}=VALUE")
        values[name] = given if isinstance(given, bool) else _value(given, old)
    return values


def split_word(word: str) -> tuple[str, str | bool]:
    """Field and value of a word of the command line: "config.x.y=3", "--config.x.y" or "--noconfig.x.y"."""
    match = re.fullmatch(r"-*(no(?=config\.))?(?:config\.)?([^=]*)(?:=(.*))?", word, re.DOTALL)
    assert match is not None  # any text does
    no, name, text = match.groups()
    if no and text is not None:
        raise errors.ConfigError(
            f"{word} has a value, and --noconfig.{name} alone means False; write --config.{name}={text}"
        )
    return name, no is None if text is None else text


def _value(text: str, old: Any) -> Any:
    """The value that a word of the command line means for a field that is `old`; None: it is new."""
    if isinstance(old, str):
        return text
    if text.lower() in ("true", "false") and (old is None or isinstance(old, bool)):
        return text.lower() == "true"
    try:
        value = float(text) if isinstance(old, float) else ast.literal_eval(text)
    except (ValueError, SyntaxError):
        try:
            value = ast.literal_eval(text)  # a pair in place of a number
        except (ValueError, SyntaxError):
            value = tuple(text.split(",")) if isinstance(old, tuple) else text
    return (value,) if isinstance(old, tuple) and not isinstance(value, tuple | None) else value


def _current(config: Config, name: str) -> Any:
    """The value of a field, by its name with dots; None if there is none."""
    value: Any = config
    for field in name.split("."):
        value = value.get(field) if isinstance(value, Config) else None
    return value


def _check_path(config: Config, name: str) -> None:
    """Raises errors.ConfigError if `name`, with dots, is in no section; `derive` checks the last field."""
    section: Any = config
    path = "config"
    for field in name.split("."):
        is_section = isinstance(section, Config)
        if not is_section or (section is config and field not in section):
            names = sorted(section) if is_section else []
            raise errors.ConfigError(
                f"{path}.{field} is not a field of {path}; {errors.did_you_mean(field, names)}"
                f"fields: {', '.join(names) or 'none'}"
            )
        if field not in section:
            return
        section, path = section[field], f"{path}.{field}"
