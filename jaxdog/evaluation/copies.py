"""Copy detection: tests whether generated images are copies of training photos, and finds these photos.

`copy_search` finds the most similar part of a training photo for each image, and `copy_test` decides whether
there are more copies than among real photos. This module runs both on all devices and prepares the results
for the report.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxdog import sharding
from jaxdog.data import crop_dataset
from jaxdog.evaluation import batching
from jaxdog.metrics import copy_search, copy_test, features, mifid, neighbors
from jaxdog.utils import errors, integers

MAX_IMAGES = 2000  # maximum number of generated images to search for, evenly spaced
BASELINE_PHOTOS = 500  # number of real photos to search for among the others
BATCH_SIZE = 256  # images per search; changes speed and memory, not results
# Fewer images than a batch are padded to a multiple of this, so that few sizes are compiled.
PAD_MULTIPLE = 64
MAX_PAIRS = 24  # maximum number of pairs in the report


class CopyReport(NamedTuple):
    """The result of `find_copies`."""

    result: copy_test.CopyTestResult
    values: dict[str, float]  # fractions and distances by name, as in `summary`
    pairs: np.ndarray  # [k, 2, s, s, 3] uint8: an image and the matched part of a photo


def find_copies(
    image: np.ndarray,
    photo: np.ndarray,
    photo_id: np.ndarray,
    mesh: Mesh,
    fake: features.Features | None = None,
    real: features.Features | None = None,
) -> CopyReport:
    """Searches for generated images among training photos and tests whether they are copies.

    Args:
      image: [n, h, w, 3] uint8, generated.
      photo: [m, s, s, 3] uint8, whole training photos squashed to squares, and crops to their boxes.
      photo_id: [m] int32, the photo of each row.
      mesh: the mesh of all devices.
      fake, real: features of the generated images and of the whole photos; None: omit the memorization
        distances and the thresholds on them.

    Raises UserError if there are fewer than 2 photos or no image.
    """
    if len(image) < 1 or len(np.unique(photo_id)) < 2:
        raise errors.UserError(
            f"a copy search needs at least 1 image and 2 photos, not {len(image)} images and "
            f"{len(np.unique(photo_id))} photos"
        )
    searched = integers.evenly_spaced(len(image), MAX_IMAGES)
    search = CopySearch(photo, photo_id, mesh)
    match = search(image[searched], np.full(len(searched), -1, np.int32))
    first_rows = np.unique(photo_id, return_index=True)[1]  # the whole photo comes first
    rows = first_rows[integers.evenly_spaced(len(first_rows), BASELINE_PHOTOS)]
    baseline = np.asarray(search(photo[rows], photo_id[rows]).similarity)
    values, distances, evidence = {}, None, copy_test.DistanceEvidence()
    if fake is not None and real is not None:
        values, distances = distances_of(fake, real, mesh)
        distances = distances[searched]
        board = features.NETWORKS[real.spec.network].board
        if board and features.judges_distances(real.spec.kind):
            evidence = copy_test.DistanceEvidence(
                **{board: values["memorization_distance"]},
                weights_kind=real.spec.kind,
                size=real.spec.size,
                real_distance=values["real_distance"],
            )
    result = copy_test.copy_test(match, baseline, distances, evidence)
    result = result._replace(
        evidence=tuple(row._replace(image=int(searched[row.image])) for row in result.evidence)
    )
    values |= {"copied_share": result.copied_share, "copied_share_of_real": result.baseline_share}
    return CopyReport(result, values, _pairs(result, image, photo))


def summary(report: CopyReport, training: crop_dataset.CropDataset) -> dict[str, Any]:
    """The report as a JSON object; `training` has the names of the photos."""
    result = report.result
    return {
        "verdict": "copies" if result.is_copy else "no evidence of copies",
        "reasons": list(result.reasons),
        "notes": list(result.notes),
        **report.values,
        "evidence": [
            {**row._asdict(), "photo": training.names[training.photo[row.photo]]} for row in result.evidence
        ],
    }


def earlier(records: Sequence[dict[str, Any]], same: Mapping[str, Any]) -> dict[str, Any] | None:
    """The newest summary among records of scores that agree with `same`: of the same images; None without."""
    found = [x.get("copies") for x in records if all(x.get(k) == v for k, v in same.items())]
    whole = [copies for copies in found if isinstance(copies, dict) and "verdict" in copies]
    return whole[-1] if whole else None


def pair_grid(report: CopyReport, columns: int = 4) -> np.ndarray:
    """The pairs side by side, [rows * s, columns * 2 s, 3] uint8; unused cells are black."""
    k, _, s, _, c = report.pairs.shape
    beside = np.concatenate([report.pairs[:, 0], report.pairs[:, 1]], axis=2)
    padded = np.pad(beside, ((0, -k % columns), (0, 0), (0, 0), (0, 0)))
    return padded.reshape(-1, columns, s, 2 * s, c).swapaxes(1, 2).reshape(-1, columns * 2 * s, c)


class CopySearch:
    """`copy_search.find` among fixed photos, which stay on the devices; compiled once."""

    def __init__(self, photo: np.ndarray, photo_id: np.ndarray, mesh: Mesh):
        replicated = sharding.replicated(mesh)
        self._photo, self._id = sharding.put((photo, photo_id.astype(np.int32)), replicated)
        self._find = sharding.jit_replicated(copy_search.find, mesh)

    def __call__(self, image: np.ndarray, own: np.ndarray) -> copy_search.Match:
        """Matches of images [n, h, w, 3] uint8; `own` [n] int32: see `copy_search.find`."""
        size = min(BATCH_SIZE, -(-len(image) // PAD_MULTIPLE) * PAD_MULTIPLE)
        return batching.map_batches(
            lambda images, own: self._find(images, self._photo, self._id, own), (image, own), size
        )


def distances_of(
    fake: features.Features, real: features.Features, mesh: Mesh
) -> tuple[dict[str, float], np.ndarray]:
    """Mean memorization distances by name, and that of each generated image [n].

    "reversed_distance" is the mean over real images of the minimum over generated images, "real_distance" the
    mean over real images of the minimum over the other real images (leave-one-out).
    """
    layer = features.NETWORKS[real.spec.network].layer
    replicated = sharding.replicated(mesh)
    sides = sharding.put((fake.layers[layer], real.layers[layer]), replicated)

    def measure(fake: jax.Array, real: jax.Array) -> tuple[jax.Array, ...]:
        own = mifid.memorization(fake, real)
        back = neighbors.nearest(real, fake, "cosine")
        among_real = neighbors.nearest(real, real, "cosine", exclude_self=True)
        authentic = jnp.mean(copy_test.authentic(fake, real))
        return (
            own.distance,
            mifid.mean_distance(own),
            jnp.mean(back.distance),
            jnp.mean(among_real.distance),
            authentic,
        )

    own, mean, back, among_real, authentic = jax.jit(measure, out_shardings=replicated)(*sides)
    values = {
        "memorization_distance": float(mean),
        "reversed_distance": float(back),
        "real_distance": float(among_real),
        "authentic_share": float(authentic),
    }
    return values, np.asarray(own)


def _pairs(result: copy_test.CopyTestResult, image: np.ndarray, photo: np.ndarray) -> np.ndarray:
    side = image.shape[1]
    pairs = [
        (image[row.image], copy_search.matched_crop(photo[row.photo], row.window, row.mirrored, side))
        for row in result.evidence[:MAX_PAIRS]
    ]
    return np.asarray(pairs, np.uint8)
