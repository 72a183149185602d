"""A process that reads pictures for another one, which talks to it through pipes; see `jaxft.decoding.processes`.

It gets `Orders` once, and then lists of `Task`; it answers each list with the pictures' outcomes, and ends with its input. It
imports no JAX: it starts in a fraction of a second and needs some 40 MB.
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
from pathlib import Path
from typing import Any

import numpy as np

from jaxft.decoding import memory
from jaxft.decoding.transforms import read_eval, read_train
from jaxft.preprocessing import Preprocessing, Window
from jaxft.streams import augment_rng


@dataclasses.dataclass(frozen=True)
class Reading:
    """How pictures become squares: all but a picture and its randomness.

    Attributes:
      preprocessing: size and interpolation.
      channels: C.
      window: what training takes of a picture; None is an evaluation.
      seed: of the windows.
      scaled: see `read_train`.
    """

    preprocessing: Preprocessing
    channels: int = 3
    window: Window | None = None
    seed: int = 0
    scaled: bool = True

    @property
    def side(self) -> int:
        """Of the square that is read, in pixels."""
        return self.preprocessing.size if self.window is None else self.window.side(self.preprocessing.size)

    def __call__(self, image: bytes | Path | np.ndarray, shown: int, index: int) -> np.ndarray:
        """Reads the picture of example `index`, which was shown `shown` times before: uint8 [S, S, C].

        Raises:
          BadImage: it cannot be read.
        """
        if self.window is None:
            return read_eval(image, self.preprocessing, self.channels)
        rng = augment_rng(self.seed, shown, index)
        return read_train(image, self.preprocessing, rng, self.window, channels=self.channels, scaled=self.scaled)


#: A picture, how often its example was shown before, the example.
Task = tuple[bytes | Path | np.ndarray, int, int]


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
                    tasks: list[Any] = pickle.load(asked)
                except EOFError:
                    os._exit(0)  # the array still looks into the memory, which the system takes back
                start = time.process_time()
                outcomes = [outcome(task, place) for task, place in zip(tasks, places, strict=False)]
                pickle.dump(Answer(outcomes, time.process_time() - start), answers)
                answers.flush()
