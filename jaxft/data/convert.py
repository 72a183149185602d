"""Packs any data set into records: shards that are read in random order at the speed of the disk."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from array_record.python.array_record_module import ArrayRecordWriter
from filelock import FileLock, Timeout
from PIL import Image

from jaxft.data.open import find_data
from jaxft.data.records import EXAMPLES, FORMAT, INDEX, Shard, open_shard, pack, read_index
from jaxft.data.sources import Source, Stored, fingerprint
from jaxft.decoding.decode import BadImage, decode
from jaxft.errors import JaxftError
from jaxft.files import write_whole

#: A shard is ended when it has as many bytes, where their number is not given.
SHARD_BYTES = 1 << 30
#: One record a group: of a larger group all records are read to get one. Pictures are compressed already.
_WRITING = "group_size:1,uncompressed"


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What was packed.

    Attributes:
      folder: of the records: `records:FOLDER` opens them.
      splits: split -> number of examples.
      shards, bytes: files, and their size.
      reencoded: pictures that were not kept byte for byte.
      fingerprint: see `jaxft.data.Splits`, over what was packed.
      notes: of opening the data.
    """

    folder: Path
    splits: dict[str, int]
    shards: int
    bytes: int
    reencoded: int
    fingerprint: str
    notes: tuple[str, ...]

    def to_json(self) -> str:
        return json.dumps({**dataclasses.asdict(self), "folder": str(self.folder)}, indent=2)

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {split}" for split, count in self.splits.items())
        return "\n".join(
            [
                f"records:{self.folder}: {counts}; {self.shards} shards, {self.bytes / 1e6:,.1f} MB",
                f"{self.reencoded} pictures were encoded anew, all others are kept byte for byte",
                f"fingerprint {self.fingerprint}",
                *self.notes,
            ]
        )


def convert_data(
    source: Any,
    out: str | Path,
    *,
    shards: int | None = None,
    max_side: int | None = None,
    quality: int = 95,
    overwrite: bool = False,
    threads: int = 4,
    say: Callable[[str], None] | None = None,
    **options: Any,
) -> Conversion:
    """Packs a data set, as it comes (its own splits, or one piece), into array_record shards.

    Encoded pictures are kept byte for byte, pixels become PNGs. The folder appears when all is written, or never.

    Args:
      source: whatever `open_data` opens.
      out: the new folder.
      shards: of the largest split, others in proportion; None ends a shard at 1 GiB.
      max_side: pictures with a longer side are made smaller to it: JPEG and WebP as JPEG, others as PNG.
      quality: of those JPEGs.
      overwrite: replaces records that are there.
      threads: that read and encode.
      say: is told now and then how far it is.
      **options: `task`, `group`, `max_bad_fraction`, `data_dir`, `class_names` of `open_data`.

    Raises:
      JaxftError: data that do not fit (see `open_data`), a folder that exists, another conversion at work, no room on the disk.
    """
    folder = Path(out).expanduser()
    for name, value, most in (
        ("shards", shards, None),
        ("max_side", max_side, None),
        ("quality", quality, 100),
        ("threads", threads, None),
    ):
        if value is not None and (value < 1 or (most is not None and value > most)):
            raise JaxftError(f"{name} is {value}: it must be at least 1" + (f" and at most {most}" if most else ""))
    if folder.exists():
        if not overwrite:
            raise JaxftError(f"'{folder}' exists: choose another folder, or overwrite it (--overwrite, overwrite=True)")
        read_index(folder)  # nothing but records is ever replaced
    task = options.get("task", "classify")
    pieces, class_names, notes = find_data(source, **options)
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
        with FileLock(unfinished / "lock", blocking=False):
            for left in unfinished.iterdir():  # by one that was killed
                if left.name != "lock":
                    left.unlink()
            made = _write(pieces, class_names, task, unfinished, shards, _Encoder(max_side, quality), threads, say)
            _publish(unfinished, folder)
    except Timeout as error:
        raise JaxftError(f"another process converts into '{folder}' now") from error
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise JaxftError(f"cannot write the records '{folder}': {error.strerror or error}; nothing was kept") from error
    except JaxftError:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return dataclasses.replace(made, folder=folder, notes=tuple(notes))


def _publish(unfinished: Path, folder: Path) -> None:
    old = folder.with_name(f".{folder.name}.old")
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    unfinished.rename(folder)
    (folder / "lock").unlink(missing_ok=True)
    shutil.rmtree(old, ignore_errors=True)


@dataclasses.dataclass(frozen=True)
class _Encoder:
    """From a source's picture to the bytes that are kept."""

    max_side: int | None
    quality: int

    def __call__(self, picture: bytes | Path | np.ndarray, name: str) -> tuple[bytes, bool]:
        """(the bytes, whether they were encoded anew)."""
        if isinstance(picture, np.ndarray):
            return self._pixels(picture, name), True
        content = picture if isinstance(picture, bytes) else picture.read_bytes()
        if self.max_side is None:
            return content, False
        with Image.open(io.BytesIO(content)) as opened:
            if max(opened.size) <= self.max_side:
                return content, False
            lossy = opened.format in ("JPEG", "MPO", "WEBP")
            grey = opened.mode in ("1", "L") or opened.mode.startswith("I")
        pixels = decode(content, 1 if grey else 3)
        image = self._smaller(Image.fromarray(pixels[:, :, 0] if grey else pixels))
        return self._encode(image, "JPEG" if lossy else "PNG"), True

    def _pixels(self, pixels: np.ndarray, name: str) -> bytes:
        if pixels.ndim == 3 and pixels.shape[2] not in (1, 3):
            raise JaxftError(f"{name}: records hold pictures of 1 or 3 channels, not {pixels.shape[2]}")
        return self._encode(
            self._smaller(Image.fromarray(pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)), "PNG"
        )

    def _smaller(self, image: Image.Image) -> Image.Image:
        if self.max_side is None or max(image.size) <= self.max_side:
            return image
        scale = self.max_side / max(image.size)
        width, height = (max(1, round(side * scale)) for side in image.size)
        return image.resize((width, height), Image.Resampling.LANCZOS)

    def _encode(self, image: Image.Image, kind: str) -> bytes:
        file = io.BytesIO()
        image.save(file, kind, **({"quality": self.quality} if kind == "JPEG" else {}))
        return file.getvalue()


def _write(
    pieces: dict[str, Source],
    class_names: Sequence[str],
    task: str,
    folder: Path,
    shards: int | None,
    encode: _Encoder,
    threads: int,
    say: Callable[[str], None] | None,
) -> Conversion:
    """Writes shards, then the table of examples, then the index."""
    largest = max(len(piece) for piece in pieces.values())
    made: list[Shard] = []
    digests: dict[str, list[str]] = {}
    sizes: list[int] = []
    reencoded = 0
    with ThreadPoolExecutor(threads) as pool:
        for split, piece in pieces.items():
            count = None if shards is None else max(1, min(len(piece), round(shards * len(piece) / largest)))
            writer = _Writer(folder, split, len(piece), count)
            digests[split] = []
            said = time.monotonic()
            for content, anew in _encoded(piece, encode, pool):
                row = len(digests[split])
                writer.write(row, pack(piece.names[row], piece.labels[row], content))
                digests[split].append(hashlib.sha256(content).hexdigest())
                sizes.append(len(content))
                reencoded += anew
                if say is not None and time.monotonic() - said > 5:
                    said = time.monotonic()
                    say(f"{split}: {row + 1} of {len(piece)}")
            made += writer.close()
    columns: dict[str, Any] = {
        "name": [name for piece in pieces.values() for name in piece.names],
        "label": _column(np.concatenate([piece.labels for piece in pieces.values()])),
        "size": sizes,
        "sha256": [digest for found in digests.values() for digest in found],
    }
    if any(piece.groups is not None for piece in pieces.values()):
        columns["group"] = [group for piece in pieces.values() for group in piece.groups or [""] * len(piece)]
    pq.write_table(pa.table(columns), folder / EXAMPLES, compression="zstd")
    found = _fingerprint(pieces, class_names, digests)
    splits = {split: len(piece) for split, piece in pieces.items()}
    index = {
        "format": FORMAT,
        "task": task,
        "class_names": list(class_names),
        "splits": splits,
        "shards": [dataclasses.asdict(shard) for shard in made],
        "examples": hashlib.sha256((folder / EXAMPLES).read_bytes()).hexdigest(),
        "fingerprint": found,
    }
    write_whole(folder / INDEX, json.dumps(index, indent=1) + "\n")
    total = sum(shard.bytes for shard in made)
    return Conversion(folder, splits, len(made), total, reencoded, found, ())


def _column(labels: np.ndarray) -> pa.Array:
    return pa.array(labels) if labels.ndim == 1 else pa.FixedSizeListArray.from_arrays(labels.ravel(), labels.shape[1])


def _encoded(piece: Source, encode: _Encoder, pool: ThreadPoolExecutor) -> Iterator[tuple[bytes, bool]]:
    def one(row: int) -> tuple[bytes, bool]:
        try:
            return encode(piece[row][0], piece.names[row])
        except BadImage as error:
            raise BadImage(f"{piece.names[row]}: {error}") from error

    rows = iter(range(len(piece)))
    while some := list(islice(rows, 256)):  # what is ahead of the disk stays small
        yield from pool.map(one, some)


class _Writer:
    """Writes the shards of a split one after the other, each checked when it is ended."""

    def __init__(self, folder: Path, split: str, total: int, count: int | None):
        self._folder, self._split = folder, split
        self._ends = None if count is None else [total * (number + 1) // count for number in range(count)]
        self._made: list[Shard] = []
        self._writer: ArrayRecordWriter | None = None
        self._records = self._bytes = 0

    def write(self, row: int, record: bytes) -> None:
        full = self._bytes >= SHARD_BYTES if self._ends is None else row == self._ends[len(self._made)]
        if self._writer is not None and full:
            self._end()
        if self._writer is None:
            self._writer = ArrayRecordWriter(str(self._file()), _WRITING)
        self._call(self._writer.write, record)
        self._records += 1
        self._bytes += len(record)

    def close(self) -> list[Shard]:
        self._end()
        return self._made

    def _file(self) -> Path:
        return self._folder / f"{self._split}-{len(self._made):05d}.array_record"

    def _call(self, function: Callable[..., Any], *arguments: Any) -> None:
        try:
            function(*arguments)
        except RuntimeError as error:  # riegeli's: the reason stands in its first words
            raise OSError(str(error).partition(";")[0]) from error

    def _end(self) -> None:
        assert self._writer is not None
        file = self._file()
        self._call(self._writer.close)
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
        shard = Shard(file.name, self._split, self._records, file.stat().st_size)
        open_shard(file, shard).close()
        self._made.append(shard)
        self._writer = None
        self._records = self._bytes = 0


def _fingerprint(pieces: dict[str, Source], class_names: Sequence[str], digests: dict[str, list[str]]) -> str:
    """Of the records, as they will be read."""
    packed: dict[str, Source | None] = {
        split: Stored(bytes, np.arange(len(piece)), piece.names, piece.labels, written=digests[split])
        for split, piece in pieces.items()
    }
    return fingerprint(packed, class_names)
