"""Ridge regression of values on features, in closed form."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxft.errors import JaxftError
from jaxft.probe.linear import Linear, no_scaling, scaling


def ridge_path(
    features: np.ndarray, values: np.ndarray, penalties: Sequence[float], *, standardize: bool = False, block: int = 4096
) -> list[Linear]:
    """The minimum of ||y - X w - b||^2 + alpha ||w||^2 for each alpha, as scikit-learn's Ridge: the bias is free.

    One eigendecomposition of the features' covariance [D, D] serves all of them; sums are in f64, a block of rows at a time.

    Args:
      features: [N, D].
      values: [N].
      penalties: the values of alpha.
      standardize: solve it for features of mean 0 and standard deviation 1; what is given back takes features as they are.
      block: rows.

    Raises:
      JaxftError: shapes that do not fit, an alpha that is not positive.
    """
    values = np.asarray(values, np.float64)
    if np.ndim(features) != 2 or values.shape != (len(features),) or not len(features):
        raise JaxftError(f"features {list(np.shape(features))} and values {list(values.shape)} must be [N, D] and [N]")
    if min(penalties) <= 0:
        raise JaxftError(f"alpha is {min(penalties)}: it must be positive")
    scale = scaling(features) if standardize else no_scaling(features.shape[1])
    centre = scaling(features).mean
    centred = values - values.mean()
    width = features.shape[1]
    covariance, products = np.zeros((width, width)), np.zeros(width)
    for start in range(0, len(features), block):
        x = (np.asarray(features[start : start + block], np.float64) - centre) / scale.std
        covariance += x.T @ x
        products += x.T @ centred[start : start + block]
    spread, axes = np.linalg.eigh(covariance)
    along = axes.T @ products
    found = []
    for alpha in penalties:
        kernel = axes @ (along / (np.maximum(spread, 0) + alpha)) / scale.std
        found.append(Linear(kernel[:, None], np.array([values.mean() - centre @ kernel])))
    return found
