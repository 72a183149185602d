"""torch checkpoints without torch: the zip format (since torch 1.6) and the legacy one before it.

Safe by construction: see `pickle_machine`. The file is mapped into memory, and every tensor is a view of the map. Zip members
must be stored, unique and whole, so that a small file cannot inflate to a large one. A tensor of stride 0 can: all tensors of
a file together may claim so many bytes (`limits`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxft.weights.limits import MAX_CLAIMS, Limits, UnsafeCheckpoint
from jaxft.weights.pickle_calls import Name
from jaxft.weights.pickle_machine import Machine
from jaxft.weights.stored_zip import Member, contents, whole
from jaxft.weights.torch_types import STORAGES, Storage, View

MAX_PICKLE = 64 << 20
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
#: The first bytes of a legacy file: a pickle, of protocol 2 or later, of the magic number, a LONG1 of ten bytes.
LEGACY_START = b"\x80"
_STORAGE = 600  # the price of a storage in bytes, with its view of the file

Get = Callable[[str, np.dtype, int, Any], Storage]


def _persistent(get: Get, limits: Limits) -> Callable[[Any], Any]:
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
        if type(numel) is not int or not 0 <= numel <= MAX_CLAIMS // dtype.itemsize:
            raise UnsafeCheckpoint("a storage without a proper size")
        limits.spend(8, _STORAGE)
        storage = get(key, dtype, numel, pid[5] if len(pid) > 5 else None)
        if storage.dtype != dtype or storage.numel != numel:
            raise UnsafeCheckpoint(f"storage {key} is declared twice, differently")
        return storage

    return resolve


def read_zip(data: memoryview, members: dict[str, Member], limits: Limits) -> Any:
    """The object that was saved: containers with NumPy arrays where tensors were, inert stand-ins for what is neither.

    Args:
      data: the file.
      members: its directory.
      limits: what is left of the file's.

    Raises:
      UnsafeCheckpoint: not a whole, plain torch checkpoint.
    """
    pickles = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise UnsafeCheckpoint("a zip archive, but not one of torch.save (no data.pkl)")
    root = pickles[0].removesuffix("data.pkl")
    if root + "constants.pkl" in members:
        raise UnsafeCheckpoint("a TorchScript archive: save model.state_dict() with torch.save instead")
    found = contents(data, members)
    if members[pickles[0]].size > MAX_PICKLE:
        raise UnsafeCheckpoint("its pickle is too large")

    def member(name: str) -> memoryview:
        if name not in members:
            raise UnsafeCheckpoint(f"the archive has no member {name[:60]!r}")
        return whole(members[name], found[name])

    if root + "byteorder" in members and member(root + "byteorder") != b"little":
        raise UnsafeCheckpoint("a big-endian torch checkpoint is not supported: save it again on another machine")
    storages: dict[str, Storage] = {}

    def get(key: str, dtype: np.dtype, numel: int, view: Any) -> Storage:
        if key not in storages:
            raw = member(f"{root}data/{key}")
            if len(raw) < numel * dtype.itemsize:
                raise UnsafeCheckpoint(f"storage {key} is cut short")
            storages[key] = Storage(key, dtype, numel, np.frombuffer(raw, np.uint8))
        return storages[key]

    return _resolve(Machine(member(pickles[0]), _persistent(get, limits), limits).load()[0])


def read_legacy(data: memoryview, limits: Limits) -> Any:
    """Like `read_zip`, of a file of the format before: five pickles, then the storages in the order of the last one."""
    pickles, at = data[:MAX_PICKLE], 0

    def refuse(pid: Any) -> Storage:
        raise UnsafeCheckpoint("a persistent id where none belongs")

    def plain() -> Any:
        nonlocal at
        found, at = Machine(pickles, refuse, limits).load(at)
        return found

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

    found, at = Machine(pickles, _persistent(get, limits), limits).load(at)
    keys = plain()
    if type(keys) is not list or any(type(key) is not str for key in keys) or sorted(keys) != sorted(storages):
        raise UnsafeCheckpoint("the list of storages does not fit the tensors")
    for key in keys:
        at = _fill(storages[key], data, at)
    return _resolve(found)


def _fill(storage: Storage, data: memoryview, at: int) -> int:
    """Finds a storage that starts here, its number of elements first; gives the place behind it."""
    start, length = at + 8, storage.numel * storage.dtype.itemsize
    if start + length > len(data):
        raise UnsafeCheckpoint("the file is cut short")
    if struct.unpack_from("<q", data, at)[0] != storage.numel:
        raise UnsafeCheckpoint(f"storage {storage.key} is not of the size its tensors need")
    storage.data = np.frombuffer(data[start : start + length], np.uint8)
    return start + length


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
        if isinstance(container, dict):
            items: Any = container.items()
        elif type(container) is list:
            items = enumerate(container)
        else:
            continue
        for key, value in items:
            if type(value) is View:
                container[key] = value.array()  # a key that is there: the iteration goes on
            elif isinstance(value, dict | list):
                waiting.append(value)
    return found
