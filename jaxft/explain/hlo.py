"""The text of a compiled program, `compiled.as_text()`, as instructions that are run so and so often."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s*(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_CALLED = re.compile(r"(?:body|condition|calls|to_apply|branch_computations|called_computations)=(?:\{([^}]*)\}|(%?[\w.\-]+))")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_ROLES = re.compile(r"\b(condition|body)=%?([\w.\-]+)")
_INDEX = re.compile(r"\bindex=(\d+)")
_ARRAY = re.compile(r"\b([a-z]+[0-9]*\w*)\[([0-9,]*)\](\{[^}]*\})?")
_SPACE = re.compile(r"S\((\d+)\)")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """A line: `%name = shape op(operands), attributes`.

    Attributes:
      name, shape, op: as written.
      operands: names; of a constant and a parameter what stands there.
      attributes: what stands behind the operands.
      root: whether it is the result of its computation.
    """

    name: str
    shape: str
    op: str
    operands: tuple[str, ...]
    attributes: str
    root: bool

    @property
    def called(self) -> list[str]:
        """Names of the computations it calls."""
        found = [several or one for several, one in _CALLED.findall(self.attributes)]
        return [name.strip().lstrip("%") for names in found for name in names.split(",")]


@dataclasses.dataclass(frozen=True)
class Program:
    """Computations by name, and the name of the one that is run."""

    computations: Mapping[str, tuple[Instruction, ...]]
    entry: str

    def run(self, *, fusions: bool) -> Iterator[tuple[str, Instruction, int]]:
        """Computation, instruction, how often it is run; for those of the entry and of all that it calls.

        Args:
          fusions: go into what is fused, and into what runs asynchronously, too.
        """
        yield from self._run(self.entry, 1, fusions)

    def _run(self, name: str, times: int, fusions: bool) -> Iterator[tuple[str, Instruction, int]]:
        for instruction in self.computations.get(name, ()):
            yield name, instruction, times
            if instruction.op.endswith(("-done", "-update")):
                continue  # what it ends was gone into where it started
            if fusions or instruction.op in ("while", "call", "conditional"):
                again = times * self._trips(name, instruction) if instruction.op == "while" else times
                for called in instruction.called:
                    yield from self._run(called, again, fusions)

    def _trips(self, computation: str, loop: Instruction) -> int:
        """How often a loop runs its body: as XLA says, or as its counter says; 1 where neither does."""
        if said := _TRIPS.search(loop.attributes):
            return int(said[1])
        inside = {role: self.computations.get(name, ()) for role, name in _ROLES.findall(loop.attributes)}
        condition = {one.name: one for one in inside.get("condition", ())}
        test = next((one for one in condition.values() if one.root), None)
        if test is None or test.op != "compare" or "direction=LT" not in test.attributes:
            return 1
        counter, limit = (condition.get(name) for name in test.operands)
        if counter is None or counter.op != "get-tuple-element" or limit is None or limit.op != "constant":
            return 1
        place = int(_INDEX.search(counter.attributes)[1])  # type: ignore[index]
        start = _constant(self.computations[computation], loop.operands[0], place) or 0
        step = _increment(inside.get("body", ()), place) or 1
        return max(0, -(-(int(limit.operands[0]) - start) // step))


def _constant(found: Sequence[Instruction], name: str, place: int) -> int | None:
    """The value of an element of a tuple, if that is a constant."""
    by_name = {one.name: one for one in found}
    whole = by_name.get(name)
    if whole is None or whole.op != "tuple" or place >= len(whole.operands):
        return None
    element = by_name.get(whole.operands[place])
    while element is not None and element.op in ("copy", "bitcast"):
        element = by_name.get(element.operands[0])
    return int(element.operands[0]) if element is not None and element.op == "constant" else None


def _increment(body: Sequence[Instruction], place: int) -> int | None:
    """What a loop's body adds to an element of its tuple, if that is a constant."""
    by_name = {one.name: one for one in body}
    root = next((one for one in body if one.root), None)
    if root is None or root.op != "tuple" or place >= len(root.operands):
        return None
    added = by_name.get(root.operands[place])
    if added is None or added.op != "add":
        return None
    values = [by_name[name].operands[0] for name in added.operands if name in by_name and by_name[name].op == "constant"]
    return int(values[0]) if values else None


def parse(text: str) -> Program:
    """Reads a program's text."""
    computations: dict[str, list[Instruction]] = {}
    entry = ""
    current: list[Instruction] = []
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            current = computations.setdefault(header[1], [])
            entry = header[1] if line.startswith("ENTRY") else entry
        elif made := _INSTRUCTION.match(line):
            operands, attributes = _closed(made[5])
            names = re.findall(r"%?\b([A-Za-z_][\w.\-]*)(?=,|$)", re.sub(r"/\*.*?\*/", "", operands))
            if made[4] in ("parameter", "constant"):
                names = [operands]
            current.append(Instruction(made[2], made[3], made[4], tuple(names), attributes, bool(made[1])))
    return Program({name: tuple(found) for name, found in computations.items()}, entry)


def _closed(text: str) -> tuple[str, str]:
    """Splits at the parenthesis that closes one opened before."""
    depth = 1
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if not depth:
            return text[:place], text[place + 1 :]
    return text, ""


def elements(shape: str) -> list[str]:
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


def results(instruction: Instruction) -> list[str]:
    """Shapes of what an instruction gives; of one that starts what runs asynchronously, of what that will give.

    The started form shows (operands, results, contexts...). An all-reduce shows its results alone with jax 0.10, and
    with jax 0.12 the operands before them, as a tuple.
    """
    parts = elements(instruction.shape)
    if not instruction.op.endswith("-start") or len(parts) < 2:
        return parts
    if instruction.op == "all-reduce-start" and not parts[0].startswith("("):
        return parts
    return elements(parts[1].strip())


def nbytes(shape: str, *, main_memory: bool = False) -> int:
    """Bytes of all arrays of a shape, such as bf16[3,3,64]{2,1,0} or a tuple; predicates take one, four-bit numbers half.

    Args:
      shape: as written.
      main_memory: leave out what lies in another memory space, as TPUs have on the chip: `S(1)` in its layout.
    """
    total = 0
    for kind, sides, layout in _ARRAY.findall(shape):
        space = _SPACE.search(layout)
        if main_memory and space and space[1] != "0":
            continue
        digits = re.search(r"\d+", kind)
        bits = 8 if kind == "pred" else int(digits[0]) if digits else 0
        total += math.prod(int(side) for side in sides.split(",") if side) * bits // 8
    return total
