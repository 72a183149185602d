"""Rows of numbers on disk, filled block by block: what is kept of a frozen prefix.

Two files: `NAME.rows`, the raw array [rows, ...] in C order, and `NAME.json`, which says what it is and holds the CRC-32 of
every block that was written (null: not yet) and is always replaced whole. So one rule covers a killed filling, a file cut short
and damaged bytes: a block whose bytes do not have its CRC is computed again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxft.errors import SaveError
from jaxft.files import write_whole

#: Changes whenever older files would be misread.
FORMAT = 1
DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


class Rows:
    """An array [rows, ...] in a file.

    Opening one reads what is there and checks it; only `reserve` and `write` change anything.

    Args:
      folder: where the files are; made by `reserve`.
      name: the files' first name; some digits of the key are added, so arrays of other origin stand beside each other.
      about: all that the numbers depend on, as JSON data. Rows kept with another `about` are not used.
      shape: (rows, ...).
      dtype: a name of `DTYPES`.
      block: rows in a block. A file that was begun with other blocks keeps its own.

    Attributes:
      block: rows in a block.
      missing: the blocks that are to be written.
      damaged: how many of them had been written.
    """

    def __init__(
        self, folder: Path, name: str, about: Mapping[str, Any], *, shape: Sequence[int], dtype: str, block: int
    ) -> None:
        self.shape, self.dtype = tuple(shape), DTYPES[dtype]
        self._about = {"format": FORMAT, **about, "shape": list(shape), "dtype": dtype}
        key = hashlib.sha256(json.dumps(self._about, sort_keys=True).encode()).hexdigest()
        self.path = folder / f"{name}-{key[:16]}.rows"
        self._record = self.path.with_suffix(".json")
        self.block, crcs = self._recorded() or (block, [None] * -(-shape[0] // block))
        self._crcs = crcs
        self.damaged = self._check()

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize

    @property
    def missing(self) -> list[int]:
        return [number for number, crc in enumerate(self._crcs) if crc is None]

    def rows_of(self, block: int) -> range:
        """The rows of a block."""
        return range(block * self.block, min((block + 1) * self.block, self.shape[0]))

    def reserve(self) -> None:
        """Takes the room on the disk before the first block is computed.

        Raises:
          SaveError: there is not enough, or nothing can be written there.
        """
        with self._saving():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            had = self.path.stat().st_blocks * 512 if self.path.exists() else 0
            free = shutil.disk_usage(self.path.parent).free
            if free < self.nbytes - had:
                raise OSError(errno.ENOSPC, f"needs {self.nbytes / 1e6:,.1f} MB, has {(free + had) / 1e6:,.1f} MB")
            with self.path.open("ab") as file:
                os.ftruncate(file.fileno(), self.nbytes)
                if hasattr(os, "posix_fallocate"):  # not on macOS
                    os.posix_fallocate(file.fileno(), 0, self.nbytes)

    def write(self, block: int, values: np.ndarray) -> None:
        """Writes a block's rows; `save` makes it count.

        Raises:
          SaveError: it could not be written. What was saved before stays.
        """
        rows = self.rows_of(block)
        data = np.ascontiguousarray(values, self.dtype).tobytes()
        with self._saving(), self.path.open("r+b") as file:  # not through the map, where a full disk is a killed process
            file.seek(rows.start * self._row_bytes)
            file.write(data)
        self._crcs[block] = zlib.crc32(data)

    def save(self) -> None:
        """Records the blocks written so far.

        Raises:
          SaveError: the record could not be written.
        """
        with self._saving():
            write_whole(self._record, json.dumps({"about": self._about, "block": self.block, "crc32": self._crcs}) + "\n")

    def read(self) -> np.ndarray:
        """All rows, memory-mapped, read-only."""
        return self._map().view(self.dtype).reshape(self.shape)

    @property
    def _row_bytes(self) -> int:
        return self.nbytes // self.shape[0]

    def _map(self) -> np.ndarray:
        return np.asarray(np.memmap(self.path, np.uint8, "r"))

    def _recorded(self) -> tuple[int, list[int | None]] | None:
        """Block size and CRCs from the record; None where there is no usable one."""
        try:
            record = json.loads(self._record.read_text())
            block, crcs = int(record["block"]), list(record["crc32"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        usable = record["about"] == self._about and block > 0 and len(crcs) == -(-self.shape[0] // block)
        return (block, crcs) if usable else None

    def _check(self) -> int:
        """Forgets the CRC of every block whose bytes do not have it; returns how many these were."""
        damaged = 0
        try:
            found = self._map()
        except (OSError, ValueError):  # no file, or an empty one
            found = np.zeros(0, np.uint8)
        for block, crc in enumerate(self._crcs):
            rows = self.rows_of(block)
            start, stop = rows.start * self._row_bytes, rows.stop * self._row_bytes
            if crc is not None and (stop > len(found) or zlib.crc32(found[start:stop].data) != crc):
                self._crcs[block] = None
                damaged += 1
        return damaged

    @contextlib.contextmanager
    def _saving(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            folder = self.path.parent
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise SaveError(
                    f"the disk of {folder} is full ({error.strerror}): the features were not kept; make room and "
                    "start it again, or set fewer config.features.views, dtype 'bfloat16' or another config.features.dir"
                ) from error
            raise SaveError(f"the features cannot be kept in {folder}: {error.strerror}") from error
