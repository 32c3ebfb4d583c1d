"""The cost of a config, without training: parameters, FLOPs, memory, and the batch sizes that fit."""

import dataclasses
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxdog import sharding, types
from jaxdog.config import build, schema
from jaxdog.data import batches
from jaxdog.ops import conv_cpu
from jaxdog.training import train_step
from jaxdog.utils import errors

MAX_BATCH_SIZE = 65_536  # `find_batch_size` stops here
NUM_IMAGES = 1000  # in the placeholder for the training set


class Cost(NamedTuple):
    """Cost of one compiled training step on each device; NaN if the compiler does not report it."""

    parameters: dict[str, int]  # number of parameters of each player
    flops: float
    state_bytes: float  # parameters, optimizer state, EMA, ...
    temp_bytes: float  # working memory of a step, mostly activations

    @property
    def total_bytes(self) -> float:
        """State and working memory."""
        return self.state_bytes + self.temp_bytes


def check_networks(config: schema.Experiment) -> None:
    """Traces the initialization of all phases; raises the UserError of a network that cannot have this size.

    It takes seconds per phase, and reads no photo.
    """
    mesh, side = sharding.make_mesh(), config.data.stored_resolution
    for phase in build.phases(config, build.classes(config.data)):
        _abstract_init(train_step.CompiledPhase(phase, 0, 1, mesh), side)


def _abstract_init(functions: train_step.CompiledPhase, side: int) -> tuple[Any, Any]:
    """(abstract state, abstract training set) of a phase."""
    data = jax.eval_shape(
        lambda: batches.make_data(
            jnp.zeros((NUM_IMAGES, side, side, 3), jnp.uint8), jnp.zeros(NUM_IMAGES, jnp.int32)
        )
    )
    return jax.eval_shape(functions.init_fn, data), data


def lower_step(phase: types.Phase, side: int, mesh: Mesh, fsdp: bool = False) -> tuple[Any, Any]:
    """(abstract state, lowered training step) of a phase, without reading a photo.

    side: height and width of the stored crops in pixels.
    """
    functions = train_step.CompiledPhase(phase, 0, 1, mesh, fsdp)
    state, data = _abstract_init(functions, side)
    state = sharding.abstract_state(state, mesh, fsdp)
    return state, functions.train_steps.lower(state, sharding.abstract_state(data, mesh), 0.0)


def count_flops(phase: types.Phase, side: int) -> float:
    """FLOPs of a training step, as XLA counts them before optimization, without reading a photo.

    They are counted for one CPU (other backends only count compiled programs), with direct convolutions.

    side: height and width of the stored crops in pixels.
    """
    return _lower_on_cpu(phase, side)[1].cost_analysis()["flops"]


def _lower_on_cpu(phase: types.Phase, side: int) -> tuple[Any, Any]:
    """`lower_step` for one CPU, with direct convolutions; raises UserError if JAX has no CPU."""
    cpu = sharding.host_cpu()
    if cpu is None:
        raise errors.UserError(
            "FLOPs are counted for a CPU, which JAX_PLATFORMS excludes: add it, as in JAX_PLATFORMS=cuda,cpu"
        )
    with conv_cpu.direct_only():
        return lower_step(phase, side, Mesh(np.array([cpu]), (sharding.AXIS,)))


def _parameters(state: Any) -> dict[str, int]:
    """Number of parameters of each player."""
    players = {name: x for name, x in vars(state).items() if isinstance(x, types.PlayerState)}
    return {name: sum(x.size for x in jax.tree.leaves(p.params)) for name, p in players.items()}


def _state_bytes(state: Any) -> float:
    """Bytes of an abstract state on each device."""
    return sum(
        int(np.prod(x.sharding.shard_shape(x.shape))) * x.dtype.itemsize for x in jax.tree.leaves(state)
    )


def step_cost(config: schema.Experiment, phase: types.Phase, mesh: Mesh) -> Cost:
    """The cost of a phase's training step, compiled for this mesh, without reading a photo."""
    state, step = lower_step(phase, config.data.stored_resolution, mesh, config.parallel.fsdp)
    compiled = step.compile()
    flops, memory = (compiled.cost_analysis() or {}).get("flops", float("nan")), compiled.memory_analysis()
    if conv_cpu.may_reduce_products():  # XLA would count one iteration of its loops
        flops = count_flops(phase, config.data.stored_resolution)
    return Cost(
        parameters=_parameters(state),
        flops=flops,
        state_bytes=_state_bytes(state),
        temp_bytes=memory.temp_size_in_bytes if memory else float("nan"),
    )


def print_costs(config: schema.Experiment) -> None:
    """Prints the parameters of each player, memory of the state and FLOPs of a step; compiles nothing."""
    mesh = sharding.make_mesh()
    for phase in build.phases(config, build.classes(config.data)):
        print(f"\nphase {phase.name}: {phase.steps} steps of {phase.batch_size} images", flush=True)
        state, step = _lower_on_cpu(phase, config.data.stored_resolution)
        for name, count in _parameters(state).items():
            print(f"  {name}: {count:,} parameters")
        size = _state_bytes(sharding.abstract_state(state, mesh, config.parallel.fsdp))
        print(f"  state: {size / 1e6:,.1f} MB")
        flops = step.cost_analysis()["flops"] / mesh.size
        print(f"  a step: {flops / 1e9:,.1f} GFLOP on each of {mesh.size} devices", flush=True)


def costs_by_batch_size(
    config: schema.Experiment, mesh: Mesh, limit: float
) -> Iterator[tuple[int, Cost | None]]:
    """(batch size, cost) for doubling batch sizes, up to the first that needs more than `limit` bytes.

    Sizes that the config cannot have are left out; raises the UserError of the last one if none is possible.
    The cost is that of the phase that needs the most memory, without the training set; None if XLA ran out of
    memory.
    """
    size, impossible, found = mesh.size, None, False
    while size <= MAX_BATCH_SIZE:
        try:
            costs = [step_cost(config, phase, mesh) for phase in _phases_of(config, size)]
        except errors.UserError as error:  # such as groups of images that do not divide this batch
            impossible, size = error, 2 * size
            continue
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            yield size, None
            return
        cost, found = max(costs, key=lambda x: x.total_bytes), True
        yield size, cost
        if not cost.total_bytes <= limit:  # NaN: unknown
            return
        size *= 2
    if impossible is not None and not found:
        raise impossible


def _phases_of(config: schema.Experiment, size: int) -> tuple[types.Phase, ...]:
    """The phases with this batch size."""
    system = dataclasses.replace(config.system, batch_size=size)
    return build.phases(config._replace(system=system), build.classes(config.data))


def least_bytes(config: schema.Experiment, mesh: Mesh) -> float:
    """Bytes of the largest state of a phase and of its gradients, on each device, without compiling."""
    size, side = sharding.round_up(config.system.batch_size, mesh), config.data.stored_resolution
    while True:
        try:
            phases = [train_step.CompiledPhase(phase, 0, 1, mesh) for phase in _phases_of(config, size)]
            states = [_abstract_init(phase, side)[0] for phase in phases]
            break
        except errors.UserError:  # as in `costs_by_batch_size`
            if (size := 2 * size) > MAX_BATCH_SIZE:
                raise
    placed = [sharding.abstract_state(state, mesh, config.parallel.fsdp) for state in states]
    gradients = [4 * sum(_parameters(state).values()) for state in states]
    return max(_state_bytes(state) + extra for state, extra in zip(placed, gradients, strict=True))


def find_batch_size(config: schema.Experiment) -> int:
    """Prints which values of system.batch_size fit on the devices; returns the largest, or 0 if none fits."""
    mesh = sharding.make_mesh()
    limit = (1.0 - config.parallel.device_memory_fraction) * sharding.device_memory()
    least = least_bytes(config, mesh)
    print(
        f"\n{mesh.size} devices of {sharding.device_memory() / 1e9:,.1f} GB, of which "
        f"parallel.device_memory_fraction leaves {limit / 1e9:,.1f} GB. State and gradients take about "
        f"{least / 1e9:,.2f} GB, with a batch of any size."
    )
    if least > limit:
        print("none fits")
        return 0
    print(
        "For each line a training step is compiled, which may take minutes.\n"
        " system.batch_size   state MB   working MB   GFLOP per image   seconds   largest, by two lines",
        flush=True,
    )
    best, before, start = 0, None, time.monotonic()
    for size, cost in costs_by_batch_size(config, mesh, limit):
        if cost is None:
            print(f"{size:18,}   out of memory", flush=True)
            continue
        fits = cost.total_bytes <= limit
        best = size if fits else best
        flops = cost.flops * mesh.size / size / 1e9  # per image
        guess = f"about {_extrapolated(before, (size, cost), limit):,}" if before else ""
        print(
            f"{size:18,} {cost.state_bytes / 1e6:10,.1f} {cost.temp_bytes / 1e6:12,.1f} {flops:17,.2f}"
            f"{time.monotonic() - start:10.0f}   {guess if fits else 'too large'}",
            flush=True,
        )
        before, start = (size, cost), time.monotonic()
    print(f"largest that fits: {best:,}" if best else "none fits")
    return best


def _extrapolated(before: tuple[int, Cost], last: tuple[int, Cost], limit: float) -> int:
    """The batch size that would need `limit` bytes if memory grew as it did between two batch sizes."""
    slope = (last[1].total_bytes - before[1].total_bytes) / (last[0] - before[0])
    if not slope > 0.0:
        return MAX_BATCH_SIZE
    return int(min(last[0] + (limit - last[1].total_bytes) / slope, MAX_BATCH_SIZE))
