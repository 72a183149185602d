"""Folders of class folders, and tables of paths and labels."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from jaxft.data.sources import EXTENSIONS, Files, find_pictures
from jaxft.errors import JaxftError

_SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}


def read_folder(root: Path) -> tuple[dict[str, Files], tuple[str, ...]]:
    """Reads `root/{train,val,test}/CLASS/...` or `root/CLASS/...`.

    Returns:
      The splits found (one, called "all", where the folders below `root` are the classes) and the class names, sorted.

    Raises:
      JaxftError: no such folder, no classes, one class, an empty class, splits with other classes.
    """
    if not root.is_dir():
        raise JaxftError(f"no folder '{root}'")
    below = {folder.name: folder for folder in _folders(root)}
    named = {split: [below[name] for name in names if name in below] for split, names in _SPLITS.items()}
    if named["train"]:
        splits = {split: folders[0] for split, folders in named.items() if folders}
    elif below and below.keys() <= {*_SPLITS["val"], *_SPLITS["test"]}:
        raise JaxftError(f"'{root}' has {' and '.join(below)} but no folder 'train'")
    else:
        splits = {"all": root}
    class_names = tuple(folder.name for folder in _folders(splits.get("train", root)))
    if not class_names:
        raise JaxftError(
            f"'{splits.get('train', root)}' holds no class folders: put each class's pictures in a folder of its name"
        )
    if len(class_names) < 2:
        raise JaxftError(f"'{root}' has one class only ('{class_names[0]}'): there is nothing to tell apart")
    return {split: _read_classes(folder, class_names, root) for split, folder in splits.items()}, class_names


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise JaxftError(f"cannot read the folder '{root}': {error.strerror}") from error


def _read_classes(folder: Path, class_names: Sequence[str], root: Path) -> Files:
    found = [path.name for path in _folders(folder)]
    if missing := [name for name in class_names if name not in found]:
        raise JaxftError(f"'{folder}' has no folder for the class '{missing[0]}', which the training data has")
    if more := [name for name in found if name not in class_names]:
        raise JaxftError(f"'{folder}' has a class '{more[0]}' that the training data does not have")
    names: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(class_names):
        files = find_pictures(folder / name)
        if not files:
            raise JaxftError(f"the class folder '{folder / name}' holds no pictures ({', '.join(sorted(EXTENSIONS))})")
        names += [path.relative_to(root).as_posix() for path in files]
        labels += [label] * len(files)
    return Files(root, names, np.array(labels, np.int32))


def read_csv(file: Path, task: str) -> tuple[dict[str, Files], tuple[str, ...]]:
    """Reads a table with the columns `path`, `label` and, if there, `split` (train, val or test).

    Paths are relative to the table. Of a multi-label task, `label` holds names separated by `;` (none: no label), or every
    column but `path` and `split` is a class with 0 or 1. Of a regression, `label` is a number.

    Raises:
      JaxftError: no such file, no rows, missing columns, a label of another kind, an unknown split.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:  # spreadsheets put a byte order mark first
            reader = csv.DictReader(opened)
            columns = list(reader.fieldnames or ())
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise JaxftError(f"cannot read the table '{file}': {getattr(error, 'strerror', None) or error}") from error
    if "path" not in columns or ("label" not in columns and task != "multilabel"):
        raise JaxftError(f"'{file}' needs the columns path,label[,split]; it has {', '.join(columns) or 'none'}")
    if not rows:
        raise JaxftError(f"'{file}' has no rows")
    lines: dict[str, int] = {}
    for number, row in enumerate(rows, start=2):
        if not row["path"]:
            raise JaxftError(f"'{file}' line {number}: no path")
        if (first := lines.setdefault(row["path"], number)) != number:
            raise JaxftError(f"'{file}' line {number}: '{row['path']}' stands in line {first} already")
    labels, class_names = _labels(rows, columns, task, file)
    if task == "classify" and len(class_names) < 2:
        raise JaxftError(f"'{file}' has one class only ('{class_names[0]}'): there is nothing to tell apart")
    everything = Files(file.parent, [row["path"] for row in rows], labels)
    if "split" not in columns:
        return {"all": everything}, class_names
    split_of = {alias: split for split, aliases in _SPLITS.items() for alias in aliases}
    chosen: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        split = split_of.get((row["split"] or "").strip().lower())
        if split is None:
            raise JaxftError(f"'{file}' line {number + 2}: split is '{row['split']}', not train, val or test")
        chosen.setdefault(split, []).append(number)
    return {split: everything.subset(numbers) for split, numbers in chosen.items()}, class_names


def _number(text: str, allowed: Callable[[float], bool]) -> float:
    value = float(text)
    if not allowed(value):
        raise ValueError(f"found '{text}'")
    return value


def _labels(
    rows: Sequence[dict[str, str]], columns: Sequence[str], task: str, file: Path
) -> tuple[np.ndarray, tuple[str, ...]]:
    if task == "regression":
        try:
            values = [_number(row["label"], math.isfinite) for row in rows]
            return np.array(values, np.float32), ("value",)
        except (TypeError, ValueError) as error:
            raise JaxftError(f"'{file}': a label of a regression must be a number ({error})") from error
    if task == "multilabel" and "label" not in columns:
        names = [column for column in columns if column not in ("path", "split")]
        if not names:
            raise JaxftError(f"'{file}' has no column of a class, and no column 'label'")
        try:
            flags = [[_number(row[name], (0, 1).__contains__) for name in names] for row in rows]
            return np.array(flags, np.float32), tuple(names)
        except (TypeError, ValueError) as error:
            raise JaxftError(f"'{file}': columns of classes must hold 0 or 1 ({error})") from error
    given = [[part.strip() for part in (row["label"] or "").split(";") if part.strip()] for row in rows]
    names = sorted({name for row in given for name in row})
    if not names:
        raise JaxftError(f"'{file}' has no label in any row")
    if task == "multilabel":
        return np.array([[name in row for name in names] for row in given], np.float32), tuple(names)
    for number, row in enumerate(given):
        if len(row) != 1:
            raise JaxftError(
                f"'{file}' line {number + 2}: '{rows[number]['label']}' is not one label (task 'multilabel' takes several)"
            )
    number_of = {name: number for number, name in enumerate(names)}
    return np.array([number_of[row[0]] for row in given], np.int32), tuple(names)
