"""How the workers of `loading.py` are timed: a loader is opened, warmed, asked for batches, and closed within its turn.

Imports the standard library alone, as `serve.py` does. Threads and processes that a loader keeps outlive no turn: they would
decode on the cores of the next, and what they had made ahead would cost nothing in their own.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from serve import Prepared

#: Batches before the clock starts, and batches a call. Loaders of two processes hand out batches in pairs: both are even.
WARM, BATCHES = 2, 4


def fed(batches: Callable[[], AbstractContextManager[Iterator[Any]]], batch: int) -> Prepared:
    """The work of handing out batches.

    Args:
      batches: opens a loader of endless batches; leaving it ends its threads and processes.
      batch: examples in a batch.
    """

    def run(calls: int) -> float:
        with batches() as opened:
            for _ in range(WARM):
                next(opened)
            start = time.perf_counter()
            for _ in range(calls * BATCHES):
                next(opened)
            seconds = time.perf_counter() - start
        del opened
        gc.collect()  # some loaders end their processes where they are let go
        return seconds

    return Prepared(run, batch * BATCHES, None, 0.0)


def check(found: int, work: dict[str, Any]) -> None:
    """All libraries read the same examples.

    Raises:
      ValueError: this one found more or fewer.
    """
    if found != work["examples"]:
        raise ValueError(f"{found} examples were found, not {work['examples']}")
