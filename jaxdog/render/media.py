"""Images of a finished run for its report: interpolation, truncation sheet, class sheet and timelapse."""

import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxdog import types
from jaxdog.render import animation, decoding, interpolation, sheets
from jaxdog.report import report
from jaxdog.systems import sampling
from jaxdog.training import writers
from jaxdog.utils import integers, plots, png

MAX_CLASSES = 10  # of the class sheet, evenly spaced
COLUMNS = 8  # of the sheets
TILES, KEYFRAMES, FRAMES = 4, 3, 24  # of the interpolation: loops beside each other, and of each loop
PAIRS = 24  # of images and nearest photos
FPS = 12
TIMELAPSE_FPS, HOLD = 6, 9  # HOLD: how many frames the last grid is shown


def write(
    folder: pathlib.Path,
    system: types.System,
    state: Any,
    class_names: Sequence[str],
    key: types.Key,
    method: str = "resample",
    exclude_classes: Sequence[int] = (),
) -> None:
    """Writes the files of `report.MEDIA` that the system allows into <folder>/media.

    About 250 small images are generated. Systems without a latent vector have no interpolation and no
    truncation sheet; a run with a single grid has no timelapse.

    Args:
      folder: the run's.
      system: does not sample with batch statistics, see `decoding.fixed_statistics`.
      state: its state on the local devices; `prepare` is applied.
      class_names: of all classes.
      key: for all randomness.
      method: of truncation in z.
      exclude_classes: indices of classes that are not shown.
    """
    media = folder / report.MEDIA
    state = state if system.prepare is None else jax.jit(system.prepare)(state, key)
    shown = [i for i in range(len(class_names)) if i not in exclude_classes]
    classes = [shown[i] for i in integers.evenly_spaced(len(shown), MAX_CLASSES)]
    label = np.resize(np.asarray(classes, np.int32), COLUMNS)
    png.write(media / report.CLASSES, sheets.class_sheet(system, state, class_names, key, classes, COLUMNS))
    if system.latent is not None:
        png.write(
            media / report.TRUNCATION, sheets.truncation_sheet(system, state, label, key, method=method)
        )
        tiles = [classes[i] for i in integers.evenly_spaced(len(classes), TILES)]
        animation.write(media / report.INTERPOLATION, loops(system, state, tiles, key), FPS)
    grids = sheets.timelapse(folder / writers.GRIDS)
    if grids is not None:
        held = np.concatenate([grids, grids[-1:].repeat(HOLD, axis=0)])
        animation.write(media / report.TIMELAPSE, held, TIMELAPSE_FPS)


def loops(system: types.System, state: Any, classes: Sequence[int], key: types.Key) -> np.ndarray:
    """Interpolation loops beside each other, one per class, [FRAMES, h, n * w, 3] uint8."""
    n = len(classes)
    z = decoding.latents(system, sampling.image_keys(key, n * KEYFRAMES)).reshape(n, KEYFRAMES, -1)
    rows = [
        interpolation.interpolate(system, state, z[i], np.full(KEYFRAMES, label, np.int32), key, FRAMES)
        for i, label in enumerate(classes)
    ]
    return np.stack([plots.grid(frame, n) for frame in np.stack(rows, axis=1)])
