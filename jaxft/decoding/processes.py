"""Processes that read pictures, for machines with more cores than Python's lock lets threads use.

Threads share one lock, which a picture holds for a part of the time it takes; the smaller the picture, the larger the part. A
process has a lock of its own. It is a program of its own too, not a fork (JAX runs
threads, and a fork of those may hang), knows nothing of the data set and gets a path or the bytes of a file: a source need not
be pickled, and a script needs no `if __name__ == "__main__"`.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from types import TracebackType
from typing import IO

import numpy as np

from jaxft.decoding import memory
from jaxft.decoding.reading import Reading, Task
from jaxft.decoding.worker import Answer, Orders
from jaxft.errors import JaxftError

#: Bytes of the pictures that a process reads before it is heard again.
_SHARED = 4 << 20
#: glibc gives memory back to the system as it is freed, and each picture would pay for its pages again: 64 MB stay.
_HEAP = {"MALLOC_TRIM_THRESHOLD_": "67108864", "MALLOC_MMAP_THRESHOLD_": "67108864"}
#: Seconds in which a process that is told to end does so.
_PATIENCE = 10.0


def _nameless() -> IO[bytes]:
    """A file that is gone with the last process that has it open; in memory, where the system has such files."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("jaxft-pictures"), "w+b")
    return tempfile.TemporaryFile()


class Process:
    """A process that reads pictures for one thread at a time. To be used in a `with` statement, or closed.

    Attributes:
      computing: seconds of processor time it took so far.

    Args:
      reading: how it reads them.
      share: the part of the memory for decoding (`jaxft.decoding.memory`) that it may use: 1 / the number of processes.

    Raises:
      JaxftError: it cannot be started.
    """

    def __init__(self, reading: Reading, share: float):
        self.computing = 0.0
        self._shape = (reading.side, reading.side, reading.channels)
        self._most = max(1, _SHARED // int(np.prod(self._shape)))
        size = self._most * int(np.prod(self._shape))
        with _nameless() as file:
            file.truncate(size)
            self._mapped = mmap.mmap(file.fileno(), size)
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", "from jaxft.decoding.worker import main; main()"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    pass_fds=[file.fileno()],
                    env={**os.environ, **_HEAP, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                )
            except OSError as error:
                raise JaxftError(f"no process to decode pictures could be started: {error.strerror}") from error
            self._ask(Orders(reading, file.fileno(), size, int(memory.MAX_BYTES * share)))

    def __enter__(self) -> Process:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def read(self, tasks: Sequence[Task]) -> list[np.ndarray | Exception]:
        """Reads pictures: of each uint8 [S, S, C], or what reading it raised.

        `TooMuch` stands for one that needs more memory than the process may take: the caller may read it.

        Raises:
          JaxftError: the process has died.
        """
        found: list[np.ndarray | Exception] = []
        for at in range(0, len(tasks), self._most):
            some = tasks[at : at + self._most]
            self._ask(some)
            answer = self._hear()
            self.computing += answer.computing
            places = np.frombuffer(self._mapped, np.uint8).reshape(-1, *self._shape)
            found += [
                place.copy() if outcome is None else outcome for place, outcome in zip(places, answer.outcomes, strict=False)
            ]
        return found

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):  # it has died before
            self._process.stdin.close()
        self._wait()
        self._process.stdout.close()

    def _wait(self) -> int:
        """The exit code, of a process that is about to end, or is made to."""
        try:
            return self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _ask(self, what: Orders | Sequence[Task]) -> None:
        assert self._process.stdin is not None
        try:
            pickle.dump(what, self._process.stdin)
            self._process.stdin.flush()
        except OSError as error:
            raise self._died() from error

    def _hear(self) -> Answer:
        assert self._process.stdout is not None
        try:
            return pickle.load(self._process.stdout)
        except (EOFError, pickle.UnpicklingError) as error:
            raise self._died() from error

    def _died(self) -> JaxftError:
        code = self._wait()
        how = f"was ended by signal {-code}" if code < 0 else f"ended with {code}"
        why = ": the system ends processes when memory is short" if code == -9 else ", see above for what it said"
        return JaxftError(
            f"a process that decodes pictures {how}{why}. Fewer of them take less memory (config.input.processes); with "
            "none, threads decode"
        )
