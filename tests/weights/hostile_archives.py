"""Files made to do harm around the pickle: zip archives and legacy files that lie about what they hold."""

import io
import pickle
import struct
import zipfile

from pth_bytes import GOOD, MAGIC, RAW, make_legacy, make_zip

_ENTRY, _END = b"PK\x01\x02", b"PK\x05\x06"


def _places(data, magic):
    return [place for place in range(len(data)) if data[place : place + 4] == magic]


def _set(data, place, layout, value):
    raw = struct.pack(layout, value)
    return data[:place] + raw + data[place + len(raw) :]


def _entry(field, layout, value, storages=None):
    """A good archive with a field of its last directory entry changed."""
    data = make_zip(GOOD, storages or {"0": RAW, "1": RAW})
    return _set(data, _places(data, _ENTRY)[-1] + field, layout, value)


def _end(field, layout, value):
    data = make_zip(GOOD, {"0": RAW})
    return _set(data, _places(data, _END)[-1] + field, layout, value)


def _overlapping():
    data = make_zip(GOOD, {"0": RAW, "1": RAW})
    first, second = _places(data, _ENTRY)[-2:]
    return data[: second + 42] + data[first + 42 : first + 46] + data[second + 46 :]


def _twice():
    data = make_zip(GOOD, {"0": RAW}, extra=[("archive/data/1", bytes(16))])
    return data.replace(b"archive/data/1", b"archive/data/0")


def _crowded(count):
    """A directory of many empty members with short names."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", GOOD)
        for number in range(count):
            archive.writestr(f"{number:x}", b"")
    return out.getvalue()


def _repeated(count):
    """A directory that names one member of one byte a hundred thousand times."""
    data = make_zip(GOOD, {"0": RAW})
    at, end = _places(data, _ENTRY)[0], _places(data, _END)[0]
    size = len(data[_places(data, _ENTRY)[-1] : end])
    entries = data[_places(data, _ENTRY)[-1] : end] * count
    tail = _END + struct.pack("<4H2LH", 0, 0, 65535, 65535, len(entries), at, 0)
    wide = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size * count, at)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, at + len(entries), 1)
    return data[:at] + entries + wide + locator + tail


def _flipped():
    data = make_zip(GOOD, {"0": RAW})
    at = data.index(RAW)
    return data[: at + 5] + bytes([data[at + 5] ^ 1]) + data[at + 6 :]


def _inflating():
    return make_zip(GOOD, {"0": bytes(20 << 20)}, compression=zipfile.ZIP_DEFLATED)


def _legacy_head(magic=MAGIC, protocol=1001, system=None, behind=b""):
    system = {"little_endian": True} if system is None else system
    return b"".join(pickle.dumps(part, 2) for part in (magic, protocol, system)) + behind


def _legacy_storage(numel):
    data = make_legacy(GOOD, {"0": RAW})
    return data[: -len(RAW) - 8] + struct.pack("<q", numel) + RAW


#: A file, made when it is wanted, and why it is refused.
ARCHIVES = {
    "members that overlap": (_overlapping, "overlap"),
    "two members of one name": (_twice, "two members"),
    "a member that inflates a thousandfold": (_inflating, "compressed"),
    "a member that says it is encrypted": (lambda: _entry(8, "<H", 1), "encrypted"),
    "a member that says it is deflated": (lambda: _entry(10, "<H", 8), "compressed"),
    "a member of another length than its packed one": (lambda: _entry(24, "<I", 5), "compressed"),
    "a flipped bit of a tensor": (_flipped, "checksum"),
    "a wrong checksum in the directory": (lambda: _entry(16, "<I", 1, {"0": RAW}), "checksum"),
    "a member that starts nowhere": (lambda: _entry(42, "<I", 1 << 30), "cut short"),
    "a member that starts inside of another": (lambda: _entry(42, "<I", 40), "overlap|damaged"),
    "a member named otherwise where it lies": (lambda: _entry(46, "<4s", b"ARCH"), "not where the directory says"),
    "a member of four gigabytes without a size": (lambda: _entry(20, "<I", 0xFFFFFFFF), "no size"),
    "a name that is no text": (lambda: _entry(46, "<4s", b"\xff\xfe\xfd\xfc"), "damaged"),
    "a directory that is longer than it says": (lambda: _end(12, "<I", 46), "damaged"),
    "a directory that starts behind the file": (lambda: _end(16, "<I", 1 << 31), "damaged"),
    "fewer members than the directory has": (lambda: _end(8, "<HH"[:2], 1), "damaged"),
    "an archive in many parts": (lambda: _end(4, "<H", 7), "several parts"),
    "a comment that is not there": (lambda: _end(20, "<H", 9), "damaged"),
    "data behind the archive": (lambda: make_zip(GOOD, {"0": RAW}) + b"more", "damaged"),
    "half of an archive": (lambda: make_zip(GOOD, {"0": RAW})[:200], "damaged"),
    "an archive without a pickle": (lambda: make_zip(GOOD).replace(b"data.pkl", b"data.txt"), "no data.pkl"),
    "two pickles": (lambda: make_zip(GOOD, extra=[("other/data.pkl", GOOD)]), "no data.pkl"),
    "a program in TorchScript": (lambda: make_zip(GOOD, extra=[("archive/constants.pkl", GOOD)]), "TorchScript"),
    "the other byte order": (lambda: make_zip(GOOD, {"0": RAW}, byteorder=b"big"), "big-endian"),
    "a directory of 20,000 members": (lambda: _crowded(20_000), "memory|steps"),
    "a directory of one member 100,000 times": (lambda: _repeated(100_000), "two members"),
    "a legacy file of another magic number": (lambda: _legacy_head(magic=MAGIC + 1), "magic number"),
    "a legacy file of another protocol": (lambda: _legacy_head(protocol=1002), "protocol"),
    "a legacy file of the other byte order": (lambda: _legacy_head(system={"little_endian": False}), "big-endian"),
    "a legacy head that is a list": (lambda: _legacy_head(system=[]), "big-endian"),
    "a persistent id in the head": (lambda: _legacy_head()[: len(pickle.dumps(MAGIC, 2))] + b"\x80\x02NQ.", "persistent id"),
    "a legacy file that ends after its head": (_legacy_head, "no end"),
    "a storage of a negative length": (lambda: _legacy_storage(-4), "not of the size"),
    "a storage of another length": (lambda: _legacy_storage(5), "not of the size"),
    "a storage of exabytes": (lambda: _legacy_storage(1 << 62), "not of the size"),
    "a legacy file without its last byte": (lambda: make_legacy(GOOD, {"0": RAW})[:-1], "cut short"),
    "a key that no tensor has": (lambda: make_legacy(GOOD, {"0": RAW}, keys=["0", "1"]), "list of storages"),
    "a key that stands twice": (lambda: make_legacy(GOOD, {"0": RAW}, keys=["0", "0"]), "list of storages"),
    "a key that is a number": (lambda: make_legacy(GOOD, {"0": RAW}, keys=[0]), "list of storages"),
    "a list of keys that is none": (lambda: make_legacy(GOOD, {"0": RAW}, keys={"0": 1}), "list of storages"),
}
