"""Which part of which photo does a picture show? A search over crops and mirror images of every photo.

Coarsely first, at 8 x 8 pixels in many windows of each photo; then the window of the best few is moved until
it fits (Gauss-Newton on its four edges), and the edges of both pictures are compared at 32 x 32. Edges,
because any two smooth pictures agree in their large shapes.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Array = jax.Array

COARSE, MIDDLE, FINE = 8, 16, 32  # sides at which pictures are searched, moved and compared
_FIRST_STEPS, _LAST_STEPS = 8, 4  # of Gauss-Newton at MIDDLE and at FINE
_STEP, _REACH, _SMALLEST = 0.06, 0.3, 0.25  # largest step, way out of the photo, smallest side of a window
_HIGHEST = lax.Precision.HIGHEST


def _windows() -> np.ndarray:
    """[w, 4] top, left, bottom, right as fractions of a photo; past 1 is black."""
    found = [(0.0, 0.0, 1.0, 1.0)]
    for side in (0.88, 0.76):
        starts = (0.0, (1 - side) / 2, 1 - side)
        found += [(y, x, y + side, x + side) for y, x in itertools.product(starts, starts)]
    for low, high in ((0.0, 0.75), (0.125, 0.875), (0.25, 1.0)):
        found += [(low, 0.0, high, 1.0), (0.0, low, 1.0, high)]
    found += [(0.0, 0.0, 1.19, 0.88), (0.0, 0.0, 0.88, 1.19)]  # corners with a black strip
    found += [
        (0.0, 0.0, 0.66, 0.88),
        (0.0, 0.0, 0.88, 0.66),
        (0.0, 0.18, 0.48, 0.82),
        (0.0, 0.18, 0.85, 0.82),
    ]
    return np.array(found, np.float32)


WINDOWS = _windows()


class Match(NamedTuple):
    """The photo that each picture resembles most, and which part of it."""

    photo: Array  # [n] int32, row of the photos
    window: Array  # [n, 4] float32: top, left, bottom, right as fractions of the photo; outside it is black
    mirrored: Array  # [n] bool: the picture shows the window mirrored
    likeness: Array  # [n] float32, correlation of the edges, at most 1


def find(
    image: Array,
    photos: Array,
    photo_id: Array | None = None,
    own: Array | None = None,
    candidates: int = 3,
    block: int = 32,
    batch: int = 64,
) -> Match:
    """Pictures [n, h, w, 3] and photos [m, H, W, 3], in 0..255 -> for each picture the photo most like it.

    Photos are whole ones squashed, as the metric takes them, and, if boxes are small, their crops too. Pure:
    jit it outside. Photos stay uint8 and memory is n x block x views; the 62 views of 20,579 photos cost
    2.5e12 multiplications for 10,000 pictures.

    Args:
      image: generated pictures, of any size.
      photos: training photos; 64 x 64 is enough.
      photo_id: [m] int32, the same for rows made of the same photo; default: all different.
      own: [n] int32, the photo_id that is left out for each picture: the baseline is
        `find(photos[rows], photos, own=rows)`.
      candidates: photos per picture that are looked at closely.
      block: photos at a time in the search.
      batch: pictures at a time in the closer look.
    """
    if image.ndim != 4 or photos.ndim != 4 or image.shape[-1] != 3 or photos.shape[-1] != 3:
        raise ValueError(
            f"pictures of shape {image.shape} and photos of {photos.shape}; both must be [_, h, w, 3]"
        )
    image, photos, candidates = jnp.asarray(image), jnp.asarray(photos), min(candidates, len(photos))
    ids = jnp.arange(len(photos), dtype=jnp.int32) if photo_id is None else photo_id
    own = jnp.full(len(image), -1, jnp.int32) if own is None else own
    n, pad = len(image), -len(image) % batch

    def batches(x: Array) -> Array:
        return jnp.pad(x, ((0, pad),) + ((0, 0),) * (x.ndim - 1)).reshape(-1, batch, *x.shape[1:])

    query = lax.map(lambda pictures: descriptor(pictures, COARSE), batches(image))
    row, view = _search(query.reshape(n + pad, -1)[:n], photos, ids, own, candidates, block)

    def closer(part: tuple[Array, Array, Array]) -> Match:
        pictures, rows, views = (jnp.repeat(part[0], candidates, axis=0), part[1].ravel(), part[2].ravel())
        mirrored = views % 2 == 1
        window, likeness = _align(pictures, photos[rows], jnp.asarray(WINDOWS)[views // 2], mirrored)
        likeness = jnp.where(rows >= 0, likeness, -1)  # -1: fewer photos than candidates
        found = Match(rows, window, mirrored, likeness)
        best = jnp.argmax(likeness.reshape(-1, candidates), axis=1) + jnp.arange(batch) * candidates
        return jax.tree.map(lambda x: x[best], found)

    parts = lax.map(closer, (batches(image), batches(row), batches(view)))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:n], parts)


def descriptor(image: Array, side: int) -> Array:
    """[n, h, w, 3] -> [n, side * side * 3] float32: area means, each colour about its own mean, length 1."""
    return _unit(render(image, _whole(len(image)), side))


def render(photo: Array, window: Array, side: int) -> Array:
    """[b, h, w, 3] and windows [b, 4] -> [b, side, side, 3] float32, area means of the windows; 0 outside."""
    rows = _overlap(window[:, 0], window[:, 2], photo.shape[1], side)
    columns = _overlap(window[:, 1], window[:, 3], photo.shape[2], side)
    half = jnp.einsum("bsh,bhwc->bswc", rows, photo.astype(jnp.float32), precision=_HIGHEST)
    return jnp.einsum("btw,bswc->bstc", columns, half, precision=_HIGHEST)


def _whole(n: int) -> Array:
    return jnp.broadcast_to(jnp.asarray(WINDOWS[0])[None, :], (n, 4))


def _overlap(low: Array, high: Array, n: int, side: int) -> Array:
    """[b] fractions -> [b, side, n]: the share of each output pixel that each of n input pixels covers."""
    step = (high - low)[:, None] * n / side
    start = (low[:, None] * n + jnp.arange(side)[None, :] * step)[:, :, None]
    edge = jnp.arange(n, dtype=jnp.float32)[None, None, :]
    shared = jnp.minimum(start + step[:, :, None], edge + 1) - jnp.maximum(start, edge)
    return jnp.maximum(shared, 0) / step[:, :, None]


def _unit(image: Array) -> Array:
    """[..., s, s, 3] -> [..., s * s * 3], each colour about its mean, length 1; a flat picture becomes 0."""
    image = image - jnp.mean(image, axis=(-3, -2), keepdims=True)
    return _normal(image.reshape(*image.shape[:-3], -1))


def _normal(rows: Array) -> Array:
    """Rows of grey levels 0..255 -> length 1; shorter only if they hold just a few levels in all."""
    return rows / jnp.sqrt(jnp.sum(jnp.square(rows), axis=-1, keepdims=True) + 1)


def _search(
    query: Array, photos: Array, ids: Array, own: Array, candidates: int, block: int
) -> tuple[Array, Array]:
    """Descriptors [n, d] -> [n, candidates] int32: the most similar photos (-1: none), and which views.

    View 2 i is window i, view 2 i + 1 the same mirrored.
    """
    n, m = len(query), len(photos)
    windows = jnp.asarray(WINDOWS)
    rows = _overlap(windows[:, 0], windows[:, 2], photos.shape[1], COARSE)
    columns = _overlap(windows[:, 1], windows[:, 3], photos.shape[2], COARSE)

    def better(best: tuple[Array, Array, Array], part: tuple[Array, Array, Array]) -> tuple[tuple, None]:
        picture, index, identity = part
        half = jnp.einsum("vsh,bhwc->bvswc", rows, picture.astype(jnp.float32), precision=_HIGHEST)
        seen = jnp.einsum("vtw,bvswc->bvstc", columns, half, precision=_HIGHEST)
        seen = _unit(jnp.stack([seen, seen[:, :, :, ::-1]], axis=2)).reshape(-1, query.shape[1])
        like = jnp.matmul(query, seen.T, precision=_HIGHEST).reshape(n, block, -1)
        view, like = jnp.argmax(like, axis=2).astype(jnp.int32), jnp.max(like, axis=2)
        counts = (index < m)[None, :] & (identity[None, :] != own[:, None])
        like = jnp.where(counts, like, -jnp.inf)
        row = jnp.where(counts, index[None, :], -1)
        merged = tuple(jnp.concatenate(pair, axis=1) for pair in zip(best, (like, row, view), strict=True))
        _, top = lax.top_k(merged[0], candidates)
        return tuple(jnp.take_along_axis(x, top, axis=1) for x in merged), None

    pad = -m % block
    parts = (
        jnp.pad(photos, ((0, pad), (0, 0), (0, 0), (0, 0))).reshape(-1, block, *photos.shape[1:]),
        jnp.arange(m + pad, dtype=jnp.int32).reshape(-1, block),
        jnp.pad(ids, (0, pad)).reshape(-1, block),
    )
    nothing = jnp.full((n, candidates), -1, jnp.int32)
    start = (jnp.full((n, candidates), -jnp.inf, jnp.float32), nothing, jnp.zeros_like(nothing))
    (_, row, view), _ = lax.scan(better, start, parts)
    return row, view


# ------------------------------------------------------------------------------------- the closer look


def _align(image: Array, photo: Array, window: Array, mirrored: Array) -> tuple[Array, Array]:
    """Pictures [b, ...] and one photo and first window each -> the window that fits best, likeness [b]."""
    fine = render(image, _whole(len(image)), FINE)
    fine = jnp.where(mirrored[:, None, None, None], fine[:, :, ::-1], fine)
    middle = fine.reshape(-1, MIDDLE, FINE // MIDDLE, MIDDLE, FINE // MIDDLE, 3).mean((2, 4))
    window = _fit(_unit(middle), photo, window, MIDDLE, _FIRST_STEPS)
    window = _fit(_unit(fine), photo, window, FINE, _LAST_STEPS)
    return window, jnp.sum(_edges(render(photo, window, FINE)) * _edges(fine), axis=1)


def _edges(image: Array) -> Array:
    """[b, s, s, 3] -> [b, d]: differences along and across of each colour, length 1; none become 0."""
    along = image[:, 1:-1, 2:] - image[:, 1:-1, :-2]
    across = image[:, 2:, 1:-1] - image[:, :-2, 1:-1]
    return _normal(jnp.concatenate([along, across], axis=-1).reshape(len(image), -1))


def _fit(target: Array, photo: Array, window: Array, side: int, steps: int) -> Array:
    """Levenberg-Marquardt on the four edges of each window; a step that does not help is not taken."""

    def look(window: Array) -> Array:
        return _unit(render(photo, window, side))

    eye = jnp.eye(4)

    def step(state: tuple[Array, Array, Array], _: None) -> tuple[tuple[Array, Array, Array], None]:
        window, damping, similarity = state
        slope = jax.vmap(
            lambda edge: jax.jvp(look, (window,), (jnp.broadcast_to(edge[None, :], window.shape),))[1]
        )(eye)
        curve = jnp.einsum("ibd,jbd->bij", slope, slope, precision=_HIGHEST)
        down = jnp.einsum("ibd,bd->bi", slope, look(window) - target, precision=_HIGHEST)
        ridge = damping * (jnp.trace(curve, axis1=1, axis2=2) + 1e-4)
        move = jnp.linalg.solve(curve + ridge[:, None, None] * eye[None, :, :], down[:, :, None])[:, :, 0]
        moved = jnp.clip(window - jnp.clip(move, -_STEP, _STEP), -_REACH, 1 + _REACH)
        now = jnp.sum(look(moved) * target, axis=1)
        large = (moved[:, 2:] - moved[:, :2] > _SMALLEST).all(axis=1)
        helps = (now > similarity) & large
        window = jnp.where(helps[:, None], moved, window)
        return (window, jnp.where(helps, damping / 3, damping * 6), jnp.where(helps, now, similarity)), None

    start = (window, jnp.full(len(window), 0.1, jnp.float32), jnp.sum(look(window) * target, axis=1))
    (window, _, _), _ = lax.scan(step, start, None, length=steps)
    return window


def part_of(
    photo: np.ndarray, window: tuple[float, float, float, float], mirrored: bool, side: int = 64
) -> np.ndarray:
    """What a match saw in a photo uint8 [h, w, 3], as uint8 [side, side, 3], to show beside the picture."""
    part = render(jnp.asarray(photo)[None], jnp.asarray(window, jnp.float32)[None, :], side)[0]
    part = np.asarray(part)[:, :: -1 if mirrored else 1]
    return np.rint(np.clip(part, 0, 255)).astype(np.uint8)
