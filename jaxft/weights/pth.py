"""torch checkpoints without torch: the zip format (since torch 1.6) and the legacy one before it.

Safe by construction: see `pickle_machine`. Zip members must be stored, unique and whole, so that a small file cannot
inflate to a large one. A tensor of stride 0 can: all tensors of a file together may claim `_budget` bytes.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxft.weights.pickle_machine import Machine, Name, UnsafeCheckpoint
from jaxft.weights.torch_types import STORAGES, Storage, View

MAX_BYTES = 1 << 35
MAX_PICKLE = 64 << 20
_LOCAL_HEADER = 30  # bytes before the name of a zip member
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
#: The first bytes of a legacy file: a pickle, of protocol 2 or later, of the magic number, a LONG1 of ten bytes.
LEGACY_START = b"\x80"
ZIP_START = b"PK\x03\x04"

#: What `zipfile` raises on a damaged archive.
_DAMAGED = (
    zipfile.BadZipFile, EOFError, NotImplementedError, OSError, ValueError, struct.error, RuntimeError, OverflowError,
    IndexError,
)  # fmt: skip

Get = Callable[[str, np.dtype, int, Any], Storage]


def read_pth(path: Path) -> Any:
    """The object that was saved: containers with NumPy arrays where tensors were, inert stand-ins for what is neither.

    Raises:
      UnsafeCheckpoint: not a whole, plain torch checkpoint.
    """
    with path.open("rb") as file:
        if file.read(4) == ZIP_START:
            return _resolve(_read_zip(path))
    return _resolve(_read_legacy(path))


def _budget(size: int) -> int:
    """Bytes the tensors of a file may claim: tied ones claim theirs each, an expanded one as if it were written out."""
    return min(MAX_BYTES, (64 << 20) + 16 * size)


def _persistent(get: Get) -> Callable[[Any], Any]:
    """Persistent ids are ("storage", type, key, device, number of elements[, view]) or ("module", class, ...)."""

    def resolve(pid: Any) -> Any:
        if type(pid) is not tuple or len(pid) < 2 or type(pid[1]) is not Name:
            raise UnsafeCheckpoint("an unknown persistent id")
        if pid[0] == "module":
            return pid[1]
        if pid[0] != "storage" or len(pid) < 5:
            raise UnsafeCheckpoint("an unknown persistent id")
        _, kind, key, _, numel = pid[:5]
        dtype = STORAGES.get(kind.name)
        if dtype is None:
            raise UnsafeCheckpoint(f"an unknown storage, {kind.name[:60]}")
        if type(key) is not str or len(key) > 64:
            raise UnsafeCheckpoint("a storage without a proper key")
        if type(numel) is not int or not 0 <= numel * dtype.itemsize <= MAX_BYTES:
            raise UnsafeCheckpoint("a storage without a proper size")
        storage = get(key, dtype, numel, pid[5] if len(pid) > 5 else None)
        if storage.dtype != dtype or storage.numel != numel:
            raise UnsafeCheckpoint(f"storage {key} is declared twice, differently")
        return storage

    return resolve


def _read_zip(path: Path) -> Any:
    size = path.stat().st_size
    try:
        archive = zipfile.ZipFile(path)
    except _DAMAGED as error:
        raise UnsafeCheckpoint(f"the zip archive is damaged or cut short ({error})") from error
    with archive:
        members = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise UnsafeCheckpoint("a zip archive, but not one of torch.save (no data.pkl)")
        root = pickles[0].removesuffix("data.pkl")
        if root + "constants.pkl" in members:
            raise UnsafeCheckpoint("a TorchScript archive: save model.state_dict() with torch.save instead")
        _check_members(archive.infolist(), size)
        if members[pickles[0]].file_size > MAX_PICKLE:
            raise UnsafeCheckpoint("its pickle is too large")

        def member(name: str) -> bytes:
            if name not in members:
                raise UnsafeCheckpoint(f"the archive has no member {name[:60]!r}")
            try:
                return archive.read(members[name])
            except _DAMAGED as error:
                raise UnsafeCheckpoint(f"{name[:60]} is damaged ({error})") from error

        if root + "byteorder" in members and member(root + "byteorder") != b"little":
            raise UnsafeCheckpoint("a big-endian torch checkpoint is not supported: save it again on another machine")
        storages: dict[str, Storage] = {}

        def get(key: str, dtype: np.dtype, numel: int, view: Any) -> Storage:
            if key not in storages:
                raw = np.frombuffer(member(f"{root}data/{key}"), np.uint8)
                if len(raw) < numel * dtype.itemsize:
                    raise UnsafeCheckpoint(f"storage {key} is cut short")
                storages[key] = Storage(key, dtype, numel, raw[: numel * dtype.itemsize])
            return storages[key]

        return Machine(_persistent(get), _budget(size)).load(io.BytesIO(member(pickles[0])))


def _check_members(members: list[zipfile.ZipInfo], size: int) -> None:
    """Members as torch writes them: stored, each name once, side by side."""
    if len({info.filename for info in members}) != len(members):
        raise UnsafeCheckpoint("the archive has two members of one name")
    for info in members:
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or info.flag_bits & 1:
            raise UnsafeCheckpoint("an archive with compressed or encrypted members is no torch file")
    end = 0
    for info in sorted(members, key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise UnsafeCheckpoint("members of the archive overlap")
        end = info.header_offset + _LOCAL_HEADER + info.file_size
    if end > size:
        raise UnsafeCheckpoint("the archive is cut short")


def _read_legacy(path: Path) -> Any:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = io.BytesIO(file.read(min(size, MAX_PICKLE)))

        def plain() -> Any:
            def refuse(pid: Any) -> Storage:
                raise UnsafeCheckpoint("a persistent id where none belongs")

            return Machine(refuse, 0).load(head)

        if plain() != _MAGIC:
            raise UnsafeCheckpoint("no torch checkpoint (its magic number is missing)")
        if plain() != _PROTOCOL:
            raise UnsafeCheckpoint("a torch checkpoint of an unknown protocol")
        system = plain()
        if type(system) is not dict or system.get("little_endian") is not True:
            raise UnsafeCheckpoint("a big-endian torch checkpoint is not supported: save it again on another machine")
        storages: dict[str, Storage] = {}

        def get(key: str, dtype: np.dtype, numel: int, view: Any) -> Storage:
            if view is not None:
                raise UnsafeCheckpoint("storages that are views of others are not supported: save it with torch >= 1.6")
            return storages.setdefault(key, Storage(key, dtype, numel))

        found = Machine(_persistent(get), _budget(size)).load(head)
        keys = plain()
        if type(keys) is not list or any(type(key) is not str for key in keys) or sorted(keys) != sorted(storages):
            raise UnsafeCheckpoint("the list of storages does not fit the tensors")
        position = head.tell()
        for key in keys:
            storage = storages[key]
            length = storage.numel * storage.dtype.itemsize
            file.seek(position)
            header = file.read(8)
            if len(header) != 8 or position + 8 + length > size:
                raise UnsafeCheckpoint("the file is cut short")
            if struct.unpack("<q", header)[0] != storage.numel:
                raise UnsafeCheckpoint(f"storage {key} is not of the size its tensors need")
            storage.data = np.frombuffer(file.read(length), np.uint8)
            position += 8 + length
    return found


def _resolve(found: Any) -> Any:
    """Replaces views by arrays, in place, each container once: a pickle can share one container a million times."""
    if type(found) is View:
        return found.array()
    seen: set[int] = set()
    waiting = [found]
    while waiting:
        container = waiting.pop()
        if id(container) in seen:
            continue
        seen.add(id(container))
        if isinstance(container, dict | OrderedDict):
            items: Any = list(container.items())
        elif type(container) is list:
            items = list(enumerate(container))
        else:
            continue
        for key, value in items:
            if type(value) is View:
                container[key] = value.array()
            elif isinstance(value, dict | list):
                waiting.append(value)
    return found
