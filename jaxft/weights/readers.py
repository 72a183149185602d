"""Reads any weight file into `{name: array}`. What a file is, is decided by its content, not its name."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxft.errors import JaxftError
from jaxft.weights.h5 import read_h5
from jaxft.weights.pickle_machine import UnsafeCheckpoint
from jaxft.weights.pth import LEGACY_START, ZIP_START, read_pth

#: Keys under which training scripts put a state dict beside other things, the most wanted first.
_NESTED = ("state_dict_ema", "model_ema", "ema_state_dict", "state_dict", "model_state_dict", "model", "module", "net", "weights")
_PREFIXES = ("module.", "_orig_mod.", "model.")
_MAX_HEADER = 100 << 20

_SAFETENSORS_DTYPES = {
    "F64": "f8", "F32": "f4", "F16": "f2", "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1", "U64": "u8", "U32": "u4",
    "U16": "u2", "U8": "u1", "BOOL": "?", "C64": "c8",
}  # fmt: skip
_EXTENDED_DTYPES = {"BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Reads a torch `.pth` (zip or legacy), `.safetensors`, Keras `.h5` or NumPy `.npz` file; torch is not needed.

    A state dict that lies inside a training checkpoint is found, and a prefix that all names share (`module.`) is cut.

    Returns:
      Tensor name -> array, in the file's order; dtypes as stored (bfloat16 and float8 through ml_dtypes).

    Raises:
      JaxftError: no such file, not a weight file, damaged, or cut short.
    """
    return read_with_metadata(path)[0]


def read_with_metadata(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Like `read`, with a safetensors file's metadata (empty for other formats)."""
    path = Path(path)
    if not path.is_file():
        raise JaxftError(f"no weight file '{path}'")
    with path.open("rb") as file:
        start = file.read(64)
    try:
        if start.startswith(ZIP_START):
            if any(name.endswith(".npy") for name in _members(path)):
                return _read_npz(path), {}
            return _state_dict(read_pth(path)), {}
        if start.startswith(b"\x89HDF\r\n\x1a\n"):
            return read_h5(path), {}
        if start.startswith(LEGACY_START):
            return _state_dict(read_pth(path)), {}
        if len(start) > 8 and start[8:9] == b"{":
            return _read_safetensors(path)
    except JaxftError as error:
        raise type(error)(f"{path}: {error}") from error
    raise JaxftError(f"{path} is no weight file: {_guess(start, path)}")


def _guess(start: bytes, path: Path) -> str:
    if not start:
        return "it is empty"
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page; the download failed"
    if text.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; run 'git lfs pull'"
    if path.suffix == ".safetensors":
        return "its safetensors header is damaged"
    return "it is neither a torch checkpoint nor safetensors, Keras h5 or npz"


def _members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UnsafeCheckpoint(f"the zip archive is damaged or cut short ({error})") from error


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            # A few bytes of zeros can inflate to any size.
            if sum(info.file_size for info in archive.infolist()) > max(1 << 30, 200 * path.stat().st_size):
                raise JaxftError("the npz archive would inflate to more than 200 times its size")
        with np.load(path, allow_pickle=False) as archive:
            for name in archive.files:
                found[name] = archive[name]
    except (ValueError, OSError, zipfile.BadZipFile, KeyError, EOFError) as error:
        if isinstance(error, JaxftError):
            raise
        raise JaxftError(f"the npz archive is damaged or holds objects ({str(error)[:100]})") from error
    return found


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The format in full: 8 bytes of header length, a JSON header, one block of data."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(_MAX_HEADER, size - 8):
            raise JaxftError("the safetensors header is damaged, or the file cut short")
        try:
            header = json.loads(file.read(length))
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise JaxftError(f"the safetensors header is damaged ({str(error)[:80]})") from error
        if not isinstance(header, dict):
            raise JaxftError("the safetensors header is damaged")
        metadata = header.pop("__metadata__", {})
        start, found = 8 + length, {}
        for name, entry in header.items():
            dtype, shape, begin, end = _safetensors_entry(name, entry, size - start)
            file.seek(start + begin)
            found[name] = np.frombuffer(file.read(end - begin), dtype).reshape(shape)
    return found, {str(key): str(value) for key, value in metadata.items()} if isinstance(metadata, dict) else {}


def _safetensors_entry(name: str, entry: Any, room: int) -> tuple[np.dtype, tuple[int, ...], int, int]:
    try:
        code, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        if code in _EXTENDED_DTYPES:
            dtype = np.dtype(getattr(ml_dtypes, _EXTENDED_DTYPES[code]))
        else:
            dtype = np.dtype(_SAFETENSORS_DTYPES[code])
    except (KeyError, TypeError, ValueError) as error:
        raise JaxftError(f"the safetensors entry '{name[:60]}' is damaged or of an unknown dtype") from error
    numbers = (*shape, begin, end)
    if any(type(number) is not int or number < 0 for number in numbers):
        raise JaxftError(f"the safetensors entry '{name[:60]}' is damaged")
    count = 1
    for side in shape:
        count *= side
    if end - begin != count * dtype.itemsize:
        raise JaxftError(f"the safetensors entry '{name[:60]}' has another size than its shape")
    if end > room:
        raise JaxftError("the file is cut short")
    return dtype, shape, begin, end


def _state_dict(found: Any) -> dict[str, np.ndarray]:
    """The tensors of what torch saved, by name."""
    if not isinstance(found, Mapping):
        raise UnsafeCheckpoint("it holds no state dict: save model.state_dict() with torch.save")
    for _ in range(3):
        inner = next((found[key] for key in _NESTED if isinstance(found.get(key), Mapping) and _has_tensors(found[key])), None)
        if inner is None:
            break
        found = inner
    tensors = {str(name): value for name, value in found.items() if isinstance(value, np.ndarray)}
    if not tensors:
        raise UnsafeCheckpoint("it holds no tensors by name: save model.state_dict() with torch.save")
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _has_tensors(found: Mapping[Any, Any]) -> bool:
    return any(
        isinstance(value, np.ndarray) or (isinstance(value, Mapping) and _has_tensors(value)) for value in found.values()
    )
