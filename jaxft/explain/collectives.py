"""What a compiled program sends between devices, read from its text."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np

from jaxft.explain.hlo import elements, nbytes, parse, results

#: The last two are between slices of TPUs, through the hosts' network.
KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
    "send",
    "recv",
)

_IOTA = r"\[[\d,]+\](?:T\([\d,]+\))?"
_GROUPS = re.compile(
    rf"replica_groups=(\{{\{{[\d,{{}}]*\}}\}}|\{{\}}|\[[\d,]+\]<={_IOTA}|"
    rf"mesh\[[^\]]*\](?:, device_ids=\((?:{_IOTA}|[\d,]+)\))? \{{[^}}]*\}})"
)
_PAIRS = re.compile(r"source_target_pairs=(\{\{[\d,{}]*\}\})")
_CHAIN = re.compile(r'chain_id="(\d+)"')
_TRANSFER = re.compile(r'_xla_megascale_transfer_type="(\w+)"')


@dataclasses.dataclass(frozen=True)
class Collective:
    """All collectives of one kind in a step: how many are run, and the bytes of their results on each device."""

    kind: str
    count: int
    nbytes: int


@dataclasses.dataclass(frozen=True)
class Exchange:
    """A collective as it stands in the program.

    Attributes:
      kind: of `KINDS`.
      nbytes: of its results on each device; of a "send" what is sent.
      times: how often a step runs it.
      groups: the devices that talk to each other, by their places in the mesh; of a permutation its pairs. () is all, or
        not said.
      transfer: of a "send" or "recv" what they are parts of, such as "ALL_REDUCE".
    """

    kind: str
    nbytes: int
    times: int
    groups: tuple[tuple[int, ...], ...]
    transfer: str = ""


def exchanges(text: str) -> tuple[Exchange, ...]:
    """The collectives of a compiled program, `compiled.as_text()`, in no particular order.

    One in a loop is run as often as the loop, where its text tells. Several tensors combined into one are one. The started form
    of an asynchronous one shows operands and results; only the results count. The TPU compiler writes one that runs beside
    other work once for each part of that work, all with one `chain_id`, and a reduce-scatter as an all-reduce of which a part
    is taken, in a computation of that name; both are put right here.
    """
    found: list[Exchange] = []
    chains: set[tuple[str, str]] = set()
    for computation, instruction, times in parse(text).run(fusions=True):
        kind = instruction.op.removesuffix("-start")
        if kind not in KINDS or instruction.op.endswith("-done"):
            continue
        chain = _CHAIN.search(instruction.attributes)
        if chain:
            if (kind, chain[1]) in chains:
                continue
            chains.add((kind, chain[1]))
        groups = _groups(instruction.attributes)
        size = sum(map(nbytes, results(instruction)))
        transfer = ""
        if kind in ("send", "recv"):
            made = _TRANSFER.search(instruction.attributes)
            if made is None:
                continue  # to the host, or a part of a permutation
            size, transfer = nbytes(elements(instruction.shape)[0]), made[1]
        elif kind == "all-reduce" and computation.startswith("all-reduce-scatter"):
            kind, size = "reduce-scatter", size // max(map(len, groups), default=1)
        found.append(Exchange(kind, size, times, groups, transfer))
    return tuple(found)


def collectives(text: str) -> tuple[Collective, ...]:
    """Counts the collectives of a compiled program by kind; see `exchanges`."""
    return totals(exchanges(text))


def totals(found: tuple[Exchange, ...]) -> tuple[Collective, ...]:
    """Exchanges counted by kind, in the order of `KINDS`."""
    return tuple(
        Collective(kind, sum(one.times for one in same), sum(one.times * one.nbytes for one in same))
        for kind in KINDS
        if (same := [one for one in found if one.kind == kind])
    )


def _groups(attributes: str) -> tuple[tuple[int, ...], ...]:
    found = _PAIRS.search(attributes) or _GROUPS.search(attributes)
    if found is None:
        return ()
    text = found[1]
    if text.startswith("{"):
        return tuple(tuple(map(int, group.split(","))) for group in re.findall(r"\{([\d,]+)\}", text))
    if text.startswith("["):  # [groups,size]<=[sides]T(turned)
        shape, places = text.split("<=")
        return _rows(_iota(places).reshape(_numbers(shape)))
    return _mesh_groups(text)


def _mesh_groups(text: str) -> tuple[tuple[int, ...], ...]:
    """Reads mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'b','a':(1)2}: the devices along axes of a mesh, or along parts of
    one, (size of what is before it)size."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", text.partition("]")[0])}
    ordered = re.search(r"device_ids=\((.*)\) \{", text)
    if ordered is None:
        places = np.arange(math.prod(sizes.values()))
    else:
        places = _iota(ordered[1]) if ordered[1].startswith("[") else np.array(_numbers(ordered[1]))
    chosen = re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", text.rpartition("{")[2])
    sides: list[int] = []
    along: dict[tuple[str, str], int] = {}
    for name, size in sizes.items():
        before = 1  # of this axis, split at the parts that are chosen of it
        for _, first, length in sorted((part for part in chosen if part[0] == name), key=lambda part: int(part[1] or 1)):
            gap, wide = int(first or 1) // before, int(length or size)
            sides += [gap, wide]
            along[name, first] = len(sides) - 1
            before *= gap * wide
        sides.append(size // before)
    inner = [along[name, first] for name, first, _ in chosen]
    outer = [axis for axis in range(len(sides)) if axis not in inner]
    size = math.prod(sides[axis] for axis in inner)
    return _rows(places.reshape(sides).transpose(outer + inner).reshape(-1, size))


def _iota(text: str) -> np.ndarray:
    """[2,8]T(1,0): the numbers from 0, as a grid of these sides, turned, row by row."""
    sides, _, turned = text.partition("T")
    grid = np.arange(math.prod(_numbers(sides))).reshape(_numbers(sides))
    return grid.transpose(_numbers(turned) or None).reshape(-1)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", text)]


def _rows(places: np.ndarray) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(place) for place in row) for row in places)
