"""Where arrays live: one mesh of all devices of all hosts, and host arrays put on it."""

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

AXIS = types.DEVICES
LEAST = 2**12  # numbers; a smaller array is not worth its gathering
LIBRARY = "xla_cpu_experimental_ynn_fusion_type"  # what XLA leaves to YNNPACK on CPUs


def mesh() -> Mesh:
    """All devices of all hosts along one axis."""
    return Mesh(np.array(jax.devices()), (AXIS,))


def everywhere(over: Mesh) -> NamedSharding:
    """Whole arrays on every device."""
    return NamedSharding(over, P())


def by_rows(over: Mesh) -> NamedSharding:
    """Rows dealt out over the devices."""
    return NamedSharding(over, P(AXIS))


def placed(tree: Any, over: Mesh, deal: bool) -> Any:
    """Where each array of a state lives, `tree` being its arrays or their shapes.

    deal: those of at least `LEAST` numbers are cut along their longest axis that the devices can share
      evenly, as in fully sharded data parallelism (Rajbhandari et al. 2020, ZeRO); else all are everywhere.
    """

    def one(x: Any) -> NamedSharding:
        even = [i for i, n in enumerate(x.shape) if n % over.size == 0]
        if not deal or x.size < LEAST or not even:
            return everywhere(over)
        return NamedSharding(over, P(*[None] * max(even, key=lambda i: (x.shape[i], i)), AXIS))

    return jax.tree.map(one, tree)


def described(tree: Any, over: Mesh, deal: bool = False) -> Any:
    """Arrays, or their shapes, as the compiler is told of them: see `placed`."""
    return jax.tree.map(
        lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
        tree,
        placed(tree, over, deal),
    )


def whole(tree: Any, over: Mesh) -> Any:
    """Arrays that may be dealt out, as arrays that every device, so every host, has whole."""
    return jax.jit(lambda x: x, out_shardings=everywhere(over))(tree)


def memory() -> int:
    """Bytes that the first device has; where it does not say, those of this machine."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def in_order() -> dict[str, str] | None:
    """XLA's options for functions of one operation after the other; what XLA_FLAGS says of the same stands.

    YNNPACK as of jaxlib 0.10 computes convolutions of up to 64 outputs on one core. Where others run beside
    them, as in training, it is the fastest still; Inception's take XLA's own, on all cores.
    """
    given = LIBRARY in os.environ.get("XLA_FLAGS", "")
    if given or jax.default_backend() != "cpu" or not jaxlib.__version__.startswith("0.10."):
        return None
    return {LIBRARY: "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}


def for_factors(over: Mesh) -> Mesh:
    """Where matrices are factored: there, but for TPUs, whose host does it, if it may.

    For other devices XLA has LAPACK or cuSOLVER. For TPUs it writes QR and singular values out as loops:
    those of 20,579 x 2,048 features compile for minutes.
    """
    if over.devices.flat[0].platform != "tpu":
        return over
    try:
        return Mesh(np.array(jax.local_devices(backend="cpu")[:1]), (AXIS,))
    except RuntimeError:  # JAX_PLATFORMS leaves none
        return over


@functools.cache
def compiled(function: Callable[..., Any], over: Mesh, *static: int) -> Callable[..., Any]:
    """`function` jitted, once for all who ask; its result is whole on every device, so each host can read it.

    static: numbers of the arguments that are part of the program.
    """
    where = everywhere(over)
    return jax.jit(function, static_argnums=static, out_shardings=where, compiler_options=in_order())


def agreed(said: bool) -> bool:
    """Whether every process says so: what the cache of only some of them holds, none must use."""
    return bool(np.all(multihost_utils.process_allgather(np.array(said))))


def rounded(batch_size: int, over: Mesh) -> int:
    """`batch_size` rounded up to a multiple of the devices."""
    return -(-batch_size // over.size) * over.size


def put(tree: Any, sharding: Sharding) -> Any:
    """Host arrays, equal on every host, as arrays on the devices; works for devices of other hosts too."""

    def one(x: Any) -> jax.Array:
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(one, tree)
