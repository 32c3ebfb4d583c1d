"""Prefetching for training sets that stay on the host: Grain's threads read the next batches.

The order is that of `batches.batch`. A run is therefore the same whether its images are on the devices or on
the host, and it resumes at any step without a saved loader state.
"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdog import sharding, types
from jaxdog.data import batches
from jaxdog.utils import optional

NUM_THREADS = 4  # reader threads
BUFFER_SIZE = 4  # executions to prefetch


def load_grain() -> Any:
    """The module of Grain; raises MissingExtraError if it is not installed."""
    return optional.load("grain", "training on images that stay on the host")


def prefetch(
    data: batches.Data, key: types.Key, steps: range, steps_per_execution: int, batch_size: int, mesh: Mesh
) -> Iterator[batches.Data]:
    """The batches of `steps`, k at a time: arrays [k, b, ...] on the devices, sharded along b.

    Args:
      data: arrays on the host, or memory-mapped files; each process reads only the rows of its own devices.
      key: determines the order of the images.
      steps: consecutive step numbers; their count is a multiple of `steps_per_execution`.
      steps_per_execution: k.
      batch_size: b.
      mesh: the mesh of all devices.
    """
    grain = load_grain()
    n, count = data.image.shape[0], steps_per_execution * batch_size
    rows_sharding = NamedSharding(mesh, P(None, sharding.AXIS))
    # Computed on the host's CPU, if JAX has it, as the devices are busy with earlier steps.
    key = jax.device_put(key, sharding.host_cpu() or jax.local_devices()[0])
    indices = jax.jit(batches.indices_at, static_argnums=(0, 3))

    def read(execution: int) -> batches.Data:
        first = (steps.start + execution * steps_per_execution) * batch_size
        index = np.asarray(indices(n, key, np.uint32(first), count)).reshape(steps_per_execution, batch_size)
        return batches.Data(*(put(x, index) for x in data))

    def put(x: np.ndarray, index: np.ndarray) -> jax.Array:
        def shard(position: tuple[slice, ...] | None) -> np.ndarray:
            return x[index[(position or ())[:2]]]

        return jax.make_array_from_callback((*index.shape, *x.shape[1:]), rows_sharding, shard)

    options = grain.ReadOptions(num_threads=NUM_THREADS, prefetch_buffer_size=BUFFER_SIZE)
    executions = grain.MapDataset.range(len(steps) // steps_per_execution)
    return iter(executions.map(read).to_iter_dataset(options))
