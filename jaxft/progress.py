"""What a person sees of a run while it goes, how time is measured, and how a run is asked to stop."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

from tqdm import tqdm


class Progress:
    """A progress bar on a terminal, plain lines otherwise. Silent on every process but the first."""

    def __init__(self, total: int, *, done: int = 0, show: bool = True):
        self._show = show
        self._total = total
        self._bar: Any = None
        if show and sys.stdout.isatty():
            self._bar = tqdm(total=total, initial=done, unit="step", file=sys.stdout, dynamic_ncols=True, smoothing=0.05)

    def say(self, line: str) -> None:
        """Prints a line, above the bar where there is one."""
        if self._show and line:
            if self._bar is not None:
                self._bar.write(line, file=sys.stdout)
            else:
                print(line, flush=True)

    def update(self, step: int, values: Mapping[str, float], timing: Mapping[str, float]) -> None:
        """Shows the training figures after `step` steps."""
        shown = {
            "loss": f"{values['loss']:.4f}",
            "lr": f"{values['lr']:.2e}",
            "images/s": f"{timing['images_per_second']:.0f}",
            "waiting": f"{timing['wait_share']:.0%}",
        }
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
            self._bar.set_postfix(shown)
        else:
            self.say(f"step {step}/{self._total}  " + "  ".join(f"{name} {value}" for name, value in shown.items()))

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class Stopwatch:
    """Wall-clock time of a window of steps: how much of it was spent waiting for data. Evaluations do not count."""

    def __init__(self, images_per_step: int):
        self._images_per_step = images_per_step
        self._begin()

    def _begin(self) -> None:
        self._start, self._waited, self._paused, self._steps = time.perf_counter(), 0.0, 0.0, 0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Time inside is waiting for data."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Time inside is not the training's."""
        start = time.perf_counter()
        yield
        self._paused += time.perf_counter() - start

    def step(self) -> None:
        self._steps += 1

    def read(self) -> dict[str, float]:
        """Figures since the last reading: `images_per_second`, `seconds_per_step`, `wait_share` (0..1)."""
        seconds = max(time.perf_counter() - self._start - self._paused, 1e-9)
        found = {
            "images_per_second": self._steps * self._images_per_step / seconds,
            "seconds_per_step": seconds / max(self._steps, 1),
            "wait_share": min(self._waited / seconds, 1.0),
        }
        self._begin()
        return found


@contextlib.contextmanager
def catch_stop_signals() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C or SIGTERM into a question the loop asks after each step; a second one ends at once.

    Outside the main thread, where Python allows no handlers, nothing is caught.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
