"""Copy search: finds the crop or mirrored crop of a training photo that is most similar to an image.

A coarse search compares images with many windows of each photo at 8 x 8 pixels. Then the windows of the best
candidates are aligned to the image (Levenberg-Marquardt on the four sides of the window), and image gradients
are compared at 32 x 32 pixels. Gradients are compared because any two smooth images correlate in their low
frequencies.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdog.utils import errors

Array = jax.Array

COARSE, MIDDLE, FINE = 8, 16, 32  # px; image sizes of the search, the first alignment and the comparison
_MIDDLE_STEPS, _FINE_STEPS = 8, 4  # Levenberg-Marquardt steps at these sizes
# Fractions of the photo: largest step of a side, its largest distance outside the photo, smallest window.
_MAX_STEP, _MAX_OUTSIDE, _MIN_SIDE = 0.06, 0.3, 0.25
_HIGHEST = lax.Precision.HIGHEST


def _windows() -> np.ndarray:
    """[w, 4] top, left, bottom, right as fractions of a photo; pixels outside it are black."""
    windows = [(0.0, 0.0, 1.0, 1.0)]
    for side in (0.88, 0.76):
        starts = (0.0, (1 - side) / 2, 1 - side)
        windows += [(y, x, y + side, x + side) for y, x in itertools.product(starts, starts)]
    for low, high in ((0.0, 0.75), (0.125, 0.875), (0.25, 1.0)):
        windows += [(low, 0.0, high, 1.0), (0.0, low, 1.0, high)]
    windows += [(0.0, 0.0, 1.19, 0.88), (0.0, 0.0, 0.88, 1.19)]  # a corner with a black border
    windows += [
        (0.0, 0.0, 0.66, 0.88),
        (0.0, 0.0, 0.88, 0.66),
        (0.0, 0.18, 0.48, 0.82),
        (0.0, 0.18, 0.85, 0.82),
    ]
    return np.array(windows, np.float32)


WINDOWS = _windows()


class Match(NamedTuple):
    """The most similar part of a photo for each image."""

    photo: Array  # [n] int32, row of the photos
    window: Array  # [n, 4] float32: top, left, bottom, right as fractions of the photo; outside it is black
    mirrored: Array  # [n] bool: the image shows the window mirrored
    similarity: Array  # [n] float32 in [-1, 1], correlation of the image gradients


def find(
    image: Array,
    photos: Array,
    photo_id: Array | None = None,
    own: Array | None = None,
    candidates: int = 3,
    block: int = 32,
    batch: int = 64,
) -> Match:
    """The most similar photo for each image; the caller should jit it.

    Photos stay uint8. Memory is proportional to n x block x views. Searching the 62 views of 20,579 photos
    for 10,000 images costs 2.5e12 multiplications.

    Args:
      image: [n, h, w, 3] in 0..255, generated images.
      photos: [m, H, W, 3] in 0..255, training photos squashed to squares, as in MiFID, and crops to their
        boxes; 64 x 64 pixels are enough.
      photo_id: [m] int32, equal for rows that show the same photo; None: all differ.
      own: [n] int32, a photo_id to exclude for each image, or -1; None: none. The baseline of real photos is
        `find(photos[rows], photos, own=rows)`.
      candidates: number of photos to align per image.
      block: photos per step of the search.
      batch: images per step of the alignment.
    """
    if image.ndim != 4 or photos.ndim != 4 or image.shape[-1] != 3 or photos.shape[-1] != 3:
        raise errors.UserError(
            f"images of shape {image.shape} and photos of {photos.shape}; both must be [_, h, w, 3]"
        )
    image, photos, candidates = jnp.asarray(image), jnp.asarray(photos), min(candidates, len(photos))
    ids = jnp.arange(len(photos), dtype=jnp.int32) if photo_id is None else photo_id
    own = jnp.full(len(image), -1, jnp.int32) if own is None else own
    n, pad = len(image), -len(image) % batch

    def batches(x: Array) -> Array:
        return jnp.pad(x, ((0, pad),) + ((0, 0),) * (x.ndim - 1)).reshape(-1, batch, *x.shape[1:])

    query = lax.map(lambda images: descriptor(images, COARSE), batches(image))
    row, view = _search(query.reshape(n + pad, -1)[:n], photos, ids, own, candidates, block)

    def best_candidate(part: tuple[Array, Array, Array]) -> Match:
        images, rows, views = (jnp.repeat(part[0], candidates, axis=0), part[1].ravel(), part[2].ravel())
        mirrored = views % 2 == 1
        window, similarity = _align(images, photos[rows], jnp.asarray(WINDOWS)[views // 2], mirrored)
        similarity = jnp.where(rows >= 0, similarity, -1)  # row -1: there are fewer photos than candidates
        aligned = Match(rows, window, mirrored, similarity)
        best = jnp.argmax(similarity.reshape(-1, candidates), axis=1) + jnp.arange(batch) * candidates
        return jax.tree.map(lambda x: x[best], aligned)

    parts = lax.map(best_candidate, (batches(image), batches(row), batches(view)))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:n], parts)


def descriptor(image: Array, side: int) -> Array:
    """[n, h, w, 3] -> [n, side * side * 3] float32: area means, centered per channel, of norm 1."""
    return _standardize(render(image, _whole(len(image)), side))


def render(photo: Array, window: Array, side: int) -> Array:
    """Windows [b, 4] of photos [b, h, w, 3] -> [b, side, side, 3] float32, by area means; 0 outside."""
    rows = _overlap(window[:, 0], window[:, 2], photo.shape[1], side)
    columns = _overlap(window[:, 1], window[:, 3], photo.shape[2], side)
    half = jnp.einsum("bsh,bhwc->bswc", rows, photo.astype(jnp.float32), precision=_HIGHEST)
    return jnp.einsum("btw,bswc->bstc", columns, half, precision=_HIGHEST)


def _whole(n: int) -> Array:
    return jnp.broadcast_to(jnp.asarray(WINDOWS[0])[None, :], (n, 4))


def _overlap(low: Array, high: Array, n: int, side: int) -> Array:
    """[b, side, n]: the fraction of each output pixel between `low` and `high` [b] in each of n pixels."""
    step = (high - low)[:, None] * n / side
    start = (low[:, None] * n + jnp.arange(side)[None, :] * step)[:, :, None]
    edge = jnp.arange(n, dtype=jnp.float32)[None, None, :]
    overlap = jnp.minimum(start + step[:, :, None], edge + 1) - jnp.maximum(start, edge)
    return jnp.maximum(overlap, 0) / step[:, :, None]


def _standardize(image: Array) -> Array:
    """[..., s, s, 3] -> [..., s * s * 3], centered per channel, of norm 1; a constant image becomes 0."""
    image = image - jnp.mean(image, axis=(-3, -2), keepdims=True)
    return _normalize(image.reshape(*image.shape[:-3], -1))


def _normalize(rows: Array) -> Array:
    """Rows of values in 0..255, scaled to norm 1; the + 1 keeps nearly constant rows near 0."""
    return rows / jnp.sqrt(jnp.sum(jnp.square(rows), axis=-1, keepdims=True) + 1)


def _search(
    query: Array, photos: Array, ids: Array, own: Array, candidates: int, block: int
) -> tuple[Array, Array]:
    """Rows of the photos most similar to descriptors [n, d], and their views; [n, candidates] int32 each.

    View 2 i is window i, and view 2 i + 1 its mirror image. Missing candidates are -1.
    """
    n, m = len(query), len(photos)
    windows = jnp.asarray(WINDOWS)
    rows = _overlap(windows[:, 0], windows[:, 2], photos.shape[1], COARSE)
    columns = _overlap(windows[:, 1], windows[:, 3], photos.shape[2], COARSE)

    def merge(best: tuple[Array, Array, Array], part: tuple[Array, Array, Array]) -> tuple[tuple, None]:
        photo, index, identity = part
        half = jnp.einsum("vsh,bhwc->bvswc", rows, photo.astype(jnp.float32), precision=_HIGHEST)
        views = jnp.einsum("vtw,bvswc->bvstc", columns, half, precision=_HIGHEST)
        views = _standardize(jnp.stack([views, views[:, :, :, ::-1]], axis=2)).reshape(-1, query.shape[1])
        similar = jnp.matmul(query, views.T, precision=_HIGHEST).reshape(n, block, -1)
        view, similar = jnp.argmax(similar, axis=2).astype(jnp.int32), jnp.max(similar, axis=2)
        valid = (index < m)[None, :] & (identity[None, :] != own[:, None])
        similar = jnp.where(valid, similar, -jnp.inf)
        row = jnp.where(valid, index[None, :], -1)
        merged = tuple(jnp.concatenate(pair, axis=1) for pair in zip(best, (similar, row, view), strict=True))
        _, top = lax.top_k(merged[0], candidates)
        return tuple(jnp.take_along_axis(x, top, axis=1) for x in merged), None

    pad = -m % block
    parts = (
        jnp.pad(photos, ((0, pad), (0, 0), (0, 0), (0, 0))).reshape(-1, block, *photos.shape[1:]),
        jnp.arange(m + pad, dtype=jnp.int32).reshape(-1, block),
        jnp.pad(ids, (0, pad)).reshape(-1, block),
    )
    none = jnp.full((n, candidates), -1, jnp.int32)
    start = (jnp.full((n, candidates), -jnp.inf, jnp.float32), none, jnp.zeros_like(none))
    (_, row, view), _ = lax.scan(merge, start, parts)
    return row, view


# --- alignment -------------------------------------------------------------------------------------------


def _align(image: Array, photo: Array, window: Array, mirrored: Array) -> tuple[Array, Array]:
    """Aligns a window of a photo to each of b images: the window [b, 4] and its similarity [b]."""
    fine = render(image, _whole(len(image)), FINE)
    fine = jnp.where(mirrored[:, None, None, None], fine[:, :, ::-1], fine)
    middle = fine.reshape(-1, MIDDLE, FINE // MIDDLE, MIDDLE, FINE // MIDDLE, 3).mean((2, 4))
    window = _fit(_standardize(middle), photo, window, MIDDLE, _MIDDLE_STEPS)
    window = _fit(_standardize(fine), photo, window, FINE, _FINE_STEPS)
    return window, jnp.sum(_edges(render(photo, window, FINE)) * _edges(fine), axis=1)


def _edges(image: Array) -> Array:
    """[b, s, s, 3] -> [b, d]: central differences in x and y of each channel, of norm 1."""
    along = image[:, 1:-1, 2:] - image[:, 1:-1, :-2]
    across = image[:, 2:, 1:-1] - image[:, :-2, 1:-1]
    return _normalize(jnp.concatenate([along, across], axis=-1).reshape(len(image), -1))


def _fit(target: Array, photo: Array, window: Array, side: int, steps: int) -> Array:
    """Levenberg-Marquardt on the four sides of each window; rejects steps that lower the similarity."""

    def rendered(window: Array) -> Array:
        return _standardize(render(photo, window, side))

    eye = jnp.eye(4)

    def step(state: tuple[Array, Array, Array], _: None) -> tuple[tuple[Array, Array, Array], None]:
        window, damping, similarity = state
        jacobian = jax.vmap(
            lambda side: jax.jvp(rendered, (window,), (jnp.broadcast_to(side[None, :], window.shape),))[1]
        )(eye)
        hessian = jnp.einsum("ibd,jbd->bij", jacobian, jacobian, precision=_HIGHEST)
        gradient = jnp.einsum("ibd,bd->bi", jacobian, rendered(window) - target, precision=_HIGHEST)
        ridge = damping * (jnp.trace(hessian, axis1=1, axis2=2) + 1e-4)
        move = jnp.linalg.solve(hessian + ridge[:, None, None] * eye[None, :, :], gradient[:, :, None])[
            :, :, 0
        ]
        moved = jnp.clip(window - jnp.clip(move, -_MAX_STEP, _MAX_STEP), -_MAX_OUTSIDE, 1 + _MAX_OUTSIDE)
        now = jnp.sum(rendered(moved) * target, axis=1)
        large = (moved[:, 2:] - moved[:, :2] > _MIN_SIDE).all(axis=1)
        helps = (now > similarity) & large
        window = jnp.where(helps[:, None], moved, window)
        return (window, jnp.where(helps, damping / 3, damping * 6), jnp.where(helps, now, similarity)), None

    start = (window, jnp.full(len(window), 0.1, jnp.float32), jnp.sum(rendered(window) * target, axis=1))
    (window, _, _), _ = lax.scan(step, start, None, length=steps)
    return window


def matched_crop(
    photo: np.ndarray, window: tuple[float, float, float, float], mirrored: bool, side: int = 64
) -> np.ndarray:
    """The matched window of a photo [h, w, 3] uint8, mirrored if the image is; [side, side, 3] uint8."""
    part = render(jnp.asarray(photo)[None], jnp.asarray(window, jnp.float32)[None, :], side)[0]
    part = np.asarray(part)[:, :: -1 if mirrored else 1]
    return np.rint(np.clip(part, 0, 255)).astype(np.uint8)
