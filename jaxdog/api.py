"""`jaxdog.train` and `jaxdog.score`: the command line's train and score for Python programs and notebooks."""

import dataclasses
import logging
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxdog import commands, cost, runs
from jaxdog.advice import own_photos
from jaxdog.config import build, library
from jaxdog.evaluation import score_files, score_inputs, score_options
from jaxdog.generators import generator
from jaxdog.utils import errors

log = logging.getLogger("jaxdog")


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A run on disk and how its training ended."""

    folder: pathlib.Path
    step: int  # the last one
    reason: str  # why it is the last: "steps" | "hours" (the limits of config.train) | "signal" (Ctrl-C)
    scores: Mapping[str, Any]  # of the submitted images, as in scores.jsonl; {} if training was stopped

    def generator(self, step: runs.Which = "best") -> "generator.Generator":
        """The trained generator, see `Generator.from_run`.

        Args:
          step: "best" | "latest" | the step of a checkpoint.
        """
        return generator.Generator.from_run(self.folder, step=step)


def train(
    config: str | os.PathLike[str] | library.Config | None = None,
    data: str | os.PathLike[str] | None = None,
    resolution: int | None = None,
    workdir: str | os.PathLike[str] | None = None,
    callbacks: Iterable[object] = (),
    overrides: Mapping[str, Any] | Sequence[str] | None = None,
) -> TrainedRun:
    """Trains a generator, or resumes its training: the same code as `jaxdog train`.

        run = jaxdog.train(data="photos/")
        run = jaxdog.train("biggan", data="photos/", resolution=64, overrides={"train.max_hours": 2.0})
        images = run.generator().sample(16)

    Called again with the same arguments, it resumes from the last checkpoint; a finished run is only sampled
    and scored again. Log lines go to the logger "jaxdog"; `logging.basicConfig(level="INFO")` shows them.
    Ctrl-C, or the stop button of a notebook, ends training after a checkpoint; a second one interrupts.

    Args:
      config: a name that `jaxdog configs` lists, the path of a config file, or a config. "biggan:test" is the
        smoke test of "biggan": tiny networks on drawn dogs. None: chosen for the photos in `data`
        and this device; which one, and why, is printed.
      data: a folder of photos, or of one folder of photos per class; None: the photos that the config names.
      resolution: height and width of the images in pixels; None: as in the config, or chosen with it.
      workdir: the folder of the run, created if missing; None: runs/<name of the config>.
      callbacks: objects that are called with log lines, scores, images and checkpoints, see
        `jaxdog.training.callbacks.Callback`. An exception of theirs ends training after a checkpoint.
      overrides: changed fields of the config: {"train.steps": 100}, or ["train.steps=100"] as on the command
        line.

    Returns the run.

    Raises:
      errors.UserError: an argument, a field or a file is invalid, or training cannot continue; the message
        says what to do. jaxdog.utils.errors.UserError is a ValueError.
    """
    overrides = overrides or ()
    if config is None:
        if data is None:
            raise errors.UserError("which experiment? Give a config, photos (data), or both")
        config, why = own_photos.choose(data, resolution, overrides)
        log.info("%s", why) if log.isEnabledFor(logging.INFO) else print(why)
    else:
        if isinstance(config, library.Config):
            config = library.change(config, overrides, data, resolution)
        else:
            config = library.load(config, overrides=overrides, data=data, resolution=resolution)
        if resolution is not None:
            cost.check_networks(build.check(config))  # before photos are read
    folder = pathlib.Path("runs", str(config.name)) if workdir is None else pathlib.Path(workdir).expanduser()
    result, scores = commands.train(config, folder, callbacks)
    return TrainedRun(folder, result.step, result.reason, scores)


def score(real: Any, fake: Any, n: int | None = None, **options: Any) -> dict[str, Any]:
    """Scores of generated images against real images: FID, MiFID and others, as `jaxdog score` computes them.

        scores = jaxdog.score("photos/", images)          # images: [n, 64, 64, 3] uint8
        scores["mifid"], scores["samples"], scores["warnings"]

    Either side is one of

    - a path: a folder of images (or of one folder per class), a .zip, an .npy or .npz array, a file of
      features (`save_real`) or of another program's statistics, or "tfds" for Stanford Dogs;
    - an array of NumPy or JAX, [n, h, w, 3] or [n, 3, h, w]: uint8, or floats in [-1, 1]. Floats that do not
      reach below -0.5 are refused, as they may be in [0, 1];
    - a list of PIL images or of arrays [h, w, 3]; real ones may differ in size;
    - a generator, or another iterable, of batches [b, h, w, 3] like the arrays above.

    Real photos are squashed to the size of the generated images, which must be square unless `size` is set.

    Args:
      real: the real images.
      fake: the generated images.
      n: number of generated images to score: evenly spaced ones of a path or an array, else the first; None:
        all. A generator that never ends needs it.
      **options: fields of `jaxdog.evaluation.score_options.Options`, for example metrics=("mifid", "prdc"),
        weights="random", size=64, cache_dir="cache".

    Returns the scores by name (float, or None if undefined), "per_class" and "copies" if requested,
    "warnings", with MiFID "leaderboard" (the place in 2019, or why there is none, as "text"), and what they
    depend on: "samples", "real", "weights_kind", "weights_sha256", "size", ...

    Raises:
      errors.UserError: a side cannot be read, the sides cannot be compared, or an option is unknown.
    """
    checked = score_options.with_outputs(score_options.from_keywords(options), real, fake)
    fake_images = score_inputs.open_images(fake, n, "fake")
    real_images = score_inputs.open_images(real, None, "real")
    return score_files.score(real_images, fake_images, checked)
