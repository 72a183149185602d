"""Data sets of Hugging Face, on the hub or in a folder, read by the library `datasets` (an extra) as Arrow files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from jaxft.data.folder import SPLIT_OF
from jaxft.data.parquet import as_texts
from jaxft.data.sources import Found
from jaxft.data.tables import Table, read_table
from jaxft.errors import JaxftError, near

_REPOSITORY = re.compile(r"([\w.-]+(?:/[\w.-]+)?)(?::([\w.-]+))?(?:@([\w./-]+))?")


def read_hub(name: str, task: str, options: Mapping[str, str]) -> Found:
    """Opens `OWNER/REPO[:CONFIG][@REVISION]`, or a folder: of `save_to_disk`, or of a cloned repository.

    Args:
      name: of the data set. What lies on the hub is downloaded once, into Hugging Face's own cache.
      task: see `open_data`.
      options: `image`, `label` and `group`, columns; without them the only column of pictures and the only one of classes.

    Raises:
      JaxftError: `datasets` is not installed, no such data set, columns that must be chosen, a label that does not fit.
    """
    loaded = _load(name)
    splits = (
        {SPLIT_OF[split]: loaded[split] for split in loaded if split in SPLIT_OF}
        if isinstance(loaded, dict)
        else {"all": loaded}
    )
    if not splits:
        raise JaxftError(f"hf:{name} has the splits {', '.join(loaded)}, none of them train, validation or test")
    title = f"hf:{name}"
    features = next(iter(splits.values())).features
    image, label = _columns(title, features, task, options)
    classes = {column: tuple(names) for column, kind in features.items() if (names := _class_names(kind))}
    # The labels of a test split that is kept secret are -1.
    splits = {split: part for split, part in splits.items() if split == "train" or not _secret(part, label, features)}
    wanted = [column for column in features if column != image]
    if label is not None and task not in ("soft",):
        wanted = [column for column in (label, options.get("group", "group")) if column in features]
    columns = {
        column: [text for part in splits.values() for text in as_texts(_column(part, column), classes.get(column))]
        for column in wanted
    }
    if "all" not in splits:
        columns["split"] = [split for split, part in splits.items() for _ in range(len(part))]
    names = [f"{split}/{row}" for split, part in splits.items() for row in range(len(part))]
    table = Table(title, columns, len(names), ("row", 0), Path(), image, _reader(splits, image, title), names, classes=classes)
    return read_table(
        table, task, {key: column for key, column in {**options, "label": label}.items() if column and key != "image"}
    )


def _load(name: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise JaxftError("hf: sources need the library datasets: pip install 'jaxft[datasets]'") from error
    datasets.disable_progress_bars()
    folder = Path(name).expanduser()
    try:
        if folder.is_dir():
            saved = any((folder / file).is_file() for file in ("dataset_dict.json", "state.json"))
            return datasets.load_from_disk(str(folder)) if saved else datasets.load_dataset(str(folder))
        found = _REPOSITORY.fullmatch(name)
        if found is None:
            raise JaxftError(f"no folder 'hf:{name}'; a data set on the hub is written hf:OWNER/REPO[:CONFIG][@REVISION]")
        return datasets.load_dataset(found[1], found[2], revision=found[3])
    except JaxftError:
        raise
    except Exception as error:  # its own errors, those of requests, of files and of Arrow have no class in common
        said = next((line for line in str(error).splitlines() if line.strip()), "")
        raise JaxftError(f"hf:{name} cannot be opened ({type(error).__name__}: {said[:300]})") from error


def _class_names(kind: Any) -> list[str] | None:
    """Of a column of classes, or of lists of them."""
    return getattr(getattr(kind, "feature", kind), "names", None)


def _columns(title: str, features: Mapping[str, Any], task: str, options: Mapping[str, str]) -> tuple[str, str | None]:
    """The columns of pictures and of labels (None: a column a class)."""
    for column in options.values():
        if column not in features:
            raise JaxftError(f"{title} has no column '{column}'{near(column, features)}: it has {', '.join(features)}")
    pictures = [column for column, kind in features.items() if type(kind).__name__ == "Image"]
    if "image" not in options and len(pictures) != 1:
        has = (
            f"the columns of pictures {', '.join(pictures)}"
            if pictures
            else f"no column of pictures, only {', '.join(features)}"
        )
        raise JaxftError(f"{title} has {has}: choose one with ?image=COLUMN")
    image = options.get("image") or pictures[0]
    if type(features[image]).__name__ != "Image":
        raise JaxftError(f"{title}: the column '{image}' holds no pictures but {features[image]}")
    if "label" in options:
        return image, options["label"]
    if task == "soft":
        return image, None
    classes = [column for column, kind in features.items() if _class_names(kind)]
    if task in ("classify", "multilabel") and len(classes) == 1:
        return image, classes[0]
    if "label" in features:
        return image, "label"
    if task == "multilabel" and not classes:
        return image, None
    has = f"the columns of classes {', '.join(classes)}" if classes else f"no column of classes, only {', '.join(features)}"
    raise JaxftError(f"{title} has {has}: choose one with ?label=COLUMN")


def _column(part: Any, column: str) -> pa.ChunkedArray:
    return part.select_columns([column]).with_format("arrow")[:][column]


def _secret(part: Any, label: str | None, features: Mapping[str, Any]) -> bool:
    if label is None or not hasattr(features[label], "names"):
        return False
    return all(value is None or value < 0 for value in _column(part, label).to_pylist())


def _reader(splits: Mapping[str, Any], image: str, title: str) -> Any:
    """position over all splits -> picture. The files are mapped; nothing but the one row is read."""
    import datasets

    parts = [
        part.select_columns([image]).cast_column(image, datasets.Image(decode=False)).with_format("arrow")
        for part in splits.values()
    ]
    ends = [sum(len(part) for part in parts[: number + 1]) for number in range(len(parts))]

    def read(position: int) -> bytes | Path:
        number = next(number for number, end in enumerate(ends) if position < end)
        row = position - (ends[number - 1] if number else 0)
        found = parts[number][row][image][0].as_py() or {}
        if found.get("bytes") is not None:
            return found["bytes"]
        if found.get("path"):
            return Path(found["path"])
        raise JaxftError(f"{title}: row {row} of {list(splits)[number]} has no picture")

    return read
