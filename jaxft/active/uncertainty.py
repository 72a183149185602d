"""How unsure a network is of an example, from its probabilities (Settles, Active Learning Literature Survey, 2009, 3.1).

Each gives [N] f64, and the larger it is the sooner the example is chosen. `probabilities` [N, K] sum to 1 along K.
"""

from __future__ import annotations

import numpy as np


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """`-sum p log p` in nats (Shannon, 1948); `0 log 0` is 0."""
    p = np.asarray(probabilities, np.float64)
    return -np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0).sum(-1)


def least_confidence(probabilities: np.ndarray) -> np.ndarray:
    """`1 - max p`."""
    return 1 - np.asarray(probabilities, np.float64).max(-1)


def margin(probabilities: np.ndarray) -> np.ndarray:
    """`1 - (p1 - p2)`, of the two likeliest classes (Scheffer et al., 2001, choose the smallest `p1 - p2`); K is at least 2."""
    first_two = np.partition(np.asarray(probabilities, np.float64), -2, axis=-1)[..., -2:]
    return 1 - (first_two[..., 1] - first_two[..., 0])


def most(scores: np.ndarray, count: int) -> np.ndarray:
    """Positions of the `count` largest scores [N], the largest first, equal ones in their order; all where there are fewer."""
    return np.argsort(-np.asarray(scores), kind="stable")[:count]
