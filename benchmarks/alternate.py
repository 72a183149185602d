"""Two or more libraries timed in alternation, each in a process of its own, never two at once.

In one process they disturb each other (two thread pools on the same cores), and one after the other a change in the
machine's load falls on one of them alone. So every library has a worker process (see `serve.py` for the protocol); a worker
that is not asked is stopped (SIGSTOP), so that neither its spinning threads nor its housekeeping takes a core from the one
that is timed; and the turns are short and many.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


class WorkerError(RuntimeError):
    """A worker died, or what it was asked for went wrong; the message has its own words."""


class WorkerDiedError(WorkerError):
    """The worker's process is gone."""


class MissingWorkError(RuntimeError):
    """A library has no such network, part or variant."""


class Worker:
    """A worker process. A context manager: leaving it ends the process.

    Args:
      side: what it measures, for messages.
      python: the interpreter of the library's environment.
      script: a file of this folder, or a path.
    """

    def __init__(self, side: str, python: str, script: str) -> None:
        self.side = side
        self._words = tempfile.TemporaryFile()  # noqa: SIM115  closed in __exit__
        try:
            self._process = subprocess.Popen(
                [python, str(FOLDER / script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._words, text=True
            )
        except OSError as error:
            self._words.close()
            raise WorkerError(f"the {side} worker cannot start: {python}: {error.strerror}") from error

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        process = self._process
        process.send_signal(signal.SIGCONT)
        try:
            process.communicate(timeout=10)  # closes its stdin, which ends it
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        self._words.close()

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """Wakes the worker, asks, waits for the answer, and stops it again.

        Raises:
          MissingWorkError: the library has no such thing.
          WorkerError: the worker died, or the work failed.
        """
        process = self._process
        process.send_signal(signal.SIGCONT)
        try:
            process.stdin.write(json.dumps({"do": do, **request}) + "\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            line = process.stdout.readline()  # type: ignore[union-attr]
        except BrokenPipeError:
            line = ""
        if not line:
            code = process.wait()
            raise WorkerDiedError(f"the {self.side} worker ended with code {code}; its last words:\n{self.last_words()}")
        process.send_signal(signal.SIGSTOP)
        answer = json.loads(line)
        if "missing" in answer:
            raise MissingWorkError(f"{self.side}: {answer['missing']}")
        if "failed" in answer:
            raise WorkerError(f"{self.side} could not {do} {request.get('work', '')}:\n{answer['failed']}")
        return answer["ok"]

    def last_words(self, most: int = 3000) -> str:
        """The end of what the worker wrote to stderr."""
        self._words.seek(max(self._words.seek(0, os.SEEK_END) - most, 0))
        return self._words.read().decode(errors="replace").strip()


@dataclasses.dataclass(frozen=True)
class Entry:
    """One variant of one side: what its worker is asked to prepare."""

    worker: Worker
    variant: str
    work: dict[str, Any]


@dataclasses.dataclass
class Runner:
    """A prepared entry.

    Attributes:
      calls: how many make a turn.
      speeds: images/s, one a round.
    """

    entry: Entry
    number: int
    images: int
    flops: float | None
    compile_seconds: float
    calls: int = 1
    speeds: list[float] = dataclasses.field(default_factory=list)

    def turn(self) -> float:
        """Images/s of one turn."""
        found = self.entry.worker.ask("time", id=self.number, calls=self.calls)
        return self.images * self.calls / found["seconds"]

    def drop(self) -> None:
        self.entry.worker.ask("drop", id=self.number)


@dataclasses.dataclass(frozen=True)
class Side:
    """What became of one library.

    Attributes:
      runners: the variants that went through all rounds, the fastest (by median) first.
      screened: images/s in the first look at each variant, the fastest of three turns.
      failed: variant -> why it could not be measured.
      flops: of a call, from the first variant that counted them; all do the same work.
    """

    runners: list[Runner]
    flops: float | None
    screened: dict[str, float]
    failed: dict[str, str]

    @property
    def best(self) -> Runner:
        return self.runners[0]


def start(entry: Entry, seconds: float) -> Runner:
    """Prepares an entry; its turns will take about `seconds`."""
    found = entry.worker.ask("prepare", work=entry.work)
    runner = Runner(entry, found["id"], found["images"], found["flops"], found["compile_seconds"])
    once = entry.worker.ask("time", id=runner.number, calls=1)["seconds"]
    runner.calls = max(1, round(seconds / once))
    return runner


def screen(entries: Sequence[Entry], *, keep: int, seconds: float) -> Side:
    """Looks at each variant of a side once and keeps the `keep` fastest; never more than `keep + 1` are in memory.

    Raises:
      MissingWorkError: the side has no variant of this work.
      WorkerError: every variant failed, or the worker died.
    """
    kept: list[tuple[float, Runner]] = []
    screened: dict[str, float] = {}
    failed: dict[str, str] = {}
    flops = None
    for entry in entries:
        try:
            runner = start(entry, seconds)
        except WorkerError as error:
            if isinstance(error, WorkerDiedError):
                raise
            failed[entry.variant] = str(error)
            continue
        flops = flops or runner.flops
        speed = max(runner.turn() for _ in range(3)) if len(entries) > keep else runner.turn()
        screened[entry.variant] = speed
        kept = sorted([*kept, (speed, runner)], key=lambda pair: -pair[0])
        for _, slow in kept[keep:]:
            slow.drop()
        kept = kept[:keep]
    if not kept:
        raise WorkerError("\n".join(failed.values()))
    return Side([runner for _, runner in kept], flops, screened, failed)


def contest(
    sides: Mapping[str, Sequence[Entry]], *, rounds: int, seconds: float, keep: int = 2
) -> tuple[dict[str, Side], dict[str, list[float]]]:
    """Times the sides in alternation.

    Args:
      sides: side -> its variants; the first is the one the ratios are of.
      rounds: in each, every kept variant has one turn; every second round goes backwards.
      seconds: about the length of a turn.
      keep: variants of a side that go on after the first look.

    Returns:
      The sides, and for each but the first the per-round ratios: images/s of the first side's best variant over its best
      variant's in the same round. A side's best variant is that with the highest median over all rounds.

    Raises:
      MissingWorkError, WorkerError: see `screen`.
    """
    found = {name: screen(entries, keep=keep, seconds=seconds) for name, entries in sides.items()}
    runners = [runner for side in found.values() for runner in side.runners]
    for number in range(rounds):
        for runner in runners if number % 2 == 0 else reversed(runners):
            runner.speeds.append(runner.turn())
    for side in found.values():
        side.runners.sort(key=lambda runner: -spread(runner.speeds)["median"])
    ours, *others = found
    ratios = {name: [a / b for a, b in zip(found[ours].best.speeds, found[name].best.speeds, strict=True)] for name in others}
    return found, ratios


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles (linear between the values)."""
    ordered = sorted(values)

    def at(share: float) -> float:
        place = share * (len(ordered) - 1)
        below = int(place)
        above = min(below + 1, len(ordered) - 1)
        return ordered[below] + (ordered[above] - ordered[below]) * (place - below)

    return {"median": at(0.5), "q1": at(0.25), "q3": at(0.75)}


def use_cores(count: int) -> None:
    """Binds this process, and so the workers it starts, to its first `count` cores.

    Raises:
      WorkerError: there are fewer.
    """
    if not hasattr(os, "sched_setaffinity"):
        print("this system cannot bind processes to cores: XLA will use all of them", file=sys.stderr)
        return
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < count:
        raise WorkerError(f"--threads={count} needs as many cores, this process may use {len(cores)}")
    os.sched_setaffinity(0, cores[:count])


@contextlib.contextmanager
def workers(commands: dict[str, tuple[str, str]]) -> Iterator[dict[str, Worker]]:
    """Starts a worker a side from side -> (python, script); ends all of them however this ends."""
    with contextlib.ExitStack() as stack:
        yield {side: stack.enter_context(Worker(side, *command)) for side, command in commands.items()}
