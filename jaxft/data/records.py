"""Records: a data set in array_record shards of our own, whole or not at all; see `jaxft.data.convert_data`.

A folder holds `index.json` (task, classes, shards, fingerprint), `examples.parquet` (of each example its name, label, group,
size and sha256, in the order of the records) and the shards. A record is self-contained: the length of a header as a 32-bit
little-endian number, the header (JSON: name, label), the encoded picture.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from array_record.python.array_record_module import ArrayRecordReader

from jaxft.data.sources import Found, Source, Stored, fingerprint
from jaxft.errors import JaxftError

INDEX, EXAMPLES = "index.json", "examples.parquet"
FORMAT = "jaxft records 1"
#: Nothing is read ahead: examples are asked for in random order.
_READING = "readahead_buffer_size:0,max_parallelism:0"


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file of records: its split, how many there are, its size."""

    file: str
    split: str
    count: int
    bytes: int


def pack(name: str, label: Any, picture: bytes) -> bytes:
    """A record."""
    header = json.dumps({"name": name, "label": np.asarray(label).tolist()}).encode()
    return struct.pack("<I", len(header)) + header + picture


def unpack(record: bytes) -> tuple[str, Any, bytes]:
    """(name, label, picture) of a record.

    Raises:
      ValueError: it is none.
    """
    if len(record) < 4:
        raise ValueError("too short")
    (length,) = struct.unpack_from("<I", record)
    header = json.loads(record[4 : 4 + length])
    return header["name"], header["label"], record[4 + length :]


def open_shard(file: Path, shard: Shard) -> ArrayRecordReader:
    """Opens a shard; its size and count must be as written down: a shard that is cut short opens as one without records.

    Raises:
      JaxftError: it is gone, cut short or of another conversion.
    """
    try:
        size = file.stat().st_size
    except OSError as error:
        raise JaxftError(f"the shard '{file}' cannot be read: {error.strerror}") from error
    if size != shard.bytes:
        raise JaxftError(
            f"the shard '{file}' has {size:,} bytes, not {shard.bytes:,}: it is cut short or was replaced; convert anew"
        )
    reader = ArrayRecordReader(str(file), _READING)
    if reader.num_records() != shard.count:
        raise JaxftError(
            f"the shard '{file}' has {reader.num_records()} records, not {shard.count}: it is damaged; convert anew"
        )
    return reader


class Shards:
    """Pictures by position over all shards. An ArrayRecordReader may be used by many threads."""

    def __init__(self, folder: Path, shards: Sequence[Shard], names: Sequence[str]):
        self._files = [folder / shard.file for shard in shards]
        self._readers = [open_shard(file, shard) for file, shard in zip(self._files, shards, strict=True)]
        self._starts = np.cumsum([0, *(shard.count for shard in shards)])
        self._names = names

    def read(self, position: int) -> bytes:
        """The encoded picture of an example."""
        number = int(np.searchsorted(self._starts, position, side="right")) - 1
        row = position - int(self._starts[number])
        try:
            name, _, picture = unpack(self._readers[number].read([row])[0])
        except (RuntimeError, IndexError, KeyError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
            raise JaxftError(
                f"record {row} of the shard '{self._files[number]}' is damaged: convert anew ({reason})"
            ) from error
        if name != self._names[position]:
            raise JaxftError(
                f"record {row} of the shard '{self._files[number]}' is '{name}', not '{self._names[position]}': convert anew"
            )
        return picture


def read_index(folder: Path) -> dict[str, Any]:
    """The index of a folder of records.

    Raises:
      JaxftError: there is none, or it is damaged.
    """
    try:
        index = json.loads((folder / INDEX).read_text())
        if index["format"] != FORMAT:
            raise JaxftError(f"'{folder}' is of the format '{index['format']}', this version of jaxft reads '{FORMAT}'")
        index["shards"] = [Shard(**shard) for shard in index["shards"]]
        index["class_names"] = tuple(index["class_names"])
        missing = {"task", "examples", "fingerprint"} - index.keys()
    except FileNotFoundError as error:
        raise JaxftError(f"'{folder}' holds no records (no {INDEX}): jaxft.data.convert_data makes them") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, JaxftError):
            raise
        raise JaxftError(f"'{folder / INDEX}' is damaged ({error}): convert anew") from error
    if missing:
        raise JaxftError(f"'{folder / INDEX}' is damaged (no {', '.join(sorted(missing))}): convert anew")
    return index


def read_records(folder: Path, task: str) -> Found:
    """Opens a folder of records. No picture is read: all were decoded when they were packed.

    Raises:
      JaxftError: no records, records of another task, a missing, short or damaged file.
    """
    index = read_index(folder)
    if task not in (index["task"], "unlabelled"):
        raise JaxftError(f"'{folder}' was packed for the task '{index['task']}', not '{task}': set config.data.task")
    try:
        content = (folder / EXAMPLES).read_bytes()
    except OSError as error:
        raise JaxftError(f"'{folder / EXAMPLES}' cannot be read: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != index["examples"]:
        raise JaxftError(f"'{folder / EXAMPLES}' is damaged (its sha256 is another): convert anew")
    table = pq.read_table(pa.BufferReader(content))
    names = table["name"].to_pylist()
    labels = np.stack(table["label"].to_numpy()) if index["task"] in ("multilabel", "soft") else table["label"].to_numpy()
    groups = table["group"].to_pylist() if "group" in table.column_names else None
    shards = Shards(folder, index["shards"], names)
    everything = Stored(shards.read, np.arange(len(names)), names, labels, groups, written=table["sha256"].to_pylist())
    pieces: dict[str, Source] = {}
    split_of = np.repeat([shard.split for shard in index["shards"]], [shard.count for shard in index["shards"]])
    for split in dict.fromkeys(shard.split for shard in index["shards"]):
        pieces[split] = everything.subset(np.flatnonzero(split_of == split))
    if fingerprint(dict(pieces), index["class_names"]) != index["fingerprint"]:
        raise JaxftError(f"'{folder}': the examples are not those its index is of: convert anew")
    return pieces, index["class_names"]
