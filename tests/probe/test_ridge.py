"""Ridge regression equals scikit-learn's."""

import numpy as np
import pytest
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from jaxft.errors import JaxftError
from jaxft.probe import ridge_path

X, Y = load_diabetes(return_X_y=True, scaled=False)


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("count", [442, 7])
def test_kernel_and_bias_are_those_of_scikit_learn_also_with_fewer_examples_than_features(standardize, count):
    x, y = X[:count], Y[:count]
    penalties = [1e-2, 1.0, 1e3]
    seen = StandardScaler().fit(x).transform if standardize else lambda rows: rows
    for alpha, found in zip(penalties, ridge_path(x, y, penalties, standardize=standardize, block=5), strict=True):
        expected = Ridge(alpha=alpha, solver="svd").fit(seen(x), y)
        np.testing.assert_allclose(found.logits(X)[:, 0], expected.predict(seen(X)), rtol=1e-6)
        if not standardize:
            np.testing.assert_allclose(found.kernel[:, 0], expected.coef_, rtol=1e-5, atol=1e-8)


def test_what_does_not_fit_is_one_clear_line():
    with pytest.raises(JaxftError, match="alpha is 0: it must be positive"):
        ridge_path(X, Y, [1, 0])
    with pytest.raises(JaxftError, match=r"features \[442, 10\] and values \[3\]"):
        ridge_path(X, Y[:3], [1])
