"""How long pictures take on their way to a batch, and what would make it shorter."""

from __future__ import annotations

import dataclasses
import os
import threading

#: Share of the time a device may stand idle for data before a run says what to do about it.
WAITING = 0.1


@dataclasses.dataclass
class LoadTimes:
    """What threads, or processes, spent on pictures.

    Attributes:
      workers: threads or processes that read.
      processes: whether they are processes.
      pictures: read so far.
      busy: seconds of all workers together from asking for a picture to having it.
      computing: of these, seconds of processor time; the rest is waiting for storage, or for a core.
    """

    workers: int = 0
    processes: bool = False
    pictures: int = 0
    busy: float = 0.0
    computing: float = 0.0
    _lock: threading.Lock = dataclasses.field(default_factory=threading.Lock, repr=False)

    def add(self, pictures: int, busy: float, computing: float) -> None:
        """Counts what one worker spent on some pictures."""
        with self._lock:
            self.pictures += pictures
            self.busy += busy
            self.computing += computing


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
    workers = f"{times.workers} {'processes' if times.processes else 'threads'}"
    line = (
        f"the device waits for data {wait_share:.0%} of the time: a picture takes {cost * 1e3:.1f} ms of a core, and "
        f"{busy * 1e3:.1f} ms in one of {workers}; without waiting {wanted:,.0f} a second would be shown"
    )
    if cost * wanted > 0.8 * cores:
        most = cores / cost
        return (
            f"{line}, and {cores} cores make {most:,.0f}. Smaller files help (jaxft data convert --max-side=...), or more "
            "cores a device, or, where the first stages are frozen, config.features.cache=True"
        )
    knob = "processes" if times.processes else "threads"
    more = f"set config.input.{knob} above {times.workers}, or read from a faster disk"
    if not times.processes and times.workers > 1:
        more += f"; or let processes decode, which do not wait for each other as threads do: config.input.processes={cores}"
    return f"{line}; the cores are not the limit: {more}"
