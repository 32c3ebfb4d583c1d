"""Are generated pictures copies of training photos? The forensic check, on all devices, with its evidence."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxdog import sharding
from jaxdog.data import photos
from jaxdog.metrics import copy_search, copy_test, features, mifid, neighbors

MOST = 2000  # generated pictures that are looked at, spread evenly over all
BASELINE = 500  # real photos that are looked for among the others
BATCH = 256  # pictures of one search; another number changes speed and memory only
FEW = 64  # fewer pictures than that are filled up to a multiple of this
PAIRS = 24  # pieces of evidence that are shown


class Examination(NamedTuple):
    """What was found."""

    verdict: copy_test.Verdict
    numbers: dict[str, float]  # shares and distances, under the names of `scores`
    pairs: np.ndarray  # [k, 2, s, s, 3] uint8: a picture, and the part of a photo that it resembles


def examine(
    image: np.ndarray,
    photo: np.ndarray,
    photo_id: np.ndarray,
    over: Mesh,
    fake: features.Features | None = None,
    real: features.Features | None = None,
) -> Examination:
    """Looks for generated pictures among training photos.

    Args:
      image: [n, h, w, 3] uint8, generated.
      photo: [m, s, s, 3] uint8, whole training photos, squashed, and crops of their boxes.
      photo_id: [m] int32, which photo each row was made of.
      over: the mesh of all devices.
      fake, real: features of the same pictures and of each whole photo, for distances and the rules of 2019.

    Raises ValueError when there are not at least 2 photos and 1 picture.
    """
    if len(image) < 1 or len(np.unique(photo_id)) < 2:
        raise ValueError(
            f"{len(image)} pictures cannot be looked for among {len(np.unique(photo_id))} photos; at least 1 "
            "picture and 2 photos are needed"
        )
    looked = _spread(len(image), MOST)
    search = Search(photo, photo_id, over)
    match = search(image[looked], np.full(len(looked), -1, np.int32))
    first = np.unique(photo_id, return_index=True)[1]  # of each photo its first row, the whole one
    rows = first[_spread(len(first), BASELINE)]
    baseline = np.asarray(search(photo[rows], photo_id[rows]).likeness)
    numbers, distances, public, private, unseen = {}, None, None, None, None
    kind = "published"
    if fake is not None and real is not None:
        numbers, distances = _distances(fake, real, over)
        near = numbers["memorization_distance"]
        public, private = (near, None) if real.about.network == "inception" else (None, near)
        kind, distances, unseen = real.about.kind, distances[looked], numbers["real_distance"]
    verdict = copy_test.verdict(match, baseline, distances, public, private, kind, unseen)
    verdict = verdict._replace(
        evidence=tuple(row._replace(image=int(looked[row.image])) for row in verdict.evidence)
    )
    numbers |= {"copied_share": verdict.copied_share, "copied_share_of_real": verdict.baseline_share}
    return Examination(verdict, numbers, _pairs(verdict, image, photo))


def facts(found: Examination, training: photos.Crops) -> dict[str, Any]:
    """An examination as JSON holds it, with the names of the photos."""
    verdict = found.verdict
    return {
        "verdict": "copies" if verdict.accused else "no evidence of copies",
        "reasons": list(verdict.reasons),
        "notes": list(verdict.notes),
        **found.numbers,
        "evidence": [
            {**row._asdict(), "photo": training.names[training.photo[row.photo]]} for row in verdict.evidence
        ],
    }


def sheet(found: Examination, columns: int = 4) -> np.ndarray:
    """The pairs side by side, [rows * s, columns * 2 s, 3] uint8; the rest is black."""
    k, _, s, _, c = found.pairs.shape
    beside = np.concatenate([found.pairs[:, 0], found.pairs[:, 1]], axis=2)
    padded = np.pad(beside, ((0, -k % columns), (0, 0), (0, 0), (0, 0)))
    return padded.reshape(-1, columns, s, 2 * s, c).swapaxes(1, 2).reshape(-1, columns * 2 * s, c)


class Search:
    """`copies.find` among the same photos, compiled once; pictures are dealt out over the devices."""

    def __init__(self, photo: np.ndarray, photo_id: np.ndarray, over: Mesh):
        everywhere = sharding.everywhere(over)
        self._photo, self._id = sharding.put((photo, photo_id.astype(np.int32)), everywhere)
        self._find = sharding.compiled(copy_search.find, over)

    def __call__(self, image: np.ndarray, own: np.ndarray) -> copy_search.Match:
        parts, size = [], min(BATCH, -(-len(image) // FEW) * FEW)
        for start in range(0, len(image), size):
            at = np.minimum(np.arange(start, start + size), len(image) - 1)
            parts.append(jax.tree.map(np.asarray, self._find(image[at], self._photo, self._id, own[at])))
        return jax.tree.map(lambda *x: np.concatenate(x)[: len(image)], *parts)


def _distances(
    fake: features.Features, real: features.Features, over: Mesh
) -> tuple[dict[str, float], np.ndarray]:
    """Mean distances both ways and among real photos, the authentic share, and each picture's distance."""
    layer = features.NETWORKS[real.about.network].layer
    everywhere = sharding.everywhere(over)
    sides = sharding.put((fake.found[layer], real.found[layer]), everywhere)

    def measure(fake: jax.Array, real: jax.Array) -> tuple[jax.Array, ...]:
        own = mifid.memorization(fake, real)
        back = neighbors.nearest(real, fake, "cosine")
        mean = jnp.sum(jnp.where(own.counts, own.distance, 0)) / jnp.sum(own.counts)
        unseen = neighbors.nearest(real, real, "cosine", exclude_self=True)
        authentic = jnp.mean(copy_test.authentic(fake, real))
        return own.distance, mean, jnp.mean(back.distance), jnp.mean(unseen.distance), authentic

    own, mean, back, unseen, authentic = jax.jit(measure, out_shardings=everywhere)(*sides)
    own = np.asarray(own)
    numbers = {
        "memorization_distance": float(mean),
        "reversed_distance": float(back),
        "real_distance": float(unseen),
        "authentic_share": float(authentic),
    }
    return numbers, own


def _pairs(verdict: copy_test.Verdict, image: np.ndarray, photo: np.ndarray) -> np.ndarray:
    side = image.shape[1]
    found = [
        (image[row.image], copy_search.part_of(photo[row.photo], row.window, row.mirrored, side))
        for row in verdict.evidence[:PAIRS]
    ]
    return np.asarray(found, np.uint8)


def _spread(n: int, most: int) -> np.ndarray:
    """Up to `most` row numbers, spread evenly over n."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int))
