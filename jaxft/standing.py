"""What a run knows besides its state: which phase it is in, which step judged best, the figures not logged yet."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxft.metrics import merge
from jaxft.optim.schedules import Plateau, PlateauState
from jaxft.typing import Metrics


@dataclasses.dataclass
class Standing:
    """Saved with each checkpoint: with it a resumed run goes on exactly.

    Attributes:
      phase: whose optimizer state the checkpoint holds.
      best_step: step that judged best on the validation split; None while no evaluation was finite.
      best: its figure, negated where less is better.
      earlier: what was the best before, [step, figure] each.
      stale: evaluations in this phase since the last gain.
      plateau, factor: what lowers the phase's rate remembers, and what the rate is multiplied by (see `jaxft.optim.schedules`).
      collected: the training metrics since the last log line, leaf by leaf, as numbers that JSON keeps exactly.
    """

    phase: str
    best_step: int | None = None
    best: float | None = None
    earlier: list[list[float]] = dataclasses.field(default_factory=list)
    stale: int = 0
    collected: list[list[float]] | None = None
    plateau: PlateauState | None = None
    factor: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.plateau, dict):  # out of a checkpoint
            self.plateau = PlateauState(**self.plateau)

    def enter(self, phase: str) -> None:
        """Another phase begins."""
        self.phase, self.stale, self.plateau, self.factor = phase, 0, None, 1.0

    def follow(self, metrics: Mapping[str, float], plateau: Plateau | None, lr: float, monitor: str) -> bool:
        """After an evaluation: whether the rate changes.

        Args:
          metrics: figure -> value.
          plateau: of the phase; None changes nothing.
          lr: the phase's peak rate.
          monitor: the figure that counts.
        """
        if plateau is None:
            return False
        before = self.plateau or PlateauState(lr)
        self.plateau = plateau(before, metrics[monitor])
        self.factor = self.plateau.lr / lr
        return self.plateau.lr != before.lr

    def judge(self, metrics: Mapping[str, float], step: int, *, monitor: str, mode: str, min_delta: float) -> bool:
        """Compares an evaluation with the best so far; returns whether it is a gain.

        Args:
          metrics: figure -> value.
          step: steps made.
          monitor: the figure that counts.
          mode: "max" or "min", which is better.
          min_delta: what a gain must exceed.
        """
        value = metrics[monitor] if mode == "max" else -metrics[monitor]
        # All of them: with NaN for logits the accuracy is a number still.
        finite = all(math.isfinite(found) for found in metrics.values())
        gained = finite and (self.best is None or value > self.best + min_delta)
        if gained:
            if self.best_step is not None and self.best is not None:
                self.earlier.append([self.best_step, self.best])
            self.best, self.best_step = value, step
        self.stale = 0 if gained else self.stale + 1
        return gained

    def forget(self, step: int) -> None:
        """The checkpoint of `step` is lost: where it was the best, the one before it is that again."""
        self.earlier = [kept for kept in self.earlier if kept[0] != step]
        if self.best_step == step:
            last = self.earlier.pop() if self.earlier else None
            self.best_step, self.best = (int(last[0]), last[1]) if last else (None, None)

    def collect(self, metrics: Sequence[Any]) -> None:
        """Keeps the metrics of the steps since the last log line, merged."""
        if not metrics:
            self.collected = None
            return
        merged = merge(jax.device_get(list(metrics)))
        self.collected = [np.asarray(leaf, np.float64).ravel().tolist() for leaf in jax.tree.leaves(merged)]

    def collection(self, kind: Metrics) -> list[Any]:
        """What `collect` kept, as a collection of the class `kind`."""
        if self.collected is None:
            return []
        leaves, treedef = jax.tree.flatten(jax.eval_shape(kind.empty))
        kept = zip(self.collected, leaves, strict=True)
        values = [np.asarray(value, leaf.dtype).reshape(leaf.shape) for value, leaf in kept]
        return [jax.tree.unflatten(treedef, values)]
