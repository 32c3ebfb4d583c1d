"""Small valid files of every kind that jaxdog reads from others, made without torch and TensorFlow."""

import io
import json
import pathlib
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from typing import Any
from unittest import mock

import numpy as np
import PIL.Image
from PIL import ExifTags

from jaxdog.cleaning import labels
from jaxdog.data import dataset_info, tables
from jaxdog.metrics import features
from jaxdog.metrics.backbones import inception, pickles, weight_files
from jaxdog.training import digests, writers
from jaxdog.utils import lock

FROZEN = pathlib.Path(__file__).resolve().parent.parent / "generators" / "data" / "frozen_v1"
STATE = {"conv.weight": np.arange(12, dtype=np.float32).reshape(4, 3), "conv.bias": np.ones(4, np.float32)}


def state_pickle(state: dict[str, np.ndarray] | None = None, protocol: int = 2) -> bytes:
    """The pickle of a state dict, as torch.save writes it."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    kinds = {np.dtype(dtype): name for name, dtype in pickles.STORAGES.items()}
    for name in kinds.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def rebuild(*_: Any) -> None: ...

    rebuild.__module__, rebuild.__qualname__, rebuild.__name__ = "torch._utils", *["_rebuild_tensor_v2"] * 2
    utils._rebuild_tensor_v2 = rebuild  # pyright: ignore[reportAttributeAccessIssue]

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            return obj[1] if isinstance(obj, tuple) and obj[:1] == ("a storage",) else None

        def reducer_override(self, obj: Any) -> Any:
            if not isinstance(obj, np.ndarray):
                return NotImplemented
            kind = getattr(torch, kinds[obj.dtype])
            key = str(next(i for i, x in enumerate(state.values()) if x is obj))
            storage = ("a storage", ("storage", kind, key, "cpu", obj.size))
            stride = tuple(n // obj.itemsize for n in obj.strides)
            return rebuild, (storage, 0, obj.shape, stride, False, OrderedDict())

    state = STATE if state is None else state
    out, tree = io.BytesIO(), OrderedDict(state)
    tree._metadata = OrderedDict({"": {"version": 1}})  # pyright: ignore[reportAttributeAccessIssue]
    with mock.patch.dict(sys.modules, {"torch": torch, "torch._utils": utils}):
        Pickler(out, protocol).dump(tree)
    return out.getvalue()


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive of these files."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def pth_members() -> dict[str, bytes]:
    data = {f"weights/data/{i}": x.tobytes() for i, x in enumerate(STATE.values())}
    return {"weights/data.pkl": state_pickle(), "weights/byteorder": b"little", **data}


def legacy() -> bytes:
    """A state dict in torch's format before 1.6."""
    machine = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2}}
    head = [pickle.dumps(x, 2) for x in (weight_files.LEGACY_MAGIC, weight_files.LEGACY_PROTOCOL, machine)]
    keys = pickle.dumps([str(i) for i in range(len(STATE))], 2)
    raw = [x.size.to_bytes(8, "little") + x.tobytes() for x in STATE.values()]
    return b"".join([*head, state_pickle(), keys, *raw])


def _varint(n: int) -> bytes:
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes([*out, n])


def field(number: int, value: int | bytes) -> bytes:
    """A field of a protocol buffer."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def constant(name: bytes, shape: tuple[int, ...], content: bytes, as_list: bool = False) -> bytes:
    """A node of a TensorFlow graph, float32."""
    sides = b"".join(field(2, field(1, n)) for n in shape)
    tensor = field(1, 1) + field(2, sides) + field(5 if as_list else 4, content)
    value = field(1, b"value") + field(2, field(8, tensor))
    return field(1, field(1, name) + field(2, b"Const") + field(5, value))


def graph() -> bytes:
    """A frozen graph of three constants, the last of which repeats one number."""
    one = np.ones(1, np.float32).tobytes()
    parts = [constant(name.encode(), x.shape, x.tobytes()) for name, x in STATE.items()]
    return b"".join([*parts, constant(b"repeated", (5, 2), one * 2, as_list=True)])


def npy(x: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, x)
    return out.getvalue()


def folded_members() -> dict[str, bytes]:
    """The first kernels of Inception."""
    shapes = list(inception.shapes().items())[:2]
    return {f"{name}.npy": npy(np.ones(shape, np.float32)) for name, shape in shapes}


def features_members() -> dict[str, bytes]:
    """Features of two images."""
    spec = features.FeatureSpec("inception", "published", "0" * 64, "32x32", "none", "fuzz")
    header = {**spec._asdict(), "n": 2, "class_names": ["a", "b"], "version": features.VERSION}
    arrays = {name: np.ones((2, width), np.float32) for name, width in inception.WIDTH.items()}
    arrays |= {"metadata": np.array(json.dumps(header)), "label": np.array([0, 1], np.int32)}
    return {f"{name}.npy": npy(x) for name, x in arrays.items()}


def moments(d: int = 6, n: int = 20, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features [n, d] float32, and their mean and covariance in float64."""
    rows = np.random.default_rng(seed).gamma(2, size=(n, d)).astype(np.float32)
    return rows, rows.astype(np.float64).mean(0), np.cov(rows.astype(np.float64), rowvar=False)


def moments_members() -> dict[str, bytes]:
    """The arrays of pytorch-fid's statistics."""
    _, mean, covariance = moments()
    return {"mu.npy": npy(mean), "sigma.npy": npy(covariance)}


def stylegan_pickle(protocol: int = 4, all_features: bool = False, d: int = 6) -> bytes:
    """The fields of a FeatureStats, in the order in which StyleGAN3 sets them."""
    rows, _, _ = moments(d)
    wide = rows.astype(np.float64)
    fields: dict[str, Any] = {"capture_all": all_features, "capture_mean_cov": not all_features}
    fields |= {"max_items": len(rows), "num_items": len(rows), "num_features": d}
    fields |= {"all_features": [rows[:7], rows[7:]] if all_features else []}
    empty = np.zeros(d), np.zeros((d, d))
    sums = empty if all_features else (wide.sum(0), wide.T @ wide)
    return pickle.dumps({**fields, "raw_mean": sums[0], "raw_cov": sums[1]}, protocol)


def torch_fidelity_members(d: int = 6) -> dict[str, bytes]:
    """The files in torch-fidelity's cached statistics: a pickle of two arrays in a zip archive."""
    rows, _, covariance = moments(d)
    return {"archive/data.pkl": pickle.dumps({"mu": rows.mean(0), "sigma": covariance}, 2)}


# ------------------------------------------------------------------ photos and the files of a run


def photos(side: int = 24) -> list[bytes]:
    """A small image in each format and in unusual modes, with metadata."""
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    image, gray16 = PIL.Image.fromarray(pixels), PIL.Image.fromarray(pixels[..., 0].astype(np.uint16) << 8)
    exif = PIL.Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Make] = 6, "camera"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime] = (1, 50)
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (1.0, 2.0, 3.0)
    clear = {"transparency": 3}
    saved: list[tuple[PIL.Image.Image, str, dict[str, Any]]] = [
        *((image, "JPEG", {"exif": exif, "progressive": progressive}) for progressive in (False, True)),
        *((image.convert("CMYK"), "JPEG", {}), (image, "PNG", {"exif": exif}), (gray16, "PNG", {})),
        *((image.convert("P"), "PNG", clear), (image.convert("P"), "GIF", clear), (image, "BMP", {})),
        *((image, "WEBP", {"exif": exif}), (image.convert("RGBA"), "WEBP", {"lossless": True})),
        *((image, "AVIF", {"speed": 10}), (image.convert("LAB"), "TIFF", {}), (gray16, "TIFF", {})),
        *((image, "TIFF", {"compression": name}) for name in ("tiff_lzw", "jpeg", "tiff_deflate")),
    ]
    made = []
    for one, form, options in saved:
        out = io.BytesIO()
        one.save(out, form, **options)
        made.append(out.getvalue())
    return made


def photos_members() -> dict[str, bytes]:
    """Class folders of photos, hidden files, and a file that is none."""
    jpeg, png = photos()[0], photos()[3]
    names = ("cat/1.jpg", "cat/2.JPEG", "dog/.hidden.png", "dog/1.png", "__MACOSX/dog/1.png")
    return {**{name: png if name.endswith("png") else jpeg for name in names}, "read me.txt": b"photos"}


ANNOTATION = b"""<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE annotation [<!ENTITY name "beagle">]>
<annotation><folder>02088364</folder><size><width>500</width><height>375</height><depth>3</depth></size>
<object><name>&name;</name><bndbox><xmin>10</xmin><ymin>20</ymin><xmax>300</xmax><ymax>310.5</ymax></bndbox></object>
<object><bndbox><ymax>9</ymax><xmin>-5</xmin><ymin>2</ymin><xmax>44</xmax></bndbox></object></annotation>
"""

TABLE = ",".join(tables.COLUMNS) + "\n" + 'a.jpg,0,0,1,2,9,9,0.5,1,3,\n"b ""c"".jpg,1,0,0,0,9,9,1,0,,small\n'
LABELS = ",".join(labels.COLUMNS) + "\na.jpg,1,2,9,9,0,near\nb.jpg,0,0,9,9,0,undo\nb.jpg,0,0,9,9,0,far\n"


def run_files() -> dict[str, bytes]:
    """The small files of a run, and those of cleaning and labeling."""
    info = dataset_info.DatasetInfo(
        ("cat", "dog"), (2, 1), 4, 3, "folder-1", "squash", (8, 8, 3), (3,), "0" * 64, ("0" * 16, "1" * 8)
    )
    holder = lock.Holder("train", "host", "machine", 17, "1", "2026-01-01 00:00:00", "0" * 32)
    options = [{"setting": {"ema_index": i}, "random_fid768": 1.5} for i in (0, 1)]
    sweep = {"step": 8, "metric": "random_fid768", "best": {"ema_index": 1}, "options": options}
    digest = {"seconds": 3.5, "arrays": {"g/params/w": "0" * 64}}
    lines = [{"step": 8, "final": False, "random_fid768": 1.5}, {"step": 8, "copies": {"verdict": "copies"}}]
    return {
        dataset_info.NAME: json.dumps({"format": dataset_info.FORMAT, **info._asdict()}).encode(),
        lock.NAME: json.dumps(holder._asdict()).encode(),
        writers.SWEEP: json.dumps(sweep).encode(),
        writers.SCORES: "\n".join(map(json.dumps, lines)).encode(),
        "metadata": digests.seal(digest).encode(),
        "clean.csv": TABLE.encode(),
        "labels.csv": LABELS.encode(),
    }
