"""The readers of files from others, and how their inputs are made."""

import contextlib
import hashlib
import io
import json
import pathlib
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors.numpy

from jaxdog import sampling_sweep
from jaxdog.cleaning import labels
from jaxdog.config import build, saved
from jaxdog.data import dataset_info, image_files, listing, photos, sources, tables
from jaxdog.evaluation import copies
from jaxdog.generators import pretrained
from jaxdog.metrics import features, statistics_files
from jaxdog.metrics.backbones import (
    dinov2,
    dinov2_weights,
    inception_weights,
    nasnet_weights,
    pickles,
    weight_files,
)
from jaxdog.training import digests, writers
from jaxdog.utils import archives, errors, lock, untrusted
from tests.fuzz import mutations, samples

DINOV2 = dinov2.Plan(width=2, depth=1, heads=1)


class Target(NamedTuple):
    """A reader."""

    make: Callable[[mutations.Draw], bytes]  # an input
    read: Callable[[pathlib.Path], Any]  # reads it; may only raise EXPECTED
    name: str  # of its file


def _bytes(sample: bytes) -> Callable[[mutations.Draw], bytes]:
    return lambda draw: mutations.mutate(sample, draw)


def _zip(members: dict[str, bytes]) -> Callable[[mutations.Draw], bytes]:
    return lambda draw: mutations.mutate_zip(members, draw)


def _json(sample: bytes) -> Callable[[mutations.Draw], bytes]:
    return lambda draw: mutations.mutate_json(sample, draw)


def _hdf5() -> bytes:
    import h5py

    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        for name, shape in (("kernel", (3, 3, 3, 96)), ("bias", (96,))):
            data = np.ones(shape, np.float32)
            file.create_dataset(f"model_weights/stem_conv1/stem_conv1/{name}:0", data=data)
        packed = {"compression": "gzip", "chunks": (64,), "maxshape": (None,)}
        file.create_dataset("model_weights/stem_bn1/gamma:0", data=np.ones(96, np.float32), **packed)
    return out.getvalue()


def _dinov2() -> bytes:
    return safetensors.numpy.save(
        {name: np.ones(shape, np.float32) for name, shape in dinov2_weights.published_shapes(DINOV2).items()}
    )


def _read_arrays(path: pathlib.Path) -> None:
    wanted = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in samples.STATE.items()}
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    pretrained._read_arrays(path.parent, sha256, wanted, frozenset(wanted))


def _read_exported_config(path: pathlib.Path) -> None:
    pretrained._check_config(path.parent, pretrained._read_config(path.parent))


def _read_config(path: pathlib.Path) -> None:
    build.check(saved.load(path.parent))


def _run_config() -> bytes:
    return (
        build.Config(
            saved.to_dict(pretrained._check_config(samples.FROZEN, pretrained._read_config(samples.FROZEN)))
        )
        .to_json_best_effort()
        .encode()
    )


def _photo() -> Callable[[mutations.Draw], bytes]:
    made = samples.photos()
    return lambda draw: mutations.mutate(made[draw.integers(len(made))], draw)


def _read_photo(path: pathlib.Path) -> None:
    data = path.read_bytes()
    image = photos.decode(data, upright=True)
    assert image.dtype == np.uint8 and sorted(image.shape[:2]) == sorted(photos.image_size(data))


def _read_photos(path: pathlib.Path) -> None:
    """All photos of a zip; those that are broken cost nothing but themselves."""
    for photo in image_files.source(path).photos:
        with contextlib.suppress(photos.BrokenPhotoError, archives.EntryError):
            photo.read()


def _read_annotation(path: pathlib.Path) -> None:
    for box in sources._voc_boxes(listing.File(path.name, None, 0, path.read_bytes)):
        sources._usable_boxes([box], 375, 500)


def _run_file(draw: mutations.Draw) -> bytes:
    """A file of a run behind a line with its name."""
    made = samples.run_files()
    name = list(made)[draw.integers(len(made))]
    change = mutations.mutate if name.endswith("csv") else mutations.mutate_json
    return name.encode() + b"\n" + change(made[name], draw)


def _read_run_file(path: pathlib.Path) -> None:
    """Reads the file as the run that has it would."""
    name, _, data = path.read_bytes().partition(b"\n")
    file, sweep = path.with_name(name.decode()), {"ema_index": (0, 1)}
    config = types.SimpleNamespace(
        sample=types.SimpleNamespace(sweep=sweep), eval=types.SimpleNamespace(best="fid768")
    )
    kept = types.SimpleNamespace(path=lambda step: path.parent / "none")
    sound = json.loads(samples.run_files()[dataset_info.NAME])
    known = untrusted.record(dataset_info.DatasetInfo, sound)
    readers: dict[str, Callable[[], Any]] = {
        dataset_info.NAME: lambda: dataset_info.resumed(path.parent, dataset_info.read(path.parent), known),
        lock.NAME: lambda: lock._message(file, lock._read(file)[0]),
        writers.SWEEP: lambda: sampling_sweep.load_best(
            types.SimpleNamespace(folder=path.parent, config=config, protocol="", checkpoints=kept), 8
        ),
        writers.SCORES: lambda: copies.earlier(writers.read_jsonl(file), {"step": 8}),
        "metadata": lambda: digests.unseal(data.decode(errors="replace")),
        "clean.csv": lambda: tables.read(file),
        "labels.csv": lambda: labels.read(file),
    }
    file.write_bytes(data)
    readers[file.name]()


TARGETS = {
    "pickle": lambda: Target(
        _bytes(samples.state_pickle()), lambda path: pickles.load(path.read_bytes()), "data.pkl"
    ),
    "pickle4": lambda: Target(
        _bytes(samples.state_pickle(protocol=4)), lambda path: pickles.load(path.read_bytes()), "data.pkl"
    ),
    "pth": lambda: Target(_zip(samples.pth_members()), weight_files.read_torch, "weights.pth"),
    "legacy": lambda: Target(_bytes(samples.legacy()), weight_files.read_torch, "weights.pth"),
    "graph": lambda: Target(_bytes(samples.graph()), weight_files.read_graph, "graph.pb"),
    "folded": lambda: Target(_zip(samples.folded_members()), inception_weights.load, "weights.npz"),
    "hdf5": lambda: Target(_bytes(_hdf5()), nasnet_weights.load, "weights.h5"),
    "dinov2": lambda: Target(
        _bytes(_dinov2()), lambda path: dinov2_weights.load(path, DINOV2), "model.safetensors"
    ),
    "features": lambda: Target(_zip(samples.features_members()), features.load, "features.npz"),
    "moments": lambda: Target(_zip(samples.moments_members()), statistics_files.read, "moments.npz"),
    "stylegan": lambda: Target(_bytes(samples.stylegan_pickle()), statistics_files.read, "moments.pkl"),
    "stylegan5": lambda: Target(
        _bytes(samples.stylegan_pickle(5, all_features=True)), statistics_files.read, "features.pkl"
    ),
    "torch_fidelity": lambda: Target(
        _zip(samples.torch_fidelity_members()), statistics_files.read, "moments.pt"
    ),
    "safetensors": lambda: Target(
        _bytes(safetensors.numpy.save(samples.STATE)), _read_arrays, pretrained.WEIGHTS
    ),
    "exported": lambda: Target(
        _json((samples.FROZEN / pretrained.CONFIG).read_bytes()), _read_exported_config, pretrained.CONFIG
    ),
    "config": lambda: Target(_json(_run_config()), _read_config, saved.NAME),
    "photo": lambda: Target(_photo(), _read_photo, "photo"),
    "photos": lambda: Target(_zip(samples.photos_members()), _read_photos, "photos.zip"),
    "annotation": lambda: Target(_bytes(samples.ANNOTATION), _read_annotation, "n02088364_1"),
    "run": lambda: Target(_run_file, _read_run_file, "file"),
}
EXPECTED = errors.UserError, photos.BrokenPhotoError
