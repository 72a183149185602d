"""What a compiled program sends between devices, read from its text."""

from __future__ import annotations

import collections
import dataclasses
import math
import re

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_COLLECTIVE = re.compile(rf"^\s*(?:ROOT )?%?[\w.\-]+ = (.*?) ({'|'.join(KINDS)})(-start)?\(")
_CALLED = re.compile(r"(?:body|condition|calls|to_apply|branch_computations|called_computations)=(?:\{([^}]*)\}|(%?[\w.\-]+))")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_ARRAY = re.compile(r"\b([a-z]+[0-9]*\w*)\[([0-9,]*)\]")


@dataclasses.dataclass(frozen=True)
class Collective:
    """All collectives of one kind in a step: how many are run, and the bytes of their results on each device."""

    kind: str
    count: int
    nbytes: int


def collectives(text: str) -> tuple[Collective, ...]:
    """Counts the collectives of a compiled program, `compiled.as_text()`.

    One in a loop counts as often as the loop runs, where XLA knows that. Several tensors combined into one are one. The started
    form of an asynchronous one shows operands and results; only the results count.
    """
    found: dict[str, list[tuple[str, int]]] = collections.defaultdict(list)  # computation -> (kind, bytes)
    calls: dict[str, list[tuple[str, int]]] = collections.defaultdict(list)  # computation -> (called, times)
    entry = current = ""
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            current = header[1]
            entry = current if line.startswith("ENTRY") else entry
            continue
        if made := _COLLECTIVE.match(line):
            found[current].append((made[2], _result_bytes(made[1], started=bool(made[3]))))
        trips = _TRIPS.search(line)
        for several, one in _CALLED.findall(line):
            for name in (several or one).split(","):
                calls[current].append((name.strip().lstrip("%"), int(trips[1]) if trips else 1))

    totals: dict[str, list[int]] = {}

    def add(computation: str, times: int) -> None:
        for kind, nbytes in found[computation]:
            total = totals.setdefault(kind, [0, 0])
            total[0] += times
            total[1] += times * nbytes
        for called, trips in calls[computation]:
            add(called, times * trips)

    add(entry, 1)
    return tuple(Collective(kind, *totals[kind]) for kind in KINDS if kind in totals)


def _result_bytes(shape: str, *, started: bool) -> int:
    arrays = [_nbytes(kind, sides) for kind, sides in _ARRAY.findall(shape)]
    if not started:
        return sum(arrays)
    parts = _top_level(shape)
    # all-gather-start and collective-permute-start: (operands, results, contexts...); all-reduce-start: the results alone.
    return sum(_nbytes(kind, sides) for kind, sides in _ARRAY.findall(parts[1] if len(parts) > 1 else shape))


def _top_level(shape: str) -> list[str]:
    """The elements of a tuple shape; the shape itself where it is no tuple."""
    if not shape.startswith("("):
        return [shape]
    parts, depth = [""], 0
    for character in shape[1:-1]:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _nbytes(kind: str, sides: str) -> int:
    """Bytes of an array such as bf16[3,3,64] in HLO's names; a predicate takes one, four-bit numbers take half."""
    bits = 8 if kind == "pred" else int(re.search(r"\d+", kind)[0]) if re.search(r"\d+", kind) else 0  # type: ignore[index]
    bits *= 2 if kind.startswith("c") else 1
    return math.prod(int(side) for side in sides.split(",") if side) * bits // 8
