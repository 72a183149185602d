"""WebDataset shards: plain tar files whose members of one name and several endings are an example."""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxft.data.folder import SPLIT_OF
from jaxft.data.sources import EXTENSIONS, Found, Source, Stored
from jaxft.data.tar import Member, members, read_member
from jaxft.data.targets import read_targets
from jaxft.errors import JaxftError

_PICTURES = frozenset(extension[1:] for extension in EXTENSIONS)
_LABELS = ("cls", "txt", "json")
#: As the library webdataset cuts names: up to the first dot of the last part.
_MEMBER = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)")
_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")

Sample = dict[str, Member]


def read_webdataset(pattern: str, task: str, options: Mapping[str, str]) -> Found:
    """Reads tar shards. Headers and labels are read now, pictures when they are asked for.

    Args:
      pattern: a folder of `.tar` files, a file, a glob, or `shard-{000000..000009}.tar`.
      task: see `open_data`. A label is a number or name in `.cls` or `.txt`, or the value of `label` in `.json`; see
        `jaxft.data.targets` for lists.
      options: `image` and `label`, endings where samples have several; `key`, another key in `.json`.

    Raises:
      JaxftError: no shards, a damaged one, a sample without picture or label, a label that does not fit.
    """
    files = find_shards(pattern)
    splits = [_split_of(file) for file in files]
    if len({split is None for split in splits}) > 1:
        odd = files[splits.index(None)]
        raise JaxftError(f"'{odd}' says no split (train, val or test in its name or folder), '{files[0]}' and others do")
    places: list[tuple[int, Sample]] = []
    keys: list[str] = []
    for number, file in enumerate(files):
        for key, sample in _samples(file).items():
            places.append((number, sample))
            keys.append(key)
    if not places:
        raise JaxftError(f"'{pattern}': the shards hold no samples")

    def where(row: int) -> str:
        return f"'{files[places[row][0]]}': '{keys[row]}'"

    pictures = [_picture(sample, options.get("image"), row, where) for row, (_, sample) in enumerate(places)]
    chosen = _label_ending(places, options, where)
    values = [
        _value(
            read_member(files[number], sample[chosen].offset, sample[chosen].size),
            chosen,
            options.get("key", "label"),
            row,
            where,
        )
        for row, (number, sample) in enumerate(places)
    ]
    labels, class_names = read_targets(values, task, where)
    shard = np.array([number for number, _ in places])
    offset = np.array([member.offset for member in pictures])
    size = np.array([member.size for member in pictures])

    def read(position: int) -> bytes:
        return read_member(files[shard[position]], int(offset[position]), int(size[position]))

    # Keys often begin anew in each shard.
    names = (
        keys
        if len(set(keys)) == len(keys)
        else [f"{files[number].stem}/{key}" for key, number in zip(keys, shard, strict=True)]
    )
    if len(set(names)) < len(names):
        raise JaxftError(f"'{pattern}': shards of one name in several folders hold the same keys: give the shards other names")
    everything = Stored(read, np.arange(len(names)), names, labels)
    if splits[0] is None:
        return {"all": everything}, class_names
    parts: dict[str, Source] = {}
    for split in dict.fromkeys(splits):
        mine = [number for number, found in enumerate(splits) if found == split]
        parts[str(split)] = everything.subset(np.flatnonzero(np.isin(shard, mine)))
    return parts, class_names


def find_shards(pattern: str) -> list[Path]:
    """The files of a folder, glob or `{a..b}` pattern, in order of their names.

    Raises:
      JaxftError: none, or one of a range that is missing.
    """
    place = Path(pattern).expanduser()
    if place.is_dir():
        found = sorted(
            path for path in place.rglob("*") if re.search(r"\.(tar|tgz)(\.[a-z0-9]+)?$", path.name) and path.is_file()
        )
        if not found:
            raise JaxftError(f"the folder '{place}' holds no .tar files")
        return found
    if _BRACES.search(pattern):
        listed = [Path(one).expanduser() for one in _expand(pattern)]
        if missing := [path for path in listed if not path.is_file()]:
            raise JaxftError(f"{len(missing)} of the {len(listed)} shards of '{pattern}' are missing, first '{missing[0]}'")
        return listed
    found = [place] if place.is_file() else [Path(path) for path in sorted(glob.glob(str(place), recursive=True))]
    if not found:
        raise JaxftError(f"no shards '{pattern}': give a folder, a glob or shard-{{000000..000009}}.tar")
    return found


def _expand(pattern: str) -> list[str]:
    braces = _BRACES.search(pattern)
    if braces is None:
        return [pattern]
    first, last, listed = braces.groups()
    if listed is not None:
        options = listed.split(",")
    else:
        options = [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
        if not options:
            raise JaxftError(f"the range {braces[0]} of '{pattern}' is empty: it must ascend")
    return [made for option in options for made in _expand(pattern[: braces.start()] + option + pattern[braces.end() :])]


def _split_of(file: Path) -> str | None:
    """What a word of a shard's name says, or else the folder it lies in: `train-0001.tar`, `birds_val.tar`, `test/0001.tar`."""
    words = {SPLIT_OF[word] for word in re.split(r"[-_.]", file.name.lower()) if word in SPLIT_OF}
    return words.pop() if len(words) == 1 else SPLIT_OF.get(file.parent.name.lower())


def _samples(file: Path) -> dict[str, Sample]:
    samples: dict[str, Sample] = {}
    for member in members(file):
        cut = _MEMBER.fullmatch(member.name.removeprefix("./"))
        if cut is None or member.name.startswith("__"):  # notes of the shard itself
            continue
        key, ending = cut[1], cut[2].lower()
        sample = samples.setdefault(key, {})
        if ending in sample:
            raise JaxftError(f"'{file}': '{member.name}' is there twice")
        sample[ending] = member
    return samples


def _picture(sample: Sample, ending: str | None, row: int, where: Any) -> Member:
    found = [ending] if ending else [one for one in sample if one in _PICTURES]
    if len(found) != 1 or found[0] not in sample:
        what = "no picture" if not found else f"no .{ending}" if ending else f"several pictures (.{', .'.join(found)})"
        raise JaxftError(f"{where(row)} has {what}; it has .{', .'.join(sample)}: name the ending with ?image=ENDING")
    return sample[found[0]]


def _label_ending(places: Sequence[tuple[int, Sample]], options: Mapping[str, str], where: Any) -> str:
    """The ending of labels: the one asked for, or the first of `_LABELS` that the first sample has; all must have it."""
    first = places[0][1]
    chosen = options.get("label") or next((ending for ending in _LABELS if ending in first), None)
    if chosen is None:
        raise JaxftError(
            f"{where(0)} has no label (.cls, .txt or .json); it has .{', .'.join(first)}: name the ending with ?label=ENDING"
        )
    for row, (_, sample) in enumerate(places):
        if chosen not in sample:
            raise JaxftError(f"{where(row)} has no label .{chosen}; it has .{', .'.join(sample)}")
    return chosen


def _value(content: bytes, ending: str, key: str, row: int, where: Any) -> Any:
    try:
        text = content.decode().strip()
        if ending.rpartition(".")[2] != "json":
            return int(text) if ending == "cls" and re.fullmatch(r"\d+", text) else text
        found = json.loads(text)
    except ValueError as error:
        raise JaxftError(f"{where(row)}: .{ending} is not text, or not JSON ({error})") from error
    if not isinstance(found, dict) or key not in found:
        has = ", ".join(map(str, found)) if isinstance(found, dict) else type(found).__name__
        raise JaxftError(f"{where(row)}: .{ending} has no key '{key}' but {has}: name the key with ?key=KEY")
    return found[key]
