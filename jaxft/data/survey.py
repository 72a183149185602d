"""`check_data`: what a data set holds, and what is wrong with it, before a run: a report, not an error."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxft.columns import aligned
from jaxft.data.duplicates import NEAR, find_groups
from jaxft.data.looking import SIDE, Look, look_at
from jaxft.data.open import TASKS
from jaxft.data.open import _by_text as by_text
from jaxft.data.sources import Source, Splits
from jaxft.data.warn import warnings_of
from jaxft.errors import JaxftError
from jaxft.errors import near as near_names


@dataclasses.dataclass(frozen=True)
class Spread:
    """Smallest, middle and largest."""

    low: float
    median: float
    high: float

    def __str__(self) -> str:
        return " / ".join(f"{value:,.4g}" if value < 1000 else f"{value:,.0f}" for value in (self.low, self.median, self.high))


@dataclasses.dataclass(frozen=True)
class SplitSurvey:
    """A split.

    Attributes:
      count: examples, readable or not.
      classes: readable examples by class; of a regression, empty.
      values: of the labels of a regression, else None.
      bad: (name, reason) of the unreadable.
      height, width, aspect, file_size: of the readable; aspect is the long side over the short one; sizes in bytes.
      sides: how many have a short side of so many pixels or more, up to the next: {32: 4, 64: 90}.
      kinds: by format and mode: {"JPEG RGB": 90}.
      turned: how many have an EXIF orientation that turns them.
      grey: how many have no colour.
      mean, std: a channel, 0 to 1, over pictures of about 128 pixels a side, each counting as much.
    """

    count: int
    classes: Mapping[str, int]
    values: Spread | None
    bad: tuple[tuple[str, str], ...]
    height: Spread | None
    width: Spread | None
    aspect: Spread | None
    file_size: Spread | None
    sides: Mapping[int, int]
    kinds: Mapping[str, int]
    turned: int
    grey: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def imbalance(self) -> float | None:
        """The largest class over the smallest; infinite where one is empty, None without classes."""
        counts = self.classes.values()
        return None if not counts else max(counts) / min(counts) if min(counts) else math.inf


@dataclasses.dataclass(frozen=True)
class Member:
    """A picture of a group: `number` is its place in the split, `label` the class, the classes or the value as text."""

    split: str
    number: int
    name: str
    label: str


@dataclasses.dataclass(frozen=True)
class Group:
    """Pictures that are the same, or nearly."""

    members: tuple[Member, ...]

    @property
    def splits(self) -> set[str]:
        return {member.split for member in self.members}

    @property
    def across(self) -> bool:
        return len(self.splits) > 1

    @property
    def labels_differ(self) -> bool:
        return len({member.label for member in self.members}) > 1


@dataclasses.dataclass(frozen=True)
class Survey:
    """What was found.

    Attributes:
      source: as it was given.
      task, class_names: of the data set.
      splits: by name; "all" where the data come in one piece.
      same: groups of files with the same bytes (of arrays, the same pixels).
      near: groups of pictures that look alike and are not all the same bytes; see `near_bits`.
      near_bits: bits of 64 in which the hashes of near ones may differ; None was not looked for.
      near_all: False where so many look alike that the search was ended.
      warnings: the worst first, each with what to do.
      shapes: (split, number, name, height, width) of the largest, smallest and most oblong pictures, where they stand out.
    """

    source: str
    task: str
    class_names: tuple[str, ...]
    splits: Mapping[str, SplitSurvey]
    same: tuple[Group, ...]
    near: tuple[Group, ...]
    near_bits: int | None
    near_all: bool
    warnings: tuple[str, ...]
    shapes: Mapping[str, tuple[tuple[str, int, str, int, int], ...]]

    def to_json(self) -> str:
        record = dataclasses.asdict(self)
        for name, split in self.splits.items():
            ratio = split.imbalance
            record["splits"][name]["imbalance"] = None if ratio is None or math.isinf(ratio) else ratio
        for kind in ("same", "near"):
            for entry, group in zip(record[kind], getattr(self, kind), strict=True):
                entry |= {"across": group.across, "labels_differ": group.labels_differ}
        return json.dumps(record, indent=2)

    def __str__(self) -> str:
        lines = [f"{self.source}: {sum(split.count for split in self.splits.values()):,} pictures"]
        lines += [f"warning: {warning}" for warning in self.warnings] or ["no warnings"]
        lines += ["", *aligned([["", *self.splits], *table_of(self.splits)])]
        if self.task != "regression":
            rows = [[name, *(f"{split.classes[name]:,}" for split in self.splits.values())] for name in self.class_names]
            shown = rows if len(rows) <= 40 else rows[:20]
            lines += ["", *aligned([["class", *self.splits], *shown], right=range(1, len(self.splits) + 1))]
            lines += [f"... and {len(rows) - len(shown)} more classes"] if len(shown) < len(rows) else []
        for title, groups in (("the same", self.same), ("nearly the same", self.near)):
            if groups:
                lines += ["", f"{title}: {len(groups):,} groups of {sum(len(group.members) for group in groups):,} pictures"]
                lines += [f"  {_listed(group)}" for group in groups[:5]]
                lines += ["  ..."] if len(groups) > 5 else []
        bad = [(name, reason) for split in self.splits.values() for name, reason in split.bad]
        if bad:
            lines += ["", f"unreadable: {len(bad):,}", *(f"  {name}: {reason}" for name, reason in bad[:20])]
            lines += ["  ..."] if len(bad) > 20 else []
        return "\n".join(lines)


def check_data(
    source: str | Path | Splits,
    *,
    task: str = "classify",
    threads: int | None = None,
    near: int | None = NEAR,
    sheet: Path | None = None,
    data_dir: str | None = None,
) -> Survey:
    """Looks at every picture of a data set once.

    Args:
      source: a text as `open_data` takes it, looked at as it lies there, before anything is split off or left out; or a data
        set that is open.
      task: "classify", "multilabel" or "regression".
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
            label = label_text(found[split].labels[number], class_names, task)
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
        from jaxft.data.sheet import write_sheet

        write_sheet(sheet, survey, found)
    return survey


def _parts(source: str | Path | Splits, task: str, data_dir: str | None) -> tuple[dict[str, Source], tuple[str, ...]]:
    if isinstance(source, Splits):
        there = {"train": source.train, "val": source.val, "test": source.test}
        return {split: part for split, part in there.items() if part is not None}, source.class_names
    if task not in TASKS:
        raise JaxftError(f"no task is called '{task}'{near_names(task, TASKS)}; there are {', '.join(TASKS)}")
    return by_text(str(source), task, data_dir)


def label_text(label: Any, class_names: Sequence[str], task: str) -> str:
    if task == "regression":
        return f"{float(label):.6g}"
    if task == "multilabel":
        return ", ".join(class_names[number] for number in np.flatnonzero(label).tolist()) or "(none)"
    return class_names[int(label)]


def _worst_first(groups: Any) -> tuple[Group, ...]:
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
        of_class = np.bincount(labels, minlength=len(class_names)) if task == "classify" else labels.sum(0)
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
        mean=tuple(value / 255 for value in mean),
        std=tuple(math.sqrt(max(s - m * m, 0)) / 255 for m, s in zip(mean, square, strict=True)),
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


def table_of(splits: Mapping[str, SplitSurvey]) -> list[list[str]]:
    """Rows of a title and a cell a split; those that say nothing are left out."""

    def numbers(values: Sequence[float]) -> str:
        return " ".join(f"{value:.3f}" for value in values)

    def ratio(split: SplitSurvey) -> str:
        return "" if split.imbalance is None else f"{split.imbalance:.3g}"

    rows = {
        "pictures": lambda split: f"{split.count:,}",
        "unreadable": lambda split: f"{len(split.bad):,}",
        "largest / smallest class": ratio,
        "values, low / median / high": lambda split: str(split.values or ""),
        "height": lambda split: str(split.height or ""),
        "width": lambda split: str(split.width or ""),
        "long side / short side": lambda split: str(split.aspect or ""),
        "bytes": lambda split: str(split.file_size or ""),
        "kinds": lambda split: ", ".join(f"{count:,} {kind}" for kind, count in [*split.kinds.items()][:4]),
        "turned by EXIF": lambda split: f"{split.turned:,}",
        "without colour": lambda split: f"{split.grey:,}",
        f"mean, at about {SIDE} px": lambda split: numbers(split.mean),
        "std": lambda split: numbers(split.std),
    }
    table = [[title, *(of(split) for split in splits.values())] for title, of in rows.items()]
    return [row for row in table if any(row[1:])]


def _listed(group: Group) -> str:
    shown = " = ".join(f"{member.name} ({member.split}, {member.label})" for member in group.members[:3])
    return shown + (f" = {len(group.members) - 3} more" if len(group.members) > 3 else "")
