"""`Generator`: a trained model to sample from, to load and to publish."""

import copy
import os
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import PIL.ImageOps
from jax import core

from jaxdog import runs, types
from jaxdog.config import schema
from jaxdog.data import photos
from jaxdog.evaluation import batching, score_files, score_inputs, score_options
from jaxdog.generators import class_names as names
from jaxdog.generators import hub, loading, model_card, pretrained, sampler
from jaxdog.render import decoding, interpolation, projection, sheets
from jaxdog.systems import sampling
from jaxdog.training import train_step
from jaxdog.utils import errors, integers, plots

Classes = names.Classes
Output = Literal["numpy", "pil", "jax"]
OUTPUTS = ("numpy", "pil", "jax")
SAMPLE_SHEET = 64  # images of samples.png
MANY = 500  # images from which a progress bar is shown


class Generator:
    """A trained generator.

        g = jaxdog.Generator.from_run("runs/biggan", step="best")
        g.sample(16, classes="beagle", seed=0)                # uint8 [16, 64, 64, 3]

    Image i of a seed is a function of the seed, i and its class only, for any number of images. In float
    arithmetic it may also depend on the type of device and on `batch_size`, in the last bits.

    Use `from_run` or `from_pretrained`; the constructor is for systems of your own.

    Args:
      system: its `prepare` is not called; it must not sample with batch statistics.
      state: the state to sample from; arrays that sampling does not read may be zeros.
      class_names: one for each class, as in the training set.
      config: the experiment, which sets how images are sampled.
      resolution: height and width of the images in pixels.
      step: training steps of the state.
      phase: index of the phase of training that the state is of.
      scores: of the state, a line of scores.jsonl.
      notes: how this generator differs from its run, for the model card.

    Attributes:
      classes: the class names without WordNet's ids: "beagle" for "n02088364-beagle".
      class_names, config, resolution, system, state, step, scores: as above.
      batch_size: images that are generated at once.
    """

    def __init__(
        self,
        system: types.System,
        state: Any,
        class_names: Sequence[str],
        config: schema.Experiment,
        resolution: int,
        step: int = 0,
        phase: int = 0,
        scores: dict[str, Any] | None = None,
        notes: Sequence[str] = (),
    ):
        self.config, self.resolution, self.step = config, resolution, step
        self.class_names, self.classes = tuple(class_names), names.short(class_names)
        self.scores, self.notes = scores or {}, tuple(notes)
        self.batch_size = decoding.BATCH_SIZE
        self._sampler = sampler.Sampler(system, state, config, len(self.class_names), phase)

    @property
    def system(self) -> types.System:
        """The system."""
        return self._sampler.system

    @property
    def state(self) -> Any:
        """The state to sample from, with zeros for arrays that sampling does not read."""
        return self._sampler.state()

    @property
    def latent_dim(self) -> int | None:
        """Size of the latent vector; None if the model has none."""
        return None if self.system.latent is None else decoding.latent_dim(self.system)

    def __repr__(self) -> str:
        size = f"{self.resolution}x{self.resolution}"
        return f"<Generator {self.config.name}: {size}, {len(self.classes)} classes, step {self.step}>"

    # -------------------------------------------------------------- loading

    @classmethod
    def from_run(cls, folder: str | os.PathLike[str], step: runs.Which = "best") -> "Generator":
        """The generator of a run, sampled as for its submission: with the best option of its sweep.

        Standing statistics are computed now. Batch statistics are replaced by standing statistics over 1,000
        images, so that an image does not depend on others.

        Args:
          folder: the folder of the run; neither photos nor caches are needed.
          step: "best" (by config.eval.best), "latest", or the step of a checkpoint.

        Raises MissingFileError if there is no run, or no such checkpoint.
        """
        return cls(*loading.from_run(pathlib.Path(folder).expanduser(), step))

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str]) -> "Generator":
        """An exported generator: a folder, the name of one that comes with jaxdog, or "hf://user/name".

        Nothing that is loaded is executed.

        Raises UserError if there is none, or it is damaged or from a later version.
        """
        return cls(*loading.from_pretrained(os.fspath(name)))

    # -------------------------------------------------------------- sampling

    def sample(
        self,
        n: int,
        classes: Classes = None,
        seed: int = 0,
        truncation: float | None = None,
        output: Output = "numpy",
    ) -> Any:
        """n images.

        Args:
          n: their number, at least 1.
          classes: a name or an index; or a sequence of them, which is repeated until there are n; None: all
            classes, as config.sample says, by default in turn.
          seed: 0 to 2^64 - 1.
          truncation: overrides the config's. In z: the largest |z| (Brock et al. 2018), 0 for no truncation.
            For style-based generators: truncation_psi, 1 for no truncation, 0 for the mean image. None: the
            config's.
          output: "numpy": uint8 [n, h, w, 3]; "pil": a list of PIL images; "jax": float32 [n, h, w, 3] in
            [-1, 1].

        Raises UserError for an unknown class, or an argument out of range.
        """
        _check_output(output, OUTPUTS)
        label = self._labels(n, classes, seed)
        batches = self._sampler.batches(label, sampler.seed_key(seed), truncation, self.batch_size)
        if output == "jax":
            return jnp.concatenate(list(batches))[:n]
        images = batching.collect(map(_to_uint8, batches), n, "images" if n >= MANY else "")
        return _as_output(images, output)

    def latents(self, n: int, seed: int = 0, truncation: float | None = None) -> jax.Array:
        """The latents of images 0 to n - 1 of a seed, float32 [n, latent_dim]; truncated in z as in `sample`.

        Raises UserError if the model has no latent vector.
        """
        decoding.require_latents(self.system, "a latent")
        n, key = integers.check(n, "n", 1), sampler.seed_key(seed)
        return self._sampler.latents(n, key, truncation, self.batch_size)

    def decode(self, z: Any, classes: Any = None, seed: int = 0) -> jax.Array:
        """Images float32 [b, h, w, 3] in [-1, 1] of latents z [b, latent_dim].

        A pure function of z, which may be traced: inside jax.jit, jax.grad and jax.vmap. With the latents,
        classes and seed of `sample`, these are its images.

        Args:
          z: latents.
          classes: as in `sample`; may be a traced int32 array [b].
          seed: of the noise that some generators add.

        Raises UserError if the model has no latent vector, or z has another shape.
        """
        decoding.require_latents(self.system, "decode")
        z, dim = jnp.asarray(z, jnp.float32), decoding.latent_dim(self.system)
        if z.ndim != 2 or z.shape[1] != dim or not len(z):
            raise errors.UserError(f"z has shape {list(z.shape)}, and must be [b, {dim}] with b at least 1")
        traced = isinstance(classes, core.Tracer)
        label = classes if traced else jnp.asarray(self._labels(len(z), classes, seed))
        index = jnp.arange(len(z), dtype=jnp.int32)
        return self._sampler.images(z, label, sampler.seed_key(seed), index)

    # -------------------------------------------------------------- images to look at

    def interpolate(
        self,
        seeds: Sequence[int],
        classes: Classes = None,
        frames: int = 60,
        loop: bool = True,
        truncation: float | None = None,
        space: Literal["auto", "z", "w"] = "auto",
        output: Literal["numpy", "pil"] = "numpy",
    ) -> Any:
        """Images along a path through image 0 of each seed: spherical in z, linear in w where there is one.

        Args:
          seeds: of the keyframes.
          classes: of the keyframes, as in `sample`; None: those of image 0 of each seed.
          frames: number of images.
          loop: the path leads back to the first keyframe, and no frame is repeated.
          truncation: as in `sample`.
          space: "auto": w for style-based generators, else z.
          output: "numpy": uint8 [frames, h, w, 3]; "pil": a list of PIL images.

        Raises UserError if the model has no latent vector, or an argument is out of range.
        """
        decoding.require_latents(self.system, "interpolation")
        seeds = list(np.atleast_1d(np.asarray(seeds, object)))
        if len(seeds) < 2:
            raise errors.UserError(f"seeds is {seeds}; interpolation needs at least two, such as [0, 1, 2]")
        if integers.check(frames, "frames", 1) < len(seeds):
            raise errors.UserError(f"frames is {frames}, and must be at least the {len(seeds)} seeds")
        count = 1 if classes is None else len(np.atleast_1d(classes))
        if count not in (1, len(seeds)):
            raise errors.UserError(
                f"there are {count} classes and {len(seeds)} seeds; give one class, or one for each seed"
            )
        _check_output(output, OUTPUTS[:2])
        if classes is None:
            label = np.concatenate([self._labels(1, None, seed) for seed in seeds])
        else:
            label = self._labels(len(seeds), classes, seeds[0])
        z = np.concatenate([self.latents(1, seed, truncation) for seed in seeds])
        noise = sampling.image_keys(sampler.seed_key(seeds[0]), 1)[0]
        system = self._sampler.truncated(truncation)
        images = interpolation.interpolate(system, self.state, z, label, noise, frames, loop, space)
        return _as_output(images, output)

    def project(
        self,
        image: str | os.PathLike[str] | PIL.Image.Image | np.ndarray,
        steps: int = 500,
        classes: str | int | None = None,
        seed: int = 0,
    ) -> projection.Projection:
        """The latent whose image is closest to the given image, found by gradient descent.

        Args:
          image: a file, a PIL image, or [h, w, 3] uint8; other sizes are cropped to the central square and
            resized.
          steps: of gradient descent.
          classes: the class of the image, a name or an index; None: the class that fits best.
          seed: of the random latents and the noise.

        Returns the latent (`z`, or `w` of style-based generators), the class, the image [h, w, 3] uint8
        before postprocessing, the target as it was cropped, and the losses of all steps. `decode` with `seed`
        makes the image from z.
        """
        decoding.require_latents(self.system, "projection")
        system, state = self._sampler.differentiable(), self.state
        target = _square(image, decoding.image_shape(system, state)[0])
        label = None if classes is None else names.index(classes, self.class_names, self.classes)
        noise = sampling.image_keys(sampler.seed_key(seed), 1)[0]
        return projection.project(system, state, target, noise, label, len(self.classes), steps)

    def grid(
        self,
        n: int = SAMPLE_SHEET,
        columns: int = 8,
        classes: Classes = None,
        seed: int = 0,
        truncation: float | None = None,
    ) -> np.ndarray:
        """The images of `sample` in rows of `columns`, uint8 [rows * h, columns * w, 3]."""
        return plots.grid(self.sample(n, classes, seed, truncation), columns)

    def class_sheet(self, columns: int = 8, classes: Classes = None, seed: int = 0) -> np.ndarray:
        """A row per class with its name, uint8 [H, W, 3]; all rows have the same latents.

        Args:
          columns: images per class.
          classes: names or indices; None: all.
          seed: of the latents.
        """
        rows = None if classes is None else names.indices(classes, self.class_names, self.classes)
        return sheets.class_sheet(
            self.system, self.state, self.classes, sampler.seed_key(seed), rows, columns
        )

    def truncation_sheet(
        self,
        columns: int = 8,
        classes: Classes = None,
        seed: int = 0,
        truncations: Sequence[float] | None = None,
    ) -> np.ndarray:
        """A row per truncation with its value, uint8 [H, W, 3]; see `render.sheets.truncation_sheet`."""
        label, method = self._labels(columns, classes, seed), self.config.sample.method
        return sheets.truncation_sheet(
            self.system, self.state, label, sampler.seed_key(seed), truncations, method
        )

    # -------------------------------------------------------------- scores and export

    def score(self, photos: Any, n: int = 10_000, seed: int = 0, **options: Any) -> dict[str, Any]:
        """Scores of n images against real photos: FID, MiFID and others; see `jaxdog.score`.

        Args:
          photos: real images: a folder, an array, ...
          n: number of generated images.
          seed: of the generated images.
          **options: fields of `jaxdog.evaluation.score_options.Options`, such as metrics and weights.
        """
        checked = score_options.with_outputs(score_options.from_keywords(options), photos, None)
        real = score_inputs.open_images(photos, None, "real")
        return score_files.score(real, self.sample(n, seed=seed), checked)

    def save_pretrained(
        self, folder: str | os.PathLike[str], dtype: Literal["float32", "float16"] = "float32"
    ) -> pathlib.Path:
        """Writes model.safetensors, config.json, README.md (the model card) and samples.png.

        The folder has no paths of this machine and does not depend on the run.

        Args:
          folder: created if missing; the files of an earlier export in it are replaced.
          dtype: of the stored arrays; float16 halves the size, and changes images slightly.

        Returns the folder. Raises UserError for memorizers, and for a folder that has such files already.
        """
        folder = pathlib.Path(folder).expanduser()
        self._save(folder, dtype, folder.name or "generator")
        return folder

    def push_to_hub(
        self, repo_id: str, dtype: Literal["float32", "float16"] = "float32", private: bool = False
    ) -> str:
        """Publishes the files of `save_pretrained` as the model "user/name" on the Hugging Face Hub.

        Args:
          repo_id: "user/name"; created if missing.
          dtype: as in `save_pretrained`.
          private: whether a new repository is private.

        Returns the address for `from_pretrained`. Raises MissingExtraError without the extra `hub`.
        """
        with tempfile.TemporaryDirectory() as temporary:
            folder = pathlib.Path(temporary)
            self._save(folder, dtype, hub.SCHEME + repo_id)
            return hub.upload(folder, repo_id, private)

    def _save(self, folder: pathlib.Path, dtype: str, address: str) -> None:
        pretrained.check(self.config, dtype)
        phase, shapes = self._sampler.phase, self._sampler.shapes
        arrays = pretrained.rounded(self._sampler.arrays, dtype)
        model = pretrained.Pretrained(
            self.config, self.class_names, self.step, phase, self.scores, self.notes, shapes, arrays
        )
        exported = copy.copy(self)
        exported._sampler = self._sampler.with_arrays(arrays)
        pretrained.save(folder, model, dtype, model_card.render(model, address, dtype), exported.grid())

    def _labels(self, n: int, classes: Classes, seed: int) -> np.ndarray:
        """Labels [n] int32 of images 0 to n - 1."""
        n = integers.check(n, "n", 1)
        if classes is not None:
            return np.resize(np.asarray(names.indices(classes, self.class_names, self.classes), np.int32), n)
        sample, total = self.config.sample, len(self.class_names)
        with jax.ensure_compile_time_eval():  # also while `decode` is traced
            key = jax.random.fold_in(sampler.seed_key(seed), train_step.LABELS)
            return np.asarray(sampling.labels(n, total, sample.labels, key, sample.exclude_classes), np.int32)


_to_uint8 = jax.jit(sampling.to_uint8)


def _check_output(output: str, choices: tuple[str, ...]) -> None:
    if output not in choices:
        raise errors.UserError(f"output is {output!r}; choices: {', '.join(map(repr, choices))}")


def _as_output(images: np.ndarray, output: str) -> Any:
    return [PIL.Image.fromarray(image) for image in images] if output == "pil" else images


def _square(image: Any, side: int) -> np.ndarray:
    """An image as [side, side, 3] uint8: the central square, resized."""
    try:
        if isinstance(image, str | os.PathLike):
            image = photos.decode(pathlib.Path(image).expanduser().read_bytes(), upright=True)
        elif isinstance(image, PIL.Image.Image):
            image = photos.pixels(image, upright=True)
    except OSError as error:
        raise errors.UserError(f"the image {image} cannot be read: {error}") from error
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise errors.UserError(f"the image is {list(image.shape)} {image.dtype}, and must be [h, w, 3] uint8")
    if image.shape[:2] == (side, side):
        return image
    fitted = PIL.ImageOps.fit(PIL.Image.fromarray(image), (side, side), PIL.Image.Resampling.LANCZOS)
    return np.asarray(fitted)
