"""What a survey of a data set warns of, each with what to do."""

from __future__ import annotations

import math
from collections.abc import Iterator

from jaxft.data.survey import Group, Survey

#: The largest class over the smallest from which a warning is given.
IMBALANCE = 10
#: Examples of a class to train on, below which a warning is given.
FEW = 10
_TRAINING = ("train", "all")


def warnings_of(survey: Survey) -> Iterator[str]:
    """The warnings, the worst first."""
    yield from _unreadable(survey)
    yield from _duplicates(survey)
    yield from _classes(survey)
    yield from _appearance(survey)


def _unreadable(survey: Survey) -> Iterator[str]:
    for name, split in survey.splits.items():
        if split.bad:
            share = math.ceil(len(split.bad) / split.count * 1000) / 1000
            first = ": ".join(split.bad[0])
            yield (
                f"{len(split.bad):,} of {split.count:,} pictures of {name} cannot be read ({first}): remove "
                f"them, or leave them out with --config.data.max_bad_fraction={share:g}"
            )


def _duplicates(survey: Survey) -> Iterator[str]:
    def example(group: Group) -> str:
        members = group.members
        other = next((member for member in members if member.label != members[0].label), None)
        other = other or next((member for member in members if member.split != members[0].split), members[1])
        return f"{members[0].name} and {other.name}"

    for groups, what in ((survey.same, "the same"), (survey.near, "nearly the same")):
        if differ := [group for group in groups if group.labels_differ]:
            yield (
                f"{_count(differ, 'group')} of {what} picture {'have' if len(differ) > 1 else 'has'} different labels "
                f"({example(differ[0])}): look at them, one label of each is wrong or the classes overlap"
            )
        if across := [group for group in groups if group.across]:
            splits = [name for name in survey.splits if any(name in group.splits for group in across)]
            yield (
                f"{_count(across, 'group')} of {what} picture lie{'s' if len(across) == 1 else ''} in more than one of "
                f"{', '.join(splits)} ({example(across[0])}): figures will flatter; remove them from all splits but one"
            )
        if groups and "all" in survey.splits:
            extra = sum(len(group.members) - 1 for group in groups)
            counted = f"{extra:,} {'pictures are' if extra > 1 else 'picture is'}"
            yield (
                f"{counted} {what} as another ({example(groups[0])}): a split made by us could put the one into "
                "train and the other into val; remove them, or split yourself into folders train, val and test"
            )
    if not survey.near_all:
        yield "so many pictures look alike that not all pairs were compared: check with a smaller near, or none"


def _classes(survey: Survey) -> Iterator[str]:
    for name, split in survey.splits.items():
        empty = [of for of, count in split.classes.items() if not count]
        few = [of for of, count in split.classes.items() if 0 < count < FEW and name in _TRAINING]
        if empty:
            yield f"{_names(empty)} no readable picture in {name}: add some, or remove the class from all splits"
        if few:
            yield f"{_names(few)} fewer than {FEW} pictures in {name}: figures of such a class mean little; add some"
        ratio = split.imbalance
        if ratio is not None and IMBALANCE <= ratio < math.inf:
            low, high = (chosen(split.classes, key=split.classes.__getitem__) for chosen in (min, max))
            yield (
                f"the largest class of {name} ('{high}', {split.classes[high]:,}) has {ratio:.0f} times as many pictures as "
                f"the smallest ('{low}', {split.classes[low]:,}): judge by the figures of each class, not by accuracy alone"
            )
    if "train" in survey.splits and not survey.splits.keys() & {"val", "test"}:
        yield "there are no val and test splits: val will be split off the training data"


def _appearance(survey: Survey) -> Iterator[str]:
    total = {name: split.count - len(split.bad) for name, split in survey.splits.items()}
    shares = {name: split.grey / total[name] for name, split in survey.splits.items() if total[name]}
    if shares and max(shares.values()) - min(shares.values()) > 0.2:
        listed = ", ".join(f"{share:.0%} of {name}" for name, share in shares.items())
        yield f"the splits differ in what has no colour ({listed}): make sure that they come from the same camera or scanner"
    middles = {
        name: split.height.median * split.width.median for name, split in survey.splits.items() if split.height and split.width
    }
    if middles and max(middles.values()) >= 4 * min(middles.values()):
        listed = ", ".join(f"{name} {math.sqrt(area):.0f} px" for name, area in middles.items())
        yield f"the splits differ in size ({listed} a side): make sure that they were cut and scaled alike"
    for name, split in survey.splits.items():
        if split.aspect and split.aspect.high > 8:
            yield (
                f"{name} has pictures whose long side is up to {split.aspect.high:.0f} times the short one: a square crop "
                "shows little of them; cut them, or remove them"
            )


def _count(groups: list[Group], noun: str) -> str:
    return f"{len(groups):,} {noun}{'s' if len(groups) > 1 else ''}"


def _names(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    if len(names) == 1:
        return f"the class '{names[0]}' has"
    return "the classes " + ", ".join(f"'{name}'" for name in names[:3]) + more + " have"
