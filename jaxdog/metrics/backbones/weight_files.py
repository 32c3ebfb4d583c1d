"""Reads tensors from PyTorch state dicts, TensorFlow graphs and safetensors, without torch or TensorFlow.

Unpickling can run arbitrary code; `pickles` reads the pickles without it. Sizes that a file declares are
compared with what it holds before memory is allocated.
"""

import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import safetensors.numpy

from jaxdog.metrics.backbones import pickles
from jaxdog.utils import archives, errors, untrusted

Tensors = dict[str, np.ndarray]
ArchiveError = pickles.ArchiveError

MAX_BYTES = 1 << 30  # of a file, and of the tensors in it; VGG16's, the largest, has 0.55e9
MAX_REPEATED = 1 << 26  # elements of a graph's tensors that are stored as fewer
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of torch's format before 1.6, which is not a zip archive
LEGACY_PROTOCOL = 1001
DT_FLOAT = 1  # TensorFlow's enum value of float32


def check_size(path: pathlib.Path) -> None:
    """Raises ArchiveError for a file that is too large for weights."""
    size = os.stat(path).st_size
    if size > MAX_BYTES:
        raise ArchiveError(f"it has {size:,} bytes; the limit for weights is {MAX_BYTES:,}")


# --- PyTorch ---------------------------------------------------------------------------------------------


def _fill(state_dict: Mapping[Any, Any], raw: Mapping[str, bytes]) -> Tensors:
    """Name -> array, a view of its storage, for every tensor of a state dict."""
    tensors: Tensors = {}
    for name, tensor in state_dict.items():
        if not isinstance(tensor, pickles.Tensor):
            continue
        storage, data = tensor.storage, raw[tensor.storage.key]
        dtype, count = np.dtype(storage.dtype), math.prod(tensor.shape)
        stored = len(data) // dtype.itemsize
        reach = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride, strict=True))
        if storage.count * dtype.itemsize != len(data) or count > stored or (count and reach >= stored):
            raise ArchiveError(f"tensor {str(name)[:80]!r} reaches beyond its {stored} stored values")
        strides = [step * dtype.itemsize for step in tensor.stride]
        values = np.frombuffer(data, dtype)[tensor.offset :]
        try:
            view = np.lib.stride_tricks.as_strided(values, tensor.shape, strides, writeable=False)
        except (ValueError, OverflowError) as error:  # of no elements, with other sides that are too large
            raise ArchiveError(f"tensor {str(name)[:80]!r} has a shape that is too large") from error
        tensors[str(name)] = view
    return tensors


def _storages(state_dict: Any) -> dict[str, pickles.Storage]:
    """The storages of a state dict's tensors by key."""
    if not isinstance(state_dict, dict):
        raise ArchiveError(f"it holds a {type(state_dict).__name__}, not a dictionary of tensors")
    found = {x.storage for x in state_dict.values() if isinstance(x, pickles.Tensor)}
    if len({storage.key for storage in found}) != len(found):
        raise ArchiveError("two of its storages have one name")
    return {storage.key: storage for storage in found}


def read_torch(path: pathlib.Path) -> Tensors:
    """The tensors of a state dict written by torch.save, in the zip format or the format before 1.6.

    They are views that cannot be written to. Raises ArchiveError if the file is of neither format, is
    damaged, is larger than MAX_BYTES, or refers to something other than tensors.
    """
    check_size(path)
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
    try:
        return _read_torch_zip(path, arrays=False) if zipped else _read_torch_legacy(path)
    except ArchiveError:
        raise
    except errors.UserError as error:
        raise ArchiveError(str(error)) from error


def read_torch_arrays(path: pathlib.Path) -> Tensors:
    """The tensors and NumPy's arrays in a dictionary that torch.save wrote in its zip format.

    A tensor that is not in a dictionary has the name "". Raises the same as `read_torch`.
    """
    check_size(path)
    try:
        return _read_torch_zip(path, arrays=True)
    except ArchiveError:
        raise
    except errors.UserError as error:
        raise ArchiveError(str(error)) from error


def _read_torch_zip(path: pathlib.Path, arrays: bool) -> Tensors:
    with archives.open_zip(path, untrusted.MAX_DIRECTORY) as archive:
        pickled = [name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]]
        if len(pickled) != 1:
            raise ArchiveError("it is a zip archive without a state dict in it")
        root = pickled[0].removesuffix("data.pkl")
        limit = pickles.MAX_ARRAY_BYTES if arrays else pickles.MAX_BYTES
        small = {pickled[0]: limit, f"{root}byteorder": 16}
        heads = {
            entry.name: entry.read(min(entry.size, small[entry.name]))
            for entry in untrusted.read_entries(archive, small.__contains__, MAX_BYTES)
        }
        if heads.get(f"{root}byteorder", b"little") != b"little":
            raise ArchiveError("it was written on a big-endian machine")
        state_dict, _ = pickles.load(heads[pickled[0]], arrays=arrays)
        if arrays and isinstance(state_dict, pickles.Tensor):
            state_dict = {"": state_dict}
        wanted = {f"{root}data/{key}": key for key in _storages(state_dict)}
        raw = {
            wanted[entry.name]: entry.read(entry.size)
            for entry in untrusted.read_entries(archive, wanted.__contains__, MAX_BYTES)
        }
    if len(raw) != len(wanted):
        raise ArchiveError(f"{len(wanted) - len(raw)} of its {len(wanted)} storages are missing")
    found = {k: x.values for k, x in state_dict.items() if isinstance(x, pickles.Array)}
    return _fill(state_dict, raw) | {str(k): x for k, x in found.items() if x is not None}


def _read_torch_legacy(path: pathlib.Path) -> Tensors:
    """Four pickles, one of the storages' keys, and for each key the number of elements and the bytes."""
    with path.open("rb") as file:
        head = file.read(pickles.MAX_BYTES)
        magic, at = pickles.load(head)
        if type(magic) is not int or magic != LEGACY_MAGIC:
            raise ArchiveError("it is a pickle, but not one of torch.save")
        protocol, at = pickles.load(head, at)
        machine, at = pickles.load(head, at)
        if protocol != LEGACY_PROTOCOL or not isinstance(machine, dict) or not machine.get("little_endian"):
            raise ArchiveError("its torch format is unknown, or it is big-endian")
        state_dict, at = pickles.load(head, at)
        keys, at = pickles.load(head, at)
        wanted = _storages(state_dict)
        if not isinstance(keys, list) or set(map(type, keys)) - {str} or len(set(keys)) != len(keys):
            raise ArchiveError("its storages have no names, or one twice")
        file.seek(at)
        raw: dict[str, bytes] = {}
        for key in keys:
            count = int.from_bytes(file.read(8), "little", signed=True)
            if key not in wanted or count != wanted[key].count:
                raise ArchiveError(f"storage {key[:80]!r} of {count} elements is damaged or truncated")
            size = count * np.dtype(wanted[key].dtype).itemsize
            if not 0 <= size <= path.stat().st_size - file.tell():
                raise ArchiveError(f"it is truncated: it ends inside storage {key[:80]!r}")
            raw[key] = file.read(size)
    if len(raw) != len(wanted):
        raise ArchiveError(f"{len(wanted) - len(raw)} of its {len(wanted)} storages are missing")
    return _fill(state_dict, raw)


# --- safetensors -----------------------------------------------------------------------------------------


def read_safetensors(path: pathlib.Path, limit: int) -> Tensors:
    """Name -> array, for every tensor of a file of at most `limit` bytes. Raises ArchiveError."""
    size = path.stat().st_size
    if size > limit:
        raise ArchiveError(f"it has {size:,} bytes; the limit is {limit:,}")
    try:
        return safetensors.numpy.load_file(path)
    except Exception as error:  # of safetensors, or of a dtype that NumPy lacks
        raise ArchiveError(f"it is damaged, or no safetensors file ({untrusted.one_line(error)})") from error


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


def _bytes(value: Any) -> memoryview:
    if not isinstance(value, memoryview):
        raise ArchiveError("it is a protocol buffer, but not a TensorFlow graph")
    return value


def _message(value: Any) -> Iterator[tuple[int, Any]]:
    return _fields(_bytes(value))


def _float_tensor(data: Any) -> tuple[np.ndarray, list[int]] | None:
    """A TensorProto's stored values, whose last may stand for others, and its shape; None: not float32."""
    dtype, shape, content, values = 0, [], memoryview(b""), []
    for number, value in _message(data):
        if number == 1:
            dtype = value
        elif number == 2:
            shape = [dict(_message(dim)).get(1, 0) for field, dim in _message(value) if field == 2]
        elif number == 4:
            content = _bytes(value)
        elif number == 5:  # packed or not
            values.append(_bytes(value))
    if dtype != DT_FLOAT:
        return None
    if len(shape) > pickles.MAX_DIMENSIONS or any(type(n) is not int or n > MAX_BYTES for n in shape):
        raise ArchiveError("a constant in it has no shape that a tensor can have")
    stored = content if len(content) else b"".join(values)
    if len(stored) % 4:
        raise ArchiveError(f"a constant in it does not fill its shape {shape}")
    return np.frombuffer(stored, "<f4"), shape


def _expand(flat: np.ndarray, shape: list[int], room: int) -> tuple[np.ndarray, int]:
    """The array of stored values, and the room that is left for arrays that are larger than these."""
    count = math.prod(shape)
    if len(flat) == 1:
        try:
            return np.broadcast_to(flat[0], shape), room
        except ValueError as error:
            raise ArchiveError(f"a constant in it has the shape {shape}, which is too large") from error
    if 0 < len(flat) < count:
        room -= count
        if room < 0:
            raise ArchiveError(
                f"its constants repeat more than {MAX_REPEATED:,} elements, which is the limit"
            )
        flat = np.concatenate([flat, np.broadcast_to(flat[-1], count - len(flat))])
    if len(flat) != count:
        raise ArchiveError(f"a constant in it does not fill its shape {shape}")
    return flat.reshape(shape), room


def read_graph(path: pathlib.Path) -> Tensors:
    """Name -> array, for every float32 constant of a frozen TensorFlow graph (GraphDef).

    They are views that cannot be written to. Raises ArchiveError if the file is no graph, is truncated, or
    larger than MAX_BYTES.
    """
    check_size(path)
    tensors: Tensors = {}
    room = MAX_REPEATED
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
                if bytes(_bytes(entry.get(1, memoryview(b"")))) == b"value":
                    tensor = dict(_message(entry.get(2))).get(8)
        found = _float_tensor(tensor) if op == "Const" and tensor is not None else None
        if found is not None:
            tensors[name], room = _expand(*found, room)
    return tensors
