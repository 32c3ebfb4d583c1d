"""Compiling for accelerators that are not present: GPUs with jax[cuda13], TPUs with jax[tpu].

Neither driver nor accelerator is needed. The programs cannot run, but they can be read: operations,
collectives, memory.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any
from unittest import mock

H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
  core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647 block_dim_limit_y: 65535
  block_dim_limit_z: 65535 memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84929347584 cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA" dnn_version_info { major: 9 minor: 12 } runtime_version { major: 13 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
# Number of TPU v5e chips -> topology.
SLICES = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
BACKENDS = {"tpu": "tpu", "cuda": "gpu"}  # platform -> jax.default_backend()


def devices(platform: str, count: int) -> list[Any]:
    """TPU v5e ("tpu") or H100 ("cuda") devices to compile for; raises ValueError naming the choices."""
    from jax.experimental import topologies

    if platform not in BACKENDS:
        raise ValueError(f"platform is {platform!r}; choices: {', '.join(BACKENDS)}")
    if platform == "cuda":
        topology = topologies.get_topology_desc(platform="cuda", target_config=H100, topology=f"1x{count}x1")
        return list(topology.devices)
    if count not in SLICES:
        raise ValueError(f"{count} chips are no slice of TPU v5e; choices: {', '.join(map(str, SLICES))}")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # there is no metadata server outside Google's cloud
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # no chip is opened, so none is locked
    alone: dict[str, Any] = {"chips_per_host_bounds": (1, 1, 1)} if count == 1 else {}
    topology = topologies.get_topology_desc(platform="tpu", topology_name=f"v5e:{SLICES[count]}", **alone)
    return list(topology.devices)


@contextlib.contextmanager
def target(platform: str, count: int) -> Iterator[None]:
    """Within it JAX reports these devices and no others, as far as jaxdog asks."""
    import jax

    found = devices(platform, count)
    with (
        mock.patch.object(jax, "default_backend", lambda: BACKENDS[platform]),
        mock.patch.object(jax, "devices", lambda *_: list(found)),
        mock.patch.object(jax, "device_count", lambda *_: count),
    ):
        yield
