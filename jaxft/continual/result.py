"""What a stream of tasks gave: its tables as text and as JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np

from jaxft.continual.table import average_accuracy, backward_transfer, forgetting, table


@dataclasses.dataclass(frozen=True)
class Stream:
    """A stream of tasks as far as it went.

    Attributes:
      status: "finished" or "interrupted" (a signal; the same call goes on).
      names: of the tasks.
      split: what judges, "test" or "val", of each task.
      accuracy: [done, T], after each task that of every task so far, among the classes of all tasks so far; NaN of later ones.
      within: the same among the classes of the judged task alone; equal where all tasks have the same classes.
      method: see `METHODS`.
    """

    status: str
    names: tuple[str, ...]
    split: tuple[str, ...]
    accuracy: np.ndarray
    within: np.ndarray
    method: str

    def to_json(self) -> str:
        found: dict[str, Any] = {"method": self.method, "status": self.status, "tasks": self.names, "split": self.split}
        for kind, values in (("accuracy", self.accuracy), ("within", self.within)):
            found[kind] = {"rows": [[None if np.isnan(value) else float(value) for value in row] for row in values]}
            if done := len(values):
                square = values[:, :done]
                found[kind] |= {"average": average_accuracy(square), "forgetting": forgetting(square)}
                found[kind] |= {"backward_transfer": backward_transfer(square)}
        return json.dumps(found, indent=1)

    def __str__(self) -> str:
        if not len(self.accuracy):
            return "no task is finished yet"
        judged = ", ".join(f"{name}: {split}" for name, split in zip(self.names, self.split, strict=True))
        lines = [f"{self.method}; accuracy on the splits {judged}", "", "among all classes so far"]
        lines += table(self.accuracy, self.names)
        if not np.array_equal(self.within, self.accuracy, equal_nan=True):
            lines += ["", "among the task's own classes", *table(self.within, self.names)]
        return "\n".join(lines)
