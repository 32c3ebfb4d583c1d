"""A run that begins with networks that another run has trained."""

import json
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdog import types
from jaxdog.config import schema
from jaxdog.training import checkpoint

PyTree = types.PyTree
LEARNT = ("params", "stats")  # of a player; its optimiser begins anew


class Begun(NamedTuple):
    """A state with another run's networks, and how much of each player they are."""

    state: Any
    report: list[str]  # a line per player, and one per array that did not fit


def load(folder: pathlib.Path) -> dict[str, Any]:
    """The best checkpoint of a work folder, as nested dicts of arrays.

    Raises:
      FileNotFoundError: there is no run, or no checkpoint, in `folder`.
    """
    config = folder / "config.json"
    if not config.is_file():
        raise FileNotFoundError(f"config.init_from is {folder}, and {config} does not exist: no run is there")
    metric = json.loads(config.read_text())["eval"]["best"]
    kept = checkpoint.Checkpoints(folder / "checkpoints", 1, 1, metric, read_only=True)
    step = kept.best()
    if step is None:
        raise FileNotFoundError(f"config.init_from is {folder}, and that run has no checkpoint")
    try:
        return kept.raw(step)
    finally:
        kept.close()


def begin(state: Any, source: dict[str, Any]) -> Begun:
    """`state` with all arrays of `source` that have the same player, path and shape.

    A player is a field of the state with `params` and `stats`. An average that `source` lacks is its network
    `g` itself, a discriminator that it lacks its encoder. Arrays come back as numpy's,
    for the caller to place.

    Raises:
      sections.ConfigError: nothing fits.
    """
    source = {"ema": source.get("g", {}), "d": source.get("encoder", {}), **source}
    there = {_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(source)}
    counts: dict[str, list[int]] = {}
    strange: list[str] = []

    def one(path: Any, x: Any) -> Any:
        name = _name(path)
        player, *rest = name
        if not rest or rest[0] not in LEARNT:
            return x
        count = counts.setdefault(player, [0, 0])
        count[1] += 1
        if name not in there:
            strange.append(f"  {'/'.join(name)} {x.shape} is not there")
        elif there[name].shape != x.shape:
            strange.append(f"  {'/'.join(name)} is {x.shape} here and {there[name].shape} there")
        else:
            count[0] += 1
            return np.asarray(there[name], x.dtype)
        return x

    begun = jax.tree_util.tree_map_with_path(one, state)
    taken = [f"{player}: {fit} of {all_} arrays taken" for player, (fit, all_) in counts.items()]
    if not any(fit for fit, _ in counts.values()):
        players = ", ".join(sorted(name for name, x in source.items() if isinstance(x, dict) and x))
        raise schema.ConfigError(
            f"nothing of config.init_from's run fits; its players: {players}; here: {', '.join(counts)}. "
            + " ".join(line.strip() for line in strange[:3])
        )
    return Begun(begun, taken + strange)


def _name(path: Any) -> tuple[str, ...]:
    """A leaf's path as names, whether they are a dataclass' fields or keys."""
    return tuple(str(getattr(key, "name", getattr(key, "key", getattr(key, "idx", key)))) for key in path)
