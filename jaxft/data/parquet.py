"""Parquet files as tables: a column of paths, or the encoded pictures themselves."""

from __future__ import annotations

import bisect
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jaxft.data.sources import Found
from jaxft.data.tables import Table, read_table
from jaxft.errors import JaxftError, near

#: Bytes of pictures that are kept of the row groups read last. A row group is read as a whole or not at all.
CACHE_BYTES = 2 << 30


def read_parquet(place: Path, task: str, options: Mapping[str, str]) -> Found:
    """Reads a Parquet file, or all `*.parquet` files of a folder in the order of their names, as `read_csv` reads a table.

    Pictures are a column of paths (`path`) or of encoded pictures (`image`): bytes, or a struct of `bytes` and `path` as
    Hugging Face writes it. Labels are texts or numbers, or lists of them; class names that Hugging Face wrote down are used.

    Raises:
      JaxftError: see `read_csv`; a file that is no Parquet file or is cut short, files of other columns.
    """
    files = sorted(place.rglob("*.parquet")) if place.is_dir() else [place]
    if not files:
        raise JaxftError(f"the folder '{place}' holds no .parquet files")
    root = place if place.is_dir() else place.parent
    opened = [_open(file) for file in files]
    schema = opened[0].schema_arrow
    for file, other in zip(files, opened, strict=True):
        if other.schema_arrow.names != schema.names:
            raise JaxftError(
                f"'{file}' has the columns {', '.join(other.schema_arrow.names)}, '{files[0]}' {', '.join(schema.names)}"
            )
    image = options.get("image") or ("path" if "path" in schema.names else "image")
    if image not in schema.names:
        near_ones = near(image, schema.names)
        raise JaxftError(
            f"'{place}' has no column of pictures '{image}'{near_ones}; it has {', '.join(schema.names)}: add ?image=COLUMN"
        )
    kind = schema.field(image).type
    inside = _holds_pictures(kind)
    if not inside and not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise JaxftError(
            f"'{place}': the column '{image}' is {kind}, neither paths nor pictures: choose another with ?image=COLUMN"
        )
    classes = class_names(schema.metadata)
    columns = {
        name: _texts(files, name, classes.get(name)) for name in schema.names if not _holds_pictures(schema.field(name).type)
    }
    count = sum(file.metadata.num_rows for file in opened)
    names: list[str] = []
    read, note = None, ""
    if inside:
        groups = RowGroups(files, opened, image, root)
        read, note = groups.read, groups.note
        for file, rows in zip(files, opened, strict=True):
            shard = file.relative_to(root).as_posix()
            names += [f"{shard}/{row}" for row in range(rows.metadata.num_rows)]
    return read_table(Table(f"'{place}'", columns, count, ("row", 0), root, image, read, names, note, classes), task, options)


def _open(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        raise JaxftError(f"cannot read '{file}' as Parquet, it may be cut short: {_line(error)}") from error


def _line(error: BaseException) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0][:160]


def _holds_pictures(kind: pa.DataType) -> bool:
    binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    return binary or (pa.types.is_struct(kind) and {"bytes", "path"} <= {field.name for field in kind})


def class_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, tuple[str, ...]]:
    """Column -> names of classes in order, as Hugging Face writes them into a schema."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {name: tuple(found["names"]) for name, found in features.items() if found.get("_type") == "ClassLabel"}
    except (KeyError, ValueError, TypeError, AttributeError):  # not of Hugging Face, or without features
        return {}


def _texts(files: Sequence[Path], name: str, classes: Sequence[str] | None) -> list[str]:
    """A column as text: lists joined by `;`, numbers of classes as their names."""
    found: list[str] = []
    for file in files:
        try:
            values = pq.read_table(file, columns=[name], partitioning=None)[name]
            found += as_texts(values, classes)
        except (OSError, pa.ArrowException) as error:
            raise JaxftError(f"cannot read the column '{name}' of '{file}', it may be damaged: {_line(error)}") from error
        except (IndexError, TypeError) as error:
            raise JaxftError(f"'{file}': the column '{name}' has numbers beyond its {len(classes or ())} classes") from error
    return found


def as_texts(values: pa.ChunkedArray, classes: Sequence[str] | None) -> list[str]:
    """See `_texts`."""
    kind = values.type
    if classes and pa.types.is_integer(kind):
        return ["" if value is None or value < 0 else classes[value] for value in values.to_pylist()]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        named = [
            classes[part] if classes and isinstance(part, int) else part for row in values.to_pylist() for part in row or ()
        ]
        parts = iter(named)
        return [";".join(str(next(parts)) for _ in row or ()) for row in values.to_pylist()]
    if pa.types.is_boolean(kind):
        return ["" if value is None else str(int(value)) for value in values.to_pylist()]
    if pa.types.is_dictionary(kind):
        return as_texts(values.cast(kind.value_type), classes)
    found = values.to_pylist()
    texts = (pa.types.is_string(kind) or pa.types.is_large_string(kind)) and not values.null_count
    return found if texts else ["" if value is None else str(value) for value in found]


def _uncompressed(group: pq.RowGroupMetaData, column: str) -> int:
    """Bytes that a column's chunks of a row group take in memory."""
    chunks = (group.column(number) for number in range(group.num_columns))
    return sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema.split(".")[0] == column)


class RowGroups:
    """Pictures of Parquet files by row. A row group is decoded as a whole; those used last are kept, up to `CACHE_BYTES`."""

    def __init__(self, files: Sequence[Path], opened: Sequence[pq.ParquetFile], column: str, root: Path):
        self._column = column
        self._root = root
        self._groups: list[tuple[Path, int]] = []
        self._starts: list[int] = []
        sizes: list[int] = []
        row = 0
        for file, whole in zip(files, opened, strict=True):
            for group in range(whole.metadata.num_row_groups):
                self._groups.append((file, group))
                self._starts.append(row)
                row += whole.metadata.row_group(group).num_rows
                sizes.append(_uncompressed(whole.metadata.row_group(group), column))
        self.note = ""
        if sum(sizes) > CACHE_BYTES:
            self.note = (
                f"the pictures of '{root}' take {sum(sizes) / 1e9:,.1f} GB in row groups of up to {max(sizes) / 1e6:,.0f} MB, "
                f"each read as a whole, and {CACHE_BYTES / 1e9:,.1f} GB of them are kept: in random order that is slow; pack "
                "them into records once"
            )
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def read(self, position: int) -> bytes | Path:
        """The picture of a row."""
        number = bisect.bisect_right(self._starts, position) - 1
        value = self._group(number)[position - self._starts[number]].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if content is not None:
            return content
        if isinstance(value, dict) and value.get("path"):
            return self._root / value["path"]
        file, _ = self._groups[number]
        raise JaxftError(
            f"'{file}': row {position - self._starts[number]} of its row group {self._groups[number][1]} has no picture"
        )

    def _group(self, number: int) -> Any:
        with self._lock:  # who waits would decode the same rows again
            if number in self._kept:
                self._kept.move_to_end(number)
                return self._kept[number]
            file, group = self._groups[number]
            try:
                with pq.ParquetFile(file) as opened:
                    found = opened.read_row_group(group, columns=[self._column])[self._column]
            except (OSError, pa.ArrowException) as error:
                raise JaxftError(f"cannot read row group {group} of '{file}', it may be damaged: {_line(error)}") from error
            self._kept[number] = found
            self._bytes += found.nbytes
            while self._bytes > CACHE_BYTES and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
            return found
