"""What a data set holds, and what is wrong with it, as data and as a report. `jaxft.data.examine` makes one."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence

from jaxft.columns import aligned
from jaxft.data.looking import SIDE


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
        if self.task not in ("regression", "unlabelled"):
            rows = [
                [name if len(name) <= 40 else f"{name[:39]}…", *(f"{split.classes[name]:,}" for split in self.splits.values())]
                for name in self.class_names
            ]
            shown = rows if len(rows) <= 40 else rows[:20]
            lines += ["", *aligned([["class", *self.splits], *shown], right=range(1, len(self.splits) + 1))]
            lines += [f"... and {len(rows) - len(shown)} more classes"] if len(shown) < len(rows) else []
        for title, groups in (("the same", self.same), ("nearly the same", self.near)):
            if groups:
                counted = "1 group" if len(groups) == 1 else f"{len(groups):,} groups"
                lines += ["", f"{title}: {counted} of {sum(len(group.members) for group in groups):,} pictures"]
                lines += [f"  {_listed(group)}" for group in groups[:5]]
                lines += ["  ..."] if len(groups) > 5 else []
        bad = [(name, reason) for split in self.splits.values() for name, reason in split.bad]
        if bad:
            lines += ["", f"unreadable: {len(bad):,}", *(f"  {name}: {reason}" for name, reason in bad[:20])]
            lines += ["  ..."] if len(bad) > 20 else []
        return "\n".join(lines)


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
        "bytes of a file": lambda split: str(split.file_size or ""),
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
