"""Reads tensors from PyTorch state dicts and TensorFlow graphs, safely and without torch or TensorFlow.

Unpickling can run arbitrary code. The reader here accepts ordered dictionaries, tensors and storages, and
rejects everything else before importing it.
"""

import collections
import io
import math
import pathlib
import pickle
import zipfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from jaxdog.utils import errors, files

Tensors = dict[str, np.ndarray]

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of torch's format before 1.6, which is not a zip archive
LEGACY_PROTOCOL = 1001
MAX_ELEMENTS = 1 << 26  # in one tensor; the network's largest has 2 million
DT_FLOAT = 1  # TensorFlow's enum value of float32

STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}


class ArchiveError(errors.UserError):
    """The file cannot be read, is damaged, or refers to something other than tensors."""


# --- PyTorch ---------------------------------------------------------------------------------------------


class _Storage(NamedTuple):
    """A flat array on which tensors are views; its bytes are read later."""

    dtype: str
    key: str
    count: int


class _Tensor(NamedTuple):
    """A view of a storage, without data."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _StorageType(NamedTuple):
    dtype: str


class _Rebuild:
    """Replaces torch._utils._rebuild_tensor_v2; has no attributes that a pickle could change."""

    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> _Tensor:
        integers = (offset, *shape, *stride)
        if not isinstance(storage, _Storage) or any(type(n) is not int or n < 0 for n in integers):
            raise ArchiveError("a tensor in it is not described by a storage and integers")
        return _Tensor(storage, offset, tuple(shape), tuple(stride))


class _TensorsOnly(pickle._Unpickler):  # pyright: ignore[reportAttributeAccessIssue]
    """Reads dictionaries of tensors and rejects every other class or function.

    Based on pickle's Python implementation: in the C implementation, a damaged byte can allocate all memory.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Rebuild()
        if module == "torch" and name in STORAGES:
            return _StorageType(STORAGES[name])
        raise ArchiveError(
            f"it asks for {module}.{name}, which is not a tensor; it was rejected, and no code was run"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage_type, key, _, count, *view = pid
        if (
            kind != "storage"
            or not isinstance(storage_type, _StorageType)
            or any(part is not None for part in view)
        ):
            raise ArchiveError("it refers to something that is not a plain storage")
        return _Storage(storage_type.dtype, str(key), int(count))


def _unpickle(stream: Any) -> Any:
    try:
        return _TensorsOnly(stream).load()
    except ArchiveError:
        raise
    except Exception as error:  # a damaged pickle raises almost anything
        raise ArchiveError(f"its pickle is damaged ({type(error).__name__}: {error})") from error


def _fill(state_dict: Any, bytes_of: dict[_Storage, bytes]) -> Tensors:
    """Name -> array, for every tensor of a state dict."""
    tensors: Tensors = {}
    for name, tensor in state_dict.items():
        if not isinstance(tensor, _Tensor):
            continue
        storage, raw = tensor.storage, bytes_of[tensor.storage]
        values = np.frombuffer(raw, storage.dtype)
        reach = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride, strict=True))
        count = math.prod(tensor.shape)
        if len(values) != storage.count or count > len(values) or (count and reach >= len(values)):
            raise ArchiveError(f"tensor {name!r} reaches beyond its {len(values)} stored values")
        strides = [step * values.itemsize for step in tensor.stride]
        view = np.lib.stride_tricks.as_strided(
            values[tensor.offset :], tensor.shape, strides, writeable=False
        )
        tensors[str(name)] = np.array(view)
    return tensors


def _storages(state_dict: Any) -> list[_Storage]:
    if not isinstance(state_dict, dict):
        raise ArchiveError(f"it holds a {type(state_dict).__name__}, not a dictionary of tensors")
    return list(
        dict.fromkeys(tensor.storage for tensor in state_dict.values() if isinstance(tensor, _Tensor))
    )


def read_torch(path: pathlib.Path) -> Tensors:
    """The tensors of a state dict written by torch.save, in the zip format or the format before 1.6.

    Raises ArchiveError if it is neither, is damaged, or refers to something other than tensors.
    """
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
    return _read_torch_zip(path) if zipped else _read_torch_legacy(path)


def _read_torch_zip(path: pathlib.Path) -> Tensors:
    try:
        with zipfile.ZipFile(path) as archive:
            pickled = [name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]]
            if len(pickled) != 1:
                raise ArchiveError("it is a zip archive without a state dict in it")
            root = pickled[0].removesuffix("data.pkl")
            if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
                raise ArchiveError("it was written on a big-endian machine")
            state_dict = _unpickle(io.BytesIO(archive.read(pickled[0])))
            raw = {storage: archive.read(f"{root}data/{storage.key}") for storage in _storages(state_dict)}
    except files.DAMAGED as error:
        raise ArchiveError(f"it is a damaged zip archive ({error})") from error
    return _fill(state_dict, raw)


def _read_torch_legacy(path: pathlib.Path) -> Tensors:
    with path.open("rb") as file:
        if _unpickle(file) != LEGACY_MAGIC:
            raise ArchiveError("it is a pickle, but not one of torch.save")
        protocol, machine, state_dict = (_unpickle(file) for _ in range(3))
        if protocol != LEGACY_PROTOCOL or not isinstance(machine, dict) or not machine.get("little_endian"):
            raise ArchiveError(f"its torch format {protocol!r} is unknown, or it is big-endian")
        wanted = {storage.key: storage for storage in _storages(state_dict)}
        raw: dict[_Storage, bytes] = {}
        for key in map(str, _unpickle(file)):
            count = int.from_bytes(file.read(8), "little", signed=True)
            if key not in wanted or count != wanted[key].count:
                raise ArchiveError(f"storage {key!r} of {count} elements is damaged or truncated")
            size = count * np.dtype(wanted[key].dtype).itemsize
            if not 0 <= size <= path.stat().st_size - file.tell():
                raise ArchiveError(f"it is truncated: it ends inside storage {key!r}")
            raw[wanted[key]] = file.read(size)
    if len(raw) != len(wanted):
        raise ArchiveError(f"{len(wanted) - len(raw)} of its {len(wanted)} storages are missing")
    return _fill(state_dict, raw)


# --- TensorFlow ------------------------------------------------------------------------------------------
# A protocol buffer message is a list of (field number, value); field numbers are those of TensorFlow's
# graph.proto, node_def.proto, attr_value.proto, tensor.proto and tensor_shape.proto.


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        if at >= len(data) or shift > 63:
            raise ArchiveError("it is not a protocol buffer, or is truncated")
        byte = data[at]
        value, at, shift = value | (byte & 0x7F) << shift, at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """(field number, value) of one message: an int for varints, bytes for the rest."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ArchiveError("it is not a protocol buffer")
        if at + size > len(data):
            raise ArchiveError("it is not a protocol buffer, or is truncated")
        yield number, data[at : at + size]
        at += size


def _message(data: Any) -> Iterator[tuple[int, Any]]:
    if not isinstance(data, memoryview):
        raise ArchiveError("it is a protocol buffer, but not a TensorFlow graph")
    return _fields(data)


def _float_tensor(data: Any) -> np.ndarray | None:
    """A TensorProto's array; None if it is not float32."""
    dtype, shape, content, values = 0, [], b"", []
    for number, value in _message(data):
        if number == 1:
            dtype = value
        elif number == 2:
            shape = [dict(_message(dim)).get(1, 0) for field, dim in _message(value) if field == 2]
        elif number == 4:
            content = bytes(value)
        elif number == 5:  # packed or not
            values.append(bytes(value))
    if dtype != DT_FLOAT:
        return None
    count = math.prod(shape)
    if not 0 <= count <= MAX_ELEMENTS:
        raise ArchiveError(f"a constant in it has shape {shape}")
    try:
        flat = np.frombuffer(content or b"".join(values), "<f4")
        if not content and 0 < len(flat) < count:  # the last value is repeated
            flat = np.concatenate([flat, np.full(count - len(flat), flat[-1], np.float32)])
        return flat.reshape(shape).astype(np.float32)
    except (ValueError, TypeError, MemoryError) as error:
        raise ArchiveError(f"a constant in it does not fill its shape {shape}") from error


def read_graph(path: pathlib.Path) -> Tensors:
    """Name -> array, for every float32 constant of a frozen TensorFlow graph (GraphDef).

    Raises ArchiveError if it is not one, or is truncated.
    """
    tensors: Tensors = {}
    for field, node in _fields(memoryview(path.read_bytes())):
        if field != 1:
            continue
        name, op, tensor = "", "", None
        for number, value in _message(node):
            if number in (1, 2):
                text = bytes(value).decode("utf-8", "replace") if isinstance(value, memoryview) else ""
                name, op = (text, op) if number == 1 else (name, text)
            elif number == 5:
                entry = dict(_message(value))
                if bytes(entry.get(1, b"")) == b"value":
                    tensor = dict(_message(entry.get(2))).get(8)
        array = _float_tensor(tensor) if op == "Const" and tensor is not None else None
        if array is not None:
            tensors[name] = array
    return tensors
