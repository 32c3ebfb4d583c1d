"""Scores of generated pictures: sampling, quantising, resizing, features and distances, all on the devices.

The real side is computed once and kept on disk. Scores are named for what they are: `features.called`.
"""

import functools
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from jax.sharding import Mesh

from jaxdog import sharding, types
from jaxdog.data import photos
from jaxdog.evaluation import metric_suite
from jaxdog.metrics import features
from jaxdog.metrics.backbones import inception_weights
from jaxdog.systems import sampling

HELD_OUT = ("mifid", "kid")  # what is measured against photos that were not trained on

FEW = 8  # fewer pictures than a batch are filled up to a multiple of this, so that few sizes are compiled
ON_CPU = 8  # pictures that a feature network looks at together on CPUs: more fall out of their caches


class Extractor:
    """Pictures to features, on all devices.

    Args:
      network: a row of features.NETWORKS.
      made_of: its weights.
      over: the mesh of all devices.
      batch_size: pictures in flight; rounded up to a multiple of the devices.
    """

    def __init__(self, network: str, made_of: inception_weights.Weights, over: Mesh, batch_size: int = 128):
        self.network, self.weights = network, made_of
        self.batch_size = sharding.rounded(batch_size, over)
        together = min(batch_size, ON_CPU) if jax.default_backend() == "cpu" else batch_size
        self._together = sharding.rounded(together, over)
        # Results are gathered to every device, so that each host can read them whole.
        self.over, self._everywhere = over, sharding.everywhere(over)
        self._rows = partial(sharding.put, sharding=sharding.by_rows(over))
        self._params = sharding.put(made_of.params, self._everywhere)
        self._features = sharding.compiled(features.NETWORKS[network].features, over)

    def about(self, size: str, resampler: str, source: str) -> features.About:
        """How features of pictures of this size ("64x64": height, width) are made here."""
        made = self.weights
        return features.About(self.network, made.kind, made.sha256, size, resampler, source)

    def of_images(self, images: np.ndarray, what: str = "features") -> dict[str, np.ndarray]:
        """Features of host pictures [n, h, w, 3] uint8: layer -> [n, d]."""

        def parts() -> Iterator[dict[str, jax.Array]]:
            size = min(self._together, sharding.rounded(-(-len(images) // FEW) * FEW, self.over))
            for rows in blocks(len(images), size):
                yield self._features(self._params, self._rows(np.asarray(images[rows])))

        return self._gather(parts(), len(images), what)

    def of_system(
        self, drawn: types.System, state: Any, key: types.Key, label: np.ndarray, batch_size: int = 0
    ) -> dict[str, np.ndarray]:
        """Features of fresh pictures, one for each breed of `label` [n]; see `generate`."""
        size = batch_size or self.batch_size
        make = painter(drawn, dealt(size, self.over))

        def parts() -> Iterator[dict[str, jax.Array]]:
            for index, breed in draws(label, size, self.over):
                yield from self._of_drawn(make(state, key, index, breed))

        state = prepared(drawn, state, key)
        return self._gather(parts(), len(label), "evaluation")

    def _of_drawn(self, pictures: jax.Array) -> Iterator[dict[str, jax.Array]]:
        """Features of pictures [n, h, w, 3] on the devices, of as many at a time as is fast."""
        n, few = pictures.shape[0], self._together
        if n <= few or n % few or jax.process_count() > 1:
            yield self._features(self._params, pictures)
            return
        host = np.asarray(pictures)
        for start in range(0, n, few):
            yield self._features(self._params, self._rows(host[start : start + few]))

    def _gather(self, parts: Iterator[dict[str, jax.Array]], n: int, what: str) -> dict[str, np.ndarray]:
        wanted = (*features.kept(self.network), features.LOGITS)
        collected: dict[str, list[np.ndarray]] = {}
        with tqdm.tqdm(total=n, desc=what, unit="img", leave=False, disable=hidden()) as bar:
            for part in parts:
                for name, x in part.items():
                    if name in wanted:
                        collected.setdefault(name, []).append(np.asarray(x))
                bar.update(min(next(iter(part.values())).shape[0], n - bar.n))
        return {name: np.concatenate(xs)[:n] for name, xs in collected.items()}


def real_side(
    extractor: Extractor,
    images: Callable[[], photos.Crops],
    about: features.About,
    data_key: str,
    cache_dir: pathlib.Path,
) -> features.Features:
    """Features of whole real photos, from the cache or made now.

    Args:
      extractor: the network.
      images: () -> the photos at the generated size; asked for only if the cache lacks their features.
      about: how these features are made.
      data_key: names those pictures and how they were resized.
      cache_dir: where features are kept.
    """
    path = features.cache_path(cache_dir, data_key, about)
    found = features.cached(path)
    if not sharding.agreed(found is not None):
        whole = images()
        made = extractor.of_images(whole.image, "real features")
        made.pop(features.LOGITS, None)
        found = features.Features(made, about, whole.label, whole.breeds)
        features.keep(path, found)  # each process: hosts may have disks of their own
    assert found is not None
    return found._replace(file=path)


def _rows(x: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    return None if x is None else x[rows]


class Evaluator:
    """Scores pictures against one real side with one feature network.

    Args:
      extractor: the network.
      real: the real side, made by the same network.
      over: the mesh of all devices.
      eps: memorization distances below this divide the FID; 0.1 on the public leaderboard.
      held_out: bool [n], photos of the real side that were not trained on, and that pictures are compared
        with besides, by the metrics of `HELD_OUT`; None: all were.
    """

    def __init__(
        self,
        extractor: Extractor,
        real: features.Features,
        over: Mesh,
        eps: float | None = None,
        held_out: np.ndarray | None = None,
    ):
        self.extractor, self.real = extractor, real
        self.comparer = metric_suite.Comparer(real, over, eps)
        self.unseen = None
        if held_out is not None:
            found = {layer: x[held_out] for layer, x in real.found.items()}
            few = features.Features(found, real.about, _rows(real.label, held_out), real.breeds)
            self.unseen = metric_suite.Comparer(few, over, eps)

    def features_of(self, images: np.ndarray, label: np.ndarray) -> features.Features:
        """Features of pictures on the host, [n, h, w, 3] uint8, of breeds `label` [n]."""
        return self._generated(self.extractor.of_images(images), label)

    def score_images(
        self, images: np.ndarray, label: np.ndarray, metrics: Sequence[str] = ("mifid",)
    ) -> dict[str, Any]:
        """Scores of pictures on the host, [n, h, w, 3] uint8, of breeds `label` [n]."""
        return self.score(self.features_of(images, label), metrics)

    def score_system(
        self,
        drawn: types.System,
        state: Any,
        key: types.Key,
        label: np.ndarray,
        metrics: Sequence[str] = ("mifid",),
        batch_size: int = 0,
    ) -> dict[str, Any]:
        """Scores of fresh pictures, one for each breed of `label` [n]; see `generate`."""
        begun = time.monotonic()
        found = self.extractor.of_system(drawn, state, key, label, batch_size)
        found = self.score(self._generated(found, label), metrics)
        return {**found, "evaluation_seconds": time.monotonic() - begun}

    def score(self, fake: features.Features, metrics: Sequence[str] = ("mifid",)) -> dict[str, Any]:
        """Scores of features, and how they were made, as a line of scores.jsonl holds them."""
        about, result = self.real.about, self.comparer.scores(fake, metrics)
        unseen = {} if self.unseen is None else self.unseen.scores(fake, HELD_OUT).scores
        return {
            **result.scores,
            **{f"held_out_{name}": x for name, x in unseen.items()},
            **({"per_class": result.per_class} if result.per_class else {}),
            "warnings": result.warnings,
            "samples": fake.count,
            "real": self.real.count,
            "network": about.network,
            "weights_kind": about.kind,
            "weights_sha256": about.sha256,
            "resampler": about.resampler,
        }

    def _generated(self, found: dict[str, np.ndarray], label: np.ndarray) -> features.Features:
        about = self.real.about._replace(resampler="none", source="generated pictures")
        return features.Features(found, about, label, self.real.breeds)


def blocks(n: int, size: int) -> Iterator[np.ndarray]:
    """Row numbers 0 .. n-1 in blocks of one size; the last block is filled up with its own last row."""
    for start in range(0, n, size):
        yield np.minimum(np.arange(start, start + size, dtype=np.int32), n - 1)


def draws(label: np.ndarray, size: int, over: Mesh) -> Iterator[tuple[jax.Array, jax.Array]]:
    """(numbers [size], breeds [size]) of the pictures to draw, in blocks of one size, on the devices.

    The last block is filled up with further pictures, whose breeds begin again: a batch shares statistics in
    some systems, and pictures that stand in it twice would change them. Blocks that cannot be shared out
    evenly are computed whole on every device.
    """
    rows_sharding = dealt(size, over)
    for start in range(0, len(label), size):
        index = np.arange(start, start + size, dtype=np.int32)
        yield sharding.put((index, label[index % len(label)]), rows_sharding)


def dealt(size: int, over: Mesh) -> jax.sharding.Sharding:
    """Where a block of `size` pictures is: dealt out, or, where that is not even, whole on every device."""
    return sharding.everywhere(over) if size % over.size else sharding.by_rows(over)


@functools.cache
def painter(drawn: types.System, where: jax.sharding.Sharding) -> Callable[..., jax.Array]:
    """(state, key, numbers [n], breeds [n]) -> [n, h, w, 3] uint8, jitted once for each system."""

    @partial(jax.jit, out_shardings=where)
    def paint(state: Any, key: types.Key, index: jax.Array, label: jax.Array) -> jax.Array:
        return sampling.to_uint8(drawn.sample(state, sampling.image_keys(key, index), label))

    return paint


def prepared(drawn: types.System, state: Any, key: types.Key) -> Any:
    """The state to sample from."""
    return state if drawn.prepare is None else jax.jit(drawn.prepare)(state, key)


def alike(drawn: types.System, state: Any, key: types.Key, classes: int, over: Mesh) -> tuple[int, ...]:
    """The breeds whose pictures hardly differ, see sampling.LEAST_SPREAD; none if that holds for all."""
    spreads = np.asarray(_spreads(drawn, classes, over, prepared(drawn, state, key), key))
    found = np.flatnonzero(spreads < sampling.LEAST_SPREAD)
    return tuple(found.tolist()) if len(found) < classes else ()


@partial(jax.jit, static_argnums=(0, 1, 2))  # compiled once for each system
def _spreads(drawn: types.System, classes: int, over: Mesh, state: Any, key: types.Key) -> jax.Array:
    """sampling.spread [classes] of a few pictures of each breed.

    Each is a batch of its own: where a system samples with a batch's own statistics, they are one picture's.
    """
    keys = sampling.image_keys(key, classes * sampling.PICTURES).reshape(classes, sampling.PICTURES)

    def one(key: types.Key, label: jax.Array) -> jax.Array:
        return drawn.sample(state, key[None], label[None])[0]

    def of_breed(given: tuple[jax.Array, jax.Array]) -> jax.Array:
        pictures = jax.vmap(one, in_axes=(0, None))(*given)
        return sampling.spread(pictures[None])[0]

    found = jax.lax.map(of_breed, (keys, jnp.arange(classes, dtype=jnp.int32)))
    return jax.lax.with_sharding_constraint(found, sharding.everywhere(over))


def generate(
    drawn: types.System, state: Any, key: types.Key, label: np.ndarray, over: Mesh, batch_size: int
) -> np.ndarray:
    """Pictures [n, h, w, 3] uint8, one for each breed of `label` [n]; picture i is made from (key, i).

    Where a system samples with a batch's own statistics, the picture depends on `batch_size` too.
    """
    n = len(label)
    state = prepared(drawn, state, key)

    make, made = painter(drawn, sharding.everywhere(over)), []
    with tqdm.tqdm(total=n, desc="pictures", unit="img", leave=False, disable=hidden()) as bar:
        for index, breed in draws(label, batch_size, over):
            made.append(np.asarray(make(state, key, index, breed)))
            bar.update(min(batch_size, n - bar.n))
    return np.concatenate(made)[:n]


def hidden() -> bool | None:
    """tqdm's `disable`: only process 0 shows bars, and only on a terminal."""
    return None if jax.process_index() == 0 else True
