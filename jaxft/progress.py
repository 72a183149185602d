"""What a person sees of a run while it goes, how time is measured, and how a run is asked to stop."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils
from tqdm import tqdm


class Progress:
    """A progress bar on a terminal, plain lines otherwise. Silent on every process but the first."""

    def __init__(self, total: int, *, show: bool = True):
        self._show = show
        self._total = total
        self._bar: Any = None

    def begin(self, done: int) -> None:
        """The steps begin, `done` of them made before."""
        if self._show and sys.stdout.isatty():
            self._bar = tqdm(total=self._total, initial=done, unit="step", file=sys.stdout, dynamic_ncols=True, smoothing=0.05)

    def say(self, line: str) -> None:
        """Prints a line, above the bar where there is one. An output that takes no more (its reader is gone, its disk is full)
        ends no run: the rest is not shown."""
        if self._show and line:
            try:
                if self._bar is not None:
                    self._bar.write(line, file=sys.stdout)
                else:
                    print(line, flush=True)
            except OSError as error:
                self._silence(error)

    def _silence(self, error: OSError) -> None:
        self._show, self._bar = False, None
        # What Python still holds for the output must not fail again, when the program ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        with contextlib.suppress(OSError):  # where both go to the same place
            line = f"the output takes no more ({error.strerror}): the run goes on without it"
            print(f"jaxft: {line}", file=sys.stderr, flush=True)

    def update(self, step: int, values: Mapping[str, float], timing: Mapping[str, float]) -> None:
        """Shows the training figures after `step` steps."""
        shown = {
            "loss": f"{values['loss']:.4f}",
            "lr": f"{values['lr']:.2e}",
            "images/s": f"{timing['images_per_second']:.0f}",
            "waiting": f"{timing['wait_share']:.0%}",
        }
        if self._bar is not None:
            try:
                self._bar.update(step - self._bar.n)
                self._bar.set_postfix(shown)
            except OSError as error:
                self._silence(error)
        else:
            self.say(f"step {step}/{self._total}  " + "  ".join(f"{name} {value}" for name, value in shown.items()))

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class Stopwatch:
    """Wall-clock time of a window of steps: how much of it the device stood idle for data. Evaluations do not count."""

    def __init__(self, images_per_step: int):
        self._images_per_step = images_per_step
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="jaxft-stopwatch")
        self.restart()

    def restart(self) -> None:
        """A new window begins."""
        self._start, self._paused, self._steps = time.perf_counter(), 0.0, 0
        self._waits: list[tuple[float, float, Future[float] | None]] = []

    def close(self) -> None:
        self._thread.shutdown()

    @contextlib.contextmanager
    def waiting(self, running: Any = None) -> Iterator[None]:
        """Time inside is waiting for data, from the moment on when the device has nothing to do.

        Args:
          running: what the device makes last; as long as it is not ready, nothing is lost by waiting.
        """
        # A thread of its own is to see when it is ready: the loop does not wait for it, it waits for data.
        busy = running is not None and not running.is_ready()
        ready = self._thread.submit(_ready_at, running) if busy else None
        start = time.perf_counter()
        yield
        self._waits.append((start, time.perf_counter(), ready))

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
        waited = 0.0
        for start, end, ready in self._waits:
            idle = start if ready is None else max(start, ready.result())
            waited += max(end - idle, 0.0)
        found = {
            "images_per_second": self._steps * self._images_per_step / seconds,
            "seconds_per_step": seconds / max(self._steps, 1),
            "wait_share": min(waited / seconds, 1.0),
        }
        self.restart()
        return found


def _ready_at(running: Any) -> float:
    jax.block_until_ready(running)
    return time.perf_counter()


class StopSignals:
    """Turns the first Ctrl-C or SIGTERM into a question the loop asks after each step; a second one ends at once.

    A terminal that is closed (SIGHUP, sent twice by some shells) asks too, unless `nohup` or the like has it ignored.

    In several processes a signal to any of them stops all, at the same step: JAX's distributed runtime takes SIGTERM itself,
    and agrees on a step that none of them has reached yet (`multihost_utils.reached_preemption_sync_point`).
    Outside the main thread, where Python allows no handlers, nothing is caught.

    Args:
      step: steps made so far.
    """

    def __init__(self, step: int) -> None:
        self._asked = threading.Event()
        self._agreed, self._step = jax.process_count() > 1, step
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            # A handler of Python's for SIGTERM would take the place of the runtime's.
            caught = [signal.SIGINT] if self._agreed else [signal.SIGINT, signal.SIGTERM]
            if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
                caught.append(signal.SIGHUP)
            self._before = {number: signal.signal(number, self._handle) for number in caught}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._asked.is_set():
            if number == signal.SIGHUP:
                return
            raise KeyboardInterrupt
        self._asked.set()
        if self._agreed:
            os.kill(os.getpid(), signal.SIGTERM)

    def asked(self) -> bool:
        """Whether this process was asked to stop."""
        return self._asked.is_set()

    def asked_at(self, step: int) -> bool:
        """Whether to stop after `step` steps: in several processes it is the same in all."""
        if not self._agreed:
            return self.asked()
        # The step agreed on may be one that was jumped over.
        passed, self._step = range(self._step + 1, step + 1), step
        return any(multihost_utils.reached_preemption_sync_point(number) for number in passed)

    def close(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
