"""Reads any weight file into `{name: array}`. What a file is, is decided by its content, not its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jaxft.errors import JaxftError
from jaxft.weights.h5 import KERAS_WEIGHTS, read_h5, read_keras
from jaxft.weights.limits import Limits
from jaxft.weights.mapped import map_file
from jaxft.weights.npz import read_npz
from jaxft.weights.pth import LEGACY_START, read_legacy, read_zip
from jaxft.weights.safetensors_file import read_safetensors
from jaxft.weights.state_dict import unwrap
from jaxft.weights.stored_zip import directory

_ZIP_START = b"PK\x03\x04"
_HDF5_START = b"\x89HDF\r\n\x1a\n"


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Reads a torch `.pth` (zip or legacy), `.safetensors`, Keras `.h5` or `.keras` or NumPy `.npz` file; torch is not needed.

    A state dict that lies inside a training checkpoint is found, and a prefix that all names share (`module.`) is cut.

    Returns:
      Tensor name -> array, in the file's order; dtypes as stored (bfloat16 and float8 through ml_dtypes). Arrays are
      read-only views of the file where its format allows, and of each other where weights are tied: a large file costs no
      second copy.

    Raises:
      JaxftError: no such file, not a weight file, damaged, or cut short.
    """
    return read_with_metadata(path)[0]


def read_with_metadata(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Like `read`, with a safetensors file's metadata; its key `unwrapped` says what stood around the tensors."""
    path = Path(path)
    if not path.is_file():
        raise JaxftError(f"no weight file '{path}'")
    try:
        tensors, metadata = _read(path)
    except JaxftError as error:
        # It may quote names from the file, which may hold anything.
        text = "".join(character if character.isprintable() else "?" for character in str(error))
        raise type(error)(f"{path}: {text}") from error
    except OSError as error:
        raise JaxftError(f"{path} cannot be read: {error.strerror or error}") from error
    if not tensors:
        raise JaxftError(f"{path} holds no tensors")
    return tensors, metadata


def is_keras(path: str | Path) -> bool:
    """Whether a weight file is Keras' own, whose names are paths in a container; see `jaxft.weights.keras_files`."""
    data = map_file(Path(path))
    start = data[:8].tobytes()
    return start == _HDF5_START or (start.startswith(_ZIP_START) and KERAS_WEIGHTS in directory(data, Limits(len(data))))


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    data = map_file(path)
    start = data[:256].tobytes()
    if start.startswith(_HDF5_START):
        return read_h5(path), {}
    if start[8:9] == b"{":
        return read_safetensors(data)
    limits = Limits(len(data))
    if start.startswith(_ZIP_START):
        members = directory(data, limits)
        if any(name.endswith(".npy") for name in members):
            return read_npz(path, data, members), {}
        if KERAS_WEIGHTS in members:
            return read_keras(path), {}
        return _unwrapped(read_zip(data, members, limits))
    if start.startswith(LEGACY_START):
        return _unwrapped(read_legacy(data, limits))
    raise JaxftError(f"no weight file: {_guess(start, path)}")


def _unwrapped(found: Any) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    tensors, steps = unwrap(found)
    return tensors, {"unwrapped": ", ".join(steps)} if steps else {}


def _guess(start: bytes, path: Path) -> str:
    if not start:
        return "it is empty"
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "it is a web page; the download failed"
    if text.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; run 'git lfs pull'"
    if path.suffix == ".safetensors":
        return "its safetensors header is damaged"
    return "it is neither a torch checkpoint nor safetensors, Keras h5 or npz"
