"""What the calls in a torch checkpoint give: tensors, NumPy scalars, a few containers. Any other call is not made."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np

from jaxft.weights.limits import Limits, UnsafeCheckpoint
from jaxft.weights.torch_types import DTYPES, Storage, View

#: Python hashes an int modulo 2**61 - 1: longer ones can be made to collide in a dict, which then takes quadratic time.
_KEYS = 1 << 60
#: Nor are tuples hashed with a secret: those that are keys are few.
MAX_TUPLE_KEYS = 2_000
MAX_TUPLE_KEY = 8
MAX_DIMENSIONS = 16
#: Prices in bytes: of a list, of a dict or set, and of an item of these when they have just grown; of a tensor, a NumPy scalar.
LIST, DICT, ITEM = 112, 256, 176
_TENSOR, _SCALAR = 320, 64


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


class NumpyDtype:
    """One of the plain dtypes, with its byte order, which a pickle sets after the call."""

    __slots__ = ("code", "order")

    def __init__(self, code: str):
        self.code, self.order = code, "<"


_NUMPY_CODES = frozenset({"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"})
_CONTAINERS = frozenset({"collections.OrderedDict", "torch.Size", "builtins.set", "__builtin__.set"})


class Calls:
    """The calls of one file.

    Args:
      limits: what the file may still cost.
    """

    def __init__(self, limits: Limits):
        self._limits = limits
        self._tuple_keys = 0

    def __call__(self, function: Any, arguments: Any) -> Any:
        """What the call of a name would have given: the real thing for the few that are known, else an `Opaque`.

        Raises:
          UnsafeCheckpoint: the call of something else, or arguments that no checkpoint has.
        """
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
            self._limits.spend(1, 0)
            return self(arguments[0], arguments[2])  # a tensor with attributes of its own
        if name.startswith("torch._utils._rebuild_parameter") and count and type(arguments[0]) is View:
            return arguments[0]
        if name in ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar") and count == 2:
            return self._scalar(*arguments)
        if name == "numpy.dtype" and count and type(arguments[0]) is str:
            code = arguments[0][:8].lstrip("<>|=")
            return NumpyDtype(code) if code in _NUMPY_CODES else Opaque(name)
        if name in _CONTAINERS and count <= 1:
            return self._container(name, arguments[0] if count else [])
        if name == "_codecs.encode" and count == 2 and type(arguments[0]) is str and type(arguments[1]) is str:
            return self._encoded(*arguments)
        return Opaque(name)

    def key(self, key: Any) -> Any:
        """Keys that hash cheaply and cannot be made to collide by the thousand."""
        if isinstance(key, np.generic):
            key = key.item()
        if type(key) is tuple:
            self._tuple_keys += 1
            if len(key) > MAX_TUPLE_KEY or self._tuple_keys > MAX_TUPLE_KEYS or any(type(part) is tuple for part in key):
                raise UnsafeCheckpoint("too many or too long tuples as keys")
            return tuple(self.key(part) for part in key)
        if type(key) is int and not -_KEYS < key < _KEYS:
            raise UnsafeCheckpoint("an integer key out of range")
        # The stand-ins hash by identity.
        if type(key) in (str, bytes, bool, int, float, type(None), Name, Opaque):
            return key
        raise UnsafeCheckpoint(f"a key of type {type(key).__name__}")

    def _container(self, name: str, items: Any) -> Any:
        """An OrderedDict, set or torch.Size, which copies a list that may stand in the file once and be used often."""
        if type(items) not in (list, tuple):
            raise UnsafeCheckpoint(f"a {name} of a {type(items).__name__}")
        self._limits.spend(len(items), DICT + len(items) * (8 if name == "torch.Size" else 2 * ITEM))
        if name == "torch.Size":
            return tuple(items)
        if name != "collections.OrderedDict":
            return {self.key(item) for item in items}
        if any(type(item) not in (list, tuple) or len(item) != 2 for item in items):
            raise UnsafeCheckpoint("an OrderedDict of what are no pairs")
        return OrderedDict((self.key(key), value) for key, value in items)

    def _encoded(self, text: str, encoding: str) -> Any:
        if encoding != "latin1":
            return Opaque("_codecs.encode")
        self._limits.spend(len(text) >> 6, len(text))
        return text.encode("latin1")

    def _scalar(self, dtype: Any, raw: Any) -> Any:
        if type(dtype) is not NumpyDtype or type(raw) is not bytes:
            raise UnsafeCheckpoint("a NumPy scalar without a dtype")
        self._limits.spend(8, _SCALAR)
        kind = np.dtype(dtype.code).newbyteorder(">" if dtype.order == ">" else "<")
        if len(raw) != kind.itemsize:
            raise UnsafeCheckpoint("a NumPy scalar of the wrong size")
        return np.frombuffer(raw, kind)[0]

    def _tensor(self, storage: Any, offset: Any, shape: Any, strides: Any, dtype: np.dtype | None = None) -> View:
        """Checks a view in Python's own integers, which do not overflow."""
        if type(storage) is not Storage:
            raise UnsafeCheckpoint("a tensor without a storage")
        sizes = (shape, strides)
        if any(type(part) is not tuple or len(part) > MAX_DIMENSIONS for part in sizes) or len(shape) != len(strides):
            raise UnsafeCheckpoint("a tensor without a proper shape")
        self._limits.spend(8 + 2 * len(shape), _TENSOR + 32 * len(shape))
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
        self._limits.claim(count * dtype.itemsize)
        return View(storage, offset, shape, strides, dtype)
