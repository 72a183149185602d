"""Bootstrap confidence intervals over examples (Efron, 1979), by the percentile method."""

from __future__ import annotations

import numpy as np

from jaxft.errors import JaxftError


def bootstrap_interval(values: np.ndarray, *, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """Interval of the mean of `values` [N] (e.g. 1 where a prediction is right) under resampling of the examples.

    Raises:
      JaxftError: no values, or a level outside (0, 1).
    """
    values = np.asarray(values, np.float64)
    if not values.size:
        raise JaxftError("an interval needs at least one example")
    if not 0 < level < 1:
        raise JaxftError(f"level is {level}: it must lie between 0 and 1")
    rng = np.random.default_rng(seed)
    # Few distinct values (0 and 1): their counts are multinomial, which needs no [resamples, N] array of indices.
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) <= 64:
        drawn = rng.multinomial(len(values), counts / len(values), size=resamples)
        means = drawn @ distinct / len(values)
    else:
        means = np.array([values[rng.integers(0, len(values), len(values))].mean() for _ in range(resamples)])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_difference(
    before: np.ndarray, after: np.ndarray, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Interval of the mean of `after - before`, both [N] over the same examples (paired)."""
    if np.shape(before) != np.shape(after):
        raise JaxftError(f"paired values must be of the same examples: {np.shape(before)} against {np.shape(after)}")
    difference = np.asarray(after, np.float64) - np.asarray(before, np.float64)
    return bootstrap_interval(difference, level=level, resamples=resamples, seed=seed)
