"""safetensors files, read and written: https://github.com/huggingface/safetensors, section Format.

The format is small, and stands here in full: the library's NumPy functions lack some dtypes, and write the metadata in
another order each time, so that one set of weights would have many hashes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxft.errors import JaxftError
from jaxft.files import open_whole

MAX_HEADER = 100 << 20  # bytes, as in the reference implementation
_DTYPES: dict[str, np.dtype] = {
    code: np.dtype(name)
    for code, name in {
        "F64": "f8", "F32": "f4", "F16": "f2", "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1", "U64": "u8",
        "U32": "u4", "U16": "u2", "U8": "u1", "BOOL": "?", "C64": "c8", "BF16": ml_dtypes.bfloat16,
        "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2,
        "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz, "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
        "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    }.items()
}  # fmt: skip


_CODES = {dtype: code for code, dtype in _DTYPES.items()}


def read_safetensors(data: memoryview) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors, in the order of the file's header, as views of the file; and its metadata.

    Raises:
      JaxftError: damaged, cut short, or with a dtype that is not known.
    """
    length = int.from_bytes(data[:8], "little")
    start = 8 + length
    if length > MAX_HEADER or start > len(data):
        raise JaxftError("the safetensors header is damaged, or the file cut short")
    try:
        header = json.loads(data[8:start].tobytes())
    except (ValueError, RecursionError) as error:
        raise JaxftError(f"the safetensors header is damaged ({str(error)[:80]})") from error
    if not isinstance(header, dict):
        raise JaxftError("the safetensors header is damaged")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise JaxftError("the safetensors metadata is damaged")
    entries = {name: _entry(name, entry) for name, entry in header.items()}
    _check_layout([(begin, end) for _, _, begin, end in entries.values()], len(data) - start)
    found = {
        name: np.frombuffer(data[start + begin : start + end], dtype).reshape(shape)
        for name, (dtype, shape, begin, end) in entries.items()
    }
    return found, {str(key): str(value) for key, value in metadata.items()}


def _entry(name: str, entry: Any) -> tuple[np.dtype, tuple[int, ...], int, int]:
    try:
        code, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise JaxftError(f"the safetensors entry '{name[:60]}' is damaged") from error
    dtype = _DTYPES.get(code) if isinstance(code, str) else None
    if dtype is None:
        raise JaxftError(f"the safetensors entry '{name[:60]}' is of an unknown dtype ({str(code)[:20]})")
    # An empty tensor may claim sides that no array can have.
    if any(type(number) is not int or not 0 <= number < 1 << 48 for number in (*shape, begin, end)) or len(shape) > 16:
        raise JaxftError(f"the safetensors entry '{name[:60]}' is damaged")
    if end - begin != math.prod(shape) * dtype.itemsize or math.prod(max(side, 1) for side in shape) >= 1 << 58:
        raise JaxftError(f"the safetensors entry '{name[:60]}' has another size than its shape")
    return dtype, shape, begin, end


def _check_layout(spans: list[tuple[int, int]], room: int) -> None:
    """Tensors fill the data without holes or overlaps: else a small file could hold any number of large ones."""
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            raise JaxftError("the safetensors entries overlap, or leave holes")
        position = end
    if position > room:
        raise JaxftError(f"the file is cut short ({room} of {position} bytes of data)")
    if position < room:
        raise JaxftError(f"the file has {room - position} bytes behind its last tensor")


def save_safetensors(path: str | Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file, whole or not at all: under another name first, then renamed.

    The same tensors and metadata give the same bytes.

    Raises:
      JaxftError: a dtype the format does not have, or the file cannot be written.
    """
    path = Path(path)
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    header |= dict.fromkeys(tensors)
    # Wide dtypes first, so that each tensor is aligned to its own.
    order = sorted(tensors, key=lambda name: -tensors[name].dtype.itemsize)
    position = 0
    for name in order:
        dtype, shape = tensors[name].dtype.newbyteorder("<"), tensors[name].shape
        if dtype not in _CODES:
            raise JaxftError(f"'{name}' is {dtype}, which safetensors does not have; it has {', '.join(_DTYPES)}")
        begin, position = position, position + tensors[name].nbytes
        header[name] = {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": [begin, position]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    try:
        with open_whole(path) as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name in order:
                file.write(tensors[name].astype(tensors[name].dtype.newbyteorder("<"), copy=False).tobytes())
    except OSError as error:
        raise JaxftError(f"cannot write {path}: {error.strerror or error}") from error
