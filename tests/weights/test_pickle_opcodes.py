"""Opcodes are read as Python's own `pickletools` reads them."""

import pickle
import pickletools
import random

import pytest
from mutants import bases

from jaxft.weights import pickle_machine, pickle_opcodes
from jaxft.weights.limits import Limits, UnsafeCheckpoint


def read_all(data):
    """(opcode, argument, place) of a pickle, by the readers of `pickle_opcodes`."""
    view, at, limits = memoryview(data), 0, Limits(1 << 30)
    while True:
        code, place = view[at], at
        if code == pickle_machine._STOP:
            yield "STOP", None, place
            return
        argument, at = pickle_machine._TABLE[code][0], at + 1
        value = None
        if argument is not None:
            value, at = argument(view, at, limits)
        yield pickle_machine._NAMES[code], value, place


def by_pickletools(data):
    for opcode, argument, place in pickletools.genops(data):
        if opcode.name == "GLOBAL":
            argument = argument.replace(" ", ".", 1)
        yield opcode.name, argument, place


def test_every_fixture_reads_as_by_pickletools(fixtures):
    found = bases(fixtures)
    assert len(found) > 40
    for base in found:
        data = b"".join(base.pickle)
        assert list(read_all(data)) == list(by_pickletools(data))


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
def test_values_of_every_kind_read_as_by_pickletools(protocol):
    rng = random.Random(protocol)
    values = [None, True, False, 0, 255, 256, 65535, 65536, -1, 1 << 31, -(1 << 31), 1 << 63, -(1 << 100), 1 << 2000, 0.5, -0.0]
    values += [
        "",
        "abc",
        "é" * 300,
        "漢字",
        "\N{GRINNING FACE}",
        "\ud800",
        "x" * 70_000,
        b"",
        b"abc",
        bytes(300),
        bytes(70_000),
    ]
    values += [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], [1], [1, 2], {}, {1: 2}, {1: 2, 3: 4}, set(), {1}, frozenset({1})]
    values += [bytearray(b"raw"), len, [rng.random() for _ in range(3)]]
    shared = ["shared"]
    data = pickle.dumps([*values, shared, shared], protocol)
    assert list(read_all(data)) == list(by_pickletools(data))


def test_what_python_2_wrote_reads_as_by_pickletools():
    # Strings of bytes, and a memo that starts at 1.
    data = b"\x80\x02}q\x01(U\x01aq\x02T\x04\x00\x00\x00\xe9bcdq\x03u."
    assert list(read_all(data)) == list(by_pickletools(data))


@pytest.mark.parametrize(
    ("reader", "data"),
    [
        (pickle_opcodes.TEXT4, b"\x05\x00\x00\x00abcd"),
        (pickle_opcodes.BYTES8, b"\xff" * 8),
        (pickle_opcodes.OLD_TEXT4, b"\xff\xff\xff\xffabc"),
        (pickle_opcodes.LONG4, b"\x00\x00\x00\x80"),
        (pickle_opcodes.NAME_LINES, b"os\nsystem"),
        (pickle_opcodes.INT_LINE, b"1" * 2000),
    ],
)
def test_an_argument_that_does_not_end_is_refused(reader, data):
    with pytest.raises(UnsafeCheckpoint):
        reader(memoryview(data), 0, Limits(len(data)))
