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
MAX_ATTENTION = 64  # height of maps with self-attention; BigGAN has it at 64x64 for 128 and 256 px


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
            "run, give the config that it was started with, and its folder as --workdir"
        )
    if path.is_file() and path.suffix != ".py":
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
      resolution: side of the images in pixels, see `with_resolution`; None: the config's.

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
        return get_config()
    if not inspect.signature(get_config).parameters:
        raise errors.ConfigError(
            f"{path} has no variant {variant!r}: its get_config() takes no argument. Leave out ':{variant}'"
        )
    config = get_config(variant)
    if not str(config.name).endswith(f"_{variant}"):
        config.name = f"{config.name}_{variant}"
    return config


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
        config = with_resolution(config, resolution)
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

    name = f"{config.name}_{path.resolve().name}"
    others = {"source": "folder", "path": str(path), "classes": 0, "select": {"drop": None}}
    return resolve.derive(config, name=name, data=others)


def check_resolution(resolution: Any) -> None:
    """Raises errors.ConfigError unless a resolution is a positive integer, or None."""
    integer = hasattr(resolution, "__index__") and not isinstance(resolution, bool)  # also one of NumPy
    if resolution is not None and (not integer or resolution < 1):
        raise errors.ConfigError(
            f"the resolution is {resolution!r}, and must be a positive integer, such as 64: the side of the "
            "generated images, which are square"
        )


def with_resolution(config: Config, resolution: int) -> Config:
    """The config for images of resolution x resolution pixels.

    Stored crops, and the heights of maps with self-attention, keep their ratio to it, the latter up to
    MAX_ATTENTION. The latents of a hierarchical BigGAN get the next size that it can split. An R3GAN halves
    its width with each doubling, and a progressive system fewer or more stages. Not every network can have
    every size.

    Raises errors.ConfigError for a size that is not positive, or that a progressive system does not reach.
    """
    check_resolution(resolution)
    resolution = int(resolution)
    from jaxdog.config import resolve
    from jaxdog.models import biggan

    fields: Any = config
    progressive = "resolution" not in fields.system
    before = fields.system.resolutions[-1] if progressive else fields.system.resolution
    changes: dict[str, Any] = (
        _stages(fields, resolution) if progressive else {"system": {"resolution": resolution}}
    )
    if fields.data.stored_resolution:
        stored = max(round(fields.data.stored_resolution * resolution / before), resolution)
        changes["data"] = {"stored_resolution": stored}
    if fields.generator.get("name") == "biggan" and fields.generator.hierarchical:
        slices = len(biggan.shape_of(resolution).g)
        changes["system"]["latent_dim"] = -(-fields.system.latent_dim // slices) * slices
    for player in ("generator", "discriminator"):
        network = fields[player]
        if heights := network.get("attention", ()):
            changes[player] = {"attention": _attention(heights, resolution, before)}
        if network.get("name") == "r3gan":
            changes[player] = {"widths": _r3gan_widths(network.widths, resolution, player == "discriminator")}
    return resolve.derive(config, **changes)


def _attention(heights: tuple[int, ...], resolution: int, before: int) -> tuple[int, ...]:
    """The heights of maps with self-attention for another resolution, each of them once.

    Memory grows with the fourth power of the height.
    """
    limit, scaled = max(MAX_ATTENTION, *heights), []
    for height in heights:
        height = max(height * resolution // before, 1)
        while height > limit:
            height //= 2  # the maps of a network halve
        scaled.append(height)
    return tuple(dict.fromkeys(scaled))


def _stages(fields: Any, resolution: int) -> dict[str, Any]:
    """Changes of a progressive system: its stages up to `resolution`.

    The last stage is as long as the config's last one; those that are added before it are as long as the one
    before them.
    """
    first = fields.system.resolutions[0]
    count = (resolution // first).bit_length()  # stages
    if count < 2 or resolution != first << (count - 1):
        sizes = ", ".join(str(first << i) for i in range(1, 7))
        raise errors.ConfigError(
            f"the resolution is {resolution} px; choices of {fields.name}, which grows from {first} px: "
            f"{sizes}, ..."
        )

    def fit(values: tuple) -> tuple:
        *growing, last = values
        return (*growing[: count - 1], *[growing[-1]] * (count - len(values)), last)

    steps = fit(fields.system.steps)
    return {
        "system": {
            "resolutions": tuple(first << i for i in range(count)),
            "steps": steps,
            "fade": fit(fields.system.fade),
        },
        "ema": {"decay": fit(fields.ema.decay)},
        "train": {"steps": sum(steps)},
    }


def _r3gan_widths(widths: tuple[int, ...], resolution: int, downwards: bool) -> tuple[int, ...]:
    """Widths at 4x4, 8x8, ..., or the reverse, up to `resolution`; an added width is half the last."""
    upwards = widths[::-1] if downwards else widths
    count = (resolution // 4).bit_length()
    added = (max(upwards[-1] >> i, 1) for i in range(1, count - len(upwards) + 1))
    fitted = (*upwards[:count], *added)
    return fitted[::-1] if downwards else fitted


# ------------------------------------------------------------------ overrides


def override(config: Config, overrides: Overrides) -> Config:
    """The config with changed fields.

    A section that holds rows of a table may get new ones, as with {"data.select.hold_out.every": 10}. None
    removes a row, and {} all rows. A section whose `name` changes gets the defaults of its new name.

    Args:
      config: unchanged.
      overrides: as for `load`. A word may also begin with "config." or "--config.".

    Raises errors.ConfigError if a field does not exist, naming those that do, or a value is not of its type.
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

    return resolve.derive(config, **_nested(_whole(config, values)))


def _whole(config: Config, values: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides with whole sweeps in place of their rows, and None for each row of a section set to {}."""
    whole: dict[str, Any] = {}
    for name, value in values.items():
        head, _, row = name.rpartition(".")
        old = _current(config, name)
        if head == SWEEP:
            rows = {**whole.get(head, _current(config, SWEEP).to_dict()), row: value}
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
            place = place.setdefault(section, {})
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
