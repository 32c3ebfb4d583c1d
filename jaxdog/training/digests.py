"""Digests of what a checkpoint holds, by which damage on the disk is found.

The digest of an array covers its shape, its type and its values, not how it is sharded.
"""

import hashlib
import json
from collections.abc import Mapping
from concurrent import futures
from typing import Any

import jax
import numpy as np

from jaxdog.evaluation import sampling_state
from jaxdog.utils import errors, untrusted

SEAL = "sha256"  # the entry of a JSON object with the digest of all others


class MismatchError(errors.UserError):
    """What was read is not what was written."""


def of_arrays(tree: Any) -> dict[str, str]:
    """The sha256 of each array of a state, by its name (`sampling_state.names`).

    Arrays that are spread over several hosts are left out: no process can read them.
    """
    names, arrays = jax.tree.leaves(sampling_state.names(tree)), jax.tree.leaves(tree)
    readable = {name: x for name, x in zip(names, arrays, strict=True) if _readable(x)}
    with futures.ThreadPoolExecutor() as threads:
        return dict(zip(readable, threads.map(_digest, readable.values()), strict=True))


def check_arrays(digests: Mapping[str, str], tree: Any) -> None:
    """Raises MismatchError, which names an array of `tree` whose digest is another."""
    wrong = sorted(name for name, digest in of_arrays(tree).items() if digests.get(name, digest) != digest)
    if wrong:
        raise MismatchError(f"{errors.some(wrong, 1)} is not what was written")


def seal(values: Mapping[str, Any]) -> str:
    """`values` as a JSON object with a digest."""
    return json.dumps({**values, SEAL: _json_digest(values)})


def unseal(text: str | bytes) -> dict[str, Any]:
    """The values of a JSON object made by `seal`, or of one without a digest. Raises UserError."""
    values = untrusted.parse_json(text)
    if not isinstance(values, dict):
        raise MismatchError(f"it is no JSON object: {text[:80]!r}")
    digest = values.pop(SEAL, None)
    if digest is not None and digest != _json_digest(values):
        raise MismatchError("its digest is another")
    return values


def _readable(x: Any) -> bool:
    return not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated


def _digest(x: Any) -> str:
    host = np.asarray(x, order="C")
    digest = hashlib.sha256(f"{host.dtype}{host.shape}".encode())
    digest.update(host.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _json_digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
