"""What a line of text or a Python object names, read: the splits it comes in, and the names of its classes."""

from __future__ import annotations

import dataclasses
import re
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxft.data.folder import read_folder
from jaxft.data.objects import read_objects
from jaxft.data.sources import Arrays, Files, Found, Source, Stored
from jaxft.data.unlabelled import read_pictures, without_labels
from jaxft.errors import JaxftError, near

TASKS = ("classify", "multilabel", "regression", "soft", "unlabelled")
_TABLE = ("image", "label", "split", "group")
#: The kinds of source and what each may be told behind a `?`.
KINDS: dict[str, tuple[str, ...]] = {
    "folder": ("group",),
    "csv": _TABLE,
    "parquet": _TABLE,
    "hf": ("image", "label", "group"),
    "wds": ("image", "label", "key", "group"),
    "records": ("group",),
    "tfds": (),
    "python": (),
}
#: Of these, `group` is a column; of others a regular expression over the names of examples.
_TABLES = ("csv", "parquet", "hf")
#: These are nothing without labels.
_LABELLED = ("hf", "wds", "tfds")


def read_source(
    source: Any,
    *,
    task: str = "classify",
    data_dir: str | None = None,
    group: str | None = None,
    class_names: Sequence[str] | None = None,
) -> tuple[dict[str, Source], tuple[str, ...], list[str]]:
    """What a data set holds, whether its pictures can be decoded or not; class names; notes. See `open_data`."""
    if task not in TASKS:
        raise JaxftError(f"no task is called '{task}'{near(task, TASKS)}; there are {', '.join(TASKS)}")
    notes: list[str] = []
    if isinstance(source, str) and source.startswith("python:"):
        source = _call(source)
    if isinstance(source, str | Path):
        found, names = _by_text(str(source), task, data_dir, group)
    else:
        found, names, notes = read_objects(source, task, class_names)
        found = _grouped(found, group) if group is not None else found
    if task == "unlabelled":
        return {split: without_labels(part) for split, part in found.items()}, (), notes
    return found, names, notes


def _call(source: str) -> Any:
    """What the function of `python:MODULE:FUNCTION` returns."""
    from jaxft.losses import import_function  # JAX, which nothing else here needs

    _, _, name = source.partition(":")
    if not re.fullmatch(r"[\w.]+:[\w.]+", name):
        raise JaxftError(f"'{source}' is not written python:MODULE:FUNCTION")
    made = import_function(name, "the data")()
    if isinstance(made, str) and made.startswith("python:"):
        raise JaxftError(f"'{source}' returned '{made}': it must return data, or another kind of source")
    return made


def _options(text: str) -> tuple[str, str, dict[str, str]]:
    """Kind ("" for a bare path), place and options of a source's text."""
    kind, colon, rest = text.partition(":")
    if not colon or kind not in KINDS:
        kind, rest = "", text
    question = re.search(r"\?(?=[a-z_]+=)", rest)
    if question is None or Path(rest).expanduser().exists():
        return kind, rest, {}
    options: dict[str, str] = {}
    allowed = KINDS[kind or "folder"]
    for part in rest[question.end() :].split("&"):
        key, equals, value = part.partition("=")
        if key not in allowed:
            can = f"it takes {', '.join(allowed)}" if allowed else "it takes none"
            raise JaxftError(f"'{text}': {kind or 'folder'} sources take no option '{key}'{near(key, allowed)}: {can}")
        if not equals or not value or key in options:
            raise JaxftError(f"'{text}': options are written ?key=value&key=value, each once (an & in a value as %26)")
        options[key] = urllib.parse.unquote(value)
    return kind, rest[: question.start()], options


def _by_text(text: str, task: str, data_dir: str | None, group: str | None) -> Found:
    kind, place, options = _options(text)
    if group is not None and options.setdefault("group", group) != group:
        raise JaxftError(f"'{text}' names one group, config.data.group another ('{group}'): give one of them")
    if not text:
        raise JaxftError(
            "no data: set config.data.source to folder:PATH, csv:FILE or tfds:NAME (or parquet:, hf:, wds:, records:, python:)"
        )
    if not kind and not Path(place).expanduser().is_dir():
        given, colon, _ = text.partition(":")
        guess = near(given, KINDS) if colon else ""
        raise JaxftError(f"no folder '{place}'{guess} (other data are written {', '.join(f'{known}:' for known in KINDS)})")
    kind = kind or "folder"
    if not place:
        raise JaxftError(f"'{text}' says no place: write {kind}: and where the data are")
    if group is not None and "group" not in KINDS[kind]:
        raise JaxftError(f"{kind}: sources have no groups: set config.data.group to None")
    # Of formats that need a label it is read, and dropped.
    found = _READERS[kind](place, "classify" if task == "unlabelled" and kind in _LABELLED else task, options, data_dir)
    if kind not in _TABLES and "group" in options:
        return _grouped(found[0], options["group"]), found[1]
    return found


def _folder(place: str, task: str, options: Mapping[str, str], data_dir: str | None) -> Found:
    if task == "unlabelled":
        return read_pictures(Path(place).expanduser()), ()
    if task != "classify":
        raise JaxftError(f"folders give one class a picture: the task '{task}' needs a table, csv:FILE")
    found, names = read_folder(Path(place).expanduser())
    return dict(found), names


# Each import below costs from a tenth of a second to seconds: who has a folder does not pay for it.


def _csv(place: str, task: str, options: Mapping[str, str], data_dir: str | None) -> Found:
    from jaxft.data.tables import read_csv

    return read_csv(Path(place).expanduser(), task, options)


def _parquet(place: str, task: str, options: Mapping[str, str], data_dir: str | None) -> Found:
    from jaxft.data.parquet import read_parquet

    return read_parquet(Path(place).expanduser(), task, options)


def _hub(place: str, task: str, options: Mapping[str, str], data_dir: str | None) -> Found:
    from jaxft.data.hub import read_hub

    return read_hub(place, task, options)


def _webdataset(place: str, task: str, options: Mapping[str, str], data_dir: str | None) -> Found:
    from jaxft.data.webdataset import read_webdataset

    return read_webdataset(place, task, options)


def _records(place: str, task: str, options: Mapping[str, str], data_dir: str | None) -> Found:
    from jaxft.data.records import read_records

    return read_records(Path(place).expanduser(), task)


def _tfds(place: str, task: str, options: Mapping[str, str], data_dir: str | None) -> Found:
    if task != "classify":
        raise JaxftError(f"tfds: sources are for the task 'classify', not '{task}'")
    from jaxft.data.tfds import read_tfds

    return read_tfds(place, data_dir=data_dir)


_READERS: dict[str, Callable[[str, str, Mapping[str, str], str | None], Found]] = {
    "folder": _folder,
    "csv": _csv,
    "parquet": _parquet,
    "hf": _hub,
    "wds": _webdataset,
    "records": _records,
    "tfds": _tfds,
}


def _grouped(found: Mapping[str, Source], pattern: str) -> dict[str, Source]:
    """The same examples, in groups by their names."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise JaxftError(f"the group '{pattern}' is no regular expression ({error})") from error
    grouped: dict[str, Source] = {}
    for split, part in found.items():
        groups = []
        for name in part.names:
            match = compiled.search(name)
            if match is None:
                raise JaxftError(f"the group '{pattern}' matches nothing in the name '{name}'")
            groups.append((match[1] if compiled.groups else match[0]) or "")
        assert isinstance(part, Files | Stored | Arrays)
        grouped[split] = dataclasses.replace(part, groups=groups)
    return grouped
