"""Scores of generated pictures: sampling, quantising, resizing, features and distances, all on the devices.

The real side is computed once and kept on disk. Scores are named for what they are: `features.names`.
"""

import logging
import pathlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import tqdm
from jax.sharding import Mesh

from jaxdog import devices, sampling, system
from jaxdog.metrics import features, fid, mifid, weights

log = logging.getLogger(__name__)


Sampler = Callable[[Any, system.Array, system.Array], system.Array]  # a system's `sample`


class Real(NamedTuple):
    """The real side, ready to be compared with, on all devices."""

    small: fid.Factor  # of mixed_7's means, [n, 768]
    large: fid.Factor  # of pool_3, [n, 2048]
    pool: jax.Array  # [n, 2048] float32


class Evaluator:
    """Scores against one real set with one feature network.

    Args:
      network: the weights of the feature network.
      images: [n, h, w, 3] uint8, whole real photos at the generated size.
      data_key: names those pictures in the cache.
      resampler: how they were made that size, for the record: "lanczos" | "tf1-bilinear".
      cache_dir: where features of the real side are kept.
      over: the mesh of all devices.
      batch_size: pictures in flight; rounded up to a multiple of the devices.
      eps: memorization distances below this divide the FID; 0.1 on the public leaderboard.
    """

    def __init__(
        self,
        network: weights.Weights,
        images: np.ndarray,
        data_key: str,
        resampler: str,
        cache_dir: pathlib.Path,
        over: Mesh,
        batch_size: int = 128,
        eps: float = 0.1,
    ):
        self.network, self.resampler, self.eps, self.count = network, resampler, eps, len(images)
        self.batch_size = -(-batch_size // over.size) * over.size
        self._everywhere = devices.everywhere(over)
        self._rows = partial(devices.put, sharding=devices.by_rows(over))
        self._params = devices.put(network.params, self._everywhere)
        # Results are gathered to every device, so that each host can read them whole.
        self._features = jax.jit(features.features, out_shardings=self._everywhere)
        self._compare = jax.jit(_compare, out_shardings=self._everywhere)
        self._generators: dict[Sampler, Callable[..., Any]] = {}
        key = features.cache_key(data_key, resampler, network.sha256)
        found = features.load(cache_dir, key)
        if found is None:
            found = self.features_of(images, "real features")
            facts = {"data": data_key, "resampler": resampler, "weights": network.source}
            if jax.process_index() == 0:
                features.save(cache_dir, key, found, facts)
        factor = jax.jit(fid.factor, out_shardings=self._everywhere)
        small, pool = (devices.put(found[name], self._everywhere) for name in features.KEPT)
        self.real = Real(factor(small), factor(pool), pool)

    def features_of(self, images: np.ndarray, what: str) -> dict[str, np.ndarray]:
        """Features of host pictures [n, h, w, 3] uint8: {"mixed_7": [n, 768], "pool_3": [n, 2048]}."""

        def parts() -> Iterator[dict[str, jax.Array]]:
            for rows in blocks(len(images), self.batch_size):
                yield self._features(self._params, self._rows(np.asarray(images[rows])))

        return self._gather(parts(), len(images), what)

    def score_images(self, images: np.ndarray) -> dict[str, Any]:
        """Scores of pictures on the host, [n, h, w, 3] uint8."""
        begun = time.monotonic()
        return self._score(self.features_of(images, "features"), begun)

    def score_system(self, sample: Sampler, state: Any, key: system.Key, label: np.ndarray) -> dict[str, Any]:
        """Scores of fresh pictures, one for each breed of `label` [n]; picture i is made from (key, i)."""
        begun, n = time.monotonic(), len(label)
        make = self._generator(sample)

        def parts() -> Iterator[dict[str, jax.Array]]:
            for rows in blocks(n, self.batch_size):
                yield make(self._params, state, key, self._rows(rows), self._rows(label[rows]))

        return self._score(self._gather(parts(), n, "evaluation"), begun)

    def _generator(self, sample: Sampler) -> Callable[..., Any]:
        """sample -> uint8 -> features, jitted once for each `sample`."""
        if sample not in self._generators:

            @partial(jax.jit, out_shardings=self._everywhere)
            def generate(params: Any, state: Any, key: system.Key, index: jax.Array, label: jax.Array) -> Any:
                image = sampling.to_uint8(sample(state, sampling.image_keys(key, index), label))
                return features.features(params, image)

            self._generators[sample] = generate
        return self._generators[sample]

    def _gather(self, parts: Iterator[dict[str, jax.Array]], n: int, what: str) -> dict[str, np.ndarray]:
        collected: dict[str, list[np.ndarray]] = {}
        with tqdm.tqdm(total=n, desc=what, unit="img", leave=False, disable=hidden()) as bar:
            for part in parts:
                for name, x in part.items():
                    if name in features.KEPT:
                        collected.setdefault(name, []).append(np.asarray(x))
                bar.update(min(self.batch_size, n - bar.n))
        return {name: np.concatenate(xs)[:n] for name, xs in collected.items()}

    def _score(self, found: dict[str, np.ndarray], begun: float) -> dict[str, Any]:
        fake = {name: devices.put(x, self._everywhere) for name, x in found.items()}
        small, large, distance = (float(x) for x in self._compare(self.real, fake["mixed_7"], fake["pool_3"]))
        names = features.names(self.network.kind)
        return {
            names.fid768: small,
            names.fid2048: large,
            names.mifid: mifid.mifid(large, distance, self.eps),
            "memorization_distance": distance,
            "samples": len(found["pool_3"]),
            "real": self.count,
            "weights_kind": self.network.kind,
            "weights_sha256": self.network.sha256,
            "resampler": self.resampler,
            "evaluation_seconds": time.monotonic() - begun,
        }


def _compare(real: Real, small: jax.Array, pool: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Both Frechet distances and the memorization distance."""
    return (
        fid.frechet(real.small, fid.factor(small)),
        fid.frechet(real.large, fid.factor(pool)),
        mifid.memorization_distance(pool, real.pool),
    )


def blocks(n: int, size: int) -> Iterator[np.ndarray]:
    """Row numbers 0 .. n-1 in blocks of one size; the last block is filled up with its own last row."""
    for start in range(0, n, size):
        yield np.minimum(np.arange(start, start + size, dtype=np.int32), n - 1)


def generate(
    sample: Sampler, state: Any, key: system.Key, label: np.ndarray, over: Mesh, batch_size: int
) -> np.ndarray:
    """Pictures [n, h, w, 3] uint8, one for each breed of `label` [n]; picture i is made from (key, i)."""
    size, n = -(-batch_size // over.size) * over.size, len(label)
    put = partial(devices.put, sharding=devices.by_rows(over))

    @partial(jax.jit, out_shardings=devices.everywhere(over))
    def make(state: Any, key: system.Key, index: jax.Array, label: jax.Array) -> jax.Array:
        return sampling.to_uint8(sample(state, sampling.image_keys(key, index), label))

    made = []
    with tqdm.tqdm(total=n, desc="pictures", unit="img", leave=False, disable=hidden()) as bar:
        for rows in blocks(n, size):
            made.append(np.asarray(make(state, key, put(rows), put(label[rows]))))
            bar.update(min(size, n - bar.n))
    return np.concatenate(made)[:n]


def hidden() -> bool | None:
    """tqdm's `disable`: only process 0 shows bars, and only on a terminal."""
    return None if jax.process_index() == 0 else True
