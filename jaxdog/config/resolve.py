"""Functions that config files call: `experiment`, `derive`, `load_sibling` and `smoke_test`."""

import pathlib
import runpy
from collections.abc import Mapping
from typing import Any

import ml_collections

from jaxdog.config import build, places
from jaxdog.utils import errors

Config = ml_collections.ConfigDict

# The smoke test of every config: the same experiment at a tiny size on drawn dogs, in minutes.
SMOKE_TEST = {
    "data": {"toy_photos": 48, "cache_dir": "runs/cache"},
    "train": {
        "steps": 8,
        "max_hours": 0.0,
        "steps_per_execution": 2,
        "log_every": 2,
        "grid_every": 4,
        "grid_images": 8,
    },
    "checkpoint": {"every": 4},
    "eval": {"batch_size": 8, "weights": "random", "best": "fid768"},
    "submit": {"images": 16},
}
SMOKE_TEST_SYSTEM = {"resolution": 32, "batch_size": 8, "latent_dim": 16}  # of system, if it has them
SHRINKABLE = ("generator", "discriminator", "system", "optimizer")  # where `smoke_test` looks for a field
REPLACED = ("sweep",)  # sections that are replaced, not merged


def experiment(**sections: Any) -> Config:
    """A whole config from the fields that define it; all other fields have their defaults.

    Raises ConfigError if a field is unknown, missing or of the wrong type. docs/config.md lists all fields.
    """
    return ml_collections.ConfigDict(build.tree_of(sections).fill(sections, "config"))


def derive(parent: Config, **changes: Any) -> Config:
    """A config that differs from its parent in some fields.

    A section whose `name` changes is replaced, others are merged. None removes a row of augment, diffaugment,
    select, postprocess or the regularizers.
    """
    return experiment(**_merged(parent.to_dict(), changes))


def load_sibling(file: str, name: str, variant: str = "full") -> Config:
    """The config `name`.py in the folder of `file`, the `__file__` of a config; else that of jaxdog."""
    path = pathlib.Path(file).with_name(f"{name}.py")
    shipped = places.folder() / path.name
    return runpy.run_path(str(path if path.is_file() else shipped))["get_config"](variant)


def smoke_test(config: Config, variant: str, **changes: Any) -> Config:
    """`config` where variant is "full"; where it is "test", the same experiment, tiny, on drawn dogs.

    Args:
      config: the full config.
      variant: "full" | "test".
      changes: sections, as in `derive`; or fields, which are set in generator, discriminator, system and
        optimizer, wherever these have them.
    """
    if variant == "full":
        return config
    if variant != "test":
        hint = errors.did_you_mean(variant, ("full", "test"))
        raise errors.ConfigError(f"variant is {variant!r}; {hint}choices: 'full', 'test'")
    small = _merged(config.to_dict(), SMOKE_TEST)
    resolution = changes.get("resolution", SMOKE_TEST_SYSTEM["resolution"])
    small["system"] |= {name: x for name, x in SMOKE_TEST_SYSTEM.items() if name in small["system"]}
    if small["data"]["source"] != "toy":
        small["data"] |= {"source": "toy", "classes": 0}
        small["data"]["select"] = {k: x for k, x in small["data"]["select"].items() if k != "drop"}
    if small["data"]["stored_resolution"]:
        small["data"]["stored_resolution"] = 5 * resolution // 4
    if small["eval"]["every_kimg"]:
        small["eval"] |= {"every_kimg": 0.032, "samples": 16}
    if small["ema"]["start"]:
        small["ema"]["start"] = 2
    if small["sample"]["batch_size"]:
        small["sample"]["batch_size"] = 8
    for name, value in changes.items():
        if name in small:
            small = _merged(small, {name: value})
        elif not sum(_set(small[section], name, value) for section in SHRINKABLE):
            raise errors.ConfigError(
                f"smoke_test: {name} is not a field of {', '.join(f'config.{name}' for name in SHRINKABLE)}"
            )
    return experiment(**small)


def _set(section: dict[str, Any], name: str, value: Any) -> int:
    """Sets a field in a section and in the sections inside it; returns how many have it."""
    places = sum(_set(inner, name, value) for inner in section.values() if isinstance(inner, dict))
    if name in section:
        section[name] = value
    return places + (name in section)


def _merged(section: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(section)
    for name, value in changes.items():
        old = merged.get(name)
        if value is None:
            merged.pop(name, None)
        elif not isinstance(value, Mapping) or not isinstance(old, Mapping) or name in REPLACED:
            merged[name] = value
        elif value.get("name", old.get("name")) != old.get("name"):
            merged[name] = value
        else:
            merged[name] = _merged(old, value)
    return merged
