"""Structure-aware mutants of good checkpoints: the parts are changed, then put together again with right checksums.

Mutant `number` of `seed` is always the same file.
"""

import dataclasses
import functools
import io
import pickle
import pickletools
import random
import struct
import zipfile
import zlib

from jaxft.weights.limits import Limits
from jaxft.weights.pickle_machine import Machine
from jaxft.weights.torch_types import STORAGES, Storage

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
_LOCAL, _CENTRAL = struct.Struct("<4s5H3L2H"), struct.Struct("<4s6H3L5H2L")
_FIELDS = {"flags": 16, "method": 16, "crc": 32, "packed": 32, "size": 32, "offset": 32}
_END_FIELDS = {"disk": 16, "first": 16, "here": 16, "count": 16, "size": 32, "offset": 32, "comment": 16}


@dataclasses.dataclass
class Base:
    """A good checkpoint in its parts.

    Attributes:
      pickle: its opcodes, each with its argument.
      root: the folder in a zip archive; None in the legacy format.
      members: of a zip, beside the pickle: (name, content).
      head: the three pickles before, of the legacy format.
      storages: of the legacy format: (key, number of elements, bytes).
    """

    name: str
    pickle: list
    root: str | None = None
    members: list = dataclasses.field(default_factory=list)
    head: list = dataclasses.field(default_factory=list)
    storages: list = dataclasses.field(default_factory=list)

    @property
    def legacy(self):
        return self.root is None

    @functools.cached_property
    def whole(self):
        """The file, put together again without a change."""
        return Draft(self, [self], random.Random(0)).bytes()


def opcodes(data):
    """A pickle cut into its opcodes."""
    places = [place for _, _, place in pickletools.genops(data)]
    return [data[start:end] for start, end in zip(places, [*places[1:], len(data)], strict=True)]


def parse(path):
    """A file of torch.save in its parts; None where it is another kind of archive."""
    data = path.read_bytes()
    if data[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(info.filename, archive.read(info)) for info in archive.infolist()]
            stored = all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
        root = members[0][0].split("/")[0]
        found = dict(members)
        if not stored or f"{root}/constants.pkl" in found:
            return None
        main = found.pop(f"{root}/data.pkl")
        return Base(path.stem, opcodes(main), root, list(found.items()))
    pickles, file = [], io.BytesIO(data)
    for _ in range(5):
        start = file.tell()
        for _ in pickletools.genops(file):
            pass
        pickles.append(data[start : file.tell()])
    sizes, at, storages = {}, file.tell(), []

    def note(pid):
        dtype = STORAGES[pid[1].name]
        sizes[pid[2]] = pid[4], dtype.itemsize
        return Storage(pid[2], dtype, pid[4])

    Machine(memoryview(pickles[3]), note, Limits(len(data))).load()
    for key in pickle.loads(pickles[4]):
        numel, size = sizes[key]
        storages.append((key, numel, data[at + 8 : at + 8 + numel * size]))
        at += 8 + numel * size
    return Base(path.stem, opcodes(pickles[3]), head=pickles[:3], storages=storages)


def bases(folder):
    """The checkpoints of a folder in their parts, in the order of their names."""
    return [base for path in sorted(folder.glob("*.pth")) if (base := parse(path))]


class Draft:
    """A mutant in the making: lists that may be changed, and what is to be wrong in the container around them."""

    def __init__(self, base, others, rng):
        self.base, self.rng = base, rng
        self.other = rng.choice(others)
        self.pickle, self.members, self.head = list(base.pickle), list(base.members), list(base.head)
        self.storages, self.keys = list(base.storages), [key for key, _, _ in base.storages]
        self.fields, self.end, self.tail, self.wide = {}, {}, b"", None

    def places(self, *codes):
        return [place for place, piece in enumerate(self.pickle) if piece[:1] in codes]

    def bytes(self):
        if self.base.root is None:
            parts = [*self.head, b"".join(self.pickle), pickle.dumps(self.keys, 2)]
            return b"".join(parts + [struct.pack("<q", wrapped(numel, 64)) + raw for _, numel, raw in self.storages])
        return self._zip()

    def _zip(self):
        out, directory = bytearray(), bytearray()
        members = [(f"{self.base.root}/data.pkl", b"".join(self.pickle)), *self.members]
        for number, (name, data) in enumerate(members):
            raw = name.encode("utf-8", "surrogatepass")
            size = len(data)
            local = (b"PK\x03\x04", 20, 0x800, 0, 0, 0, zlib.crc32(data), size, size, len(raw), 0)
            field = {"flags": 0x800, "method": 0, "crc": zlib.crc32(data), "packed": size, "size": size, "offset": len(out)}
            for key, change in self.fields.get(number, {}).items():
                field[key] = change(field[key]) % (1 << _FIELDS[key])
            stamp = (field["flags"], field["method"], 0, 0, field["crc"], field["packed"], field["size"])
            directory += _CENTRAL.pack(b"PK\x01\x02", 20, 20, *stamp, len(raw), 0, 0, 0, 0, 0, field["offset"]) + raw
            out += _LOCAL.pack(*local) + raw + data
        end = {"disk": 0, "first": 0, "here": len(members), "count": len(members)}
        end |= {"size": len(directory), "offset": len(out), "comment": 0}
        for key, change in self.end.items():
            end[key] = change(end[key]) % (1 << _END_FIELDS[key])
        if self.wide is not None:
            place = len(out) + len(directory)
            numbers = [change(number) % (1 << 64) for change, number in zip(self.wide, self._wide(end, place), strict=True)]
            directory += struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, *numbers[:4])
            directory += struct.pack("<4sLQL", b"PK\x06\x07", 0, numbers[4], 1)
        return bytes(out + directory) + b"PK\x05\x06" + struct.pack("<4H2LH", *end.values()) + self.tail

    def _wide(self, end, place):
        return end["here"], end["count"], end["size"], end["offset"], place


def wrapped(number, bits):
    """The number as a signed one of so many bits."""
    return (number + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)


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


def _member(draft, rng):
    """A member renamed, doubled, left out, moved, or with another content."""
    if not draft.members:
        return
    at = rng.randrange(len(draft.members))
    name, data = draft.members[at]
    match rng.randrange(6):
        case 0:
            new = (
                name + "x",
                name[:-1],
                "../" + name,
                "/etc/passwd",
                name.replace("/", "\\"),
                "",
                name.upper(),
                "a\0b",
                "\udcff",
            )
            draft.members[at] = rng.choice(new), data
        case 1:
            draft.members.insert(rng.randrange(len(draft.members) + 1), (name, data))
        case 2:
            del draft.members[at]
        case 3:
            rng.shuffle(draft.members)
        case 4:
            draft.members[at] = name, rng.choice((data[:-1], data + b"x", b"", data * 2, bytes(len(data)), b"big"))
        case _:
            extra = ("data.pkl", "constants.pkl", "code/x.py", "byteorder", "version", "data/0", "x.npy")
            draft.members.append((f"{rng.choice((draft.base.root, 'other'))}/{rng.choice(extra)}", b"\x80\x02}."))


def _field(draft, rng):
    """A field of the directory's entry for one member."""
    number = rng.randrange(len(draft.members) + 1)
    key = rng.choice(list(_FIELDS))
    target = rng.choice((0, 1, 8, 99, 0xFFFF, 0xFFFFFFFF, 0x7FFFFFFF))
    change = rng.choice((lambda n: n + 1, lambda n: n - 1, lambda n: 2 * n, lambda n: n ^ 1, lambda n: target))
    draft.fields.setdefault(number, {})[key] = change


def _directory(draft, rng):
    """The end of the directory: counts, sizes, places, a comment, the fields of 64 bits."""
    target = rng.choice(BOUNDARIES)
    change = rng.choice((lambda n: n + 1, lambda n: n - 1, lambda n: n + 46, lambda n: target, lambda n: n))
    match rng.randrange(4):
        case 0:
            draft.wide = [lambda n: n] * 5
            draft.wide[rng.randrange(5)] = change
        case 1:
            draft.tail = bytes(rng.randrange(1, 40))
            if rng.random() < 0.7:
                size = len(draft.tail)
                draft.end["comment"] = lambda n: size
        case _:
            draft.end[rng.choice(list(_END_FIELDS))] = change


def _keys(draft, rng):
    """The list of a legacy file's storages."""
    if not draft.keys or type(draft.keys) is not list:
        return
    at = rng.randrange(len(draft.keys))
    match rng.randrange(5):
        case 0:
            del draft.keys[at]
        case 1:
            draft.keys.append(draft.keys[at])
        case 2:
            rng.shuffle(draft.keys)
        case 3:
            draft.keys[at] = rng.choice((*TEXTS, 0, None, -1, 1 << 70))
        case _:
            draft.keys = rng.choice(([], {}, None, tuple(draft.keys), draft.keys[0], dict.fromkeys(draft.keys)))


def _sizes(draft, rng):
    """The length that a legacy file's storage says it has, or its bytes."""
    if draft.storages:
        at = rng.randrange(len(draft.storages))
        key, numel, raw = draft.storages[at]
        if rng.random() < 0.6:
            numel = boundary(rng, numel)
        else:
            raw = rng.choice((raw[:-1], raw + b"x", b"", raw * 2))
        draft.storages[at] = key, numel, raw


def _head(draft, rng):
    """The pickles before a legacy file's own, in another order, or others."""
    at = rng.randrange(3)
    other = (
        pickle.dumps(rng.choice((1001, 1002, {}, [], {"little_endian": False}, 1 << 70)), 2),
        b"\x80\x02NQ.",
        draft.head[0],
    )
    draft.head[at] = rng.choice((*other, b"", draft.head[at][:-1]))


_PICKLE = {
    "drop opcodes": _drop, "repeat opcodes": _duplicate, "swap opcodes": _swap, "splice": _splice, "another opcode": _opcode,
    "harmful call": _harm, "integer": _integer, "geometry": _geometry, "storage": _persistent, "text": _text, "name": _name,
    "memo": _memo, "length": _length, "tuple": _tuple, "bytes of the pickle": _pickle_bytes,
}  # fmt: skip
_ZIP = {"zip member": _member, "zip field": _field, "zip directory": _directory}
_LEGACY = {"legacy keys": _keys, "legacy storages": _sizes, "legacy head": _head}
KINDS = (*_PICKLE, *_ZIP, *_LEGACY, "bytes of the file")


def _file_bytes(data, rng):
    data = bytearray(data)
    match rng.randrange(3):
        case 0:
            for _ in range(rng.choice((1, 1, 4, 16))):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case 1:
            del data[rng.randrange(len(data)) :]
        case _:
            at = rng.randrange(len(data))
            data[at:at] = rng.randbytes(rng.choice((1, 4, 64)))
    return bytes(data)


def _change(draft, rng):
    """Makes a change, and gives its kind."""
    table = _PICKLE if draft.pickle and rng.random() < 0.83 else _ZIP if not draft.base.legacy else _LEGACY
    kind = rng.choice(list(table))
    table[kind](draft, rng)
    return kind


def mutant(found, seed, number):
    """(the file, the kind of its first change, the `Base` it was made from) of the mutants of some bases."""
    rng = random.Random(f"{seed}:{number}")
    legacy = rng.random() < 0.3
    base = rng.choice([base for base in found if base.legacy is legacy])
    draft, kinds = Draft(base, found, rng), []
    if rng.random() < 0.04:
        return _file_bytes(base.whole, rng), "bytes of the file", base
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
        kinds.append(_change(draft, rng))
    while (data := draft.bytes()) == base.whole:  # what was to be changed may not be there
        kinds = [_change(draft, rng)]
    return data, kinds[0], base
