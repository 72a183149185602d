"""An abstract machine for the pickles in torch checkpoints. It imports nothing and calls nothing that a file names.

`pickletools.genops` turns the bytes into opcodes; this machine interprets an allow-list of them over plain containers.
A GLOBAL pushes an inert `Name`; REDUCE of a name is a switch over the few constructors that tensors are made of, and of
any other name an inert `Opaque`, so that a checkpoint with an optimizer, an argparse.Namespace or somebody's class
beside its tensors still reads.

Work is bounded by the length of the file: opcodes are counted, and so is what one opcode copies of a container that
stands in the file once. Nothing walks into a container: by references, a small file can hold one of any size.
"""

from __future__ import annotations

import pickletools
import struct
from collections import OrderedDict
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from jaxft.errors import JaxftError
from jaxft.weights.torch_types import DTYPES, Storage, View


class UnsafeCheckpoint(JaxftError):
    """A file that is not a whole, plain torch checkpoint: damaged, or made to do harm."""


#: Opcodes of one pickle, and items copied by calls. A ResNet-152 with optimizer state needs some 60,000.
MAX_WORK = 4_000_000
#: Python hashes an int modulo 2**61 - 1: longer ones can be made to collide in a dict, which then takes quadratic time.
MAX_KEY_BITS = 60
#: Nor are tuples hashed with a secret: those that are keys are few.
MAX_TUPLE_KEYS = 10_000
MAX_TUPLE_KEY = 8
MAX_MEMO = 1 << 32
MAX_DIMENSIONS = 16


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


class _Mark:
    pass


class _NumpyDtype:
    __slots__ = ("code", "order")

    def __init__(self, code: str):
        self.code, self.order = code, "<"


_MARK = _Mark()
_PUSHED = frozenset({
    "BINBYTES", "BINBYTES8", "BINFLOAT", "BININT", "BININT1", "BININT2", "BINSTRING", "BINUNICODE", "BINUNICODE8",
    "BYTEARRAY8", "FLOAT", "INT", "LONG", "LONG1", "LONG4", "SHORT_BINBYTES", "SHORT_BINSTRING", "SHORT_BINUNICODE",
    "STRING", "UNICODE",
})  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_SET": set}
_NUMPY_CODES = frozenset({"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"})
_CONTAINERS = frozenset({"collections.OrderedDict", "torch.Size", "builtins.set", "__builtin__.set"})
_MALFORMED = (
    IndexError, KeyError, ValueError, TypeError, struct.error, OverflowError, AttributeError, EOFError, RecursionError,
    MemoryError, UnicodeError,
)  # fmt: skip


class Machine:
    """Interprets one pickle.

    Args:
      persistent: turns a persistent id into a `Storage`, or the `Name` of a class.
      budget: bytes that all tensors together may claim; a tensor of stride 0 claims what it would hold.
    """

    def __init__(self, persistent: Callable[[Any], Any], budget: int):
        self._persistent = persistent
        self._budget = budget
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._work = 0
        self._tuple_keys = 0

    def load(self, file: IO[bytes]) -> Any:
        """The object of the pickle that starts here; `file` is left behind its STOP.

        Raises:
          UnsafeCheckpoint: anything but a plain pickle.
        """
        try:
            for opcode, argument, _ in pickletools.genops(file):
                self._spend(1)
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

    def _spend(self, work: int) -> None:
        self._work += work
        if self._work > MAX_WORK:
            raise UnsafeCheckpoint(f"its pickle takes more than {MAX_WORK} steps")

    def _run(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _PUSHED:
            stack.append(argument)
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            if not 0 <= argument < MAX_MEMO:
                raise UnsafeCheckpoint("a memo index out of range")
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
        elif name in ("LIST", "TUPLE", "FROZENSET", "TUPLE1", "TUPLE2", "TUPLE3"):
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
        elif name == "NEWOBJ_EX":
            keywords, arguments, function = stack.pop(), stack.pop(), stack.pop()
            if type(keywords) is not dict:
                raise UnsafeCheckpoint("a call with keywords that are none")
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
        if name in ("LIST", "TUPLE", "FROZENSET"):
            items = self._pop_mark()
        else:
            length = int(name[-1])
            items = self._stack[-length:]
            if len(items) != length:
                raise UnsafeCheckpoint("the stack is too short")
            del self._stack[-length:]
        if name == "FROZENSET":
            self._stack.append(frozenset(self._key(item) for item in items))
        else:
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
                target[self._key(key)] = value
        elif name == "ADDITEMS" and type(target) is set:
            target.update(self._key(item) for item in items)
        elif name != "ADDITEMS" and type(target) is list:
            target.extend(items)
        else:
            raise UnsafeCheckpoint(f"{name} on a {type(target).__name__}")

    def _build(self, state: Any, target: Any) -> None:
        """Attributes set on an object. Only a NumPy dtype's byte order matters, not the `_metadata` of a state dict."""
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
            dtype = DTYPES.get(arguments[6].name) if type(arguments[6]) is Name else None
            if dtype is None:
                raise UnsafeCheckpoint("a tensor of an unknown dtype")
            storage, offset, shape, strides = arguments[:4]
            return self._tensor(storage, offset, shape, strides, dtype)
        if name == "torch._tensor._rebuild_from_type_v2" and count == 4:
            return self._call(arguments[0], arguments[2])  # a tensor with attributes of its own
        if name.startswith("torch._utils._rebuild_parameter") and count and type(arguments[0]) is View:
            return arguments[0]
        if name in ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar") and count == 2:
            return _scalar(*arguments)
        if name == "numpy.dtype" and count and type(arguments[0]) is str:
            code = arguments[0][:8].lstrip("<>|=")
            return _NumpyDtype(code) if code in _NUMPY_CODES else Opaque(name)
        if name in _CONTAINERS and count <= 1:
            return self._container(name, arguments[0] if count else [])
        if name == "_codecs.encode" and count == 2 and type(arguments[0]) is str and arguments[1] == "latin1":
            self._spend(len(arguments[0]) // 64)
            return arguments[0].encode("latin1")
        return Opaque(name)

    def _container(self, name: str, items: Any) -> Any:
        """An OrderedDict, set or torch.Size, which copies a list that may stand in the file once and be used often."""
        if type(items) not in (list, tuple):
            raise UnsafeCheckpoint(f"a {name} of a {type(items).__name__}")
        self._spend(len(items))
        if name == "collections.OrderedDict":
            return OrderedDict((self._key(key), value) for key, value in items)
        if name == "torch.Size":
            return tuple(items)
        return {self._key(item) for item in items}

    def _key(self, key: Any) -> Any:
        """Keys that hash cheaply and cannot be made to collide by the thousand."""
        if isinstance(key, np.generic):
            key = key.item()
        if type(key) is tuple:
            self._tuple_keys += 1
            if len(key) > MAX_TUPLE_KEY or self._tuple_keys > MAX_TUPLE_KEYS or any(type(part) is tuple for part in key):
                raise UnsafeCheckpoint("too many or too long tuples as keys")
            return tuple(self._key(part) for part in key)
        if type(key) is int and abs(key) >= 1 << MAX_KEY_BITS:
            raise UnsafeCheckpoint("an integer key out of range")
        # The stand-ins hash by identity.
        if type(key) in (str, bytes, bool, int, float, type(None), Name, Opaque):
            return key
        raise UnsafeCheckpoint(f"a key of type {type(key).__name__}")

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
        count, bound, last = 1, dtype.itemsize, offset
        for size, step in zip(shape, strides, strict=True):
            count *= size
            bound *= max(size, 1)
            last += (size - 1) * step
        room = storage.numel * storage.dtype.itemsize // dtype.itemsize
        if offset > room or (count and last >= room):
            raise UnsafeCheckpoint(f"a tensor reaches to element {max(last, offset)} of a storage of {room}")
        if bound >= 1 << 62:  # an empty tensor may have sides that no array can have
            raise UnsafeCheckpoint("a tensor whose sides are too long")
        self._budget -= count * dtype.itemsize
        if self._budget < 0:
            raise UnsafeCheckpoint("the tensors claim more memory than a file of this size may")
        return View(storage, offset, shape, strides, dtype)


def _scalar(dtype: Any, raw: Any) -> Any:
    if type(dtype) is not _NumpyDtype or type(raw) is not bytes:
        raise UnsafeCheckpoint("a NumPy scalar without a dtype")
    kind = np.dtype(dtype.code).newbyteorder(">" if dtype.order == ">" else "<")
    if len(raw) != kind.itemsize:
        raise UnsafeCheckpoint("a NumPy scalar of the wrong size")
    return np.frombuffer(raw, kind)[0]
