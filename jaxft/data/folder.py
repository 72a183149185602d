"""Folders of class folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxft.data.sources import Files, find_pictures
from jaxft.errors import JaxftError

#: What the splits are called, as folders, in tables and in names of shards.
SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
#: The split of each of these names.
SPLIT_OF = {alias: split for split, aliases in SPLITS.items() for alias in aliases}


def read_folder(root: Path) -> tuple[dict[str, Files], tuple[str, ...]]:
    """Reads `root/{train,val,test}/CLASS/...` or `root/CLASS/...`.

    Returns:
      The splits found (one, called "all", where the folders below `root` are the classes) and the class names, sorted. Class
      folders without pictures are named in `Files.empty`.

    Raises:
      JaxftError: no such folder, no classes, one class, splits with other classes.
    """
    splits = split_folders(root)
    class_names = tuple(folder.name for folder in _folders(splits.get("train", root)))
    if not class_names:
        raise JaxftError(
            f"'{splits.get('train', root)}' holds no class folders: put each class's pictures in a folder of its name"
        )
    if len(class_names) < 2:
        raise JaxftError(f"'{root}' has one class only ('{class_names[0]}'): there is nothing to tell apart")
    return {split: _read_classes(folder, class_names, root) for split, folder in splits.items()}, class_names


def split_folders(root: Path) -> dict[str, Path]:
    """The folders of the splits; "all", the folder itself, where it has no `train`.

    Raises:
      JaxftError: no such folder, or folders of other splits alone.
    """
    if not root.is_dir():
        raise JaxftError(f"no folder '{root}'")
    below = {folder.name: folder for folder in _folders(root)}
    named = {split: [below[name] for name in names if name in below] for split, names in SPLITS.items()}
    if named["train"]:
        return {split: folders[0] for split, folders in named.items() if folders}
    if below and below.keys() <= {*SPLITS["val"], *SPLITS["test"]}:
        raise JaxftError(f"'{root}' has {' and '.join(below)} but no folder 'train'")
    return {"all": root}


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
    empty: list[Path] = []
    for label, name in enumerate(class_names):
        files = find_pictures(folder / name)
        if not files:
            empty.append(folder / name)
        names += [path.relative_to(root).as_posix() for path in files]
        labels += [label] * len(files)
    return Files(root, names, np.array(labels, np.int32), empty=tuple(empty))
