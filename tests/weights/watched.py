"""Reads files and watches: what is imported, opened or run meanwhile, how long it takes, how much memory.

An audit hook cannot be taken off again, so this runs in a process of its own: python watched.py FOLDER prints, as JSON, what
became of every file in the folder.
"""

import dataclasses
import json
import mmap
import os
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np

from jaxft.errors import JaxftError
from jaxft.weights import read

#: What reading a file may take: seconds of the processor, and memory of our own in bytes.
SECONDS = 1.0
FLOOR = 8 << 20
SMALL = 1 << 16  # bytes of an array that are all looked at; of larger ones the first and the last


def allowed(size):
    """Bytes of memory for a file of `size`."""
    return 2 * size + FLOOR


@dataclasses.dataclass
class Reading:
    """What became of a file: `error` is the class of what was raised and `message` its text, both "" if it was read."""

    error: str
    message: str
    names: list
    seconds: float
    events: list
    peak: int = 0

    @property
    def refused(self):
        return bool(self.error)


class Watch:
    """Keeps all audit events while a file is read, but for opening that file to read it and mapping it to read it."""

    def __init__(self):
        self._path, self._events = None, []
        sys.addaudithook(self._hook)

    def _hook(self, event, arguments):
        if self._path is None:
            return
        if event == "open" and str(arguments[0]) == self._path and arguments[2] & os.O_ACCMODE == os.O_RDONLY:
            return
        if event == "mmap.__new__" and arguments[2] == mmap.ACCESS_READ:
            return
        if event == "builtins.id":  # of a container that was seen
            return
        self._events.append(f"{event} {arguments!r}"[:200])

    def during(self, path, action):
        """(what the action gives, the events)."""
        self._path, self._events = str(path), []
        try:
            return action(), self._events
        finally:
            self._path = None

    def read(self, path):
        """Reads a file and looks at its arrays. What is no JaxftError is kept under its own class.

        If it takes too long by the clock, maybe because others have the processor, it is read once more and the processor's own
        time counts.
        """
        reading = self._read(path, time.perf_counter)
        return reading if reading.seconds < SECONDS else self._read(path, time.process_time)

    def _read(self, path, clock):
        def action():
            start, found, failure = clock(), {}, None
            try:
                found = read(path)
            except Exception as error:
                failure = error
            seconds = clock() - start
            touch(found)
            return found, failure, seconds

        (found, failure, seconds), events = self.during(path, action)
        kind = "" if failure is None else "refused" if isinstance(failure, JaxftError) else type(failure).__name__
        return Reading(kind, "" if failure is None else str(failure), list(found), seconds, events)


def peak_of(path):
    """The most memory that Python and NumPy held at once while a file was read, in bytes."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        try:
            found = read(path)
        except JaxftError:
            found = {}
        peak = tracemalloc.get_traced_memory()[1] - before
        del found
        return peak
    finally:
        tracemalloc.stop()


def touch(found):
    """Looks at the arrays: those that lie outside of the file's map would end the process."""
    for value in found.values():
        if value.nbytes <= SMALL:
            value.tobytes()
        elif value.size:
            value[(0,) * value.ndim].tobytes()
            value[(-1,) * value.ndim].tobytes()


def warm_up(folder):
    """Reads good files, and one that is refused, so that nothing is left to be imported for the first time."""
    for path in sorted(Path(folder).glob("*.pth")):
        try:
            touch(read(path))
        except JaxftError as error:
            str(error)
    np.zeros(1).tobytes()


def main(folder):
    warm_up(Path(__file__).parent / "fixtures")
    watch = Watch()
    readings = {}
    for path in sorted(Path(folder).iterdir()):
        readings[path.name] = watch.read(path)
        readings[path.name].peak = peak_of(path)
    print(json.dumps({name: dataclasses.asdict(reading) for name, reading in readings.items()}))


if __name__ == "__main__":
    main(sys.argv[1])
