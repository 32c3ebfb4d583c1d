"""Padded batches of a fixed size, so that each function is compiled once."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
import tqdm

from jaxdog.utils import interrupts, progress


def padded_batches(n: int, batch_size: int) -> Iterator[np.ndarray]:
    """Row indices 0 .. n-1, [batch_size] int32 each; the last batch is padded with row n-1."""
    for start in range(0, n, batch_size):
        yield np.minimum(np.arange(start, start + batch_size, dtype=np.int32), n - 1)


def slices(images: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Consecutive batches of rows, without padding; views of the array."""
    return (images[start : start + batch_size] for start in range(0, len(images), batch_size))


def rebatch(batches: Iterable[np.ndarray], batch_size: int) -> Iterator[np.ndarray]:
    """The same rows in batches of `batch_size`; the last may be smaller."""
    waiting: np.ndarray | None = None
    for batch in batches:
        waiting = batch if waiting is None else np.concatenate([waiting, batch])
        while len(waiting) >= batch_size:
            yield waiting[:batch_size]
            waiting = waiting[batch_size:]
    if waiting is not None and len(waiting):
        yield waiting


def pad(batch: np.ndarray, batch_size: int) -> np.ndarray:
    """The batch with its last row repeated to `batch_size` rows."""
    missing = batch_size - len(batch)
    return np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)]) if missing else batch


def map_batches(
    function: Callable[..., Any], arrays: tuple[np.ndarray, ...], batch_size: int, progress: str = ""
) -> Any:
    """Applies `function` to padded batches of rows and concatenates the results.

    Args:
      function: arrays [batch_size, ...] -> a tree of arrays [batch_size, ...]; each output row
        depends on one input row.
      arrays: [n, ...] each, on the host.
      batch_size: rows per call.
      progress: title of the progress bar; "": no bar.

    Returns the tree with arrays [n, ...] on the host.
    """
    n = len(arrays[0])
    parts = (function(*(x[rows] for x in arrays)) for rows in padded_batches(n, batch_size))
    return collect(parts, n, progress)


def collect(parts: Iterator[Any], n: int, progress: str = "") -> Any:
    """The first n rows of `parts`, trees of arrays [b, ...] on the devices, as arrays on the host.

    A part is copied when the next one is being computed, so that devices do not wait for the host. Raises
    interrupts.Interrupted if a signal asks a training to stop.
    """
    host_parts = []
    with progress_bar(n, progress) as bar:
        for part in _one_behind(parts):
            interrupts.check()
            host_parts.append(jax.tree.map(np.asarray, part))
            bar.update(min(len(jax.tree.leaves(host_parts[-1])[0]), n - bar.n))
    return jax.tree.map(lambda *x: np.concatenate(x)[:n], *host_parts)


def _one_behind(parts: Iterator[Any]) -> Iterator[Any]:
    """Each part once the next one was asked for."""
    for part, _ in itertools.pairwise(itertools.chain(parts, [None])):
        yield part


def progress_bar(n: int, title: str) -> tqdm.tqdm:
    """A progress bar over n images, shown by process 0 only; hidden without a title."""
    return progress.bar(n, title, "img", bool(title) and jax.process_index() == 0)
