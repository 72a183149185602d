"""Tables of pictures and labels: CSV and Parquet files, and what is checked of any table."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from jaxft.data.folder import SPLIT_OF
from jaxft.data.sources import Files, Found, Source, Stored
from jaxft.errors import JaxftError, near


@dataclasses.dataclass(frozen=True)
class Table:
    """Columns of text, and pictures.

    Attributes:
      title: how the table is called in errors.
      columns: name -> a text a row; "" where there is none.
      count: number of rows.
      line: what a row is called in errors: its number is that of the first one plus its position.
      root: the folder that paths are relative to.
      image: the column of the pictures: one of `columns` where it holds paths.
      read: position of a row -> its picture, where the table holds the pictures.
      names: of rows, where the table holds the pictures.
      note: see `Stored`.
      classes: column -> the names of its classes in order, where the table itself says them.
    """

    title: str
    columns: Mapping[str, Sequence[str]]
    count: int
    line: tuple[str, int]
    root: Path
    image: str
    read: Callable[[int], bytes | Path] | None = None
    names: Sequence[str] = ()
    note: str = ""
    classes: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def where(self, row: int) -> str:
        """A row, as an error names it."""
        return f"{self.title} {self.line[0]} {row + self.line[1]}"


def read_csv(file: Path, task: str, options: Mapping[str, str] | None = None) -> Found:
    """Reads a table with the columns `path`, `label` and, if there, `split` (train, val or test) and `group`.

    Paths are relative to the table. Of a multi-label task, `label` holds names separated by `;` (none: no label), or every
    other column is a class with 0 or 1; of soft labels every other column is a class, with its share. Of a regression, `label`
    is a number.

    Args:
      file: the table.
      task: see `open_data`.
      options: other names of the columns: `image`, `label`, `split`, `group`.

    Raises:
      JaxftError: no such file, no rows, missing columns, a label of another kind, an unknown split.
    """
    options = options or {}
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:  # spreadsheets put a byte order mark first
            reader = csv.reader(opened)
            header = next(reader, [])
            columns, count = _columns(reader, header)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise JaxftError(f"cannot read the table '{file}': {getattr(error, 'strerror', None) or error}") from error
    if len(columns) < len(header):
        twice = next(column for column in header if header.count(column) > 1)
        raise JaxftError(f"'{file}' has two columns '{twice}'")
    return read_table(Table(f"'{file}'", columns, count, ("line", 2), file.parent, options.get("image", "path")), task, options)


def _columns(rows: Iterator[list[str]], header: Sequence[str]) -> tuple[dict[str, list[str]], int]:
    """Columns by name, and how many rows they have. Few rows at a time become columns: a million lists are slow to collect."""
    columns: list[list[str]] = [[] for _ in header]
    width, count = len(header), 0
    while some := list(islice(rows, 10_000)):
        whole = [row if len(row) == width else (row + [""] * width)[:width] for row in some if row]  # empty cells are left away
        for column, cells in zip(columns, zip(*whole, strict=True), strict=bool(whole)):
            column += cells
        count += len(whole)
    return dict(zip(header, columns, strict=True)), count


def read_table(table: Table, task: str, options: Mapping[str, str]) -> Found:
    """Checks a table and gives its splits ("all" where it has no column of splits) and class names.

    Raises:
      JaxftError: see `read_csv`.
    """
    columns = table.columns
    for key, column in options.items():
        if key != "image" and column not in columns:
            raise JaxftError(f"{table.title} has no column '{column}'{near(column, columns)}: it has {', '.join(columns)}")
    chosen = {key: options.get(key, key) for key in ("label", "split", "group")}
    per_class = task == "soft" or (task == "multilabel" and chosen["label"] not in columns)
    bare = task == "unlabelled"
    if (table.read is None and table.image not in columns) or (chosen["label"] not in columns and not per_class and not bare):
        needed = f"{table.image},label[,split]" if not options else f"{table.image},{chosen['label']}"
        needed = table.image if bare else needed
        raise JaxftError(f"{table.title} needs the columns {needed}; it has {', '.join(columns) or 'none'}")
    if not table.count:
        raise JaxftError(f"{table.title} has no rows")
    if table.read is None:
        _check_paths(table, columns[table.image])
    if per_class:
        names = tuple(column for column in columns if column not in (table.image, chosen["split"], chosen["group"]))
        labels = _per_class(table, names, task)
    elif bare:
        labels, names = np.zeros(table.count, np.int32), ()
    else:
        labels, names = _labels(table, chosen["label"], task)
    if task in ("classify", "soft") and len(names) < 2:
        raise JaxftError(f"{table.title} has one class only ('{names[0]}'): there is nothing to tell apart")
    groups = [group.strip() for group in columns[chosen["group"]]] if chosen["group"] in columns else None
    everything: Source
    if table.read is not None:
        everything = Stored(table.read, np.arange(table.count), table.names, labels, groups, note=table.note)
    else:
        everything = Files(table.root, list(columns[table.image]), labels, groups)
    if chosen["split"] not in columns:
        return {"all": everything}, names
    return _parts(table, everything, columns[chosen["split"]]), names


def _check_paths(table: Table, paths: Sequence[str]) -> None:
    if "" in paths:
        raise JaxftError(f"{table.where(paths.index(''))}: no path")
    if len(set(paths)) == len(paths):
        return
    lines: dict[str, int] = {}
    for row, path in enumerate(paths):
        if (first := lines.setdefault(path, row)) != row:
            word, start = table.line
            raise JaxftError(f"{table.where(row)}: '{path}' stands in {word} {first + start} already")


def _parts(table: Table, everything: Source, given: Sequence[str]) -> dict[str, Source]:
    split_of = {text: SPLIT_OF.get(text.strip().lower()) for text in set(given)}
    if unknown := {text for text, split in split_of.items() if split is None}:
        row, text = next((row, text) for row, text in enumerate(given) if text in unknown)
        raise JaxftError(f"{table.where(row)}: split is '{text}', not train, val or test")
    codes = {text: number for number, text in enumerate(split_of)}
    coded = np.fromiter((codes[text] for text in given), int, len(given))
    parts: dict[str, Source] = {}
    for split in dict.fromkeys(split_of[text] for text in dict.fromkeys(given)):
        mine = [codes[text] for text, found in split_of.items() if found == split]
        parts[str(split)] = everything.subset(np.flatnonzero(np.isin(coded, mine)))
    return parts


def _number(text: str, allowed: Callable[[float], bool]) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise ValueError(f"found '{text}'") from error
    if not allowed(value):
        raise ValueError(f"found '{text}'")
    return value


def _per_class(table: Table, names: Sequence[str], task: str) -> np.ndarray:
    """Labels [N, K] f32 of a column a class: flags, or shares."""
    if not names:
        raise JaxftError(f"{table.title} has no column of a class, and no column 'label'")
    allowed, said = (
        ((0, 1).__contains__, "0 or 1") if task == "multilabel" else (lambda share: 0 <= share <= 1, "shares of 0 to 1")
    )
    try:
        found = np.array([[_number(text, allowed) for text in table.columns[name]] for name in names]).T
    except (TypeError, ValueError) as error:
        raise JaxftError(f"{table.title}: columns of classes must hold {said} ({error})") from error
    if task == "soft":
        check_shares(found, lambda row: table.where(row))
    return np.ascontiguousarray(found, np.float32)


def check_shares(shares: np.ndarray, where: Callable[[int], str]) -> None:
    """Shares [N, K] of classes must not be negative and must sum to 1.

    Raises:
      JaxftError: naming the first example that does not, by `where` of its position.
    """
    sums = shares.sum(-1)
    wrong = ~(np.abs(sums - 1) < 1e-3) | ~(shares >= 0).all(-1)
    if wrong.any():
        row = int(wrong.argmax())
        raise JaxftError(
            f"{where(row)}: the shares of the classes must be at least 0 and sum to 1; the least is {shares[row].min():g}, "
            f"the sum {sums[row]:g}"
        )


def _labels(table: Table, column: str, task: str) -> tuple[np.ndarray, tuple[str, ...]]:
    given = table.columns[column]
    if task == "regression":
        try:
            return np.array([_number(text, math.isfinite) for text in given], np.float32), ("value",)
        except (TypeError, ValueError) as error:
            raise JaxftError(f"{table.title}: a label of a regression must be a number ({error})") from error
    parts = {text: [part.strip() for part in text.split(";") if part.strip()] for text in set(given)}
    names = table.classes.get(column) or tuple(sorted({name for found in parts.values() for name in found}))
    if not names:
        raise JaxftError(f"{table.title} has no label in any row")
    number_of = {name: number for number, name in enumerate(names)}
    if task == "multilabel":
        numbers = {text: [number_of[name] for name in found] for text, found in parts.items()}
        labels = np.zeros((len(given), len(names)), np.float32)
        for row, text in enumerate(given):
            labels[row, numbers[text]] = 1
        return labels, names
    if wrong := {text for text, found in parts.items() if len(found) != 1}:
        row, text = next((row, text) for row, text in enumerate(given) if text in wrong)
        raise JaxftError(f"{table.where(row)}: '{text}' is not one label (task 'multilabel' takes several)")
    chosen = {text: number_of[found[0]] for text, found in parts.items()}
    return np.fromiter((chosen[text] for text in given), np.int32, len(given)), names
