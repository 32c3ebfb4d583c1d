"""Scores of one set of features against another: every metric jitted, its rows dealt out over the devices."""

import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jaxdog import sharding
from jaxdog.metrics import features, fid, inception_score, kid, mifid, neighbors, per_class, prdc

log = logging.getLogger("jaxdog")

FEW = 2048  # generated pictures, below which the FID of 2,048 features has no full covariance
RESOLUTION = 1e-5  # of float32: Frechet distances below are rounding


class Result(NamedTuple):
    """What a comparison gave; all numbers are plain floats."""

    scores: dict[str, float | None]  # true name -> number; None where it is not defined
    per_class: dict[str, dict[str, float | None]]  # breed -> its own scores; {} unless asked for
    warnings: tuple[str, ...]  # what a reader of the numbers should know


class Rows(NamedTuple):
    """Features padded to a multiple of the devices."""

    x: jax.Array  # [n, d] float32, rows dealt out
    weight: jax.Array  # [n] float32, 0 for padding


class Comparer:
    """One real side, ready to be compared with.

    Args:
      real: the real side.
      over: the mesh of all devices.
      eps: memorization distances below this divide the FID; None: the network's own.
    """

    def __init__(self, real: features.Features, over: Mesh, eps: float | None = None):
        self.network = features.NETWORKS[real.about.network]
        self.real, self.over = real, over
        self.eps = self.network.eps if eps is None else eps
        self._everywhere = sharding.everywhere(over)
        self._solver = sharding.for_factors(over)
        if real.count < 2:
            raise ValueError(f"{real.about.source} has {real.count} pictures; a real side needs at least 2")

    @cached_property
    def factors(self) -> dict[str, fid.Factor]:
        """Layer -> the real side's factor."""

        def factor(layer: str) -> fid.Factor:
            make = self._solve(_factor)
            found = self._remembered(
                f"factor_{layer}", lambda: make(_rows(self.real.found[layer], self._solver))._asdict()
            )
            return fid.Factor(**sharding.put(found, sharding.everywhere(self._solver)))

        return {layer: factor(layer) for layer in self.network.frechet}

    @cached_property
    def pool(self) -> Rows:
        """The real side's features that all but FID are made of."""
        return _rows(self.real.found[self.network.layer], self.over)

    def radius(self, k: int) -> jax.Array:
        """[n], rows of `pool`: each real picture's distance to its k-th nearest other one; 0 for padding."""
        n, padded = self.real.count, len(self.pool.weight)
        make = self._run(_radius, 1)
        found = self._remembered(f"radius_{k}", lambda: {"radius": make(self.pool, k)[:n]})
        return sharding.put(np.pad(found["radius"], (0, padded - n)), self._everywhere)

    def scores(self, fake: features.Features, metrics: Sequence[str] = ("mifid",)) -> Result:
        """Scores of one set of generated pictures.

        Args:
          fake: features made by the same network at the same size.
          metrics: rows of features.METRICS.

        Raises ValueError for sides made differently, fewer than 2 pictures, and unknown metrics.
        """
        unknown = sorted(set(metrics) - set(features.METRICS))
        if unknown:
            raise ValueError(f"{unknown[0]!r} is no metric; choices: {', '.join(features.METRICS)}")
        features.comparable(self.real.about, fake.about)
        if fake.count < 2:
            raise ValueError(f"{fake.about.source} has {fake.count} pictures; scores need at least 2")
        notes = []
        if fake.count < FEW:
            notes.append(f"{fake.count} generated pictures are few: FID is biased upwards below some {FEW:,}")
        found: dict[str, float | None] = {}
        for name, measure in self._measures.items():
            if name in metrics:
                found |= measure(fake, notes)
        classes = self._per_class(fake, notes) if "per_class" in metrics else {}
        return Result(found, classes, tuple(notes))

    @property
    def _measures(self) -> dict[str, Callable[[features.Features, list[str]], dict[str, float | None]]]:
        return {
            "mifid": self._mifid,
            "is": self._inception_score,
            "kid": self._kid,
            "prdc": self._prdc,
            "fid_infinity": self._fid_infinity,
        }

    # --- one metric each; they add to `notes` what a reader should know

    def _mifid(self, fake: features.Features, notes: list[str]) -> dict[str, float | None]:
        layer, found, distances = self.network.layer, {}, {}
        for name, base in self.network.frechet.items():
            rows = _rows(fake.found[name], self._solver)
            distances[name] = float(self._solve(_frechet)(self.factors[name], rows))
            found[self._called(base, name)] = max(distances[name], 0.0)
        near = float(self._run(_memorization)(_rows(fake.found[layer], self.over), self.pool))
        if not np.isfinite(near):
            notes.append(
                "every feature of a side is zero, so there is no memorization distance, and no MiFID"
            )
            return found | {self._called("mifid"): None, "memorization_distance": None}
        near = max(near, 0.0)
        if near < self.eps:
            notes.append(
                f"the memorization distance {near:.4g} is below {self.eps}: the pictures lie too near to "
                "real ones, and MiFID is FID divided by it"
            )
        # Rounding of FID to 0 would turn the penalty for copies into a prize.
        score = mifid.mifid(max(distances[layer], RESOLUTION), near, self.eps)
        return found | {self._called("mifid"): float(score), "memorization_distance": near}

    def _inception_score(self, fake: features.Features, notes: list[str]) -> dict[str, float | None]:
        logits = fake.found.get(features.LOGITS)
        if logits is None:
            notes.append("no Inception Score: these weights have no classifier")
            return {}
        splits = min(10, fake.count)
        if splits < 10:
            notes.append(f"the Inception Score has {splits} splits, one for each picture, instead of 10")
        score = self._run(inception_score.inception_score, 1)(logits, splits)
        names = self._called("inception_score"), self._called("inception_score_std")
        return dict(zip(names, map(float, score), strict=True))

    def _kid(self, fake: features.Features, notes: list[str]) -> dict[str, float | None]:
        size = min(kid.SUBSET_SIZE, self.real.count, fake.count)
        if size < kid.SUBSET_SIZE:
            notes.append(f"KID is made of subsets of {size} pictures instead of {kid.SUBSET_SIZE}")
        layer = self.network.layer
        rows = (sharding.put(side.found[layer], self._everywhere) for side in (self.real, fake))
        found = self._run(kid.kid)(*rows, kid.draw(self.real.count, fake.count, size=size))
        return {self._called("kid"): float(found.mean), self._called("kid_std"): float(found.std)}

    def _prdc(self, fake: features.Features, notes: list[str]) -> dict[str, float | None]:
        k = min(prdc.K, self.real.count - 1, fake.count - 1)
        if k < prdc.K:
            notes.append(
                f"precision, recall, density and coverage look at {k} neighbours instead of {prdc.K}"
            )
        rows = _rows(fake.found[self.network.layer], self.over)
        found = self._run(_prdc, 3)(self.pool, self.radius(k), rows, k)
        return {self._called(name): float(x) for name, x in found._asdict().items()}

    def _fid_infinity(self, fake: features.Features, notes: list[str]) -> dict[str, float | None]:
        layer = self.network.layer
        rows = sharding.put(fake.found[layer], sharding.everywhere(self._solver))
        found = self._solve(fid.extrapolate)(self.factors[layer], rows, jax.random.key(0))
        if found.r2 < 0.98:
            notes.append(f"the line to infinitely many pictures fits badly (R2 {float(found.r2):.3f})")
        return {self._called("fid_infinity"): float(found.at_infinity)}

    def _per_class(self, fake: features.Features, notes: list[str]) -> dict[str, dict[str, float | None]]:
        if self.real.label is None or fake.label is None or self.real.breeds != fake.breeds:
            notes.append("no scores of each class: both sides need labels of the same classes")
            return {}
        layer, classes = self.network.layer, len(self.real.breeds)
        where = sharding.everywhere(self._solver)
        rows = (sharding.put(side.found[layer], where) for side in (self.real, fake))
        found = self._solve(per_class.per_class)(
            *rows, per_class.groups(self.real.label, classes), per_class.groups(fake.label, classes)
        )
        name, rows_of = (
            self._called(self.network.frechet[layer], layer),
            zip(*map(np.asarray, found), strict=True),
        )
        table: dict[str, dict[str, float | None]] = {}
        for breed, (distance, near) in zip(self.real.breeds, rows_of, strict=True):
            score = mifid.mifid(float(distance), float(near), self.eps)
            row = {name: float(distance), self._called("mifid"): score, "memorization_distance": float(near)}
            table[breed] = {key: x if np.isfinite(x) else None for key, x in row.items()}
        return table

    # --- small things

    def _remembered(self, name: str, make: Callable[[], dict[str, jax.Array]]) -> dict[str, np.ndarray]:
        """Arrays made of the real side alone: from the cache, if that is where it is from, or made now."""
        cached = self.real.file is not None
        found = features.derived(self.real, name) if cached else None
        if not sharding.agreed(found is not None):
            found = jax.device_get(make())
            if cached:
                features.keep_derived(self.real, name, found)
        assert found is not None
        return found

    def _run(self, function: Callable[..., Any], *static: int) -> Callable[..., Any]:
        return sharding.compiled(function, self.over, *static)

    def _solve(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`_run` of what factors matrices."""
        return sharding.compiled(function, self._solver)

    def _called(self, base: str, layer: str = "") -> str:
        return features.called(base + ("" if layer else self.network.suffix), self.real.about.kind, layer)


def _rows(x: np.ndarray, over: Mesh) -> Rows:
    more = -len(x) % over.size
    weight = np.ones(len(x), np.float32)
    padded = np.pad(x, ((0, more), (0, 0))), np.pad(weight, (0, more))
    return Rows(*sharding.put(padded, sharding.by_rows(over)))


def _factor(rows: Rows) -> fid.Factor:
    return fid.factor(rows.x, rows.weight)


def _frechet(real: fid.Factor, fake: Rows) -> jax.Array:
    return fid.frechet(real, _factor(fake))


def _memorization(fake: Rows, real: Rows) -> jax.Array:
    return mifid.memorization_distance(fake.x, real.x, fake_weight=fake.weight, real_weight=real.weight)


def _radius(real: Rows, k: int) -> jax.Array:
    return neighbors.kth(real.x, k, weight=real.weight)


def _prdc(real: Rows, radius: jax.Array, fake: Rows, k: int) -> prdc.PRDC:
    return prdc.prdc(real.x, fake.x, k, real_weight=real.weight, fake_weight=fake.weight, real_radius=radius)
