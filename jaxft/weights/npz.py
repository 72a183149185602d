"""NumPy's `.npz` archives, without pickled objects and without bombs."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from jaxft.errors import JaxftError

#: A compressed archive may inflate to this many times its size: weights hardly compress, zeros do a thousandfold.
MAX_RATIO = 50
_FLOOR = 64 << 20  # bytes that any archive may inflate to


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of numbers in an archive, by name. Text (labels, notes) is left out.

    Raises:
      JaxftError: damaged, cut short, inflating out of proportion, or with arrays of objects or raw bytes.
    """
    found: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            # `zipfile` inflates no member beyond the size it declares.
            inflated = sum(info.file_size for info in archive.infolist())
        if inflated > max(_FLOOR, MAX_RATIO * path.stat().st_size):
            raise JaxftError(f"the npz archive would inflate to {inflated} bytes, over {MAX_RATIO} times its size")
        with np.load(path, allow_pickle=False) as arrays:
            for name in arrays.files:
                found[name] = arrays[name]
    except JaxftError:
        raise
    # What zipfile, zlib and NumPy's header parser raise on damaged bytes is no closed list; each means the same here.
    except Exception as error:
        raise JaxftError(f"the npz archive is damaged, or holds objects ({str(error)[:100]})") from error
    for name, array in found.items():
        if array.dtype.kind not in "fiubcUSMm":
            raise JaxftError(f"'{name[:60]}' is of dtype {array.dtype}: save it as float32, npz cannot hold bfloat16")
    return {name: array for name, array in found.items() if array.dtype.kind in "fiubc"}
