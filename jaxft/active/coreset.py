"""Core-set: examples such that none is far from a labelled one (Sener & Savarese, Active Learning for Convolutional Neural
Networks: A Core-Set Approach, ICLR 2018).
"""

from __future__ import annotations

import numpy as np

from jaxft.errors import JaxftError

#: Labelled examples held against all others at a time.
_CHUNK = 1024


def k_center_greedy(features: np.ndarray, labelled: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Chooses, again and again, the example that is farthest from all labelled and chosen ones: the paper's algorithm 1.

    The largest distance left is at most twice the least that any choice of as many could reach (Gonzalez, 1985). The paper's
    second, robust algorithm, an integer programme that leaves outliers out, is not here.

    Args:
      features: of the examples to choose from, [N, D].
      labelled: of those with a label, [M, D], M at least 1.
      count: how many; all where there are fewer.

    Returns:
      Positions, in the order chosen; and of each its Euclidean distance from the nearest labelled or chosen one.

    Raises:
      JaxftError: no labelled examples, or of another width.
    """
    x, centres = np.asarray(features, np.float64), np.asarray(labelled, np.float64)
    if x.ndim != 2 or centres.ndim != 2 or x.shape[1] != centres.shape[1] or not len(centres):
        raise JaxftError(f"features {list(x.shape)} and labelled {list(centres.shape)} must be [N, D] and [M, D], M at least 1")
    squares = np.einsum("nd,nd->n", x, x)
    nearest = np.full(len(x), np.inf)
    for start in range(0, len(centres), _CHUNK):
        nearest = np.minimum(nearest, _distances(x, squares, centres[start : start + _CHUNK]).min(1))
    count = min(count, len(x))
    chosen, distances = np.zeros(count, int), np.zeros(count)
    free = np.ones(len(x), bool)
    for place in range(count):
        found = int(np.where(free, nearest, -1.0).argmax())
        chosen[place], distances[place], free[found] = found, np.sqrt(nearest[found]), False
        nearest = np.minimum(nearest, _distances(x, squares, x[found : found + 1])[:, 0])
    return chosen, distances


def _distances(x: np.ndarray, squares: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Squared distances [N, C]; rounding makes none negative."""
    own = np.einsum("cd,cd->c", centres, centres)
    return np.maximum(squares[:, None] + own - 2 * (x @ centres.T), 0)
