"""torch checkpoints written by hand, byte by byte, so that they can be as wrong as need be. Pickles of protocol 2."""

import io
import pickle
import struct
import zipfile

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
RAW = np.arange(4, dtype=np.float32).tobytes()


def make_zip(data, storages=None, *, extra=(), byteorder=b"little", compression=zipfile.ZIP_STORED):
    """(pickle, storages by key, ...) -> bytes of a torch zip checkpoint."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", byteorder)
        for key, raw in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", raw)
        for name, raw in extra:
            archive.writestr(name, raw)
    return out.getvalue()


def make_legacy(data, storages=None, *, itemsize=4, keys=None):
    """(pickle, storages by key, size of an element) -> bytes of a legacy torch checkpoint."""
    storages = storages or {}
    head = [MAGIC, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}]
    parts = [pickle.dumps(part, 2) for part in head] + [data, pickle.dumps(list(storages) if keys is None else keys, 2)]
    parts += [struct.pack("<q", len(raw) // itemsize) + raw for raw in storages.values()]
    return b"".join(parts)


def text(value):
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def integer(value):
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    raw = pickle.encode_long(value)
    return b"\x8b" + struct.pack("<i", len(raw)) + raw


def call(name, arguments):
    return b"c" + name.replace(" ", "\n").encode() + b"\n" + arguments + b"R"


def numbers(values):
    return b"(" + b"".join(integer(value) for value in values) + b"t"


def storage(key="0", numel=4, kind="FloatStorage"):
    return b"(" + text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text(key) + text("cpu") + integer(numel) + b"tQ"


def tensor(shape=(4,), strides=(1,), offset=0, **options):
    geometry = integer(offset) + numbers(shape) + numbers(strides)
    return call("torch._utils _rebuild_tensor_v2", b"(" + storage(**options) + geometry + b"\x89}t")


def checkpoint(value):
    """A pickle of {"x": value}."""
    return b"\x80\x02}" + text("x") + value + b"s."


def state_dict(tensors):
    """A pickle of {name: value} of pickled values."""
    return b"\x80\x02}(" + b"".join(text(name) + value for name, value in tensors.items()) + b"u."


GOOD = checkpoint(tensor())
