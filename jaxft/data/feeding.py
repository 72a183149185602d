"""How long pictures take on their way to a batch, and what would make it shorter."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Callable
from typing import Any

#: Share of the time a device may stand idle for data before a run says what to do about it.
WAITING = 0.1


@dataclasses.dataclass
class LoadTimes:
    """What threads spent on pictures.

    Attributes:
      threads: that load.
      pictures: loaded so far.
      busy: seconds of all threads together from asking for a picture to having it.
      computing: of these, seconds of processor time; the rest is waiting for storage, or for a core.
    """

    threads: int = 0
    pictures: int = 0
    busy: float = 0.0
    computing: float = 0.0
    _lock: threading.Lock = dataclasses.field(default_factory=threading.Lock, repr=False)

    def timed(self, load: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """`load`, timed in the thread that calls it."""

        def run(item: Any) -> Any:
            start, computed = time.monotonic(), time.thread_time()
            found = load(item)
            busy, computing = time.monotonic() - start, time.thread_time() - computed
            with self._lock:
                self.pictures += 1
                self.busy += busy
                self.computing += computing
            return found

        return run


def advice(times: LoadTimes, images_per_second: float, wait_share: float, *, cores: int | None = None) -> str:
    """What to turn when a device waits for data; "" where it hardly does.

    Args:
      times: of the run so far.
      images_per_second: as it trains now.
      wait_share: share of the time in which the device had nothing to do, 0 to 1.
      cores: that this process may use; None asks the system.
    """
    if wait_share < WAITING or not times.pictures:
        return ""
    if cores is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cost, busy = times.computing / times.pictures, times.busy / times.pictures
    wanted = images_per_second / (1 - min(wait_share, 0.99))
    line = (
        f"the device waits for data {wait_share:.0%} of the time: a picture takes {cost * 1e3:.1f} ms of a core, and "
        f"{busy * 1e3:.1f} ms in one of {times.threads} threads; without waiting {wanted:,.0f} a second would be shown"
    )
    if cost * wanted > 0.8 * cores:
        most = cores / cost
        return (
            f"{line}, and {cores} cores make {most:,.0f}. Smaller files help (jaxft data convert --max-side=...), or more "
            "cores a device, or, where the first stages are frozen, config.features.cache=True"
        )
    return f"{line}; the cores are not the limit: set config.input.threads above {times.threads}, or read from a faster disk"
