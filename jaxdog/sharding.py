"""The device mesh: shardings, transfers of arrays to the devices, and jit over the mesh."""

import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import jaxlib
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, Sharding
from jax.sharding import PartitionSpec as P

from jaxdog import types
from jaxdog.utils import memory

AXIS = types.DATA_AXIS
MIN_SHARDED_SIZE = 2**12  # elements; gathering a smaller array costs more than it saves
# The operations that XLA's CPU backend runs with YNNPACK.
YNNPACK_FLAG = "xla_cpu_experimental_ynn_fusion_type"


def make_mesh() -> Mesh:
    """All devices of all processes along one axis."""
    return Mesh(np.array(jax.devices()), (AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
    """A full copy on every device."""
    return NamedSharding(mesh, P())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis split over the devices."""
    return NamedSharding(mesh, P(AXIS))


def state_shardings(tree: Any, mesh: Mesh, fsdp: bool) -> Any:
    """The sharding of each array of a training state; `tree` holds the arrays or their shapes.

    fsdp: if True, each array of at least `MIN_SHARDED_SIZE` elements is sharded along its longest axis that
      the number of devices divides (fully sharded data parallelism; ZeRO, Rajbhandari et al. 2020). All other
      arrays are replicated.
    """

    def one(x: Any) -> NamedSharding:
        divisible = [i for i, n in enumerate(x.shape) if n % mesh.size == 0]
        if not fsdp or x.size < MIN_SHARDED_SIZE or not divisible:
            return replicated(mesh)
        return NamedSharding(mesh, P(*[None] * max(divisible, key=lambda i: (x.shape[i], i)), AXIS))

    return jax.tree.map(one, tree)


def abstract_state(tree: Any, mesh: Mesh, fsdp: bool = False) -> Any:
    """`jax.ShapeDtypeStruct`s of a state's arrays with their shardings, see `state_shardings`."""
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        tree,
        state_shardings(tree, mesh, fsdp),
    )


def all_gather(tree: Any, mesh: Mesh) -> Any:
    """Arrays that may be sharded, replicated on every device, so that every process can read them."""
    return jax.jit(lambda x: x, out_shardings=replicated(mesh))(tree)


def device_memory() -> int:
    """Memory of the first device in bytes; the host's memory if the device does not report its own."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit") or memory.total_bytes()


def compiler_options() -> dict[str, str] | None:
    """XLA options for inference, where operations run one at a time; None: the defaults.

    jaxlib 0.10 uses YNNPACK for CPU convolutions with up to 64 output channels, which then run on one core.
    In training other operations run concurrently, and YNNPACK is fastest. In Inception's forward pass none
    do, and XLA's own convolutions are faster, as they use all cores. XLA_FLAGS takes precedence.
    """
    given = YNNPACK_FLAG in os.environ.get("XLA_FLAGS", "")
    if given or jax.default_backend() != "cpu" or not jaxlib.__version__.startswith("0.10."):
        return None
    return {YNNPACK_FLAG: "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}


def host_cpu() -> Any:
    """A CPU of this process, a jax.Device; None if JAX_PLATFORMS excludes CPUs."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None


def factorization_mesh(mesh: Mesh) -> Mesh:
    """The mesh for QR and singular values: `mesh`, except on TPUs, where the host's CPU is used if available.

    On CPUs and GPUs XLA calls LAPACK or cuSOLVER. On TPUs it expands factorizations into loops, which take
    minutes to compile for 20,579 x 2,048 features.
    """
    if mesh.devices.flat[0].platform != "tpu":
        return mesh
    cpu = host_cpu()
    return mesh if cpu is None else Mesh(np.array([cpu]), (AXIS,))


@functools.cache
def jit_replicated(function: Callable[..., Any], mesh: Mesh, *static_argnums: int) -> Callable[..., Any]:
    """`function` jitted with replicated results, so that every process can read them; cached."""
    return jax.jit(
        function,
        static_argnums=static_argnums,
        out_shardings=replicated(mesh),
        compiler_options=compiler_options(),
    )


def all_processes_agree(flag: bool) -> bool:
    """Whether `flag` is True in every process; all processes must call this."""
    return bool(np.all(multihost_utils.process_allgather(np.array(flag))))


def round_up(batch_size: int, mesh: Mesh) -> int:
    """The smallest multiple of the number of devices that is at least `batch_size`."""
    return -(-batch_size // mesh.size) * mesh.size


def put(tree: Any, sharding: Sharding) -> Any:
    """Host arrays, the same in every process, as device arrays; the devices may be of other processes."""

    def one(x: Any) -> jax.Array:
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(one, tree)
