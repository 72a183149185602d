"""Good checkpoints in their parts, and putting changed parts together again with right checksums."""

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

_LOCAL, _CENTRAL = struct.Struct("<4s5H3L2H"), struct.Struct("<4s6H3L5H2L")
FIELDS = {"flags": 16, "method": 16, "crc": 32, "packed": 32, "size": 32, "offset": 32}
END_FIELDS = {"disk": 16, "first": 16, "here": 16, "count": 16, "size": 32, "offset": 32, "comment": 16}


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
                field[key] = change(field[key]) % (1 << FIELDS[key])
            stamp = (field["flags"], field["method"], 0, 0, field["crc"], field["packed"], field["size"])
            directory += _CENTRAL.pack(b"PK\x01\x02", 20, 20, *stamp, len(raw), 0, 0, 0, 0, 0, field["offset"]) + raw
            out += _LOCAL.pack(*local) + raw + data
        end = {"disk": 0, "first": 0, "here": len(members), "count": len(members)}
        end |= {"size": len(directory), "offset": len(out), "comment": 0}
        for key, change in self.end.items():
            end[key] = change(end[key]) % (1 << END_FIELDS[key])
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
