"""The compiled training step of one phase: selection of the batch, the step itself, the sample grid.

`CompiledPhase` jits a phase's pure functions over the device mesh. All randomness is a function of the run's
seed and the step number, so a resumed run is bit-identical (`checkpoint` lists the exceptions).
"""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from concurrent import futures
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxdog import sharding, types
from jaxdog.data import batches
from jaxdog.evaluation import sampling_state
from jaxdog.systems import sampling
from jaxdog.training import checkpoint
from jaxdog.utils import errors, untrusted

# Compiler options for functions that run once. On CPUs they halve the compile time and slow the function.
RUNS_ONCE = {"cpu": {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}}
# Purposes of a run's seed; each is folded into the key.
INIT, DATA, STEP, EVALUATE, GRID, SUBMIT, LABELS, RECONSTRUCT = range(8)


def key_for(seed: int, purpose: int) -> types.Key:
    """The key for one purpose (INIT, DATA, ...), derived from a run's seed."""
    return jax.random.fold_in(jax.random.key(seed), purpose)


def check_batch(phase: types.Phase, mesh: Mesh) -> None:
    """Raises UserError if the devices of `mesh` cannot share the batches of a phase."""
    if phase.batch_size % mesh.size:
        raise errors.UserError(
            f"a batch of {phase.batch_size} images cannot be split over {mesh.size} devices; "
            f"make system.batch_size a multiple of {mesh.size}"
        )


class CompiledPhase:
    """The jitted functions of one phase.

    init(data) -> state: the initial state.
    train_steps(state, data, hours) -> (state, scalars [k]): k training steps; donates `state`.
    sample_grid(state, label [n]) -> [n, h, w, c] uint8: images of fixed latents.

    Args:
      phase: the phase; its batch size must be a multiple of the number of devices.
      seed: the run's seed.
      steps_per_execution: k. One call runs k steps, so that the devices do not wait for the host.
      mesh: the mesh of all devices. Batches are sharded over it.
      fsdp: shard large arrays of the state, see `sharding.state_shardings`; else they are replicated.
      streamed: `data` holds the rows [k, b, ...] of these steps (`host_loader.prefetch`); else the whole set.
    """

    def __init__(
        self,
        phase: types.Phase,
        seed: int,
        steps_per_execution: int,
        mesh: Mesh,
        fsdp: bool = False,
        streamed: bool = False,
    ):
        check_batch(phase, mesh)
        self.phase, self.seed, self.steps_per_execution = phase, seed, steps_per_execution
        self.mesh, self.fsdp, self.streamed = mesh, fsdp, streamed
        self._replicated = sharding.replicated(mesh)
        self._step = phase.system.step
        if phase.system.per_device:
            specs = P(), P(sharding.AXIS), P()
            self._step = jax.shard_map(self._step, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=False)
        self.train_steps: Any = jax.jit(self._train_steps, donate_argnums=0)
        self.sample_grid: Any = jax.jit(self._sample_grid, out_shardings=self._replicated)

    def init(self, data: batches.Data) -> Any:
        """The initial state. Inside jit, each array gets its own buffer and can be donated."""
        shardings = self._shardings(jax.eval_shape(self.init_fn, data))
        options = RUNS_ONCE.get(jax.default_backend())
        return jax.jit(self.init_fn, out_shardings=shardings, compiler_options=options)(data)

    def init_fn(self, data: batches.Data) -> Any:
        """`init` as a pure function without jit, for jax.eval_shape and ahead-of-time compilation."""
        if self.streamed:
            batch = batches.to_batch(jax.tree.map(lambda x: x[0], data))
        else:
            batch = self._batch(data, 0, 0.0)
        return self.phase.system.init(key_for(self.seed, INIT), batch)

    def _batch(self, data: batches.Data, i: types.Array | int, hours: types.Array | float) -> types.Batch:
        """Batch i of the run, gathered from the whole set; its images depend only on the seed and i."""
        with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):
            batch = batches.batch(data, key_for(self.seed, DATA), i, self.phase.batch_size, hours)
        return jax.lax.with_sharding_constraint(batch, sharding.batch_sharding(self.mesh))

    def _train_steps(
        self, state: Any, data: batches.Data, hours: types.Array | float
    ) -> tuple[Any, types.Scalars]:
        """k steps of `system.step`, which updates the state; the rest sets shardings."""

        def body(state: Any, rows: batches.Data | None) -> tuple[Any, types.Scalars]:
            batch = self._batch(data, state.step, hours) if rows is None else batches.to_batch(rows, hours)
            with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):
                gathered = self._all_gather_weights(state)
                state, scalars = self._step(gathered, batch, key_for(self.seed, STEP))
            shardings = self._shardings(state), self._replicated
            return jax.lax.with_sharding_constraint((state, scalars), shardings)

        return jax.lax.scan(body, state, data if self.streamed else None, self.steps_per_execution)

    def _sample_grid(self, state: Any, label: types.Array) -> types.Array:
        keys = sampling.image_keys(key_for(self.seed, GRID), label.shape[0])
        return sampling.to_uint8(self.phase.system.sample(state, keys, label))

    def _shardings(self, state: Any) -> Any:
        return sharding.state_shardings(state, self.mesh, self.fsdp)

    def _all_gather_weights(self, state: Any) -> Any:
        """Replicates the players' weights for the forward passes; optimizer state and EMA stay sharded."""

        def gather(x: Any) -> Any:
            if not isinstance(x, types.PlayerState):
                return x
            weights: Any = jax.lax.with_sharding_constraint((x.params, x.model_state), self._replicated)
            params, model_state = weights
            return dataclasses.replace(x, params=params, model_state=model_state)

        return jax.tree.map(gather, state, is_leaf=lambda x: isinstance(x, types.PlayerState))


def init_state(functions: CompiledPhase, data: batches.Data, hours: Any) -> Any:
    """The initial state, computed while another thread compiles the training steps."""
    if jax.process_count() > 1:  # all processes must compile in the same order
        return functions.init(data)
    state = sharding.abstract_state(jax.eval_shape(functions.init_fn, data), functions.mesh, functions.fsdp)
    with futures.ThreadPoolExecutor(1) as thread:
        compiled = thread.submit(lambda: functions.train_steps.lower(state, data, hours).compile())
        state = functions.init(data)
        compiled.result()
    return state


def transition(phase: types.Phase, state: Any, mesh: Mesh, fsdp: bool = False) -> Any:
    """The first state of a phase from the last state of the previous phase, which is donated."""
    assert phase.transition is not None
    shardings = sharding.state_shardings(jax.eval_shape(phase.transition, state), mesh, fsdp)
    return jax.jit(phase.transition, donate_argnums=0, out_shardings=shardings)(state)


def phase_at(phases: Sequence[types.Phase], step: int) -> int:
    """Index of the phase that made the state of `step`; the first phase for step 0."""
    ends = np.cumsum([phase.steps for phase in phases])
    return min(int(np.searchsorted(ends, step, side="left")), len(phases) - 1)


def init_shapes(phase: types.Phase, shape: tuple[int, ...]) -> Any:
    """Shapes and dtypes of the arrays of a phase's state, for stored images of `shape` (h, w, c)."""

    def init(image: types.Array) -> Any:
        batch = batches.to_batch(batches.make_data(image, jnp.zeros(phase.batch_size, jnp.int32)))
        return phase.system.init(jax.random.key(0), batch)

    return jax.eval_shape(init, jax.ShapeDtypeStruct((phase.batch_size, *shape), jnp.uint8))


def restore(
    checkpoints: checkpoint.Checkpoints,
    phases: Sequence[types.Phase],
    step: int,
    shape: tuple[int, ...],
    mesh: Mesh,
    fsdp: bool = False,
) -> tuple[Any, float]:
    """The state of the checkpoint at `step`, on `mesh`, and the training time until then, in seconds.

    shape: (h, w, c) of a stored image. The checkpoint may have been written on other devices.
    """
    state = init_shapes(phases[phase_at(phases, step)], shape)
    return checkpoints.restore(step, state, sharding.state_shardings(state, mesh, fsdp))


def restore_sampled(
    checkpoints: checkpoint.Checkpoints,
    phases: Sequence[types.Phase],
    step: int,
    shape: tuple[int, ...],
    mesh: Mesh,
    read: Callable[[Any], Collection[str]],
) -> Any:
    """As `restore`, but only the arrays that are needed for sampling are read; others are zeros.

    read: shapes of the state -> names of the arrays to read, see `sampling_state`.
    """
    try:
        state = init_shapes(phases[phase_at(phases, step)], shape)
        names = read(state)
    except (errors.UserError, MemoryError):
        raise
    except Exception as error:  # a config of impossible networks makes JAX raise almost anything
        raise errors.UserError(
            f"the config of the run with {checkpoints.folder} describes networks that cannot be built: "
            f"{type(error).__name__}: {untrusted.one_line(error)}"
        ) from error
    shardings = sharding.state_shardings(state, mesh, fsdp=False)
    return sampling_state.fill(state, checkpoints.restore_arrays(step, state, shardings, names))


def images_at(phases: Sequence[types.Phase], step: int) -> int:
    """Number of real images that the first `step` steps were trained on."""
    seen = 0
    for phase in phases:
        done = min(step, phase.steps)
        seen += done * phase.batch_size
        step -= done
    return seen
