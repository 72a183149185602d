"""An abstract machine for the pickles in torch checkpoints. It imports nothing and calls nothing that a file names.

It interprets an allow-list of opcodes over plain containers. A GLOBAL pushes an inert `Name`; REDUCE of a name is a switch
over the few constructors that tensors are made of (`pickle_calls`), and of any other name an inert `Opaque`, so that a
checkpoint with an optimizer, an argparse.Namespace or somebody's class beside its tensors still reads.

Time and memory are bounded by the size of the file: each opcode, and what it copies of a container that stands in the file
once, is charged to the file's `Limits`. Nothing walks into a container: by references, a small file can hold one of any size.
"""

from __future__ import annotations

import pickletools
import struct
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from jaxft.weights import pickle_opcodes as read
from jaxft.weights.limits import Limits, UnsafeCheckpoint
from jaxft.weights.pickle_calls import DICT, ITEM, LIST, Calls, Name, NumpyDtype, Opaque
from jaxft.weights.torch_types import View

#: Bytes that any opcode may take: a place on the stack and one in the memo, in lists that may just have grown.
_PLACE = 10
_NUMBER = 32
_MALFORMED = (
    IndexError, KeyError, ValueError, TypeError, struct.error, OverflowError, AttributeError, EOFError, RecursionError,
    MemoryError, UnicodeError,
)  # fmt: skip


class _Mark:
    pass


_MARK = _Mark()
_MISSING = _Mark()


class Machine:
    """Interprets one pickle.

    Args:
      data: the pickle, and maybe more behind it.
      persistent: turns a persistent id into a `Storage`, or the `Name` of a class.
      limits: what the file may still cost.
    """

    def __init__(self, data: memoryview, persistent: Callable[[Any], Any], limits: Limits):
        self._data = data
        self._persistent = persistent
        self._limits = limits
        self._calls = Calls(limits)
        self._stack: list[Any] = []
        self._memo: list[Any] = []

    def load(self, at: int = 0) -> tuple[Any, int]:
        """The object of the pickle that starts at a place, and the place behind it.

        Raises:
          UnsafeCheckpoint: anything but a plain pickle.
        """
        try:
            return self._load(at)
        except UnsafeCheckpoint:
            raise
        except _MALFORMED as error:
            raise UnsafeCheckpoint(f"the pickle is malformed ({type(error).__name__}: {str(error)[:80]})") from error

    def _load(self, at: int) -> tuple[Any, int]:
        data, limits, size = self._data, self._limits, len(self._data)
        while at < size:
            code = data[at]
            at += 1
            if code == _STOP:
                if len(self._stack) != 1 or isinstance(self._stack[0], _Mark):
                    raise UnsafeCheckpoint("the pickle does not end in one object")
                return self._stack[0], at
            if code not in _TABLE:
                raise UnsafeCheckpoint(f"the opcode {_NAMES.get(code, code)} is not allowed")
            argument, memory, run = _TABLE[code]
            limits.steps -= 1
            limits.memory -= _PLACE + memory
            if limits.steps < 0 or limits.memory < 0:
                limits.check()
            if argument is None:
                run(self)
            else:
                value, at = argument(data, at, limits)
                run(self, value)
        raise UnsafeCheckpoint("the pickle has no end")

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pass(self, value: Any) -> None:
        """Protocol and frames say nothing that is needed."""

    def _put(self, index: int) -> None:
        memo, missing = self._memo, index - len(self._memo)
        if missing < 0:
            memo[index] = self._stack[-1]
            return
        if missing:  # Python 2 starts at 1, others at 0, and each goes on by one
            self._limits.spend(missing >> 6, _PLACE * missing)
            memo.extend([_MISSING] * missing)
        memo.append(self._stack[-1])

    def _memoize(self) -> None:
        self._memo.append(self._stack[-1])

    def _get(self, index: int) -> None:
        value = self._memo[index]
        if value is _MISSING:
            raise IndexError("nothing is kept there")
        self._stack.append(value)

    def _global(self, name: str) -> None:
        self._stack.append(Name(name))

    def _stack_global(self) -> None:
        attribute, module = self._stack.pop(), self._stack.pop()
        if type(attribute) is not str or type(module) is not str:
            raise UnsafeCheckpoint("a global without a name")
        if len(attribute) + len(module) > 2 * read.MAX_LINE:
            raise UnsafeCheckpoint("a name of thousands of characters")
        self._limits.spend(2, 4 * (len(attribute) + len(module)))
        self._stack.append(Name(f"{module}.{attribute}"))

    def _reduce(self) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        self._stack.append(self._calls(function, arguments))

    def _new_with_keywords(self) -> None:
        if type(self._stack.pop()) is not dict:
            raise UnsafeCheckpoint("a call with keywords that are none")
        self._reduce()

    def _build(self) -> None:
        """Attributes set on an object. Only a NumPy dtype's byte order matters, not the `_metadata` of a state dict."""
        state, target = self._stack.pop(), self._stack[-1]
        if type(target) is NumpyDtype:
            order = state[1] if type(state) is tuple and len(state) > 1 else None
            if type(order) is not str or order not in ("<", ">", "|", "="):
                raise UnsafeCheckpoint("a NumPy dtype without a byte order")
            target.order = order
        elif type(target) not in (OrderedDict, View, Opaque):
            raise UnsafeCheckpoint(f"BUILD on a {type(target).__name__}")

    def _persistent_id(self) -> None:
        self._stack.append(self._persistent(self._stack.pop()))

    def _pop(self) -> None:
        self._stack.pop()

    def _dup(self) -> None:
        self._stack.append(self._stack[-1])

    def _pop_mark(self) -> list[Any]:
        stack = self._stack
        for index in range(len(stack) - 1, -1, -1):
            if stack[index] is _MARK:
                self._limits.spend(0, 8 * (len(stack) - index))
                found = stack[index + 1 :]
                del stack[index:]
                return found
        raise UnsafeCheckpoint("a mark is missing")

    def _discard(self) -> None:
        self._pop_mark()

    def _list(self) -> None:
        self._stack.append(self._pop_mark())

    def _tuple(self) -> None:
        items = self._pop_mark()
        self._limits.spend(0, 8 * len(items))
        self._stack.append(tuple(items))

    def _frozenset(self) -> None:
        items = self._pop_mark()
        self._limits.spend(len(items), ITEM * len(items))
        self._stack.append(frozenset(self._calls.key(item) for item in items))

    def _short_tuple(self, length: int) -> None:
        items = self._stack[-length:]
        if len(items) != length:
            raise UnsafeCheckpoint("the stack is too short")
        del self._stack[-length:]
        self._stack.append(tuple(items))

    def _set_items(self, items: list[Any], name: str) -> None:
        target = self._stack[-1]
        if type(target) is Opaque:
            return
        if type(target) not in (dict, OrderedDict) or len(items) % 2:
            raise UnsafeCheckpoint(f"{name} on a {type(target).__name__}")
        self._limits.spend(0, ITEM * (len(items) // 2))
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[self._calls.key(key)] = value

    def _set_item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set_items([key, value], "SETITEM")

    def _dict(self) -> None:
        items = self._pop_mark()
        self._stack.append({})
        self._set_items(items, "DICT")

    def _extend(self, items: list[Any], name: str) -> None:
        target = self._stack[-1]
        if type(target) is Opaque:
            return
        if type(target) is not list:
            raise UnsafeCheckpoint(f"{name} on a {type(target).__name__}")
        self._limits.spend(0, 10 * len(items))
        target.extend(items)

    def _add_items(self) -> None:
        items, target = self._pop_mark(), self._stack[-1]
        if type(target) is Opaque:
            return
        if type(target) is not set:
            raise UnsafeCheckpoint(f"ADDITEMS on a {type(target).__name__}")
        self._limits.spend(len(items), ITEM * len(items))
        target.update(self._calls.key(item) for item in items)


_Entry = tuple[read.Argument | None, int, Callable[..., None]]
_push = Machine._push


def _make(make: Callable[[], Any]) -> Callable[[Machine], None]:
    return lambda machine: machine._stack.append(make())


#: Opcode -> how its argument is read, the price in bytes beside that of a place, and what to do. What only protocol 0 has, in
#: which torch cannot save, is left out.
_ALLOWED: dict[str, _Entry] = {
    "PROTO": (read.U1, 0, Machine._pass), "FRAME": (read.U8, 0, Machine._pass),
    "BININT": (read.I4, _NUMBER, _push), "BININT1": (read.U1, 0, _push), "BININT2": (read.U2, _NUMBER, _push),
    "LONG1": (read.LONG1, _NUMBER, _push), "LONG4": (read.LONG4, _NUMBER, _push),
    "INT": (read.INT_LINE, _NUMBER, _push), "LONG": (read.INT_LINE, _NUMBER, _push),
    "BINFLOAT": (read.FLOAT, _NUMBER, _push),
    "SHORT_BINUNICODE": (read.TEXT1, 0, _push), "BINUNICODE": (read.TEXT4, 0, _push), "BINUNICODE8": (read.TEXT8, 0, _push),
    "SHORT_BINSTRING": (read.OLD_TEXT1, 0, _push), "BINSTRING": (read.OLD_TEXT4, 0, _push),
    "SHORT_BINBYTES": (read.BYTES1, 0, _push), "BINBYTES": (read.BYTES4, 0, _push), "BINBYTES8": (read.BYTES8, 0, _push),
    "BYTEARRAY8": (read.BYTEARRAY8, 0, _push),
    "NONE": (None, 0, _make(lambda: None)), "NEWTRUE": (None, 0, _make(lambda: True)),
    "NEWFALSE": (None, 0, _make(lambda: False)), "MARK": (None, 0, _make(lambda: _MARK)),
    "EMPTY_LIST": (None, LIST, _make(list)), "EMPTY_DICT": (None, DICT, _make(dict)),
    "EMPTY_SET": (None, DICT, _make(set)), "EMPTY_TUPLE": (None, 0, _make(tuple)),
    "BINPUT": (read.U1, 0, Machine._put), "LONG_BINPUT": (read.U4, 0, Machine._put), "MEMOIZE": (None, 0, Machine._memoize),
    "BINGET": (read.U1, 0, Machine._get), "LONG_BINGET": (read.U4, 0, Machine._get),
    "GLOBAL": (read.NAME_LINES, 120, Machine._global), "STACK_GLOBAL": (None, 120, Machine._stack_global),
    "REDUCE": (None, 64, Machine._reduce), "NEWOBJ": (None, 64, Machine._reduce),
    "NEWOBJ_EX": (None, 64, Machine._new_with_keywords),
    "BUILD": (None, 0, Machine._build), "BINPERSID": (None, 0, Machine._persistent_id),
    "POP": (None, 0, Machine._pop), "POP_MARK": (None, 0, Machine._discard), "DUP": (None, 0, Machine._dup),
    "LIST": (None, 64, Machine._list), "TUPLE": (None, 64, Machine._tuple), "FROZENSET": (None, DICT, Machine._frozenset),
    "TUPLE1": (None, 64, lambda machine: machine._short_tuple(1)),
    "TUPLE2": (None, 72, lambda machine: machine._short_tuple(2)),
    "TUPLE3": (None, 80, lambda machine: machine._short_tuple(3)),
    "SETITEM": (None, 0, Machine._set_item), "DICT": (None, DICT, Machine._dict),
    "SETITEMS": (None, 0, lambda machine: machine._set_items(machine._pop_mark(), "SETITEMS")),
    "APPEND": (None, 0, lambda machine: machine._extend([machine._stack.pop()], "APPEND")),
    "APPENDS": (None, 0, lambda machine: machine._extend(machine._pop_mark(), "APPENDS")),
    "ADDITEMS": (None, 0, Machine._add_items),
}  # fmt: skip
_NAMES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
_TABLE = {code: _ALLOWED[name] for code, name in _NAMES.items() if name in _ALLOWED}
_STOP = ord(".")
