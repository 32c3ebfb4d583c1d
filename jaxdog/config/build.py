"""A config as checked, typed records, and the data and the phases it describes.

A section either fills a record of `sections.py` (`config.train` fills `Loop`) or has a `name` that picks a
function from a table here, in `parts.py` or in `games.py`.
"""

import functools
from collections.abc import Callable

import ml_collections

from jaxdog import types
from jaxdog.config import registry, schema, systems
from jaxdog.data import cropped_boxes, cropping, multicrop, photos, select, sources, toy
from jaxdog.memorizers import baselines
from jaxdog.metrics import features
from jaxdog.systems import gan, sampling

Config = ml_collections.ConfigDict

RECIPES = {**cropping.RECIPES, **cropped_boxes.RECIPES, **baselines.RECIPES, "multicrop": multicrop.multicrop}
CHOICES = {
    "data.source": ("tfds", "kaggle", "folder", "toy"),
    "ema.stats": ("average", "copy"),
    "sample.method": tuple(sampling.METHODS),
    "sample.labels": sampling.POLICIES,
    "sample.norm": gan.CHOICES["sample_norm"],
    "eval.resampler": ("lanczos", "tf1-bilinear"),
    "eval.best": ("fid768", "fid2048"),
    "eval.final": features.METRICS,
}
SWEPT = ("truncation", "method", "labels", "norm", "finish", "track")  # fields of config.sample.sweep
PLAIN = {"name": str, "seed": int, "dtype": str, "init_from": str}


def check(config: Config) -> schema.Checked:
    """The config as typed records; raises ConfigError naming the first wrong field and its choices."""
    given = config.to_dict()
    fields = schema.Checked._fields
    unknown = sorted(set(given) - set(fields))
    if unknown:
        raise schema.ConfigError(f"config.{unknown[0]} is no field of config; fields: {', '.join(fields)}")
    missing = [name for name in fields if name not in given]
    if missing:
        raise schema.ConfigError(f"config.{missing[0]} is missing; config needs: {', '.join(fields)}")
    for name, kind in PLAIN.items():
        schema.check_type(f"config.{name}", given[name], kind)
    schema.choose(registry.DTYPES, given["dtype"], "config.dtype")
    game = schema.choose(systems.GAMES, given["game"].get("name", ""), "config.game.name")
    built = {
        name: schema.build(kind, given[name], f"config.{name}") for name, kind in schema.SECTIONS.items()
    }
    built["game"] = schema.build(game.record, given["game"], "config.game", name=given["game"]["name"])
    checked = schema.Checked(**{**given, **built})
    for path, choices in {**CHOICES, **game.choices}.items():
        section, field = path.split(".")
        value = getattr(built[section], field)
        for one in value if isinstance(value, tuple) else (value,):
            schema.choose(dict.fromkeys(choices), one, f"config.{path}")
    phases(checked, classes(checked.data))
    recipe(checked.data)
    curated(checked.data)
    _check_curate(checked)
    _check_sweep(checked)
    two = isinstance(checked.game, schema.Game | schema.Progressive)
    for field in ("own_statistics", "remat"):
        if getattr(checked.devices, field) and not two:
            raise schema.ConfigError(
                f"config.devices.{field} is True, and is for games of two players; "
                f"config.game.name is {checked.game.name!r}"
            )
    if not 0.0 <= checked.devices.data_share <= 1.0:
        raise schema.ConfigError(
            f"config.devices.data_share is {checked.devices.data_share}, and must lie in [0, 1]"
        )
    return checked


def _check_curate(checked: schema.Checked) -> None:
    """Raises ConfigError where classes are no breeds any more and scores of breeds are asked for."""
    cleaned, classes = checked.data.curate.get("from_csv"), ""
    if cleaned is not None:
        schema.choose(dict.fromkeys(select.LABELS), cleaned["labels"], "config.data.curate.from_csv.labels")
        classes = "from_csv each cluster" if cleaned["labels"] == "cluster" else ""
    if "own_class" in checked.data.curate:
        classes = "own_class each picture"
    if classes and "per_class" in checked.eval.final:
        raise schema.ConfigError(
            f"config.eval.final has per_class, but with config.data.curate.{classes} is a class; leave "
            "per_class out"
        )


def _check_sweep(checked: schema.Checked) -> None:
    """Raises ConfigError where a value that is to be tried in the end could not stand in its field."""
    for name, values in checked.sample.sweep.items():
        path = f"config.sample.sweep.{name}"
        schema.choose(dict.fromkeys(SWEPT), name, path)
        if not isinstance(values, tuple) or not values:
            raise schema.ConfigError(f"{path} is {values!r}, and must be a tuple of values to try")
        for value in values:
            if name == "track" and value not in range(1 + len(checked.ema.tracks)):
                raise schema.ConfigError(
                    f"{path} has {value!r}; 0 is the average, and 1 to {len(checked.ema.tracks)} those of "
                    f"config.ema.tracks = {checked.ema.tracks}"
                )
            if name in ("labels", "norm", "method"):
                schema.choose(dict.fromkeys(CHOICES[f"sample.{name}"]), value, path)
            elif name == "truncation":
                schema.check_type(path, value, float)
            elif name == "finish":
                phases(checked._replace(sample=checked.sample._replace(finish=value)), 2)


# ------------------------------------------------------------------ data


def _tfds(data: schema.Data) -> photos.Source:
    return sources.tfds(data.path or None, archives=data.archives or None)


SOURCES: dict[str, Callable[[schema.Data], photos.Source]] = {
    "tfds": _tfds,
    "kaggle": lambda data: sources.kaggle(data.path),
    "folder": lambda data: sources.folder(data.path),
    "toy": lambda data: toy.dogs(data.toy_photos),
}


def source(data: schema.Data) -> photos.Source:
    """The photos that config.data names; data.classes must be the number of their breeds, or 0."""
    found = SOURCES[data.source](data)
    if data.classes not in (0, len(found.breeds)):
        raise schema.ConfigError(
            f"config.data.classes is {data.classes}, and the photos have {len(found.breeds)} classes "
            f"({', '.join(found.breeds[:3])}, ...); say --config.data.classes={len(found.breeds)}, or 0 for "
            "as many as there are"
        )
    return found


def recipe(data: schema.Data) -> photos.Recipe:
    """The crop recipe of config.data.crop at config.data.store_size."""
    section = dict(data.crop)
    function = schema.choose(RECIPES, section.get("name", ""), "config.data.crop.name")
    return schema.bind(function, section, "config.data.crop", ("photo", "boxes"), size=data.store_size)


def curated(data: schema.Data) -> Callable[[photos.Crops], photos.Crops]:
    """What becomes of the set of crops, in the order of curate.STEPS."""
    steps = schema.steps(select.STEPS, data.curate, "config.data.curate", ("crops",))
    return lambda crops: functools.reduce(lambda crops, step: step(crops), steps, crops)


def classes(data: schema.Data) -> int:
    """How many classes the photos will have, as far as the config tells; 1 where it does not."""
    own, cleaned = data.curate.get("own_class"), data.curate.get("from_csv")
    if own is not None:
        return own.get("count", 1)
    if cleaned is not None and cleaned.get("labels") == "cluster":
        return max(len(set(cleaned.get("clusters", ()))), 1)
    return max(data.classes, 1)


def phases(config: schema.Checked, classes: int) -> tuple[types.Phase, ...]:
    """The phases of an experiment, for photos of `classes` breeds."""
    return systems.GAMES[config.game.name].phases(config, classes)


def cheat(config: schema.Checked) -> bool:
    """Whether an experiment is one of those that show training pictures."""
    return systems.GAMES[config.game.name].cheat
