"""A process that reads pictures for another one, which talks to it through pipes; see `jaxft.decoding.processes`.

It gets `Orders` once, and then lists of `Task`; it answers each list with the pictures' outcomes, and ends with its input.
"""

from __future__ import annotations

import dataclasses
import functools
import mmap
import os
import pickle
import signal
import time
import traceback

import numpy as np

from jaxft.decoding import memory
from jaxft.decoding.reading import Reading, Task


@dataclasses.dataclass(frozen=True)
class Orders:
    """What a process is told first.

    Attributes:
      reading: how to read.
      memory: file descriptor of what it shares with the process that asks.
      size: of that memory, in bytes: it holds the pictures of a list, one behind the other.
      most: bytes that decoding a picture may take. What needs more is given back.
    """

    reading: Reading
    memory: int
    size: int
    most: int


@dataclasses.dataclass(frozen=True)
class Answer:
    """What became of a list of tasks.

    Attributes:
      outcomes: None for a picture that stands in the shared memory, or what reading it raised.
      computing: seconds of processor time.
    """

    outcomes: list[Exception | None]
    computing: float


def _outcome(reading: Reading, task: Task, place: np.ndarray) -> Exception | None:
    try:
        place[...] = reading(*task)
    except Exception as error:  # raised where the picture is due
        error.add_note(f"In a process that decodes:\n{traceback.format_exc()}")
        return error
    return None


def main() -> None:
    """Serves until its input ends, which it does when the process that asks has ended, however it did."""
    # A terminal and a scheduler tell all processes of a group to stop. The one that asks may still want what it asked for.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Whatever prints, prints elsewhere.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with open(0, "rb", closefd=False) as asked:
        orders: Orders = pickle.load(asked)
        memory.MAX_BYTES, memory.refusing = orders.most, True
        side, channels = orders.reading.side, orders.reading.channels
        with mmap.mmap(orders.memory, orders.size) as shared:
            places = np.frombuffer(shared, np.uint8).reshape(-1, side, side, channels)
            outcome = functools.partial(_outcome, orders.reading)
            while True:
                try:
                    tasks: list[Task] = pickle.load(asked)
                except EOFError:
                    os._exit(0)  # the array still looks into the memory, which the system takes back
                start = time.process_time()
                outcomes = [outcome(task, place) for task, place in zip(tasks, places, strict=False)]
                pickle.dump(Answer(outcomes, time.process_time() - start), answers)
                answers.flush()
