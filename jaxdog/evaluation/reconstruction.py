"""How well an autoencoder gives pictures back: their distance to the very pictures that went in."""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdog import sharding, types
from jaxdog.data import batches
from jaxdog.evaluation import evaluate, metric_suite
from jaxdog.metrics import features
from jaxdog.systems import sampling

SHOWN = 60  # pictures of the sheet


class Reconstruction(NamedTuple):
    """What was found."""

    scores: dict[str, float | None]  # "reconstruction_" and a Frechet distance's true name, or squared_error
    pairs: np.ndarray  # [2k, s, s, 3] uint8: a picture, what came back of it, the next picture, ...


def reconstruct(
    extractor: evaluate.Extractor,
    drawn: types.System,
    state: Any,
    key: types.Key,
    data: batches.Data,
    n: int,
) -> Reconstruction:
    """Sends up to n training pictures through an autoencoder and compares both ends.

    Args:
      extractor: the feature network.
      drawn: a system with `reconstruct`.
      state: its state.
      key: of which pictures, and of what happens to them before they are learnt.
      data: the training pictures, on the host.
      n: pictures; the distances need at least 2.

    The Frechet distances are those between the pictures as the encoder saw them and their reconstructions;
    the squared error is the mean over pixels in [-1, 1]. The networks were trained on these pictures.
    """
    if drawn.reconstruct is None:
        raise ValueError("this system has no way from pictures to pictures")
    count = min(n, len(data.image))
    seen, back = (
        np.concatenate(side)[:count]
        for side in zip(*_blocks(extractor, drawn.reconstruct, state, key, data, count), strict=True)
    )
    about = extractor.about(f"{seen.shape[1]}x{seen.shape[2]}", "none", "training pictures")
    real, fake = (features.Features(extractor.of_images(side), about) for side in (seen, back))
    found = metric_suite.Comparer(real, extractor.over).scores(fake).scores
    frechet = features.NETWORKS[about.network].frechet.items()
    names = [features.called(base, about.kind, layer) for layer, base in frechet]
    error = float(np.mean(np.square((seen.astype(np.float32) - back) / 127.5)))
    scores = {**{name: found[name] for name in names}, "squared_error": error}
    pairs = np.stack([seen[:SHOWN], back[:SHOWN]], 1).reshape(-1, *seen.shape[1:])
    return Reconstruction({f"reconstruction_{name}": x for name, x in scores.items()}, pairs)


def _blocks(
    extractor: evaluate.Extractor,
    way: Any,
    state: Any,
    key: types.Key,
    data: batches.Data,
    count: int,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pictures and what came back of them, [b, s, s, 3] uint8 both, until there are `count`."""
    everywhere, b = sharding.everywhere(extractor.over), extractor.batch_size
    order_key, way_key = jax.random.split(key)

    @partial(jax.jit, out_shardings=everywhere)
    def make(state: Any, data: batches.Data, i: jax.Array) -> tuple[jax.Array, jax.Array]:
        batch = batches.batch(data, order_key, i, b)
        image, back = way(state, batch, jax.random.fold_in(way_key, i))
        return sampling.to_uint8(image), sampling.to_uint8(back)

    data = sharding.put(data, everywhere)
    for i in range(-(-count // b)):
        image, back = make(state, data, jnp.int32(i))
        yield np.asarray(image), np.asarray(back)
