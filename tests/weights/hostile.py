"""Files made to do harm, by what they aim at. Each is tried in a zip and in a legacy checkpoint, or is one as a whole."""

import struct

from hostile_archives import ARCHIVES
from pth_bytes import RAW, call, checkpoint, integer, make_legacy, make_zip, storage, tensor, text


def pairs(count):
    return b"](" + b"".join(integer(number) + b"N\x86" for number in range(count)) + b"e"


def doubled(opening, closing, times=200):
    """A container of twice the container before it: 2 ** times leaves by reference, a few bytes each in the file."""
    return (opening + b"h\x00h\x00" + closing + b"q\x000") * times + b"h\x00"


#: Calls of what must not be called, each beside a tensor, which reads.
CALLS = {
    "os.system by reduce": call("os system", text("touch $HARM") + b"\x85"),
    "posix.system by global": b"cposix\nsystem\n" + text("touch $HARM") + b"\x85R",
    "eval": call("builtins eval", text("open(__import__('os').environ['HARM'], 'w')") + b"\x85"),
    "exec by stack global": text("builtins") + text("exec") + b"\x93" + text("open('harm', 'w')") + b"\x85R",
    "a class with state": b"cos\n_wrap_close\n)\x81}" + text("x") + b"K\x01sb",
    "torch.load again": call("torch load", text("other.pth") + b"\x85"),
    "getattr chain": call("builtins getattr", b"cbuiltins\n__import__\n" + text("__call__") + b"\x86"),
    "numpy reconstruct": call("numpy.core.multiarray _reconstruct", b"cnumpy\nndarray\nK\x00\x85C\x01b\x87"),
    "rebuild with a function of the file": call(
        "torch._tensor _rebuild_from_type_v2", b"(cos\nsystem\ncos\nsystem\n" + text("touch $HARM") + b"\x85}t"
    ),
}
#: Pickle -> why it is refused: for what it is, not for a slip of its own.
REFUSED = {
    "the inst opcode": (b"(" + text("touch harm") + b"ios\nsystem\n", "opcode INST"),
    "the obj opcode": (b"(cos\nsystem\n" + text("touch harm") + b"o", "opcode OBJ"),
    "an extension code": (b"\x82\x01", "opcode EXT1"),
    "a next buffer": (b"\x97", "opcode NEXT_BUFFER"),
    "a textual persistent id": (b"Pstorage\n", "opcode PERSID"),
    "a call of a string": (text("os.system") + text("x") + b"\x85R", "not a name"),
    "build on a list": (b"]}b", "BUILD on a list"),
    "items of an integer": (b"K\x01" + text("a") + b"K\x02s", "SETITEM on a int"),
    "append to a dict": (b"}K\x01a", "APPEND on a dict"),
    "a key that is a list": (b"}]K\x01s", "key of type list"),
    "a mark on top": (b"(", "no tensors"),
    "an empty stack": (b"000", "malformed"),
    "an unknown memo": (b"h\x07", "malformed"),
    "a memo index of a gigabit": (b"Np" + b"9" * 4000 + b"\n", "opcode PUT"),
    "a huge key": (b"}" + integer(1 << 70) + b"Ns", "integer key"),
    "a tuple key in a tuple key": (b"}K\x01\x85\x85\x85Ns", "tuples as keys"),
    "a storage that is not there": (tensor(key="7"), "no member"),
    "a storage of another kind": (tensor(kind="QuantumStorage"), "unknown storage"),
    "a storage redeclared": (tensor() + b"0" + tensor(kind="IntStorage"), "declared twice"),
    "a storage longer than its file": (tensor(numel=5), "cut short"),
    "a storage key with a path": (tensor(key="../data.pkl"), "no member"),
    "a view past the end": (tensor(shape=(5,)), "reaches to element 4"),
    "a view past the end by offset": (tensor(offset=1), "reaches to element 4"),
    "a view past the end by stride": (tensor(shape=(2,), strides=(4,)), "reaches to element 4"),
    "an offset past the end of nothing": (tensor(shape=(0,), offset=5), "reaches to element 5"),
    "a negative offset": (tensor(offset=-1), "not sizes"),
    "a negative size": (tensor(shape=(-1,)), "not sizes"),
    "a negative stride": (tensor(shape=(2,), strides=(-1,)), "not sizes"),
    "sizes that overflow 64 bits": (tensor(shape=(1 << 33, 1 << 33), strides=(0, 0)), "sides are too long"),
    "strides that overflow 64 bits": (tensor(shape=(3,), strides=(1 << 61,)), "reaches to element"),
    "empty with sides that overflow": (tensor(shape=(0, 1 << 60, 1 << 60), strides=(1, 1, 1)), "sides are too long"),
    "more strides than sizes": (tensor(shape=(2,), strides=(1, 1)), "proper shape"),
    "too many sides": (tensor(shape=(1,) * 40, strides=(1,) * 40), "proper shape"),
    "a size that is a float": (
        call("torch._utils _rebuild_tensor_v2", b"(" + storage() + b"K\x00G" + bytes(8) + b"\x85K\x01\x85\x89}t"),
        "not sizes",
    ),
    "a tensor of stride zero of a terabyte": (tensor(shape=(1 << 38,), strides=(0,)), "claim more memory"),
    "many tensors of stride zero of a gigabyte": (
        b"](" + tensor(shape=(1 << 24,), strides=(0,)) * 20 + b"e",
        "claim more memory",
    ),
    "a tensor without a storage": (call("torch._utils _rebuild_tensor_v2", b"(NK\x00)" + b")\x89}t"), "without a storage"),
    "an unknown dtype": (
        call("torch._utils _rebuild_tensor_v3", b"(" + storage() + b"K\x00K\x04\x85K\x01\x85\x89}ctorch\nqint8\nt"),
        "unknown dtype",
    ),
    "a parameter of a dict": (call("torch._utils _rebuild_tensor_v2", b"}\x85"), "kind of tensor"),
    "a scalar of the wrong size": (
        call("numpy.core.multiarray scalar", call("numpy dtype", text("f8") + b"\x85") + b"C\x01b\x86"),
        "wrong size",
    ),
    "an ordered dict of a string": (call("collections OrderedDict", text("ab") + b"\x85"), "OrderedDict of a str"),
    "nested calls": (b"ctorch._tensor\n_rebuild_from_type_v2\n" * 5000 + b"N)" + b"N\x87N\x86R" * 5000, "not a name"),
}
#: Containers that hold themselves, or hold more by reference than there is memory; each alone, and beside a tensor.
SHARED = {
    "a list of itself": b"]q\x00h\x00a",
    "a dict of itself": b"}q\x00" + text("state_dict") + b"h\x00s",
    "lists doubled 200 times": b"]q\x000" + doubled(b"](", b"e"),
    "tuples doubled 200 times": b")q\x000" + doubled(b"", b"\x86"),
    "dicts doubled 200 times": b"}q\x000"
    + (b"}(" + text("state_dict") + b"h\x00" + text("model") + b"h\x00uq\x000") * 200
    + b"h\x00",
    "a dtype named by doubled lists": b"]q\x000" + doubled(b"](", b"e") + b"q\x010" + call("numpy dtype", b"h\x01\x85"),
    "a list nested 10,000 deep": b"]" * 10_000 + b"a" * 9_999,
    "a tuple nested 10,000 deep": b")" + b"\x85" * 10_000,
    "a dict nested 5,000 deep": (b"}" + text("model")) * 5_000 + b"}" + b"s" * 5_000,
}

_LONG_TEXT = b"c_codecs\nencode\nq\x010" + text("x" * 1_000_000) + b"q\x020" + text("latin1") + b"q\x030"

#: Pickle, made when it is wanted, -> what stops it: "steps", "memory" or a reason. What these aim at is minutes to years, or
#: gigabytes.
COSTLY = {
    "a flood of opcodes": (lambda: b"N0" * 250_000, "steps"),
    "a flood of numbers": (lambda: b"K\x01" * 600_000, "steps|memory"),
    "a flood of marks": (lambda: b"(" * 600_000, "steps|memory"),
    "a flood of lists": (lambda: b"]" * 150_000, "memory"),
    "a flood of dicts": (lambda: b"}" * 100_000, "memory"),
    "a flood of sets": (lambda: b"\x8f" * 100_000, "memory"),
    "a flood of empty strings": (lambda: b"U\x00" * 200_000, "memory"),
    "a flood of names": (lambda: b"ca\nb\n" * 100_000, "memory"),
    "a flood of memo places": (lambda: b"N" + b"".join(b"r" + struct.pack("<I", n) for n in range(500_000)), "steps|memory"),
    "a flood of ordered dicts": (lambda: b"ccollections\nOrderedDict\nq\x01" + b"h\x01)R" * 60_000, "memory"),
    "a flood of tensors of one storage": (
        lambda: (
            b"("
            + storage()
            + b"q\x05K\x00)"
            + b")\x89}tq\x060ctorch._utils\n_rebuild_tensor_v2\nq\x070"
            + b"h\x07h\x06R" * 60_000
        ),
        "memory",
    ),
    "a flood of NumPy scalars": (
        lambda: (
            b"cnumpy.core.multiarray\nscalar\nq\x010"
            + call("numpy dtype", text("f8") + b"\x85")
            + b"C\x08"
            + bytes(8)
            + b"\x86q\x020"
            + b"h\x01h\x02R0" * 80_000
        ),
        "steps|memory",
    ),
    "sixteen sides checked without end": (
        lambda: (
            b"("
            + storage()
            + b"K\x00("
            + b"K\x01" * 16
            + b"t("
            + b"K\x01" * 16
            + b"t\x89}tq\x060ctorch._utils\n_rebuild_tensor_v2\nq\x070"
            + b"h\x07h\x06R0" * 60_000
        ),
        "steps|memory",
    ),
    "a memo index of four billion": (lambda: b"Nr\xff\xff\xff\xff", "steps|memory"),
    "a long list copied without end": (
        lambda: b"c__builtin__\nset\nq\x010](" + b"K\x01" * 50_000 + b"eq\x020" + b"h\x01h\x02\x85R0" * 100_000,
        "steps|memory",
    ),
    "long pairs copied without end": (
        lambda: b"ccollections\nOrderedDict\nq\x010" + pairs(5_000) + b"q\x020" + b"h\x01h\x02\x85R0" * 100_000,
        "steps|memory",
    ),
    "strings that are no pairs": (
        lambda: b"ccollections\nOrderedDict\n](" + text("ab") * 1_000 + b"e\x85R",
        "no pairs",
    ),
    "a long string encoded without end": (lambda: _LONG_TEXT + b"h\x01h\x02h\x03\x86R0" * 80_000, "steps|memory"),
    "a long string that swells sixfold": (lambda: text("x" * 4_000_000 + "\N{HEAVY BLACK HEART}\N{GRINNING FACE}"), "memory"),
    "a string longer than the pickle": (lambda: b"X\xff\xff\xff\xffab", "cut short"),
    "bytes longer than any memory": (lambda: b"\x8e" + b"\xff" * 8, "cut short"),
    "a string of a negative length": (lambda: b"T\xff\xff\xff\xff", "cut short"),
    "names joined without end": (
        lambda: text("x" * 1_000_000) + b"q\x00" + b"h\x00h\x00\x930" * 1_000,
        "thousands of characters",
    ),
    "an integer of eight million bits": (
        lambda: b"\x8b" + struct.pack("<i", 1 << 20) + b"\x7f" * (1 << 20),
        "thousands of bits",
    ),
    "an integer of a thousand digits without an end": (lambda: b"L" + b"9" * 5_000, "does not end"),
    "keys that collide": (
        lambda: b"}(" + b"".join(integer(number * ((1 << 61) - 1)) + b"N" for number in range(1, 100_000)) + b"u",
        "key|memory",
    ),
    "tuples as keys": (lambda: b"}(" + b"".join(integer(number) + b"\x85N" for number in range(5_000)) + b"u", "tuples"),
    "a list nested 100,000 deep": (lambda: b"]" * 100_000 + b"a" * 99_999, "memory"),
    "a tuple nested 200,000 deep": (lambda: b")" + b"\x85" * 200_000, "memory"),
    "calls of calls": (
        lambda: b"ctorch._tensor\n_rebuild_from_type_v2\nq\x000)" + b"q\x010(h\x00Nh\x01Nt" * 5_000 + b"q\x010h\x00h\x01R",
        "malformed",
    ),
}


def _in_both(name, value, reason):
    """(name, how to make the file, why it is refused or "" where it reads `x`) of the two kinds of checkpoint."""
    yield f"{name} (zip)", lambda: make_zip(checkpoint(value()), {"0": RAW}), reason
    # The legacy format has its storages elsewhere, and so other words for a storage that is not there.
    old = "" if not reason else reason if "no member" not in reason and "cut short" not in reason else "."
    yield f"{name} (legacy)", lambda: _legacy(checkpoint(value())), old


def _legacy(data):
    """A legacy file that has a storage if the pickle names one, as it must."""
    return make_legacy(data, {"0": RAW} if b"storage" in data else {})


def _beside(value):
    """A value after a good tensor."""
    return tensor() + b"s" + text("y") + value


def files():
    """The corpus: (name, how to make the file, why it is refused: a regular expression, or "" where it reads `x` alone)."""
    for name, value in CALLS.items():
        yield from _in_both(f"{name} beside a tensor", lambda value=value: _beside(value), "")
        yield from _in_both(name, lambda value=value: value, "no tensors by name|not supported")
    for name, (value, reason) in REFUSED.items():
        yield from _in_both(name, lambda value=value: value, reason)
    for name, (make, reason) in COSTLY.items():
        yield next(_in_both(name, make, reason))
    for name, value in SHARED.items():
        yield from _in_both(f"{name} beside a tensor", lambda value=value: _beside(value), "")
        yield from _in_both(name, lambda value=value: value, "no tensors by name")
    for name, (make, reason) in ARCHIVES.items():
        yield name, make, reason


#: What the corpus aims at, each counted once.
AIMS = [*CALLS, *REFUSED, *COSTLY, *SHARED, *ARCHIVES]
