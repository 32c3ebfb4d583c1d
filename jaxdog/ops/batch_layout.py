"""How batches that are created within a training step lie on the devices."""

import jax
import jax.numpy as jnp

from jaxdog import types


def shard_batch(tree: types.PyTree) -> types.PyTree:
    """Constrains arrays [b, ...] created within a step to be sharded along the batch; a no-op without a mesh.

    Without the constraint every device would sample all latents and compute everything that depends on them.
    """
    return _constrained(tree, jax.sharding.PartitionSpec(types.DATA_AXIS))


def replicate(tree: types.PyTree) -> types.PyTree:
    """Constrains arrays to be replicated: every device computes them, which saves communication."""
    return _constrained(tree, jax.sharding.PartitionSpec())


def _constrained(tree: types.PyTree, spec: jax.sharding.PartitionSpec) -> types.PyTree:
    mesh = jax.sharding.get_abstract_mesh()
    if types.DATA_AXIS not in mesh.axis_names or types.DATA_AXIS in mesh.manual_axes:
        return tree
    return jax.lax.with_sharding_constraint(tree, spec)


def interleave(a: types.Array, b: types.Array) -> types.Array:
    """Alternates the rows of a and b, both [n, ...] -> [2n, ...].

    Unlike concatenation it moves no rows between devices when both are sharded along n.
    """
    return jnp.stack((a, b), 1).reshape(-1, *a.shape[1:])


def deinterleave(x: types.Array) -> tuple[types.Array, types.Array]:
    """Inverse of `interleave`: [2n, ...] -> two arrays [n, ...]."""
    pairs = x.reshape(-1, 2, *x.shape[1:])
    return pairs[:, 0], pairs[:, 1]
