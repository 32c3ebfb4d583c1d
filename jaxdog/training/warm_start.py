"""Initial weights from another run (config.init_from)."""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdog.config import saved
from jaxdog.training import checkpoint
from jaxdog.utils import errors

EXTRA = "extra_emas"  # a tuple of players
TRANSFERRED = ("params", "model_state")  # fields of a player; its optimizer state starts anew


class WarmStart(NamedTuple):
    """An initial state with weights from another run."""

    state: Any
    report: list[str]  # one line per player, then one per array that was not transferred


def check(folder: pathlib.Path) -> None:
    """Raises the errors of `load`, except those for a checkpoint that is damaged."""
    with _best(folder):
        pass


def load(folder: pathlib.Path) -> dict[str, Any]:
    """The best checkpoint of a work folder, as nested dicts of arrays.

    Raises:
      MissingFileError: `folder` holds no run, or no checkpoint.
    """
    with _best(folder) as (checkpoints, step):
        return checkpoints.load_arrays(step)


@contextlib.contextmanager
def _best(folder: pathlib.Path) -> Iterator[tuple[checkpoint.Checkpoints, int]]:
    """The checkpoints of a work folder, and the step of the best one."""
    try:
        config = saved.check(saved.load(folder), folder)
    except errors.UserError as error:
        raise type(error)(f"config.init_from is {folder}, which cannot be used: {error}") from error
    path = folder / "checkpoints"
    with contextlib.closing(
        checkpoint.Checkpoints(path, 1, 1, config.eval.best, read_only=True)
    ) as checkpoints:
        step = checkpoints.best()
        if step is None:
            raise errors.MissingFileError(f"config.init_from is {folder}, and that run has no checkpoint")
        yield checkpoints, step


def transfer(state: Any, source: dict[str, Any]) -> WarmStart:
    """`state` with every array of `source` that has the same player, path and shape.

    A player is a field of the state with `params` and `model_state`. If `source` has no `ema`, its `g` is
    used instead; if it has no `d`, its `encoder` is; in place of an extra EMA that it lacks, its `ema`.
    Transferred arrays are on the host.

    Raises:
      ConfigError: no array can be transferred.
    """
    source = {"ema": source.get("g", {}), "d": source.get("encoder", {}), **source}
    arrays = {_names(path): x for path, x in jax.tree_util.tree_leaves_with_path(source)}
    counts: dict[str, list[int]] = {}  # player -> [transferred, all]
    misfits: list[str] = []

    def one(path: Any, x: Any) -> Any:
        names = _names(path)
        player, *rest = names
        if player == EXTRA:
            player, rest = f"{EXTRA}/{rest[0]}", rest[1:]
            names = names if names in arrays else ("ema", *rest)
        if not rest or rest[0] not in TRANSFERRED:
            return x
        count = counts.setdefault(player, [0, 0])
        count[1] += 1
        if names not in arrays:
            misfits.append(f"  {'/'.join(names)} {x.shape} is missing there")
        elif arrays[names].shape != x.shape:
            misfits.append(f"  {'/'.join(names)} is {x.shape} here and {arrays[names].shape} there")
        else:
            count[0] += 1
            return np.asarray(arrays[names], x.dtype)
        return x

    state = jax.tree_util.tree_map_with_path(one, state)
    report = [f"{player}: {fit} of {total} arrays transferred" for player, (fit, total) in counts.items()]
    if not any(fit for fit, _ in counts.values()):
        players = ", ".join(sorted(name for name, x in source.items() if isinstance(x, dict) and x))
        raise errors.ConfigError(
            f"no array of the run in config.init_from fits; its players: {players}; here: {', '.join(counts)}"
            + ". "
            + " ".join(line.strip() for line in misfits[:3])
        )
    return WarmStart(state, report + misfits)


def _names(path: Any) -> tuple[str, ...]:
    """A leaf's path as names of dataclass fields, keys and indices."""
    return tuple(str(getattr(key, "name", getattr(key, "key", getattr(key, "idx", key)))) for key in path)
