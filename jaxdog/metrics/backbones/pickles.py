"""Reads the pickles of PyTorch state dicts with a small machine of its own, which runs no code.

Python's unpickler imports what a pickle names, allocates what it declares and hashes what it nests. This one
only knows the instructions that state dicts consist of; all values are numbers, names, tensors without data,
and containers of them. With `arrays` it also knows those of NumPy's arrays of numbers.
"""

import math
import pickle
import re
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxdog.utils import errors

MAX_BYTES = 1 << 20  # of a pickle; that of Inception, whose tensors are stored elsewhere, has 0.1 MB
MAX_ARRAY_BYTES = 1 << 30  # of a pickle with arrays, whose numbers are in it
MAX_INSTRUCTIONS = 1 << 20  # of a pickle; each makes at most one object
MAX_DIMENSIONS = 32
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


class Storage(NamedTuple):
    """A flat array on which tensors are views; its bytes are read later."""

    dtype: str
    key: str
    count: int


class Tensor(NamedTuple):
    """A view of a storage, without data."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Array:
    """An array of numbers that NumPy has pickled."""

    values: np.ndarray | None = None  # cannot be written to; None if the pickle has none


class _StorageType(NamedTuple):
    dtype: str


class _Function(NamedTuple):
    name: str


class _Dtype(NamedTuple):
    name: str  # such as "f8"


_BEYOND_LATIN1 = re.compile(rb"[\xc4-\xff]")
_DICT, _REBUILD = _Function("OrderedDict"), _Function("_rebuild_tensor_v2")
_MARK = _Function("mark")
_NDARRAY = _Function("ndarray")


def load(data: bytes, at: int = 0, arrays: bool = False) -> tuple[Any, int]:
    """The value of the pickle that begins at byte `at`, and where it ends.

    With `arrays`, arrays of NumPy become `Array`s. Raises ArchiveError if it is damaged or has anything that
    a state dict (or such an array) does not need.
    """
    machine = _Machine(data, at, arrays)
    try:
        return machine.run(), machine.at
    except ArchiveError:
        raise
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise ArchiveError(f"its pickle is damaged ({type(error).__name__}: {error})") from error


class _Machine:
    """The stack, the memo and the position."""

    def __init__(self, data: bytes, at: int, arrays: bool = False):
        self.data, self.at = data, at
        self.instructions = _INSTRUCTIONS | (_ARRAY_INSTRUCTIONS if arrays else {})
        self.names = _ARRAY_NAMES if arrays else {}
        self.limit = MAX_ARRAY_BYTES if arrays else MAX_BYTES
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.copied = 0  # pairs of dictionaries and bytes of text that were copied

    def run(self) -> Any:
        count = 0
        while (code := self.take(1)) != pickle.STOP:
            count += 1
            if count > MAX_INSTRUCTIONS:
                raise ArchiveError(f"its pickle has more than {MAX_INSTRUCTIONS:,} instructions, the limit")
            if code not in self.instructions:
                raise ArchiveError(f"its pickle has the instruction {code!r}, which no state dict needs")
            self.instructions[code](self)
        return self.stack.pop()

    # ------------------------------------------------------------------ bytes

    def take(self, n: int) -> bytes:
        if n > len(self.data) - self.at:
            raise ArchiveError(
                f"its pickle is truncated, or larger than {self.limit:,} bytes, which is the limit"
            )
        self.at += n
        return self.data[self.at - n : self.at]

    def unsigned(self, n: int) -> int:
        return int.from_bytes(self.take(n), "little")

    def signed(self, n: int) -> int:
        return int.from_bytes(self.take(n), "little", signed=True)

    def text(self, n: int) -> str:
        data = self.take(n)
        if n > MAX_BYTES and _BEYOND_LATIN1.search(data):  # one such letter makes all of them four bytes long
            raise ArchiveError(f"its pickle has {n:,} bytes of text that are not those of an array")
        return data.decode("utf-8")

    def line(self) -> str:
        end = self.data.find(b"\n", self.at, self.at + 200)
        if end < 0:
            raise ArchiveError("its pickle names something longer than 200 characters")
        return self.take(end + 1 - self.at)[:-1].decode("utf-8")

    # ------------------------------------------------------------------ the stack

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def to_mark(self) -> list[Any]:
        """The values above the last mark, which are removed with it."""
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise ArchiveError("its pickle is damaged (no mark)")
        values = self.stack[at + 1 :]
        del self.stack[at:]
        return values

    def last(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise ArchiveError(
                f"its pickle is damaged (a {type(self.stack[-1]).__name__}, no {kind.__name__})"
            )
        return self.stack[-1]

    def tuple_of(self, n: int) -> None:
        if n > len(self.stack):
            raise ArchiveError("its pickle is damaged (too few values)")
        values = tuple(self.stack[len(self.stack) - n :])
        del self.stack[len(self.stack) - n :]
        self.push(values)

    def extend(self, values: list[Any]) -> None:
        self.last(list).extend(values)

    def set_items(self, values: list[Any]) -> None:
        target: dict[Any, Any] = self.last(dict)
        for key, value in zip(values[::2], values[1::2], strict=True):
            if type(key) not in (str, int):
                raise ArchiveError(f"it has a {type(key).__name__} as a key of a dictionary")
            target[key] = value

    def remember(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    # ------------------------------------------------------------------ what stands for torch's objects

    def find(self, module: str, name: str) -> None:
        if (module, name) == ("collections", "OrderedDict"):
            self.push(_DICT)
        elif (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            self.push(_REBUILD)
        elif module == "torch" and name in STORAGES:
            self.push(_StorageType(STORAGES[name]))
        elif (module, name) in self.names:
            self.push(self.names[module, name])
        else:
            asked = f"{module}.{name}" if f"{module}{name}".isprintable() else repr(f"{module}.{name}")
            raise ArchiveError(
                f"it asks for {asked}, which is not a tensor; it was rejected, and no code was run"
            )

    def find_from_stack(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if type(name) is not str or type(module) is not str:
            raise ArchiveError("its pickle is damaged (a name that is no text)")
        self.find(module, name)

    def storage(self) -> None:
        kind, storage_type, key, _, count, *view = self.last(tuple)
        plain = isinstance(storage_type, _StorageType) and type(key) is str and type(count) is int
        if kind != "storage" or not plain or any(part is not None for part in view):
            raise ArchiveError("it refers to something that is not a plain storage")
        self.stack[-1] = Storage(storage_type.dtype, key, count)

    def call(self) -> None:
        arguments = self.last(tuple)
        self.stack.pop()
        function = self.last(_Function)
        if function is _DICT:
            self.stack[-1] = {}
            if arguments:
                self.fill_dictionary(*arguments)
        elif function is _REBUILD:
            self.stack[-1] = _tensor(*arguments[:4])
        elif function in _ARRAY_MAKERS:
            self.stack[-1] = _ARRAY_MAKERS[function](self, *arguments)
        else:
            raise ArchiveError("its pickle is damaged (it calls something else)")

    def fill_dictionary(self, pairs: Any) -> None:
        """OrderedDict([[key, value], ...]), as Python 2 wrote it."""
        self.count_copies(len(pairs))
        self.set_items([part for key, value in pairs for part in (key, value)])

    def count_copies(self, n: int) -> None:
        self.copied += n
        if self.copied > len(self.data):
            raise ArchiveError("its pickle copies more than it holds")

    # ------------------------------------------------------------------ what stands for NumPy's objects

    def encode(self, text: Any, codec: Any) -> bytes:
        """Bytes, as protocol 2 writes them."""
        if type(text) is not str or codec != "latin1":
            raise ArchiveError("its pickle encodes something other than text as latin1")
        self.count_copies(len(text))
        return text.encode("latin1")

    def build(self) -> None:
        """The state of an array or of its dtype; attributes of a state dict are left out."""
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, _Dtype):
            _, order, *fields = state
            if order not in ("<", "|") or any(field is not None for field in fields[:3]):
                raise ArchiveError("an array in it is not one of plain little-endian numbers")
        elif isinstance(target, Array):
            _, shape, dtype, fortran, data = state
            target.values = _array(data, dtype, shape, "F" if fortran else "C")


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any) -> Tensor:
    plain = isinstance(storage, Storage) and type(shape) is tuple and type(stride) is tuple
    plain = plain and len(shape) == len(stride) <= MAX_DIMENSIONS
    if not plain or any(type(n) is not int or not 0 <= n < 1 << 62 for n in (offset, *shape, *stride)):
        raise ArchiveError("a tensor in it is not described by a storage and integers")
    return Tensor(storage, offset, shape, stride)


def _new_array(_: _Machine, kind: Any, *__: Any) -> Array:
    if kind is not _NDARRAY:
        raise ArchiveError("an array in it is not one of NumPy's own")
    return Array()


def _dtype(_: _Machine, name: Any, *__: Any) -> _Dtype:
    if type(name) is not str or not re.fullmatch("[fiu][1248]", name):
        raise ArchiveError(f"an array in it has the dtype {str(name)[:40]!r}, which is no number")
    return _Dtype(name)


def _from_buffer(_: _Machine, data: Any, dtype: Any, shape: Any, order: Any) -> Array:
    """An array, as protocol 5 writes it."""
    made = Array()
    made.values = _array(data, dtype, shape, "F" if order == "F" else "C")
    return made


def _array(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    plain = type(data) is bytes and isinstance(dtype, _Dtype) and type(shape) is tuple
    if not plain or len(shape) > MAX_DIMENSIONS or any(type(n) is not int or n < 0 for n in shape):
        raise ArchiveError("an array in it is not described by bytes, a dtype and integers")
    kind = np.dtype(f"<{dtype.name}")
    if math.prod(shape) * kind.itemsize != len(data) or max(shape, default=0) > 1 << 40:
        raise ArchiveError(f"an array in it has the shape {str(shape)[:80]}, and {len(data):,} bytes")
    return np.frombuffer(data, kind).reshape(shape, order=order)


_CORES = ("numpy.core", "numpy._core")  # before and since NumPy 2
_ENCODE, _DTYPE = _Function("encode"), _Function("dtype")
_RECONSTRUCT, _FROM_BUFFER = _Function("_reconstruct"), _Function("_frombuffer")
_ARRAY_NAMES: dict[tuple[str, str], _Function] = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _DTYPE,
    ("_codecs", "encode"): _ENCODE,
    **{(f"{core}.multiarray", "_reconstruct"): _RECONSTRUCT for core in _CORES},
    **{(f"{core}.numeric", "_frombuffer"): _FROM_BUFFER for core in _CORES},
}
_ARRAY_MAKERS: dict[_Function, Callable[..., Any]] = {
    _ENCODE: _Machine.encode,
    _DTYPE: _dtype,
    _RECONSTRUCT: _new_array,
    _FROM_BUFFER: _from_buffer,
}
_INSTRUCTIONS: dict[bytes, Callable[[_Machine], Any]] = {
    pickle.PROTO: lambda m: m.take(1),
    pickle.FRAME: lambda m: m.take(8),
    pickle.NONE: lambda m: m.push(None),
    pickle.NEWTRUE: lambda m: m.push(True),
    pickle.NEWFALSE: lambda m: m.push(False),
    pickle.BININT: lambda m: m.push(m.signed(4)),
    pickle.BININT1: lambda m: m.push(m.unsigned(1)),
    pickle.BININT2: lambda m: m.push(m.unsigned(2)),
    pickle.LONG1: lambda m: m.push(m.signed(m.unsigned(1))),
    pickle.BINFLOAT: lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    pickle.SHORT_BINSTRING: lambda m: m.push(m.text(m.unsigned(1))),
    pickle.BINSTRING: lambda m: m.push(m.text(m.unsigned(4))),
    pickle.SHORT_BINUNICODE: lambda m: m.push(m.text(m.unsigned(1))),
    pickle.BINUNICODE: lambda m: m.push(m.text(m.unsigned(4))),
    pickle.EMPTY_DICT: lambda m: m.push({}),
    pickle.EMPTY_LIST: lambda m: m.push([]),
    pickle.EMPTY_TUPLE: lambda m: m.push(()),
    pickle.MARK: lambda m: m.push(_MARK),
    pickle.TUPLE: lambda m: m.push(tuple(m.to_mark())),
    pickle.TUPLE1: lambda m: m.tuple_of(1),
    pickle.TUPLE2: lambda m: m.tuple_of(2),
    pickle.TUPLE3: lambda m: m.tuple_of(3),
    pickle.APPEND: lambda m: m.extend([m.stack.pop()]),
    pickle.APPENDS: lambda m: m.extend(m.to_mark()),
    pickle.SETITEM: lambda m: m.set_items([m.stack.pop() for _ in range(2)][::-1]),
    pickle.SETITEMS: lambda m: m.set_items(m.to_mark()),
    pickle.BINPUT: lambda m: m.remember(m.unsigned(1)),
    pickle.LONG_BINPUT: lambda m: m.remember(m.unsigned(4)),
    pickle.MEMOIZE: lambda m: m.remember(len(m.memo)),
    pickle.BINGET: lambda m: m.push(m.memo[m.unsigned(1)]),
    pickle.LONG_BINGET: lambda m: m.push(m.memo[m.unsigned(4)]),
    pickle.GLOBAL: lambda m: m.find(m.line(), m.line()),
    pickle.STACK_GLOBAL: lambda m: m.find_from_stack(),
    pickle.BINPERSID: lambda m: m.storage(),
    pickle.REDUCE: lambda m: m.call(),
    pickle.BUILD: lambda m: m.build(),
}
_ARRAY_INSTRUCTIONS: dict[bytes, Callable[[_Machine], Any]] = {
    pickle.SHORT_BINBYTES: lambda m: m.push(m.take(m.unsigned(1))),
    pickle.BINBYTES: lambda m: m.push(m.take(m.unsigned(4))),
    pickle.BINBYTES8: lambda m: m.push(m.take(m.unsigned(8))),
    pickle.BYTEARRAY8: lambda m: m.push(m.take(m.unsigned(8))),
}
