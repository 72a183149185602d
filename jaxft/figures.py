"""The training figures on their way from the device to the log, late enough that the device never waits for the host."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxft.compiling import Compiles
from jaxft.errors import JaxftError
from jaxft.log import RunLog
from jaxft.metrics import merge, to_floats
from jaxft.progress import Progress, Stopwatch

#: Steps whose figures stay on the device. The host is at most so many steps ahead of it, and so are the batches that lie there.
AHEAD = 8


@dataclasses.dataclass(frozen=True)
class Window:
    """The steps that make one log line, not fetched yet. `lr` may still be on the device."""

    step: int
    phase: str
    collected: list[Any]
    lr: Any


class Figures:
    """Training figures of the run: collected every step, written at log points, fetched when the device has its next step.

    Args:
      log, progress: where lines go.
      watch, compiles: read for each line.
      newest: tells the newest checkpoint's step, for the message of a run that diverges.
    """

    def __init__(
        self, log: RunLog, progress: Progress, watch: Stopwatch, compiles: Compiles, newest: Callable[[], int | None]
    ) -> None:
        self._log, self._progress, self._watch, self._compiles, self._newest = log, progress, watch, compiles, newest
        self._due: Window | None = None
        #: Collections since the last log line, the first one perhaps of many steps.
        self.collected: list[Any] = []

    def add(self, metrics: Any) -> None:
        """One more step. What lies `AHEAD` steps back is merged on the host, in order, while the device works."""
        self.collected.append(metrics)
        if len(self.collected) > AHEAD + 1:
            self.collected[:2] = [_merged(self.collected[:2])]

    def end_window(self, step: int, phase: str, lr: Any) -> None:
        """Step `step` is a log point. Its line is written by the next `settle`."""
        self._due, self.collected = Window(step, phase, self.collected, lr), []

    def settle(self) -> None:
        """Waits for the window that has ended, where there is one, and writes its line.

        Raises:
          JaxftError: the loss is not finite.
        """
        if self._due is None:
            return
        due, self._due = self._due, None
        values = to_floats(_merged(due.collected))
        values["lr"] = float(due.lr)
        timing = {**self._watch.read(), **self._compiles.read()}
        self._log.metrics(due.step, "train", values)
        self._log.timing(due.step, timing)
        self._progress.update(due.step, values, timing)
        if not math.isfinite(values["loss"]):
            raise JaxftError(
                f"the training loss is {values['loss']} at step {due.step}: lower config.phases.{due.phase}.lr or "
                f"set config.optim.clip_norm; the newest checkpoint is step {self._newest()}"
            )


def _merged(collections: list[Any]) -> Any:
    """Merges collections on the host. Leaf by leaf: `jax.device_get` costs several times as much on such small arrays."""
    return merge(jax.tree.map(np.asarray, collections))
