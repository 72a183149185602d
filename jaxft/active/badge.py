"""BADGE: a batch that is uncertain and diverse at once (Ash et al., Deep Batch Active Learning by Diverse, Uncertain Gradient
Lower Bounds, ICLR 2020).
"""

from __future__ import annotations

import numpy as np

from jaxft.errors import JaxftError


def badge(probabilities: np.ndarray, features: np.ndarray, count: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Chooses examples by k-means++ (Arthur & Vassilvitskii, 2007) among their gradient embeddings.

    The embedding of an example is the gradient of its cross-entropy by the last layer's kernel, its label taken to be the
    likeliest class: `(p - onehot(argmax p)) x h` [K * D], with `h` what the last layer reads. It is never made: of two outer
    products `a x h` the squared distance is `|a|^2 |h|^2 + |a'|^2 |h'|^2 - 2 (a . a') (h . h')`.

    The first is drawn uniformly, each other one with a probability proportional to its squared distance from the nearest one
    that was drawn, by the same numbers as scikit-learn's `kmeans_plusplus(embeddings, count, n_local_trials=1,
    random_state=seed)`. (The authors' program begins with the longest embedding; the paper with k-means++.)

    Args:
      probabilities: p, [N, K].
      features: h, [N, D].
      count: how many; all where there are fewer.
      seed: of the draws.

    Returns:
      Positions, in the order drawn; and of each the squared distance that it was drawn for, infinite of the first.

    Raises:
      JaxftError: not as many probabilities as features.
    """
    p, h = np.asarray(probabilities, np.float64), np.asarray(features, np.float64)
    if p.ndim != 2 or h.ndim != 2 or len(p) != len(h):
        raise JaxftError(f"probabilities {list(p.shape)} and features {list(h.shape)} must be [N, K] and [N, D]")
    count, rng = min(count, len(p)), np.random.RandomState(seed)
    chosen, distances = np.zeros(count, int), np.full(count, np.inf)
    if not count:
        return chosen, distances
    residual = p.copy()
    residual[np.arange(len(p)), p.argmax(-1)] -= 1
    lengths = (residual**2).sum(-1) * np.einsum("nd,nd->n", h, h)
    # What scikit-learn draws for its first centre: a choice by equal weights.
    chosen[0] = rng.choice(len(p), p=np.full(len(p), 1 / len(p)))
    nearest = _distances(residual, h, lengths, chosen[0])
    for place in range(1, count):
        drawn = rng.uniform(size=1) * nearest.sum()
        found = int(np.searchsorted(np.cumsum(nearest), drawn)[0]) if nearest.any() else len(nearest)
        if found >= len(nearest):  # all that are left lie on one that was drawn, or rounding went past the end
            left = np.setdiff1d(np.arange(len(nearest)), chosen[:place])
            found = int(left[np.argmax(nearest[left])])
        chosen[place], distances[place] = found, nearest[found]
        nearest = np.minimum(nearest, _distances(residual, h, lengths, found))
    return chosen, distances


def _distances(residual: np.ndarray, h: np.ndarray, lengths: np.ndarray, of: int) -> np.ndarray:
    """Squared distances [N] of all embeddings from one of them; rounding makes none negative, nor its own other than 0."""
    cross = (residual @ residual[of]) * (h @ h[of])
    found = np.maximum(lengths + lengths[of] - 2 * cross, 0)
    found[of] = 0
    return found
