"""What a config costs before it is run: parameters, operations, memory, and the batches that fit."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxdog import sharding, types
from jaxdog.config import build, schema
from jaxdog.data import batches
from jaxdog.ops import conv
from jaxdog.training import train_step

MOST = 65_536  # pictures of a step: nobody looks for more
PICTURES = 1000  # of the training set as it is described to the compiler


class Cost(NamedTuple):
    """Of one compiled step of a phase, on each device. Bytes are NaN where the compiler does not say."""

    parameters: dict[str, int]  # of each network
    flops: float
    state: float  # bytes of what training changes
    working: float  # bytes that a step needs besides, while it runs


def lowered(phase: types.Phase, side: int, over: Mesh, deal_state: bool = False) -> tuple[Any, Any]:
    """(its state, described, where it will be; its step, not compiled) of a phase. No photo is read.

    side: of the stored crops, in pixels.
    """
    data = jax.eval_shape(
        lambda: batches.resident(
            jnp.zeros((PICTURES, side, side, 3), jnp.uint8), jnp.zeros(PICTURES, jnp.int32)
        )
    )
    functions = train_step.compiled(phase, 0, 1, over, deal_state)
    state = sharding.described(jax.eval_shape(functions.first, data), over, deal_state)
    return state, functions.dispatch.lower(state, sharding.described(data, over), 0.0)


def flops(phase: types.Phase, side: int) -> float:
    """Operations of a phase's step, as XLA counts them before it optimises. No photo is read.

    side: of the stored crops, in pixels. Counted for one CPU, as backends for other devices count compiled
    programs only, and with all products of its convolutions.
    """
    one = Mesh(np.array(jax.devices("cpu")[:1]), (sharding.AXIS,))
    with conv.written_out():
        _, step = lowered(phase, side, one)
    return step.cost_analysis()["flops"]


def of_step(config: schema.Checked, phase: types.Phase, over: Mesh) -> Cost:
    """The cost of a phase's step, compiled for these devices; no photo is read."""
    state, step = lowered(phase, config.data.store_size, over, config.devices.deal_state)
    compiled = step.compile()
    counted, memory = (compiled.cost_analysis() or {}).get("flops", float("nan")), compiled.memory_analysis()
    if conv.saving():  # in loops, of which one turn is counted
        counted = flops(phase, config.data.store_size)
    nets = {name: net for name, net in vars(state).items() if isinstance(net, types.Net)}
    shards = jax.tree.map(lambda x: int(np.prod(x.sharding.shard_shape(x.shape))) * x.dtype.itemsize, state)
    working = memory.temp_size_in_bytes if memory else float("nan")
    parameters = {name: sum(x.size for x in jax.tree.leaves(net.params)) for name, net in nets.items()}
    return Cost(parameters, counted, sum(jax.tree.leaves(shards)), working)


def show(config: schema.Checked) -> None:
    """Prints each network's parameters, the cost of a step and its memory."""
    over = sharding.mesh()
    for phase in build.phases(config, build.classes(config.data)):
        cost = of_step(config, phase, over)
        print(f"\nphase {phase.name}: {phase.steps} steps of {phase.batch_size} pictures")
        for name, count in cost.parameters.items():
            print(f"  {name}: {count:,} parameters")
        print(f"  a step: {cost.flops / 1e9:,.1f} GFLOP on each of {over.size} devices")
        print(f"  state: {cost.state / 1e6:,.1f} MB; working memory of a step: {cost.working / 1e6:,.1f} MB")


def batch_sizes(config: schema.Checked, over: Mesh, limit: float) -> Iterator[tuple[int, Cost | None]]:
    """Batch sizes, each twice the one before, and their costs, up to the first that needs more than `limit`.

    None where the compiler gave up for want of memory. The costs are those of the phase that needs most; of
    each device, without the crops, which `devices.data_share` speaks for.
    """
    size = over.size
    while size <= MOST:
        game = config.game._replace(batch_size=size)
        phases = build.phases(config._replace(game=game), build.classes(config.data))
        try:
            found = [of_step(config, phase, over) for phase in phases]
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            yield size, None
            return
        cost = max(found, key=lambda x: x.state + x.working)
        yield size, cost
        if not cost.state + cost.working <= limit:  # also where it is not known
            return
        size *= 2


def fit(config: schema.Checked) -> int:
    """Prints which values of game.batch_size fit on the devices; returns the largest, 0 if none does."""
    over = sharding.mesh()
    limit = (1.0 - config.devices.data_share) * sharding.memory()
    print(
        f"\n{over.size} devices of {sharding.memory() / 1e9:,.1f} GB, of which devices.data_share leaves "
        f"{limit / 1e9:,.1f} GB\n game.batch_size   state MB   working MB   GFLOP per picture"
    )
    best = 0
    for size, cost in batch_sizes(config, over, limit):
        if cost is None:
            print(f"{size:16,}   needs more than there is")
            continue
        best = size if cost.state + cost.working <= limit else best
        note = "" if best == size else "   too much"
        each = cost.flops * over.size / size / 1e9
        print(
            f"{size:16,} {cost.state / 1e6:10,.1f} {cost.working / 1e6:12,.1f} {each:19,.2f}{note}",
            flush=True,
        )
    print(f"largest that fits: {best:,}" if best else "none fits")
    return best
