"""An abstract machine for the pickles inside torch checkpoints. It imports nothing and calls nothing that a file names.

`pickletools.genops` turns the bytes into opcodes; this machine interprets an allow-list of them over plain containers. A GLOBAL
pushes an inert `Name`; REDUCE of a name is a switch over the few constructors that tensors are made of, and of any other name an
inert `Opaque`, so that a checkpoint with an optimizer, an argparse.Namespace or somebody's class beside its tensors still reads.
"""

from __future__ import annotations

import pickletools
import struct
from collections import OrderedDict
from collections.abc import Callable
from typing import IO, Any

import ml_dtypes
import numpy as np

from jaxft.errors import JaxftError


class UnsafeCheckpoint(JaxftError):
    """A file that is not a whole, plain torch checkpoint: damaged, or made to do harm."""


#: Limits of one pickle. A ResNet-152 with optimizer state needs some 60,000 opcodes.
MAX_OPCODES = 20_000_000
MAX_KEY_BITS = 60  # int keys beyond this can be made to collide in a dict
MAX_DIMENSIONS = 16
MAX_TUPLE_KEY = 8

_DTYPES = {
    "float64": "f8", "float32": "f4", "float16": "f2", "int64": "i8", "int32": "i4", "int16": "i2", "int8": "i1",
    "uint8": "u1", "uint16": "u2", "uint32": "u4", "uint64": "u8", "bool": "?", "complex64": "c8", "complex128": "c16",
}  # fmt: skip
DTYPES: dict[str, np.dtype] = {f"torch.{name}": np.dtype(code) for name, code in _DTYPES.items()}
for _name in ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"):
    DTYPES[f"torch.{_name}"] = np.dtype(getattr(ml_dtypes, _name))

_STORAGES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64", "Int": "int32",
    "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool", "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
}  # fmt: skip
STORAGES = {f"torch.{name}Storage": DTYPES[f"torch.{dtype}"] for name, dtype in _STORAGES.items()}
STORAGES["torch.storage.UntypedStorage"] = np.dtype("u1")
STORAGES |= {name: dtype for name, dtype in DTYPES.items() if "float8" in name}


class Name:
    """A dotted name from the file. It is never looked up."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name


class Opaque:
    """What a call that is not made would have given."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name


class Storage:
    """Bytes of a tensor's memory, `numel` elements of `dtype`. In the old format they follow the pickle, so may come late."""

    __slots__ = ("data", "dtype", "key", "numel")

    def __init__(self, key: str, dtype: np.dtype, numel: int, data: np.ndarray | None = None):
        self.key, self.dtype, self.numel, self.data = key, dtype, numel, data


class View:
    """A tensor: offset, shape and strides, in elements, into a storage. All checked against the storage's size."""

    __slots__ = ("dtype", "offset", "shape", "storage", "strides")

    def __init__(self, storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype):
        self.storage, self.offset, self.shape, self.strides, self.dtype = storage, offset, shape, strides, dtype

    def array(self) -> np.ndarray:
        if 0 in self.shape:
            return np.zeros(self.shape, self.dtype)
        size = self.dtype.itemsize
        # NumPy checks the bounds once more.
        return np.ndarray(
            self.shape, self.dtype, self.storage.data, self.offset * size, tuple(step * size for step in self.strides)
        )


class _Mark:
    pass


class _NumpyDtype:
    __slots__ = ("code", "order")

    def __init__(self, code: str):
        self.code, self.order = code, "<"


_MARK = _Mark()
_PUSHED = frozenset(
    "BININT BININT1 BININT2 INT LONG LONG1 LONG4 BINFLOAT FLOAT BINUNICODE SHORT_BINUNICODE BINUNICODE8 UNICODE "
    "SHORT_BINSTRING BINSTRING STRING BINBYTES SHORT_BINBYTES BINBYTES8".split()
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_SET": set}
_NUMPY_CODES = frozenset("f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 b1".split())
_MALFORMED = (
    IndexError, KeyError, ValueError, TypeError, struct.error, OverflowError, AttributeError, EOFError, RecursionError,
    MemoryError, UnicodeError,
)  # fmt: skip


class Machine:
    """Interprets one pickle.

    Args:
      persistent: turns a persistent id into a `Storage`.
      budget: bytes that all tensors together may claim; a tensor of stride 0 claims what it would hold.
    """

    def __init__(self, persistent: Callable[[Any], Storage], budget: int):
        self._persistent = persistent
        self._budget = budget
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def load(self, file: IO[bytes]) -> Any:
        """The object of the pickle that starts here; `file` is left behind its STOP.

        Raises:
          UnsafeCheckpoint: anything but a plain pickle.
        """
        count = 0
        try:
            for opcode, argument, _ in pickletools.genops(file):
                count += 1
                if count > MAX_OPCODES:
                    raise UnsafeCheckpoint(f"more than {MAX_OPCODES} opcodes")
                if opcode.name == "STOP":
                    if len(self._stack) != 1 or self._stack[0] is _MARK:
                        raise UnsafeCheckpoint("the pickle does not end in one object")
                    return self._stack[0]
                self._run(opcode.name, argument)
        except UnsafeCheckpoint:
            raise
        except _MALFORMED as error:
            raise UnsafeCheckpoint(f"the pickle is malformed ({type(error).__name__}: {str(error)[:80]})") from error
        raise UnsafeCheckpoint("the pickle has no end")

    def _run(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _PUSHED:
            stack.append(argument)
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self._memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self._memo[argument])
        elif name == "MARK":
            stack.append(_MARK)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in ("LIST", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"):
            self._sequence(name)
        elif name in ("SETITEM", "SETITEMS", "DICT", "APPEND", "APPENDS", "ADDITEMS"):
            self._fill(name)
        elif name == "GLOBAL":
            stack.append(Name(argument.replace(" ", ".", 1)))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            if type(attribute) is not str or type(module) is not str:
                raise UnsafeCheckpoint("a global without a name")
            stack.append(Name(f"{module}.{attribute}"))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, function = stack.pop(), stack.pop()
            stack.append(self._call(function, arguments))
        elif name == "BUILD":
            self._build(stack.pop(), stack[-1])
        elif name == "BINPERSID":
            stack.append(self._persistent(stack.pop()))
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            self._pop_mark()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name not in ("PROTO", "FRAME"):
            raise UnsafeCheckpoint(f"the opcode {name} is not allowed")

    def _pop_mark(self) -> list[Any]:
        for index in range(len(self._stack) - 1, -1, -1):
            if self._stack[index] is _MARK:
                found = self._stack[index + 1 :]
                del self._stack[index:]
                return found
        raise UnsafeCheckpoint("a mark is missing")

    def _sequence(self, name: str) -> None:
        if name in ("LIST", "TUPLE"):
            items = self._pop_mark()
        else:
            length = int(name[-1])
            items = self._stack[-length:]
            if len(items) != length:
                raise UnsafeCheckpoint("the stack is too short")
            del self._stack[-length:]
        self._stack.append(items if name == "LIST" else tuple(items))

    def _fill(self, name: str) -> None:
        stack = self._stack
        if name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            items = [key, value]
        elif name == "APPEND":
            items = [stack.pop()]
        else:
            items = self._pop_mark()
        if name == "DICT":
            stack.append({})
        target = stack[-1]
        if type(target) is Opaque:
            return
        if name in ("SETITEM", "SETITEMS", "DICT"):
            if type(target) not in (dict, OrderedDict) or len(items) % 2:
                raise UnsafeCheckpoint(f"{name} on a {type(target).__name__}")
            for key, value in zip(items[::2], items[1::2], strict=True):
                target[_key(key)] = value
        elif name == "ADDITEMS" and type(target) is set:
            target.update(_key(item) for item in items)
        elif name != "ADDITEMS" and type(target) is list:
            target.extend(items)
        else:
            raise UnsafeCheckpoint(f"{name} on a {type(target).__name__}")

    def _build(self, state: Any, target: Any) -> None:
        """Attributes set on an object. Only a NumPy dtype's byte order matters; `_metadata` of a state dict does not."""
        if type(target) is _NumpyDtype:
            if type(state) is not tuple or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
                raise UnsafeCheckpoint("a NumPy dtype without a byte order")
            target.order = state[1]
        elif type(target) not in (OrderedDict, View, Opaque):
            raise UnsafeCheckpoint(f"BUILD on a {type(target).__name__}")

    def _call(self, function: Any, arguments: Any) -> Any:
        if type(function) is not Name or type(arguments) is not tuple:
            raise UnsafeCheckpoint("a call of something that is not a name")
        name, count = function.name, len(arguments)
        if name in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor") and count >= 4:
            return self._tensor(*arguments[:4])
        if name == "torch._utils._rebuild_tensor_v3" and count >= 7:
            dtype = DTYPES.get(getattr(arguments[6], "name", ""))
            if dtype is None:
                raise UnsafeCheckpoint("a tensor of an unknown dtype")
            return self._tensor(*arguments[:4], dtype=dtype)
        if name.startswith("torch._utils._rebuild_parameter") and count and type(arguments[0]) is View:
            return arguments[0]
        if name == "collections.OrderedDict" and count <= 1:
            pairs = arguments[0] if count else []
            return OrderedDict((_key(key), value) for key, value in pairs)
        if name == "torch.Size" and count == 1:
            return tuple(int(size) for size in arguments[0])
        if name in ("builtins.set", "__builtin__.set") and count <= 1:
            return {_key(item) for item in (arguments[0] if count else ())}
        if name == "_codecs.encode" and count == 2 and arguments[1] == "latin1":
            return arguments[0].encode("latin1")
        if name == "numpy.dtype" and count:
            code = str(arguments[0]).lstrip("<>|=")
            return _NumpyDtype(code) if code in _NUMPY_CODES else Opaque(name)
        if name in ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar") and count == 2:
            return _scalar(*arguments)
        return Opaque(name)

    def _tensor(self, storage: Any, offset: Any, shape: Any, strides: Any, dtype: np.dtype | None = None) -> View:
        """Checks a view in Python's own integers, which do not overflow."""
        if type(storage) is not Storage:
            raise UnsafeCheckpoint("a tensor without a storage")
        sizes = (shape, strides)
        if any(type(part) is not tuple or len(part) > MAX_DIMENSIONS for part in sizes) or len(shape) != len(strides):
            raise UnsafeCheckpoint("a tensor without a proper shape")
        numbers = (offset, *shape, *strides)
        if any(type(number) is not int or not 0 <= number < 1 << 62 for number in numbers):
            raise UnsafeCheckpoint("a tensor whose shape, strides or offset are not sizes")
        dtype = dtype or storage.dtype
        count = 1
        for size in shape:
            count *= size
        last = offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True)) if count else offset - 1
        room = storage.numel * storage.dtype.itemsize // dtype.itemsize
        if last >= room or offset > room:
            raise UnsafeCheckpoint(f"a tensor reaches to element {last} of a storage of {room}")
        self._budget -= count * dtype.itemsize
        if self._budget < 0:
            raise UnsafeCheckpoint("the tensors claim more memory than is allowed")
        return View(storage, offset, shape, strides, dtype)


def _key(key: Any) -> Any:
    """Keys that hash cheaply and cannot be made to collide by the thousand."""
    if type(key) is tuple and len(key) <= MAX_TUPLE_KEY and all(type(part) is not tuple for part in key):
        return tuple(_key(part) for part in key)
    if type(key) is int and abs(key) >= 1 << MAX_KEY_BITS:
        raise UnsafeCheckpoint("an integer key out of range")
    if type(key) in (str, bytes, bool, int, float, type(None)):
        return key
    raise UnsafeCheckpoint(f"a key of type {type(key).__name__}")


def _scalar(dtype: Any, raw: Any) -> Any:
    if type(dtype) is not _NumpyDtype or type(raw) is not bytes:
        raise UnsafeCheckpoint("a NumPy scalar without a dtype")
    kind = np.dtype(dtype.code).newbyteorder(dtype.order if dtype.order in "<>" else "=")
    if len(raw) != kind.itemsize:
        raise UnsafeCheckpoint("a NumPy scalar of the wrong size")
    return np.frombuffer(raw, kind)[0]
