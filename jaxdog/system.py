"""The types that everything shares: what a batch, a network, a system and a phase are.

A *system* is three pure functions. Modules and optimisers live in their closures; the state that
goes through them is a frozen dataclass of arrays only. Nothing here is jitted: `train.py` does that.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import struct

Array = jax.Array
Key = jax.Array
PyTree = Any
Scalars = dict[str, Array]  # name -> [] float32


class Batch(NamedTuple):
    """Real pictures as every system sees them."""

    image: Array  # [b, h, w, c] float32 in [-1, 1]
    label: Array  # [b] int32, the breed


@struct.dataclass
class Net:
    """One player: what its optimiser changes, and what its forward passes change."""

    params: PyTree  # float32
    stats: PyTree  # {collection: ...}: batch statistics, spectral-norm vectors; {} if none
    opt: PyTree  # optax state


class System(NamedTuple):
    """A generative model and the way it is trained, as pure functions."""

    init: Callable[[Key, Batch], Any]  # (key, batch) -> state, with state.step = 0
    step: Callable[[Any, Batch, Key], tuple[Any, Scalars]]  # one step; state.step grows by one
    sample: Callable[[Any, Array, Array], Array]  # (state, key [b], label [b]) -> [b, h, w, c] in [-1, 1]


class Phase(NamedTuple):
    """A stretch of a run with one system; a plain GAN has one, a progressive one has one per resolution."""

    name: str
    system: System
    steps: int  # how many; the run's step count goes on across phases
    batch_size: int  # real pictures that one step consumes
    enter: Callable[[Any], Any] | None = (
        None  # state of the phase before -> first state; None in the first phase
    )
