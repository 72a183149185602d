"""The arguments of a pickle's opcodes, read where they stand.

Each reader takes the pickle, a place in it and the file's limits, and gives the argument and the place behind it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxft.weights.limits import Limits, UnsafeCheckpoint

Argument = Callable[[memoryview, int, Limits], tuple[Any, int]]

#: Random number generators have states of some 20,000 bits, in ints of 32 and 128. Ints beyond that are nobody's.
MAX_INT_BYTES = 256
MAX_LINE = 1024
_STRING = 72  # bytes that an empty str or bytes takes, and some room for the allocator


def _fixed(layout: str) -> Argument:
    form = struct.Struct(layout)
    unpack, size = form.unpack_from, form.size

    def read(data: memoryview, at: int, limits: Limits) -> tuple[Any, int]:
        return unpack(data, at)[0], at + size

    return read


def _take(data: memoryview, at: int, length: int, limits: Limits) -> bytes:
    if not 0 <= length <= len(data) - at:
        raise UnsafeCheckpoint("the pickle is cut short")
    # Of a short string the bytes are gone as soon as there is a str.
    limits.spend(1 + (length >> 10), _STRING + (length if length > MAX_LINE else 0))
    return data[at : at + length].tobytes()


def _counted(layout: str, finish: Callable[[bytes, Limits], Any]) -> Argument:
    form = struct.Struct(layout)
    unpack, size = form.unpack_from, form.size

    def read(data: memoryview, at: int, limits: Limits) -> tuple[Any, int]:
        length = unpack(data, at)[0]
        at += size
        return finish(_take(data, at, length, limits), limits), at + length

    return read


def _bytes(raw: bytes, limits: Limits) -> bytes:
    limits.spend(0, len(raw) if len(raw) <= MAX_LINE else 0)
    return raw


def _bytearray(raw: bytes, limits: Limits) -> bytearray:
    limits.spend(0, len(raw))
    return bytearray(raw)


def _latin1(raw: bytes, limits: Limits) -> str:
    """What Python 2 wrote."""
    limits.spend(0, len(raw))
    return raw.decode("latin1")


def _utf8(raw: bytes, limits: Limits) -> str:
    """Decoding takes up to six times the bytes, where most characters take one byte and one takes four."""
    if raw.isascii():
        limits.spend(0, len(raw))
    else:
        lead = int(np.frombuffer(raw, np.uint8).max())
        limits.spend(0, len(raw) * (6 if lead >= 0xF0 else 3 if lead > 0xC3 else 2))
    return raw.decode("utf-8", "surrogatepass")


def _long(raw: bytes, limits: Limits) -> int:
    if len(raw) > MAX_INT_BYTES:
        raise UnsafeCheckpoint("an integer of thousands of bits")
    return int.from_bytes(raw, "little", signed=True)


def _line(data: memoryview, at: int, limits: Limits) -> tuple[bytes, int]:
    line, found, _ = data[at : at + MAX_LINE].tobytes().partition(b"\n")
    if not found:
        raise UnsafeCheckpoint("a line of the pickle does not end")
    return line, at + len(line) + 1


def _int_line(data: memoryview, at: int, limits: Limits) -> tuple[Any, int]:
    line, at = _line(data, at, limits)
    if line in (b"00", b"01"):
        return line == b"01", at
    return int(line.removesuffix(b"L")), at


def _two_lines(data: memoryview, at: int, limits: Limits) -> tuple[str, int]:
    module, at = _line(data, at, limits)
    name, at = _line(data, at, limits)
    limits.spend(4, 4 * (len(module) + len(name)))
    return f"{module.decode()}.{name.decode()}", at


def _byte(data: memoryview, at: int, limits: Limits) -> tuple[int, int]:
    return data[at], at + 1


U1 = _byte
U2, U4, U8 = _fixed("<H"), _fixed("<I"), _fixed("<Q")
I4, FLOAT = _fixed("<i"), _fixed(">d")
BYTES1, BYTES4, BYTES8 = (_counted(layout, _bytes) for layout in ("<B", "<I", "<Q"))
TEXT1, TEXT4, TEXT8 = (_counted(layout, _utf8) for layout in ("<B", "<I", "<Q"))
OLD_TEXT1, OLD_TEXT4 = (_counted(layout, _latin1) for layout in ("<B", "<i"))
BYTEARRAY8 = _counted("<Q", _bytearray)
LONG1, LONG4 = _counted("<B", _long), _counted("<i", _long)
INT_LINE, NAME_LINES = _int_line, _two_lines
