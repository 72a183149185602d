"""A file as memory: its pages are read when they are touched, and are the system's to drop again."""

from __future__ import annotations

import mmap
from pathlib import Path


def map_file(path: Path) -> memoryview:
    """The bytes of a file, read-only. Slices are views; the map lasts as long as any of them.

    Replacing or removing the file does not touch the map. Writing into it does, and cutting it short ends the process when
    a lost page is read, so weight files are written under another name and renamed (`open_whole`).
    """
    with path.open("rb") as file:
        try:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except (ValueError, OSError):  # an empty file, or one on a file system without maps
            return memoryview(file.read())
