"""The input of a metric: two sets of images and their features, and how to compute on all devices.

Each row of `metric_table.METRICS` has a function of a `Comparison`. The classes are protocols, which
`evaluation.metric_suite` implements, so that metrics do not depend on the mesh.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import numpy as np

from jaxdog.metrics import features

Array = jax.Array
Scores = dict[str, float | None]  # name -> value; None if undefined
Arrays = dict[str, np.ndarray]
T = TypeVar("T")


class Rows(NamedTuple):
    """Features padded to a multiple of the number of devices."""

    x: Array  # [n, d] float32, sharded by rows
    weight: Array  # [n] float32, 0 for padding


class Images(NamedTuple):
    """The images of both sides, where they are at hand: each call begins anew.

    Batches [b, h, w, 3] uint8, of which only one needs to be in memory; the last may be smaller. All images
    of a side have one size, that of the generated ones.
    """

    real: Callable[[], Iterator[np.ndarray]] | None = None
    fake: Callable[[], Iterator[np.ndarray]] | None = None


class Devices(Protocol):
    """Where arrays are placed and functions run."""

    def jitted(self, function: Callable[..., T], *static_argnums: int) -> Callable[..., T]:
        """`function` under `jax.jit`, compiled once; its results are replicated."""
        ...

    def replicate(self, tree: Any) -> Any:
        """Host arrays as device arrays, a full copy on each device."""
        ...

    def shard_rows(self, x: np.ndarray) -> Rows:
        """[n, d] on the host, padded and sharded by rows."""
        ...


class Comparison(Protocol):
    """Generated against real images."""

    real: features.Features
    fake: features.Features
    images: Images
    network: features.Network  # the network of both sides
    eps: float | None  # MiFID's threshold on the memorization distance; None: MiFID is not computed

    @property
    def devices(self) -> Devices:
        """All devices."""
        ...

    @property
    def solver(self) -> Devices:
        """Where QR and SVD run: all devices, or the host of TPUs."""
        ...

    @property
    def real_rows(self) -> Rows:
        """The real side's features of `network.layer`, on `devices`."""
        ...

    @property
    def fake_rows(self) -> Rows:
        """The generated side's features of `network.layer`, on `devices`."""
        ...

    def derived(self, name: str, compute: Callable[[], dict[str, Array]], place: Callable[[Arrays], T]) -> T:
        """`place` applied to arrays that depend on the real side only: computed once, cached on disk."""
        ...

    def metric_name(self, base: str, layer: str = "") -> str:
        """See `features.metric_name`; with the network's suffix, unless a layer is named."""
        ...

    def warn(self, text: str) -> None:
        """Adds a sentence to the warnings of this comparison."""
        ...


def shared_frechet_layers(real: features.Features, fake: features.Features) -> list[str]:
    """The network's layers with a Frechet distance of which both sides have features or moments."""
    known = [{*side.layers, *side.moments} for side in (real, fake)]
    return [layer for layer in features.frechet_layers(real.spec.network) if all(layer in x for x in known)]


def available(needs: str, real: features.Features, fake: features.Features, images: Images) -> bool:
    """Whether two sides have what a metric needs; `needs` is a row of `metric_table.NEEDS`."""
    network = features.NETWORKS[real.spec.network]
    held = [network.layer in side.layers for side in (real, fake)]
    conditions: dict[str, bool] = {
        "moments": bool(shared_frechet_layers(real, fake)),
        "features": all(held),
        "generated features": network.layer in {*real.layers, *real.moments} and held[1],
        "logits": features.LOGITS in fake.layers,
        "labels": all(held)
        and real.label is not None
        and fake.label is not None
        and real.class_names == fake.class_names,
        "images": images.real is not None and images.fake is not None,
        "generated images": images.fake is not None,
    }
    return conditions[needs]
