"""`check_data`: looks at every picture of a data set, before a run: a report, not an error."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxft.data.duplicates import NEAR, find_groups
from jaxft.data.looking import Look, look_at
from jaxft.data.read import read_source
from jaxft.data.sheet import write_sheet
from jaxft.data.sources import Source, Splits
from jaxft.data.survey import Group, Member, SplitSurvey, Spread, Survey
from jaxft.data.warn import warnings_of
from jaxft.errors import JaxftError


def check_data(
    source: Any,
    *,
    task: str = "classify",
    threads: int | None = None,
    near: int | None = NEAR,
    sheet: Path | None = None,
    data_dir: str | None = None,
) -> Survey:
    """Looks at every picture of a data set once.

    Args:
      source: as `open_data` takes it, looked at as it lies there, before anything is split off or left out; or a data set that
        is open.
      task: see `open_data`.
      threads: that decode; None is one a core, at most 16.
      near: bits of 64 in which the hashes of pictures that look alike may differ, at most 16; None does not look for them.
      sheet: where a page of HTML with pictures is written; see `jaxft.data.sheet`.
      data_dir: folder of tensorflow-datasets.

    Returns:
      A `Survey`; `str()` of it is the report. Unreadable pictures are in it, and no error.

    Raises:
      JaxftError: the data set cannot be opened, `near` out of range, the sheet cannot be written.
    """
    if near is not None and not 0 <= near <= 16:
        raise JaxftError(f"near is {near}: hashes of 64 bits are near when 0 to 16 of them differ")
    found, class_names = _parts(source, task, data_dir)
    looks = {split: look_at(part, threads=threads) for split, part in found.items()}
    places = [(split, number) for split, part in looks.items() for number, look in enumerate(part) if isinstance(look, Look)]
    seen: list[Look] = [look for part in looks.values() for look in part if isinstance(look, Look)]
    names = {split: part.names for split, part in found.items()}

    def group(numbers: Sequence[int]) -> Group:
        members = []
        for split, number in (places[position] for position in numbers):
            label = _label(found[split].labels[number], class_names, task)
            members.append(Member(split, number, names[split][number], label))
        return Group(tuple(members))

    same, alike, whole = find_groups(
        np.array([look.digest for look in seen], "S32"),
        np.array([look.hash for look in seen], np.uint64),
        np.stack([look.small for look in seen]) if seen else np.zeros((0, 16, 16, 3), np.uint8),
        near,
    )
    splits = {split: _summary(part, looks[split], class_names, task) for split, part in found.items()}
    survey = Survey(
        source=str(source) if not isinstance(source, Splits) else "data",
        task=task,
        class_names=class_names,
        splits=splits,
        same=_worst_first(group(numbers) for numbers in same),
        near=_worst_first(group(numbers) for numbers in alike),
        near_bits=near,
        near_all=whole,
        warnings=(),
        shapes=_shapes(seen, places, names),
    )
    survey = dataclasses.replace(survey, warnings=tuple(warnings_of(survey)))
    if sheet is not None:
        write_sheet(sheet, survey, found)
    return survey


def _parts(source: Any, task: str, data_dir: str | None) -> tuple[dict[str, Source], tuple[str, ...]]:
    if isinstance(source, Splits):
        there = {"train": source.train, "val": source.val, "test": source.test}
        return {split: part for split, part in there.items() if part is not None}, source.class_names
    found, class_names, _ = read_source(source, task=task, data_dir=data_dir)
    return found, class_names


def _label(label: Any, class_names: Sequence[str], task: str) -> str:
    if task == "unlabelled":
        return ""
    if task == "regression":
        return f"{float(label):.6g}"
    if task == "multilabel":
        return ", ".join(class_names[number] for number in np.flatnonzero(label).tolist()) or "(none)"
    return class_names[int(np.argmax(label)) if task == "soft" else int(label)]


def _worst_first(groups: Iterable[Group]) -> tuple[Group, ...]:
    return tuple(sorted(groups, key=lambda group: (not group.labels_differ, not group.across)))


def _spread(values: Any) -> Spread | None:
    values = np.asarray(values, float)
    return Spread(float(values.min()), float(np.median(values)), float(values.max())) if len(values) else None


def _summary(source: Source, looks: Sequence[Look | str], class_names: Sequence[str], task: str) -> SplitSurvey:
    good = np.array([isinstance(look, Look) for look in looks], bool)
    seen: list[Look] = [look for look in looks if isinstance(look, Look)]
    labels = np.asarray(source.labels)[good]
    counts: dict[str, int] = {}
    if task != "regression":
        single = labels.argmax(-1) if task == "soft" else labels
        of_class = labels.sum(0) if task == "multilabel" else np.bincount(single, minlength=len(class_names))
        counts = {name: int(count) for name, count in zip(class_names, of_class, strict=False)}
    sides = Counter(1 << (min(look.height, look.width).bit_length() - 1) for look in seen)
    channels = Counter(len(look.mean) for look in seen)
    usual = channels.most_common(1)[0][0] if channels else 3
    means = np.array([look.mean for look in seen if len(look.mean) == usual]).reshape(-1, usual)
    squares = np.array([look.square for look in seen if len(look.mean) == usual]).reshape(-1, usual)
    # Sums that are rounded once: the same whatever the order.
    mean, square = ([math.fsum(column) / max(len(part), 1) for column in part.T] for part in (means, squares))
    names = source.names if not good.all() else ()
    return SplitSurvey(
        count=len(looks),
        classes=counts,
        values=_spread(labels) if task == "regression" else None,
        bad=tuple((names[number], look) for number, look in enumerate(looks) if isinstance(look, str)),
        height=_spread([look.height for look in seen]),
        width=_spread([look.width for look in seen]),
        aspect=_spread([max(look.height, look.width) / min(look.height, look.width) for look in seen]),
        file_size=_spread([look.size for look in seen]),
        sides=dict(sorted(sides.items())),
        kinds=dict(Counter(look.kind for look in seen).most_common()),
        turned=sum(look.orientation > 1 for look in seen),
        grey=sum(look.grey for look in seen),
        mean=tuple(value / 255 for value in mean if seen),
        std=tuple(math.sqrt(max(s - m * m, 0)) / 255 for m, s in zip(mean, square, strict=True) if seen),
    )


def _shapes(seen: Sequence[Look], places: Sequence[tuple[str, int]], names: Mapping[str, Sequence[str]]) -> dict[str, tuple]:
    height = np.array([look.height for look in seen], np.int64)
    width = np.array([look.width for look in seen], np.int64)
    area, aspect = height * width, np.maximum(height, width) / np.maximum(np.minimum(height, width), 1)
    usual = (np.median(area), np.median(aspect)) if len(seen) else (0, 0)
    # Of which side of the median, by how much, and sorted by what.
    chosen = {
        "largest": (area >= 2 * usual[0], -area),
        "smallest": (2 * area <= usual[0], area),
        "most oblong": (aspect >= 1.5 * usual[1], -aspect),
    }
    shapes = {}
    for title, (odd, key) in chosen.items():
        first = [place for place in np.argsort(key, kind="stable")[:8].tolist() if odd[place]]
        shapes[title] = tuple(
            (*places[at], names[places[at][0]][places[at][1]], int(height[at]), int(width[at])) for at in first
        )
    return {title: entries for title, entries in shapes.items() if entries}
