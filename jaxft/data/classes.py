"""How many training examples each class has, and what to say where they are unequal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: Examples of the largest class for one of the smallest, from which on the user is told.
UNEQUAL = 3


def class_counts(labels: np.ndarray, num_classes: int) -> np.ndarray | None:
    """Examples of each class, f64 [K]: of soft labels the sum of their shares, of multi-label targets the positives.

    Args:
      labels: [N] int or [N, K]; of a regression, [N] float, there are no classes: None.
      num_classes: K.
    """
    if labels.ndim == 2:
        return labels.sum(0, dtype=np.float64)
    if labels.dtype.kind not in "iu":
        return None
    return np.bincount(labels, minlength=num_classes).astype(np.float64)


def imbalance(counts: np.ndarray, class_names: Sequence[str]) -> str:
    """A line on the largest and the smallest class that has examples; "" where they differ by less than `UNEQUAL` times."""
    present = np.flatnonzero(counts)
    if not len(present):
        return ""
    most, least = present[counts[present].argmax()], present[counts[present].argmin()]
    ratio = counts[most] / counts[least]
    if ratio < UNEQUAL:
        return ""
    return (
        f"classes are unequal: '{class_names[most]}' has {counts[most]:,.0f} training examples, {ratio:.3g} for each of the "
        f"{counts[least]:,.0f} of '{class_names[least]}'"
    )
