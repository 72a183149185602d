"""A contact sheet: what the network saw, what it said, what was right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxft.data import Source, decode
from jaxft.evaluate import Evaluation, scores
from jaxft.report.grid import GREEN, INK, RED, Cell, draw_grid
from jaxft.tasks import Task


def write_samples(
    path: Path, evaluation: Evaluation, source: Source, task: Task, class_names: Sequence[str], *, count: int = 24
) -> None:
    """Draws evenly spaced examples of a split with the network's answers (single-label tasks only)."""
    if task.name not in ("classify", "soft"):
        return
    chosen = np.unique(np.linspace(0, evaluation.count - 1, min(count, evaluation.count)).astype(int))
    probability = scores.softmax(evaluation.logits[chosen])
    labels = evaluation.labels[chosen]
    truths = labels.argmax(-1) if labels.ndim == 2 else labels  # of soft labels, the largest share
    guesses = probability.argmax(-1)
    draw_samples(
        path,
        [decode(source[int(evaluation.index[row])][0], 3) for row in chosen],
        [class_names[int(truth)] for truth in truths],
        [class_names[int(guess)] for guess in guesses],
        [float(value) for value in probability.max(-1)],
    )


def draw_samples(
    path: Path,
    images: Sequence[np.ndarray],
    truths: Sequence[str],
    guesses: Sequence[str],
    probabilities: Sequence[float],
    *,
    columns: int = 6,
) -> None:
    """Writes a PNG with one cell an image: prediction and probability below it, the truth too where they differ.

    Args:
      path: the PNG.
      images: uint8 [H, W, 1 or 3] each.
      truths, guesses: class names.
      probabilities: of the guesses, 0..1.
      columns: cells in a row.
    """
    cells = []
    for image, truth, guess, probability in zip(images, truths, guesses, probabilities, strict=True):
        said = f"{guess} {probability:.0%}"
        if truth == guess:
            cells.append(Cell(image, ((said, GREEN),)))
        else:
            cells.append(Cell(image, ((said, RED), (f"is {truth}", INK)), frame=RED))
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    draw_grid(path, rows, columns=columns, lines=2)
