"""NumPy's `.npz` archives, without pickled objects and without bombs."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from jaxft.errors import JaxftError
from jaxft.weights.stored_zip import Member, contents, whole

#: A compressed archive may inflate to this many times its size: weights hardly compress, zeros do a thousandfold.
MAX_RATIO = 50
_FLOOR = 64 << 20  # bytes that any archive may inflate to
_MAX_HEADER = 16 << 10  # bytes before an array: NumPy takes 10,000, and adds some of its own
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_npz(path: Path, data: memoryview, members: dict[str, Member]) -> dict[str, np.ndarray]:
    """The arrays of numbers in an archive, by name; views of the file if it is not compressed. Text is left out.

    Raises:
      JaxftError: damaged, cut short, inflating out of proportion, or with arrays of objects or raw bytes.
    """
    # `zipfile` inflates no member beyond the size it declares.
    inflated = sum(member.size for member in members.values())
    if inflated > max(_FLOOR, MAX_RATIO * len(data)):
        raise JaxftError(f"the npz archive would inflate to {inflated} bytes, over {MAX_RATIO} times its size")
    try:
        if all(member.stored for member in members.values()):
            raw = contents(data, members)
            found = {name.removesuffix(".npy"): _array(whole(member, raw[name])) for name, member in members.items()}
        else:
            with np.load(path, allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in arrays.files}
    except JaxftError:
        raise
    # What zipfile, zlib and NumPy's header parser raise on damaged bytes is no closed list; each means the same here.
    except Exception as error:
        raise JaxftError(f"the npz archive is damaged, or holds objects ({str(error)[:100]})") from error
    for name, array in found.items():
        if not isinstance(array, np.ndarray):
            raise JaxftError(f"the npz archive holds '{name[:60]}', which is no array")
        if array.dtype.kind not in "fiubcUSMm":
            raise JaxftError(f"'{name[:60]}' is of dtype {array.dtype}: save it as float32, npz cannot hold bfloat16")
    return {name: array for name, array in found.items() if array.dtype.kind in "fiubc"}


def _array(raw: memoryview) -> np.ndarray:
    """An array as a view of its `.npy` file."""
    file = io.BytesIO(raw[:_MAX_HEADER])
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"an array of version {version}")
    shape, by_column, dtype = _HEADERS[version](file)
    if dtype.hasobject:
        raise ValueError("an array of objects")
    return np.ndarray(shape, dtype, raw, file.tell(), order="F" if by_column else "C")
