"""Bytes between a device's main memory and its cores, read from the text of a compiled program."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jaxft.explain.collectives import KINDS
from jaxft.explain.hlo import Instruction, Program, elements, nbytes, parse, results

#: Move nothing themselves: names, parts, ends of what was counted where it started, and what is gone into.
_FREE = (
    *("parameter", "tuple", "get-tuple-element", "bitcast", "constant", "after-all", "partition-id", "replica-id"),
    *("while", "call", "conditional", "optimization-barrier", "domain", "add-dependency"),
)
_SLICES = ("slice", "dynamic-slice", "gather")


def main_memory_bytes(text: str) -> int:
    """Bytes that a step reads from and writes to the main memory of each device, if every operand of a kernel is read once.

    Of each fused kernel its operands and results; of an operand of which it only takes slices the slices; of a buffer that is
    updated in place the update. What the compiler keeps in memory on the chip (TPU) is left out, which XLA's own "bytes
    accessed" counts. Loops count with their trips, where XLA knows them. A kernel that reads something twice needs more, one
    that finds it in a cache less.
    """
    program = parse(text)
    shapes = {
        name: {instruction.name: instruction.shape for instruction in found} for name, found in program.computations.items()
    }
    return sum(
        times * _moved(program, instruction, shapes[computation])
        for computation, instruction, times in program.run(fusions=False)
    )


def _moved(program: Program, instruction: Instruction, shapes: dict[str, str]) -> int:
    op = instruction.op
    if op in _FREE or op.endswith(("-done", "-update")):
        return 0
    operands = [shapes.get(name, "") for name in instruction.operands]
    parts = elements(instruction.shape)
    if op == "copy-start":  # (copy, operand, context)
        return sum(nbytes(part, main_memory=True) for part in parts[:2])
    if op == "slice-start":  # ((operands), slice, context)
        whole = nbytes(parts[1])
        read = whole if nbytes(operands[0], main_memory=True) else 0
        return read + nbytes(parts[1], main_memory=True)
    if op in _SLICES:
        read = nbytes(instruction.shape) if operands and nbytes(operands[0], main_memory=True) else 0
        return read + nbytes(instruction.shape, main_memory=True)
    if op == "dynamic-update-slice":
        return 2 * nbytes(operands[1], main_memory=True)
    if op == "fusion":
        inside = program.computations.get(next(iter(instruction.called), ""), ())
        return _fused(inside, operands, parts)
    if op == "custom-call" and len(parts) > 1:  # cuDNN's and cuBLAS's: (result, work space)
        parts = [part for part in parts if not part.strip().startswith("u8[")]
    else:
        parts = results(instruction)
    return sum(nbytes(shape, main_memory=True) for shape in (*operands, *parts))


def _fused(inside: Sequence[Instruction], operands: Sequence[str], results: Sequence[str]) -> int:
    by_name = {instruction.name: instruction for instruction in inside}
    total = 0
    for instruction in inside:
        if instruction.op == "parameter":
            shape = operands[int(instruction.operands[0])] if int(instruction.operands[0]) < len(operands) else ""
            if nbytes(shape, main_memory=True):
                read = [_read(use, place, nbytes(shape)) for use, place in _uses(inside, instruction.name)]
                total += min(nbytes(shape), sum(read))
    root = next((instruction for instruction in inside if instruction.root), None)
    if root is None:
        return total
    made = [by_name.get(name, root) for name in root.operands] if root.op == "tuple" else [root]
    for shape, source in zip(results, made if len(made) == len(results) else [root] * len(results), strict=True):
        if nbytes(shape, main_memory=True):
            total += _written(source, by_name, shape)
    return total


def _uses(inside: Sequence[Instruction], name: str) -> Iterator[tuple[Instruction, int]]:
    """Who reads a value, and as which operand; through bitcasts."""
    for instruction in inside:
        for place, operand in enumerate(instruction.operands):
            if operand == name and instruction.op != "parameter":
                if instruction.op == "bitcast":
                    yield from _uses(inside, instruction.name)
                else:
                    yield instruction, place


def _read(use: Instruction, place: int, whole: int) -> int:
    if use.op in _SLICES and place == 0:
        return nbytes(use.shape)
    passed = use.op in ("tuple", "get-tuple-element", "custom-call") or use.op.removesuffix("-start") in KINDS
    return 0 if passed or (use.op == "dynamic-update-slice" and place == 0) else whole


def _written(source: Instruction, by_name: dict[str, Instruction], shape: str) -> int:
    while source.op == "bitcast" and source.operands and source.operands[0] in by_name:
        source = by_name[source.operands[0]]
    if source.op == "dynamic-update-slice" and source.operands[1] in by_name:
        return nbytes(by_name[source.operands[1]].shape)
    # A buffer that an asynchronous collective fills piece by piece goes through many kernels.
    if source.op in ("parameter", "get-tuple-element", "custom-call") or source.op.removesuffix("-start") in KINDS:
        return 0
    return nbytes(shape)
