"""Pictures are read ahead of their batch: in threads, or in processes that threads talk to."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue

import numpy as np

from jaxft.data.feeding import LoadTimes
from jaxft.data.sources import Source
from jaxft.decoding.decode import BadImage
from jaxft.decoding.memory import TooMuch
from jaxft.decoding.processes import Process
from jaxft.decoding.reading import Reading, Task
from jaxft.errors import JaxftError

#: A picture that is due: how often it was shown before, and its example.
Shown = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Loader:
    """Reads examples of a source.

    Attributes:
      source: the examples.
      reading: how a picture becomes a square.
      threads: that read; None is one a core, at most 16; with 0 pictures are read when they are asked for.
      processes: that read in the place of threads.
      times: is told how long pictures take.

    Raises:
      JaxftError: fewer than none.
    """

    source: Source
    reading: Reading
    threads: int | None = None
    processes: int = 0
    times: LoadTimes = dataclasses.field(default_factory=LoadTimes)

    def __post_init__(self) -> None:
        for name, count in (("threads", self.threads), ("processes", self.processes)):
            if count is not None and count < 0:
                raise JaxftError(f"{name} is {count}: it must be at least 0")

    def ahead(self, plan: Iterator[list[Shown]], prefetch: int) -> Generator[tuple[list[Shown], list[np.ndarray]], None, None]:
        """Reads the lists of `plan`, `prefetch` of them ahead, and yields each with its pictures, in order.

        An error is raised where its batch is due. Closing the generator ends threads and processes.
        """
        threads = self.threads if self.threads is not None else min(16, os.cpu_count() or 1)
        workers = self.processes or threads
        self.times.workers, self.times.processes = workers, bool(self.processes)
        if not workers:
            for items in plan:
                yield items, self._here(items)
            return
        with contextlib.ExitStack() as ends:
            read = self._there(ends) if self.processes else self._here
            pool = ThreadPoolExecutor(workers, thread_name_prefix="jaxft-data")
            ends.callback(pool.shutdown, wait=True, cancel_futures=True)
            waiting: deque[tuple[list[Shown], list[Future[list[np.ndarray]]]]] = deque()

            def due() -> tuple[list[Shown], list[np.ndarray]]:
                items, futures = waiting.popleft()
                return items, [picture for future in futures for picture in future.result()]

            for items in plan:
                # A task for each worker and more, so that none waits long for another, but not one for each small picture.
                few = max(1, len(items) // (4 * workers))
                waiting.append((items, [pool.submit(read, items[at : at + few]) for at in range(0, len(items), few)]))
                if len(waiting) > prefetch:
                    yield due()
            while waiting:
                yield due()

    def _here(self, items: Sequence[Shown]) -> list[np.ndarray]:
        """Reads in the thread that calls it."""
        start, computed = time.monotonic(), time.thread_time()
        found = [self._named(task) for task in self._tasks(items)]
        self.times.add(len(items), time.monotonic() - start, time.thread_time() - computed)
        return found

    def _there(self, ends: contextlib.ExitStack) -> Callable[[Sequence[Shown]], list[np.ndarray]]:
        """Starts the processes; returns what reads in one of them that is free."""
        free: SimpleQueue[Process] = SimpleQueue()
        for _ in range(self.processes):
            free.put(ends.enter_context(Process(self.reading, 1 / self.processes)))

        def read(items: Sequence[Shown]) -> list[np.ndarray]:
            start, computed = time.monotonic(), time.thread_time()
            tasks = list(self._tasks(items))
            files = [task for task in tasks if not isinstance(task[0], np.ndarray)]
            process = free.get()
            before = process.computing
            try:
                outcomes = iter(process.read(files))
                there = process.computing - before
            finally:
                free.put(process)
            found = [self._named(task, None if isinstance(task[0], np.ndarray) else next(outcomes)) for task in tasks]
            self.times.add(len(items), time.monotonic() - start, time.thread_time() - computed + there)
            return found

        return read

    def _tasks(self, items: Sequence[Shown]) -> Iterator[Task]:
        return ((self.source[index][0], shown, index) for shown, index in items)

    def _named(self, task: Task, outcome: np.ndarray | Exception | None = None) -> np.ndarray:
        """A task's picture: what came of it elsewhere, or it is read now. Where that failed, the error names the example."""
        try:
            if outcome is None or isinstance(outcome, TooMuch):
                return self.reading(*task)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome
        except BadImage as error:
            raise BadImage(f"{self.source.names[task[2]]}: {error}") from error
