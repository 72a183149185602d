"""What became of earlier tasks: accuracies of every task after every task, and figures of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxft.columns import aligned


def average_accuracy(accuracy: np.ndarray) -> float:
    """The mean over all tasks at the end.

    Args:
      accuracy: [T, T]; row i is after task i, column j of task j; what lies above the diagonal is not read.
    """
    return float(accuracy[-1].mean())


def forgetting(accuracy: np.ndarray) -> float:
    """How far each task but the last fell from its best (Chaudhry et al., 2018); 0 of a single task.

    The mean over tasks j of the greatest accuracy after the tasks j to T - 1, less that at the end; negative where it rose.
    """
    tasks = len(accuracy)
    if tasks < 2:
        return 0.0
    return float(np.mean([accuracy[task : tasks - 1, task].max() - accuracy[-1, task] for task in range(tasks - 1)]))


def backward_transfer(accuracy: np.ndarray) -> float:
    """What later tasks added to each task but the last (Lopez-Paz & Ranzato, 2017): the end less its own; 0 of one task."""
    tasks = len(accuracy)
    if tasks < 2:
        return 0.0
    return float(np.mean([accuracy[-1, task] - accuracy[task, task] for task in range(tasks - 1)]))


def table(accuracy: np.ndarray, names: Sequence[str]) -> list[str]:
    """The accuracies as text, and the three figures under them.

    Args:
      accuracy: [T, T], as of `average_accuracy`, or of fewer rows while the stream goes.
      names: of the T tasks.
    """
    rows = [("after", *names, "mean")]
    for done, values in enumerate(accuracy):
        seen = values[: done + 1]
        later = [""] * (len(names) - done - 1)
        rows.append((names[done], *(f"{value:.2%}" for value in seen), *later, f"{seen.mean():.2%}"))
    whole = accuracy[:, : len(accuracy)]
    figures = {
        "average accuracy": average_accuracy(whole),
        "forgetting": forgetting(whole),
        "backward transfer": backward_transfer(whole),
    }
    return [*aligned(rows, right=tuple(range(1, len(names) + 2))), *(f"{name} {value:.2%}" for name, value in figures.items())]
