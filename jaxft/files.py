"""Writing files so that nobody ever sees half of one, on this computer or in a bucket."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from jaxft.paths import is_remote, reaching


@contextlib.contextmanager
def open_whole(path: Path) -> Iterator[BinaryIO]:
    """Opens a file for writing under another name; it takes its own, on the disk, when all is written, or never.

    Folders above it are made. What was there before stays until then.
    """
    if is_remote(path):
        whole = io.BytesIO()
        yield whole
        with reaching(path):
            path.write_bytes(whole.getvalue())
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):  # a folder that could not be made holds no file to remove
            temporary.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Writes a text file, whole or not at all."""
    with open_whole(path) as file:
        file.write(text.encode())
