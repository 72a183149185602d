"""Reads mutants of the checkpoints in tests/weights/fixtures and says what became of them.

A finding is anything but an error for the user, or plain arrays, within the limits of time and memory and with nothing imported
or run. Needs nothing but jaxft:

  python scripts/fuzz_pth.py --count 1000000 --seed 0 --processes 2 --result docs/safe-loading.json
  python scripts/fuzz_pth.py --seed 0 --only 4711 --keep found     # one mutant again, its file kept in a folder
"""

import argparse
import collections
import datetime
import gc
import json
import multiprocessing
import pathlib
import platform
import re
import resource
import sys
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "weights")]

import mutants  # noqa: E402
import watched  # noqa: E402

from jaxft.weights import pickle_machine, pth  # noqa: E402

FIXTURES = ROOT / "tests" / "weights" / "fixtures"
TRACED = 200  # one in so many is read once more with its memory measured
_BLOCK = 2_000
#: Messages that go on with something of the file.
_STARTS = (
    "a key of type", "an unknown storage", "it holds an object", "it holds a ", "it holds no tensors", "storage",
    "the archive has no",     "the opcode", "the zip archive is damaged or cut short", "the npz archive",
    *(f"the pickle is malformed ({kind}" for kind in ("IndexError", "KeyError", "ValueError", "TypeError", "error", "Unicode")),
)  # fmt: skip


def counting(machine):
    """The machine, with a count of the pickles it was given."""

    class Counting(machine):
        started = 0

        def load(self, at=0):
            Counting.started += 1
            return super().load(at)

    return Counting


def group(reading):
    """What became of a mutant: for an error its class and the message without what differs from file to file."""
    if not reading.error:
        return "read"
    message = reading.message.split(": ", 1)[1]
    for start in _STARTS:
        if message.startswith(start):
            return start
    if on := re.match(r"[A-Z]+ on an? ", message):
        return f"{on[0]}..."
    if " is damaged (its checksum" in message:
        return "a member is damaged (its checksum is another)"
    message = re.sub(r"'[^']*'|\([^)]*\)|\d+", "...", message)
    return message[:60]


def resident():
    """The most memory this process has held, in bytes."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10


class Fuzzer:
    """Reads mutants of one seed, one after the other, from one file in memory."""

    def __init__(self, seed, keep):
        self._seed, self._keep = seed, keep
        self.bases = mutants.bases(FIXTURES)
        watched.warm_up(FIXTURES)
        pth.Machine = counting(pickle_machine.Machine)
        gc.freeze()  # what stands already is not looked through for each mutant
        self._watch = watched.Watch()
        self._most = resident()
        shared = pathlib.Path("/dev/shm")
        self._folder = tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None)
        self._path = pathlib.Path(self._folder.name) / "mutant.pth"

    def one(self, number, tally):
        data, kind, base = mutants.mutant(self.bases, self._seed, number)
        self._path.write_bytes(data)
        pth.Machine.started = 0
        reading = self._watch.read(self._path)
        most = resident()
        growth, self._most = most - self._most, most
        peak = watched.peak_of(self._path) if number % TRACED == 0 else 0
        tally["outcomes"][group(reading)] += 1
        tally["kinds"].setdefault(kind, collections.Counter())["refused" if reading.refused else "read"] += 1
        tally["reached"] += pth.Machine.started >= (4 if base.legacy else 1)
        tally["seconds"] = max(tally["seconds"], reading.seconds)
        tally["growth"], tally["peak"] = max(tally["growth"], growth), max(tally["peak"], peak)
        wrong = self._wrong(reading, len(data), max(growth, peak))
        if wrong:
            self._found(number, data, f"{wrong} (from {base.name}: {kind})", tally)
        return reading

    def _wrong(self, reading, size, memory):
        if reading.error not in ("", "refused"):
            return f"{reading.error}: {reading.message[:200]}"
        if reading.events:
            return f"events: {reading.events[:3]}"
        if not reading.message.isprintable():
            return f"a message of more than a line: {reading.message!r}"
        if reading.seconds > watched.SECONDS:
            return f"{reading.seconds:.2f} seconds"
        if memory > watched.allowed(size):
            return f"{memory} bytes of memory for a file of {size}"
        return ""

    def _found(self, number, data, wrong, tally):
        tally["findings"].append({"number": number, "wrong": wrong})
        path = self.save(number, data)
        print(f"FOUND {path}: {wrong}; again: --seed {self._seed} --only {number}", flush=True)

    def save(self, number, data):
        """Keeps a mutant in the folder for findings."""
        self._keep.mkdir(parents=True, exist_ok=True)
        path = self._keep / f"seed{self._seed}_{number}.pth"
        path.write_bytes(data)
        return path


def empty():
    return {
        "outcomes": collections.Counter(), "kinds": {}, "reached": 0, "seconds": 0.0, "growth": 0, "peak": 0, "findings": [],
    }  # fmt: skip


_fuzzer = None


def start(seed, keep):
    global _fuzzer
    _fuzzer = Fuzzer(seed, keep)


def block(numbers):
    tally = empty()
    for number in range(*numbers):
        _fuzzer.one(number, tally)
    return tally


def merge(total, tally):
    for key in ("outcomes", "reached", "findings"):
        total[key] += tally[key]
    for key in ("seconds", "growth", "peak"):
        total[key] = max(total[key], tally[key])
    for kind, counts in tally["kinds"].items():
        total["kinds"].setdefault(kind, collections.Counter()).update(counts)


def run(count, seed, processes, keep):
    """Reads mutants 0 to `count` of a seed, in blocks."""
    blocks = [(first, min(first + _BLOCK, count)) for first in range(0, count, _BLOCK)]
    total, began = empty(), time.monotonic()
    with multiprocessing.get_context("spawn").Pool(processes, start, (seed, keep)) as pool:
        for done, tally in enumerate(pool.imap_unordered(block, blocks), 1):
            merge(total, tally)
            if done % 25 == 0 or done == len(blocks):
                print(f"{min(done * _BLOCK, count)} of {count}, {time.monotonic() - began:.0f} s", flush=True)
    total["wall"] = time.monotonic() - began
    return total


def report(total, count, seed, processes):
    """The run as it is written down."""
    outcomes = dict(total["outcomes"].most_common())
    return {
        "command": f"python scripts/fuzz_pth.py --count {count} --seed {seed} --processes {processes}",
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": f"{platform.machine()}, {platform.system()}",
        "count": count,
        "seed": seed,
        "findings": total["findings"],
        "read": outcomes.pop("read", 0),
        "refused": sum(outcomes.values()),
        "share_that_reached_the_pickle_machine": round(total["reached"] / count, 3),
        "slowest_seconds": round(total["seconds"], 3),
        "largest_growth_of_resident_memory_bytes": total["growth"],
        f"largest_peak_traced_one_in_{TRACED}_bytes": total["peak"],
        "wall_seconds": round(total["wall"]),
        "kinds": {kind: dict(sorted(counts.items())) for kind, counts in sorted(total["kinds"].items())},
        "reasons": outcomes,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--only", type=int, help="this mutant alone")
    parser.add_argument("--keep", type=pathlib.Path, default=pathlib.Path("found"), help="folder for findings")
    parser.add_argument("--result", type=pathlib.Path, help="a JSON file of the run")
    given = parser.parse_args()
    if given.only is not None:
        fuzzer, tally = Fuzzer(given.seed, given.keep), empty()
        reading = fuzzer.one(given.only, tally)
        fuzzer.save(given.only, mutants.mutant(fuzzer.bases, given.seed, given.only)[0])
        print(reading)
        sys.exit(bool(tally["findings"]))
    total = run(given.count, given.seed, given.processes, given.keep)
    text = json.dumps(report(total, given.count, given.seed, given.processes), indent=1)
    print(text)
    if given.result:
        given.result.write_text(text + "\n")
    sys.exit(bool(total["findings"]))


if __name__ == "__main__":
    main()
