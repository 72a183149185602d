"""Pictures alone, for the task "unlabelled": any folder of them, and other data with their labels dropped."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from jaxft.data.folder import split_folders
from jaxft.data.sources import EXTENSIONS, Files, Source, find_pictures
from jaxft.errors import JaxftError


def read_pictures(root: Path) -> dict[str, Source]:
    """All pictures below a folder, however deep; by split, where it has a folder `train`.

    Labels are int32 zeros. Folders of classes are folders like others.

    Raises:
      JaxftError: no such folder, or no pictures.
    """
    found: dict[str, Source] = {}
    for split, folder in split_folders(root).items():
        files = find_pictures(folder)
        if not files:
            raise JaxftError(f"'{folder}' holds no pictures ({', '.join(sorted(EXTENSIONS))})")
        found[split] = Files(root, [path.relative_to(root).as_posix() for path in files], np.zeros(len(files), np.int32))
    return found


def without_labels(source: Source) -> Source:
    """The same pictures, all of the label 0."""
    labels = np.zeros(len(source), np.int32)
    if dataclasses.is_dataclass(source):
        replaced: Any = dataclasses.replace(source, labels=labels)
        return replaced
    bare: Any = copy.copy(source)
    bare.labels = labels
    return bare
