"""The types that everything shares: what a batch, a network, a system and a phase are.

A *system* is three pure functions. Modules and optimisers live in their closures; the state that
goes through them is a frozen dataclass of arrays only. Nothing here is jitted: `train.py` does that.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

Array = jax.Array
Key = jax.Array
PyTree = Any
DEVICES = "data"  # the axis along which devices share out a batch
Scalars = dict[str, Array]  # name -> [] float32


class Batch(NamedTuple):
    """Real pictures as every system sees them."""

    image: Array  # [b, s, s, c] float32 in [-1, 1]
    label: Array  # [b] int32, the breed
    extent: (
        Array  # [b, 2] int32, height and width in pixels that the crop had before it was squashed to s x s
    )
    kind: Array  # [b] int32, which of its recipe's crops this is; 0 where a recipe makes one kind
    hours: Array  # [b] float32, time trained so far, the same in every row; moves once per log window


Augment = Callable[[Key, Batch], Batch]  # one random change of real pictures


class Verdict(NamedTuple):
    """What a discriminator says of pictures."""

    logit: Array  # [b] float32, above 0: real
    breeds: Array | None = None  # float32, of those that know breeds; what it holds is said in models.heads
    embedding: Array | None = None  # [b, k] float32 of length 1, where breeds are points of a sphere


@struct.dataclass
class Net:
    """One player: what its optimiser changes, and what its forward passes change."""

    params: PyTree  # float32
    stats: PyTree  # {collection: ...}: batch statistics, spectral-norm vectors; {} if none
    opt: PyTree  # optax state
    memory: PyTree = struct.field(default_factory=dict)  # what penalties and the like keep between steps


def shared_out(rows: PyTree) -> PyTree:
    """Arrays [b, ...] that a step makes itself, dealt out over DEVICES as the batch is; alone, as they are.

    Without it every device would draw all latents, and compute all that follows from them.
    """
    return _constrained(rows, jax.sharding.PartitionSpec(DEVICES))


def in_turn(a: Array, b: Array) -> Array:
    """Rows of a and of b [n, ...] in turn, [2n, ...]: where they are dealt out over devices, none moves."""
    return jnp.stack((a, b), 1).reshape(-1, *a.shape[1:])


def every_other(x: Array) -> tuple[Array, Array]:
    """What `in_turn` has made of them: [2n, ...] -> two of [n, ...]."""
    pairs = x.reshape(-1, 2, *x.shape[1:])
    return pairs[:, 0], pairs[:, 1]


def known_to_all(tree: PyTree) -> PyTree:
    """Arrays that every device makes whole: little work, about which devices would else have to talk."""
    return _constrained(tree, jax.sharding.PartitionSpec())


def _constrained(tree: PyTree, where: jax.sharding.PartitionSpec) -> PyTree:
    mesh = jax.sharding.get_abstract_mesh()
    if DEVICES not in mesh.axis_names or DEVICES in mesh.manual_axes:
        return tree
    return jax.lax.with_sharding_constraint(tree, where)


class System(NamedTuple):
    """A generative model and the way it is trained, as pure functions."""

    init: Callable[[Key, Batch], Any]  # (key, batch) -> state, with state.step = 0
    step: Callable[[Any, Batch, Key], tuple[Any, Scalars]]  # one step; state.step grows by one
    sample: Callable[[Any, Array, Array], Array]  # (state, key [b], label [b]) -> [b, h, w, c] in [-1, 1]
    prepare: Callable[[Any, Key], Any] | None = None  # (state, key) -> the state to sample from, if another
    # Of autoencoders: (state, batch, key) -> (pictures as they are learnt, what comes back), in [-1, 1]
    reconstruct: Callable[[Any, Batch, Key], tuple[Array, Array]] | None = None
    # `step` is called on each device with that device's rows, and averages over DEVICES; else with all rows
    apart: bool = False


class Phase(NamedTuple):
    """A stretch of a run with one system; a plain GAN has one, a progressive one has one per resolution."""

    name: str
    system: System
    steps: int  # how many; the run's step count goes on across phases
    batch_size: int  # real pictures that one step consumes
    # state of the phase before -> first state; None in the first phase
    enter: Callable[[Any], Any] | None = None
