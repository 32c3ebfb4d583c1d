"""Pictures that stay with the host: grain's threads read ahead what the next steps will need.

The order is that of `batches.batch`, so a run is the same whether its pictures are on the devices or not, and
where a run goes on follows from its step alone.
"""

from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdog import sharding, types
from jaxdog.data import batches
from jaxdog.utils import optional

THREADS, AHEAD = 4, 4  # of grain; dispatches that are ready before they are asked for


def dispatches(
    data: batches.Data, key: types.Key, steps: range, per_dispatch: int, batch_size: int, over: Mesh
) -> Iterator[batches.Data]:
    """The rows of `steps`, so many steps at a time: arrays [k, b, ...] on the devices, dealt out along b.

    Args:
      data: arrays of the host, or mapped files; each host reads only the rows of its own devices.
      key: the order of the run.
      steps: numbers of the steps, one after the other; a multiple of `per_dispatch`.
      per_dispatch: k.
      batch_size: b.
      over: the mesh of all devices.
    """
    grain = optional.load("grain", "training on pictures that stay with the host")
    n, count = data.image.shape[0], per_dispatch * batch_size
    batches_sharding = NamedSharding(over, P(None, sharding.AXIS))
    # Found on the host's processor: the devices are busy with the steps before.
    key = jax.device_put(key, jax.local_devices(backend="cpu")[0])
    find = jax.jit(batches.at, static_argnums=(0, 3))

    def rows(dispatch: int) -> batches.Data:
        first = (steps.start + dispatch * per_dispatch) * batch_size
        chosen = np.asarray(find(n, key, np.uint32(first), count)).reshape(per_dispatch, batch_size)
        return batches.Data(*(put(x, chosen) for x in data))

    def put(x: np.ndarray, chosen: np.ndarray) -> jax.Array:
        def mine(index: tuple[slice, ...] | None) -> np.ndarray:
            return x[chosen[(index or ())[:2]]]

        return jax.make_array_from_callback((*chosen.shape, *x.shape[1:]), batches_sharding, mine)

    ahead = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=AHEAD)
    return iter(grain.MapDataset.range(len(steps) // per_dispatch).map(rows).to_iter_dataset(ahead))
