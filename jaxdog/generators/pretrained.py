"""The format of exported generators: a folder that holds everything that sampling needs, and no code.

    model.safetensors  the arrays that sampling reads; their names are paths in the state
    config.json        the fields of `FIELDS`; `config` is a resolved config without paths of the machine
    README.md          the model card
    samples.png        a grid of samples

All files are written before any gets its name. config.json has the sha256 of model.safetensors, so that a
folder of mixed or damaged files is not loaded.
"""

import contextlib
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import PIL.Image
import safetensors
import safetensors.numpy

from jaxdog.config import build, saved, schema
from jaxdog.data import listing
from jaxdog.evaluation import sampling_state
from jaxdog.memorizers import baselines
from jaxdog.training import train_step
from jaxdog.utils import errors, files, untrusted, version

FORMAT_VERSION = 1
WEIGHTS, CONFIG, CARD, SAMPLES = FILES = ("model.safetensors", "config.json", "README.md", "samples.png")
METADATA = {"format": "jaxdog"}  # in model.safetensors
DTYPES = ("float32", "float16")  # of the stored arrays; sampling is in float32
MAX_HEADER = 16 << 20  # bytes of model.safetensors besides its arrays: their names and shapes
FIELDS = {  # of config.json: name -> type
    "format_version": int,
    "jaxdog_version": str,  # that wrote the folder
    "class_names": list,
    "step": int,  # of the checkpoint
    "phase": int,  # index of the phase that the checkpoint is of
    "dtype": str,
    "sha256": str,  # of model.safetensors
    "scores": dict,  # of the checkpoint; {} if it has none
    "notes": list,  # how the export differs from the run
    "config": dict,
}


class PretrainedError(errors.UserError):
    """A folder does not hold a complete exported generator, or the generator cannot be exported."""


class Pretrained(NamedTuple):
    """A generator, as it is written and read."""

    config: schema.Experiment
    class_names: tuple[str, ...]
    step: int
    phase: int
    scores: dict[str, Any]
    notes: tuple[str, ...]
    shapes: Any  # shapes and dtypes of the arrays of the whole state
    arrays: dict[str, np.ndarray]  # those that sampling reads, by name


def expected(config: schema.Experiment, classes: int, phase: int) -> tuple[Any, frozenset[str]]:
    """Shapes of the state of a config's phase, and the names of the arrays that sampling reads."""
    side = config.data.stored_resolution
    chosen = build.phases(config, classes)[phase]
    shapes = train_step.init_shapes(chosen, (side, side, 3))
    return shapes, sampling_state.read_names(chosen.system, shapes)


# ------------------------------------------------------------------ writing


def check(config: schema.Experiment, dtype: str) -> None:
    """Raises PretrainedError if samples are training images, or for an unknown dtype."""
    if build.cheat(config):
        raise PretrainedError(f"{config.name} cannot be exported. {baselines.WARNING}")
    if dtype not in DTYPES:
        raise PretrainedError(f"dtype is {dtype!r}; choices: {', '.join(map(repr, DTYPES))}")


def check_folder(folder: pathlib.Path) -> None:
    """Raises UserError by `listing.check_path`, or if files that no export has written are in the way."""
    listing.check_path(folder)
    if _is_run(folder):
        raise PretrainedError(f"{folder} is the folder of a run, whose {CONFIG} must stay: name another one")
    present = [name for name in FILES if (folder / name).exists()]
    if present and not _is_export(folder):
        raise PretrainedError(
            f"{folder} has {', '.join(present)}, which no export has written, and which would be replaced: "
            "name a new folder"
        )


def _is_export(folder: pathlib.Path) -> bool:
    """Whether `save` has written the folder, if only in part: model.safetensors is its first file."""
    try:
        if (folder / CONFIG).exists():
            return "format_version" in untrusted.read_json(folder / CONFIG, "")
        with safetensors.safe_open(folder / WEIGHTS, "np") as file:
            return file.metadata() == METADATA
    except Exception:  # of safetensors, for files that are damaged or missing
        return False


def save(folder: pathlib.Path, model: Pretrained, dtype: str, card: str, samples: np.ndarray) -> None:
    """Writes a generator that `check` accepts.

    Args:
      folder: created if missing.
      model: the generator.
      dtype: of the stored arrays, one of DTYPES.
      card: the text of README.md.
      samples: [h, w, 3] uint8.

    An export that is there is as it was until all new files are on the disk.

    Raises PretrainedError if an array is not finite, or float16 cannot hold it, or by `check_folder`.
    """
    check_folder(folder)
    arrays = {name: _stored(name, np.asarray(x), dtype) for name, x in model.arrays.items()}
    with contextlib.ExitStack() as stack:  # at its end, the files get their names in the order of FILES
        paths = {name: stack.enter_context(files.atomic_path(folder / name)) for name in FILES[::-1]}
        safetensors.numpy.save_file(arrays, paths[WEIGHTS], metadata=METADATA)
        fields = {
            "format_version": FORMAT_VERSION,
            "jaxdog_version": version.version(),
            "class_names": model.class_names,
            "step": model.step,
            "phase": model.phase,
            "dtype": dtype,
            "sha256": _sha256(paths[WEIGHTS]),
            "scores": model.scores,
            "notes": model.notes,
            "config": saved.to_dict(without_paths(model.config)),
        }
        PIL.Image.fromarray(samples).save(paths[SAMPLES], "PNG", optimize=True)
        paths[CARD].write_text(card, encoding="utf-8", newline="")
        paths[CONFIG].write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")
        for path in paths.values():
            files.sync(path)


def without_paths(config: schema.Experiment) -> schema.Experiment:
    """The config without the paths of this machine: of photos, tables, weights, caches and other runs."""
    replaced = {
        "path": "",
        "archives": "",
        "init_from": "",
        "cache_dir": schema.Data._field_defaults["cache_dir"],
    }
    return saved.with_paths(config, lambda name, x: replaced.get(name, os.path.basename(x.rstrip("/\\"))))


def rounded(arrays: Mapping[str, Any], dtype: str) -> dict[str, np.ndarray]:
    """The arrays, of which floats have the values that are stored as `dtype`; raises PretrainedError."""
    return {name: _stored(name, np.asarray(x), dtype).astype(x.dtype) for name, x in arrays.items()}


def _stored(name: str, x: np.ndarray, dtype: str) -> np.ndarray:
    if x.dtype != np.float32:
        return np.array(x, order="C")
    with np.errstate(over="ignore"):
        stored = np.array(x, dtype, order="C")
    if not np.isfinite(stored).all():
        largest = np.abs(x).max()
        reason = (
            f"{dtype} cannot hold {largest:g}; use float32" if np.isfinite(largest) else "it is not finite"
        )
        raise PretrainedError(f"the array {name} cannot be exported: {reason}")
    return stored


# ------------------------------------------------------------------ reading


def load(folder: pathlib.Path) -> Pretrained:
    """Reads a generator; nothing in the folder is executed.

    Raises PretrainedError if a file is missing, damaged, of a later format or for other networks.
    """
    fields = _read_config(folder)
    config = _check_config(folder, fields)
    class_names = tuple(fields["class_names"])
    try:
        shapes, names = expected(config, len(class_names), fields["phase"])
    except Exception as error:  # a config of impossible networks makes JAX raise almost anything
        raise PretrainedError(f"{folder / CONFIG} cannot be used: {untrusted.one_line(error)}") from error
    return Pretrained(
        config,
        class_names,
        fields["step"],
        fields["phase"],
        fields["scores"],
        tuple(fields["notes"]),
        shapes,
        _read_arrays(folder, fields["sha256"], shapes, names),
    )


def _read_config(folder: pathlib.Path) -> dict[str, Any]:
    """The fields of config.json, each of its type."""
    path = folder / CONFIG
    if not path.is_file():
        run = " It looks like the folder of a run: use Generator.from_run" if _is_run(folder) else ""
        raise PretrainedError(f"{folder} is not an exported generator: it has no {CONFIG}.{run}")
    try:
        fields = untrusted.read_json(path, "Export it, or download it again")
    except (OSError, ValueError) as error:
        raise PretrainedError(str(error)) from error
    if "format_version" not in fields:
        run = "; it is that of a run: use Generator.from_run" if _is_run(folder) else ""
        raise PretrainedError(f"{path} is not the {CONFIG} of an exported generator{run}")
    if fields["format_version"] != FORMAT_VERSION:
        raise PretrainedError(
            f"{path} has format_version {fields['format_version']!r}, and this version of jaxdog "
            f"({version.version()}) reads {FORMAT_VERSION}; it was written by jaxdog "
            f"{fields.get('jaxdog_version', '?')}: install that version or a later one"
        )
    unknown, missing = sorted(fields.keys() - FIELDS.keys()), sorted(FIELDS.keys() - fields.keys())
    wrong = [name for name, kind in FIELDS.items() if name in fields and not isinstance(fields[name], kind)]
    for what, names in (("unknown", unknown), ("missing", missing), ("of another type", wrong)):
        if names:
            raise PretrainedError(
                f"{path} cannot be used: fields that are {what}: {', '.join(names)} (written by jaxdog "
                f"{fields.get('jaxdog_version', '?')}, read by {version.version()})"
            )
    return fields


def _is_run(folder: pathlib.Path) -> bool:
    return (folder / "checkpoints").is_dir()


def _check_config(folder: pathlib.Path, fields: dict[str, Any]) -> schema.Experiment:
    """The config as typed records; fields that a later version has added get their defaults."""
    try:
        config = build.check(saved.from_json(fields["config"]))
        names = fields["class_names"]
        if not names or not all(isinstance(name, str) for name in names):
            raise errors.UserError("class_names must be names")
        if fields["phase"] < 0:
            raise errors.UserError(f"its phase is {fields['phase']}")
    except Exception as error:  # as above
        raise PretrainedError(
            f"{folder / CONFIG} cannot be used by jaxdog {version.version()}: {untrusted.one_line(error)} "
            f"(written by jaxdog {fields['jaxdog_version']})"
        ) from error
    return config


def _read_arrays(
    folder: pathlib.Path, sha256: str, shapes: Any, names: frozenset[str]
) -> dict[str, np.ndarray]:
    """The arrays of model.safetensors, checked against the shapes, in the dtypes of sampling."""
    path = folder / WEIGHTS
    if not path.is_file():
        raise PretrainedError(f"{folder} is incomplete: it has no {WEIGHTS}")
    wanted = sampling_state.read_arrays(shapes, names)
    size, limit = path.stat().st_size, MAX_HEADER + sum(x.size * x.dtype.itemsize for x in wanted.values())
    if size > limit:
        raise PretrainedError(f"{path} has {size:,} bytes; the arrays that {CONFIG} describes have {limit:,}")
    try:
        arrays = safetensors.numpy.load_file(path)
    except Exception as error:  # of safetensors, or of a dtype that NumPy lacks
        raise PretrainedError(
            f"{path} is damaged, or no safetensors file: {untrusted.one_line(error)}"
        ) from error
    if _sha256(path) != sha256:
        raise PretrainedError(
            f"{path} is damaged, or not the file that {CONFIG} describes: its sha256 is {_sha256(path)}, and "
            f"should be {sha256}. Copy the whole folder again"
        )
    _check_arrays(path, arrays, wanted)
    return {name: arrays[name].astype(wanted[name].dtype) for name in wanted}


def _check_arrays(
    path: pathlib.Path, arrays: Mapping[str, np.ndarray], wanted: Mapping[str, jax.ShapeDtypeStruct]
) -> None:
    missing, unknown = sorted(wanted.keys() - arrays.keys()), sorted(arrays.keys() - wanted.keys())
    problems = [f"{len(missing)} arrays are missing ({', '.join(missing[:3])})"] if missing else []
    problems += [f"{len(unknown)} arrays are unknown ({', '.join(unknown[:3])})"] if unknown else []
    for name in sorted(wanted.keys() & arrays.keys()):
        x, shape = arrays[name], wanted[name]
        dtypes = DTYPES if shape.dtype == np.float32 else (str(shape.dtype),)
        if x.shape != shape.shape or str(x.dtype) not in dtypes:
            right = f"{list(shape.shape)} {' or '.join(dtypes)}"
            problems.append(f"{name} is {list(x.shape)} {x.dtype}, and should be {right}")
        elif x.dtype.kind == "f" and not np.isfinite(x).all():
            problems.append(f"{name} is not finite")
    if problems:
        raise PretrainedError(f"{path} does not fit {CONFIG}: {'; '.join(problems[:3])}")


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
