"""Computes the metrics of `metric_table.METRICS` for generated and real features, on all devices."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh

from jaxdog import sharding
from jaxdog.metrics import comparison, features, metric_table
from jaxdog.utils import errors, interrupts

FULL_RANK_SAMPLES = 2048  # with fewer images the covariance of 2,048 features is singular
T = TypeVar("T")


class Result(NamedTuple):
    """Scores as plain floats."""

    scores: comparison.Scores  # name -> value; None if undefined
    per_class: dict[str, comparison.Scores]  # class name -> its scores; {} unless requested
    warnings: tuple[str, ...]  # caveats of the scores


class MetricSuite:
    """Compares generated features with one real side.

    Args:
      real: the real side.
      mesh: the mesh of all devices.
      eps: MiFID's threshold on the memorization distance; None: the network's own, if it has one. With random
        weights no threshold is applied.
    """

    def __init__(self, real: features.Features, mesh: Mesh, eps: float | None = None):
        if real.layers and real.count < 2:
            raise errors.UserError(
                f"{real.spec.source} has {real.count} images; metrics need at least 2 real images"
            )
        self.real = RealSide(real, Devices(mesh))
        eps = features.NETWORKS[real.spec.network].eps if eps is None else eps
        self.eps = eps if eps is None or features.judges_distances(real.spec.kind) else 0.0
        self.solver = Devices(sharding.factorization_mesh(mesh))

    def scores(
        self,
        fake: features.Features,
        metrics: Sequence[str] = ("mifid",),
        images: comparison.Images = comparison.Images(),  # noqa: B008
    ) -> Result:
        """Scores of one set of generated images.

        Args:
          fake: features from the same network at the same image size.
          metrics: names in metric_table.METRICS.
          images: those of both sides, for metrics that need them.

        Raises UserError if the sides are not comparable, for fewer than 2 images, and for unknown metrics. A
        metric whose needs are not met is skipped with a warning; "copies" is computed by
        `copies.find_copies`.
        """
        check_metrics(metrics)
        real = self.real.features
        features.check_comparable(real.spec, fake.spec)
        if fake.layers and fake.count < 2:
            raise errors.UserError(f"{fake.spec.source} has {fake.count} images; metrics need at least 2")
        compared = Comparison(self.real, fake, images, self.eps, self.solver)
        counts = {"generated": fake.count, "real": real.count}
        few = [f"{n:,} {side} images" for side, n in counts.items() if 0 < n < FULL_RANK_SAMPLES]
        if few:
            compared.warn(
                f"FID is biased upwards for fewer than about {FULL_RANK_SAMPLES:,} images; there are "
                f"{' and '.join(few)}"
            )
        scores, per_class = {}, {}
        for name, metric in metric_table.METRICS.items():
            function = metric.function() if name in metrics else None
            if function is None:
                continue
            if not comparison.available(metric.needs, real, fake, images):
                compared.warn(f"no {name}: {metric_table.NEEDS[metric.needs]}")
                continue
            interrupts.check()
            try:
                found = function(compared)
            except (errors.UserError, OSError) as error:
                if metric.needs != "images":
                    raise
                compared.warn(f"no {name}: the photos cannot be read ({error})")  # of a run that was moved
                continue
            (per_class if metric.of_each_class else scores).update(found)
        return Result(scores, per_class, tuple(compared.warnings))


def check_metrics(metrics: Sequence[str]) -> None:
    """Raises UserError, which names the choices, for an unknown metric."""
    unknown = sorted(set(metrics) - set(metric_table.METRICS))
    if unknown:
        raise errors.UserError(f"{unknown[0]!r} is not a metric; choices: {', '.join(metric_table.METRICS)}")


class Devices:
    """See `comparison.Devices`."""

    def __init__(self, mesh: Mesh):
        self.mesh = mesh

    def jitted(self, function: Callable[..., T], *static_argnums: int) -> Callable[..., T]:
        return sharding.jit_replicated(function, self.mesh, *static_argnums)

    def replicate(self, tree: Any) -> Any:
        return sharding.put(tree, sharding.replicated(self.mesh))

    def shard_rows(self, x: np.ndarray) -> comparison.Rows:
        padding = -len(x) % self.mesh.size
        weight = np.ones(len(x), np.float32)
        padded = np.pad(x, ((0, padding), (0, 0))), np.pad(weight, (0, padding))
        return comparison.Rows(*sharding.put(padded, sharding.batch_sharding(self.mesh)))


class RealSide:
    """The real side's features on the devices, and arrays that metrics derive from them."""

    def __init__(self, real: features.Features, devices: Devices):
        self.features, self.devices = real, devices
        self.network = features.NETWORKS[real.spec.network]
        self._derived: dict[str, Any] = {}

    @cached_property
    def rows(self) -> comparison.Rows:
        """Features of `network.layer`."""
        return self.devices.shard_rows(self.features.layers[self.network.layer])

    def derived(
        self,
        name: str,
        compute: Callable[[], dict[str, jax.Array]],
        place: Callable[[comparison.Arrays], T],
    ) -> T:
        """`place` of the arrays that `compute` returns, which are cached on disk if the features are."""
        if name not in self._derived:
            on_disk = self.features.file is not None
            arrays = features.load_derived(self.features, name) if on_disk else None
            if not sharding.all_processes_agree(arrays is not None):
                arrays = jax.device_get(compute())
                if on_disk:
                    features.save_derived(self.features, name, arrays)
            assert arrays is not None
            self._derived[name] = place(arrays)
        return self._derived[name]


class Comparison:
    """See `comparison.Comparison`."""

    def __init__(
        self,
        real: RealSide,
        fake: features.Features,
        images: comparison.Images,
        eps: float | None,
        solver: Devices,
    ):
        self.real, self.fake, self.images, self.eps = real.features, fake, images, eps
        self.network, self.derived = real.network, real.derived
        self.devices, self.solver = real.devices, solver
        self.warnings: list[str] = []
        self._real = real

    @property
    def real_rows(self) -> comparison.Rows:
        return self._real.rows

    @property
    def fake_rows(self) -> comparison.Rows:
        return self._fake_rows

    @cached_property
    def _fake_rows(self) -> comparison.Rows:
        return self.devices.shard_rows(self.fake.layers[self.network.layer])

    def metric_name(self, base: str, layer: str = "") -> str:
        suffix = "" if layer else self.network.suffix
        return features.metric_name(base + suffix, self.real.spec.kind, layer)

    def warn(self, text: str) -> None:
        self.warnings.append(text)
