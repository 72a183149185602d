"""Reads any weight file into `{name: array}`. What a file is, is decided by its content, not its name."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from jaxft.errors import JaxftError
from jaxft.weights.h5 import KERAS_WEIGHTS, read_h5, read_keras
from jaxft.weights.npz import read_npz
from jaxft.weights.pth import LEGACY_START, ZIP_START, read_pth
from jaxft.weights.safetensors_file import read_safetensors
from jaxft.weights.state_dict import unwrap

_HDF5_START = b"\x89HDF\r\n\x1a\n"


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Reads a torch `.pth` (zip or legacy), `.safetensors`, Keras `.h5` or `.keras` or NumPy `.npz` file; torch is not needed.

    A state dict that lies inside a training checkpoint is found, and a prefix that all names share (`module.`) is cut.

    Returns:
      Tensor name -> array, in the file's order; dtypes as stored (bfloat16 and float8 through ml_dtypes). Arrays may be
      read-only views of shared memory, as tied weights are.

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
        with path.open("rb") as file:
            start = file.read(256)
        tensors, metadata = _read(path, start)
    except JaxftError as error:
        raise type(error)(f"{path}: {error}") from error
    except OSError as error:
        raise JaxftError(f"{path} cannot be read: {error.strerror or error}") from error
    if not tensors:
        raise JaxftError(f"{path} holds no tensors")
    return tensors, metadata


def is_keras(path: str | Path) -> bool:
    """Whether a weight file is Keras' own, whose names are paths in a container; see `jaxft.weights.keras_files`."""
    with Path(path).open("rb") as file:
        start = file.read(8)
    return start == _HDF5_START or (start.startswith(ZIP_START) and KERAS_WEIGHTS in _members(Path(path)))


def _read(path: Path, start: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    if start.startswith(_HDF5_START):
        return read_h5(path), {}
    if len(start) > 8 and start[8:9] == b"{":
        return read_safetensors(path)
    if start.startswith(ZIP_START) and any(name.endswith(".npy") for name in _members(path)):
        return read_npz(path), {}
    if start.startswith(ZIP_START) and KERAS_WEIGHTS in _members(path):
        return read_keras(path), {}
    if start.startswith((ZIP_START, LEGACY_START)):
        tensors, steps = unwrap(read_pth(path))
        return tensors, {"unwrapped": ", ".join(steps)} if steps else {}
    raise JaxftError(f"no weight file: {_guess(start, path)}")


def _members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except Exception as error:  # what zipfile raises on damaged bytes is no closed list
        raise JaxftError(f"the zip archive is damaged or cut short ({str(error)[:100]})") from error


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
