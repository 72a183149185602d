"""Data of one task among several: labels among the classes of all, and examples of earlier tasks beside its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxft.data.sources import Arrays, Files, Source, Stored, is_encoded
from jaxft.errors import JaxftError, near


def among_classes(pieces: Mapping[str, Source], names: Sequence[str], classes: Sequence[str], task: str) -> dict[str, Source]:
    """The same examples, labelled by the places of their classes among `classes`.

    Args:
      pieces: sources by split, whose labels are places among `names`.
      names: the classes that these data have.
      classes: all that there are.
      task: see `open_data`.

    Raises:
      JaxftError: a task that is not "classify", a class that is not among them, one named twice.
    """
    if task != "classify":
        raise JaxftError(f"config.data.classes is for the task 'classify', not '{task}': set it to None")
    if len({*classes}) != len(classes):
        raise JaxftError(f"config.data.classes names a class twice: {', '.join(classes)}")
    if unknown := [name for name in names if name not in classes]:
        raise JaxftError(f"the data have the class '{unknown[0]}', which config.data.classes lacks{near(unknown[0], classes)}")
    places = np.array([list(classes).index(name) for name in names], np.int32)
    found: dict[str, Source] = {}
    for split, part in pieces.items():
        assert isinstance(part, Files | Stored | Arrays)
        found[split] = dataclasses.replace(part, labels=places[part.labels])
    return found


def joined(own: Source, others: Sequence[Source]) -> Stored:
    """The examples of a training split, and after them those of earlier tasks, whose names begin with `replay1/`, ...

    Args:
      own, others: labels are of the same classes.
    """
    parts = [own, *others]
    names = [*own.names, *(f"replay{number}/{name}" for number, part in enumerate(others, 1) for name in part.names)]
    starts = np.cumsum([0, *(len(part) for part in parts)])
    written = None
    if all(is_encoded(part) for part in parts):
        written = [digest for part in parts if is_encoded(part) for digest in part.digests]

    def read(position: int) -> bytes | Path | np.ndarray:
        number = int(np.searchsorted(starts, position, "right")) - 1
        return parts[number][position - int(starts[number])][0]

    return Stored(
        read,
        np.arange(len(names)),
        names,
        np.concatenate([part.labels for part in parts]),
        encoded=written is not None,
        written=written,
    )
