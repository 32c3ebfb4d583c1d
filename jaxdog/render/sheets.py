"""Sheets of images: truncation, classes, nearest training photos; and the frames of a run's timelapse."""

import logging
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import PIL.Image
from jax.sharding import Mesh

from jaxdog import types
from jaxdog.data import photos
from jaxdog.evaluation import copies
from jaxdog.metrics import copy_search
from jaxdog.render import decoding
from jaxdog.systems import sampling
from jaxdog.utils import errors, files, integers, plots

log = logging.getLogger("jaxdog")

Z_TRUNCATIONS = (0.0, 2.0, 1.0, 0.5, 0.25)  # largest |z|; 0: no truncation
W_TRUNCATIONS = (1.0, 0.75, 0.5, 0.25, 0.0)
W_SAMPLES = 1000  # random latents whose mean is the center of w
GRID_COLUMNS = 10  # of the grids that training writes


def truncation_sheet(
    system: types.System,
    state: Any,
    label: np.ndarray,
    key: types.Key,
    truncations: Sequence[float] | None = None,
    method: str = "resample",
) -> np.ndarray:
    """The same latents at several truncations: a row per truncation, a column per label, [H, W, 3] uint8.

    In z a row shows the images of `sample.truncation` = its value, 0 for none. With method "resample" the
    coordinates within the bound are the same in all rows. In w (style-based generators) the value t
    multiplies the distance to the mean of w: mean + t (w - mean). There w is truncated already as the
    generator's own `truncation_psi` says, which t multiplies, and the mean is over random latents of the
    given classes.

    Args:
      system: a system with a latent vector.
      state: its state to sample from, after `prepare`.
      label: [n] int32, the class of each column.
      key: for latents and noise; column i is image i of this key.
      truncations: one value per row; None: `Z_TRUNCATIONS` or `W_TRUNCATIONS`.
      method: of truncation in z, see `sampling.latent`.
    """
    decoding.require_latents(system, "a truncation sheet")
    label = np.asarray(label, np.int32)
    keys = sampling.image_keys(key, len(label))
    if system.map_latents is None:
        values = Z_TRUNCATIONS if truncations is None else tuple(truncations)
        dim = decoding.latent_dim(system)
        z = [np.asarray(sampling.latent(keys, dim, x, method)) for x in values]
        rows = [decoding.decode(system, state, row, label, keys) for row in z]
        names = ["none" if x == 0.0 else f"{x:g}" for x in values]
    else:
        values = W_TRUNCATIONS if truncations is None else tuple(truncations)
        w, mean = _w_and_mean(system, state, label, key)
        rows = [decoding.synthesize(system, state, mean + np.float32(x) * (w - mean), keys) for x in values]
        names = [f"{x:g}" for x in values]
    return plots.labeled_rows(np.stack(rows), names)


def _w_and_mean(
    system: types.System, state: Any, label: np.ndarray, key: types.Key
) -> tuple[np.ndarray, np.ndarray]:
    """The w [n, layers, k] of images 0 .. n-1, and the mean of w [1, layers, k]."""
    keys = sampling.image_keys(key, max(W_SAMPLES, len(label)))
    z = decoding.latents(system, keys)
    w = decoding.map_latents(system, state, z, np.resize(label, len(z)), keys)
    return w[: len(label)], w.mean(0, keepdims=True)


def class_sheet(
    system: types.System,
    state: Any,
    class_names: Sequence[str],
    key: types.Key,
    classes: Sequence[int] | None = None,
    columns: int = 8,
) -> np.ndarray:
    """A row per class with its name, [H, W, 3] uint8; all rows have the same keys, and so the same latents.

    Args:
      system: any system.
      state: its state to sample from, after `prepare`.
      class_names: of all classes.
      key: column j has the latent of image j of this key.
      classes: indices of the classes to show, in order; None: all.
      columns: images per class.
    """
    shown = list(range(len(class_names))) if classes is None else [int(i) for i in classes]
    wrong = [i for i in shown if not 0 <= i < len(class_names)]
    if wrong or columns < 1 or not shown:
        raise errors.UserError(
            f"classes {wrong or shown} and {columns} columns: classes are 0 to "
            f"{len(class_names) - 1}, and there must be at least one class and one column"
        )
    label = np.repeat(np.asarray(shown, np.int32), columns)
    column = jnp.tile(jnp.arange(columns, dtype=jnp.int32), len(shown))
    images = decoding.sample(system, state, sampling.image_keys(key, column), label)
    rows = images.reshape(len(shown), columns, *images.shape[1:])
    return plots.labeled_rows(rows, [class_names[i] for i in shown])


def nearest_photos(
    image: np.ndarray, photo: np.ndarray, photo_id: np.ndarray, mesh: Mesh, count: int
) -> np.ndarray:
    """Images, each with the most similar part of a training photo, [count, 2, h, h, 3] uint8.

    See `copy_search`: crops and mirrored crops of all photos are compared by image gradients.

    Args:
      image: [n, h, h, 3] uint8, generated.
      photo: [m, s, s, 3] uint8, training photos squashed to squares, and crops to their boxes.
      photo_id: [m] int32, the photo of each row.
      mesh: the mesh of all devices.
      count: of the first images, fewer if there are fewer.
    """
    image = image[: copies.BATCH_SIZE]  # a batch of the size that the copy search has compiled
    match = copies.CopySearch(photo, photo_id, mesh)(image, np.full(len(image), -1, np.int32))
    image, match = image[:count], copy_search.Match(*(x[:count] for x in match))
    parts = [
        copy_search.matched_crop(photo[row], window, bool(mirrored), image.shape[1])
        for row, window, mirrored in zip(match.photo, match.window, match.mirrored, strict=True)
    ]
    return np.stack([image, np.stack(parts)], axis=1)


def pair_sheet(pairs: np.ndarray, columns: int = 4, gap: int = 4) -> np.ndarray:
    """Pairs [n, 2, h, w, 3] uint8 side by side, `columns` pairs in a row, white gaps between pairs."""
    beside = np.concatenate([pairs[:, 0], pairs[:, 1]], axis=2)
    n = len(beside)
    columns = min(columns, n)
    padded = np.pad(beside, ((0, -n % columns), (0, gap), (0, gap), (0, 0)), constant_values=255)
    sheet = plots.grid(padded, columns)
    return sheet[: sheet.shape[0] - gap, : sheet.shape[1] - gap]


def timelapse(
    folder: str | os.PathLike[str],
    name: str = "grid",
    max_frames: int = 32,
    rows: int = 3,
    columns: int = GRID_COLUMNS,
) -> np.ndarray | None:
    """The grids <name>_<step>.png of a run in order of step, as frames [n, h, w, 3] uint8.

    Smaller grids, of earlier stages of progressive growing, are enlarged by repeating pixels.

    Args:
      folder: the run's grids/.
      name: of the grids.
      max_frames: at most so many grids, evenly spaced, with the first and the last.
      rows: only the first rows of images are kept.
      columns: images in a row of the grids.

    Returns None if there are fewer than 2 such grids. Those that cannot be read, and links out of the folder
    of the run, are left out.
    """
    folder, pattern = pathlib.Path(folder), re.compile(re.escape(name) + r"_(\d{1,18})\.png")
    found = {
        int(m[1]): path
        for path in folder.glob("*.png")
        if (m := pattern.fullmatch(path.name)) and files.own_file(folder.parent, f"{folder.name}/{path.name}")
    }
    if len(found) < 2:
        return None
    steps = sorted(found)
    grids = []
    for i in integers.evenly_spaced(len(steps), max_frames):
        path = found[steps[i]]
        try:
            grids.append(PIL.Image.fromarray(photos.decode(files.read_limited(path, files.MAX_IMAGE_BYTES))))
        except (OSError, errors.UserError) as error:
            log.warning("%s is left out of the timelapse: %s", path, error)
    if len(grids) < 2:
        return None
    w, h = max(grid.size for grid in grids)
    resized = [np.asarray(grid.resize((w, h), PIL.Image.Resampling.NEAREST)) for grid in grids]
    return np.stack(resized)[:, : rows * (w // columns)]
