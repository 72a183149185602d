"""The training figures on their way from the device to the log, late enough that the device never waits for the host."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
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
#: Steps in a row that may be skipped as not finite.
MOST_SKIPPED = 10


@dataclasses.dataclass(frozen=True)
class Window:
    """The steps that make one log line, not fetched yet. `lr` may still be on the device."""

    step: int
    phase: str
    collected: list[Any]
    lr: Any


@dataclasses.dataclass(frozen=True)
class BadStep:
    """A step whose loss or gradient held a NaN or an infinity.

    Attributes:
      step: its number, counted from 1.
      found: what was not finite first: the loss, or the gradient of a trained leaf; and how much else.
      examples: of its batch, their positions in the training data.
    """

    step: int
    found: str
    examples: tuple[int, ...]

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.examples[:16]))
        more = f" and {len(self.examples) - 16} more" if len(self.examples) > 16 else ""
        return f"step {self.step} is not finite: {self.found}; its batch held the examples {shown}{more}"


class Figures:
    """Training figures of the run: collected every step, written at log points, fetched when the device has its next step.

    Each step's are looked at before the next log line, evaluation or checkpoint, and at most `AHEAD` steps late: what is not
    finite is found at the step where it appears, and nothing that came after it is written.

    Args:
      log, progress: where lines go.
      watch, compiles: read for each line.
      nonfinite: "stop": such a step is an error; "skip": it is told (the step itself skips); "rollback": it is kept in `bad`.
      examples: the positions of the examples in the batch of a step, counted from 1.
      newest: tells the newest checkpoint's step, for the message of a run that diverges.
    """

    def __init__(
        self,
        log: RunLog,
        progress: Progress,
        watch: Stopwatch,
        compiles: Compiles,
        *,
        nonfinite: str,
        examples: Callable[[int], Sequence[int]],
        newest: Callable[[], int | None],
    ) -> None:
        self._log, self._progress, self._watch, self._compiles = log, progress, watch, compiles
        self._nonfinite, self._examples, self._newest = nonfinite, examples, newest
        self._leaves: list[str] = []
        self._skipped = 0  # in a row
        #: The first step that was not finite, to be rolled back.
        self.bad: BadStep | None = None
        self.begin([], [])

    def begin(
        self, leaves: Sequence[str], collected: list[Any], advise: Callable[[Mapping[str, float]], str] | None = None
    ) -> None:
        """Steps of other leaves follow, or steps out of a checkpoint.

        Args:
          leaves: '/' paths of the trained ones, in the order of `jax.tree.leaves`.
          collected: figures since the last log line.
          advise: what to say of the timing of a line; its first line that is not empty is said.
        """
        self._leaves, self.bad = list(leaves), None
        self._advise = advise
        self._due: Window | None = None
        self._unseen: collections.deque[tuple[int, Any]] = collections.deque()
        #: Collections since the last log line, the first one perhaps of many steps.
        self.collected = collected

    def add(self, step: int, metrics: Any) -> None:
        """Step `step` is under way. What lies `AHEAD` steps back is merged on the host, in order, while the device works."""
        self.collected.append(metrics)
        self._unseen.append((step, metrics))
        if len(self._unseen) > AHEAD:
            self._look(*self._unseen.popleft())
        if len(self.collected) > AHEAD + 1:
            self.collected[:2] = [_merged(self.collected[:2])]

    def end_window(self, step: int, phase: str, lr: Any) -> None:
        """Step `step` is a log point. Its line is written by the next `settle`; there is none where no step belongs to it."""
        if not self.collected:
            return
        self._due, self.collected = Window(step, phase, self.collected, lr), []

    def look(self) -> None:
        """Waits for all steps under way, and sees whether they are finite.

        Raises:
          JaxftError: one is not, where that ends the run.
        """
        while self._unseen:
            self._look(*self._unseen.popleft())

    def settle(self) -> None:
        """Waits for the window that has ended, where there is one, and writes its line.

        Raises:
          JaxftError: a step is not finite, where that ends the run.
        """
        if self._due is None:
            return
        while self._unseen and self._unseen[0][0] <= self._due.step:
            self._look(*self._unseen.popleft())
        if self.bad is not None:
            return
        due, self._due = self._due, None
        with np.errstate(invalid="ignore"):
            values = to_floats(_merged(due.collected))
        if not math.isfinite(values["loss"]):
            return  # every step of it was skipped
        values["lr"] = float(due.lr)
        timing = {**self._watch.read(), **self._compiles.read()}
        self._log.metrics(due.step, "train", values)
        self._log.timing(due.step, timing)
        self._progress.update(due.step, values, timing)
        if self._advise is not None and (line := self._advise(timing)):
            self._progress.say(line)
            self._advise = None

    def _look(self, step: int, metrics: Any) -> None:
        """Waits for a step, and sees whether it is finite."""
        found = metrics.nonfinite
        if not np.asarray(found.steps):
            self._skipped = 0
            return
        if self.bad is not None:
            return  # what follows a bad step is bad
        others = int(np.asarray(found.leaves)) - 1
        first = int(np.asarray(found.first))
        what = f"the gradient of {self._leaves[first - 1]}" if first else "the loss"
        more = f", and {others} of {len(self._leaves)} gradients" if others else ""
        bad = BadStep(step, what + more, tuple(int(index) for index in self._examples(step)))
        self._skipped += 1
        if self._nonfinite == "rollback":
            self.bad = bad
            return
        if self._nonfinite == "skip" and self._skipped <= MOST_SKIPPED:
            self._progress.say(f"{bad}; it is skipped")
            return
        self.bad = bad  # no line is written any more
        again = f", the {self._skipped}th in a row" if self._nonfinite == "skip" else ""
        raise JaxftError(
            f"{bad}{again}. Look at them; lower the learning rate, set config.optim.clip_norm, or let such steps pass with "
            f"config.train.nonfinite='skip' or 'rollback'. The newest checkpoint is step {self._newest()}"
        )


def _merged(collections: list[Any]) -> Any:
    """Merges collections on the host. Leaf by leaf: `jax.device_get` costs several times as much on such small arrays."""
    return merge(jax.tree.map(np.asarray, collections))
