"""Splits written down, and what must not happen between splits."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxft.data.sources import Files, Source, Stored
from jaxft.errors import JaxftError
from jaxft.files import write_whole


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


def duplicates_across(splits: Mapping[str, Files | Stored]) -> list[str]:
    """A note for each two splits that hold pictures of the same bytes: the same picture to learn from and to be judged on."""
    seen: dict[str, dict[str, str]] = {}
    for split, source in splits.items():
        sizes: dict[str, str] = {}
        for name, digest in zip(source.names, source.digests, strict=True):
            sizes.setdefault(digest, name)
        seen[split] = sizes
    notes = []
    for first, second in itertools.combinations(splits, 2):
        if both := sorted(seen[first].keys() & seen[second].keys()):
            example = f"{seen[first][both[0]]} = {seen[second][both[0]]}"
            notes.append(f"{len(both)} pictures are in {first} and in {second} ({example}): figures on {second} will flatter")
    return notes


def groups_across(splits: Mapping[str, Source]) -> list[str]:
    """A note for each two splits that came with the data and share a group, with the first of them by name."""
    held = {split: {group for group in source.groups or () if group} for split, source in splits.items()}
    notes = []
    for first, second in itertools.combinations(held, 2):
        if both := sorted(held[first] & held[second]):
            notes.append(f"{len(both)} groups are in {first} and in {second} ({both[0]}): figures on {second} will flatter")
    return notes
