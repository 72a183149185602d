"""Changes of a pickle's opcodes and of their arguments: what a mutant has that its checkpoint had not."""

import pickle
import pickletools
import struct

from drafts import wrapped

from jaxft.weights.torch_types import STORAGES

BOUNDARIES = (
    0, 1, -1, 2, 3, 7, 8, 16, 17, 127, 128, 255, 256, 65535, 65536, (1 << 31) - 1, 1 << 31, -(1 << 31), 1 << 32, 1 << 33,
    (1 << 60) - 1, 1 << 60, 1 << 61, (1 << 61) - 1, (1 << 62) - 1, 1 << 62, (1 << 63) - 1, 1 << 63, -(1 << 63), 1 << 64,
    1 << 70, -(1 << 70), 1 << 200,
)  # fmt: skip
HARMFUL = (
    ("os", "system"), ("posix", "system"), ("nt", "system"), ("builtins", "eval"), ("builtins", "exec"), ("builtins", "open"),
    ("builtins", "getattr"), ("builtins", "__import__"), ("__builtin__", "eval"), ("subprocess", "Popen"),
    ("subprocess", "check_output"), ("importlib", "import_module"), ("pickle", "loads"), ("torch", "load"),
    ("runpy", "run_path"),
    ("ctypes", "CDLL"), ("marshal", "loads"), ("types", "CodeType"), ("types", "FunctionType"), ("socket", "create_connection"),
    ("shutil", "rmtree"), ("webbrowser", "open"), ("numpy", "load"), ("numpy.core.multiarray", "_reconstruct"),
    ("torch.hub", "load"), ("torch.storage", "_load_from_bytes"), ("operator", "attrgetter"), ("functools", "partial"),
)  # fmt: skip
KNOWN = (
    ("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_tensor"), ("torch._utils", "_rebuild_tensor_v3"),
    ("torch._utils", "_rebuild_parameter"), ("torch._utils", "_rebuild_parameter_with_state"),
    ("torch._utils", "_rebuild_sparse_tensor"), ("torch._utils", "_rebuild_qtensor"),
    ("torch._tensor", "_rebuild_from_type_v2"), ("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar"),
    ("numpy", "dtype"), ("collections", "OrderedDict"), ("collections", "defaultdict"), ("torch", "Size"), ("builtins", "set"),
    ("__builtin__", "set"), ("_codecs", "encode"), ("torch.storage", "UntypedStorage"), ("torch", "QInt8Storage"),
    *(tuple(name.rsplit(".", 1)) for name in STORAGES),
)  # fmt: skip
TEXTS = (
    "", "storage", "module", "cpu", "0", "1", "99", "../data.pkl", "data.pkl", "\0", "\n", "x" * 65, "x" * 3000, "é", "漢字",
    "\N{GRINNING FACE}", "latin1", "utf8", "f4", "f8", ">i2", "O", "V8", "b1", "<", ">", "state_dict", "model", "module.",
    "__class__", "__reduce__", "__dict__", "little_endian", "weight",
)  # fmt: skip
_CODES = [opcode.code.encode("latin1") for opcode in pickletools.opcodes]
_INTS, _MEMOS, _TUPLES = (b"K", b"M", b"J", b"\x8a", b"\x8b"), (b"q", b"r", b"h", b"j"), (b")", b"\x85", b"\x86", b"\x87", b"t")
_COUNTED = {
    b"X": "<I",
    b"\x8c": "<B",
    b"\x8d": "<Q",
    b"C": "<B",
    b"B": "<I",
    b"U": "<B",
    b"T": "<i",
    b"\x8a": "<B",
    b"\x95": "<Q",
}


def integer(value):
    if 0 <= value < 256:
        return b"K" + bytes([value])
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    raw = pickle.encode_long(value)
    return b"\x8b" + struct.pack("<i", len(raw)) + raw if len(raw) > 255 else b"\x8a" + bytes([len(raw)]) + raw


def text(value):
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def value_of(piece):
    """The integer that an opcode pushes; 0 if a change before this one took its argument."""
    try:
        return next(pickletools.genops(piece + b"."))[1] or 0
    except ValueError:
        return 0


def boundary(rng, value):
    """A number at an edge, or close to the one that was there."""
    if rng.random() < 0.5:
        return rng.choice(BOUNDARIES)
    return rng.choice((value + 1, value - 1, 2 * value, 4 * value, -value, value << 32, value + (1 << 31), value + (1 << 32)))


def _drop(draft, rng):
    at = rng.randrange(len(draft.pickle))
    del draft.pickle[at : at + rng.choice((1, 1, 1, 2, 5))]


def _duplicate(draft, rng):
    at = rng.randrange(len(draft.pickle))
    piece = draft.pickle[at : at + rng.choice((1, 1, 2, 8))]
    draft.pickle[at:at] = piece * rng.choice((1, 1, 1, 2, 50))


def _swap(draft, rng):
    at, other = rng.randrange(len(draft.pickle)), rng.randrange(len(draft.pickle))
    if rng.random() < 0.5:
        other = min(at + 1, len(draft.pickle) - 1)
    draft.pickle[at], draft.pickle[other] = draft.pickle[other], draft.pickle[at]


def _splice(draft, rng):
    """Some opcodes of another checkpoint."""
    start, at = rng.randrange(len(draft.other.pickle)), rng.randrange(len(draft.pickle) + 1)
    found = draft.other.pickle[start : start + rng.choice((1, 2, 5, 20, 60))]
    draft.pickle[at : at + rng.choice((0, 0, 1, len(found)))] = found


def _opcode(draft, rng):
    """Another opcode, with the argument of the one that was there or with none."""
    at = rng.randrange(len(draft.pickle))
    code = rng.choice(_CODES) if rng.random() < 0.9 else bytes([rng.randrange(256)])
    draft.pickle[at] = code + draft.pickle[at][1:] if rng.random() < 0.7 else code


def _harm(draft, rng):
    """A whole call of something harmful, where a value may stand."""
    module, name = rng.choice(HARMFUL)
    argument = rng.choice((text("touch harm"), b"N", b"K\x01", b"]"))
    named = f"c{module}\n{name}\n".encode() if rng.random() < 0.6 else text(module) + text(name) + b"\x93"
    call = rng.choice((b"\x85R", b"\x85\x81", b"\x85}\x92", b"\x85R}b", b"\x85R(N", b"\x850"))
    draft.pickle.insert(rng.randrange(1, len(draft.pickle) + 1), named + argument + call + rng.choice((b"", b"0", b"q\x01")))


def _integer(draft, rng):
    if places := draft.places(*_INTS):
        at = rng.choice(places)
        draft.pickle[at] = integer(boundary(rng, value_of(draft.pickle[at])))


def _geometry(draft, rng):
    """Offset, sides or strides: the numbers that follow a persistent id."""
    if places := draft.places(b"Q"):
        start = rng.choice(places)
        near = [at for at in range(start, min(start + 24, len(draft.pickle))) if draft.pickle[at][:1] in _INTS]
        for at in rng.sample(near, min(len(near), rng.choice((1, 1, 2, 3)))):
            draft.pickle[at] = integer(boundary(rng, value_of(draft.pickle[at])))


def _persistent(draft, rng):
    """Key, kind, place or number of elements of a storage: what stands before a persistent id."""
    if places := draft.places(b"Q"):
        stop = rng.choice(places)
        at = max(0, stop - rng.randrange(1, 11))
        piece = draft.pickle[at]
        if piece[:1] in _INTS:
            draft.pickle[at] = integer(boundary(rng, value_of(piece)))
        elif piece[:1] in (b"X", b"\x8c"):
            draft.pickle[at] = text(rng.choice((*TEXTS, *(key for key, _, _ in draft.base.storages))))
        elif piece[:1] in (b"h", b"j"):
            draft.pickle[at] = rng.choice((b"h" + bytes([rng.randrange(256)]), b"N", b"ctorch\nFloatStorage\n"))


def _text(draft, rng):
    if places := draft.places(b"X", b"\x8c", b"U", b"C"):
        at = rng.choice(places)
        draft.pickle[at] = rng.choice(
            (
                text(rng.choice(TEXTS)),
                draft.pickle[rng.choice(places)],
                b"X\x03\x00\x00\x00\xff\xfe\xfd",
                text(rng.choice(HARMFUL)[1]),
            )
        )


def _name(draft, rng):
    if places := draft.places(b"c", b"\x93"):
        at = rng.choice(places)
        module, name = rng.choice(HARMFUL if rng.random() < 0.4 else KNOWN)
        named = f"c{module}\n{name}\n".encode()
        draft.pickle[at] = named if draft.pickle[at][:1] == b"c" else b"00" + named


def _memo(draft, rng):
    if places := draft.places(*_MEMOS):
        at = rng.choice(places)
        index = rng.choice((0, 1, 255, 256, 65535, (1 << 31) - 1, (1 << 32) - 1, rng.randrange(200)))
        short, long = rng.choice(((b"q", b"r"), (b"h", b"j")))
        draft.pickle[at] = short + bytes([index]) if index < 256 else long + struct.pack("<I", index)


def _length(draft, rng):
    """The length that a string, an integer or a frame says it has."""
    if places := draft.places(*_COUNTED):
        at = rng.choice(places)
        piece = draft.pickle[at]
        layout = _COUNTED[piece[:1]]
        bits = 8 * struct.calcsize(layout)
        length = boundary(rng, len(piece) - 1 - bits // 8)
        length = wrapped(length, bits) if layout == "<i" else length % (1 << bits)
        draft.pickle[at] = piece[:1] + struct.pack(layout, length) + piece[1 + bits // 8 :]


def _tuple(draft, rng):
    """Another size of a tuple, or another container."""
    if places := draft.places(*_TUPLES):
        draft.pickle[rng.choice(places)] = rng.choice((*_TUPLES, b"l", b"]", b"}", b"d", b"\x91", b"(", b"1"))


def _pickle_bytes(draft, rng):
    """Bytes of the pickle, under a right checksum."""
    raw = bytearray(b"".join(draft.pickle))
    for _ in range(rng.choice((1, 1, 1, 4, 16))):
        if raw:
            raw[rng.randrange(len(raw))] = rng.choice((0, 255, rng.randrange(256)))
    draft.pickle = [bytes(raw)]


#: Kind of change -> what makes it in a `Draft`.
PICKLE = {
    "drop opcodes": _drop, "repeat opcodes": _duplicate, "swap opcodes": _swap, "splice": _splice, "another opcode": _opcode,
    "harmful call": _harm, "integer": _integer, "geometry": _geometry, "storage": _persistent, "text": _text, "name": _name,
    "memo": _memo, "length": _length, "tuple": _tuple, "bytes of the pickle": _pickle_bytes,
}  # fmt: skip
