"""Splits made by us: stratified, seeded, written down; and what must not happen between splits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxft.data.sources import Files
from jaxft.errors import JaxftError
from jaxft.files import write_whole


def stratified(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits positions in two, (rest, part), both ascending; of each class `fraction` goes to the part.

    Classes give `round(fraction * n)` examples each, at least one where they have two; multi-label and regression targets are
    split without regard to them.

    Raises:
      JaxftError: a fraction outside [0, 1), or a part that would be empty.
    """
    if not 0 <= fraction < 1:
        raise JaxftError(f"a fraction of {fraction} cannot be split off: it must lie in [0, 1)")
    rng = np.random.Generator(np.random.Philox(key=np.array([seed % 2**64, 3], np.uint64)))
    groups = (
        [np.flatnonzero(labels == label) for label in np.unique(labels)]
        if labels.dtype == np.int32
        else [np.arange(len(labels))]
    )
    part: list[np.ndarray] = []
    for group in groups:
        count = round(fraction * len(group))
        if fraction and len(group) >= 2:
            count = min(max(count, 1), len(group) - 1)
        part.append(rng.permutation(group)[:count])
    chosen = np.sort(np.concatenate(part))
    if fraction and not len(chosen):
        raise JaxftError(f"{len(labels)} examples are too few to split {fraction:.0%} off")
    return np.setdiff1d(np.arange(len(labels)), chosen), chosen


def write_manifest(path: Path, splits: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Writes which name is in which split.

    Raises:
      JaxftError: the file cannot be written.
    """
    record = {"settings": dict(settings), "splits": {name: list(source.names) for name, source in splits.items()}}
    try:
        write_whole(path, json.dumps(record, indent=1) + "\n")
    except OSError as error:
        raise JaxftError(f"cannot write the list of splits {path}: {error.strerror}") from error


def read_manifest(path: Path, everything: Any, settings: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The positions of each split, as they were written down.

    Raises:
      JaxftError: a damaged file, other settings, or data that came or went since.
    """
    try:
        record = json.loads(path.read_text())
        written, made_with = record["splits"], record["settings"]
        listed = {str(name) for names in written.values() for name in names}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise JaxftError(f"the list of splits {path} is damaged ({error}): remove it to split anew") from error
    if made_with != dict(settings):
        raise JaxftError(f"{path} was made with {made_with}, now asked for {dict(settings)}: remove it to split anew")
    position = {name: number for number, name in enumerate(everything.names)}
    gone, came = sorted(listed - position.keys()), sorted(position.keys() - listed)
    if gone or came:
        parts = [f"{len(rows)} {what} ({', '.join(rows[:3])})" for rows, what in ((gone, "went"), (came, "came")) if rows]
        raise JaxftError(f"the data changed since {path} was written: {'; '.join(parts)}; remove it to split anew")
    return {split: np.array([position[str(name)] for name in names], int) for split, names in written.items()}


def duplicates_across(splits: Mapping[str, Files]) -> list[str]:
    """A note for each two splits that hold files of the same bytes: the same picture to learn from and to be judged on."""
    seen: dict[str, dict[str, str]] = {}
    for split, source in splits.items():
        sizes: dict[str, str] = {}
        for name, digest in zip(source.names, source.digests, strict=True):
            sizes.setdefault(digest, name)
        seen[split] = sizes
    notes = []
    names = list(splits)
    for number, first in enumerate(names):
        for second in names[number + 1 :]:
            if both := sorted(seen[first].keys() & seen[second].keys()):
                example = f"{seen[first][both[0]]} = {seen[second][both[0]]}"
                notes.append(
                    f"{len(both)} pictures are in {first} and in {second} ({example}): figures on {second} will flatter"
                )
    return notes
