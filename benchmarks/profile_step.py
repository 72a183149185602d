"""Where the time of a step goes: seconds by kind of operation and by layer, from JAX's profiler.

    python benchmarks/profile_step.py resnet50 --part=train --size=224 --batch=8

The times add up to the step's wall time: a moment in which two instructions run side by side counts half for each, one in which
none runs is `waiting`. `profile_torch.py` profiles the same step of torch's.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import gzip
import itertools
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

#: Kind -> the operations of which one makes an instruction, or what is fused in it, of that kind; the first that fits.
KINDS = {
    "matrix product": {"dot"},
    "convolution": {"convolution"},
    "reduction": {"reduce", "reduce-window"},
    "copy or layout": {"copy", "transpose", "concatenate", "pad", "slice", "dynamic-slice", "gather", "scatter"},
    "control": {"while", "call", "conditional"},
}


@dataclasses.dataclass(frozen=True)
class Instruction:
    """Of a compiled program.

    Attributes:
      shape: of its result.
      path: its operation's place in the traced program.
      operations: its own name, or those of what is fused in it.
    """

    shape: str = ""
    path: str = ""
    operations: frozenset[str] = frozenset()

    @property
    def kind(self) -> str:
        return next((kind for kind, names in KINDS.items() if names & self.operations), "elementwise")

    @property
    def layer(self) -> str:
        """The direction, and the path without what the transformations add to it."""
        added = r"jit\b|jvp|transpose|while|body|cond|branch|checkpoint|closed_call"
        parts = [part for part in self.path.split("/") if not re.match(added, part)]
        return " ".join(["backward" if "transpose(" in self.path else "forward", "/".join(parts)])

    @property
    def module(self) -> str:
        """The innermost module's name without its number: `conv` of layer1/0/conv2/dot_general, `layer` of layer1/0/max."""
        names = [name for part in self.layer.partition(" ")[2].split("/")[:-1] if (name := part.rstrip("0123456789"))]
        return names[-1] if names else "outside"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--part", default="train", help="as jaxft bench: train, head, from:STAGE, eval")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--calls", type=int, default=5)
    parser.add_argument("--rows", type=int, default=30, help="of the longest instructions")
    parser.add_argument("--out", type=Path, help="keep the figures as JSON")
    return parser.parse_args()


def instructions(text: str) -> dict[str, Instruction]:
    """Those of an HLO module's text, by name."""
    inside: dict[str, set[str]] = collections.defaultdict(set)
    lines, computation = [], ""
    for line in text.splitlines():
        if line.endswith("{"):
            computation = line.split()[0].lstrip("%")
        elif match := re.match(r"\s*(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\(", line):
            inside[computation].add(match[3])
            lines.append((match[1], match[2], match[3], line))
    found = {}
    for name, shape, operation, line in lines:
        path, calls = re.search(r'op_name="([^"]*)"', line), re.search(r"\bcalls=%?([\w.\-]+)", line)
        operations = inside[calls[1]] if operation == "fusion" and calls else {operation}
        found[name] = Instruction(shape.split("{")[0], path[1] if path else "", frozenset(operations))
    return found


def innermost(events: Iterable[dict[str, Any]]) -> list[tuple[float, float, str]]:
    """(start, end, instruction), microseconds: what runs on each thread, without what only waits for others inside it."""
    found: list[tuple[float, float, str]] = []
    by_thread = collections.defaultdict(list)
    for event in events:
        by_thread[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"], event["args"]["hlo_op"]))
    for thread in by_thread.values():
        around: list[list[Any]] = []  # [from where on it runs, its end, its name]

        def close(until: float, around: list[list[Any]] = around) -> None:
            while around and around[-1][1] <= until:
                start, end, name = around.pop()
                found.append((start, end, name))
                if around:
                    around[-1][0] = end

        for start, end, name in sorted(thread, key=lambda span: (span[0], -span[1])):
            close(start)
            if around:
                found.append((around[-1][0], start, around[-1][2]))
            around.append([start, end, name])
        close(float("inf"))
    return [span for span in found if span[1] > span[0]]


def shares(events: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Instruction -> microseconds of wall time; those that run at the same time share it. "" is when none runs."""
    edges = sorted((time, step, name) for start, end, name in innermost(events) for time, step in ((start, 1), (end, -1)))
    found: dict[str, float] = collections.defaultdict(float)
    running: collections.Counter[str] = collections.Counter()
    for (time, step, name), (following, _, _) in itertools.pairwise(edges):
        running[name] += step
        if not running[name]:
            del running[name]
        if not running and following > time:
            found[""] += following - time
        for other, count in running.items():
            found[other] += (following - time) * count / running.total()
    return found


def longest(seconds: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(seconds.items(), key=lambda pair: -pair[1])


def profile(options: argparse.Namespace, folder: Path) -> tuple[str, float, dict[str, float], dict[str, Instruction]]:
    """(what was run, seconds a step without the profiler, instruction -> seconds a step, the instructions)."""
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_dump_to={folder} --xla_dump_hlo_as_text"
    from jaxft.heap import keep_heap

    keep_heap()  # before JAX starts, as a run does it
    import jax

    from jaxft.bench.work import make_work

    work = make_work(options.model, options.part, batch=options.batch, size=options.size)
    work.run(2)
    bare = min(work.run(1) for _ in range(options.calls))
    with jax.profiler.trace(folder):
        work.run(options.calls)
    text = max(folder.glob("*_after_optimizations.txt"), key=lambda file: file.stat().st_size).read_text()
    (trace,) = folder.rglob("*.trace.json.gz")
    with gzip.open(trace) as file:
        events = [event for event in json.load(file)["traceEvents"] if "hlo_op" in event.get("args", {})]
    seconds = {name: spent / 1e6 / options.calls for name, spent in shares(events).items()}
    return work.name, bare, seconds, instructions(text)


def main() -> int:
    options = arguments()
    folder = Path(tempfile.mkdtemp(prefix="profile"))
    try:
        name, bare, seconds, known = profile(options, folder)
    finally:
        shutil.rmtree(folder)
    total = sum(seconds.values())
    kinds: dict[str, float] = collections.defaultdict(float)
    modules: dict[str, float] = collections.defaultdict(float)
    for instruction, spent in seconds.items():
        own = known.get(instruction, Instruction())
        kinds[own.kind if instruction else "waiting"] += spent
        modules[own.module if instruction else "waiting"] += spent
    print(f"{name}: {bare:.4f} s a step; {total:.4f} s under the profiler")
    for groups in (kinds, modules):
        print()
        for group, spent in longest(groups):
            print(f"{spent / total:>6.1%} {spent * 1000:>9.2f} ms  {group}")
    print()
    for instruction, spent in longest(seconds)[: options.rows]:
        own = known.get(instruction, Instruction())
        print(f"{spent / total:>6.1%} {spent * 1000:>9.2f} ms  {own.kind:<15} {own.shape:<22} {instruction:<36} {own.layer}")
    if options.out:
        options.out.write_text(json.dumps({"work": name, "step": bare, "kinds": kinds, "modules": modules}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
