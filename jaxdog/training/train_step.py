"""What runs on the devices: the jitted functions of one phase over a mesh, and where its state lives."""

from collections.abc import Callable, Sequence
from concurrent import futures
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, Sharding
from jax.sharding import PartitionSpec as P

from jaxdog import sharding, types
from jaxdog.data import batches
from jaxdog.systems import sampling
from jaxdog.training import checkpoint

# How XLA compiles what runs once: on CPU in half the time, to code that is slower.
ONCE = {"cpu": {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}}
# What each use of a run's one seed folds into its key.
INIT, DATA, STEP, EVALUATE, GRID, SUBMIT, LABELS, RECONSTRUCT = range(8)


def key_for(seed: int, use: int) -> types.Key:
    """The key of one use (INIT, DATA, ...) of a run's seed."""
    return jax.random.fold_in(jax.random.key(seed), use)


class Compiled(NamedTuple):
    """The jitted functions of one phase; what takes a state donates it, but for `grid`."""

    first: Callable[[batches.Data], Any]  # the first state, as a function that is not jitted
    init: Callable[[batches.Data], Any]
    # (state, data, hours) -> (state, scalars [k]): k steps; jitted. data: the set, or the rows of these steps
    dispatch: Any
    grid: Callable[[Any, types.Array], types.Array]  # (state, label [n]) -> [n, h, w, c] uint8


def compiled(
    phase: types.Phase,
    seed: int,
    steps_per_dispatch: int,
    over: Mesh,
    deal_state: bool = False,
    streamed: bool = False,
) -> Compiled:
    """Jits a phase over the mesh: batches sharded, the state replicated or, with `deal_state`, dealt out.

    streamed: what is given as data are rows [k, b, ...] of these steps, as `stream.dispatches` has them.
    """
    if phase.batch_size % over.size:
        raise ValueError(
            f"a step's {phase.batch_size} pictures cannot be shared out over {over.size} devices; "
            f"make game.batch_size a multiple of {over.size}"
        )
    everywhere, sharded = sharding.everywhere(over), sharding.by_rows(over)

    step = phase.system.step
    if phase.system.apart:
        rows = P(), P(sharding.AXIS), P()
        step = jax.shard_map(step, mesh=over, in_specs=rows, out_specs=P(), check_vma=False)

    def batch(data: batches.Data, step: types.Array | int, hours: types.Array | float) -> types.Batch:
        with jax.sharding.use_abstract_mesh(over.abstract_mesh):
            batch = batches.batch(data, key_for(seed, DATA), step, phase.batch_size, hours)
        return jax.lax.with_sharding_constraint(batch, sharded)

    def first(data: batches.Data) -> Any:
        seen = batches.seen(jax.tree.map(lambda x: x[0], data)) if streamed else batch(data, 0, 0.0)
        return phase.system.init(key_for(seed, INIT), seen)

    def placed(state: Any) -> Any:
        return sharding.placed(state, over, deal_state)

    # Made inside jit: every leaf is its own buffer and can be donated.
    def init(data: batches.Data) -> Any:
        where = placed(jax.eval_shape(first, data))
        return jax.jit(first, out_shardings=where, compiler_options=ONCE.get(jax.default_backend()))(data)

    # The old state's memory is reused for the new one; k steps per call hide the host.
    @partial(jax.jit, donate_argnums=0)
    def dispatch(state: Any, data: batches.Data, hours: types.Array | float) -> tuple[Any, types.Scalars]:
        def one(state: Any, rows: batches.Data | None) -> tuple[Any, types.Scalars]:
            now = batch(data, state.step, hours) if rows is None else batches.seen(rows, hours)
            with jax.sharding.use_abstract_mesh(over.abstract_mesh):
                state, scalars = step(_gathered(state, everywhere), now, key_for(seed, STEP))
            return jax.lax.with_sharding_constraint((state, scalars), (placed(state), everywhere))

        return jax.lax.scan(one, state, data if streamed else None, steps_per_dispatch)

    @partial(jax.jit, out_shardings=everywhere)
    def grid(state: Any, label: types.Array) -> types.Array:
        keys = sampling.image_keys(key_for(seed, GRID), label.shape[0])
        return sampling.to_uint8(phase.system.sample(state, keys, label))

    return Compiled(first, init, dispatch, grid)


def begun(functions: Compiled, data: batches.Data, hours: Any, over: Mesh, deal_state: bool = False) -> Any:
    """A phase's first state, made while a thread compiles the steps that will take it."""
    if jax.process_count() > 1:  # whose programs have to be compiled in one order
        return functions.init(data)
    state = sharding.described(jax.eval_shape(functions.first, data), over, deal_state)
    with futures.ThreadPoolExecutor(1) as thread:
        ready = thread.submit(lambda: functions.dispatch.lower(state, data, hours).compile())
        made = functions.init(data)
        ready.result()
    return made


def _gathered(state: Any, everywhere: Sharding) -> Any:
    """The state with the networks of its players whole on each device; the rest as it is."""

    def gathered(x: Any) -> Any:
        if not isinstance(x, types.Net):
            return x
        params, stats = jax.lax.with_sharding_constraint((x.params, x.stats), everywhere)
        return types.Net(params, stats, x.opt, x.memory)

    return jax.tree.map(gathered, state, is_leaf=lambda x: isinstance(x, types.Net))


def entered(phase: types.Phase, state: Any, over: Mesh, deal_state: bool = False) -> Any:
    """The first state of a phase that is not the first, from the last state of the one before."""
    assert phase.enter is not None
    # What a phase adds is where the rest is.
    where = sharding.placed(jax.eval_shape(phase.enter, state), over, deal_state)
    return jax.jit(phase.enter, donate_argnums=0, out_shardings=where)(state)


def phase_at(phases: Sequence[types.Phase], step: int) -> int:
    """Which phase the state of `step` belongs to: the one that made it; the first for step 0."""
    ends = np.cumsum([phase.steps for phase in phases])
    return min(int(np.searchsorted(ends, step, side="left")), len(phases) - 1)


def restore(
    checkpoints: checkpoint.Checkpoints,
    phases: Sequence[types.Phase],
    step: int,
    shape: tuple[int, ...],
    over: Mesh,
    deal_state: bool = False,
) -> tuple[Any, checkpoint.Record]:
    """State and record of the checkpoint at `step`, on all devices whole unless `deal_state`.

    shape: a picture's, (h, w, c). The checkpoint may be of a run on another number of devices.
    """
    phase = phases[phase_at(phases, step)]

    def init() -> Any:
        data = batches.resident(jnp.zeros((1, *shape), jnp.uint8), jnp.zeros(1, jnp.int32))
        return phase.system.init(
            jax.random.key(0), batches.batch(data, jax.random.key(0), 0, phase.batch_size)
        )

    state = jax.eval_shape(init)
    return checkpoints.restore(step, state, sharding.placed(state, over, deal_state))


def images_at(phases: Sequence[types.Phase], step: int) -> int:
    """Real pictures seen after `step` steps."""
    seen = 0
    for phase in phases:
        done = min(step, phase.steps)
        seen += done * phase.batch_size
        step -= done
    return seen
