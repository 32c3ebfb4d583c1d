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
import runpy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from jaxdog.utils import errors

Config = ml_collections.ConfigDict
Overrides = Mapping[str, Any] | Sequence[str]


def folder() -> pathlib.Path:
    """The folder of the configs that come with jaxdog: in the package, or beside it in a clone."""
    package = pathlib.Path(__file__).resolve().parent.parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def names() -> tuple[str, ...]:
    """The names of all configs that come with jaxdog, sorted."""
    return tuple(sorted(path.stem for path in folder().glob("*.py") if not path.stem.startswith("_")))


def find(name_or_path: str | os.PathLike) -> pathlib.Path:
    """The file of a config.

    Args:
      name_or_path: a name in `names()`, or the path of a Python file.

    Raises errors.MissingFileError if there is no such file, or no config of this name; it suggests others.
    """
    given = os.fspath(name_or_path)
    path = pathlib.Path(given).expanduser()
    if given.endswith(".py") or path.name != given:
        if path.is_file():
            return path
        raise errors.MissingFileError(
            f"the config cannot be read: {path} does not exist. Configs that come with jaxdog are loaded by "
            f"name: {', '.join(names())}"
        )
    if given in names():
        return folder() / f"{given}.py"
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
    if resolution is not None and (not isinstance(resolution, int) or resolution < 1):
        raise errors.ConfigError(
            f"the resolution is {resolution!r}, and must be a positive integer, such as 64: the side of the "
            "generated images, which are square"
        )


def with_resolution(config: Config, resolution: int) -> Config:
    """The config for images of resolution x resolution pixels.

    Stored crops, and the heights of maps with self-attention, keep their ratio to it. The latents of a
    hierarchical BigGAN get the next size that it can split. An R3GAN halves its width with each doubling, and
    a progressive system fewer or more stages. Not every network can have every size.

    Raises errors.ConfigError for a size that is not positive, or that a progressive system does not reach.
    """
    check_resolution(resolution)
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
            scaled = tuple(max(height * resolution // before, 1) for height in heights)
            changes[player] = {"attention": scaled}
        if network.get("name") == "r3gan":
            changes[player] = {"widths": _r3gan_widths(network.widths, resolution, player == "discriminator")}
    return resolve.derive(config, **changes)


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

    Args:
      config: unchanged.
      overrides: as for `load`. A word may also begin with "config." or "--config.".

    Raises errors.ConfigError if a field does not exist, naming those that do, or a value is not of its type.
    """
    if isinstance(overrides, str):
        raise errors.ConfigError(f"overrides is {overrides!r}, and must be a list of such words")
    if isinstance(overrides, Mapping):
        from jaxdog.config import resolve

        for name in overrides:
            _check_field(config, name)
        return resolve.derive(config, **_nested(overrides)) if overrides else config
    return _parsed(config, [_word(word) for word in overrides]) if overrides else config


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


def _word(word: str) -> str:
    """An override as a flag: "train.steps=3" -> "--config.train.steps=3"."""
    bare = word.lstrip("-")
    return f"--{bare}" if bare.startswith(("config.", "noconfig.")) else f"--config.{bare}"


def _parsed(config: Config, words: Sequence[str]) -> Config:
    """The config after flags of the form --config.x.y=v, read by ml_collections, which knows their types."""
    config, values = Config(config.to_dict()), flags.FlagValues()
    argv = ["jaxdog", *words]
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
        rest = values(argv)
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # for a field that does not exist
        for word in words:
            _check_field(config, word.partition("=")[0].partition(".")[2])
        raise errors.ConfigError(f"{' '.join(words)}: {error}") from error
    except flags.Error as error:
        raise errors.ConfigError(str(error)) from error
    if rest[1:]:
        raise errors.ConfigError(f"{rest[1]!r} is not an override; write config.field=value")
    config.unlock()  # ml_collections has locked it
    return config


def _check_field(config: Config, name: str) -> None:
    """Raises errors.ConfigError if `name`, with dots, is no field, naming the fields where it goes wrong."""
    section: Any = config
    path = "config"
    for field in name.split("."):
        is_section = isinstance(section, Config)
        if not is_section or field not in section:
            names = sorted(section) if is_section else []
            raise errors.ConfigError(
                f"{path}.{field} is not a field of {path}; {errors.did_you_mean(field, names)}"
                f"fields: {', '.join(names) or 'none'}"
            )
        section, path = section[field], f"{path}.{field}"
